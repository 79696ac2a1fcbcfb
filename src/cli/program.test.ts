import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runKeys } from "../config/schema.js";
import { groups, ownFlags, runFlagsOf } from "./flags.js";
import { jsonOf, run } from "./testing/run.js";
import { verbs } from "./verbs.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-cli-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe("help", () => {
  it("lists every command, on stdout when asked for and on stderr with status 2 when nothing is said", async () => {
    const asked = await run(["--help"]);
    const silent = await run([]);
    expect([asked.status, silent.status]).toEqual([0, 2]);
    expect(silent.stdout).toBe("");
    expect(silent.stderr).toBe(asked.stdout);
    for (const { name, summary } of verbs) expect(asked.stdout).toContain(`${name.padEnd(8)}  ${summary}`);
  });

  it.each(verbs.map((verb) => [verb.name, verb] as const))(
    "of %s names all its flags and examples",
    async (name, verb) => {
      const help = await run([name, "--help"]);
      expect(help.status).toBe(0);
      expect(help.stderr).toBe("");
      expect(await run(["help", name])).toEqual(help);
      for (const { flag } of [...ownFlags(verb.options), ...runFlagsOf(verb.settings)]) {
        expect(help.stdout).toMatch(new RegExp(`^  ${flag}( |$)`, "m"));
      }
      for (const { command } of verb.examples) expect(help.stdout).toContain(`thimble ${command}\n`);
      expect(Math.max(...help.stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(90);
    },
  );

  it("tells the version", async () => {
    expect((await run(["--version"])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it("has a group for every setting, and no flag twice", () => {
    expect(groups.flatMap(([, keys]) => keys).sort()).toEqual([...runKeys].sort());
    for (const { options, settings } of verbs) {
      const flags = [...ownFlags(options), ...runFlagsOf(settings)].map(({ flag }) => flag);
      expect(new Set(flags).size).toBe(flags.length);
    }
  });

  it("has examples that parse: known flags, known commands", () => {
    for (const { examples, options, settings, name } of verbs) {
      const flags = new Set([...ownFlags(options), ...runFlagsOf(settings)].map(({ flag }) => flag));
      for (const { command } of examples) {
        expect(command.split(" ")[0]).toBe(name);
        for (const [flag] of command.matchAll(/--[a-z-]+/g)) {
          expect(flags.has(flag) || ["--config", "--json"].includes(flag)).toBe(true);
        }
      }
    }
  });
});

describe("bad usage", () => {
  it.each([
    ["unknown command", ["trian"], /Did you mean "thimble train"/],
    ["unknown flag", ["train", "--dat", "x"], /Did you mean --data/],
    ["flag of another tool", ["train", "--learning-rate", "1"], /called --lr/],
    ["flag of another tool, misspelled", ["train", "--lerning-rate", "1"], /called --lr/],
    ["setting of a method", ["train", "--alpha", "8"], /--set lora\.alpha=VALUE/],
    ["rank", ["plan", "--rank", "8"], /--set lora\.r=VALUE/],
    ["not a number", ["train", "--lr", "fast"], /config-value/],
    ["out of range", ["train", "--batch", "0"], /batch/],
    ["not a choice", ["plan", "--dtype", "f8"], /"f32"\|"bf16"/],
    ["own option out of range", ["generate", "--top-p", "2"], /top/i],
    ["conflict", ["train", "--momentum", "0.9"], /config-conflict/],
    ["missing value", ["train", "--model"], /argument missing|needs a value/],
    ["flag as a value", ["train", "--model", "--data", "x"], /--model needs a value/],
    ["word too many", ["doctor", "now"], /too many arguments/i],
    ["no model", ["plan"], /--model/],
    ["unknown method", ["plan", "--model", "x", "--method", "lorra"], /Did you mean "lora"|no such file/i],
    ["unknown method to explain", ["methods", "lorra"], /Did you mean "lora"/],
    ["config action", ["config", "validat", "x"], /Did you mean "validate"/],
    ["merge without adapter", ["merge", "--model", "x"], /--adapter/],
  ])("%s gives one error, its place, and a status", async (_, argv, expected) => {
    const plain = await run(argv);
    expect(plain.stdout).toBe("");
    expect(plain.stderr).toMatch(expected);
    expect(plain.stderr).toMatch(/^error: /);
    expect(plain.stderr).not.toMatch(/\n\s+at /);
    const json = await run([...argv.slice(0, 1), "--json", ...argv.slice(1)]);
    expect(json.status).toBe(plain.status);
    const { error } = jsonOf(json) as { error: Record<string, string> };
    expect(plain.stderr).toContain(`${error["message"] ?? ""} [${error["code"] ?? ""}]`);
    if (!argv.includes("lorra") || argv[0] === "methods") expect(plain.status).toBe(2);
  });

  it("shows a stack only when asked to", async () => {
    const { stderr } = await run(["trian"], { environment: { ...process.env, THIMBLE_DEBUG: "1" } });
    expect(stderr).toMatch(/\n\s+at /);
  });

  it("colours nothing where nobody looks, or NO_COLOR is set", async () => {
    const escape = "\u001b[";
    expect((await run(["--help"])).stdout).not.toContain(escape);
    expect((await run(["--help"], { tty: true, environment: {} })).stdout).toContain(escape);
    expect((await run(["--help"], { tty: true, environment: { NO_COLOR: "1" } })).stdout).not.toContain(escape);
    expect((await run(["methods", "--json"], { tty: true, environment: {} })).stdout).not.toContain(escape);
  });
});

describe("methods", () => {
  it("prints all with their ids", async () => {
    const { methods } = jsonOf(await run(["methods", "--json"])) as { methods: { id: string }[] };
    expect(methods.map(({ id }) => id)).toEqual(expect.arrayContaining(["full", "lora"]));
    expect((await run(["methods"])).stdout).toMatch(/^lora +3\.63% +gradients, states +2106\.09685 \(2021\)/m);
  });

  it("gives a config to start from that is valid", async () => {
    const { methods } = jsonOf(await run(["methods", "--json"])) as { methods: { id: string }[] };
    for (const { id } of methods) {
      const { example } = jsonOf(await run(["methods", id, "--json"])) as { example: string };
      const path = join(folder, `${id}.yaml`);
      await writeFile(path, example);
      expect(jsonOf(await run(["config", "validate", path, "--json"]))).toMatchObject({ valid: true });
      expect((await run(["methods", id])).stdout).toContain(example.split("\n")[0]);
    }
  });
});

describe("config", () => {
  it("prints the schema", async () => {
    const plain = JSON.parse((await run(["config"])).stdout) as Record<string, unknown>;
    expect(plain).toEqual(jsonOf(await run(["config", "schema", "--json"])));
    expect(Object.keys(plain["properties"] as object)).toEqual(runKeys);
  });

  it.each([
    ["batchsize: 4\n", /Did you mean "batch"/],
    ["batch: four\n", /batch/],
    ["method:\n  - id: lora\n    settings: {alfa: 3}\n", /Did you mean "alpha"/],
    ["method: lorra\n", /Did you mean "lora"/],
    ["batch: [1\n", /YAML/],
  ])("refuses %j with the nearest name and the line", async (text, expected) => {
    const path = join(folder, "bad.yaml");
    await writeFile(path, text);
    const outcome = await run(["config", "validate", path]);
    expect(outcome.status).toBe(2);
    expect(outcome.stderr).toMatch(expected);
  });

  it("refuses a file that is not there", async () => {
    expect((await run(["config", "validate", join(folder, "none.yaml")])).status).toBe(2);
  });
});

describe("doctor", () => {
  it("finds the compiled target", async () => {
    const outcome = await run(["doctor", "--json"]);
    const report = jsonOf(outcome);
    expect(outcome.status).toBe(0);
    expect(report).toMatchObject({ chosen: "c", targets: [{ name: "c", works: true }, { name: "interpret" }] });
    expect(outcome.stderr).toContain("--target auto takes c");
  });

  it("says what to install where there is no compiler, with status 1", async () => {
    const environment = { ...process.env, PATH: folder, CC: "" };
    const outcome = await run(["doctor"], { environment });
    expect(outcome.status).toBe(1);
    expect(outcome.stdout).toMatch(/No C compiler was found/);
    expect(outcome.stdout).toMatch(/Install|Run `/);
    const report = jsonOf(await run(["doctor", "--json"], { environment }));
    expect(report["chosen"]).toBeUndefined();
  });
});
