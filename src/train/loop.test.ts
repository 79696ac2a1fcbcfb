import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runTraining } from "./loop.js";
import { FaultyFiles, Killed } from "./testing/faults.js";
import { toyEnvironment, toyRun, ToySession } from "./testing/toy.js";
import type { Notice, TrainEvents, TrainResult } from "./types.js";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-loop-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const out = (name = "run"): string => join(folder, name);
const weightOf = async (name: string): Promise<Buffer> => readFile(join(out(name), "adapter", "weight.bin"));

const abortAt = (stop: number, controller: AbortController): TrainEvents => ({
  onStep: ({ step }) => {
    if (step === stop) controller.abort();
  },
});

async function straight(name = "straight"): Promise<{ result: TrainResult; weight: Buffer }> {
  const result = await runTraining(toyRun({ out: out(name) }), toyEnvironment());
  return { result, weight: await weightOf(name) };
}

/** The steps of metrics.jsonl, and the held-out ones. */
async function logged(name: string): Promise<{ steps: number[]; evaluations: number[]; losses: number[] }> {
  const lines = (await readFile(join(out(name), "metrics.jsonl"), "utf8")).trim().split("\n");
  const records = lines.map((line) => JSON.parse(line) as { step: number; loss?: number });
  return {
    steps: records.filter(({ loss }) => loss !== undefined).map(({ step }) => step),
    evaluations: records.filter(({ loss }) => loss === undefined).map(({ step }) => step),
    losses: records.flatMap(({ loss }) => loss ?? []),
  };
}

