import { ThimbleError } from "../errors.js";
import { asArray, asCount, asObject, asString } from "./json.js";
import type { JsonObject } from "./json.js";
import { brokenTokenizer } from "./tokenizer-json.js";
import type { TokenizerJson } from "./tokenizer-json.js";

/** GPT-2's word pattern, which `ByteLevel` applies by itself unless told not to. */
export const gpt2Pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const punctuation = "[\\p{P}!-/:-@\\[-`{-~]";

/**
 * Rewrites a tokenizer.json so that the JavaScript library computes what the Rust library computes.
 *
 * The JavaScript library (0.2) treats some parts more loosely than the original: it ignores `Metaspace.split`, joins
 * runs of punctuation, reads `\s`, `\w` and `\d` of built-in patterns as JavaScript does, and knows only two of the
 * five `Split` behaviours. Each of these can be said exactly with a `Split` on a regular expression.
 */
export function adaptToLibrary(json: TokenizerJson, where: string): { json: TokenizerJson; notices: string[] } {
  checkModel(json.model, where);
  for (const part of [json.normalizer, json.decoder]) checkPatterns(part, where);
  const notices: string[] = [];
  if (uses(json.normalizer, "Precompiled")) {
    notices.push("The tokenizer's precompiled character map is applied as Unicode NFKC; rare characters may differ.");
  }
  if (json.added_tokens.some((token) => token.single_word)) {
    notices.push("Added tokens marked single_word are matched inside words too.");
  }
  const pre = json.pre_tokenizer === null ? null : rewrite(json.pre_tokenizer, json, where);
  return { json: { ...json, pre_tokenizer: pre, decoder: adaptDecoder(json.decoder) }, notices };
}

/** The library's Metaspace decoder always drops a leading space; without a prepended mark it has to stay. */
function adaptDecoder(decoder: JsonObject | null): JsonObject | null {
  if (decoder?.["type"] !== "Metaspace") return decoder;
  const keeps = decoder["prepend_scheme"] === "never" || decoder["add_prefix_space"] === false;
  const replacement = asString(decoder["replacement"]) ?? "▁";
  return keeps ? { type: "Replace", pattern: { String: replacement }, content: " " } : decoder;
}

/** Whether a component or one nested in it (`normalizers`, `pretokenizers`, `decoders`) is of the given type. */
export function uses(component: JsonObject | null, type: string): boolean {
  return find(component, type) !== undefined;
}

/** The first component of the given type, searched through `Sequence`s. */
export function find(component: JsonObject | null, type: string): JsonObject | undefined {
  if (component === null) return undefined;
  if (component["type"] === type) return component;
  const nested = component["normalizers"] ?? component["pretokenizers"] ?? component["decoders"];
  for (const part of asArray(nested) ?? []) {
    const found = find(asObject(part) ?? null, type);
    if (found !== undefined) return found;
  }
  return undefined;
}

function checkModel(model: JsonObject, where: string): void {
  const prefix = asString(model["continuing_subword_prefix"]);
  if (model["type"] === "BPE" && prefix !== undefined && prefix !== "") {
    throw unsupported(where, `BPE with the continuing-subword prefix ${JSON.stringify(prefix)}`);
  }
}

/** A `Replace` without a pattern would be passed over in silence. */
function checkPatterns(part: JsonObject | null, where: string): void {
  if (part === null) return;
  const pattern = asObject(part["pattern"]);
  if (part["type"] === "Replace" && asString(pattern?.["String"] ?? pattern?.["Regex"]) === undefined) {
    throw brokenTokenizer(where, "a Replace has no pattern");
  }
  const nested = asArray(part["normalizers"] ?? part["decoders"]) ?? [];
  for (const entry of nested) checkPatterns(asObject(entry) ?? null, where);
}

function unsupported(where: string, what: string): ThimbleError {
  return new ThimbleError("tokenizer-unsupported", `The tokenizer uses a part that is not supported: ${what}`, {
    where,
    given: what,
    fix: "Tokenise the data elsewhere and train on raw ids (tokens:FILE).",
  });
}

