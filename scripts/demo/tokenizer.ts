/**
 * Trains the demo's byte-level BPE tokenizer and writes it as tokenizer.json.
 *
 *   npx tsx scripts/demo/tokenizer.ts TEXT FOLDER [SIZE]
 *
 * The algorithm is that of Sennrich et al. (ACL 2016) over GPT-2's words and bytes: again and again, the pair of
 * neighbouring tokens that occurs most often in the text's words becomes one token.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { wordPatterns } from "../../src/data/gguf-word-patterns.js";
import { must } from "../../src/errors.js";

const endOfText = "<|endoftext|>";

/** GPT-2's printable stand-ins for the 256 bytes: Latin-1's visible characters as they are, the others from U+0100 on. */
function byteCharacters(): readonly string[] {
  const visible = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(visible(byte) ? byte : next++));
}

interface Word {
  tokens: string[];
  readonly count: number;
}

function wordsOf(text: string, characters: readonly string[]): Word[] {
  const pattern = must(wordPatterns("gpt-2")?.patterns[0], "GPT-2's word pattern");
  const counts = new Map<string, number>();
  for (const [word] of text.matchAll(new RegExp(pattern, "gu"))) counts.set(word, (counts.get(word) ?? 0) + 1);
  const spell = (word: string): string[] =>
    Array.from(new TextEncoder().encode(word), (byte) => must(characters[byte], "a byte's character"));
  return Array.from(counts, ([word, count]) => ({ tokens: spell(word), count }));
}

/** The most frequent pair of neighbours; of equal ones the first in code-unit order, so that the result is one. */
function bestPair(words: readonly Word[]): [string, string] {
  const counts = new Map<string, number>();
  for (const { tokens, count } of words) {
    for (let place = 1; place < tokens.length; place++) {
      const pair = `${tokens[place - 1] ?? ""} ${tokens[place] ?? ""}`;
      counts.set(pair, (counts.get(pair) ?? 0) + count);
    }
  }
  let [best, most] = ["", 0];
  for (const [pair, count] of counts) if (count > most || (count === most && pair < best)) [best, most] = [pair, count];
  const [left, right] = best.split(" ");
  return [must(left, "a pair to merge"), must(right, "a pair to merge")];
}

function merge(word: Word, left: string, right: string): void {
  const merged: string[] = [];
  const { tokens } = word;
  for (let place = 0; place < tokens.length; place++) {
    const joins = tokens[place] === left && tokens[place + 1] === right;
    merged.push(joins ? left + right : (tokens[place] ?? ""));
    if (joins) place++;
  }
  word.tokens = merged;
}

/** A tokenizer.json with `size` tokens: the end of a text, the bytes, and merges of the text's words. */
export function trainTokenizer(text: string, size: number): Record<string, unknown> {
  const characters = byteCharacters();
  let words = wordsOf(text, characters);
  const tokens = [endOfText, ...characters];
  const merges: [string, string][] = [];
  while (tokens.length < size) {
    const [left, right] = bestPair(words);
    for (const word of words) if (word.tokens.includes(left)) merge(word, left, right);
    words = words.filter((word) => word.tokens.length > 1);
    merges.push([left, right]);
    tokens.push(left + right);
  }
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [{ id: 0, content: endOfText, ...flags }],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [, , textPath, folder, size = "2048"] = process.argv;
  const text = await readFile(must(textPath, "the text's path"), "utf8");
  const target = must(folder, "the folder to write to");
  await writeFile(join(target, "tokenizer.json"), JSON.stringify(trainTokenizer(text, Number(size))));
  const config = { tokenizer_class: "PreTrainedTokenizerFast", bos_token: endOfText, eos_token: endOfText };
  await writeFile(join(target, "tokenizer_config.json"), `${JSON.stringify(config, null, 2)}\n`);
}
