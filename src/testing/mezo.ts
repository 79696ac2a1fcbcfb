import { must } from "../errors.js";
import type { WeightSource } from "../io/weight-source.js";
import { elements } from "../ir/shape.js";
import type { MethodSelection } from "../methods/compose.js";
import { composeMethods } from "../methods/compose.js";
import type { ModelDefinition } from "../models/types.js";
import { makeOptimizer } from "../optim/registry.js";
import { openSession } from "../session/open.js";
import type { RunningSession } from "../session/session.js";
import type { SessionBatch, SessionOptions } from "../session/types.js";
import { tensorToBytes } from "../targets/interpret/memory.js";
import { sequence, tinyLlama } from "./tiny.js";

export const model = tinyLlama();
const [batch, length] = [2, 11];

/** Random weights, the same for every session of a model. */
function randomWeights(definition: ModelDefinition): WeightSource {
  const specs = new Map(definition.parameters.map((spec) => [spec.name, spec]));
  return {
    tensor: (name) => ({ shape: must(specs.get(name), name).shape, storageFormat: "f32", bytes: 0 }),
    readInto: (name, target, format) => {
      const { shape, kind } = must(specs.get(name), name);
      const next = sequence(name.length * 31 + name.charCodeAt(name.length >> 1));
      const data = Float32Array.from({ length: elements(shape) }, () => (kind === "norm" ? 1 : 0) + next() * 0.4);
      tensorToBytes({ shape, dtype: format === "bf16" ? "bf16" : "f32", data }, target);
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
  };
}

/** A micro-batch whose tokens follow a rule that can be learned. */
export function batchOf(number: number, definition: ModelDefinition = model): SessionBatch {
  const tokens = batch * length;
  const id = (index: number): number => (index * 5 + number * 7) % definition.vocabularySize;
  return {
    ids: Int32Array.from({ length: tokens }, (_, index) => id(index)),
    labels: Int32Array.from({ length: tokens }, (_, index) => id(index + 1)),
    weights: Float32Array.from({ length: tokens }, (_, index) => (index % 4 === 3 ? 0 : 1)),
    positions: Int32Array.from({ length: tokens }, (_, index) => index % length),
    segments: new Int32Array(tokens),
  };
}

export type Overrides = Partial<SessionOptions>;

/** Options of a run of `selection`; mezo with these settings if only they are given. */
export function optionsOf(
  selection: readonly MethodSelection[] | Readonly<Record<string, unknown>> = {},
  overrides: Overrides = {},
): SessionOptions {
  const methods = Array.isArray(selection)
    ? (selection as readonly MethodSelection[])
    : [{ id: "mezo", settings: selection as Record<string, unknown> }];
  const definition = overrides.definition ?? model;
  const dtype = overrides.dtype ?? "f32";
  return {
    definition,
    storedFormat: () => dtype,
    methods: composeMethods(methods, definition),
    batch,
    length,
    accumulate: 1,
    dtype,
    optimizer: makeOptimizer({ id: "sgd" }),
    clip: undefined,
    saved: "all",
    segments: false,
    train: true,
    evaluate: true,
    decode: undefined,
    target: "interpret",
    threads: 2,
    seed: 7,
    ...overrides,
  };
}

/** A loaded session; `close` it. */
export async function sessionOf(options: SessionOptions): Promise<RunningSession> {
  const session = await openSession(options);
  await session.load(randomWeights(options.definition));
  return session;
}

/** The bytes of everything that changes, by name. */
export function changingBytes(session: RunningSession): Map<string, Uint8Array> {
  return new Map(
    session.tensors.filter(({ changes }) => changes).map(({ name }) => [name, session.bytes(name).slice()]),
  );
}

export function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}
