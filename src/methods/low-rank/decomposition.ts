import { ThimbleError } from "../../errors.js";
import { weightOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import { drawNormal } from "../initial.js";
import type { LeadingSvd } from "../linalg.js";
import { exactSvd, randomisedSvd } from "../linalg.js";
import type { HostTensors, PrepareContext } from "../types.js";
import type { LowRankLayer } from "./layer.js";
import { eachDeltaRow, rowLayout } from "./tensors.js";

export interface Decomposition {
  /** Subspace iterations of the randomised form; 0 = exact. */
  readonly iterations: number;
  readonly seed: number;
}

/**
 * The leading singular triplets of a layer's weight [out, in], however it is stored. The randomised form draws its
 * start by the seed and `name`.
 */
export function leadingTriplets(
  { inputs, outputs, transposed }: LinearSpec,
  weight: Float32Array,
  rank: number,
  name: string,
  { iterations, seed }: Decomposition,
): LeadingSvd {
  const stored = transposed
    ? { rows: inputs, columns: outputs, data: weight }
    : { rows: outputs, columns: inputs, data: weight };
  const normal = (count: number): Float64Array => drawNormal(seed, name, count);
  const svd = iterations === 0 ? exactSvd(stored, rank) : randomisedSvd(stored, rank, iterations, normal);
  if (!transposed) return svd;
  // Of a stored Wᵀ = U S Vᵀ the weight is V S Uᵀ.
  return { ...svd, left: flip(svd.right, rank, outputs), right: flip(svd.left, inputs, rank) };
}

function flip(data: Float64Array, rows: number, columns: number): Float64Array {
  return data.map((_, place) => data[(place % rows) * columns + Math.floor(place / rows)] ?? 0);
}

/**
 * A and B such that s B A is the weight's leading part: A = diag(sqrt S') Vᵀ, B = U diag(sqrt S') with S' = S / s
 * (Meng et al. 2024, PiSSA). By tensor name.
 */
export function leadingFactors(
  layer: LowRankLayer,
  weight: Float32Array,
  decomposition: Decomposition,
): Map<string, Float32Array> {
  const { rank, scale, spec, a, b } = layer;
  const { left, values, right } = leadingTriplets(spec, weight, rank, `${a.name}.pissa`, decomposition);
  const roots = values.map((value) => Math.sqrt(Math.max(0, value) / scale));
  return new Map([
    [a.name, Float32Array.from(right, (value, place) => value * (roots[Math.floor(place / spec.inputs)] ?? 0))],
    [b.name, Float32Array.from(left, (value, place) => value * (roots[place % rank] ?? 0))],
  ]);
}

/** Fails where a layer's weight is packed, so that nothing can be taken out of it; `owner` is the method whose start it is. */
export function refusePackedBase(context: PrepareContext, { spec }: LowRankLayer, owner: string): void {
  const { name } = weightOf(spec);
  const format = context.format(name);
  if (format === "f32" || format === "bf16" || format === "f16") return;
  throw new ThimbleError("lora-init", "PiSSA changes the base weights, which a quantised base cannot hold", {
    given: `${name} is stored as ${format}`,
    expected: "f32, bf16 or f16",
    where: `${owner}.init`,
    fix: "Start from the unquantised checkpoint, or use another init.",
  });
}

/** Gives A and B their start, and the base weight what it leaves: W - s B A. */
export async function takeOutOfBase(
  context: PrepareContext,
  layer: LowRankLayer,
  weight: Float32Array,
  start: HostTensors,
): Promise<void> {
  const residual = new Float32Array(weight.length);
  eachDeltaRow(layer, start, (row, values) => {
    const { start: first, stride } = rowLayout(layer.spec, row);
    for (let column = 0; column < values.length; column++) {
      const place = first + column * stride;
      residual[place] = (weight[place] ?? 0) - (values[column] ?? 0);
    }
  });
  for (const [name, values] of start) context.set(name, values);
  await context.replace(weightOf(layer.spec).name, residual);
}
