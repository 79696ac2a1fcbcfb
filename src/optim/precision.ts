import { z } from "zod";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { cast } from "../ops/arithmetic.js";
import { Rounder } from "./rounding.js";
import type { ParameterType, StateSpec, UpdateArguments, UpdateResult } from "./types.js";

/** The settings, common to all optimizers, of how values are kept between steps. */
export const precisionSettings = {
  states: z.enum(["f32", "bf16"]).default("f32").describe("Type in which the optimizer's states are stored"),
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
  readonly states: "f32" | "bf16";
  readonly master: boolean;
  readonly rounding: "stochastic" | "nearest";
}

/** An update rule in f32, without a thought of storage: new value and states from old. */
export type UpdateRule = (
  value: Node,
  states: Readonly<Record<string, Node>>,
) => { readonly value: Node; readonly states: Readonly<Record<string, Node>> };

/** The states of a rule's `names`, and the master copy where one is kept. */
export function storedStates(
  settings: PrecisionSettings,
  names: readonly string[],
  parameter: ParameterType,
): StateSpec[] {
  const { shape } = parameter;
  const states = names.map((name): StateSpec => ({ name, shape, dtype: settings.states, initial: 0 }));
  if (keepsMaster(settings, parameter)) states.push({ name: "master", shape, dtype: "f32", initial: "parameter" });
  return states;
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
  names: readonly string[],
  args: UpdateArguments,
  rule: UpdateRule,
): UpdateResult {
  const { parameter, states } = args;
  const rounder = new Rounder(settings.rounding, args.random);
  const state = (name: string): Node => must(states[name], `optimizer state ${name}`);
  const master = keepsMaster(settings, parameter) ? state("master") : undefined;
  const made = rule(
    master ?? cast(parameter, "f32"),
    Object.fromEntries(names.map((name) => [name, cast(state(name), "f32")])),
  );
  const value = master === undefined ? rounder.store(made.value, parameter) : cast(made.value, parameter.dtype);
  const kept = names.map((name) => [name, rounder.store(must(made.states[name], name), state(name))] as const);
  return { value, states: { ...Object.fromEntries(kept), ...(master === undefined ? {} : { master: made.value }) } };
}
