/** Single entries of a linear layer's weight that train as a change of it: W + S, with S at K places. */
import { must, ThimbleError } from "../../errors.js";
import type { DType } from "../../ir/dtype.js";
import { blockOf, weightOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import type { EntrySupport } from "../../optim/types.js";
import { drawSubset } from "../initial.js";
import { movingLeaf } from "../moving.js";
import type {
  AdapterTensor,
  Claim,
  FixedTensor,
  HostIntegers,
  HostTensors,
  PrepareContext,
  ResolvedMethod,
} from "../types.js";

export interface SparseLayer {
  readonly spec: LinearSpec;
  /** K. */
  readonly count: number;
  /** The values of S, [K]. */
  readonly delta: AdapterTensor;
  /** Where they stand, i32 [K]: output * inputs + input, all different, whatever the layout of the stored weight. */
  readonly places: FixedTensor;
}

/** Places are i32. */
const mostElements = 2 ** 31 - 1;

/** A layer with `count` entries that train, zeros at first; `prefix` begins the last part of its tensors' names. */
export function sparseLayer(spec: LinearSpec, count: number, prefix: string, dtype: DType = "f32"): SparseLayer {
  const total = spec.outputs * spec.inputs;
  if (!Number.isInteger(count) || count < 1 || count > Math.min(total, mostElements) || total > mostElements) {
    throw new ThimbleError("sparse-count", "A layer cannot have so many entries that train", {
      where: `${prefix}, ${spec.path}`,
      given: `${count} of ${total}`,
      expected: `1 to all, of at most ${mostElements}`,
      fix: "Choose another density, or leave the layer out with exclude_modules.",
    });
  }
  return {
    spec,
    count,
    delta: {
      name: `${spec.path}.${prefix}_delta`,
      shape: [count],
      dtype,
      initial: { kind: "zeros" },
      rateFactor: 1,
      decay: true,
      ...blockOf(spec),
    },
    places: { name: `${spec.path}.${prefix}_indices`, shape: [count], dtype: "i32" },
  };
}

/** The layer's entries as update rules know them. */
export function supportOf({ spec, places }: SparseLayer): EntrySupport {
  return { rows: spec.outputs, columns: spec.inputs, places: (graph) => movingLeaf(graph, places) };
}

/** Draws the places of layers, uniformly without replacement: a function of the seed and the layer's name. */
export function drawPlaces(context: PrepareContext, layers: readonly SparseLayer[], seed: number): void {
  for (const { spec, count, places } of layers) {
    context.set(places.name, drawSubset(seed, places.name, count, spec.outputs * spec.inputs));
  }
}

/** The weight, as stored, with the entries added. */
export function addEntries(
  { spec, delta, places }: SparseLayer,
  weight: Float32Array,
  tensors: HostTensors,
  integers: HostIntegers,
): Float32Array {
  const values = must(tensors.get(delta.name), delta.name);
  const merged = weight.slice();
  must(integers.get(places.name), places.name).forEach((place, entry) => {
    const [row, column] = [Math.floor(place / spec.inputs), place % spec.inputs];
    const at = spec.transposed ? column * spec.outputs + row : place;
    merged[at] = (merged[at] ?? 0) + (values[entry] ?? 0);
  });
  return merged;
}

/** Refuses places that are outside the weight, or twice. */
export function checkPlaces(layers: readonly SparseLayer[], integers: HostIntegers): void {
  for (const { spec, places, count } of layers) {
    const given = integers.get(places.name);
    const total = spec.outputs * spec.inputs;
    const seen = new Set(given);
    const outside = given?.find((place) => place < 0 || place >= total);
    if (given?.length === count && outside === undefined && seen.size === count) continue;
    throw new ThimbleError("sparse-places", "The places of the trained entries are not those of a layer", {
      where: places.name,
      given:
        given?.length !== count
          ? `${given?.length ?? 0} places`
          : outside === undefined
            ? "a place twice"
            : `place ${outside}`,
      expected: `${count} different places, 0 to ${total - 1}`,
      fix: "Fetch the adapter again.",
    });
  }
}

/** What every method of trained entries says of them: how they are saved, checked, dimmed and merged. */
export function entriesOfLayers(
  layers: readonly SparseLayer[],
): Pick<ResolvedMethod, "scales" | "saves" | "adapters" | "integers" | "checkIntegers" | "merge"> {
  const byPath = new Map(layers.map((layer) => [layer.spec.path, layer]));
  return {
    scales: true,
    saves: "adapter",
    adapters: layers.map(({ delta }) => delta),
    integers: layers.map(({ places }) => places.name),
    checkIntegers: (integers) => {
      checkPlaces(layers, integers);
    },
    merge: (spec, weight, tensors, integers) => {
      const layer = byPath.get(spec.path);
      return layer === undefined ? undefined : addEntries(layer, weight, tensors, integers);
    },
  };
}

/** What entries claim: the layers' weights as they are, and a part in what is added to them. */
export function entryClaims(layers: readonly SparseLayer[]): Claim[] {
  const tensors = layers.map(({ spec }) => weightOf(spec).name);
  return [
    { resource: "base-weights", exclusive: true, tensors, reason: "trains a change of weights that stay as they are" },
    { resource: "weight-delta", exclusive: false, tensors, reason: "adds to some of their entries" },
  ];
}
