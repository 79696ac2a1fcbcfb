/** From a fused group of graph nodes to loops. */
import { invariant, must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import { collapse } from "./collapse.js";
import { linearKey } from "./linear.js";
import { NodeLowering, prefixOf } from "./lower-node.js";
import { flatten, unflatten } from "./movement.js";
import type { LoopKernel, LoopNest, Section, Store } from "./nest.js";
import type { Coordinates } from "./refinement.js";
import { Refinement } from "./refinement.js";
import { schedule } from "./schedule.js";
import { stageReductions } from "./staging.js";
import type { Loop } from "./value.js";
import { ValueGraph } from "./value.js";

const mostRefinements = 64;

/** Loops that compute a kernel's outputs. Fails with an internal error where the group cannot be one kernel. */
export function lowerLoops(kernel: LoopKernel): LoopNest {
  const { graph, sections: made } = lowerRefined(kernel);
  const workspace = { elements: 0 };
  const sections = made.flatMap((section) => stageReductions(collapse(section, graph), graph, workspace));
  return { kernel, sections, stages: sections.map(schedule), workspaceBytes: workspace.elements * 4 };
}

/** Lowers again and again, until no axis wants to be split or cut any further. */
function lowerRefined(kernel: LoopKernel): { graph: ValueGraph; sections: Section[] } {
  const refinement = new Refinement();
  for (let attempt = 0; attempt < mostRefinements; attempt++) {
    refinement.begin();
    const graph = new ValueGraph();
    const sections = lowerOnce(kernel, graph, refinement);
    if (!refinement.changed) return { graph, sections };
  }
  invariant(false, "the axes of a generated kernel settle");
}

function lowerOnce(kernel: LoopKernel, graph: ValueGraph, refinement: Refinement): Section[] {
  const inputs = new Map(kernel.inputs.map((node, index) => [node, index]));
  const lowering = new NodeLowering(graph, inputs, refinement);
  const { shape } = kernel.outputs.reduce((a, b) => (elements(b.shape) > elements(a.shape) ? b : a));
  const { common, parts } = refinement.combinations("a", shape, 0);
  const stored = new Set<string>();
  const pieces = parts.map((part) => {
    const stores = kernel.outputs
      .map((output, index) => storeOf(lowering, output, index, shape, part))
      .filter((store) => isNew(store, stored));
    return { loops: loopsOf(part, common), lanes: false, stores };
  });
  const shared = loopsOf(must(parts[0], "part"), 0).slice(0, common);
  if (pieces.every((piece) => piece.loops.length === 0)) {
    const stores = pieces.flatMap((piece) => piece.stores);
    return [{ barrier: false, shared, pieces: [{ loops: [], lanes: false, stores }] }];
  }
  if (shared.length > 0) return [{ barrier: false, shared, pieces }];
  return pieces.map((piece) => ({ barrier: false, shared: piece.loops, pieces: [{ ...piece, loops: [] }] }));
}

/** A row's statistic is stored by the first piece only. */
function isNew(store: Store, stored: Set<string>): boolean {
  const key = `${JSON.stringify(store.target)} ${linearKey(store.offset)}`;
  const fresh = !stored.has(key);
  stored.add(key);
  return fresh;
}

function loopsOf(part: Coordinates, from: number): Loop[] {
  return part.variables.slice(from).map((variable) => ({ variable }));
}

function storeOf(
  lowering: NodeLowering,
  output: Node,
  index: number,
  shape: readonly number[],
  part: Coordinates,
): Store {
  const length = prefixOf(shape, output);
  const position = flatten(part.indices.slice(0, length), shape.slice(0, length));
  const value = lowering.value(output, unflatten(position, output.shape, lowering.request), []);
  return { target: { kind: "output", index }, memory: output.dtype, offset: position, value };
}
