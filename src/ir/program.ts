import type { Graph, Node } from "./node.js";
import { reachable } from "./node.js";

/** `target` (a leaf) holds `value` when the phase has ended. */
export interface Assignment {
  readonly target: Node;
  readonly value: Node;
}

/**
 * A set of effects that happen together: every value is computed from what the leaves held before. Within a step of
 * several phases a leaf is read as (name, version), and an assignment makes the next version.
 */
export interface Phase {
  readonly assignments: readonly Assignment[];
  /** Values that the host reads after the program has run. */
  readonly outputs: Readonly<Record<string, Node>>;
}

/** One thing the runtime can run: a training step, an evaluation, one token of decoding. */
export interface Program {
  readonly name: string;
  readonly graph: Graph;
  readonly phases: readonly Phase[];
  /** What the forward pass ends in: everything that depends on it, or beside it, is the backward pass and update. */
  readonly loss?: Node;
  /** What the forward pass makes for the backward pass alone, where it keeps something else than it computes with. */
  readonly saved?: readonly Node[];
  /** Its passes through the model go side by side, block after block: what one reads of a block, all read in one visit. */
  readonly visits?: boolean;
  /** Gradients of trainables, for the memory report. */
  readonly gradients: readonly Node[];
}

export function rootsOf(program: Program): Node[] {
  return program.phases.flatMap((phase) => [
    ...phase.assignments.map((effect) => effect.value),
    ...Object.values(phase.outputs),
  ]);
}

/** What the forward pass is for: the loss, and what it makes for backward. None of a program without a loss. */
export function forwardEnds({ loss, saved = [] }: Program): Node[] {
  return loss === undefined ? [] : [loss, ...saved];
}

/** Programs are immutable, and every pass asks for their nodes. */
const known = new WeakMap<Program, readonly Node[]>();

/** All nodes that the program computes or reads, in topological order. */
export function nodesOf(program: Program): readonly Node[] {
  const nodes = known.get(program) ?? reachable(rootsOf(program));
  known.set(program, nodes);
  return nodes;
}

/** The program (itself, if nothing changes) with every node replaced by what `replace` returns for it and its already replaced inputs. */
export function rewriteProgram(program: Program, replace: (node: Node, inputs: readonly Node[]) => Node): Program {
  const changed = new Map<Node, Node>();
  const roots = [...rootsOf(program), ...program.gradients, ...forwardEnds(program)];
  for (const node of reachable(roots)) {
    const same = node.inputs.every((input) => !changed.has(input));
    const inputs = same ? node.inputs : node.inputs.map((input) => changed.get(input) ?? input);
    const result = replace(node, inputs);
    if (result !== node) changed.set(node, result);
  }
  if (changed.size === 0) return program;
  const renew = (node: Node): Node => changed.get(node) ?? node;
  return {
    ...program,
    phases: program.phases.map((phase) => ({
      assignments: phase.assignments.map(({ target, value }) => ({ target, value: renew(value) })),
      outputs: Object.fromEntries(Object.entries(phase.outputs).map(([name, node]) => [name, renew(node)])),
    })),
    gradients: program.gradients.map(renew),
    ...(program.loss === undefined ? {} : { loss: renew(program.loss) }),
    ...(program.saved === undefined ? {} : { saved: program.saved.map(renew) }),
  };
}

/** The node itself when its inputs did not change, else the same op on the new ones. */
export function rebuilt(node: Node, inputs: readonly Node[]): Node {
  if (node.inputs.every((input, index) => input === inputs[index])) return node;
  return node.graph.inScope(node.scope, () => node.graph.add(node.op, inputs, node.attributes));
}
