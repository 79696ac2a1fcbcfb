import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Batches } from "./batches.js";
import { openDataset } from "./dataset.js";
import type { DataOptions, Dataset } from "./dataset.js";
import { inspectDataset } from "./inspect.js";
import { renderInspection } from "./inspect-render.js";
import picocolors from "picocolors";
import { createTokenizer } from "./tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";

const folder = mkdtempSync(join(tmpdir(), "thimble-dataset-"));
const cacheDirectory = join(folder, "cache");
let tokenizer: Tokenizer;
const opened: Dataset[] = [];

beforeAll(() => {
  const text = readFileSync(fixture("tokenizer-byte-level.json"), "utf8");
  const json = (JSON.parse(text) as { tokenizer: unknown }).tokenizer;
  tokenizer = createTokenizer(json, { where: "fixture", special: { bos: 0, eos: 1 }, fingerprint: "byte-level" });
});

afterAll(() => {
  for (const dataset of opened) dataset.close();
  rmSync(folder, { recursive: true });
});

function fixture(name: string): string {
  return fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
}

let files = 0;
function write(lines: readonly unknown[] | string, suffix = "jsonl"): string {
  const path = join(folder, `data-${files++}.${suffix}`);
  writeFileSync(path, typeof lines === "string" ? lines : lines.map((line) => JSON.stringify(line)).join("\n"));
  return path;
}

async function open(options: Partial<DataOptions> & Pick<DataOptions, "train">): Promise<Dataset> {
  const dataset = await openDataset({ sequence: 64, batch: 1, seed: 1, cacheDirectory, ...options }, tokenizer);
  opened.push(dataset);
  return dataset;
}

/** What one epoch trains, as text, one entry a piece. */
function trainedTexts(batches: Batches): string[] {
  const texts: string[] = [];
  for (let step = 0; step < batches.batchesPerEpoch; step++) {
    const batch = batches.batch(step);
    for (const piece of batch.records) {
      const at = piece.row * batch.sequence + piece.offset;
      const labels = Array.from(batch.labels.subarray(at, at + piece.length));
      texts.push(tokenizer.decode(labels.filter((label, index) => label >= 0 && batch.weights[at + index] === 1)));
    }
  }
  return texts.sort();
}

const chats = Array.from({ length: 20 }, (_, index) => ({
  messages: [
    { role: "user", content: `Say ${index}` },
    { role: "assistant", content: `So: ${index}` },
  ],
}));

