import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../../config/config.js";
import { loadTokenizerFolder } from "../../data/tokenizer-folder.js";
import { loadTokenizerGguf } from "../../data/tokenizer-gguf.js";
import { openModel } from "../../io/model.js";
import { openGguf } from "../../io/gguf.js";
import { openSafetensors } from "../../io/safetensors.js";
import { evaluate } from "../evaluate.js";
import { train } from "../train.js";
import { tokenizerFixture, writeTinyModel, writeTokens } from "../testing/tiny-folder.js";
import { exportModel } from "./export.js";
import type { ExportOptions } from "./export.js";
import { architectureOf, modelSettings, rotaryFactors } from "./gguf-settings.js";
import { tokenizerSettings } from "./gguf-tokenizer.js";
import { mergedTensors, readWeight } from "./tensor-source.js";

let folder = "";
const place = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-export-"));
  await writeTinyModel(place("model"));
  await writeTokens(place("ids.u16"), 2000, 420);
  await train(configOf({ out: place("run"), steps: 4 }));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

function configOf(changes: Readonly<Record<string, unknown>>): ReturnType<typeof resolveConfig> {
  const base = { model: place("model"), data: `tokens:${place("ids.u16")}`, batch: 2, seq: 16, lr: 0.05 };
  return resolveConfig({ flags: { ...base, target: "c", threads: 2, ...changes } });
}

const exportTo = (name: string, options: Partial<ExportOptions>, changes: Readonly<Record<string, unknown>> = {}) =>
  exportModel(configOf({ adapter: place("run"), ...changes }), { format: "gguf", ...options, out: place(name) });

const lossOf = async (changes: Readonly<Record<string, unknown>>): Promise<number> =>
  (await evaluate(configOf({ steps: 3, ...changes }))).loss;

