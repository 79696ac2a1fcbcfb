import { ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import { reachable } from "../ir/node.js";
import type { Phase, Program } from "../ir/program.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { storageOf } from "./kernels.js";

/** When the values of a program of several phases are made, and until when they can be made again. */
export interface Phases {
  /** The first phase that needs a value: its kernel belongs there. */
  of(node: Node): number;
  /**
   * Values that must lie in memory: a later phase reads them, and cannot compute them itself, because a leaf that they
   * come from holds another value by then.
   */
  readonly kept: ReadonlySet<Node>;
}

/** Found out once, before fusion; with a single phase there is nothing to find out. */
export function phasesOf(program: Program): Phases {
  if (program.phases.length <= 1) return { of: () => 0, kept: new Set() };
  const first = new Map<Node, number>();
  program.phases.forEach((phase, index) => {
    for (const node of reachable(effectsOf(phase))) if (!first.has(node)) first.set(node, index);
  });
  const of = (node: Node): number => first.get(node) ?? 0;
  const nodes = [...first.keys()].sort((a, b) => a.id - b.id);
  return { of, kept: keptValues(program, nodes, of) };
}

function effectsOf(phase: Phase): Node[] {
  return [...phase.assignments.map(({ value }) => value), ...Object.values(phase.outputs)];
}

/** The last phase in which each value can be computed; what a kernel of its own makes lies in memory anyway. */
function lastComputable(program: Program, nodes: readonly Node[], of: (node: Node) => number): Map<Node, number> {
  const replaced = new Map<Node, number>();
  program.phases.forEach((phase, index) => {
    for (const { target } of phase.assignments) replaced.set(target, index);
  });
  const until = new Map<Node, number>();
  for (const node of nodes) {
    if (node.op === leafOp) until.set(node, replaced.get(node) ?? Infinity);
    else if (node.op.lowering.kind === "kernel") until.set(node, Infinity);
    else {
      // An input that cannot be computed in this node's own phase is one that is kept.
      const inputs = node.inputs.map((input) => until.get(input) ?? Infinity).filter((phase) => phase >= of(node));
      until.set(node, Math.min(Infinity, ...inputs));
    }
  }
  return until;
}

function keptValues(program: Program, nodes: readonly Node[], of: (node: Node) => number): Set<Node> {
  const until = lastComputable(program, nodes, of);
  const needed = new Map<Node, number>();
  const kept = new Set<Node>();
  for (const node of nodes.toReversed()) {
    const last = Math.max(needed.get(node) ?? 0, of(node));
    if ((until.get(node) ?? Infinity) < last) {
      if (storageOf(node).op === leafOp) refuseStale(program, storageOf(node));
      kept.add(node);
    }
    const inMemory = kept.has(node) || node.op.lowering.kind === "kernel";
    const reads = inMemory ? of(node) : last;
    for (const input of node.inputs) needed.set(input, Math.max(needed.get(input) ?? 0, reads));
  }
  return kept;
}

function refuseStale(program: Program, leaf: Node): never {
  const { name, version } = leafAttributes(leaf);
  throw new ThimbleError("phase-stale-read", "A phase reads a tensor that an earlier phase has replaced", {
    where: program.name,
    given: `${name}, version ${version}`,
    fix: "Read the version that holds in that phase, or compute what is needed of the old one in an earlier phase.",
  });
}
