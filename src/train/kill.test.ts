import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { sequence } from "../testing/tiny.js";
import { killRuns } from "./testing/kill-run.js";
import { writeTinyModel, writeTokens } from "./testing/tiny-folder.js";

it("killed with SIGKILL at random moments and resumed is bit for bit the straight run", async () => {
  const folder = await mkdtemp(join(tmpdir(), "thimble-kill-"));
  try {
    await writeTinyModel(join(folder, "model"));
    await writeTokens(join(folder, "ids.u16"), 4000, 420);
    const next = sequence(20);
    const report = await killRuns({
      flags: {
        model: join(folder, "model"),
        data: `tokens:${join(folder, "ids.u16")}`,
        batch: 2,
        seq: 16,
        saveEvery: 1,
        set: ["lora.dropout=0.1"],
        target: "interpret",
      },
      steps: 5,
      folder,
      kills: 3,
      random: () => next() + 0.5,
    });
    expect(report.kills).toBeGreaterThanOrEqual(3);
    expect(report.finished).toBeGreaterThan(0);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
