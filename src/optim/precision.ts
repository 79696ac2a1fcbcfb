import { z } from "zod";
import { must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import { cast, select } from "../ops/arithmetic.js";
import { Blocks, isFinite, takesEightBits } from "./eight-bit.js";
import { Float8States } from "./float8-states.js";
import type { CodedStates, RuleState } from "./groups.js";
import { Rounder } from "./rounding.js";
import type { ParameterType, RuleResult, StateSettings, StateSpec, UpdateArguments, UpdateResult } from "./types.js";

/** The settings, common to all optimizers, of how values are kept between steps. */
export const precisionSettings = {
  states: z
    .enum(["f32", "bf16", "8bit", "fp8"])
    .default("f32")
    .describe(
      "Type of the stored states; 8bit: codes with a scale for each 256, f32 below 4096 elements; fp8: E4M3 in groups of 128",
    ),
  state_expansion: z
    .boolean()
    .default(true)
    .describe("fp8: raise each group to the power that spreads it over the whole range of the format"),
  state_power_steps: z.int().min(1).max(64).default(16).describe("fp8: powers of groups are multiples of 1 over this"),
  state_statistics: z
    .enum(["f32", "bf16"])
    .default("f32")
    .describe("fp8: type of the scale, power and centre of each group"),
  master: z
    .boolean()
    .default(false)
    .describe("Keep an f32 copy of each bf16 parameter, which the step updates and rounds to nearest"),
  rounding: z
    .enum(["stochastic", "nearest"])
    .default("stochastic")
    .describe("How new values are rounded to bf16 where nothing keeps them in f32: steps too small for nearest vanish"),
};

export interface PrecisionSettings extends StateSettings {
  readonly master: boolean;
  readonly rounding: "stochastic" | "nearest";
}

/** The settings of a rule with its states stored in another way. */
export function restated<Settings extends PrecisionSettings>(settings: Settings, states: StateSettings): Settings {
  if (settings.states !== "8bit") return { ...settings, ...states };
  throw new ThimbleError("optimizer-states", "Optimizer states cannot be quantised twice", {
    where: "stateDtype",
    given: `${settings.states}, and a method that keeps them in ${states.states}`,
    fix: "Leave stateDtype out, or tell the method to leave the states alone.",
  });
}

/**
 * An update rule in f32, without a thought of storage: new value and states from old. It works element by element, on
 * operands of one shape, which need not be that of the parameter.
 */
export type UpdateRule = (value: Node, gradient: Node, states: Readonly<Record<string, Node>>) => RuleResult;

/** The states of a rule, and the master copy where one is kept. */
export function storedStates(
  settings: PrecisionSettings,
  rules: readonly RuleState[],
  parameter: ParameterType,
): StateSpec[] {
  const { shape } = parameter;
  const coded = codedStates(settings, parameter);
  const states = rules.flatMap((state): StateSpec[] => {
    const exact = state.exact === true;
    if (coded !== undefined && !exact) return coded.specs(state);
    return [{ name: state.name, shape, dtype: settings.states === "bf16" && !exact ? "bf16" : "f32", initial: 0 }];
  });
  if (keepsMaster(settings, parameter)) states.push({ name: "master", shape, dtype: "f32", initial: "parameter" });
  return states;
}

/** How the states of a parameter are coded; undefined where they are plain numbers. */
function codedStates(settings: PrecisionSettings, { shape }: ParameterType): CodedStates | undefined {
  if (settings.states === "8bit") return takesEightBits(shape) ? new Blocks(shape) : undefined;
  if (settings.states !== "fp8") return undefined;
  return new Float8States(shape, {
    expansion: settings.state_expansion,
    powerSteps: settings.state_power_steps,
    statistics: settings.state_statistics,
  });
}

function keepsMaster(settings: PrecisionSettings, parameter: ParameterType): boolean {
  return settings.master && parameter.dtype !== "f32";
}

export function drawsBits(settings: PrecisionSettings, stateCount: number, parameter: ParameterType): boolean {
  if (settings.rounding !== "stochastic") return false;
  const roundsValue = parameter.dtype !== "f32" && !settings.master;
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
  const blocks = rules.length > 0 ? codedStates(settings, parameter) : undefined;
  if (blocks !== undefined) {
    const held = (one: RuleState): Node =>
      one.exact === true ? blocks.of(state(one.name)) : blocks.decode(one, states);
    const first = guarded(rule)(
      blocks.of(before),
      blocks.of(gradient),
      Object.fromEntries(rules.map((one) => [one.name, held(one)])),
    );
    const made = revisedGroups(args, blocks, first);
    const kept = rules.map((one) => {
      const value = must(made.states[one.name], one.name);
      return one.exact === true ? { [one.name]: blocks.back(value) } : blocks.encode(one, value);
    });
    return {
      value: blocks.back(storeValue(made.value)),
      states: Object.assign({}, ...kept, master === undefined ? {} : { master: blocks.back(made.value) }) as Record<
        string,
        Node
      >,
    };
  }
  const first = rule(before, gradient, Object.fromEntries(rules.map(({ name }) => [name, cast(state(name), "f32")])));
  const made = args.revise?.(first) ?? first;
  const value = storeValue(made.value);
  const kept = rules.map(({ name }) => [name, rounder.store(must(made.states[name], name), state(name))] as const);
  return { value, states: { ...Object.fromEntries(kept), ...(master === undefined ? {} : { master: made.value }) } };
}

/** What a rule made in groups, revised in the shape of the parameter. */
function revisedGroups({ revise }: UpdateArguments, groups: CodedStates, made: RuleResult): RuleResult {
  if (revise === undefined) return made;
  const through = ({ value, states }: RuleResult, change: (node: Node) => Node): RuleResult => ({
    value: change(value),
    states: Object.fromEntries(Object.entries(states).map(([name, state]) => [name, change(state)] as const)),
  });
  return through(revise(through(made, (node) => groups.back(node))), (node) => groups.of(node));
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
