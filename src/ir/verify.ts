import { invariant } from "../errors.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import type { Node } from "./node.js";
import { reachable } from "./node.js";
import type { Phase, Program } from "./program.js";
import { nodesOf, rootsOf } from "./program.js";
import { sameShape } from "./shape.js";

/** Nodes and programs are immutable, so what was found of one after one pass holds after the next. */
const sound = new WeakSet<Node | Program>();

/**
 * What holds for every program between passes: inputs come before their readers, node types are what the op's shape
 * rule says, effects go to leaves of the same type, no leaf is assigned twice in a phase, leaves are read and assigned
 * in the version that holds in their phase, the loss is a scalar.
 */
export function verifyProgram(program: Program): Program {
  if (sound.has(program)) return program;
  for (const root of rootsOf(program)) {
    if (root.graph !== program.graph) invariant(false, `${placeOf(root, program)} belongs to another graph`);
  }
  for (const node of nodesOf(program)) {
    if (!sound.has(node)) verifyNode(node, program);
    sound.add(node);
  }
  for (const phase of program.phases) verifyAssignments(phase, program);
  verifyVersions(program);
  invariant(
    program.loss === undefined || program.loss.shape.every((size) => size === 1),
    `${program.name}: loss is no scalar`,
  );
  sound.add(program);
  return program;
}

function placeOf(node: Node, program: Program): string {
  return `${program.name}: ${node.op.name} #${node.id} in ${node.scope}`;
}

function verifyNode(node: Node, program: Program): void {
  const ordered = node.inputs.every((input) => input.id < node.id);
  if (!ordered) invariant(false, `${placeOf(node, program)} comes before its input`);
  const types = node.op.infer(
    node.inputs.map((input) => ({ shape: input.shape, dtype: input.dtype })),
    node.attributes,
  );
  const agrees = types.every((type, index) => {
    const own = node.types[index];
    return own !== undefined && own.dtype === type.dtype && sameShape(own.shape, type.shape);
  });
  if (!agrees) invariant(false, `${placeOf(node, program)} does not have the type its op infers`);
}

function verifyAssignments(phase: Phase, program: Program): void {
  const targets = new Set<number>();
  for (const { target, value } of phase.assignments) {
    const place = `${program.name}: assignment to ${String(target.attributes["name"])}`;
    invariant(target.op === leafOp, `${place}: not a leaf`);
    invariant(!targets.has(target.id), `${place}: twice in one phase`);
    invariant(sameShape(target.shape, value.shape) && target.dtype === value.dtype, `${place}: of another type`);
    targets.add(target.id);
  }
}

/** A leaf first read in a phase, or assigned in it, has the version of as many assignments as came before. */
function verifyVersions(program: Program): void {
  const current = new Map<string, number>();
  const seen = new Set<Node>();
  for (const { assignments, outputs } of program.phases) {
    const targets = assignments.map(({ target }) => target);
    const effects = [...assignments.map(({ value }) => value), ...Object.values(outputs)];
    const nodes = program.phases.length === 1 ? nodesOf(program) : reachable(effects);
    const reads = nodes.filter((node) => node.op === leafOp && !seen.has(node));
    for (const node of [...reads, ...targets]) {
      const { name, version } = leafAttributes(node);
      const expected = current.get(name) ?? 0;
      invariant(version === expected, `${program.name}: ${name} has version ${version} where ${expected} holds`);
      seen.add(node);
    }
    for (const target of targets) {
      const { name, version } = leafAttributes(target);
      current.set(name, version + 1);
    }
  }
}
