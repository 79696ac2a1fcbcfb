import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { writeGguf } from "../../io/gguf-write.js";
import { writeSafetensors } from "../../io/safetensors-write.js";
import type { WeightSource } from "../../io/weight-source.js";
import { elements } from "../../ir/shape.js";
import { composeMethods } from "../../methods/compose.js";
import { must } from "../../errors.js";
import { sequence, tinyLlama } from "../../testing/tiny.js";
import { mergedTensors } from "./tensor-source.js";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

const definition = tinyLlama({ hidden_size: 64, intermediate_size: 128, num_hidden_layers: 12, head_dim: 32 });
const shapes = new Map(definition.parameters.map(({ name, shape }) => [name, shape]));
const largest = Math.max(...definition.parameters.map(({ shape }) => elements(shape) * 4));
const whole = definition.parameters.reduce((sum, { shape }) => sum + elements(shape) * 4, 0);

/** Counts the bytes of buffers that are alive whenever a tensor is read. */
class Counted implements WeightSource {
  most = 0;
  private readonly before: number;

  constructor() {
    collect();
    this.before = process.memoryUsage().arrayBuffers;
  }

  tensor(name: string): { shape: readonly number[]; storageFormat: string; bytes: number } {
    return { shape: must(shapes.get(name), name), storageFormat: "f32", bytes: 0 };
  }

  readInto(name: string, target: Uint8Array): Promise<void> {
    collect();
    this.most = Math.max(this.most, process.memoryUsage().arrayBuffers - this.before);
    const next = sequence(name.length);
    new Float32Array(target.buffer, target.byteOffset, target.byteLength / 4).forEach((_, index, all) => {
      all[index] = next();
    });
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

test.each([
  ["lora", "safetensors", {}],
  ["lora", "gguf", {}],
  ["pissa", "safetensors", { init: "pissa_niter_1" }],
])("merging %s into %s holds a few tensors at a time", async (_name, format, settings) => {
  const folder = await mkdtemp(join(tmpdir(), "thimble-memory-"));
  try {
    const methods = composeMethods([{ id: "lora", settings: { r: 2, ...settings } }], definition);
    const adapter = new Map(
      methods.adapters.map(({ name, shape }) => [name, new Float32Array(elements(shape)).fill(0.01)]),
    );
    const weights = new Counted();
    const source = await mergedTensors(definition, weights, methods, { tensors: adapter }, 0, folder);
    const tensors = definition.parameters.map((parameter) => ({
      name: parameter.name,
      type: "f32",
      shape: parameter.shape,
      parameter,
    }));
    if (format === "gguf") {
      await writeGguf(
        join(folder, "model.gguf"),
        new Map(),
        tensors.map(({ parameter, ...rest }) => ({
          ...rest,
          name: rest.name.slice(-60),
          values: async function* () {
            yield await source.read(parameter);
          },
        })),
      );
    } else {
      await writeSafetensors(
        join(folder, "model.safetensors"),
        tensors.map(({ parameter, ...rest }) => ({
          ...rest,
          chunks: async function* () {
            const values = await source.read(parameter);
            yield new Uint8Array(values.buffer);
          },
        })),
        {},
      );
    }
    await source.close?.();
    expect((await readdir(folder)).length).toBe(1);
    const allowed = 6 * largest + 2 ** 18;
    expect(allowed).toBeLessThan(whole / 3);
    expect(weights.most).toBeGreaterThan(0);
    expect(weights.most).toBeLessThan(allowed);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
