import { describe, expect, it } from "vitest";
import { openDataset } from "./dataset.js";
import { chats, fixture, open, tokenizer, trainedTexts, write } from "../testing/open-dataset.js";

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
