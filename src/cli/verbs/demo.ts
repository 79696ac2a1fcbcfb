import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { RunConfig } from "../../index.js";
import { evaluate, generate, plan, readConfig, ThimbleError, train } from "../../index.js";
import { duration, wrapped } from "../format.js";
import { interruptible } from "../interrupt.js";
import { Display } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { defineVerb, status } from "../verb.js";
import { headline } from "./plan.js";
import { outcomeJson, printOutcome, trainEvents } from "./train.js";

/** The package's folder, from the sources as from what is built. */
const root = fileURLToPath(new URL("../../../", import.meta.url));

const sampling = { maxTokens: 80, temperature: 0.7, topK: 40, seed: 1 };

/** The demo's settings, with the paths of its files made whole. */
async function demoConfig(folder: string, out: string): Promise<RunConfig> {
  const file = join(folder, "demo.yaml");
  if (!existsSync(file)) throw missing(file);
  const config = await readConfig(file);
  const { model, data, holdout } = config;
  const settings = {
    ...config,
    model: model === undefined ? undefined : `file:${place(folder, model.replace(/^file:/, ""))}`,
    data: data.map((one) => place(folder, one)),
    holdout: typeof holdout === "string" ? place(folder, holdout) : holdout,
    out,
  };
  return settings;
}

/** A path of demo.yaml: beside it, or from the package's folder. */
function place(folder: string, path: string): string {
  const found = [join(folder, path), join(root, path)].find((one) => existsSync(one));
  if (found === undefined) throw missing(join(folder, path));
  return found;
}

function missing(path: string): ThimbleError {
  return new ThimbleError("demo-assets", "The demo's files are not here", {
    where: path,
    fix: "Install the package again, or run the demo from a whole clone of the repository.",
  });
}

/** The first folder of that name, with a number if need be, that has nothing in it. */
async function freshFolder(name: string): Promise<string> {
  for (let number = 1; ; number++) {
    const folder = number === 1 ? name : `${name}-${number}`;
    if (!existsSync(folder) || (await readdir(folder)).length === 0) return folder;
  }
}

function printSample(title: string, prompt: string, text: string, terminal: Terminal): void {
  const { colors, width } = terminal;
  const lines = `${prompt}${text.trimEnd()}`
    .split("\n")
    .flatMap((line) => (line === "" ? [""] : wrapped(line, width - 2)));
  terminal.print(["", colors.bold(title), ...lines.map((line) => `  ${line}`.trimEnd())].join("\n"));
}

export const demoVerb = defineVerb({
  name: "demo",
  summary: "See it work: fine-tune a small model that comes with Thimble",
  description:
    "A small model (pretrained by Thimble on an old novel) learns another style from a few hundred lines. Shows the " +
    "memory plan, the training, and loss and text before and after. Needs no network.",
  settings: ["threads", "target"],
  options: z.strictObject({
    prompt: z.string().default("To Captain Ahab").describe("Text to go on from, before and after"),
    out: z
      .string()
      .min(1)
      .default("thimble-demo")
      .describe("Folder for the result; a number is added where it is taken"),
  }),
  examples: [
    { command: "demo", purpose: "the whole tour" },
    { command: 'demo --prompt "To Miss Starbuck"', purpose: "with other words to start from" },
  ],
  run: ({ terminal, config: { threads, target }, options }) =>
    runDemo(join(root, "assets", "demo"), terminal, { ...options, threads, target }),
});

export interface DemoOptions extends Pick<RunConfig, "threads" | "target"> {
  readonly prompt: string;
  readonly out: string;
}

/** The whole tour with the files of a folder: text before, the training, loss and text after. */
export async function runDemo(folder: string, terminal: Terminal, options: DemoOptions): Promise<number> {
  const started = performance.now();
  const out = await freshFolder(options.out);
  const config = { ...(await demoConfig(folder, out)), threads: options.threads, target: options.target };
  const base = { ...config, adapter: undefined };
  terminal.print(headline(await plan(config)).join("\n"));
  terminal.status("asking the base model for some text (the first time, this compiles)");
  const before = await generate(base, { prompt: options.prompt, ...sampling });
  printSample("Before", options.prompt, before.text, terminal);
  terminal.print();
  const display = new Display(terminal);
  const said = "Stopping after this step.";
  const result = await interruptible(terminal, said, (signal) => train(config, trainEvents(display), signal)).finally(
    () => {
      display.stop();
    },
  );
  printOutcome(result, terminal);
  if (result.result === undefined) {
    terminal.result(outcomeJson(result));
    return status.interrupted;
  }
  const adapted = { ...config, adapter: result.result };
  terminal.status("measuring on held-out text");
  const measured = await evaluate({ ...adapted, steps: undefined }, { compare: true });
  const after = await generate(adapted, { prompt: options.prompt, ...sampling });
  printSample("After", options.prompt, after.text, terminal);
  const { loss, perplexity, before: old = { loss: NaN, perplexity: NaN } } = measured;
  const { bold } = terminal.colors;
  terminal.print(
    [
      "",
      `held-out loss ${old.loss.toFixed(3)} → ${bold(loss.toFixed(3))}, perplexity ${old.perplexity.toFixed(1)} → ${bold(perplexity.toFixed(1))}`,
      `adapter in ${bold(result.result)}; all of it took ${duration((performance.now() - started) / 1000)}`,
    ].join("\n"),
  );
  terminal.result({
    ...outcomeJson(result),
    before: { ...old, text: before.text },
    after: { loss, perplexity, text: after.text },
  });
  return status.ok;
}
