import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../config/config.js";
import { generationSchema } from "../config/generation.js";
import { must } from "../errors.js";
import { TextGenerator } from "./generate.js";
import { train } from "./train.js";
import { writeTinyModel } from "./testing/tiny-folder.js";

let folder = "";
const line = "It was the best of times, it was the worst of times. ";
const greedy = generationSchema.parse({ temperature: 0, maxTokens: 20 });
const open: TextGenerator[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-generate-"));
  await writeTinyModel(join(folder, "model"));
  await writeFile(join(folder, "text.txt"), line.repeat(80));
  const flags = { model: join(folder, "model"), data: join(folder, "text.txt"), out: join(folder, "run"), lr: 0.02 };
  await train(resolveConfig({ flags: { ...flags, batch: 4, seq: 32, steps: 60, target: "c", threads: 2 } }));
});
afterAll(async () => {
  for (const generator of open) generator.close();
  await rm(folder, { recursive: true, force: true });
});

async function load(target: string, adapter = true, context = 96): Promise<TextGenerator> {
  const flags = {
    model: join(folder, "model"),
    target,
    threads: 2,
    ...(adapter ? { adapter: join(folder, "run") } : {}),
  };
  const generator = await TextGenerator.open(resolveConfig({ flags }), { context });
  open.push(generator);
  return generator;
}

describe("generating", () => {
  it("goes on as it was trained, alike on both targets", async () => {
    const generator = await load("c");
    const pieces: string[] = [];
    const made = await generator.generate("It was the best of", greedy, (text) => pieces.push(text));
    expect(made.text.startsWith(" times, it was the worst")).toBe(true);
    expect(pieces.join("")).toBe(made.text);
    expect(made).toMatchObject({ ended: "length" });
    expect(made.ids).toHaveLength(20);
    const oracle = await load("interpret");
    expect((await oracle.generate("It was the best of", greedy)).ids).toEqual(made.ids);
    const base = await load("c", false);
    expect((await base.generate("It was the best of", greedy)).ids).not.toEqual(made.ids);
    const { peak } = generator;
    expect(peak.arenaBytes).toBe(peak.planBytes);
  });

  it("gives the same with what is in its cache as without", async () => {
    const generator = await load("c");
    const first = await generator.generate(line + line, greedy);
    await generator.generate(`${line}And now`, greedy);
    const again = await generator.generate(line + line, greedy);
    expect(again.ids).toEqual(first.ids);
    const sampled = generationSchema.parse({ temperature: 1, maxTokens: 20, seed: 3 });
    const one = await generator.generate("It was", sampled);
    expect((await generator.generate("It was", sampled)).ids).toEqual(one.ids);
  });

  it("stops at stop texts, at the context's end and on a signal, and refuses what does not fit", async () => {
    const generator = await load("c", true, 40);
    const stopped = await generator.generate("It was the best of", { ...greedy, stop: ["worst"] });
    expect(stopped).toMatchObject({ ended: "stop" });
    expect(stopped.text.endsWith("it was the ")).toBe(true);
    const long = await generator.generate("It was the best of", { ...greedy, maxTokens: 1000 });
    expect(["context", "end"]).toContain(long.ended);
    const aborted = await generator.generate("It was the best of", greedy, undefined, AbortSignal.abort());
    expect(aborted).toMatchObject({ ended: "interrupted" });
    expect(aborted.ids).toHaveLength(1);
    await expect(generator.generate(line.repeat(9), greedy)).rejects.toMatchObject({ code: "generate-context" });
    const empty = await generator.generate("", { ...greedy, maxTokens: 2 });
    expect(empty.promptTokens).toBe(1);
  });

  it("answers in a conversation by the model's template", async () => {
    const generator = await load("c");
    const answer = await generator.chat([{ role: "user", content: "Hello" }], { ...greedy, maxTokens: 4 });
    const rendered = generator.template.render(
      { messages: [{ role: "user", content: "Hello" }] },
      { addGenerationPrompt: true },
    );
    const ids = generator.tokenizer.encode(rendered, { addSpecial: false });
    expect(answer.promptTokens).toBe(ids.length);
    expect((await generator.continueIds(ids, { ...greedy, maxTokens: 4 })).ids).toEqual(answer.ids);
    expect(must(await readFile(join(folder, "run", "metrics.jsonl"), "utf8"), "log").split("\n")).toHaveLength(61);
  });
});
