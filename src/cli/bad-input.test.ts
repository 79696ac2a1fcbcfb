/** Damaged and lying files from a user's side: one clear error with a code and a status, and nothing left behind. */
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeTinyModel, writeTokens } from "../train/testing/tiny-folder.js";
import { jsonOf, run } from "./testing/run.js";

let folder = "";
const place = (...names: string[]): string => join(folder, ...names);
const size = ["--batch", "1", "--seq", "8", "--steps", "2", "--target", "interpret", "--threads", "1"];

async function must(args: readonly string[]): Promise<void> {
  const { status, stderr } = await run(args);
  if (status !== 0) throw new Error(stderr);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-bad-"));
  await writeTinyModel(place("model"));
  await writeTokens(place("ids.u16"), 400, 420);
  const texts = ["It was the best of times.", "It was the worst of times.", "It was the age of wisdom."];
  await writeFile(place("data.jsonl"), texts.map((text) => `${JSON.stringify({ text })}\n`).join(""));
  const source = ["--model", place("model")];
  await must(["train", ...source, "--data", `tokens:${place("ids.u16")}`, ...size, "--out", place("run")]);
  await must(["export", ...source, "--type", "q8_0", "--out", place("gguf")]);
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

type Change = (bytes: Buffer) => Buffer;

/** Keeps a part of the file, from its start. */
const cut =
  (share: number): Change =>
  (bytes) =>
    bytes.subarray(0, Math.floor(bytes.length * share));

/** Replaces the first place where a text stands by one of the same length or not. */
const swap =
  (before: string, after: string): Change =>
  (bytes) => {
    const at = bytes.indexOf(before);
    if (at < 0) throw new Error(`the file has no ${before}`);
    return Buffer.concat([bytes.subarray(0, at), Buffer.from(after), bytes.subarray(at + Buffer.byteLength(before))]);
  };

/** Flips a bit of the byte at a place, from the end if it is negative. */
const flip =
  (place: number, bit = 0): Change =>
  (bytes) => {
    const changed = Buffer.from(bytes);
    const at = place < 0 ? bytes.length + place : place;
    changed[at] = (changed[at] ?? 0) ^ (1 << bit);
    return changed;
  };

const writeLength =
  (place: number, value: bigint): Change =>
  (bytes) => {
    const changed = Buffer.from(bytes);
    changed.writeBigUInt64LE(value, place);
    return changed;
  };

/** Sets the number of 8 or 4 bytes that stands `distance` after a text. */
const writeAfter =
  (text: string, distance: number, value: bigint, width: 4 | 8 = 8): Change =>
  (bytes) => {
    const changed = Buffer.from(bytes);
    const at = bytes.indexOf(text) + text.length + distance;
    if (width === 4) changed.writeUInt32LE(Number(value), at);
    else changed.writeBigUInt64LE(value, at);
    return changed;
  };

const empty: Change = () => Buffer.alloc(0);
/** The last float of the file becomes NaN. */
const notANumber: Change = (bytes) => Buffer.concat([bytes.subarray(0, -4), Buffer.from([255, 255, 255, 127])]);

const json =
  (change: (value: Record<string, unknown>) => unknown): Change =>
  (bytes) =>
    Buffer.from(JSON.stringify(change(JSON.parse(bytes.toString()) as Record<string, unknown>)));

let copies = 0;

/** A copy of a file or folder of the fixtures in which one file is changed; the copy's path. */
async function damaged(source: string, file: string, change: Change): Promise<string> {
  const copy = place(`copy-${copies++}`);
  await cp(place(source), copy, { recursive: true });
  const path = file === "" ? copy : join(copy, file);
  await writeFile(path, change(await readFile(path)));
  return copy;
}

/** Every file of a folder by its name, as a digest. */
async function contents(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const digest = async (file: string): Promise<string> =>
    `${file} ${createHash("sha256")
      .update(await readFile(file))
      .digest("hex")}`;
  return Promise.all(files.sort().map(digest));
}

/** Runs a command that must fail, and holds the failure to what every failure must be. Its code. */
async function refusal(args: readonly string[]): Promise<string> {
  const before = await readdir(folder);
  const outcome = await run([...args, "--json"]);
  const { error } = jsonOf(outcome) as { error?: Record<string, string> };
  expect(outcome.status, outcome.stdout).toBeGreaterThan(0);
  expect(outcome.status).toBeLessThan(3);
  expect(outcome.stderr.match(/^error:/gm), outcome.stderr).toHaveLength(1);
  expect(outcome.stderr).toContain(`[${error?.["code"] ?? ""}]`);
  expect(error?.["code"]).not.toMatch(/^(internal|system)$/);
  expect(outcome.stderr).not.toMatch(/^\s+at /m);
  expect(error?.["where"] ?? error?.["given"], "something to go by").toBeTruthy();
  expect((error?.["message"] ?? "").length).toBeGreaterThan(10);
  // The whole report is for a person: no dump of the file.
  expect(outcome.stderr.length).toBeLessThan(4000);
  expect(await readdir(folder), "nothing is left behind").toEqual(before);
  return error?.["code"] ?? "";
}

const trainOn = (model: string, data = `tokens:${place("ids.u16")}`): string[] => [
  ...["train", "--model", model, "--data", data, ...size, "--out", place(`new-${copies++}`)],
];

describe("a damaged model folder", () => {
  it.each<[string, string, Change, string]>([
    ["weights cut", "model.safetensors", cut(0.9), "safetensors-header"],
    ["weights cut in the header", "model.safetensors", (bytes) => bytes.subarray(0, 200), "safetensors-header"],
    ["no weights", "model.safetensors", empty, "safetensors-header"],
    ["weights with a bad quote", "model.safetensors", swap('"dtype"', '"dtype#'), "safetensors-header"],
    ["a header of 2^62 bytes", "model.safetensors", writeLength(0, 2n ** 62n), "safetensors-header"],
    ["a shape that lies", "model.safetensors", swap("[424,32]", "[999,32]"), "safetensors-header"],
    ["a shape that overflows", "model.safetensors", swap("[424,32]", "[4e15,9]"), "safetensors-header"],
    ["offsets that lie", "model.safetensors", swap('"data_offsets":[0,', '"data_offsets":[4,'), "safetensors-header"],
    ["another type", "model.safetensors", swap('"F32"', '"F33"'), "safetensors-header"],
    ["a tensor of another name", "model.safetensors", swap("model.norm.", "model.nxrm."), "model-tensors"],
    ["a tensor of another shape", "model.safetensors", swap("[424,32]", "[32,424]"), "model-tensors"],
    ["a config cut", "config.json", cut(0.5), "model-config"],
    ["a config that is a list", "config.json", () => Buffer.from("[]"), "model-family"],
    [
      "heads that do not divide",
      "config.json",
      json((value) => ({ ...value, num_attention_heads: 5 })),
      "model-setting",
    ],
    ["no width", "config.json", json((value) => ({ ...value, hidden_size: -1 })), "model-config"],
    ["a huge vocabulary", "config.json", json((value) => ({ ...value, vocab_size: 1e15 })), "model-config"],
    ["10^9 blocks", "config.json", json((value) => ({ ...value, num_hidden_layers: 1e9 })), "model-config"],
    ["an unknown family", "config.json", swap('"llama"', '"lxama"'), "model-family"],
  ])("%s", async (_, file, change, code) => {
    const model = await damaged("model", file, change);
    expect(await refusal(trainOn(model))).toBe(code);
    expect(
      await refusal(["merge", "--model", model, "--adapter", place("run"), "--out", place(`new-${copies++}`)]),
    ).toBe(code);
  });

  it.each<[string, Change, string]>([
    ["cut", cut(0.7), "tokenizer-broken"],
    ["empty", empty, "tokenizer-broken"],
    ["with a bad quote", swap('"vocab"', '"vocab#'), "tokenizer-broken"],
    ["of an unknown kind", swap('"type":"BPE"', '"type":"XPE"'), "tokenizer-broken"],
    ["without a vocabulary", swap('"vocab"', '"vxcab"'), "tokenizer-broken"],
  ])("a tokenizer %s", async (_, change, code) => {
    const model = await damaged("model", "tokenizer.json", change);
    expect(await refusal(trainOn(model, place("data.jsonl")))).toBe(code);
    expect(await refusal(["generate", "--model", model, "--prompt", "It", "--target", "interpret"])).toBe(code);
    expect(await refusal(["export", "--model", model, "--out", place(`new-${copies++}`)])).toBe(code);
  });
});

it("a weight that is no number ends the run at its first step, and no result is written", async () => {
  const model = await damaged("model", "model.safetensors", notANumber);
  const out = place("broken");
  const { status, stderr } = await run(["train", ...trainOn(model).slice(1, -1), out]);
  expect(status).toBe(1);
  expect(stderr.match(/^error:.*/gm)).toEqual([expect.stringContaining("[loss-not-finite]")]);
  expect(stderr).toMatch(/weights of the model or the adapter are likely broken/);
  // What was logged stays to be looked at; nothing of it can be taken for a result.
  expect((await readdir(out)).sort()).toEqual(["metrics.jsonl", "tensorboard"]);
  expect(await refusal(["generate", "--model", model, "--prompt", "It", "--target", "interpret"])).toBe(
    "logits-not-finite",
  );
});

describe("a damaged GGUF file", () => {
  it.each<[string, Change, string]>([
    ["cut in its data", cut(0.9), "gguf-tensor"],
    ["cut in its metadata", (bytes) => bytes.subarray(0, 700), "gguf-truncated"],
    ["empty", empty, "gguf-truncated"],
    ["with another magic", flip(1), "gguf-magic"],
    ["of another version", flip(4, 6), "gguf-magic"],
    ["that says it has 2^40 tensors", writeLength(8, 2n ** 40n), "gguf-count"],
    ["that says it has 2^63 keys", writeLength(16, 2n ** 63n), "gguf-count"],
    ["with a text of 2^60 bytes", writeAfter("general.architecture", 4, 2n ** 60n), "gguf-truncated"],
    ["with an array of 2^50", writeAfter("tokenizer.ggml.tokens", 8, 2n ** 50n), "gguf-count"],
    ["with more blocks than tensors", writeAfter("llama.block_count", 4, 9n, 4), "model-tensors"],
    ["of an unknown architecture", swap("\x05\0\0\0\0\0\0\0llama", "\x05\0\0\0\0\0\0\0lxama"), "model-family"],
  ])("%s", async (_, change, code) => {
    const model = join(await damaged("gguf", "model.gguf", change), "model.gguf");
    expect(await refusal(trainOn(model))).toBe(code);
    expect(await refusal(["generate", "--model", model, "--prompt", "It", "--target", "interpret"])).toBe(code);
  });
});

describe("damaged data", () => {
  it.each<[string, Change, string]>([
    ["cut in its last line", (bytes) => bytes.subarray(0, -8), "data-not-json"],
    ["with a bad quote", swap('"text":', '"text#:'), "data-not-json"],
    ["that is not UTF-8", flip(12, 7), "data-not-utf8"],
    ["with a text that is a number", swap('"It was the worst of times."', "5"), "data-record"],
    [
      "with another kind of record",
      swap('{"text":"It was the worst', '{"txet":"It was the worst'),
      "data-unknown-format",
    ],
    ["empty", empty, "data-no-trained-token"],
  ])("JSONL %s", async (_, change, code) => {
    const copy = await damaged("data.jsonl", "", change);
    await cp(copy, `${copy}.jsonl`);
    expect(await refusal(trainOn(place("model"), `${copy}.jsonl`))).toBe(code);
    expect(await refusal(["data", "--model", place("model"), "--data", `${copy}.jsonl`])).toBe(code);
  });

  it.each<[string, Change, string]>([
    ["an odd number of bytes", (bytes) => bytes.subarray(0, -1), "data-tokens-size"],
    ["an id beyond the vocabulary", flip(-21, 6), "data-token-range"],
    ["nothing", empty, "data-tokens-size"],
  ])("token ids: %s", async (_, change, code) => {
    const copy = await damaged("ids.u16", "", change);
    expect(await refusal(trainOn(place("model"), `tokens:${copy}`))).toBe(code);
  });
});

describe("a bad config file", () => {
  const bomb = [
    "a: &a [1, 1]",
    ...Array.from(
      "bcdefghij",
      (name, at) =>
        `${name}: &${name} [${Array(9)
          .fill(`*${"abcdefghi"[at] ?? ""}`)
          .join()}]`,
    ),
  ];
  it.each<[string, string, string]>([
    ["that does not parse", "model: [tiny", "config-file"],
    ["with a tab", "model:\n\tname: x", "config-file"],
    ["that is a list", "- model", "config-file"],
    ["with an unknown key", "modle: x", "config-unknown-key"],
    ["with a key twice", "model: x\nmodel: y", "config-file"],
    ["with a text for a number", "accumulate: four", "config-value"],
    ["with a number out of range", "accumulate: -3", "config-value"],
    ["with a number beyond all", "accumulate: 1e300", "config-value"],
    ["that grows when it is read", bomb.join("\n"), "config-file"],
    ["with an unknown method", "method: lorra", "method-unknown"],
    ["with a setting that lies", "method: [{id: lora, settings: {r: many}}]", "settings"],
  ])("%s", async (_, text, code) => {
    const path = place(`config-${copies++}.yaml`);
    await writeFile(path, text);
    expect(await refusal([...trainOn(place("model")), "--config", path])).toBe(code);
    expect(await refusal(["config", "validate", path])).toBe(code);
  });
});

describe("a damaged adapter", () => {
  it.each<[string, string, Change, string]>([
    ["weights cut", "adapter_model.safetensors", cut(0.9), "safetensors-header"],
    ["no weights", "adapter_model.safetensors", empty, "safetensors-header"],
    ["a bad quote", "adapter_model.safetensors", swap('"dtype"', '"dtype#'), "safetensors-header"],
    ["a value that is no number", "adapter_model.safetensors", notANumber, "peft-values"],
    ["another name", "adapter_model.safetensors", swap("lora_A", "lora_C"), "peft-tensors"],
    ["a config cut", "adapter_config.json", cut(0.5), "peft-config"],
    ["a rank that lies", "adapter_config.json", json((value) => ({ ...value, r: 7 })), "peft-tensors"],
    ["a rank of 10^9", "adapter_config.json", json((value) => ({ ...value, r: 1e9 })), "peft-config"],
    ["another kind", "adapter_config.json", swap('"LORA"', '"LXRA"'), "peft-type"],
  ])("%s", async (_, file, change, code) => {
    const adapter = await damaged("run/adapter", file, change);
    const source = ["--model", place("model"), "--adapter", adapter];
    expect(await refusal([...trainOn(place("model")), "--adapter", adapter])).toBe(code);
    expect(await refusal(["merge", ...source, "--out", place(`new-${copies++}`)])).toBe(code);
    expect(await refusal(["generate", ...source, "--prompt", "It", "--target", "interpret"])).toBe(code);
  });
});

describe("a damaged checkpoint", () => {
  const resume = (out: string): string[] => {
    const source = ["--model", place("model"), "--data", `tokens:${place("ids.u16")}`];
    return ["train", ...source, ...size.map((word) => (word === "2" ? "4" : word)), "--out", out, "--resume"];
  };

  it.each<[string, string, Change]>([
    ["a state that is cut", "state.bin", cut(0.9)],
    ["a state with a flipped bit", "state.bin", flip(1000)],
    ["no state", "state.bin", empty],
    ["a manifest that is cut", "manifest.json", cut(0.5)],
    ["a manifest with a flipped bit", "manifest.json", flip(-40)],
    ["a manifest that lies", "manifest.json", swap('"step":2', '"step":3')],
    ["an empty manifest", "manifest.json", empty],
  ])("%s: refused, and the folder stays as it is", async (_, file, change) => {
    const out = await damaged("run", join("checkpoint-000002", file), change);
    const before = await contents(out);
    expect(await refusal(resume(out))).toBe("checkpoint-broken");
    expect(await contents(out)).toEqual(before);
  });

  it("is passed over where there is an earlier one, with a word", async () => {
    const out = place("two");
    const source = ["--model", place("model"), "--data", `tokens:${place("ids.u16")}`];
    await must(["train", ...source, ...size, "--save-every", "1", "--out", out]);
    const path = join(out, "checkpoint-000002", "state.bin");
    await writeFile(path, flip(1000)(await readFile(path)));
    const { status, stderr } = await run([...resume(out), "--json"]);
    expect(status, stderr).toBe(0);
    expect(stderr).toMatch(/! The checkpoint is damaged or incomplete \[checkpoint-broken\]/);
    expect(stderr).toMatch(/going on after step 1/);
  });

  it("leaves a folder of other things alone", async () => {
    const out = place("mine");
    await mkdir(out);
    await writeFile(join(out, "notes.txt"), "mine");
    expect(await refusal([...trainOn(place("model")), "--out", out])).toBe("out-not-empty");
    expect(await readdir(out)).toEqual(["notes.txt"]);
  });
});
