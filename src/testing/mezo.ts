import type { MethodSelection } from "../methods/compose.js";
import type { ModelDefinition } from "../models/types.js";
import { openSession } from "../session/open.js";
import type { RunningSession } from "../session/session.js";
import type { SessionBatch, SessionOptions } from "../session/types.js";
import { randomWeights, trainingOptions } from "./method-training.js";
import { tinyLlama } from "./tiny.js";

export const model = tinyLlama();
const [batch, length] = [2, 11];

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
  const common = { batch, length, saved: "all", segments: false, target: "interpret" } as const;
  return trainingOptions({
    selection: methods,
    model: overrides.definition ?? model,
    optimizer: { id: "sgd" },
    session: { ...common, ...overrides },
  });
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
