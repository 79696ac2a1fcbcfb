import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../config/config.js";
import type { RunConfig } from "../config/schema.js";
import { must } from "../errors.js";
import { planOnly } from "../session/open.js";
import { goldenFolder } from "../testing/goldens.js";
import { prepareRun } from "./prepare.js";
import { train } from "./train.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-precision-"));
  const ids = Uint16Array.from({ length: 600 }, (_, index) => (index * 7 + (index >> 3)) % 40);
  await writeFile(join(folder, "ids.u16"), new Uint8Array(ids.buffer));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Full tuning in bf16 from a GGUF file of blocks of 8 bits. */
function configOf(name: string, changes: Readonly<Record<string, unknown>>): RunConfig {
  const model = join(goldenFolder("llama"), "model-q8_0.gguf");
  const base = { model, data: `tokens:${join(folder, "ids.u16")}`, method: "full", dtype: "bf16", batch: 2, seq: 8 };
  const run = { steps: 4, lr: 1e-2, saveEvery: 2, threads: 2, out: join(folder, name) };
  return resolveConfig({ flags: { ...base, ...run, ...changes } });
}

const choices = (["interpret", "c"] as const).flatMap((target) =>
  (["f32", "none"] as const).flatMap((masterDtype) =>
    (["f32", "bf16"] as const).map((stateDtype) => ({ target, masterDtype, stateDtype })),
  ),
);

describe("full tuning in bf16 of a quantised model", () => {
  it.each(choices)("keeps masters and states as asked: %o", async (choice) => {
    const run = await prepareRun(configOf("planned", choice));
    const { leaves } = planOnly(run.options);
    await run.close();
    const types = new Map([...leaves].map(([name, { dtype }]) => [name, dtype]));
    const weight = "model.layers.0.mlp.down_proj.weight";
    expect(types.get(weight)).toBe("bf16");
    expect(types.get(`${weight}.adamw.mean`)).toBe(choice.stateDtype);
    expect(types.get(`${weight}.adamw.square`)).toBe(choice.stateDtype);
    expect(types.get(`${weight}.adamw.master`)).toBe(choice.masterDtype === "f32" ? "f32" : undefined);
  });

  it.each(choices)("stopped and resumed is bit for bit the straight run: %o", async (choice) => {
    const name = Object.values(choice).join("-");
    const straight = await train(configOf(`${name}-straight`, choice));
    const controller = new AbortController();
    const onStep = ({ step }: { readonly step: number }): void => {
      if (step === 3) controller.abort();
    };
    await train(configOf(`${name}-resumed`, choice), { onStep }, controller.signal);
    const resumed = await train(configOf(`${name}-resumed`, { ...choice, resume: true }));
    expect(resumed.summary.losses).toEqual(straight.summary.losses);
    expect(must(straight.summary.losses.at(-1), "loss")).toBeLessThan(must(straight.summary.losses[0], "loss"));
    const written = await readdir(join(folder, `${name}-straight`, "model"));
    expect(written).not.toEqual([]);
    for (const file of written) {
      const [one, other] = ["straight", "resumed"].map((out) => join(folder, `${name}-${out}`, "model", file));
      expect(await readFile(must(other, "path"))).toEqual(await readFile(must(one, "path")));
    }
  });
});
