import { leafAttributes, leafOp } from "../../ops/leaves.js";
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import type { Kernel } from "../../passes/kernels.js";
import type { ForwardValues } from "../../passes/saved.js";
import type { Rates } from "../predict.js";
import { kernelSeconds } from "../predict.js";
import { bytesOfNode } from "./stages.js";

/** The same value of every block. */
export interface ValueGroup {
  /** What people call it, as in `gate_proj`. */
  readonly name: string;
  /** By block; undefined where a block has no such value. */
  readonly nodes: readonly (Node | undefined)[];
}

/** Values of the blocks that backward could have kept, as groups. */
export function groupValues(blocks: readonly (readonly Node[])[], values: ForwardValues): ValueGroup[] {
  const groups = new Map<string, { name: string; nodes: (Node | undefined)[] }>();
  blocks.forEach((nodes, block) => {
    const counts = new Map<string, number>();
    for (const node of nodes) {
      const place = `${node.scope.replace(/blocks\.\d+/, "blocks")}:${node.op.name}`;
      const count = counts.get(place) ?? 0;
      counts.set(place, count + 1);
      const key = `${place}:${count}`;
      const group = groups.get(key) ?? {
        name: nameOf(node, must(values.producers.get(node), "producer")),
        nodes: new Array<Node | undefined>(blocks.length).fill(undefined),
      };
      groups.set(key, group);
      group.nodes[block] = node;
    }
  });
  return [...groups.values()];
}

/** A product is called after its weight, another value after what makes it. */
function nameOf(node: Node, kernel: Kernel): string {
  const part = /blocks\.\d+\.([^.:]+)/.exec(node.scope)?.[1] ?? "block";
  if (kernel.kind === "contraction") {
    const weights = kernel.segments.flatMap(({ a, b }) => [a.node, b.node]).filter((one) => one.op === leafOp);
    const largest = weights.reduce<Node | undefined>(
      (best, one) => (best !== undefined && elements(best.shape) >= elements(one.shape) ? best : one),
      undefined,
    );
    if (largest !== undefined) return moduleOf(leafAttributes(largest).name);
  }
  if (kernel.kind === "fixed")
    return kernel.outputs[0] === node ? kernel.node.op.name : `${kernel.node.op.name} statistics`;
  return `${part} ${node.op.name}`;
}

/** The last part of a tensor's name that names a module: `gate_proj` of `model.layers.0.mlp.gate_proj.lora_A.weight`. */
function moduleOf(name: string): string {
  const parts = name.split(".").filter((part) => !["weight", "bias", "default"].includes(part));
  const last = parts.at(-1) ?? name;
  return /^lora/i.test(last) ? `${parts.at(-2) ?? ""} ${last}` : last;
}

/** Which values of the blocks are kept; all others are made again from them. */
export type Kept = ReadonlySet<ValueGroup>;

export interface BlockCost {
  /** Bytes kept for backward. */
  readonly bytes: number;
  /** Seconds of making again. */
  readonly seconds: number;
}

/** What it takes, over all blocks, to keep these groups and make the rest again where backward reads it. */
export function costOf(groups: readonly ValueGroup[], kept: Kept, values: ForwardValues, rates: Rates): BlockCost {
  const inside = new Map<Node, ValueGroup>();
  for (const group of groups) for (const node of group.nodes) if (node !== undefined) inside.set(node, group);
  const needed = new Set<Node>();
  const remade = new Set<Kernel>();
  let [bytes, seconds] = [0, 0];
  const visit = (node: Node): void => {
    const group = inside.get(node);
    if (group === undefined || needed.has(node)) return;
    needed.add(node);
    if (kept.has(group)) {
      bytes += bytesOfNode(node);
      return;
    }
    const kernel = must(values.producers.get(node), "producer");
    if (remade.has(kernel)) return;
    remade.add(kernel);
    seconds += kernelSeconds(kernel, rates);
    kernel.inputs.forEach(visit);
  };
  for (const node of values.read) visit(node);
  return { bytes, seconds };
}

/**
 * Sets of kept groups from all to none, each a part of the one before: every next one drops what saves most bytes for
 * its seconds, alone or with one other group.
 */
export function dropLadder(all: readonly ValueGroup[], values: ForwardValues, rates: Rates): Kept[] {
  const typical = all.map((group) => ({ ...group, nodes: typicalOf(group.nodes), whole: group }));
  const whole = new Map<ValueGroup, ValueGroup>(typical.map((group) => [group, group.whole]));
  return ladderOf(typical, values, rates).map(
    (kept) => new Set([...kept].map((group) => must(whole.get(group), "group"))),
  );
}

/** Blocks are alike: two in the middle, since some models alternate between two kinds, stand for all. */
function typicalOf<T>(blocks: readonly T[]): readonly T[] {
  const middle = Math.max(0, Math.floor(blocks.length / 2) - 1);
  return blocks.slice(middle, middle + 2);
}

function ladderOf(groups: readonly ValueGroup[], values: ForwardValues, rates: Rates): Kept[] {
  const read = groups.filter(({ nodes }) => nodes.some((node) => node !== undefined && values.read.has(node)));
  const ladder: Kept[] = [new Set(read)];
  let current: Kept = new Set(read);
  let cost = costOf(groups, current, values, rates);
  while (current.size > 0) {
    let best: { kept: Kept; cost: BlockCost; ratio: number } | undefined;
    for (const drop of subsets([...current])) {
      const next = new Set([...current].filter((group) => !drop.includes(group)));
      const after = costOf(groups, next, values, rates);
      const saved = cost.bytes - after.bytes;
      if (saved <= 0) continue;
      const ratio = Math.max(0, after.seconds - cost.seconds) / saved;
      if (best === undefined || ratio < best.ratio) best = { kept: next, cost: after, ratio };
    }
    if (best === undefined) break;
    current = best.kept;
    cost = best.cost;
    ladder.push(current);
  }
  if (current.size > 0) ladder.push(new Set());
  return ladder;
}

/** Each alone, each pair, and all. */
function* subsets<T>(items: readonly T[]): Generator<readonly T[]> {
  for (const item of items) yield [item];
  for (const [index, item] of items.entries()) for (const other of items.slice(index + 1)) yield [item, other];
  if (items.length > 2) yield items;
}
