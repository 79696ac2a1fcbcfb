/** Sessions of CoLM on a tiny model, for its tests. */
import { afterEach } from "vitest";
import type { SourceTable } from "../methods/examples.js";
import { drawNormal } from "../methods/initial.js";
import { openSession } from "../session/open.js";
import type { RunningSession } from "../session/session.js";
import type { SessionBatch, SessionOptions } from "../session/types.js";
import { randomWeights, trainedModel, trainingBatch, trainingOptions } from "./method-training.js";

export type Settings = Readonly<Record<string, unknown>>;

export const [rows, length] = [4, 11];
export const probed = "model.layers.1.self_attn.v_proj.lora_B.weight";
export const table: SourceTable = { names: ["large", "small", "tiny"], counts: [90, 7, 3] };
export const open: RunningSession[] = [];
afterEach(() => {
  for (const session of open.splice(0)) session.close();
});

export function optionsOf(settings: Settings | undefined, overrides: Partial<SessionOptions> = {}): SessionOptions {
  const lora = { id: "lora", settings: { r: 4 } };
  return trainingOptions({
    selection: settings === undefined ? [lora] : [lora, { id: "colm", settings: { log_selection: true, ...settings } }],
    session: { batch: rows, length, segments: false, ...overrides },
  });
}

export async function start(
  settings: Settings | undefined,
  overrides: Partial<SessionOptions> = {},
): Promise<RunningSession> {
  const session = await openSession(optionsOf(settings, overrides));
  open.push(session);
  await session.load(randomWeights(trainedModel));
  const values = Float32Array.from(drawNormal(5, "B", session.bytes(probed).length / 4), (one) => one * 0.1);
  session.bytes(probed).set(new Uint8Array(values.buffer));
  return session;
}

/** Micro-batch number `index` of rows of several lengths, with sources. */
export function batchOf(index: number, sources: readonly number[] = [0, 1, 0, 2]): SessionBatch {
  const batch = trainingBatch(index, 67, [rows, length]);
  const weights = batch.weights.map((_, at) =>
    at % length < 4 + ((index * rows + Math.floor(at / length)) % 6) ? 1 : 0,
  );
  return { ...batch, weights, sources: Int32Array.from(sources) };
}

export const drawOf = (step: number, count = 2): SessionBatch[] =>
  Array.from({ length: count }, (_, index) => batchOf(step * count + index));

export function adapterBytes(session: RunningSession): Map<string, Uint8Array> {
  const trained = session.tensors.filter(({ name, changes }) => changes && !name.startsWith("colm."));
  return new Map(trained.map(({ name }) => [name, session.bytes(name).slice()]));
}
