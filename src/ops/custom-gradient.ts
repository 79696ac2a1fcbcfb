import { invariant, must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { GradientContext, OpDefinition } from "../ir/op.js";

/** Gradients by each of `inputs`, given that of the value (f32); undefined where none flows. */
export type GradientRule = (context: {
  readonly value: Node;
  readonly inputs: readonly Node[];
  readonly gradient: Node;
}) => readonly (Node | undefined)[];

const rules = new Map<string, GradientRule>();

/**
 * A value with a derivative rule of its own: inputs are the value and what the rule gives gradients by. The rule is
 * named by an attribute, so that equal expressions stay one node. Nothing of it is left after differentiation (see
 * `dropCustomGradients`): it is the value.
 */
export const customGradientOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "customGradient",
  cost: "free",
  infer: (inputs) => [must(inputs[0], "value")],
  lowering: { kind: "movement" },
  evaluate: (inputs) => [must(inputs[0], "value")],
  gradient: ({ node, outputs }: GradientContext) => {
    const rule = must(rules.get(node.attributes["rule"] as string), "gradient rule");
    const [value, ...inputs] = node.inputs;
    return [undefined, ...rule({ value: must(value, "value"), inputs, gradient: must(outputs[0], "output gradient") })];
  },
});

/**
 * Declares a rule under a name of its own and returns a function that gives a value that rule instead of the one that
 * follows from how it is computed. Through the value itself no gradient flows.
 */
export function defineGradient(name: string, rule: GradientRule): (value: Node, inputs: readonly Node[]) => Node {
  invariant(!rules.has(name), `there are two gradient rules named ${name}`);
  rules.set(name, rule);
  return (value, inputs) => value.graph.add(customGradientOp, [value, ...inputs], { rule: name });
}
