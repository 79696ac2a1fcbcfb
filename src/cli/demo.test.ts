import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { describe, expect, it } from "vitest";
import { Terminal } from "./terminal.js";
import { fakeWorld, jsonOf } from "./testing/run.js";
import { workspace } from "./testing/workspace.js";
import { runDemo } from "./verbs/demo.js";

const { place } = workspace();

describe("demo", () => {
  it("shows text and loss before and after, and where the adapter is", async () => {
    const config = { model: "file:../model", data: "../text.txt", holdout: 0.1, evalEvery: 0 };
    const size = { batch: 2, seq: 16, steps: 6, lr: 0.05 };
    await mkdir(place("demo"));
    await writeFile(join(place("demo"), "demo.yaml"), stringify({ ...config, ...size }));
    const { world, written } = fakeWorld();
    const options = { prompt: "It was", out: place("demo-out"), threads: 1, target: "interpret" as const };
    expect(await runDemo(place("demo"), new Terminal(world, true), options)).toBe(0);
    const result = jsonOf({ status: 0, ...written }) as Record<"before" | "after", { loss: number; text: string }> & {
      result: string;
    };
    expect(result.after.loss).toBeLessThan(result.before.loss);
    expect(existsSync(join(result.result, "adapter_config.json"))).toBe(true);
    for (const part of ["Before", "After", "held-out loss", "adapter in"]) expect(written.stderr).toContain(part);
  });

  it("says so where its files are missing", async () => {
    const { world } = fakeWorld();
    const options = { prompt: "", out: place("nowhere"), threads: 1, target: "interpret" as const };
    await expect(runDemo(place("absent"), new Terminal(world, false), options)).rejects.toThrow(/files are not here/);
  });
});
