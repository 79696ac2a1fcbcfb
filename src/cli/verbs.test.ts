import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { beforeAll, describe, expect, it } from "vitest";
import { runCli } from "./program.js";
import { fakeWorld, jsonOf, run } from "./testing/run.js";
import { workspace } from "./testing/workspace.js";

const { place, tiny } = workspace();

const total = (composition: Record<string, number>): number =>
  Object.values(composition).reduce((sum, bytes) => sum + bytes, 0);

interface Peak {
  readonly planBytes: number;
  readonly arenaBytes: number;
  readonly rssBytes: number;
  readonly composition: Record<string, number>;
}

describe("train", () => {
  it("prints one object with what scripts rely on, and tells people the rest", async () => {
    const outcome = await run(["train", ...tiny("--out", place("first"), "--json")]);
    expect(outcome.stderr).not.toMatch(/error/);
    const result = jsonOf(outcome);
    const peak = result["peak"] as Peak;
    expect(outcome.status).toBe(0);
    expect(result).toMatchObject({ target: "interpret", dtype: "f32", threads: 1, out: place("first"), step: 3 });
    for (const key of ["losses", "stepSeconds"]) expect(result[key]).toHaveLength(3);
    for (const key of ["tokensPerSecond", "trainableParameters"]) expect(result[key]).toBeGreaterThan(0);
    expect(peak.arenaBytes).toBe(peak.planBytes);
    expect(total(peak.composition)).toBe(peak.planBytes);
    expect(Object.keys(peak.composition)).toEqual(["weights", "gradients", "states", "saved", "workspace"]);
    expect(outcome.stderr).toMatch(/Learning rate 0\.0002/);
    expect(outcome.stderr).toMatch(/at the peak/);
    expect(outcome.stderr.match(/^step \d\/3 {2}loss \d+\.\d{4} {2}[\d,]+ tokens\/s/gm)).toHaveLength(3);
    expect(await readdir(join(place("first"), "adapter"))).toContain("adapter_config.json");
    const again = await run(["train", ...tiny("--out", place("first"))]);
    expect(again.status).toBe(2);
    expect(again.stderr).toMatch(/out-not-empty/);
  });

  it("has the plan's peak equal to that of `plan`", async () => {
    const planned = jsonOf(await run(["plan", ...tiny("--json")]));
    const trained = jsonOf(await run(["train", ...tiny("--out", place("equal"), "--json")]));
    expect((planned["peak"] as Peak).planBytes).toBe((trained["peak"] as Peak).planBytes);
    expect((planned["peak"] as Peak).composition).toEqual((trained["peak"] as Peak).composition);
    expect(planned["trainableParameters"]).toBe(trained["trainableParameters"]);
  });

  it("takes a config file, over which flags win", async () => {
    const path = place("run.yaml");
    const size = { batch: 2, seq: 16, steps: 5, target: "interpret", threads: 1 };
    const data = [`tokens:${place("ids.u16")}`];
    await writeFile(
      path,
      stringify({ model: place("model"), data, method: [{ id: "lora", settings: { r: 4 } }], ...size }),
    );
    const args = [
      "train",
      "--config",
      path,
      "--steps",
      "2",
      "--set",
      "lora.r=2",
      "--out",
      place("configured"),
      "--json",
    ];
    expect(jsonOf(await run(args))["losses"]).toHaveLength(2);
    const config = JSON.parse(
      await readFile(join(place("configured"), "adapter", "adapter_config.json"), "utf8"),
    ) as object;
    expect(config).toMatchObject({ r: 2 });
  });

  it("redraws a bar on a terminal", async () => {
    const { stdout, status } = await run(["train", ...tiny("--out", place("bar"))], { tty: true, environment: {} });
    expect(status).toBe(0);
    expect(stdout).toContain("█");
    expect(stdout).toMatch(/step 3\/3 {2}loss/);
    expect(stdout).toMatch(/step 3 {2}checkpoint in/);
    expect(stdout).toContain("\u001b[");
  });

  it("stops at Ctrl-C with a checkpoint and 130, goes on with --resume, and a second press ends at once", async () => {
    const out = place("stopped");
    let pressed = false;
    const outcome = await run(["train", ...tiny("--steps", "50", "--out", out, "--json")], {
      onOutput: (said, interrupt) => {
        if (pressed || !said.includes("step 1/50")) return;
        pressed = true;
        interrupt();
      },
    });
    expect(outcome.status).toBe(130);
    expect(jsonOf(outcome)).toMatchObject({ interrupted: true, step: expect.any(Number) as number });
    expect(outcome.stderr).toMatch(/Stopping after this step.*Ctrl-C again/);
    const { step } = jsonOf(outcome) as { step: number };
    expect(step).toBeLessThan(10);
    const resumed = await run(["train", ...tiny("--steps", String(step + 2), "--out", out, "--resume", "--json")]);
    expect(resumed.status).toBe(0);
    expect(jsonOf(resumed)["losses"]).toHaveLength(step + 2);

    const { world, written } = fakeWorld({
      onOutput: (said, interrupt) => {
        if (said.includes("step 1/")) interrupt();
        if (said.includes("Ctrl-C again")) interrupt();
      },
    });
    await runCli(["train", ...tiny("--out", place("twice"))], world);
    expect(written.aborted).toBe(130);
  });
});