function rewrite(part: JsonObject, json: TokenizerJson, where: string): JsonObject {
  switch (part["type"]) {
    case "Sequence": {
      const parts = (asArray(part["pretokenizers"]) ?? []).map((entry) => {
        const object = asObject(entry);
        if (object === undefined) throw brokenTokenizer(where, "a pre-tokenizer is not an object");
        return rewrite(object, json, where);
      });
      return sequence(...parts);
    }
    case "ByteLevel":
      return byteLevel(part);
    case "Whitespace":
      return matches("\\w+|[^\\w\\s]+");
    case "WhitespaceSplit":
      return matches("\\S+");
    case "Digits":
      return isolated(part["individual_digits"] === true ? "\\p{N}" : "\\p{N}+");
    case "Punctuation":
      return split(punctuation, asString(part["behavior"]) ?? "Isolated", false, where);
    case "Metaspace":
      return metaspace(part, where);
    case "Split":
      return rewriteSplit(part, json, where);
    case "FixedLength":
      if ((asCount(part["length"]) ?? 0) < 1) throw brokenTokenizer(where, "FixedLength needs a length above 0");
      return part;
    default:
      return part;
  }
}

function byteLevel(part: JsonObject): JsonObject {
  // With a prefix space the order matters (space first, then the pattern), so that rare case stays as it is.
  if (part["use_regex"] === false || part["add_prefix_space"] === true) return part;
  return sequence(matches(gpt2Pattern), { ...part, use_regex: false });
}

function metaspace(part: JsonObject, where: string): JsonObject {
  const legacy = part["add_prefix_space"] === false ? "never" : "always";
  const scheme = asString(part["prepend_scheme"]) ?? legacy;
  const replacement = asString(part["replacement"]) ?? "▁";
  const marked = { ...part, prepend_scheme: scheme, replacement };
  if (part["split"] === false) return marked;
  return sequence(marked, split(escapePattern(replacement), "MergedWithNext", false, where));
}

function rewriteSplit(part: JsonObject, json: TokenizerJson, where: string): JsonObject {
  const pattern = asObject(part["pattern"]) ?? {};
  const literal = asString(pattern["String"]);
  const expression = asString(pattern["Regex"]) ?? (literal === undefined ? undefined : escapePattern(literal));
  if (expression === undefined) throw brokenTokenizer(where, "a Split pre-tokenizer has no pattern");
  if (literal === " " && replacesSpaces(json.normalizer)) return sequence();
  return split(expression, asString(part["behavior"]) ?? "Removed", part["invert"] === true, where);
}

/** Whether the normalizer turns every space into something else, so that no space is left to split on. */
function replacesSpaces(normalizer: JsonObject | null): boolean {
  const replace = find(normalizer, "Replace");
  return asObject(replace?.["pattern"])?.["String"] === " " && asString(replace?.["content"])?.includes(" ") === false;
}

/** The library's `Split` for any behaviour of the original; see huggingface/tokenizers `SplitDelimiterBehavior`. */
function split(pattern: string, behavior: string, invert: boolean, where: string): JsonObject {
  const unit = `(?:${pattern})`;
  switch (behavior) {
    case "Isolated":
      return isolated(pattern);
    case "Removed":
      return { type: "Split", pattern: { Regex: pattern }, behavior: "Removed", invert };
    case "Contiguous":
      if (!invert) return isolated(`${unit}+`);
      break;
    case "MergedWithPrevious":
      if (!invert) return matches(`[\\s\\S]*?${unit}|[\\s\\S]+`);
      break;
    case "MergedWithNext":
      if (!invert) return matches(`${unit}(?:(?!${unit})[\\s\\S])*|(?:(?!${unit})[\\s\\S])+`);
      break;
  }
  throw unsupported(where, `Split with behaviour ${behavior}${invert ? " inverted" : ""}`);
}

function sequence(...pretokenizers: readonly JsonObject[]): JsonObject {
  return { type: "Sequence", pretokenizers };
}

/** Keeps the matches and what lies between them, each as its own piece. */
function isolated(pattern: string): JsonObject {
  return { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
}

/** Keeps only the matches. */
function matches(pattern: string): JsonObject {
  return { type: "Split", pattern: { Regex: pattern }, behavior: "Removed", invert: true };
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
