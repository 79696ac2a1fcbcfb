import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ThimbleError } from "../errors.js";
import { resolveConfig } from "./config.js";
import { parseConfigFile, readConfigFile } from "./file.js";
import { parseFlag, runFlags } from "./flags.js";
import { flagName, keyName } from "./names.js";
import { runJsonSchema, runKeys } from "./schema.js";
import { methodSelections } from "./selection.js";

function refusal(run: () => unknown): ThimbleError {
  try {
    run();
  } catch (error) {
    if (error instanceof ThimbleError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const file = (text: string) => parseConfigFile(text, "run.yaml");

describe("a run's settings", () => {
  it("have the issue's defaults", () => {
    const config = resolveConfig({});
    expect(config).toMatchObject({
      method: ["lora"],
      dtype: "f32",
      schedule: "constant",
      warmup: 0,
      weightDecay: 0,
      target: "auto",
      resume: false,
    });
    expect(config.lr).toBeUndefined();
    expect(config.clip).toBeUndefined();
  });

  it("take either spelling, and flags win over the file key by key", () => {
    const config = resolveConfig({
      file: file("weight-decay: 0.1\nsave_every: 7\nbatch: 2\nmethod: full\nset: [lora.r=4]\n"),
      flags: { batch: 8, "save-every": 9, set: ["lora.r=8"], method: ["lora"] },
    });
    expect(config).toMatchObject({ weightDecay: 0.1, saveEvery: 9, batch: 8, method: ["lora"] });
    expect(config.set).toEqual(["lora.r=4", "lora.r=8"]);
  });

  it("name the line of a bad value and the nearest name of an unknown key", () => {
    const bad = refusal(() => resolveConfig({ file: file("model: m\n\nbatch: 0\n") }));
    expect([bad.code, bad.where, bad.given]).toEqual(["config-value", "run.yaml:3: batch", "0"]);
    const unknown = refusal(() => resolveConfig({ file: file("model: m\nweigth-decay: 1\n") }));
    expect([unknown.code, unknown.where]).toEqual(["config-unknown-key", "run.yaml:2: weigth-decay"]);
    expect(unknown.fix).toContain('"weightDecay"');
    const flag = refusal(() => resolveConfig({ flags: { "save-evry": 1 } }));
    expect([flag.where, flag.fix]).toEqual(["--save-evry", 'Did you mean "saveEvery"?']);
    const nested = refusal(() => resolveConfig({ file: file("method:\n  - full\n  - id: lora\n    setings: {}\n") }));
    expect([nested.code, nested.where]).toEqual(["config-unknown-key", "run.yaml:4: method.1.setings"]);
  });

  it("are refused by name where they contradict each other", () => {
    const conflict = refusal(() => resolveConfig({ file: file("momentum: 0.9\n") }));
    expect(conflict.code).toBe("config-conflict");
    expect(conflict.message).toContain("momentum and optimizer");
    expect(conflict.where).toBe("run.yaml:1: momentum");
    for (const flags of [
      { optimizer: "sgd", beta1: 0.5 },
      { optimizer: "sgd", nesterov: true },
      { decay: 0.2, schedule: "cosine" },
      { minRatio: 0.1 },
      { warmup: 20, steps: 10 },
      { evalEvery: 5, holdout: 0 },
    ]) {
      expect(refusal(() => resolveConfig({ flags })).code).toBe("config-conflict");
    }
    expect(refusal(() => resolveConfig({ flags: { "save-every": 1, saveEvery: 2 } })).code).toBe("config-repeated");
  });

  it("say so when a file is not YAML, or repeats a key, or is a bomb of aliases", () => {
    expect(refusal(() => file("a: [1\n")).code).toBe("config-file");
    const repeated = refusal(() => file("batch: 1\nseq: 2\nbatch: 3\n"));
    expect([repeated.code, repeated.where]).toEqual(["config-file", "run.yaml:3"]);
    expect(refusal(() => file("- 1\n")).code).toBe("config-file");
    const bomb = Array.from(
      { length: 12 },
      (_, i) =>
        `a${i}: &a${i} [${Array(9)
          .fill(i === 0 ? "x" : `*a${i - 1}`)
          .join(",")}]`,
    );
    expect(refusal(() => file(bomb.join("\n"))).code).toBe("config-file");
  });

  it("are read from a file, which may be empty, JSON or absent", async () => {
    const folder = await mkdtemp(join(tmpdir(), "thimble-config-"));
    try {
      const path = join(folder, "run.yaml");
      await writeFile(path, "");
      expect((await readConfigFile(path)).values).toEqual({});
      await writeFile(path, '{"batch": 3}');
      expect(resolveConfig({ file: await readConfigFile(path) }).batch).toBe(3);
      await expect(readConfigFile(join(folder, "none"))).rejects.toMatchObject({ code: "config-file" });
      await writeFile(path, " ".repeat(2 ** 20 + 1));
      await expect(readConfigFile(path)).rejects.toMatchObject({ code: "config-file" });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("flags", () => {
  it("cover every key, once, with a description", () => {
    expect(runFlags.map(({ key }) => key)).toEqual(runKeys);
    for (const { description, flag, key } of runFlags) {
      expect(description.length).toBeGreaterThan(10);
      expect(keyName(flag.slice(2))).toBe(key);
      expect(flagName(key)).toBe(flag.slice(2));
    }
    expect(Object.keys(runJsonSchema()["properties"] as object)).toEqual(runKeys);
  });

  it("have kinds and choices from the schema", () => {
    const spec = (key: string) => runFlags.find((flag) => flag.key === key)!;
    expect(spec("masterDtype")).toMatchObject({ flag: "--master-dtype", kind: "text", choices: ["f32", "none"] });
    expect(spec("data")).toMatchObject({ repeatable: true, kind: "text" });
    expect(spec("method").repeatable).toBe(true);
    expect(spec("model").repeatable).toBe(false);
    expect(parseFlag(spec("lr"), "1e-4")).toBe(1e-4);
    expect(parseFlag(spec("resume"), "true")).toBe(true);
    expect(parseFlag(spec("holdout"), "0.1")).toBe(0.1);
    expect(parseFlag(spec("holdout"), "held.jsonl")).toBe("held.jsonl");
    expect(spec("holdout").repeatable).toBe(false);
    expect(refusal(() => parseFlag(spec("batch"), "four")).where).toBe("--batch");
    expect(refusal(() => parseFlag(spec("batch"), "")).where).toBe("--batch");
    expect(refusal(() => resolveConfig({ flags: { batch: parseFlag(spec("batch"), "1.5") } })).code).toBe(
      "config-value",
    );
  });
});

describe("methods of a run", () => {
  it("take settings from their entry and from set, values as YAML reads them", () => {
    const { method, set } = resolveConfig({
      flags: {
        method: [{ id: "lora", settings: { r: 4, alpha: 8 } }],
        set: ["lora.r=8", "lora.dora=true", "lora.target_modules=[q_proj, v_proj]", "lora.init=gaussian"],
      },
    });
    expect(methodSelections({ method, set })).toEqual([
      {
        id: "lora",
        settings: { r: 8, alpha: 8, dora: true, target_modules: ["q_proj", "v_proj"], init: "gaussian" },
      },
    ]);
  });

  it("are refused by name", () => {
    expect(refusal(() => methodSelections({ method: ["lorra"], set: [] })).fix).toContain('"lora"');
    expect(refusal(() => methodSelections({ method: ["full"], set: ["lora.r=8"] })).fix).toBe("Add --method lora.");
    expect(refusal(() => methodSelections({ method: ["lora"], set: ["lora.x=[1"] })).code).toBe("config-set");
    expect(refusal(() => resolveConfig({ flags: { set: ["r=8"] } })).code).toBe("config-value");
  });
});
