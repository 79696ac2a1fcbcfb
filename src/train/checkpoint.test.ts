import { appendFile, cp, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ThimbleError } from "../errors.js";
import { schedule } from "../optim/schedules.js";
import type { ScheduleConfig } from "../optim/schedules.js";
import { latestCheckpoint, restoreCheckpoint, verifyCheckpoint, writeCheckpoint } from "./checkpoint.js";
import { diskFiles } from "./files.js";
import { checkResume, encodeRates } from "./identity.js";
import { encodeManifest } from "./manifest.js";
import type { Manifest } from "./manifest.js";
import { ToySession } from "./testing/toy.js";

let out = "";
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), "thimble-checkpoint-"));
});
afterEach(async () => {
  await rm(out, { recursive: true, force: true });
});

const facts = { metricsBytes: 0, run: { model: "toy", lr: 0.5 }, rates: [], machine: { code: "1" } };

async function trained(steps: number): Promise<ToySession> {
  const session = new ToySession();
  await session.load();
  for (let step = 0; step < steps; step++) {
    const ids = Int32Array.of(step, 2, 3);
    const batch = { ids, labels: ids, weights: new Float32Array(3), positions: ids, segments: ids };
    await session.step([batch], { rate: 0.1, step });
  }
  return session;
}

async function write(step: number): Promise<ToySession> {
  const session = await trained(step);
  await writeCheckpoint(diskFiles, out, session, { ...facts, step });
  return session;
}

const manifestOf = async (folder: string): Promise<Manifest> => {
  const { checksum, ...manifest } = JSON.parse(await readFile(join(folder, "manifest.json"), "utf8")) as Manifest & {
    checksum: string;
  };
  expect(checksum).toHaveLength(64);
  return manifest;
};

const ignore = (): void => undefined;

describe("a checkpoint", () => {
  it("brings back every byte that changes", async () => {
    const session = await write(3);
    const checkpoint = await latestCheckpoint(diskFiles, out, ignore);
    const other = new ToySession();
    await other.load();
    await restoreCheckpoint(diskFiles, checkpoint!, other);
    for (const name of ["weight", "weight.momentum", "base"]) expect(other.bytes(name)).toEqual(session.bytes(name));
    expect(checkpoint?.manifest.tensors.map(({ name }) => name)).toEqual(["weight", "weight.momentum"]);
  });

  it("is passed over when damaged, however it is, and named when no other is left", async () => {
    await write(2);
    await write(4);
    const good = join(out, "checkpoint-000004");
    const spare = join(out, "spare");
    await cp(good, spare, { recursive: true });
    const manifest = await manifestOf(good);
    const damages: Record<string, () => Promise<void>> = {
      "no manifest": () => rm(join(good, "manifest.json")),
      "empty manifest": () => truncate(join(good, "manifest.json"), 0),
      "cut manifest": () => truncate(join(good, "manifest.json"), 100),
      "no state": () => rm(join(good, "state.bin")),
      "cut state": () => truncate(join(good, "state.bin"), 10),
      "longer state": () => appendFile(join(good, "state.bin"), "x"),
      "lying step": () => writeFile(join(good, "manifest.json"), encodeManifest({ ...manifest, step: 9 })),
      "lying size": () => {
        const tensors = manifest.tensors.map((tensor) => ({ ...tensor, bytes: 2 ** 50 }));
        return writeFile(join(good, "manifest.json"), encodeManifest({ ...manifest, tensors }));
      },
      "wrong type": () => {
        const lying = { ...manifest, tensors: "none" } as unknown as Manifest;
        return writeFile(join(good, "manifest.json"), encodeManifest(lying));
      },
      "a list": () => writeFile(join(good, "manifest.json"), "[]"),
      "huge manifest": () => truncate(join(good, "manifest.json"), 2 ** 27),
    };
    for (const [name, damage] of Object.entries(damages)) {
      await damage();
      const errors: ThimbleError[] = [];
      const found = await latestCheckpoint(diskFiles, out, (error) => errors.push(error));
      expect([name, found?.manifest.step]).toEqual([name, 2]);
      expect(errors.map(({ code }) => code)).toEqual(["checkpoint-broken"]);
      await rm(good, { recursive: true });
      await cp(spare, good, { recursive: true });
    }
    await rm(join(out, "checkpoint-000002"), { recursive: true });
    await rm(join(good, "state.bin"));
    await expect(latestCheckpoint(diskFiles, out, ignore)).rejects.toMatchObject({ code: "checkpoint-broken" });
    await rm(good, { recursive: true });
    expect(await latestCheckpoint(diskFiles, out, ignore)).toBeUndefined();
  });

  it("notices any flipped bit", async () => {
    await write(1);
    const folder = join(out, "checkpoint-000001");
    for (const name of ["state.bin", "manifest.json"]) {
      const path = join(folder, name);
      const bytes = await readFile(path);
      // The newline at a manifest's end is the one byte that says nothing.
      const last = name === "state.bin" ? bytes.length : bytes.length - 1;
      for (let at = 0; at < last; at += name === "state.bin" ? 13 : 3) {
        const flipped = Buffer.from(bytes);
        flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
        await writeFile(path, flipped);
        await expect(verifyCheckpoint(diskFiles, folder)).rejects.toBeInstanceOf(ThimbleError);
      }
      await writeFile(path, bytes);
    }
    await verifyCheckpoint(diskFiles, folder);
  });

  it("of other tensors is refused by name", async () => {
    await write(1);
    const checkpoint = await latestCheckpoint(diskFiles, out, ignore);
    const other = new ToySession();
    const tensors = other.tensors.map((tensor) => (tensor.name === "weight" ? { ...tensor, shape: [8, 6] } : tensor));
    const session = { tensors, bytes: (name: string) => other.bytes(name) };
    await expect(restoreCheckpoint(diskFiles, checkpoint!, session)).rejects.toMatchObject({
      code: "checkpoint-mismatch",
      expected: "weight f32 [8, 6], 192 bytes",
    });
    const fewer = { tensors: tensors.slice(0, 1), bytes: session.bytes };
    await expect(restoreCheckpoint(diskFiles, checkpoint!, fewer)).rejects.toMatchObject({
      code: "checkpoint-mismatch",
      expected: "no more tensors",
    });
  });

  it("of another version says so", async () => {
    await write(1);
    const path = join(out, "checkpoint-000001", "manifest.json");
    const manifest = await manifestOf(join(out, "checkpoint-000001"));
    await writeFile(path, encodeManifest({ ...manifest, version: 2 } as unknown as Manifest));
    await expect(latestCheckpoint(diskFiles, out, ignore)).rejects.toMatchObject({ code: "checkpoint-version" });
  });
});