describe("openDataset", () => {
  it("trains on the completion of a prompt and on the whole of a text but its first token", async () => {
    const pairs = [1, 2, 3].map((n) => ({ prompt: `n ${n} ->`, completion: ` m ${n}` }));
    const pairSet = await open({ train: write(pairs), mode: "padded", order: "sequential" });
    expect(pairSet.report).toMatchObject({
      format: "prompt-completion",
      mode: "padded",
      train: { records: 3, rows: 3 },
    });
    expect(trainedTexts(pairSet.train)).toEqual([" m 1<|end|>", " m 2<|end|>", " m 3<|end|>"]);
    const texts = await open({ train: write([{ text: "xyz" }, { text: " " }, { text: "" }, { text: "xyz" }]) });
    expect(trainedTexts(texts.train)).toEqual(["yz<|end|>", "yz<|end|>"]);
    expect(texts.report).toMatchObject({
      mode: "packed",
      empty: 2,
      duplicates: 1,
      train: { rows: 1, trainedTokens: 6 },
    });
    expect(texts.report.notices.join("\n")).toMatch(/2 empty records[^]*1 records repeat/);
  });

  it("trains on what the assistant says, from any chat format", async () => {
    const expected = chats.map((_, index) => `So: ${index}<|end|>`).sort();
    const template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}";
    const shareGpt = chats.map(({ messages }) => ({
      conversations: messages.map((message) => ({
        from: message.role === "user" ? "human" : "gpt",
        value: message.content,
      })),
    }));
    const alpaca = chats.map(({ messages }) => ({
      instruction: messages[0]?.content,
      output: messages[1]?.content,
      id: 3,
    }));
    for (const lines of [chats, shareGpt, alpaca]) {
      const set = await open({ train: write(lines), chatTemplate: template });
      expect(trainedTexts(set.train).map((text) => text.replace(/^assistant: /, "").replace(/^ /, ""))).toEqual(
        expected,
      );
    }
    const ignored = await open({ train: write(alpaca), chatTemplate: template, trainOn: "all" });
    expect(ignored.report.notices).toContain("Fields that are not used: id.");
    expect(trainedTexts(ignored.train)[0]).toContain("assistant: So");
  });

  it("reads Parquet and several files", async () => {
    const set = await open({ train: [fixture("messages.parquet"), write(chats)] });
    expect(set.report.files.map((file) => file.records)).toEqual([7, 20]);
    expect(set.report.train.records).toBe(27);
    const text = await open({ train: fixture("text-zstd.parquet") });
    expect(trainedTexts(text.train)).toHaveLength(5);
  });

  it("streams text files as windows in which every token is learnt once", async () => {
    const first = "Call me Ishmael. Some years ago, never mind how long precisely. ".repeat(20);
    const set = await open({
      train: [write(first, "txt"), write("A short one", "txt")],
      order: "sequential",
      batch: 1,
    });
    const ids = [...tokenizer.encode(first), 1, ...tokenizer.encode("A short one"), 1];
    expect(set.report).toMatchObject({
      format: "plain text",
      mode: "stream",
      train: { tokens: ids.length, records: 2 },
    });
    expect(set.report.train.trainedTokens).toBe(ids.length - 2);
    const seen = Array.from({ length: set.train.batchesPerEpoch }, (_, step) =>
      Array.from(set.train.batch(step).ids),
    ).flat();
    expect(seen.slice(0, ids.length)).toEqual(ids);
  });

  it("splits text at blank lines where asked to", async () => {
    const text = "\n\nOne\nstill one\n\n \n\nTwo\r\n\r\nThree\n";
    const set = await open({ train: write(text, "txt"), documents: "blank-lines", mode: "padded", overlong: "split" });
    expect(trainedTexts(set.train)).toEqual(["hree<|end|>", "ne\nstill one<|end|>", "wo<|end|>"]);
  });

  it("holds out records that are never trained, the same for every seed", async () => {
    const train = write([...chats, ...chats.slice(0, 5)]);
    const sets = await Promise.all([1, 2].map((seed) => open({ train, holdout: 0.25, seed, mode: "padded" })));
    const [one, two] = sets.map((set) => [
      trainedTexts(set.train),
      set.holdout === undefined ? [] : trainedTexts(set.holdout),
    ]);
    expect(one).toEqual(two);
    const [trained = [], held = []] = one ?? [];
    expect(trained.length + held.length).toBe(25);
    expect(held.length).toBeGreaterThanOrEqual(6);
    expect(held.filter((text) => trained.includes(text))).toEqual([]);
  });

  it("holds out a file of its own, and says what both have in common", async () => {
    const set = await open({ train: write(chats), holdout: write(chats.slice(0, 3)), mode: "padded" });
    expect(set.holdout?.rowsPerEpoch).toBe(3);
    expect(set.report.notices).toContain("3 training records also occur in the held-out data.");
  });

  it("holds out the end of a text", async () => {
    const text = Array.from({ length: 300 }, (_, index) => `word${index}`).join(" ");
    const set = await open({ train: write(text, "txt"), holdout: 0.2, order: "sequential", sequence: 16 });
    const { train, holdout } = set.report;
    expect((holdout?.tokens ?? 0) / (train.tokens + (holdout?.tokens ?? 0))).toBeCloseTo(0.2, 1);
    expect(train.tokens % 16).toBe(0);
    await expect(open({ train: write("a b", "txt"), holdout: 0.5 })).rejects.toMatchObject({ code: "data-holdout" });
    await expect(open({ train: write(chats), holdout: 1.5 })).rejects.toMatchObject({ code: "data-holdout" });
    await expect(open({ train: write([chats[0], chats[0]]), holdout: 0.5 })).rejects.toMatchObject({
      code: "data-holdout",
    });
  });

  it("reports what is too long", async () => {
    const long = { text: "Call me Ishmael. ".repeat(50) };
    const split = await open({ train: write([long, { text: "short one" }]) });
    expect(split.report.train.packing).toMatchObject({ split: 1, truncated: 0, tokensLost: 0 });
    const pair = { prompt: "a", completion: long.text };
    const cut = await open({ train: write([pair]) });
    expect(cut.report.train.packing?.truncated).toBe(1);
    expect(cut.report.notices.join()).toContain("were cut off");
  });

  it("refuses data in which nothing is trained", async () => {
    const silent = chats.map(({ messages }) => ({ messages: messages.slice(0, 1) }));
    await expect(open({ train: write(silent) })).rejects.toMatchObject({ code: "data-no-trained-token" });
    await expect(open({ train: write("", "txt") })).rejects.toMatchObject({ code: "data-no-trained-token" });
    await expect(open({ train: write([]) })).rejects.toMatchObject({ code: "data-no-trained-token" });
    const hidden = [{ prompt: "p ".repeat(200), completion: "c" }];
    await expect(open({ train: write(hidden) })).rejects.toMatchObject({ code: "data-no-trained-token" });
  });

  it.each([
    ["data-mixed-formats", [{ text: "a" }, { prompt: "a", completion: "b" }], 2],
    ["data-unknown-format", [{ content: "a" }], 1],
    ["data-unknown-format", [{ text: "a" }, { text: "b" }, { other: "a" }], 3],
    ["data-record", [{ text: "a" }, { text: 7 }], 2],
  ])("names the line of a record that does not fit (%s)", async (code, lines, line) => {
    const train = write(lines);
    await expect(open({ train })).rejects.toMatchObject({ code, where: `${train}:${line}` });
  });

  it("names the line of a conversation that the template refuses", async () => {
    const train = write(chats);
    const chatTemplate =
      "{% if messages[0].content == 'Say 4' %}{{ raise_exception('no') }}{% endif %}{{ messages[1].content }}<|end|>";
    const opening = open({ train, chatTemplate });
    await expect(opening).rejects.toMatchObject({ code: "chat-template-failed", where: `${train}:5` });
  });

  it("refuses to mix token files and text, and text without tokenizer", async () => {
    await expect(open({ train: ["tokens:a", "b.txt"] })).rejects.toMatchObject({ code: "data-usage" });
    const noTokenizer = openDataset({ train: write("a", "txt"), sequence: 8, batch: 1, seed: 1 });
    await expect(noTokenizer).rejects.toMatchObject({ code: "data-usage" });
    const both = open({ train: [write("a", "txt"), write(chats)] });
    await expect(both).rejects.toMatchObject({ code: "data-mixed-formats" });
  });
});

