import { tmpdir } from "node:os";
import type { WeightSource } from "../../io/weight-source.js";
import { must } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import type { ComposedMethods } from "../../methods/compose.js";
import type { ExportContext, HostTensors } from "../../methods/types.js";
import type { LinearSpec, ModelDefinition, ParameterSpec } from "../../models/types.js";
import type { Session } from "../../session/types.js";
import { compileDecoder } from "../../storage/decoder.js";
import { storageFormat } from "../../storage/registry.js";
import { TensorSpool } from "./spool.js";

/** A model's tensors in f32, one at a time, as the Hugging Face checkpoint has them. */
export interface TensorSource {
  read(parameter: ParameterSpec): Promise<Float32Array>;
  /** The tensor as it lies in memory, where that is in the storage format `type` already; not to be changed. */
  stored?(parameter: ParameterSpec, type: string): Uint8Array | undefined;
  /** Removes what it keeps on disk. */
  close?(): Promise<void>;
}

/** A tensor of a session in f32, as a copy. */
export function readTensor(session: Pick<Session, "bytes" | "tensors">, name: string): Float32Array {
  const tensor = must(
    session.tensors.find((entry) => entry.name === name),
    `tensor ${name}`,
  );
  const values = new Float32Array(elements(tensor.shape));
  compileDecoder(storageFormat(tensor.format))(session.bytes(name), values);
  return values;
}

/** What the methods have trained beside the base, by name. */
export function trainedTensors(session: Pick<Session, "bytes" | "tensors">, methods: ComposedMethods): HostTensors {
  return new Map(methods.adapters.map(({ name }) => [name, readTensor(session, name)]));
}

/** A base tensor in f32, by name. */
export async function readWeight(weights: WeightSource, name: string): Promise<Float32Array> {
  const values = new Float32Array(elements(weights.tensor(name).shape));
  await weights.readInto(name, new Uint8Array(values.buffer), "f32");
  return values;
}

/** The base as its files have it. */
export function exportContext(weights: WeightSource, seed: number): ExportContext {
  return { seed, read: (parameter) => readWeight(weights, parameter) };
}

/** The base as its files have it, as a source. */
export function baseTensors(weights: WeightSource): TensorSource {
  return { read: ({ name }) => readWeight(weights, name) };
}

/** The weights of a session, with what its methods have trained folded in. */
export function sessionTensors(session: Session, methods: ComposedMethods): TensorSource {
  const trained = trainedTensors(session, methods);
  const formats = new Map(session.tensors.map(({ name, format }) => [name, format]));
  return {
    stored: (parameter, type) => {
      const merges = methods.adapters.length > 0 && weightLayer(parameter) !== undefined;
      return !merges && formats.get(parameter.name) === type ? session.bytes(parameter.name) : undefined;
    },
    read: (parameter) => {
      const values = readTensor(session, parameter.name);
      const linear = weightLayer(parameter);
      return Promise.resolve(linear === undefined ? values : methods.merge(linear, values, trained));
    },
  };
}

/**
 * The base with an adapter folded in, one layer at a time. Methods that change the base before training (PiSSA) do so
 * again; what they replace is kept in a file in `folder` until the source is closed.
 */
export async function mergedTensors(
  model: ModelDefinition,
  weights: WeightSource,
  methods: ComposedMethods,
  tensors: HostTensors,
  seed: number,
  folder: string = tmpdir(),
): Promise<TensorSource> {
  const replaced = new TensorSpool(folder);
  const read = (name: string): Promise<Float32Array> =>
    replaced.has(name) ? replaced.get(name) : readWeight(weights, name);
  try {
    if (methods.prepares) {
      await methods.prepare({
        model,
        seed,
        format: (name) => weights.tensor(name).storageFormat,
        read,
        original: (name) => readWeight(weights, name),
        replace: (name, values) => replaced.put(name, values),
        // The adapter's own values stand for the start values that preparation gives.
        set: () => undefined,
      });
    }
  } catch (error) {
    await replaced.close();
    throw error;
  }
  return {
    read: async (parameter) => {
      const values = await read(parameter.name);
      const linear = weightLayer(parameter);
      return linear === undefined ? values : methods.merge(linear, values, tensors);
    },
    close: () => replaced.close(),
  };
}

/** The layer of which this is the weight (not the bias). */
function weightLayer({ linear, kind }: ParameterSpec): LinearSpec | undefined {
  return kind === "weight" ? linear : undefined;
}
