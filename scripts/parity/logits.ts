/** Thimble's own logits, through the session that `generate` decodes with. */
import { open } from "node:fs/promises";
import { resolveConfig } from "../../src/config/config.js";
import { openSession } from "../../src/session/open.js";
import { openRunModel } from "../../src/train/model.js";
import { sessionOptions } from "../../src/train/options.js";
import { composeAdapter, setAdapter } from "../../src/train/run-methods.js";

export interface LogitsRequest {
  readonly model: string;
  readonly adapter?: string;
  readonly ids: readonly number[];
}

/** Logits of every position, one after the other, in f32. */
export async function thimbleLogits({ model: name, adapter, ids }: LogitsRequest): Promise<Float32Array> {
  const config = resolveConfig({ flags: { model: `file:${name}`, seq: 16 } });
  const model = await openRunModel(config.model);
  const { definition, weights } = model.files;
  try {
    const run = adapter === undefined ? undefined : await composeAdapter(adapter, definition);
    const parts = { definition, weights, methods: run?.methods, segments: false, train: false, evaluate: false };
    const session = await openSession(
      sessionOptions(config, { ...parts, decode: { capacity: definition.contextLength < 64 ? 32 : 64, chunk: 1 } }),
    );
    try {
      await session.load(weights);
      if (run?.adapter !== undefined) setAdapter(session, run.adapter);
      const all = new Float32Array(ids.length * definition.vocabularySize);
      for (const [position, id] of ids.entries()) {
        const logits = await session.decode(Int32Array.of(id), position);
        all.set(logits, position * definition.vocabularySize);
      }
      return all;
    } finally {
      session.close();
    }
  } finally {
    await weights.close();
  }
}

/** The first `count` ids of the yardstick's uint16 file. */
export async function firstIds(path: string, count: number): Promise<number[]> {
  const file = await open(path, "r");
  try {
    const bytes = Buffer.alloc(2 * count);
    await file.read(bytes, 0, bytes.length, 0);
    return Array.from({ length: count }, (_, index) => bytes.readUInt16LE(2 * index));
  } finally {
    await file.close();
  }
}