describe("resuming", () => {
  const factor = (config: Partial<ScheduleConfig>, steps: number) =>
    schedule({ kind: "constant", warmup: 0, min_ratio: 0, decay: 0.2, ...config }, steps);
  const checkpoint = (config: Partial<ScheduleConfig>, steps: number, done: number) => ({
    folder: "checkpoint",
    manifest: {
      ...facts,
      format: "thimble-checkpoint" as const,
      version: 1 as const,
      step: done,
      rates: encodeRates(factor(config, steps), done),
      tensors: [],
    },
  });
  const now = (config: Partial<ScheduleConfig>, steps: number) => ({ ...facts, factor: factor(config, steps), steps });
  const refusalOf = (run: () => unknown): string => {
    try {
      run();
    } catch (error) {
      if (error instanceof ThimbleError) return `${error.code} ${error.message}`;
    }
    return "";
  };

  it("with another setting is refused by its name", () => {
    const changed = { ...now({}, 10), run: { model: "toy", lr: 0.4 } };
    expect(refusalOf(() => checkResume(checkpoint({}, 10, 5), changed))).toContain("another lr");
    const more = { ...now({}, 10), run: { ...facts.run, clip: 1 } };
    expect(refusalOf(() => checkResume(checkpoint({}, 10, 5), more))).toContain("another clip");
    expect(checkResume(checkpoint({}, 10, 5), now({}, 10))).toBeUndefined();
  });

  it("may change the total where the rates so far stay what they were", () => {
    expect(checkResume(checkpoint({}, 10, 5), now({}, 20))).toBeUndefined();
    expect(checkResume(checkpoint({ kind: "wsd" }, 10, 8), now({ kind: "wsd" }, 20))).toBeUndefined();
    expect(refusalOf(() => checkResume(checkpoint({ kind: "wsd" }, 10, 10), now({ kind: "wsd" }, 20)))).toContain(
      "rates",
    );
    expect(refusalOf(() => checkResume(checkpoint({ kind: "cosine" }, 10, 5), now({ kind: "cosine" }, 20)))).toContain(
      "rates",
    );
  });

  it("on another machine goes on with a notice", () => {
    const elsewhere = { ...now({}, 10), machine: { code: "2" } };
    expect(checkResume(checkpoint({}, 10, 5), elsewhere)).toContain("another code");
  });

  it("keeps long constant schedules short", () => {
    expect(encodeRates(factor({ warmup: 2 }, 1e5), 1e5)).toEqual([
      [0, 1],
      [0.5, 1],
      [1, 99998],
    ]);
  });
});
