import { invariant, must, ThimbleError } from "../errors.js";
import type { ModelDefinition, NarrowModel, ParameterSpec, Rotary } from "./types.js";

/** A model's blocks at 1/reduction of their widths, with tensors named `${prefix}...`; errors name the setting `where`. */
export function narrowForm(model: ModelDefinition, reduction: number, prefix: string, where: string): NarrowModel {
  if (model.narrow === undefined) {
    throw new ThimbleError("narrow-family", "Models of this family have no narrow form", {
      where,
      given: model.family,
      fix: "Use a model of another family, or another method.",
    });
  }
  try {
    return model.narrow(reduction, prefix);
  } catch (error) {
    if (!(error instanceof ThimbleError)) throw error;
    throw new ThimbleError(error.code, error.message, {
      where,
      given: `${error.given ?? ""}, the reduction ${reduction}`,
      expected: "a reduction that divides it",
      fix: "Choose a reduction that divides the model's width, the width of its MLP and that of its heads.",
      cause: error,
    });
  }
}

/** A width of the model over the reduction; refuses what does not divide it. */
export function divided(what: string, width: number, reduction: number): number {
  if (Number.isInteger(reduction) && reduction > 0 && width % reduction === 0) return width / reduction;
  throw new ThimbleError("narrow-width", `A network beside the model cannot have 1/${reduction} of ${what}`, {
    given: `${what} is ${width}`,
    fix: "Choose a reduction that divides it.",
  });
}

/** Rotary positions of narrower heads: fewer wavelengths over the same range, whole pairs of elements; none is left of few. */
export function dividedRotary(rotary: Rotary, reduction: number): Rotary | undefined {
  const width = 2 * Math.floor(rotary.width / (2 * reduction));
  return width === 0 ? undefined : { ...rotary, width };
}

/** The tensors of a narrow network and those of the model, which are listed in one order. */
export function paired(own: readonly ParameterSpec[], of: readonly ParameterSpec[]): NarrowModel["parameters"] {
  invariant(own.length === of.length, "a narrow network has the tensors of the model");
  return own.map((spec, place) => ({ own: spec, of: must(of[place], spec.name) }));
}
