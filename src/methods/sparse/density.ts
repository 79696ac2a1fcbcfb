import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import type { LinearSpec, ModelDefinition } from "../../models/types.js";
import { moduleMatcher } from "../targets.js";

/** The settings by which methods say how many entries train. */
export const densitySettings = {
  density: z
    .number()
    .gt(0)
    .max(1)
    .optional()
    .describe("Entries that train, as a share of all of the model's parameters; default 0.01"),
  num_tunable_weights: z.int().min(1).optional().describe("Entries that train, instead of a density"),
  num_deltas: z
    .record(z.string().min(1), z.int().min(1))
    .optional()
    .describe("Entries of single layers by name (as in target_modules), instead of their share of the whole"),
};

export interface DensitySettings {
  readonly density?: number | undefined;
  readonly num_tunable_weights?: number | undefined;
  readonly num_deltas?: Readonly<Record<string, number>> | undefined;
}

const defaultDensity = 0.01;

/**
 * K of each layer: its share of the whole number by its size, rounded down, unless it is given. `owner` is where errors
 * say the settings stand.
 */
export function spreadEntries(
  owner: string,
  model: ModelDefinition,
  specs: readonly LinearSpec[],
  { density, num_tunable_weights: given, num_deltas: deltas = {} }: DensitySettings,
): number[] {
  if (density !== undefined && given !== undefined) {
    throw new ThimbleError("sparse-density", "Either a density is given, or a number of entries", {
      where: `${owner}.density`,
      given: `density ${density} and num_tunable_weights ${given}`,
      fix: "Leave one of them out.",
    });
  }
  const parameters = model.parameters.reduce((sum, { shape }) => sum + elements(shape), 0);
  const adapted = specs.reduce((sum, { outputs, inputs }) => sum + outputs * inputs, 0);
  const whole = given ?? Math.floor((density ?? defaultDensity) * parameters);
  if (whole > adapted) {
    throw new ThimbleError("sparse-density", "More entries are to train than the chosen layers have", {
      where: given === undefined ? `${owner}.density` : `${owner}.num_tunable_weights`,
      given: `${whole}, of a model of ${parameters} parameters`,
      expected: `1 to ${adapted}`,
      fix: "Choose fewer, or adapt more layers.",
    });
  }
  const own = ownCounts(`${owner}.num_deltas`, deltas, specs);
  return specs.map((spec) => own.get(spec) ?? Math.floor((whole * spec.outputs * spec.inputs) / adapted));
}

function ownCounts(
  where: string,
  given: Readonly<Record<string, number>>,
  specs: readonly LinearSpec[],
): Map<LinearSpec, number> {
  return new Map(
    Object.entries(given).flatMap(([name, count]) => {
      const named = specs.filter(moduleMatcher([name], where));
      if (named.length > 0) return named.map((spec) => [spec, count] as const);
      throw new ThimbleError("sparse-deltas", "No adapted layer has this name", {
        where,
        given: name,
        expected: "names of layers that target_modules chooses",
        fix: "Give the last part of a layer's path, such as up_proj, or the whole path.",
      });
    }),
  );
}
