/** A tokenizer.json as the keys `tokenizer.ggml.*` of a GGUF file, as llama.cpp's converter writes them. */
import { knownWordPatterns, wordPatterns } from "../../data/gguf-word-patterns.js";
import { tokenType } from "../../data/gguf-tokenizer-metadata.js";
import { asArray, asObject, asString } from "../../data/json.js";
import type { JsonObject } from "../../data/json.js";
import { endIds } from "../../data/tokenizer.js";
import type { Tokenizer } from "../../data/tokenizer.js";
import { must, ThimbleError } from "../../errors.js";
import type { GgufValue } from "../../io/gguf-metadata.js";
import { bool, text, u32 } from "./gguf-settings.js";

function unsupported(given: string, where: string): ThimbleError {
  return new ThimbleError("export-tokenizer", "The tokenizer cannot be written to a GGUF file", {
    where,
    given,
    expected: "byte-level BPE with a pre-tokenizer that llama.cpp knows, or SentencePiece-style BPE",
    fix: "Export the merged model as safetensors, and convert it with llama.cpp.",
  });
}

/** `rows` is the size of the model's vocabulary: ids without a token become unused ones. */
export function tokenizerSettings(
  json: JsonObject,
  tokenizer: Tokenizer,
  rows: number,
  where: string,
): Map<string, GgufValue> {
  const model = asObject(json["model"]) ?? {};
  if (model["type"] !== "BPE") throw unsupported(`a ${String(model["type"])} model`, where);
  const vocabulary = new Vocabulary(json, model, rows);
  const sentencePiece = model["byte_fallback"] === true;
  const own = sentencePiece ? sentencePieceKeys(json, model, vocabulary) : byteLevelKeys(json, model, where);
  const { bos, pad, unknown } = tokenizer.special;
  const [eos, turnEnd] = endIds(tokenizer.special);
  const id = (name: string, value: number | undefined): [string, GgufValue][] =>
    value === undefined ? [] : [[`${name}_token_id`, u32(value)]];
  const keys: [string, GgufValue][] = [
    ["model", text(sentencePiece ? "llama" : "gpt2")],
    ["tokens", { type: "array", of: "string", value: vocabulary.tokens }],
    ["token_type", { type: "array", of: "i32", value: vocabulary.types(sentencePiece) }],
    ...own,
    ...id("bos", bos),
    ...id("eos", eos),
    ...id("eot", turnEnd),
    ...id("unknown", unknown),
    ...id("padding", pad),
    ["add_bos_token", bool(tokenizer.addBos)],
    ["add_eos_token", bool(tokenizer.addEos)],
  ];
  const settings = new Map(keys.map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
  if (tokenizer.chatTemplate !== undefined) settings.set("tokenizer.chat_template", text(tokenizer.chatTemplate));
  return settings;
}

class Vocabulary {
  readonly tokens: string[];
  private readonly added = new Map<number, boolean>();
  private readonly known = new Set<number>();

  constructor(json: JsonObject, model: JsonObject, rows: number) {
    this.tokens = Array.from({ length: rows }, (_, id) => `[PAD${id}]`);
    const take = (token: string, id: unknown): void => {
      if (typeof id !== "number" || id >= rows) return;
      this.tokens[id] = token;
      this.known.add(id);
    };
    for (const [token, id] of Object.entries(asObject(model["vocab"]) ?? {})) take(token, id);
    for (const entry of asArray(json["added_tokens"]) ?? []) {
      const token = asObject(entry);
      const [content, id] = [asString(token?.["content"]), token?.["id"]];
      if (content === undefined || typeof id !== "number") continue;
      take(content, id);
      this.added.set(id, token?.["special"] === true);
    }
  }

  types(bytes: boolean): Int32Array {
    return Int32Array.from(this.tokens, (token, id) => {
      const special = this.added.get(id);
      if (!this.known.has(id)) return tokenType.unused;
      if (special !== undefined) return special ? tokenType.control : tokenType.userDefined;
      return bytes && /^<0x[0-9A-F]{2}>$/.test(token) ? tokenType.byte : tokenType.normal;
    });
  }
}

/** Merges as pairs; newer files have lists of two, older ones a text with a space between. */
function mergesOf(model: JsonObject): [string, string][] {
  return (asArray(model["merges"]) ?? []).map((merge) => {
    const pair = asArray(merge);
    if (pair !== undefined) return [String(pair[0]), String(pair[1])];
    const written = String(merge);
    const space = written.indexOf(" ", 1);
    return [written.slice(0, space), written.slice(space + 1)];
  });
}

function byteLevelKeys(json: JsonObject, model: JsonObject, where: string): [string, GgufValue][] {
  const pre = preTokenizerName(json, model, where);
  const merges = mergesOf(model).map((pair) => pair.map((part) => part.replaceAll(" ", "Ġ")).join(" "));
  return [
    ["pre", text(pre)],
    ["merges", { type: "array", of: "string", value: merges }],
    ["add_space_prefix", bool(false)],
  ];
}

/** Which of llama.cpp's pre-tokenizers splits words as this file does. */
function preTokenizerName(json: JsonObject, model: JsonObject, where: string): string {
  const patterns = splitPatterns(json["pre_tokenizer"], where);
  const normalization = asString(asObject(json["normalizer"])?.["type"]);
  const ignoreMerges = model["ignore_merges"] === true;
  const names = ["gpt-2", "smollm", "llama-bpe", "qwen2", ...knownWordPatterns()];
  const fits = (name: string, strict: boolean): boolean => {
    const known = must(wordPatterns(name), name);
    const same = JSON.stringify(known.patterns.map(plain)) === JSON.stringify(patterns.map(plain));
    return same && known.normalization === normalization && (!strict || (known.ignoreMerges ?? false) === ignoreMerges);
  };
  const found = names.find((name) => fits(name, true)) ?? names.find((name) => fits(name, false));
  if (found === undefined) throw unsupported(`word patterns ${patterns.join("  ")}`, where);
  return found;
}

/** Spellings of one pattern that differ in files. */
function plain(pattern: string): string {
  return pattern.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:[sdmt]|ll|ve|re)").replaceAll("[0-9]", "\\p{N}");
}