describe("plan", () => {
  const large = {
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    vocab_size: 128256,
    hidden_size: 8192,
    intermediate_size: 28672,
    num_hidden_layers: 80,
    num_attention_heads: 64,
    num_key_value_heads: 8,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    max_position_embeddings: 8192,
    tie_word_embeddings: false,
    hidden_act: "silu",
  };

  it("plans a model of 70 billion parameters from its config.json alone", async () => {
    await mkdir(place("large"));
    await writeFile(join(place("large"), "config.json"), JSON.stringify(large));
    const args = ["plan", "--model", `file:${place("large")}`, "--dtype", "bf16", "--recompute", "block", "--json"];
    const outcome = await run(args);
    expect(outcome.status).toBe(0);
    const { peak, timeline, trainableParameters } = jsonOf(outcome) as {
      peak: Peak;
      timeline: { bytes: number; label: string; step: number; program: string }[];
      trainableParameters: number;
    };
    expect(peak.composition["weights"]).toBeGreaterThan(140e9);
    expect(total(peak.composition)).toBe(peak.planBytes);
    expect(trainableParameters).toBe(207_093_760);
    expect(timeline.length).toBeGreaterThan(1000);
    expect(Math.max(...timeline.map(({ bytes }) => bytes))).toBeLessThanOrEqual(peak.planBytes);
    expect(outcome.stderr).toMatch(/70,553,706,496 parameters/);
  });

  it("draws the timeline, and lists every step when asked to", async () => {
    const { stdout } = await run(["plan", ...tiny()]);
    expect(stdout).toMatch(/▲ peak/);
    expect(stdout).toMatch(/peak at step \d+ of \d+/);
    const rows = await run(["plan", ...tiny("--timeline")]);
    const steps = Number(/ of (\d+)/.exec(stdout)?.[1]);
    expect(rows.stdout.match(/^ *\d+ +[\d.]+ [KM]?i?B {2}/gm)?.length).toBe(steps);
  });
});

