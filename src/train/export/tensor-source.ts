import { tmpdir } from "node:os";
import type { WeightSource } from "../../io/weight-source.js";
import { must, ThimbleError } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import type { ComposedMethods } from "../../methods/compose.js";
import { addsToModel } from "../../methods/compose.js";
import type { ExportContext, HostIntegers, HostTensors } from "../../methods/types.js";
import type { LinearSpec, ModelDefinition, ParameterSpec } from "../../models/types.js";
import { pendingError } from "../../session/pending.js";
import type { Session } from "../../session/types.js";
import { compileDecoder } from "../../storage/decoder.js";
import { storageFormat } from "../../storage/registry.js";
import { TensorSpool } from "./spool.js";

/** A model's tensors in f32, one at a time, as the Hugging Face checkpoint has them. */
export interface TensorSource {
  read(parameter: ParameterSpec): Promise<Float32Array>;
  /** The tensor as it lies in memory, where that is in the storage format `type` already; not to be changed, and read before the next. */
  stored?(parameter: ParameterSpec, type: string): Uint8Array | undefined;
  /** Removes what it keeps on disk. */
  close?(): Promise<void>;
}

/** A tensor of a session in f32, as a copy. */
export function readTensor(
  session: Pick<Session, "bytes" | "peek" | "tensors" | "current">,
  name: string,
): Float32Array {
  if (session.current === false) throw pendingError(name);
  const tensor = must(
    session.tensors.find((entry) => entry.name === name),
    `tensor ${name}`,
  );
  const values = new Float32Array(elements(tensor.shape));
  compileDecoder(storageFormat(tensor.format))(session.peek?.(name) ?? session.bytes(name), values);
  return values;
}

/** What an adapter of the methods must hold beside trained tensors, by name: copies. */
export function adapterIntegers(session: Pick<Session, "bytes">, { integers }: ComposedMethods): HostIntegers {
  return new Map(integers.map((name) => [name, new Int32Array(session.bytes(name).slice().buffer)]));
}

/** What the methods have trained beside the base, by name. */
export function trainedTensors(
  session: Pick<Session, "bytes" | "peek" | "tensors" | "current">,
  methods: ComposedMethods,
): HostTensors {
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
  if (session.current === false) throw pendingError("the model");
  const trained = trainedTensors(session, methods);
  const integers = adapterIntegers(session, methods);
  const formats = new Map(session.tensors.map(({ name, format }) => [name, format]));
  const peeked = (name: string): Uint8Array => session.peek?.(name) ?? session.bytes(name);
  return {
    stored: (parameter, type) => {
      const merges = methods.adapters.length > 0 && weightLayer(parameter) !== undefined;
      return !merges && formats.get(parameter.name) === type ? peeked(parameter.name) : undefined;
    },
    read: (parameter) => {
      const values = readTensor(session, parameter.name);
      const linear = weightLayer(parameter);
      return Promise.resolve(linear === undefined ? values : methods.merge(linear, values, trained, integers));
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
  adapter: { readonly tensors: HostTensors; readonly integers?: HostIntegers },
  seed: number,
  folder: string = tmpdir(),
): Promise<TensorSource> {
  refuseUnmergeable(methods);
  const head = new Set(model.task?.head);
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
      const trained = head.has(parameter.name) ? adapter.tensors.get(parameter.name) : undefined;
      const values = trained ?? (await read(parameter.name));
      const linear = weightLayer(parameter);
      return linear === undefined ? values : methods.merge(linear, values, adapter.tensors, adapter.integers);
    },
    close: () => replaced.close(),
  };
}

/** What a method trains beside the weights must have a place in them. */
function refuseUnmergeable({ methods }: ComposedMethods): void {
  const method = methods.find((one) => one.merge === undefined && addsToModel(one));
  if (method === undefined) return;
  throw new ThimbleError("export-merge", `What ${method.id} trains cannot be folded into the model's weights`, {
    where: "adapter",
    given: method.id,
    fix: "Keep the adapter's folder, and run the model with --adapter.",
  });
}

/** The layer of which this is the weight (not the bias). */
function weightLayer({ linear, kind }: ParameterSpec): LinearSpec | undefined {
  return kind === "weight" ? linear : undefined;
}
