import { invariant, must, ThimbleError } from "../errors.js";
import type { NarrowModel, ParameterSpec, Rotary } from "./types.js";

/** A width of the model over the reduction; refuses what does not divide it. */
export function divided(what: string, width: number, reduction: number): number {
  if (Number.isInteger(reduction) && reduction > 0 && width % reduction === 0) return width / reduction;
  throw new ThimbleError("narrow-width", `A network beside the model cannot have 1/${reduction} of ${what}`, {
    given: `${what} is ${width}`,
    expected: "a reduction that divides it",
    fix: "Choose a reduction that divides the model's width, the width of its MLP and that of its heads.",
  });
}

/** Rotary positions of narrower heads: the same wavelengths at both ends, fewer between. */
export function dividedRotary(rotary: Rotary, reduction: number): Rotary {
  return { ...rotary, width: 2 * divided("half the width that rotary positions turn", rotary.width / 2, reduction) };
}

/** The tensors of a narrow network and those of the model, which are listed in one order. */
export function paired(own: readonly ParameterSpec[], of: readonly ParameterSpec[]): NarrowModel["parameters"] {
  invariant(own.length === of.length, "a narrow network has the tensors of the model");
  return own.map((spec, place) => ({ own: spec, of: must(of[place], spec.name) }));
}
