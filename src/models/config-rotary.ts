import type { z } from "zod";
import { ThimbleError } from "../errors.js";
import type { rotaryParameters } from "./config.js";
import { unsupportedSetting } from "./config.js";
import type { Rotary } from "./types.js";

type RotaryParameters = z.output<typeof rotaryParameters>;

/** The fields of config.json that say how positions turn heads: `rope_parameters`, or the older two. */
export interface RotaryFields {
  readonly rope_theta?: number | null | undefined;
  readonly rope_scaling?: RotaryParameters | null | undefined;
  readonly rope_parameters?: RotaryParameters | null | undefined;
  readonly partial_rotary_factor?: number | null | undefined;
}

export interface RotaryDefaults {
  readonly family: string;
  readonly width: number;
  readonly theta: number;
  readonly contextLength: number;
}

/** The rotary setting of a configuration; unsupported kinds are refused by name. */
export function rotaryFrom(fields: RotaryFields, defaults: RotaryDefaults): Rotary {
  const { family, width } = defaults;
  const parameters: RotaryParameters = fields.rope_parameters ?? fields.rope_scaling ?? {};
  const partial = parameters.partial_rotary_factor ?? fields.partial_rotary_factor ?? 1;
  if (partial !== 1) throw unsupportedSetting(family, "partial_rotary_factor", partial, "1");
  if (width % 2 !== 0) throw unsupportedSetting(family, "head_dim", width, "an even number");
  const theta = parameters.rope_theta ?? fields.rope_theta ?? defaults.theta;
  return { theta, width, scaling: scalingFrom(parameters, defaults) };
}

function scalingFrom(parameters: RotaryParameters, { family, contextLength }: RotaryDefaults): Rotary["scaling"] {
  const kind = parameters.rope_type ?? parameters.type ?? "default";
  const field = (key: keyof RotaryParameters): number => {
    const value = parameters[key];
    if (typeof value === "number") return value;
    throw new ThimbleError("model-config", `Rotary scaling of kind ${kind} needs ${key}`, {
      where: "config.json",
    });
  };
  switch (kind) {
    case "default":
      return { kind: "none" };
    case "linear":
      return { kind: "linear", factor: field("factor") };
    case "llama3":
      return {
        kind: "llama3",
        factor: field("factor"),
        lowFrequencyFactor: field("low_freq_factor"),
        highFrequencyFactor: field("high_freq_factor"),
        originalContext: parameters.original_max_position_embeddings ?? contextLength,
      };
    default:
      throw unsupportedSetting(family, "rope_type", kind, "default, linear, llama3");
  }
}

/**
 * Llama 3's scaling from the divisors that llama.cpp's converter writes instead of its four numbers. Low and high
 * frequency factor are taken to be 1 and 4, as in every release; the original context follows from the blended
 * divisors, and all divisors are checked against the result.
 */
export function llama3Scaling(factors: readonly number[], theta: number): Record<string, number | string> {
  const factor = Math.max(...factors);
  const frequency = (pair: number): number => theta ** (-pair / factors.length);
  const contexts = factors.flatMap((divisor, pair) => {
    if (divisor < 1.0001 || divisor > factor * 0.9999) return [];
    const share = (1 / divisor - 1 / factor) / (1 - 1 / factor);
    return [((3 * share + 1) * 2 * Math.PI) / frequency(pair)];
  });
  const context = Math.round(contexts.reduce((sum, value) => sum + value, 0) / contexts.length);
  const scaling = { rope_type: "llama3", factor, low_freq_factor: 1, high_freq_factor: 4 };
  const fits = factors.every((divisor, pair) => {
    const turns = (context * frequency(pair)) / (2 * Math.PI);
    const share = Math.min(1, Math.max(0, (turns - 1) / 3));
    return Math.abs(1 / divisor - ((1 - share) / factor + share)) < 1e-3;
  });
  if (fits) return { ...scaling, original_max_position_embeddings: context };
  throw new ThimbleError("model-setting", "The frequencies in rope_freqs.weight do not follow Llama 3's rule", {
    given: factors.join(", "),
    where: "rope_freqs.weight",
  });
}