describe("an exported model", () => {
  it("has the loss of base and adapter together, as safetensors and as GGUF", async () => {
    const base = await lossOf({});
    const adapted = await lossOf({ adapter: place("run") });
    expect(Math.abs(base - adapted)).toBeGreaterThan(0.05);
    const { files } = await exportTo("merged", { format: "safetensors" });
    expect(files).toEqual(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    expect(await lossOf({ model: place("merged") })).toBeCloseTo(adapted, 4);
    expect((await exportTo("f32", { type: "f32" })).files).toEqual(["Modelfile", "model.gguf"]);
    expect(await lossOf({ model: place("f32") })).toBeCloseTo(adapted, 4);
    for (const [type, digits] of [
      ["f16", 2],
      ["bf16", 1],
      ["q8_0", 1],
      ["q4_0", 0],
    ] as const) {
      await exportTo(type, { type });
      expect(await lossOf({ model: place(type) })).toBeCloseTo(adapted, digits);
    }
  });

  it("from a GGUF base keeps what the file says of itself", async () => {
    await exportTo("first", { type: "q8_0" }, { adapter: undefined });
    await exportTo("second", { type: "f32" }, { adapter: undefined, model: place("first") });
    const [first, second] = await Promise.all(
      ["first", "second"].map((name) => openGguf(join(place(name), "model.gguf"))),
    );
    for (const [key, value] of first?.metadata ?? []) {
      if (key !== "general.file_type") expect([key, second?.metadata.get(key)]).toEqual([key, value]);
    }
    await first?.close();
    await second?.close();
    const [before, after] = await Promise.all(["first", "second"].map((name) => lossOf({ model: place(name) })));
    expect(after).toBe(before);
    await train(configOf({ model: place("first"), method: "full", steps: 1, out: place("full-gguf") }));
    expect(await readdir(join(place("full-gguf"), "model"))).toEqual(["model.gguf"]);
    const refused = exportTo("third", { format: "safetensors" }, { adapter: undefined, model: place("first") });
    await expect(refused).rejects.toMatchObject({ code: "export-format" });
    expect(await readdir(folder)).not.toContain("third");
  });

  it("as an adapter is what was trained, also in its portable form", async () => {
    await exportTo("peft", { format: "peft" });
    const [one, other] = await Promise.all(
      ["run/adapter", "peft"].map((name) => readFile(join(place(name), "adapter_model.safetensors"))),
    );
    expect(other).toEqual(one);
    await exportTo("portable", { format: "peft", portable: true });
    const config = JSON.parse(await readFile(join(place("portable"), "adapter_config.json"), "utf8")) as object;
    expect(config).toMatchObject({ r: 16, lora_alpha: 16 });
    expect(await lossOf({ adapter: place("portable") })).toBeCloseTo(await lossOf({ adapter: place("run") }), 5);
  });

  it("merges DoRA and PiSSA adapters too", async () => {
    for (const [name, set] of [
      ["dora", ["lora.dora=true"]],
      ["pissa", ["lora.init=pissa", "lora.r=4"]],
    ] as const) {
      await train(configOf({ out: place(name), steps: 2, set, lr: 0.01 }));
      const adapted = await lossOf({ adapter: place(name) });
      await exportTo(`merged-${name}`, { format: "safetensors" }, { adapter: place(name) });
      expect(await lossOf({ model: place(`merged-${name}`) })).toBeCloseTo(adapted, 4);
    }
  });

  it("refuses a used folder, a type that does not fit, and an adapter that is not there", async () => {
    await expect(exportTo("run", {})).rejects.toMatchObject({ code: "out-not-empty" });
    const packed = exportTo("packed", { format: "safetensors", type: "q8_0" });
    await expect(packed).rejects.toMatchObject({ code: "export-type" });
    const alone = exportTo("alone", { format: "peft" }, { adapter: undefined });
    await expect(alone).rejects.toMatchObject({ code: "export-adapter" });
    expect((await readdir(folder)).filter((name) => name.startsWith("."))).toEqual([]);
  });
});

describe("GGUF", () => {
  const families = ["llama", "smollm", "smollm3", "mistral", "qwen2", "qwen3", "gemma3", "gpt2"];
  it.each(families)("settings of %s describe the model that its config.json does", async (family) => {
    const path = fileURLToPath(new URL(`../../models/fixtures/${family}`, import.meta.url));
    const { files, definition } = await openModel(path).then((model) => {
      if (model.format !== "huggingface") throw new Error("not a folder");
      return model;
    });
    const config = files.config as Record<string, unknown>;
    const architecture = architectureOf(config);
    const settings = modelSettings(config, definition);
    expect(settings.get(`${architecture}.block_count`)?.value).toBe(definition.blocks);
    const names = (await readdir(path)).filter((name) => name.endsWith(".gguf"));
    for (const name of names) {
      const reference = await openGguf(join(path, name));
      expect(reference.text("general.architecture")).toBe(architecture);
      for (const [key, { value }] of reference.metadata) {
        const own = settings.get(key)?.value;
        if (!key.startsWith(`${architecture}.`) || own === undefined) continue;
        if (typeof value === "number") expect(own, key).toBeCloseTo(value, 6);
        else expect([key, own]).toEqual([key, value]);
      }
      const factors = reference.tensors.get("rope_freqs.weight");
      const made = rotaryFactors(config, definition);
      expect(made?.length).toBe(factors?.shape[0]);
      if (factors !== undefined) {
        const expected = await reference.readAs("rope_freqs.weight", "f32");
        for (const [index, value] of (made ?? []).entries()) expect(value).toBeCloseTo(expected[index] ?? NaN, 5);
      }
      await reference.close();
    }
  });

  it.each(["llama3", "qwen2", "gpt4o", "byte-level", "llama-prepend"])(
    "tokenizers of the kind of %s give the same ids",
    async (name) => {
      const fixture = await tokenizerFixture(name);
      const rows = name === "llama-prepend" ? 704 : 424;
      await writeTinyModel(place(`tokenizer-${name}`), { vocab_size: rows }, name);
      const tokenizer = await loadTokenizerFolder(place(`tokenizer-${name}`));
      const settings = tokenizerSettings(fixture.tokenizer, tokenizer, rows, "tokenizer.json");
      const metadata = new Map([...settings].map(([key, { value }]) => [key, value]));
      const again = loadTokenizerGguf(metadata, "model.gguf");
      // How much white space an added token takes with it is not in a GGUF file.
      const texts = fixture.cases.filter(({ text }) => !text.includes("<mask>"));
      for (const { text } of texts) expect([text, again.encode(text)]).toEqual([text, tokenizer.encode(text)]);
      expect(again.special).toEqual(tokenizer.special);
      expect(again.vocabularySize).toBe(rows);
    },
  );

  it("refuses tokenizers that llama.cpp does not know", async () => {
    const { tokenizer } = await tokenizerFixture("unigram");
    const loaded = await loadTokenizerFolder(place("model"));
    expect(() => tokenizerSettings(tokenizer, loaded, 500, "tokenizer.json")).toThrow("cannot be written");
    const changed = { ...(await tokenizerFixture("llama3")).tokenizer, pre_tokenizer: { type: "Whitespace" } };
    expect(() => tokenizerSettings(changed, loaded, 500, "tokenizer.json")).toThrow("cannot be written");
  });
});

it("a merge reads one tensor at a time, and leaves what no method touches", async () => {
  const { definition, weights } = await openModel(place("model"));
  const methods = await import("../run-methods.js").then(({ composeAdapter }) =>
    composeAdapter(place("run"), definition),
  );
  const source = await mergedTensors(
    definition,
    weights,
    methods.methods,
    methods.adapter ?? { tensors: new Map() },
    0,
  );
  for (const parameter of definition.parameters) {
    const [merged, base] = [await source.read(parameter), await readWeight(weights, parameter.name)];
    const changed = merged.some((value, index) => value !== base[index]);
    expect([parameter.name, changed]).toEqual([parameter.name, parameter.linear !== undefined]);
  }
  await weights.close();
  const file = await openSafetensors(join(place("model"), "model.safetensors"));
  expect(file.tensors.size).toBe(definition.parameters.length);
  await file.close();
});
