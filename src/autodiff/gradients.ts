import { must, ThimbleError } from "../errors.js";
import { isFloat } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { reachable } from "../ir/node.js";
import { reachableAbove } from "../ir/substitute.js";
import { add } from "../ops/arithmetic.js";
import { constant, resultOp } from "../ops/leaves.js";
import { seenByBackward } from "../ops/saved.js";

/** For each node that the loss depends on, whether a wanted leaf is below it: only these get gradients. */
function dependents(nodes: readonly Node[], wanted: ReadonlySet<Node>): Set<Node> {
  const found = new Set<Node>();
  for (const node of nodes) {
    if (wanted.has(node) || node.inputs.some((input) => found.has(input))) found.add(node);
  }
  return found;
}

/**
 * Reverse-mode differentiation, source to source: the gradients of a scalar loss by each of `wanted`, as new nodes.
 * Gradients are f32 whatever the type of the value. A wanted node that the loss does not depend on has gradient 0.
 */
export function gradients(loss: Node, wanted: readonly Node[]): Node[] {
  if (loss.shape.length !== 0 && loss.shape.some((size) => size !== 1)) {
    throw new ThimbleError("shape", "Only a scalar has gradients", {
      given: `[${loss.shape.join(", ")}]`,
      expected: "[]",
    });
  }
  const nodes = reachable([loss]);
  const needed = dependents(nodes, new Set(wanted));
  const collected = new Map<Node, (Node | undefined)[]>();
  collect(collected, loss, 0, constant(loss.graph, 1, loss.shape));
  loss.graph.inScope("backward", () => {
    walkBack(nodes, needed, collected);
  });
  return wanted.map((node) => collected.get(node)?.[0] ?? constant(loss.graph, 0, node.shape));
}

/**
 * The vector-Jacobian product of one value: what `gradient`, of its shape and f32, becomes at each of `wanted`;
 * undefined where the value does not depend on one. Nothing flows past a wanted node.
 */
export function pullback(value: Node, gradient: Node, wanted: readonly Node[]): (Node | undefined)[] {
  const ends = new Set(wanted);
  const nodes = reachableAbove([value], ends);
  const needed = dependents(nodes, ends);
  const collected = new Map<Node, (Node | undefined)[]>();
  collect(collected, value, 0, gradient);
  walkBack(
    nodes.filter((node) => !ends.has(node)),
    needed,
    collected,
  );
  return wanted.map((node) => collected.get(node)?.[0]);
}

/** Propagates what is collected at `nodes`, given in topological order, from the last to the first. */
function walkBack(nodes: readonly Node[], needed: ReadonlySet<Node>, collected: Map<Node, (Node | undefined)[]>): void {
  for (const node of nodes.toReversed()) {
    const outputs = collected.get(node);
    if (outputs !== undefined && needed.has(node)) propagate(node, outputs, needed, collected);
  }
}

function collect(collected: Map<Node, (Node | undefined)[]>, node: Node, output: number, gradient: Node): void {
  const outputs = collected.get(node) ?? [];
  const before = outputs[output];
  outputs[output] = before === undefined ? gradient : add(before, gradient);
  collected.set(node, outputs);
}

function propagate(
  node: Node,
  outputs: readonly (Node | undefined)[],
  needed: ReadonlySet<Node>,
  collected: Map<Node, (Node | undefined)[]>,
): void {
  if (node.op === resultOp) {
    const gradient = must(outputs[0], "gradient of a tuple's output");
    collect(collected, must(node.inputs[0], "tuple"), node.attributes["index"] as number, gradient);
    return;
  }
  const wants = node.inputs.map((input) => needed.has(input) && isFloat(input.dtype));
  if (!wants.some(Boolean)) return;
  const rule = node.op.gradient;
  if (rule === undefined) {
    throw new ThimbleError("no-gradient", `${node.op.name} has no gradient rule`, {
      where: node.scope,
      fix: "Give the op a gradient, or stop the gradient before it with detach().",
    });
  }
  const made = node.graph.inScope(scopeWithin(node), () => rule({ node: seenByBackward(node), outputs, wants }));
  node.inputs.forEach((input, index) => {
    const gradient = made[index];
    if (wants[index] === true && gradient !== undefined) collect(collected, input, 0, gradient);
  });
}

/** The scope of a node, without the part in which gradients are being made already. */
function scopeWithin({ graph, scope }: Node): string {
  const outer = `${graph.scope}.`;
  return scope.startsWith(outer) ? scope.slice(outer.length) : scope;
}
