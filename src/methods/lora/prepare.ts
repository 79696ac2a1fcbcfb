import { weightOf } from "../../models/parameters.js";
import { ThimbleError } from "../../errors.js";
import type { LeadingSvd } from "../linalg.js";
import { exactSvd, randomisedSvd } from "../linalg.js";
import { drawNormal } from "../initial.js";
import type { PrepareContext } from "../types.js";
import type { LoraConfig, LoraTarget } from "./config.js";
import { pissaIterations } from "./config.js";
import { eachDeltaRow, rowLayout } from "./tensors.js";

/** Start values that depend on the base weights, one layer at a time. */
export async function prepareLora(
  context: PrepareContext,
  config: LoraConfig,
  targets: readonly LoraTarget[],
): Promise<void> {
  const iterations = pissaIterations(config);
  if (iterations !== undefined) for (const target of targets) refusePacked(context, target);
  for (const target of targets) {
    const name = weightOf(target.spec).name;
    const weight = await context.read(name);
    if (iterations === undefined) setMagnitude(context, target, weight);
    else await setPissa(context, target, weight, iterations);
  }
}

function refusePacked(context: PrepareContext, target: LoraTarget): void {
  const name = weightOf(target.spec).name;
  const format = context.format(name);
  if (format === "f32" || format === "bf16" || format === "f16") return;
  throw new ThimbleError("lora-init", "PiSSA changes the base weights, which a quantised base cannot hold", {
    given: `${name} is stored as ${format}`,
    expected: "f32, bf16 or f16",
    where: "lora.init",
    fix: "Start from the unquantised checkpoint, or use another init.",
  });
}

/**
 * DoRA: m = the norm of each row. The graph's sqrt of the same f32 square gives the same bits, so m/n is exactly 1
 * at the start.
 */
function setMagnitude(context: PrepareContext, target: LoraTarget, weight: Float32Array): void {
  const { spec, dora } = target;
  if (dora === undefined) return;
  const squares = new Float32Array(spec.outputs);
  for (let row = 0; row < spec.outputs; row++) {
    const { start, stride } = rowLayout(spec, row);
    let sum = 0;
    for (let column = 0; column < spec.inputs; column++) sum += (weight[start + column * stride] ?? 0) ** 2;
    squares[row] = sum;
  }
  context.set(dora.rowSquares.name, squares);
  context.set(
    dora.magnitude.name,
    squares.map((value) => Math.sqrt(value)),
  );
}

/** A = diag(sqrt S') Vᵀ, B = U diag(sqrt S') with S' = S / s (Meng et al. 2024): what PiSSA starts from. */
export function pissaStart(
  target: LoraTarget,
  weight: Float32Array,
  iterations: number,
  seed: number,
): Map<string, Float32Array> {
  const { left, values, right } = leadingTriplets(target, weight, iterations, seed);
  const { rank, scale, spec } = target;
  const roots = values.map((value) => Math.sqrt(Math.max(0, value) / scale));
  return new Map([
    [target.a.name, Float32Array.from(right, (value, place) => value * (roots[Math.floor(place / spec.inputs)] ?? 0))],
    [target.b.name, Float32Array.from(left, (value, place) => value * (roots[place % rank] ?? 0))],
  ]);
}

function leadingTriplets(target: LoraTarget, weight: Float32Array, iterations: number, seed: number): LeadingSvd {
  const { spec, rank } = target;
  const { inputs, outputs, transposed } = spec;
  const stored = transposed
    ? { rows: inputs, columns: outputs, data: weight }
    : { rows: outputs, columns: inputs, data: weight };
  const normal = (count: number): Float64Array => drawNormal(seed, `${target.a.name}.pissa`, count);
  const svd = iterations === 0 ? exactSvd(stored, rank) : randomisedSvd(stored, rank, iterations, normal);
  if (!transposed) return svd;
  // Of a stored Wᵀ = U S Vᵀ the weight is V S Uᵀ.
  return { ...svd, left: flip(svd.right, rank, outputs), right: flip(svd.left, inputs, rank) };
}

function flip(data: Float64Array, rows: number, columns: number): Float64Array {
  return data.map((_, place) => data[(place % rows) * columns + Math.floor(place / rows)] ?? 0);
}

async function setPissa(
  context: PrepareContext,
  target: LoraTarget,
  weight: Float32Array,
  iterations: number,
): Promise<void> {
  const start = pissaStart(target, weight, iterations, context.seed);
  const residual = new Float32Array(weight.length);
  eachDeltaRow(target, start, (row, values) => {
    const { start: first, stride } = rowLayout(target.spec, row);
    for (let column = 0; column < values.length; column++) {
      const place = first + column * stride;
      residual[place] = (weight[place] ?? 0) - (values[column] ?? 0);
    }
  });
  for (const [name, values] of start) context.set(name, values);
  await context.replace(weightOf(target.spec).name, residual);
}
