import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { resolveConfig } from "../../config/config.js";
import type { RunConfig } from "../../config/schema.js";
import { must } from "../../errors.js";
import { readAdapter, writeAdapterFolder } from "../../io/adapter.js";
import { evaluate } from "../../train/evaluate.js";
import { exportModel } from "../../train/export/export.js";
import { openRunModel } from "../../train/model.js";
import { tinyConfig, writeTinyModel, writeTokens } from "../../train/testing/tiny-folder.js";
import { train } from "../../train/train.js";

describe("SpIEL, end to end", () => {
  let folder = "";
  const place = (name: string): string => join(folder, name);
  const config = (changes: Readonly<Record<string, unknown>>): RunConfig => {
    const common = { model: place("model"), data: `tokens:${place("ids.u16")}`, batch: 2, seq: 16, threads: 2 };
    return resolveConfig({ flags: { ...common, ...changes } });
  };
  const set = ["spiel.reselection_steps=4", "spiel.selection_accumulation_steps=2", "spiel.density=0.1"];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "thimble-spiel-"));
    await writeTinyModel(place("model"));
    await writeTokens(place("ids.u16"), 2000, 420);
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  test.each([
    ["AG", []],
    ["MA", ["spiel.selection_algorithm=sm3"]],
    ["AG with values in bf16", ["spiel.dtype=bfloat16"]],
  ])("%s trains, saves, loads and merges to the same loss", async (name, more) => {
    const out = place(name);
    const base = (await evaluate(config({}))).loss;
    const own = { method: "spiel", set: [...set, ...more], lr: 0.02 };
    const { summary } = await train(config({ ...own, steps: 8, out }));
    expect(summary.losses.every(Number.isFinite)).toBe(true);
    expect(await readdir(join(out, "adapter"))).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
    const adapted = (await evaluate(config({ adapter: out }))).loss;
    expect(Math.abs(adapted - base)).toBeGreaterThan(0.01);
    await exportModel(config({ adapter: out }), { format: "safetensors", out: place(`${name} merged`) });
    expect((await evaluate(config({ model: place(`${name} merged`) }))).loss).toBeCloseTo(adapted, 4);
    // Nothing of what was trained is given up where the first selection may replace nothing.
    const still = [...own.set, "spiel.first_selection_rate=0"];
    const on = await train(config({ ...own, set: still, steps: 3, adapter: out, lr: 1e-30, out: place(`${name} on`) }));
    expect(on.summary.losses).toHaveLength(3);
    expect((await evaluate(config({ adapter: place(`${name} on`) }))).loss).toBeCloseTo(adapted, 6);
  });

  test("refuses an adapter whose places are not those of its layers", async () => {
    const { files } = await openRunModel(config({}).model);
    const { definition } = files;
    await files.weights.close();
    const saved = await readAdapter(join(place("AG"), "adapter"), definition);
    const path = "model.layers.1.mlp.down_proj.spiel_indices";
    const { hidden_size: width, intermediate_size: inner } = tinyConfig;
    for (const [name, change] of [
      ["a place twice", (given: Int32Array) => given.with(1, given[0]!)],
      [`place ${width * inner}`, (given: Int32Array) => given.with(0, width * inner)],
      ["place -1", (given: Int32Array) => given.with(0, -1)],
      ["places", (given: Int32Array) => given.slice(1)],
    ] as const) {
      const integers = [...saved.integers].map(([one, data]) => {
        const values = one === path ? change(data) : data;
        return { name: one, shape: [values.length], data: Int32Array.from(values) };
      });
      const values = [...saved.tensors].map(([one, data]) => ({ name: one, shape: [data.length], data }));
      const broken = place(`broken ${name}`);
      await writeAdapterFolder(broken, saved.selections, [...values, ...integers]);
      await expect(evaluate(config({ adapter: broken })), name).rejects.toMatchObject({
        code: "sparse-places",
        where: path,
        given: expect.stringContaining(name) as unknown,
      });
    }
    expect(must(saved.integers.get(path), path).length).toBeGreaterThan(50);
  });
});
