import { createHash } from "node:crypto";
import { knownWordPatterns, wordPatterns } from "./gguf-word-patterns.js";
import { GgufTokenizerMetadata, tokenType } from "./gguf-tokenizer-metadata.js";
import type { MetadataInput } from "./gguf-tokenizer-metadata.js";
import type { JsonObject } from "./json.js";
import { framePostProcessor } from "./tokenizer-folder.js";
import { createTokenizer } from "./tokenizer.js";
import type { SpecialTokens, Tokenizer } from "./tokenizer.js";

/**
 * Builds the tokenizer that a GGUF file carries in its metadata (`tokenizer.ggml.*`, `tokenizer.chat_template`).
 * Supported models: `gpt2` (byte-level BPE), `llama` (SentencePiece BPE from scores), `bert` (WordPiece).
 * Throws `gguf-tokenizer` for missing or inconsistent metadata and for models that are not supported.
 */
export function loadTokenizerGguf(metadata: MetadataInput, where: string): Tokenizer {
  const data = new GgufTokenizerMetadata(metadata, where);
  const { json, notices } = build(data);
  const fingerprint = createHash("sha256").update(JSON.stringify(json)).digest("hex");
  const special = specialTokens(data);
  return createTokenizer(json, {
    where,
    special,
    chatTemplate: data.text("tokenizer.chat_template"),
    fingerprint,
    notices,
  });
}

function build(data: GgufTokenizerMetadata): { json: JsonObject; notices: string[] } {
  switch (data.model) {
    case "gpt2":
      return buildByteLevel(data);
    case "llama":
      return { json: buildSentencePiece(data), notices: [] };
    case "bert":
      return { json: buildWordPiece(data), notices: [] };
    default:
      throw data.error("its tokenizer model is not supported", data.model, "gpt2, llama or bert");
  }
}

function specialTokens(data: GgufTokenizerMetadata): SpecialTokens {
  const [bos, eos, eot] = [data.id("bos"), data.id("eos"), data.id("eot")];
  const [pad, unknown] = [data.id("padding"), data.id("unknown")];
  const ends = eot === undefined || eot === eos ? eos : eos === undefined ? eot : [eos, eot];
  return {
    ...(bos === undefined ? {} : { bos }),
    ...(ends === undefined ? {} : { eos: ends }),
    ...(pad === undefined ? {} : { pad }),
    ...(unknown === undefined ? {} : { unknown }),
  };
}

function buildByteLevel(data: GgufTokenizerMetadata): { json: JsonObject; notices: string[] } {
  const name = data.text("tokenizer.ggml.pre") ?? "default";
  const words = wordPatterns(name);
  if (words === undefined) {
    throw data.error("its pre-tokenizer is not known", name, knownWordPatterns().join(", "));
  }
  const splits = words.patterns.map((Regex) => ({
    type: "Split",
    pattern: { Regex },
    behavior: "Isolated",
    invert: false,
  }));
  const byteLevel = { type: "ByteLevel", add_prefix_space: data.flag("add_space_prefix") ?? false, use_regex: false };
  const json = {
    added_tokens: data.addedTokens(),
    normalizer: words.normalization === undefined ? null : { type: words.normalization },
    pre_tokenizer: { type: "Sequence", pretokenizers: [...splits, byteLevel] },
    post_processor: frame(data, words.addBos ?? false, false),
    decoder: { type: "ByteLevel", add_prefix_space: true, use_regex: true },
    model: { type: "BPE", ignore_merges: words.ignoreMerges ?? false, vocab: data.vocabulary(), merges: data.merges() },
  };
  const guessed = data.text("tokenizer.ggml.pre") === undefined;
  return {
    json,
    notices: guessed ? ["The GGUF file does not name its pre-tokenizer; ids may differ from the model's own."] : [],
  };
}

/**
 * SentencePiece BPE joins the neighbours whose joined text has the best score, so each way to halve a token is a
 * merge, ranked by the token's score (as transformers converts such models).
 */
function buildSentencePiece(data: GgufTokenizerMetadata): JsonObject {
  const prefix = data.flag("add_space_prefix") ?? true;
  const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const normalizers = prefix ? [{ type: "Prepend", prepend: "▁" }, replace] : [replace];
  const back = { type: "Replace", pattern: { String: "▁" }, content: " " };
  const strip = prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : [];
  const unknown = data.id("unknown");
  return {
    added_tokens: data.addedTokens(),
    normalizer: { type: "Sequence", normalizers },
    pre_tokenizer: null,
    post_processor: frame(data, true, false),
    decoder: { type: "Sequence", decoders: [back, { type: "ByteFallback" }, { type: "Fuse" }, ...strip] },
    model: {
      type: "BPE",
      unk_token: unknown === undefined ? null : data.tokens[unknown],
      fuse_unk: true,
      byte_fallback: true,
      vocab: data.vocabulary(),
      merges: mergesFromScores(data),
    },
  };
}

function mergesFromScores(data: GgufTokenizerMetadata): [string, string][] {
  const scores = data.scores();
  const ids = new Map(data.tokens.map((token, id) => [token, id]));
  const merges: { pair: [string, string]; score: number; left: number; right: number }[] = [];
  data.tokens.forEach((token, id) => {
    const type = data.types[id];
    if (type === tokenType.control || type === tokenType.unknown || type === tokenType.byte) return;
    const characters = Array.from(token);
    for (let cut = 1; cut < characters.length; cut++) {
      const pair: [string, string] = [characters.slice(0, cut).join(""), characters.slice(cut).join("")];
      const [left, right] = [ids.get(pair[0]), ids.get(pair[1])];
      if (left !== undefined && right !== undefined) merges.push({ pair, score: scores[id] ?? 0, left, right });
    }
  });
  merges.sort((a, b) => b.score - a.score || a.left - b.left || a.right - b.right);
  return merges.map((merge) => merge.pair);
}

/** The vocabulary is stored with `▁` at word starts in place of `##` inside words; this turns it back. */
function buildWordPiece(data: GgufTokenizerMetadata): JsonObject {
  const restore = (token: string, id: number): string => {
    if (data.types[id] === tokenType.control || /^\[.*\]$/.test(token)) return token;
    return token.startsWith("▁") ? token.slice(1) : `##${token}`;
  };
  const tokens = data.tokens.map(restore);
  const hasUpperCase = data.tokens.some((token, id) => data.types[id] === tokenType.normal && /^▁\p{Lu}/u.test(token));
  const lowercase = data.flag("normalizer.lowercase") ?? !hasUpperCase;
  const unknown = data.id("unknown") ?? tokens.indexOf("[UNK]");
  return {
    added_tokens: data.addedTokens(),
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: frame(data, true, true),
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: tokens[unknown] ?? null,
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: data.vocabulary(tokens),
    },
  };
}

/** What stands before and after a text. BERT calls them CLS (stored as BOS or CLS) and SEP. */
function frame(data: GgufTokenizerMetadata, bosByDefault: boolean, separatorByDefault: boolean): JsonObject {
  const first = (data.flag("add_bos_token") ?? bosByDefault) ? (data.id("bos") ?? data.id("cls")) : undefined;
  const separator =
    (data.flag("add_sep_token") ?? separatorByDefault) ? (data.id("seperator") ?? data.id("separator")) : undefined;
  const last = separator ?? (data.flag("add_eos_token") === true ? data.id("eos") : undefined);
  const text = (id: number | undefined): string | undefined => (id === undefined ? undefined : data.tokens[id]);
  return framePostProcessor(text(first), text(last));
}

export type { MetadataInput } from "./gguf-tokenizer-metadata.js";
