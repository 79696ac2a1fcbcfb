import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { jsonOf, run } from "./testing/run.js";
import { workspace } from "./testing/workspace.js";

const { place, tiny } = workspace();
const model = (): string[] => ["--model", place("model"), "--target", "interpret", "--threads", "1"];

async function trained(out: string, ...more: string[]): Promise<void> {
  const outcome = await run(["train", ...tiny("--out", place(out), "--json", ...more)]);
  expect(outcome.stderr).not.toMatch(/error/);
  expect(outcome.status).toBe(0);
}

describe("thimble replay", () => {
  it("makes the weights again from the base, to the bit", async () => {
    const settings = ["--method", "mezo", "--set", "mezo.directions=2", "--lr", "1e-3", "--weight-decay", "0.1"];
    await trained("mezo", ...settings, "--schedule", "linear");
    const outcome = await run([
      "replay",
      place("mezo/model"),
      ...model(),
      "--method",
      "mezo",
      "--out",
      place("again"),
      "--json",
    ]);
    expect(jsonOf(outcome)).toEqual({ out: place("again"), steps: 3, saved: "model" });
    const weights = (folder: string): Promise<Buffer> => readFile(join(place(folder), "model.safetensors"));
    expect(Buffer.compare(await weights("again"), await weights("mezo/model"))).toBe(0);
    expect(Buffer.compare(await weights("again"), await weights("model"))).not.toBe(0);
  });

  it("makes an adapter again, with a seed of its own", async () => {
    const methods = ["--method", "lora", "--set", "lora.r=2", "--method", "mezo"];
    await trained("adapter", ...methods, "--seed", "9", "--lr", "1e-2");
    const file = place("adapter/adapter/trajectory.json");
    const { stdout } = await run(["replay", file, ...model(), ...methods, "--out", place("adapter-again")]);
    expect(stdout).toMatch(/written to .*adapter-again: the adapter of 3 steps/);
    const weights = (folder: string): Promise<Buffer> => readFile(join(place(folder), "adapter_model.safetensors"));
    expect(Buffer.compare(await weights("adapter-again"), await weights("adapter/adapter"))).toBe(0);
  });

  it("refuses what it cannot make again, before it reads weights", async () => {
    const file = place("mezo/model/trajectory.json");
    const refused = async (...argv: string[]): Promise<unknown> => {
      const outcome = await run(["replay", ...argv, "--json"]);
      expect(outcome.status).not.toBe(0);
      return outcome.stderr + outcome.stdout;
    };
    expect(await refused(file, ...model(), "--method", "lora", "--out", place("new"))).toMatch(/trajectory-other/);
    expect(await refused(place("nowhere"), ...model(), "--out", place("new"))).toMatch(/trajectory-missing/);
    expect(await refused(...model(), "--out", place("new"))).toMatch(/No trajectory is given/);
    expect(await refused(file, ...model(), "--method", "mezo", "--out", place("again"))).toMatch(/out-not-empty/);
    await writeFile(place("broken.json"), "{}");
    expect(await refused(place("broken.json"), ...model(), "--out", place("new"))).toMatch(/trajectory-format/);
  });
});

describe("--method zo2", () => {
  it("trains what mezo does, over evaluations, checkpoints and resumptions, and writes its trajectory", async () => {
    const settings = [
      "--lr",
      "1e-3",
      "--weight-decay",
      "0.1",
      "--steps",
      "4",
      "--holdout",
      "0.1",
      "--eval-every",
      "3",
      "--schedule",
      "constant",
    ];
    await trained("plain", "--method", "mezo", ...settings);
    await trained("whole", "--method", "zo2", ...settings);
    await trained("parts", "--method", "zo2", ...settings, "--steps", "2", "--save-every", "1");
    await trained("parts", "--method", "zo2", ...settings, "--resume");
    const file = (folder: string, name: string): Promise<Buffer> => readFile(join(place(folder), "model", name));
    for (const name of ["model.safetensors", "trajectory.json"]) {
      const expected = await file("plain", name);
      expect(Buffer.compare(await file("whole", name), expected), name).toBe(0);
      expect(Buffer.compare(await file("parts", name), expected), name).toBe(0);
    }
  });

  it("tells by the plan what lies on disk and what a step moves", async () => {
    const { stdout } = await run(["plan", ...tiny("--method", "zo2")]);
    expect(stdout).toMatch(/on disk +[\d.]+ \w+ of weights; each run of train reads ([\d.]+ \w+) and writes \1/);
  });
});
