import { z } from "zod";
import { ThimbleError } from "../errors.js";
import { differencePrefix } from "./estimator.js";
import { noiseId } from "../ops/normal.js";

/** Name of the output, and of the sum over micro-batches, that is L+ - L- along one direction. */
export function differenceName(direction: number): string {
  return `${differencePrefix}${direction}`;
}

const trajectorySchema = z.strictObject({
  format: z.literal("thimble-trajectory-1"),
  /** Digest of the checkpoint that the run began with. */
  base: z.string(),
  noise: z.string(),
  epsilon: z.number().positive(),
  directions: z.int().min(1).max(16),
  /** Which tensors weight decay applies to: all but norms and biases. */
  decay: z.literal("matrices"),
  /** Element type of the weights, and the update rule with its settings. */
  dtype: z.enum(["f32", "bf16"]),
  optimizer: z.record(z.string(), z.unknown()),
  seed: z.int().min(0),
  /** Names of what trained, in the order of their noise. */
  tensors: z.array(z.string()).min(1),
  /** Learning rate of every step, or one for all. */
  rates: z.union([z.number(), z.array(z.number())]),
  /** L+ - L- of each step and direction: little-endian f32 in base64. */
  differences: z.base64(),
});

/** All that it takes to make a run's weights again from its base, without data and without forward passes. */
export interface Trajectory extends Omit<z.infer<typeof trajectorySchema>, "differences" | "rates" | "format"> {
  readonly rates: readonly number[];
  /** [step][direction]; a step with one that is not finite was skipped. */
  readonly differences: readonly (readonly number[])[];
}

export function encodeTrajectory({ rates, differences, ...rest }: Trajectory): string {
  const bytes = new Uint8Array(Float32Array.from(differences.flat()).buffer);
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  const [first] = rates;
  const same = first !== undefined && rates.every((rate) => rate === first);
  const file = { format: "thimble-trajectory-1", ...rest, rates: same ? first : rates, differences: btoa(text) };
  return `${JSON.stringify(file)}\n`;
}

export function decodeTrajectory(text: string, where: string): Trajectory {
  const { rates, differences, ...rest } = parsed(text, where);
  const bytes = Uint8Array.from(atob(differences), (character) => character.charCodeAt(0));
  const { directions } = rest;
  const steps = bytes.length / 4 / directions;
  const given = typeof rates === "number" ? undefined : rates;
  if (!Number.isInteger(steps) || (given !== undefined && given.length !== steps)) {
    throw new ThimbleError("trajectory-length", "The trajectory does not hold whole steps", { where });
  }
  const values = Array.from(new Float32Array(bytes.buffer));
  return {
    ...rest,
    rates: given ?? new Array<number>(steps).fill(rates as number),
    differences: Array.from({ length: steps }, (_, step) => values.slice(step * directions, (step + 1) * directions)),
  };
}

function parsed(text: string, where: string): z.infer<typeof trajectorySchema> {
  try {
    return trajectorySchema.parse(JSON.parse(text));
  } catch (error) {
    throw new ThimbleError("trajectory-format", "This is no trajectory of a zeroth-order run", {
      where,
      given: error instanceof Error ? (error.message.split("\n").find((line) => line.trim().length > 2) ?? "") : "",
    });
  }
}

/** Refuses to replay on another base, with other noise or onto other tensors than those of the run. */
export function checkTrajectory(
  { base, noise, tensors }: Pick<Trajectory, "base" | "noise" | "tensors">,
  present: { readonly base: string; readonly tensors: readonly string[] },
): void {
  refuseOther("base", base, present.base, "Replay it on the checkpoint that the run began with.");
  refuseOther("noise", noise, noiseId, "Use the release that wrote it.");
  refuseOther("tensors", tensors.join(" "), present.tensors.join(" "), "Select the methods of the run.");
}

function refuseOther(what: string, expected: string, given: string, fix: string): void {
  if (expected === given) return;
  const brief = (text: string): string => (text.length > 120 ? `${text.slice(0, 117)}...` : text);
  throw new ThimbleError("trajectory-other", `The trajectory belongs to another ${what}`, {
    given: brief(given),
    expected: brief(expected),
    fix,
  });
}
