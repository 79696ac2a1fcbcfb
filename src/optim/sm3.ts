import { z } from "zod";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import { add, divide, maximum, minimum, multiply, sqrt, subtract } from "../ops/arithmetic.js";
import { scatterMaximum } from "../ops/gather.js";
import { rowsAndColumns } from "../ops/index-set.js";
import { reshape } from "../ops/layout.js";
import { reduceMaximum } from "../ops/reduce.js";
import { take } from "../ops/top-k.js";
import { applyRule, drawsBits, precisionSettings, storedStates } from "./precision.js";
import type { EntrySupport, Optimizer, ParameterType, StateSpec, UpdateArguments, UpdateResult } from "./types.js";

export const sm3Config = z.strictObject({
  id: z.literal("sm3").describe("Adagrad with one number for each row and each column of a matrix"),
  epsilon: z.number().positive().default(1e-8).describe("Added to the sum of squares under the root"),
  weight_decay: z.number().min(0).default(0).describe("Each step first shrinks a weight by rate times this"),
  ...precisionSettings,
  states: z
    .enum(["f32", "bf16"])
    .default("f32")
    .describe("Taken from the run; the numbers of rows and columns are few, and f32 in any case"),
});

export type Sm3Config = z.infer<typeof sm3Config>;

/** What squared gradients have summed up to at most: new numbers, and those of the elements, ν. */
interface Accumulated {
  readonly states: Readonly<Record<string, Node>>;
  readonly sums: Node;
}

/**
 * SM3-II without momentum (Anil et al. 2019, algorithm 2): ν = min(R, C) + g², p - rate g / sqrt(ν + ε), and each row and
 * column keeps the largest ν of its elements. A tensor that is no matrix keeps a number for each element.
 */
export function sm3(config: Sm3Config): Optimizer {
  const dense: Optimizer = ruleOf(config, denseShapes, ({ gradient, states }) => {
    const square = multiply(gradient, gradient);
    const [rows, columns] = [states["rows"], states["columns"]];
    if (rows === undefined || columns === undefined) {
      const sums = add(must(states["elements"], "elements"), square);
      return { states: { elements: sums }, sums };
    }
    const [m = 0, n = 0] = gradient.shape;
    const sums = add(minimum(reshape(rows, [m, 1]), reshape(columns, [1, n])), square);
    const largest = (axis: number, held: Node): Node => maximum(reshape(reduceMaximum(sums, [axis]), held.shape), held);
    return { states: { rows: largest(1, rows), columns: largest(0, columns) }, sums };
  });
  return {
    ...dense,
    withStates: () => sm3(config),
    entries: { rule: (support) => sm3Entries(config, support), seed: () => ({}) },
  };
}

function denseShapes({ shape }: ParameterType): [string, readonly number[]][] {
  const [m, n] = shape;
  if (shape.length !== 2 || m === undefined || n === undefined) return [["elements", shape]];
  return [
    ["rows", [m]],
    ["columns", [n]],
  ];
}

/** Over the entries of a matrix alone: rows and columns without one keep their numbers. */
function sm3Entries(config: Sm3Config, { rows: m, columns: n, places }: EntrySupport): Optimizer {
  const shapes = (): [string, readonly number[]][] => [
    ["rows", [m]],
    ["columns", [n]],
  ];
  return ruleOf(config, shapes, ({ gradient, states }) => {
    const at = rowsAndColumns(places(gradient.graph), n);
    const [rows, columns] = [must(states["rows"], "rows"), must(states["columns"], "columns")];
    const sums = add(minimum(take(rows, at.rows), take(columns, at.columns)), multiply(gradient, gradient));
    const raised = (held: Node, numbers: Node): Node => {
      const updates = reshape(sums, [elements(sums.shape), 1]);
      return reshape(scatterMaximum(reshape(held, [elements(held.shape), 1]), numbers, updates), held.shape);
    };
    return { states: { rows: raised(rows, at.rows), columns: raised(columns, at.columns) }, sums };
  });
}

function ruleOf(
  config: Sm3Config,
  shapes: (parameter: ParameterType) => [string, readonly number[]][],
  accumulate: (args: UpdateArguments) => Accumulated,
): Optimizer {
  const settings = { ...config, states: "f32" } as const;
  const { epsilon, weight_decay: weightDecay } = config;
  const rule: Optimizer = {
    id: "sm3",
    weightDecay,
    states: (parameter) => [
      ...shapes(parameter).map(([name, shape]): StateSpec => ({ name, shape, dtype: "f32", initial: 0 })),
      ...storedStates(settings, [], parameter),
    ],
    // There is nothing to gain from smaller ones.
    withStates: () => rule,
    scalars: () => ({}),
    rounds: (parameter) => drawsBits(settings, 0, parameter),
    update: (args): UpdateResult => {
      const { states, sums } = accumulate(args);
      const { revise } = args;
      const revised = revise === undefined ? {} : { revise: ({ value }: { value: Node }) => revise({ value, states }) };
      const made = applyRule(settings, [], { ...args, ...revised }, (value, gradient) => {
        const { rate, decay } = args;
        const decayed = decay && weightDecay > 0 ? multiply(value, subtract(1, multiply(rate, weightDecay))) : value;
        return {
          value: subtract(decayed, divide(multiply(gradient, rate), sqrt(add(sums, epsilon)))),
          states: {},
        };
      });
      return { value: made.value, states: { ...made.states, ...states } };
    },
  };
  return rule;
}
