import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ThimbleError } from "../errors.js";
import { bf16Bits, roundTo } from "../ir/dtype.js";
import type { Tensor } from "../ir/tensor.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import type { ModelDefinition } from "../models/types.js";
import { compileDecoder } from "../storage/decoder.js";
import { bytesOf } from "../storage/format.js";
import { storageFormat } from "../storage/registry.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import type { Golden, GoldenFamily } from "../testing/goldens.js";
import { goldenFolder, goldenGraph, loadGolden, relativeError } from "../testing/goldens.js";
import type { ModelFiles } from "./model.js";
import { openModel } from "./model.js";
import { writeSafetensors } from "./safetensors-write.js";

let scratch = "";
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "thimble-model-"));
});
afterAll(async () => {
  await rm(scratch, { recursive: true });
});

async function read(model: ModelFiles, name: string): Promise<Tensor> {
  const { shape } = model.weights.tensor(name);
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  await model.weights.readInto(name, new Uint8Array(data.buffer), "f32");
  return { shape, dtype: "f32", data };
}

function transpose({ shape, dtype, data }: Tensor): Tensor {
  const [rows = 0, columns = 0] = shape;
  const turned = Float32Array.from(data, (_, index) => data[(index % rows) * columns + Math.floor(index / rows)]!);
  return { shape: [columns, rows], dtype, data: turned };
}

/** The error that a promise is rejected with. */
async function failure(promise: Promise<unknown>): Promise<ThimbleError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ThimbleError);
  return error as ThimbleError;
}

interface Change {
  readonly rename?: (name: string) => string;
  readonly drop?: string;
  readonly extra?: Readonly<Record<string, Tensor>>;
  readonly config?: Readonly<Record<string, unknown>>;
}

/** A copy of a fixture with changes. */
async function changed(name: string, family: GoldenFamily, change: Change): Promise<string> {
  const folder = join(scratch, name);
  await mkdir(folder);
  const original = await openModel(goldenFolder(family));
  if (original.format !== "huggingface") throw new Error("a fixture is a folder");
  const config = { ...(original.files.config as object), ...change.config };
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  const golden = await loadGolden(family);
  const kept = [...golden.parameters].filter(([tensor]) => tensor !== change.drop);
  const renamed = kept.map(([tensor, value]) => [change.rename?.(tensor) ?? tensor, value] as const);
  const tensors = [...renamed, ...Object.entries(change.extra ?? {})].map(([tensor, { shape, data }]) => ({
    name: tensor,
    type: "f32",
    shape,
    chunks: () => [new Uint8Array(Float32Array.from(data).buffer)],
  }));
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
  await original.weights.close();
  return folder;
}

function lossOf(golden: Golden): number {
  const { loss, bindings } = goldenGraph(golden);
  return evaluate([loss], bindings)[0]!.data[0]!;
}

async function definitionWith(
  family: GoldenFamily,
  config: Readonly<Record<string, unknown>>,
): Promise<ModelDefinition> {
  const model = await openModel(goldenFolder(family));
  await model.weights.close();
  if (model.format !== "huggingface") throw new Error("a fixture is a folder");
  return fromHuggingFaceConfig({ ...(model.files.config as object), ...config });
}

const filled = (shape: readonly number[]): Tensor => ({
  shape,
  dtype: "f32",
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
});

