import { ThimbleError } from "../errors.js";
import { asArray, asBoolean, asCount, asObject, asString, kindOf } from "./json.js";
import type { JsonObject } from "./json.js";

/** A token matched in the raw text before the model sees it (`added_tokens` of tokenizer.json). */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly normalized: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly single_word: boolean;
}

/** A tokenizer.json whose outer shape has been checked. */
export interface TokenizerJson {
  readonly model: JsonObject;
  readonly normalizer: JsonObject | null;
  readonly pre_tokenizer: JsonObject | null;
  readonly post_processor: JsonObject | null;
  readonly decoder: JsonObject | null;
  readonly added_tokens: readonly AddedToken[];
}

/** Ids above this are taken for damage: no vocabulary is near it, and an id is an index into arrays. */
const largestId = 1 << 24;

const kinds: readonly string[] = ["BPE", "Unigram", "WordPiece"];

/** The one error of a tokenizer file that cannot be used. */
export function brokenTokenizer(where: string, what: string, given?: string, cause?: unknown): ThimbleError {
  return new ThimbleError("tokenizer-broken", `The tokenizer cannot be used: ${what}`, {
    where,
    ...(given === undefined ? {} : { given }),
    expected: "a tokenizer.json as the Hugging Face tokenizers library writes it",
    fix: "Fetch the file again, or write it again with save_pretrained().",
    cause,
  });
}

/** Checks the outer shape, every vocabulary id, every merge and every added token of a tokenizer.json. */
export function parseTokenizerJson(value: unknown, where: string): TokenizerJson {
  const root = asObject(value);
  if (root === undefined) throw brokenTokenizer(where, "it is not a JSON object", kindOf(value));
  const model = asObject(root["model"]);
  if (model === undefined) throw brokenTokenizer(where, '"model" is not an object', kindOf(root["model"]));
  checkKind(model, where);
  checkVocabulary(model, where);
  checkMerges(model, where);
  return {
    model,
    normalizer: component(root, "normalizer", where),
    pre_tokenizer: component(root, "pre_tokenizer", where),
    post_processor: component(root, "post_processor", where),
    decoder: component(root, "decoder", where),
    added_tokens: parseAddedTokens(root["added_tokens"], where),
  };
}

/** Old files do not name the kind of their model: it shows in the other fields. */
function checkKind({ type }: JsonObject, where: string): void {
  if (type === undefined || type === null || (typeof type === "string" && kinds.includes(type))) return;
  throw brokenTokenizer(where, `its model is of another kind than ${kinds.join(", ")}`, JSON.stringify(type));
}

function component(root: JsonObject, name: string, where: string): JsonObject | null {
  const value = root[name];
  if (value === undefined || value === null) return null;
  const object = asObject(value);
  if (object === undefined) throw brokenTokenizer(where, `"${name}" is not an object`, kindOf(value));
  return object;
}

function checkVocabulary(model: JsonObject, where: string): void {
  const list = asArray(model["vocab"]);
  if (list !== undefined) {
    checkScoredVocabulary(list, where);
    return;
  }
  const table = asObject(model["vocab"]);
  if (table === undefined) throw brokenTokenizer(where, '"model.vocab" is missing', kindOf(model["vocab"]));
  const seen = new Set<number>();
  for (const [token, id] of Object.entries(table)) {
    const index = asCount(id);
    if (index === undefined || index >= largestId) {
      throw brokenTokenizer(where, `the id of token ${JSON.stringify(token)} is not an index`, String(id));
    }
    if (seen.has(index)) {
      throw brokenTokenizer(where, `two tokens have the id ${index}`, JSON.stringify(token));
    }
    seen.add(index);
  }
  if (seen.size === 0) throw brokenTokenizer(where, "the vocabulary is empty");
}

function checkScoredVocabulary(list: readonly unknown[], where: string): void {
  if (list.length === 0) throw brokenTokenizer(where, "the vocabulary is empty");
  list.forEach((entry, id) => {
    const [token, score] = asArray(entry) ?? [];
    if (typeof token !== "string" || typeof score !== "number" || !Number.isFinite(score)) {
      throw brokenTokenizer(where, `vocabulary entry ${id} is not [token, score]`);
    }
  });
}

function checkMerges(model: JsonObject, where: string): void {
  if (model["type"] !== "BPE" && model["merges"] === undefined) return;
  const merges = asArray(model["merges"]);
  if (merges === undefined) throw brokenTokenizer(where, '"model.merges" is not a list', kindOf(model["merges"]));
  const pairs = Array.isArray(merges[0]);
  const known = asObject(model["vocab"]);
  merges.forEach((merge, index) => {
    const parts = pairs ? asArray(merge) : asString(merge)?.split(" ");
    const [left, right] = parts ?? [];
    if (parts?.length !== 2 || typeof left !== "string" || typeof right !== "string" || left === "" || right === "") {
      throw brokenTokenizer(where, `merge ${index} is not a pair of tokens`, JSON.stringify(merge));
    }
    if (known !== undefined && !(left in known && right in known && left + right in known)) {
      throw brokenTokenizer(where, `merge ${index} names a token that is not in the vocabulary`, JSON.stringify(merge));
    }
  });
}

function parseAddedTokens(value: unknown, where: string): AddedToken[] {
  if (value === undefined || value === null) return [];
  const list = asArray(value);
  if (list === undefined) throw brokenTokenizer(where, '"added_tokens" is not a list', kindOf(value));
  return list.map((entry, index) => parseAddedToken(asObject(entry), `added token ${index}`, where));
}

/** Reads one added token; `what` names it in errors. */
export function parseAddedToken(entry: JsonObject | undefined, what: string, where: string): AddedToken {
  const id = asCount(entry?.["id"]);
  const content = asString(entry?.["content"]);
  if (entry === undefined || id === undefined || id >= largestId || content === undefined || content === "") {
    throw brokenTokenizer(where, `${what} has no valid id and content`);
  }
  const special = asBoolean(entry["special"]) ?? false;
  return {
    id,
    content,
    special,
    normalized: asBoolean(entry["normalized"]) ?? !special,
    lstrip: asBoolean(entry["lstrip"]) ?? false,
    rstrip: asBoolean(entry["rstrip"]) ?? false,
    single_word: asBoolean(entry["single_word"]) ?? false,
  };
}