describe("the cache", () => {
  function caches(directory: string): string[] {
    return readdirSync(directory).map((name) => join(directory, name));
  }

  it("is used again, and made again when the data, the template or the tokenizer change", async () => {
    const directory = join(folder, "cache-use");
    const train = write(chats);
    let reads = 0;
    const use = (options: Partial<DataOptions> = {}): Promise<Dataset> =>
      open({ train, cacheDirectory: directory, onProgress: () => reads++, ...options });
    const first = await use();
    expect(trainedTexts((await use()).train)).toEqual(trainedTexts(first.train));
    expect(caches(directory)).toHaveLength(1);
    await use({ seed: 2, sequence: 32, mode: "padded" });
    expect(caches(directory)).toHaveLength(1);
    await use({ trainOn: "all" });
    await use({ chatTemplate: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}" });
    writeFileSync(train, JSON.stringify(chats[0]));
    await use();
    expect(caches(directory)).toHaveLength(4);
    // A thousand records between two tellings, so none of these small files tells.
    expect(reads).toBe(0);
  });

  it.each(["ids.bin", "weights.bin", "records.bin", "cache.json"])("notices a damaged %s", async (name) => {
    const directory = join(folder, `cache-${name}`);
    const train = write(chats);
    const whole = trainedTexts((await open({ train, cacheDirectory: directory })).train);
    const [cache = ""] = caches(directory);
    const damages = [
      (path: string) => {
        truncateSync(path, readFileSync(path).length - 1);
      },
      (path: string) => {
        const bytes = readFileSync(path);
        bytes[bytes.length >>> 1] = (bytes[bytes.length >>> 1] ?? 0) ^ 4;
        writeFileSync(path, bytes);
      },
      (path: string) => {
        rmSync(path);
      },
      (path: string) => {
        writeFileSync(path, "");
      },
    ];
    for (const damage of damages) {
      damage(join(cache, name));
      const again = await open({ train, cacheDirectory: directory });
      expect(trainedTexts(again.train)).toEqual(whole);
      expect(again.report.notices.join()).toContain("has been made again");
    }
    expect(caches(directory)).toEqual([cache]);
  });

  it("is not left behind by a record that fails", async () => {
    const directory = join(folder, "cache-fail");
    await expect(open({ train: write([{ text: "a" }, { no: 1 }]), cacheDirectory: directory })).rejects.toThrow();
    expect(caches(directory)).toEqual([]);
  });

  /** Runs the reader in a process of its own on a text of `megabytes` and gives what it prints. */
  function reader(name: string, megabytes: number): ReturnType<typeof spawn> {
    const script = join(folder, `${name}.mts`);
    const sources = fileURLToPath(new URL(".", import.meta.url));
    writeFileSync(
      script,
      `import { openDataset } from ${JSON.stringify(join(sources, "dataset.ts"))};
       import { createTokenizer } from ${JSON.stringify(join(sources, "tokenizer.ts"))};
       const word = " " + "antidisestablishmentarianism".repeat(2);
       const vocab = { "<end>": 0 };
       for (let i = 33; i < 127; i++) vocab[String.fromCharCode(i)] = i - 32;
       vocab["\\u0120"] = 95; vocab["\\u010a"] = 96; vocab["\\u0120" + word.slice(1)] = 97;
       const json = { added_tokens: [], normalizer: null, post_processor: null, decoder: { type: "ByteLevel" },
         pre_tokenizer: { type: "ByteLevel", add_prefix_space: false },
         model: { type: "BPE", ignore_merges: true, vocab, merges: [] } };
       const tokenizer = createTokenizer(json, { where: "test", special: {}, fingerprint: "test" });
       const { mkdirSync, writeFileSync, openSync, writeSync, closeSync } = await import("node:fs");
       const path = ${JSON.stringify(join(folder, name))};
       const line = word.repeat(100) + "\\n";
       const open = (train) => openDataset({ train, sequence: 64, batch: 2, seed: 1, cacheDirectory: path + "-cache" }, tokenizer);
       writeFileSync(path + "-small.txt", line.repeat(200));
       (await open(path + "-small.txt")).close();
       const file = openSync(path + ".txt", "w");
       const block = Buffer.from(line.repeat(100));
       let bytes = 0;
       for (; bytes < ${megabytes} * 2 ** 20; bytes += block.length) writeSync(file, block);
       closeSync(file);
       const before = process.resourceUsage().maxRSS;
       console.log("start");
       const dataset = await open(path + ".txt");
       console.log(JSON.stringify({ grown: (process.resourceUsage().maxRSS - before) / 1024, bytes, report: dataset.report.train }));`,
    );
    return spawn(process.execPath, ["--max-old-space-size=40", "--max-semi-space-size=2", "--import", "tsx", script], {
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  function output(child: ReturnType<typeof spawn>, until?: RegExp): Promise<string> {
    return new Promise((resolve) => {
      let text = "";
      const take = (chunk: Buffer): void => {
        text += chunk.toString();
        if (until?.test(text) === true) resolve(text);
      };
      child.stdout?.on("data", take);
      child.stderr?.on("data", take);
      child.on("close", () => {
        resolve(text);
      });
    });
  }

  it("is made of a text of 50 MB in bounded memory", async () => {
    const text = await output(reader("large", 50));
    const json = /^\{.*\}$/m.exec(text)?.[0];
    expect(json, text).toBeDefined();
    const { grown, bytes, report } = JSON.parse(json ?? "{}") as {
      grown: number;
      bytes: number;
      report: { tokens: number };
    };
    // A word of 57 bytes is a token, and so is the end of a line of 100 words.
    expect(report.tokens).toBe((bytes / 5701) * 101);
    console.log(grown);
    expect(grown).toBeLessThan(48);
  });

  it("survives a kill: nothing broken is left, and the next run cleans up", async () => {
    const child = reader("killed", 12);
    await output(child, /start/);
    const directory = join(folder, "killed-cache");
    while (!readdirSync(directory).some((name) => name.endsWith(".tmp")))
      await new Promise((resolve) => setTimeout(resolve, 5));
    const closed = output(child);
    child.kill("SIGKILL");
    await closed;
    const left = readdirSync(directory).filter((name) => name.endsWith(".tmp"));
    expect(left).toHaveLength(1);
    expect(existsSync(join(directory, left[0] ?? "", "cache.json"))).toBe(false);
    await output(reader("killed", 12));
    expect(readdirSync(directory).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    expect(readdirSync(directory)).toHaveLength(2);
  });
});

describe("inspection", () => {
  it("shows lengths, rows and which tokens are trained", async () => {
    const lines = [
      { prompt: "ab", completion: "cd" },
      { prompt: "a\u001b[31m\n", completion: "longer than before" },
    ];
    const set = await open({ train: write(lines), order: "sequential" });
    const inspection = inspectDataset(set, tokenizer, 5);
    expect(inspection.histogram.reduce((sum, bucket) => sum + bucket.records, 0)).toBe(2);
    expect(inspection.rows).toHaveLength(1);
    const [row] = inspection.rows;
    const trained = row?.tokens.filter((token) => token.weight > 0).map((token) => token.text);
    expect(trained?.join("")).toBe("longer than before<|end|>cd<|end|>");
    expect(row?.tokens.filter((token) => token.startsPiece)).toHaveLength(2);
    expect((row?.tokens.length ?? 0) + (row?.padding ?? 0)).toBe(64);
    const plain = renderInspection(inspection, picocolors.createColors(false));
    expect(plain).toContain("prompt-completion");
    expect(plain).toContain("┃a\\u{1b}[31m↵\nlonger than before<|end|>┃abcd<|end|>");
    expect(plain).not.toContain("\u001b");
    const coloured = renderInspection(inspection, picocolors.createColors(true));
    expect(coloured).toContain(picocolors.createColors(true).green("<|end|>"));
  });

  it("shows ids where there is no tokenizer", async () => {
    writeFileSync(
      join(folder, "ids.u16"),
      Uint16Array.from({ length: 130 }, (_, index) => index),
    );
    const set = await open({ train: `tokens:${join(folder, "ids.u16")}` });
    expect(set.report.notices).toContain("The last 2 tokens do not fill a row and are not used.");
    const [row] = inspectDataset(set, undefined, 1).rows;
    expect(row?.tokens.slice(0, 2)).toEqual([
      { id: 0, text: " 0", weight: 0, startsPiece: true },
      { id: 1, text: " 1", weight: 1, startsPiece: false },
    ]);
  });
});
