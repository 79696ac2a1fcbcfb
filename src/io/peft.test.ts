import { readFileSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { must, ThimbleError } from "../errors.js";
import { elements } from "../ir/shape.js";
import { portableForm } from "../methods/low-rank/portable.js";
import type { PeftForm } from "../methods/types.js";
import type { ModelDefinition } from "../models/types.js";
import { largestDifference, MethodBench } from "../testing/method-bench.js";
import { openModel } from "./model.js";
import type { PeftAdapter } from "./peft.js";
import { readPeft, writePeft } from "./peft.js";
import { openSafetensors } from "./safetensors.js";
import { writeSafetensors } from "./safetensors-write.js";

const fixtures = fileURLToPath(new URL("fixtures/peft", import.meta.url));
const expected = JSON.parse(readFileSync(join(fixtures, "logits.json"), "utf8")) as {
  ids: number[];
  logits: Record<string, Record<string, number[]>>;
};

interface Base {
  readonly model: ModelDefinition;
  readonly weights: ReadonlyMap<string, Float32Array>;
}

async function loadBase(family: string): Promise<Base> {
  const { definition, weights } = await openModel(join(fixtures, family, "base"));
  const values = new Map<string, Float32Array>();
  for (const { name, shape } of definition.parameters) {
    const target = new Float32Array(elements(shape));
    await weights.readInto(name, new Uint8Array(target.buffer), "f32");
    values.set(name, target);
  }
  await weights.close();
  return { model: definition, weights: values };
}

let llama: Base;
let folder: string;
beforeAll(async () => {
  llama = await loadBase("llama");
  folder = await mkdtemp(join(tmpdir(), "thimble-peft-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Logits of the last three positions. */
async function logitsOf(
  { model, weights }: Base,
  adapter: Pick<PeftAdapter, "selection" | "tensors">,
): Promise<number[]> {
  const bench = await MethodBench.create(model, [adapter.selection], { weights, ids: expected.ids });
  for (const [name, values] of adapter.tensors) bench.values.set(name, values);
  const logits = must(bench.run([bench.logits])[0], "logits").data;
  return [...logits.slice(-3 * model.vocabularySize)];
}

const formOf = async ({ model, weights }: Base, adapter: PeftAdapter): Promise<PeftForm> => {
  const bench = await MethodBench.create(model, [adapter.selection], { weights });
  const read = (name: string): Promise<Float32Array> => Promise.resolve(must(weights.get(name), name));
  return must(bench.composed.peft, "form")(adapter.tensors, { seed: 1, read });
};

describe("adapters that PEFT wrote", () => {
  test.each([
    ["llama", "lora"],
    ["llama", "rslora"],
    ["llama", "dora"],
    ["llama", "patterns"],
    ["gpt2", "lora"],
    ["gpt2", "dora"],
  ])("%s with %s gives PEFT's logits", async (family, name) => {
    const base = await loadBase(family);
    const adapter = await readPeft(join(fixtures, family, name), base.model);
    expect(adapter.warnings).toEqual([]);
    expect(adapter.baseModel).toBe(`tiny-${family}`);
    const logits = must(expected.logits[family], family);
    const made = await logitsOf(base, adapter);
    expect(largestDifference(made, must(logits[name], name))).toBeLessThan(1e-4);
    // The adapter matters: the base alone is far away.
    expect(largestDifference(must(logits["base"], "base"), must(logits[name], name))).toBeGreaterThan(0.05);
  });
});

describe("adapters that Thimble writes", () => {
  test.each([
    ["llama", "lora"],
    ["llama", "rslora"],
    ["llama", "dora"],
    ["llama", "patterns"],
    ["gpt2", "lora"],
  ])("%s with %s: the same keys, shapes, bytes and effective settings as PEFT's file", async (family, name) => {
    const base = await loadBase(family);
    const source = join(fixtures, family, name);
    const target = join(folder, family, name);
    const adapter = await readPeft(source, base.model);
    await writePeft(target, await formOf(base, adapter), { baseModel: `tiny-${family}` });
    const bytes = (from: string): Promise<Buffer> => readFile(join(from, "adapter_model.safetensors"));
    expect((await bytes(target)).equals(await bytes(source))).toBe(true);
    const configOf = async (from: string): Promise<Record<string, unknown>> =>
      JSON.parse(await readFile(join(from, "adapter_config.json"), "utf8")) as Record<string, unknown>;
    const [ours, theirs] = [await configOf(target), await configOf(source)];
    const same = ["peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "bias"];
    same.push("use_rslora", "use_dora", "fan_in_fan_out", "modules_to_save", "inference_mode", "auto_mapping");
    for (const key of same) expect(ours[key], key).toEqual(theirs[key]);
    expect(ours["init_lora_weights"]).toBe(true);
    const again = await readPeft(target, base.model);
    expect(again.selection.settings["target_modules"]).toEqual(adapter.selection.settings["target_modules"]);
    expect(await logitsOf(base, again)).toEqual(await logitsOf(base, adapter));
  });

  test.each(["lora", "rslora", "patterns"])(
    "the portable form of %s gives the same logits by all three scale rules",
    async (name) => {
      const adapter = await readPeft(join(fixtures, "llama", name), llama.model);
      const form = portableForm(await formOf(llama, adapter));
      const { config, tensors } = form;
      const rank = config["r"] as number;
      // PEFT: alpha / r and patterns; vLLM: alpha / r alone; llama.cpp: alpha / the tensor's rank. All are 1.
      expect(config).toMatchObject({ lora_alpha: rank, use_rslora: false, rank_pattern: {}, alpha_pattern: {} });
      for (const [key, { shape }] of tensors) expect(shape[key.includes("lora_A") ? 0 : 1]).toBe(rank);
      const target = join(folder, "portable", name);
      await writePeft(target, form);
      const made = await logitsOf(llama, await readPeft(target, llama.model));
      expect(largestDifference(made, must(expected.logits["llama"]?.[name], name))).toBeLessThan(1e-4);
    },
  );

  test("DoRA has no portable form", async () => {
    const form = await formOf(llama, await readPeft(join(fixtures, "llama", "dora"), llama.model));
    expect(() => portableForm(form)).toThrow(/no portable form/);
  });

  test("nothing but the two files is left in the folder", async () => {
    const file = await openSafetensors(join(folder, "llama", "lora", "adapter_model.safetensors"));
    expect([...file.metadata]).toEqual([["format", "pt"]]);
    await file.close();
  });
});

describe("refusals", () => {
  type Tensors = Map<string, { shape: readonly number[]; values: Float32Array }>;

  /** A copy of the LoRA fixture with its configuration or tensors changed. */
  async function changed(
    config: Record<string, unknown>,
    change: (tensors: Tensors) => void = () => undefined,
  ): Promise<string> {
    const target = await mkdtemp(join(folder, "changed-"));
    await cp(join(fixtures, "llama", "lora"), target, { recursive: true });
    const path = join(target, "adapter_config.json");
    const before = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
    await writeFile(path, JSON.stringify({ ...before, ...config }));
    const weights = join(target, "adapter_model.safetensors");
    const file = await openSafetensors(weights);
    const tensors: Tensors = new Map();
    for (const [name, { shape }] of file.tensors) tensors.set(name, { shape, values: await file.readAs(name, "f32") });
    await file.close();
    change(tensors);
    const list = [...tensors].map(([name, { shape, values }]) => {
      return { name, type: "f32", shape, chunks: () => [new Uint8Array(values.buffer)] };
    });
    await writeSafetensors(weights, list, { format: "pt" });
    return target;
  }

  async function failure(where: Promise<string>): Promise<ThimbleError> {
    const target = await where;
    const error: unknown = await readPeft(target, llama.model).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (error instanceof ThimbleError) return error;
    throw new Error("nothing was refused", { cause: error });
  }

  const q0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

  test.each([
    [{ peft_type: "IA3" }, "peft-type"],
    [{ peft_type: undefined }, "peft-type"],
    [{ target_modules: undefined }, "peft-config"],
    [{ r: 0 }, "peft-config"],
    [{ lora_alpha: "8" }, "peft-config"],
    [{ rank_pattern: { q_proj: -1 } }, "peft-config"],
    [{ rank_pattern: { "(q_proj": 4 } }, "pattern"],
    [{ modules_to_save: ["embed_tokens"] }, "peft-unsupported"],
    [{ lora_bias: true }, "peft-unsupported"],
    [{ bias: "lora_only" }, "peft-unsupported"],
    [{ alora_invocation_tokens: [1] }, "peft-unsupported"],
    [{ init_lora_weights: "olora" }, "peft-unsupported"],
    [{ init_lora_weights: "pissa_niter_4" }, "peft-unsupported"],
    [{ r: 5 }, "peft-tensors"],
    [{ use_dora: true }, "peft-tensors"],
    [{ target_modules: ["q_proj", "v_proj", "o_proj"] }, "peft-tensors"],
  ])("configuration %j", async (config, code) => {
    expect((await failure(changed(config))).code).toBe(code);
  });

  test("everything wrong with the tensors is named in one error", async () => {
    const error = await failure(
      changed({}, (tensors) => {
        const a = must(tensors.get(q0), "A");
        tensors.delete(q0);
        tensors.set("model.layers.0.self_attn.q_proj.lora_A.weight", a);
        tensors.set("base_model.model.lm_head.lora_A.weight", a);
        tensors.set(q0.replace("layers.0", "layers.1"), { shape: [32, 4], values: a.values });
      }),
    );
    expect(error.code).toBe("peft-tensors");
    expect(error.given).toContain(
      'without the prefix "base_model.model.": model.layers.0.self_attn.q_proj.lora_A.weight',
    );
    expect(error.given).toContain("missing: model.layers.0.self_attn.q_proj.lora_A.weight");
    expect(error.given).toContain("of no layer that is adapted: base_model.model.lm_head.lora_A.weight");
    expect(error.given).toContain(
      "of another shape: model.layers.1.self_attn.q_proj.lora_A.weight [32, 4] instead of [4, 32]",
    );
  });

  test("values that are not finite", async () => {
    const error = await failure(
      changed({}, (tensors) => {
        must(tensors.get(q0), "A").values[5] = NaN;
      }),
    );
    expect(error).toMatchObject({ code: "peft-values", given: "NaN at element 5" });
  });

  test("folders without an adapter, or with a pickled one", async () => {
    expect((await failure(mkdtemp(join(folder, "empty-")))).code).toBe("peft-missing");
    const pickled = changed({}).then(async (target) => {
      await rm(join(target, "adapter_model.safetensors"));
      await writeFile(join(target, "adapter_model.bin"), "x");
      return target;
    });
    expect((await failure(pickled)).given).toMatch(/pickle/);
  });

  test("a setting nobody knows, or an expression that cannot be read, is a warning", async () => {
    const odd = await changed({ new_setting: 3, target_modules: "(?!x).*\\.(q_proj|v_proj)" });
    const { warnings, selection } = await readPeft(odd, llama.model);
    expect(warnings).toHaveLength(2);
    expect(warnings.join()).toContain("new_setting");
    expect(selection.settings["target_modules"]).toEqual(["q_proj", "v_proj"]);
  });

  test("an adapter for some layers selects just those", async () => {
    const some = await changed({ layers_to_transform: [1] }, (tensors) => {
      for (const name of tensors.keys()) if (name.includes("layers.0")) tensors.delete(name);
    });
    const { selection } = await readPeft(some, llama.model);
    expect(selection.settings["target_modules"]).toEqual([
      "model.layers.1.self_attn.q_proj",
      "model.layers.1.self_attn.v_proj",
    ]);
  });
});
