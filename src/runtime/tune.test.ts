import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { blockCandidates, defaultTuning } from "../targets/c/contraction-tune.js";
import { KernelCache } from "./kernel-cache.js";
import { machineTuning, tunes } from "./tune.js";

const refuse = (): KernelCache => {
  throw new Error("no cache may be opened");
};

it("measures nothing where it was not asked to", async () => {
  expect(tunes({})).toBe(process.platform !== "win32");
  expect(tunes({ VITEST: "true" })).toBe(false);
  expect(await machineTuning({ THIMBLE_TUNE: "0" }, refuse)).toEqual(defaultTuning);
});

it("takes the default where the cache cannot be used", async () => {
  expect(await machineTuning({ ...process.env, THIMBLE_TUNE: "1" }, refuse)).toEqual(defaultTuning);
});

it.runIf(process.platform !== "win32")("measures once and keeps the choice", async () => {
  const folder = mkdtempSync(join(tmpdir(), "thimble-tune-"));
  try {
    const environment = { ...process.env, THIMBLE_TUNE: "1" };
    let opened = 0;
    const open = (): KernelCache => {
      opened += 1;
      return new KernelCache(folder);
    };
    const first = await machineTuning(environment, open);
    expect(blockCandidates).toContain(first.block);
    expect(await machineTuning(environment, open)).toEqual(first);
    expect(opened).toBe(2);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
