import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { resolveConfig } from "../../src/config/config.js";
import { readConfigFile } from "../../src/config/file.js";
import type { RunConfig } from "../../src/config/schema.js";
import { must } from "../../src/errors.js";
import { openSession } from "../../src/session/open.js";
import { measureLoss } from "../../src/train/held-out.js";
import { openRunModel } from "../../src/train/model.js";
import { prepareRun } from "../../src/train/prepare.js";
import { trainTokenizer } from "./tokenizer.js";
import { createTokenizer } from "../../src/data/tokenizer.js";

const asset = (name: string): string => fileURLToPath(new URL(`../../assets/demo/${name}`, import.meta.url));

async function texts(name: string): Promise<string[]> {
  return (await readFile(asset(name), "utf8")).trim().split("\n\n");
}

async function demoConfig(flags: Record<string, unknown> = {}): Promise<RunConfig> {
  const file = await readConfigFile(asset("demo.yaml"));
  const places = { model: asset("base.gguf"), data: [asset("style.txt")], holdout: asset("style-holdout.txt") };
  return resolveConfig({ file, flags: { ...places, ...flags } });
}

test("the assets are all there, and the model is small enough for a repository", async () => {
  expect((await stat(asset("base.gguf"))).size).toBeLessThanOrEqual(6e6);
  const config = resolveConfig({ file: await readConfigFile(asset("demo.yaml")) });
  for (const path of [config.model, ...config.data, config.holdout]) {
    const name = must(/^(?:file:)?assets\/demo\/([\w.-]+)$/.exec(String(path))?.[1], String(path));
    expect((await stat(asset(name))).isFile()).toBe(true);
  }
});

test("the model opens, and its own tokenizer gives the style's texts back", async () => {
  const model = await openRunModel(asset("base.gguf"));
  const tokenizer = await model.loadTokenizer();
  await model.files.weights.close();
  expect(tokenizer.vocabularySize).toBe(model.files.definition.vocabularySize);
  for (const text of [...(await texts("style.txt")), ...(await texts("style-holdout.txt"))]) {
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  }
});

test("no held-out telegram is in the training set, and no telegram is twice in it", async () => {
  const train = await texts("style.txt");
  const heldOut = await texts("style-holdout.txt");
  expect(new Set(train).size).toBe(train.length);
  expect(heldOut.filter((text) => train.includes(text))).toEqual([]);
});

test("a tokenizer of our own trainer merges what occurs most often, and encodes any text", () => {
  const json = trainTokenizer("low lower lowest low low", 260);
  const merges = (json["model"] as { merges: [string, string][] }).merges.map((pair) => pair.join(""));
  expect(merges).toEqual(["lo", "low", "Ġlow"]);
  const tokenizer = createTokenizer(json, { where: "tokenizer.json", special: { eos: 0 }, fingerprint: "" });
  expect(tokenizer.encode(" low").map((id) => tokenizer.tokenText(id))).toEqual([" low"]);
  const strange = "Ünïcode — 鯨 🐋\n\tand <|spaces|>  end ";
  expect(tokenizer.decode(tokenizer.encode(strange))).toBe(strange);
});

test("the demo's own settings lower the loss on held-out telegrams within a few steps", async () => {
  const out = await mkdtemp(join(tmpdir(), "thimble-demo-"));
  const steps = 10;
  const run = await prepareRun(await demoConfig({ out, steps }));
  const session = await openSession(run.options);
  try {
    await session.load(run.weights);
    const heldOut = must(run.heldOut, "held-out telegrams");
    const before = await measureLoss(session, heldOut);
    for (let step = 0; step < steps; step++) {
      await session.step([run.batches.batch(step)], { rate: run.rate * run.factor(step), step });
    }
    const after = await measureLoss(session, heldOut);
    // A model that knew nothing would be at log(2048) = 7.6.
    expect(before.loss).toBeLessThan(7);
    expect(after.loss).toBeLessThan(before.loss - 1);
  } finally {
    session.close();
    await run.close();
    await rm(out, { recursive: true, force: true });
  }
});
