import { must, ThimbleError } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import type { RunProbe } from "./outputs.js";
import { labelledLengths, lastHidden, rowGradients, rowSlopes, single } from "./outputs.js";
import type { Features } from "./features.js";
import { denseFeatures } from "./features.js";
import type { Moments } from "./gradients.js";
import { adamRescaled, probedFeatures } from "./gradients.js";
import type { ProbeTensor, TwoPointProbe } from "./probes.js";
import { hiddenStates, perturbedLosses, probeDirection, rowLosses, tensorGradient } from "./probes.js";
import type { ChoiceContext } from "../examples.js";
import type { ExampleBatch, MethodProgram, MethodState, ProgramContext } from "../programs.js";

/** How rows are described, and by which tensor's gradient. */
export interface RowDescription {
  /**
   * A gradient by two forward passes, the true one, the hidden state of the last token, the sum of the token losses, or
   * the number of tokens that count.
   */
  readonly unit: RowUnit;
  readonly probe: TwoPointProbe;
  /** Gradients times what the tensor holds, where any of it is not 0. */
  readonly timesWeights: boolean;
  /** Whether gradients are rescaled as Adam would. */
  readonly adam: boolean;
}

export const rowUnits = ["mezo", "rep", "masked_grad", "completion_length", "length_loss_weighted"] as const;

export type RowUnit = (typeof rowUnits)[number];

/** The program that a unit takes; a row's length needs none. */
export function descriptionPrograms({ unit, probe }: RowDescription): MethodProgram[] {
  const builds: Readonly<Record<RowUnit, MethodProgram["build"] | undefined>> = {
    mezo: (context: ProgramContext) => perturbedLosses(context, probe),
    masked_grad: (context: ProgramContext) => tensorGradient(context, probe.tensor),
    rep: hiddenStates,
    length_loss_weighted: rowLosses,
    completion_length: undefined,
  };
  const build = builds[unit];
  return build === undefined ? [] : [{ name: "probe", build }];
}

/** How often the program runs for a micro-batch of so many rows. */
export function descriptionRuns({ unit }: RowDescription, rows: number): Readonly<Record<string, number>> {
  return unit === "completion_length" ? {} : { probe: unit === "masked_grad" ? rows : 1 };
}

/** States of the method that rows described so need: Adam's moments of what was chosen. */
export function descriptionStates({ unit, adam, probe }: RowDescription): MethodState[] {
  const names = unit === "mezo" && adam ? ["mean", "square"] : [];
  return names.map((name) => ({ name, shape: probe.tensor.shape, dtype: "f32" }));
}

function describe(
  { unit, probe }: RowDescription,
  context: ChoiceContext,
  batch: ExampleBatch,
): Promise<Float64Array[]> {
  const probed = { batch, rows: context.draw.rows / context.draw.batches.length };
  const run: RunProbe = (one) => context.run("probe", one);
  switch (unit) {
    case "mezo":
      return rowSlopes(probed, probe, run);
    case "masked_grad":
      return rowGradients(probed, run);
    case "rep":
      return lastHidden(probed, run);
    case "length_loss_weighted":
      return run(batch).then(({ loss }) => single(must(loss, "loss")));
    case "completion_length":
      return Promise.resolve(single(labelledLengths(probed)));
  }
}

/** Rows that can be told apart, and what they are compared by. */
export interface Described {
  readonly rows: readonly number[];
  readonly gradients: Features;
  readonly features: Features;
  /** What the chosen gradients move on. */
  readonly moments?: Moments;
}

/** Describes some rows of a draw. Those whose description is not finite, or nothing but zeros, are left out. */
export async function describeRows(
  context: ChoiceContext,
  description: RowDescription,
  candidates: readonly number[],
): Promise<Described> {
  const { draw, step } = context;
  const { unit, adam } = description;
  const size = draw.rows / draw.batches.length;
  const found: (readonly [number, Float64Array])[] = [];
  for (const [index, batch] of draw.batches.entries()) {
    const own = candidates.filter((row) => Math.floor(row / size) === index);
    if (own.length === 0) continue;
    const values = await describe(description, context, batch);
    found.push(...own.map((row) => [row, must(values[row % size], "description")] as const));
  }
  const usable = found.filter(([, values]) => values.every(Number.isFinite) && values.some((value) => value !== 0));
  const rows = usable.map(([row]) => row);
  const values = Float64Array.from(usable.flatMap(([, one]) => [...one]));
  const gradients =
    unit === "mezo" ? slopesAsGradients(context, description, values) : denseFeatures(values, rows.length);
  const moments = adam ? momentsFor(context, description) : undefined;
  if (moments === undefined) return { rows, gradients, features: gradients };
  const features = adamRescaled(gradients, moments, step);
  return { rows, gradients, features, ...(unit === "mezo" ? { moments } : {}) };
}

function slopesAsGradients(
  context: ChoiceContext,
  { probe, timesWeights }: RowDescription,
  slopes: Float64Array,
): Features {
  const directions = Array.from({ length: probe.directions }, (_, use) => probeDirection(probe, context, use));
  const factor = timesWeights ? heldValues(context, probe.tensor) : undefined;
  return probedFeatures({ slopes, directions, ...(factor === undefined ? {} : { factor }) });
}

/** What the tensor holds, where any of it is not 0. */
function heldValues({ bytes }: ChoiceContext, { name, shape }: ProbeTensor): Float32Array | undefined {
  const held = bytes(name).slice();
  const values =
    held.length === 4 * elements(shape)
      ? new Float32Array(held.buffer)
      : new Float32Array(Uint32Array.from(new Uint16Array(held.buffer), (word) => word << 16).buffer);
  return values.some((value) => value !== 0) ? values : undefined;
}

/** Moments of the method's own for estimates, AdamW's for true gradients, none for what is no gradient. */
function momentsFor(context: ChoiceContext, { unit, probe }: RowDescription): Moments | undefined {
  const { name, shape } = probe.tensor;
  if (unit === "mezo") return { mean: context.state("mean"), square: context.state("square") };
  if (unit !== "masked_grad") return undefined;
  const read = (moment: string): Float32Array => {
    const tensor = `${name}.adamw.${moment}`;
    const bytes = context.has(tensor) ? context.bytes(tensor).slice() : new Uint8Array(0);
    if (bytes.length === 4 * elements(shape)) return new Float32Array(bytes.buffer);
    throw new ThimbleError("rows-moments", "True gradients are rescaled by AdamW's moments, which are not there", {
      where: name,
      expected: "f32 states from the optimizer adamw",
      fix: "Train with --optimizer adamw --state-dtype f32, or do not rescale (colm.mezo_optim=sgd).",
    });
  };
  return { mean: read("mean"), square: read("square") };
}