describe("eval, generate, chat, merge, export, data", () => {
  const base = (): string[] => ["--model", place("model"), "--target", "interpret", "--threads", "1"];
  const adapter = place.bind(undefined, "tuned");

  beforeAll(async () => {
    const { status, stderr } = await run(["train", ...tiny("--lr", "0.05", "--out", adapter())]);
    expect(stderr).not.toMatch(/error/);
    expect(status).toBe(0);
  });

  it("measures before and after", async () => {
    const outcome = await run(["eval", ...tiny("--adapter", adapter(), "--compare", "--json")]);
    const { loss, perplexity, tokens, tokensPerSecond, peak, before } = jsonOf(outcome) as Record<string, number> & {
      peak: Peak;
      before: { loss: number };
    };
    expect(perplexity).toBeCloseTo(Math.exp(loss ?? NaN), 6);
    // The last token of a row has no next one.
    expect(tokens).toBe(3 * 2 * 15);
    expect(tokensPerSecond).toBeGreaterThan(0);
    expect(before.loss).not.toBe(loss);
    expect(peak.arenaBytes).toBe(peak.planBytes);
    const plain = jsonOf(await run(["eval", ...tiny("--json")]));
    expect(plain["loss"]).toBe(before.loss);
  });

  it("makes the same text from the same seed, text on stdout and the rest on stderr", async () => {
    const args = ["generate", ...base(), "--prompt", "It was", "--max-tokens", "5", "--seed", "3"];
    const outcome = await run(args);
    expect(outcome.status).toBe(0);
    expect(outcome.stdout.startsWith("It was")).toBe(true);
    const object = jsonOf(await run([...args, "--json"]));
    expect(outcome.stdout).toBe(`It was${object["text"] as string}\n`);
    expect(object["ids"]).toHaveLength(5);
    expect(object).toMatchObject({ ended: "length", prompt: "It was" });
    const piped = await run(["generate", ...base(), "--prompt", "-", "--max-tokens", "5", "--seed", "3"], {
      stdin: "It was\n",
    });
    expect(piped.stdout).toBe(outcome.stdout);
  });

  it("keeps a conversation until /exit, forgets it at /reset", async () => {
    const args = ["chat", ...base(), "--max-tokens", "3", "--system", "Be brief.", "--json"];
    const outcome = await run(args, { stdin: "Hello\n\nAgain\n/exit\nnever\n" });
    expect(outcome.status).toBe(0);
    const { messages } = jsonOf(outcome) as { messages: { role: string; content: string }[] };
    expect(messages.map(({ role }) => role)).toEqual(["system", "user", "assistant", "user", "assistant"]);
    expect(messages.flatMap(({ role, content }) => (role === "user" ? [content] : []))).toEqual(["Hello", "Again"]);
    const reset = jsonOf(await run(args, { stdin: "Hello\n/reset\nOnce more\n" })) as {
      messages: { content: string }[];
    };
    expect(reset.messages.map(({ content }) => content).slice(0, 2)).toEqual(["Be brief.", "Once more"]);
  });

  it("forgets the oldest turns of a conversation that outgrows the context", async () => {
    const args = ["chat", ...base(), "--max-tokens", "2", "--context", "40"];
    const lines = Array.from({ length: 6 }, (_, index) => `message ${index}`).join("\n");
    const outcome = await run(args, { stdin: `${lines}\n` });
    expect(outcome.status).toBe(0);
    expect(outcome.stderr).toMatch(/oldest turn is forgotten/);
  });

  it("merges and exports, and refuses to write over anything", async () => {
    const merged = ["merge", "--model", place("model"), "--adapter", adapter(), "--out", place("merged")];
    expect(jsonOf(await run([...merged, "--json"]))).toMatchObject({ out: place("merged") });
    expect(await readdir(place("merged"))).toEqual(expect.arrayContaining(["config.json", "model.safetensors"]));
    expect((await run(merged)).status).toBe(2);
    const lossOf = async (...more: string[]): Promise<number> => {
      const args = tiny("--json", ...more);
      return jsonOf(await run(["eval", ...args]))["loss"] as number;
    };
    const tuned = await lossOf("--adapter", adapter());
    expect(await lossOf("--model", place("merged"))).toBeCloseTo(tuned, 4);
    const exported = ["export", "--model", place("model"), "--adapter", adapter(), "--type", "f32"];
    const gguf = jsonOf(await run([...exported, "--out", place("gguf"), "--json"]));
    expect(gguf["files"]).toEqual(["Modelfile", "model.gguf"]);
    expect(await lossOf("--model", place("gguf"))).toBeCloseTo(tuned, 4);
    const wrong = await run(["export", "--model", place("model"), "--format", "peft", "--out", place("none")]);
    expect(wrong.stderr).toMatch(/There is no adapter to export/);
    expect(existsSync(place("none"))).toBe(false);
  });

  it("shows data token by token, and refuses data in which nothing is trained", async () => {
    const args = ["data", "--model", place("model"), "--data", place("chat.jsonl"), "--batch", "2", "--seq", "32"];
    const { stdout, status } = await run(args, { tty: true, environment: {} });
    expect(status).toBe(0);
    expect(stdout).toContain("\u001b[32mG");
    expect(stdout).toMatch(/packed, 32 tokens each/);
    const { report, rows } = jsonOf(await run([...args, "--show", "1", "--json"])) as {
      report: { train: { trainedTokens: number } };
      rows: unknown[];
    };
    expect(report.train.trainedTokens).toBeGreaterThan(0);
    expect(rows).toHaveLength(1);
    const user = { messages: [{ role: "user", content: "Hello?" }] };
    await writeFile(place("mute.jsonl"), `${JSON.stringify(user)}\n`);
    const refused = await run(["data", "--model", place("model"), "--data", place("mute.jsonl"), "--json"]);
    expect(refused.status).toBe(1);
    expect(jsonOf(refused)).toHaveProperty("error.code");
  });
});