describe("GGUF files as llama.cpp's converter writes them", () => {
  it.each(["llama", "qwen3", "gemma3", "gpt2"] as const)("%s gives the checkpoint's weights", async (family) => {
    const golden = await loadGolden(family);
    const model = await openModel(join(goldenFolder(family), "model-f16.gguf"));
    expect(model.format).toBe("gguf");
    for (const spec of model.definition.parameters) {
      const original = golden.parameters.get(spec.name)!;
      const turned = family === "gpt2" && spec.linear !== undefined && spec.kind === "weight";
      const expected = turned ? transpose(original) : original;
      const actual = await read(model, spec.name);
      expect(actual.shape).toEqual(expected.shape);
      // One-dimensional tensors stay f32 in such files; Gemma's norms lose a bit to the one added to them.
      const exact = expected.data.map((value) => (spec.shape.length === 1 ? value : roundTo("f16", value)));
      const slack = family === "gemma3" && spec.kind === "norm" ? 5e-7 : 0;
      expect(relativeError(actual.data, exact)).toBeLessThanOrEqual(slack);
    }
    await model.weights.close();
  });

  it.each(["llama", "qwen3", "gemma3", "gpt2"] as const)("%s computes the same loss", async (family) => {
    const golden = await loadGolden(family);
    const model = await openModel(join(goldenFolder(family), "model-f16.gguf"));
    const parameters = new Map<string, Tensor>();
    for (const { name } of model.definition.parameters) parameters.set(name, await read(model, name));
    await model.weights.close();
    const value = lossOf({ ...golden, definition: model.definition, parameters });
    // GGUF cannot say Gemma's attention scale: llama.cpp takes the head's width.
    const reference =
      family === "gemma3" ? await definitionWith(family, { query_pre_attn_scalar: 12 }) : golden.definition;
    expect(Math.abs(value - lossOf({ ...golden, definition: reference }))).toBeLessThan(2e-3);
  });

  it.each(["model-f16.gguf", "model-q8_0.gguf"])("of %s are packed in the model's order of rows", async (file) => {
    const model = await openModel(join(goldenFolder("llama"), file));
    const format = storageFormat("nf4-32-dq");
    for (const { name, shape } of model.definition.parameters) {
      const packed = new Uint8Array(bytesOf(format, shape)).fill(0xff);
      await model.weights.readInto(name, packed, format.id);
      const values = new Float32Array((await read(model, name)).data);
      expect(packed, name).toEqual(format.encode!(values));
    }
    await model.weights.close();
  });

  it("undo the order of rows without decoding them", async () => {
    const golden = await loadGolden("llama");
    const model = await openModel(join(goldenFolder("llama"), "model-q8_0.gguf"));
    const format = storageFormat("q8_0");
    for (const { name } of model.definition.linears.map(({ path }) => ({ name: `${path}.weight` }))) {
      const info = model.weights.tensor(name);
      expect(info.storageFormat).toBe("q8_0");
      const expected = format.encode!(Float32Array.from(golden.parameters.get(name)!.data));
      const packed = new Uint8Array(info.bytes);
      await model.weights.readInto(name, packed, "q8_0");
      expect(packed).toEqual(expected);
      const decoded = new Float32Array(golden.parameters.get(name)!.data.length);
      compileDecoder(format)(expected, decoded);
      expect((await read(model, name)).data).toEqual(decoded);
    }
    await model.weights.close();
  });
});

describe("conversion while reading", () => {
  it("rounds to bf16 and packs into blocks", async () => {
    const golden = await loadGolden("llama");
    const model = await openModel(goldenFolder("llama"));
    const name = "model.layers.1.self_attn.q_proj.weight";
    const values = Float32Array.from(golden.parameters.get(name)!.data);
    expect(model.weights.tensor(name)).toEqual({ shape: [32, 32], storageFormat: "f32", bytes: 4096 });
    const half = new Uint8Array(2048);
    await model.weights.readInto(name, half, "bf16");
    expect(new Uint16Array(half.buffer)).toEqual(Uint16Array.from(values, bf16Bits));
    const packed = new Uint8Array(32 * 34);
    await model.weights.readInto(name, packed, "q8_0");
    expect(packed).toEqual(storageFormat("q8_0").encode!(values));
    const place = await failure(model.weights.readInto(name, new Uint8Array(100), "bf16"));
    expect(place.code).toBe("tensor-range");
    expect((await failure(model.weights.readInto(name, packed, "q4_K"))).code).toBe("storage-row");
    expect((await failure(model.weights.readInto("model.wrong", packed, "f32"))).code).toBe("tensor-missing");
    await model.weights.close();
  });

  it("refuses to pack into formats that cannot be written", async () => {
    const model = await openModel(goldenFolder("llama"));
    const name = "model.layers.1.self_attn.q_proj.weight";
    const error = await failure(model.weights.readInto(name, new Uint8Array(32 * 20), "q4_1"));
    expect(error.code).toBe("storage-encode");
    await model.weights.close();
  });
});