const gpt2Pattern = must(wordPatterns("gpt-2")?.patterns[0], "GPT-2's pattern");

function splitPatterns(value: unknown, where: string): string[] {
  const step = asObject(value) ?? {};
  switch (step["type"]) {
    case "Sequence":
      return (asArray(step["pretokenizers"]) ?? []).flatMap((inner) => splitPatterns(inner, where));
    case "ByteLevel":
      return step["use_regex"] === false ? [] : [gpt2Pattern];
    case "Digits":
      return [step["individual_digits"] === true ? "\\p{N}" : "\\p{N}+"];
    case "Split": {
      const pattern = asString(asObject(step["pattern"])?.["Regex"]);
      if (pattern !== undefined) return [pattern];
      throw unsupported("a split by fixed text", where);
    }
    default:
      throw unsupported(`a pre-tokenizer ${String(step["type"])}`, where);
  }
}

/** Scores from which llama.cpp makes the same merges: the earlier a token's first merge, the higher. */
function sentencePieceKeys(json: JsonObject, model: JsonObject, vocabulary: Vocabulary): [string, GgufValue][] {
  const ranks = new Map<string, number>();
  mergesOf(model).forEach(([left, right], rank) => {
    if (!ranks.has(left + right)) ranks.set(left + right, rank);
  });
  const scores = Float32Array.from(vocabulary.tokens, (token) => {
    const rank = ranks.get(token);
    return rank === undefined ? (Array.from(token).length > 1 ? -1e9 : 0) : -rank;
  });
  return [
    ["scores", { type: "array", of: "f32", value: scores }],
    ["add_space_prefix", bool(addsSpace(json))],
  ];
}

function addsSpace(json: JsonObject): boolean {
  const written = JSON.stringify([json["normalizer"], json["pre_tokenizer"]]);
  return written.includes('"Prepend"') || /"prepend_scheme":"(always|first)"/.test(written);
}
