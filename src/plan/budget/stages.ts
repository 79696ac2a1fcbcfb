import { sizeOf } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import type { Kernel } from "../../passes/kernels.js";
import { blockOf } from "../../passes/saved.js";
import type { ForwardValues } from "../../passes/saved.js";

/** What is divided where: whole blocks, or a block's parts (its attention, its MLP). */
export type Division = "block" | "part";

/** The values of a forward pass by the repeated blocks of its model. */
export interface Stages {
  /** Blocks in the order of the model; each with the values made in it that no other block reads. */
  readonly blocks: readonly (readonly Node[])[];
  /** For each division: the stage of every value of a block, and for each stage but the first what it starts from. */
  readonly division: Readonly<Record<Division, DividedStages>>;
}

export interface DividedStages {
  readonly stageOf: ReadonlyMap<Node, number>;
  /** Values that the stage reads of the stage before it; empty for the first. */
  readonly inputs: readonly (readonly Node[])[];
}

export function bytesOfNode(node: Node): number {
  return elements(node.shape) * sizeOf(node.dtype);
}

/** The block and its part that a value belongs to, as in `blocks.3.mlp`. */
function partOf(node: Node): string | undefined {
  return /(?:^|\.)(blocks\.\d+\.[^.:]+)/.exec(node.scope)?.[1] ?? blockOf(node);
}

export function findStages({ forward, producers }: ForwardValues): Stages {
  const staged = [...producers.keys()].filter((node) => blockOf(node) !== undefined).sort((a, b) => a.id - b.id);
  const block = divide(producers, forward, blockOf);
  const part = divide(producers, forward, partOf);
  const crossing = new Set(block.inputs.flat());
  const outside = readOutside(forward, producers);
  const blocks: Node[][] = [];
  for (const node of staged) {
    const index = block.stageOf.get(node) ?? 0;
    const list = (blocks[index] ??= []);
    if (!crossing.has(node) && !outside.has(node)) list.push(node);
  }
  return { blocks, division: { block, part } };
}

function divide(
  producers: ReadonlyMap<Node, Kernel>,
  forward: ReadonlySet<Kernel>,
  nameOf: (node: Node) => string | undefined,
): DividedStages {
  const numbers = new Map<string, number>();
  const stageOf = new Map<Node, number>();
  for (const kernel of forward) {
    // A value that only backward names, such as an attention's row statistics, belongs where its kernel does.
    const name = kernel.outputs.map(nameOf).find((one) => one !== undefined);
    if (name === undefined) continue;
    const number = numbers.get(name) ?? numbers.size;
    numbers.set(name, number);
    for (const output of kernel.outputs) stageOf.set(output, number);
  }
  const inputs = Array.from({ length: numbers.size }, () => new Set<Node>());
  for (const kernel of forward) {
    const own = kernel.outputs.map((output) => stageOf.get(output)).find((stage) => stage !== undefined);
    if (own === undefined) continue;
    for (const input of kernel.inputs) {
      const from = producers.has(input) ? stageOf.get(input) : undefined;
      if (from !== undefined && from !== own) inputs[own]?.add(input);
    }
  }
  return { stageOf, inputs: inputs.map((set) => [...set]) };
}

/** Values that the forward pass reads outside of all blocks: they are kept. */
function readOutside(forward: ReadonlySet<Kernel>, producers: ReadonlyMap<Node, Kernel>): Set<Node> {
  const found = new Set<Node>();
  for (const kernel of forward) {
    if (kernel.outputs.some((output) => blockOf(output) !== undefined)) continue;
    for (const input of kernel.inputs) if (producers.has(input)) found.add(input);
  }
  return found;
}
