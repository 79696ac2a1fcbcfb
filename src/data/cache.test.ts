import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import type { DataOptions, Dataset } from "./dataset.js";
import { chats, folder, open, trainedTexts, write } from "../testing/open-dataset.js";

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