describe("a training run", () => {
  it("checkpoints, evaluates, logs and saves, and keeps the last checkpoints", async () => {
    const phases: string[] = [];
    const steps: number[] = [];
    const result = await runTraining(toyRun({ out: out() }), toyEnvironment(), {
      onPhase: (phase) => phases.push(phase),
      onStep: ({ step }) => steps.push(step),
    });
    expect(phases).toEqual(["compile", "load", "train", "save"]);
    expect(steps).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const names = await readdir(out());
    expect(names.sort()).toEqual(["adapter", "checkpoint-000009", "checkpoint-000010", "metrics.jsonl", "tensorboard"]);
    const log = await logged("run");
    expect([log.steps, log.evaluations]).toEqual([steps, [4, 8, 10]]);
    expect(log.losses).toEqual(result.summary.losses);
    expect(result).toMatchObject({ interrupted: false, step: 10, result: join(out(), "adapter") });
    expect(result.lastEvaluation?.step).toBe(10);
    expect(Object.keys(result.summary)).toEqual([
      "losses",
      "stepSeconds",
      "tokensPerSecond",
      "trainableParameters",
      "target",
      "dtype",
      "threads",
      "peak",
      "out",
    ]);
    expect(Object.keys(result.summary.peak)).toEqual(["planBytes", "arenaBytes", "rssBytes", "composition"]);
    expect(result.summary.tokensPerSecond).toBe((2 * 4 * 2) / 0.25);
    expect(result.summary.losses).toHaveLength(10);
  });

  it("refuses a used folder, and a resume past its end", async () => {
    await mkdir(out());
    await writeFile(join(out(), "notes.txt"), "mine");
    const session = new ToySession();
    await expect(runTraining(toyRun({ out: out() }), toyEnvironment(session))).rejects.toMatchObject({
      code: "out-not-empty",
    });
    await straight();
    const shorter = toyRun({ out: out("straight"), resume: true, steps: 5 });
    await expect(runTraining(shorter, toyEnvironment())).rejects.toMatchObject({ code: "resume-steps" });
    expect(session.closed).toBe(false);
  });

  it("interrupted after any step and resumed is bit for bit the straight run", async () => {
    const { result, weight } = await straight();
    for (let stop = 1; stop < 10; stop++) {
      const name = `stop-${stop}`;
      const controller = new AbortController();
      const first = await runTraining(
        toyRun({ out: out(name) }),
        toyEnvironment(),
        abortAt(stop, controller),
        controller.signal,
      );
      expect(first).toMatchObject({ interrupted: true, step: stop });
      expect(first.result).toBeUndefined();
      const second = await runTraining(toyRun({ out: out(name), resume: true }), toyEnvironment());
      expect(second.summary.losses).toEqual(result.summary.losses);
      expect(second.summary.stepSeconds).toHaveLength(10);
      expect(await weightOf(name)).toEqual(weight);
      expect((await logged(name)).evaluations).toEqual([4, 8, 10]);
    }
  });

  it("killed at any file operation and resumed is bit for bit the straight run", async () => {
    const short = { steps: 4, saveEvery: 2, evalEvery: 3, keep: 1 };
    const counted = new FaultyFiles(Infinity);
    const counting = toyEnvironment(new ToySession(), counted.files);
    const result = await runTraining(toyRun({ out: out("counted"), ...short }), counting);
    const weight = await weightOf("counted");
    expect(counted.operations).toBeGreaterThan(60);
    for (let at = 0; at < counted.operations; at++) {
      const name = `kill-${at}`;
      const faulty = new FaultyFiles(at);
      const killed = runTraining(toyRun({ out: out(name), ...short }), toyEnvironment(new ToySession(), faulty.files));
      await expect(killed).rejects.toBeInstanceOf(Killed);
      const resumed = await runTraining(toyRun({ out: out(name), ...short, resume: true }), toyEnvironment());
      expect(resumed.summary.losses).toEqual(result.summary.losses);
      expect(await weightOf(name)).toEqual(weight);
      expect((await logged(name)).losses).toEqual(result.summary.losses);
      expect((await readdir(out(name))).filter((entry) => entry.startsWith("."))).toEqual([]);
      await rm(out(name), { recursive: true });
    }
  });

  it("killed at any file operation of a resume is resumed again", async () => {
    const short = { steps: 4, saveEvery: 3, keep: 1 };
    const result = await runTraining(toyRun({ out: out("straight"), ...short }), toyEnvironment());
    const weight = await weightOf("straight");
    const prepare = async (name: string): Promise<void> => {
      const controller = new AbortController();
      const abort = abortAt(2, controller);
      await runTraining(toyRun({ out: out(name), ...short }), toyEnvironment(), abort, controller.signal);
    };
    const again = (name: string) => toyRun({ out: out(name), ...short, resume: true });
    await prepare("counted");
    const counted = new FaultyFiles(Infinity);
    await runTraining(again("counted"), toyEnvironment(new ToySession(), counted.files));
    for (let at = 0; at < counted.operations; at++) {
      const name = `again-${at}`;
      await prepare(name);
      const faulty = new FaultyFiles(at).files;
      await expect(runTraining(again(name), toyEnvironment(new ToySession(), faulty))).rejects.toBeInstanceOf(Killed);
      const resumed = await runTraining(again(name), toyEnvironment());
      expect(resumed.summary.losses).toEqual(result.summary.losses);
      expect(await weightOf(name)).toEqual(weight);
      await rm(out(name), { recursive: true });
    }
  });

  it("resumes an empty folder from the start, and lengthens a finished run", async () => {
    const notices: Notice[] = [];
    const onNotice = (notice: Notice): void => void notices.push(notice);
    const first = await runTraining(toyRun({ out: out(), resume: true, steps: 6 }), toyEnvironment(), { onNotice });
    expect(notices.map(({ code }) => code)).toContain("resume-empty");
    expect(first.step).toBe(6);
    const longer = await runTraining(toyRun({ out: out(), resume: true }), toyEnvironment());
    const { result, weight } = await straight();
    expect(longer.summary.losses).toEqual(result.summary.losses);
    expect(await weightOf("run")).toEqual(weight);
  });

  it("goes on without the log of earlier steps, and says so", async () => {
    await runTraining(toyRun({ out: out(), steps: 6 }), toyEnvironment());
    await rm(join(out(), "metrics.jsonl"));
    const codes: string[] = [];
    const events = { onNotice: ({ code }: Notice) => void codes.push(code) };
    const result = await runTraining(toyRun({ out: out(), resume: true }), toyEnvironment(), events);
    expect(codes).toContain("metrics-lost");
    expect(result.summary.losses).toHaveLength(4);
    expect((await logged("run")).steps).toEqual([7, 8, 9, 10]);
  });

  it("stops at a loss or a weight that is not finite, and keeps the last good checkpoint", async () => {
    const [lost, broken] = [new ToySession(), new ToySession()];
    lost.lossBreaksAt = 7;
    broken.weightBreaksAt = 8;
    await expect(runTraining(toyRun({ out: out("a") }), toyEnvironment(lost))).rejects.toMatchObject({
      code: "loss-not-finite",
      fix: expect.stringContaining("checkpoint-000006") as string,
    });
    await expect(runTraining(toyRun({ out: out("b") }), toyEnvironment(broken))).rejects.toMatchObject({
      code: "weights-not-finite",
    });
    expect(lost.closed && broken.closed).toBe(true);
    const { weight } = await straight();
    for (const name of ["a", "b"]) {
      expect(await readdir(out(name))).toContain("checkpoint-000006");
      await runTraining(toyRun({ out: out(name), resume: true }), toyEnvironment());
      expect(await weightOf(name)).toEqual(weight);
    }
  });

  it("can save after the last step only, and keep one", async () => {
    await runTraining(toyRun({ out: out(), saveEvery: 0, keep: 1, evalEvery: 0 }), toyEnvironment());
    expect((await readdir(out())).filter((name) => name.startsWith("checkpoint"))).toEqual(["checkpoint-000010"]);
    await runTraining(toyRun({ out: out("one"), saveEvery: 1, keep: 1 }), toyEnvironment());
    expect((await readdir(out("one"))).filter((name) => name.startsWith("checkpoint"))).toEqual(["checkpoint-000010"]);
  });
});
