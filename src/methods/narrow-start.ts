import type { ModelDefinition, NarrowModel } from "../models/types.js";
import type { KeptParts } from "./narrowing.js";
import { keptParts, narrowed } from "./narrowing.js";
import type { Calibration, HostTensors, PrepareContext } from "./types.js";

/** What pruning keeps, from sums of squared gradients of single examples: for a method's `calibrate`. */
export function fisherStart(model: ModelDefinition, network: NarrowModel, examples: number): Calibration {
  return {
    examples,
    reduce: async (sums) => {
      const kept = await keptParts(model, network, sums);
      return new Map([...kept].flatMap(([name, parts]) => written(name, parts)));
    },
  };
}

/**
 * Gives the `wanted` tensors of a narrow network what pruning leaves of the model, by the size of its weights, or by
 * what {@link fisherStart} found. Where that is not there, the values are those of a checkpoint or an adapter, which come
 * later.
 */
export async function startNarrow(
  context: PrepareContext,
  network: NarrowModel,
  importance: "magnitude" | "fisher",
  wanted: (name: string) => boolean,
): Promise<void> {
  const { model, calibrated } = context;
  const original = (name: string): Promise<Float32Array> => context.original(name);
  const kept = importance === "magnitude" ? await keptParts(model, network, original) : undefined;
  for (const { own, of } of network.parameters) {
    const parts = kept?.get(own.name) ?? readBack(calibrated, own.name);
    if (parts !== undefined && wanted(own.name)) {
      context.set(own.name, narrowed(of, parts, await original(of.name)));
    }
  }
}

function written(name: string, { outputs, inputs }: KeptParts): [string, Float32Array][] {
  const first: [string, Float32Array] = [`${name}.outputs`, Float32Array.from(outputs)];
  return inputs === undefined ? [first] : [first, [`${name}.inputs`, Float32Array.from(inputs)]];
}

function readBack(calibrated: HostTensors | undefined, name: string): KeptParts | undefined {
  const [outputs, inputs] = [calibrated?.get(`${name}.outputs`), calibrated?.get(`${name}.inputs`)];
  if (outputs === undefined) return undefined;
  return { outputs: Int32Array.from(outputs), ...(inputs === undefined ? {} : { inputs: Int32Array.from(inputs) }) };
}
