import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { jsonOf, run } from "./testing/run.js";
import { workspace } from "./testing/workspace.js";

const { place, tiny } = workspace();

interface Trained {
  readonly losses: readonly number[];
  readonly peak: { readonly planBytes: number; readonly arenaBytes: number };
}

describe("--weights-on disk", () => {
  it("trains the same adapter in less memory, and resumes with or without it", async () => {
    const train = async (out: string, ...more: string[]): Promise<Trained> => {
      const outcome = await run(["train", ...tiny("--out", place(out), "--json", ...more)]);
      expect(outcome.stderr).not.toMatch(/error/);
      return jsonOf(outcome) as unknown as Trained;
    };
    const adapter = (out: string): Promise<Buffer> =>
      readFile(join(place(out), "adapter", "adapter_model.safetensors"));
    const plain = await train("plain");
    const streamed = await train("streamed", "--weights-on", "disk");
    expect(streamed.losses).toEqual(plain.losses);
    expect(streamed.peak.arenaBytes).toBe(streamed.peak.planBytes);
    expect(streamed.peak.planBytes).toBeLessThan(plain.peak.planBytes);
    expect(Buffer.compare(await adapter("streamed"), await adapter("plain"))).toBe(0);
    // A run may go on with its weights elsewhere: where they lie changes no number.
    await train("streamed", "--resume", "--steps", "4", "--weights-on", "memory");
    await train("plain", "--resume", "--steps", "4");
    expect(Buffer.compare(await adapter("streamed"), await adapter("plain"))).toBe(0);
  });

  it("is told by the plan: what lies on disk, and what a step reads", async () => {
    const { disk, peak } = jsonOf(await run(["plan", ...tiny("--weights-on", "disk", "--json")])) as {
      disk: { bytes: number; programs: { name: string; read: number; written: number }[] };
      peak: { planBytes: number };
    };
    expect(disk.bytes).toBeGreaterThan(0);
    expect(disk.programs[0]).toMatchObject({ name: "train", written: 0 });
    const { stdout } = await run(["plan", ...tiny("--weights-on", "disk")]);
    expect(stdout).toMatch(/on disk +[\d.]+ \w+ of frozen weights; each run of train reads [\d.]+ \w+/);
    const plain = jsonOf(await run(["plan", ...tiny("--json")])) as { disk?: unknown; peak: { planBytes: number } };
    expect(plain.disk).toBeUndefined();
    expect(peak.planBytes).toBeLessThan(plain.peak.planBytes);
  });
});