describe("checkpoints that differ in form", () => {
  it("are read without the family's prefix and with old buffers", async () => {
    const folder = await changed("bare", "gpt2", {
      rename: (name) => name.replace("transformer.", ""),
      extra: { "h.0.attn.bias": filled([1, 1, 4, 4]), "h.1.attn.masked_bias": filled([1]) },
    });
    const model = await openModel(folder);
    const golden = await loadGolden("gpt2");
    const name = "transformer.h.1.mlp.c_fc.weight";
    expect((await read(model, name)).data).toEqual(golden.parameters.get(name)!.data);
    await model.weights.close();
  });

  it("may hold a copy of tied embeddings, or only that copy", async () => {
    const golden = await loadGolden("qwen2");
    const embedding = golden.parameters.get("model.embed_tokens.weight")!;
    const copy = await openModel(await changed("copy", "qwen2", { extra: { "lm_head.weight": embedding } }));
    const only = await changed("only", "qwen2", {
      rename: (name) => (name === "model.embed_tokens.weight" ? "lm_head.weight" : name),
    });
    const model = await openModel(only);
    expect((await read(model, "model.embed_tokens.weight")).data).toEqual(embedding.data);
    await copy.weights.close();
    await model.weights.close();
  });

  it("are found by any of their files", async () => {
    const folder = join(scratch, "one-gguf");
    await mkdir(folder);
    await copyFile(join(goldenFolder("llama"), "model-q8_0.gguf"), join(folder, "a.gguf"));
    const gguf = await openModel(folder);
    expect(gguf.format).toBe("gguf");
    const file = await openModel(join(goldenFolder("llama"), "model.safetensors"));
    expect(file.format).toBe("huggingface");
    await copyFile(join(goldenFolder("llama"), "model-q8_0.gguf"), join(folder, "b.gguf"));
    expect((await failure(openModel(folder))).code).toBe("model-path");
    await Promise.all([gguf.weights.close(), file.weights.close()]);
  });
});

describe("what does not fit is told before anything is read", () => {
  it("a missing tensor", async () => {
    const folder = await changed("missing", "llama", { drop: "model.layers.1.mlp.up_proj.weight" });
    const error = await failure(openModel(folder));
    expect(error.code).toBe("model-tensors");
    expect(error.given).toContain("model.layers.1.mlp.up_proj.weight");
    expect(error.where).toBe(folder);
  });

  it("an extra tensor", async () => {
    const extra = { "model.layers.0.self_attn.q_proj.bias": filled([32]) };
    const error = await failure(openModel(await changed("extra", "llama", { extra })));
    expect(error.code).toBe("model-tensors");
    expect(error.given).toBe("model.layers.0.self_attn.q_proj.bias");
  });

  it("a tensor of another shape", async () => {
    const error = await failure(openModel(await changed("shape", "llama", { config: { intermediate_size: 48 } })));
    expect(error.code).toBe("model-tensors");
    expect(error.given).toContain("model.layers.0.mlp.gate_proj.weight is [64, 32] instead of [48, 32]");
  });

  it("no model at all", async () => {
    expect((await failure(openModel(join(scratch, "nothing")))).code).toBe("model-path");
    await mkdir(join(scratch, "empty"));
    expect((await failure(openModel(join(scratch, "empty")))).code).toBe("model-config");
    const bare = join(scratch, "no-weights");
    await mkdir(bare);
    await copyFile(join(goldenFolder("llama"), "config.json"), join(bare, "config.json"));
    expect((await failure(openModel(bare))).code).toBe("safetensors-missing");
  });
});
