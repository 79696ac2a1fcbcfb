import { z } from "zod";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { cast, select } from "../ops/arithmetic.js";
import type { RuleState } from "./eight-bit.js";
import { Blocks, eightBitStates, isFinite, takesEightBits } from "./eight-bit.js";
import { Rounder } from "./rounding.js";
import type { ParameterType, StateSpec, UpdateArguments, UpdateResult } from "./types.js";

/** The settings, common to all optimizers, of how values are kept between steps. */
export const precisionSettings = {
  states: z
    .enum(["f32", "bf16", "8bit"])
    .default("f32")
    .describe("Type of the stored states; 8bit: codes with a scale for each 256, f32 below 4096 elements"),
  master: z
    .boolean()
    .default(false)
    .describe("Keep an f32 copy of each bf16 parameter, which the step updates and rounds to nearest"),
  rounding: z
    .enum(["stochastic", "nearest"])
    .default("stochastic")
    .describe("How new values are rounded to bf16 where nothing keeps them in f32: steps too small for nearest vanish"),
};

export interface PrecisionSettings {
  readonly states: "f32" | "bf16" | "8bit";
  readonly master: boolean;
  readonly rounding: "stochastic" | "nearest";
}

/**
 * An update rule in f32, without a thought of storage: new value and states from old. It works element by element, on
 * operands of one shape, which need not be that of the parameter.
 */
export type UpdateRule = (
  value: Node,
  gradient: Node,
  states: Readonly<Record<string, Node>>,
) => { readonly value: Node; readonly states: Readonly<Record<string, Node>> };

/** The states of a rule, and the master copy where one is kept. */
export function storedStates(
  settings: PrecisionSettings,
  rules: readonly RuleState[],
  parameter: ParameterType,
): StateSpec[] {
  const { shape } = parameter;
  const states = rules.flatMap((state): StateSpec[] => {
    if (usesCodes(settings, parameter)) return eightBitStates(state, shape);
    return [{ name: state.name, shape, dtype: settings.states === "bf16" ? "bf16" : "f32", initial: 0 }];
  });
  if (keepsMaster(settings, parameter)) states.push({ name: "master", shape, dtype: "f32", initial: "parameter" });
  return states;
}

function usesCodes(settings: PrecisionSettings, { shape }: ParameterType): boolean {
  return settings.states === "8bit" && takesEightBits(shape);
}

function keepsMaster(settings: PrecisionSettings, parameter: ParameterType): boolean {
  return settings.master && parameter.dtype === "bf16";
}

export function drawsBits(settings: PrecisionSettings, stateCount: number, parameter: ParameterType): boolean {
  if (settings.rounding !== "stochastic") return false;
  const roundsValue = parameter.dtype === "bf16" && !settings.master;
  return roundsValue || (settings.states === "bf16" && stateCount > 0);
}

/** Runs a rule in f32 on stored values and stores the results: parameter first, then states, in the order given. */
export function applyRule(
  settings: PrecisionSettings,
  rules: readonly RuleState[],
  args: UpdateArguments,
  rule: UpdateRule,
): UpdateResult {
  const { parameter, gradient, states } = args;
  const rounder = new Rounder(settings.rounding, args.random);
  const state = (name: string): Node => must(states[name], `optimizer state ${name}`);
  const master = keepsMaster(settings, parameter) ? state("master") : undefined;
  const before = master ?? cast(parameter, "f32");
  const storeValue = (value: Node): Node =>
    master === undefined ? rounder.store(value, parameter) : cast(value, parameter.dtype);
  if (rules.length > 0 && usesCodes(settings, parameter)) {
    const blocks = new Blocks(parameter.shape);
    const made = guarded(rule)(
      blocks.of(before),
      blocks.of(gradient),
      Object.fromEntries(rules.map((one) => [one.name, blocks.decode(one, states)])),
    );
    const kept = rules.map((one) => blocks.encode(one, must(made.states[one.name], one.name)));
    return {
      value: blocks.back(storeValue(made.value)),
      states: Object.assign({}, ...kept, master === undefined ? {} : { master: blocks.back(made.value) }) as Record<
        string,
        Node
      >,
    };
  }
  const made = rule(before, gradient, Object.fromEntries(rules.map(({ name }) => [name, cast(state(name), "f32")])));
  const value = storeValue(made.value);
  const kept = rules.map(({ name }) => [name, rounder.store(must(made.states[name], name), state(name))] as const);
  return { value, states: { ...Object.fromEntries(kept), ...(master === undefined ? {} : { master: made.value }) } };
}

/** One infinite element would take the scale of its block: where the gradient is no number, nothing moves. */
function guarded(rule: UpdateRule): UpdateRule {
  return (value, gradient, states) => {
    const finite = isFinite(gradient);
    const made = rule(value, gradient, states);
    const kept = Object.entries(made.states).map(([name, state]) => [name, select(finite, state, 0)] as const);
    return { value: select(finite, made.value, value), states: Object.fromEntries(kept) };
  };
}
