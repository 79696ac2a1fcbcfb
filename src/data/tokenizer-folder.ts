import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ThimbleError } from "../errors.js";
import { asArray, asBoolean, asCount, asObject, asString, kindOf, messageOf } from "./json.js";
import type { JsonObject } from "./json.js";
import { brokenTokenizer } from "./tokenizer-json.js";
import { createTokenizer } from "./tokenizer.js";
import type { SpecialTokens, Tokenizer } from "./tokenizer.js";

/**
 * Loads the tokenizer of a Hugging Face model folder: tokenizer.json, and where present tokenizer_config.json,
 * special_tokens_map.json, generation_config.json and chat_template.jinja.
 * Throws `tokenizer-missing`, `tokenizer-broken` or `tokenizer-unsupported`.
 */
export async function loadTokenizerFolder(folder: string): Promise<Tokenizer> {
  const path = join(folder, "tokenizer.json");
  const text = await readOptional(path);
  if (text === undefined) throw missing(folder);
  const parsed = parseObject(text, path);
  const config = await readObject(join(folder, "tokenizer_config.json"));
  const map = await readObject(join(folder, "special_tokens_map.json"));
  const generation = await readObject(join(folder, "generation_config.json"));
  const template = (await readOptional(join(folder, "chat_template.jinja"))) ?? templateOf(config);
  const json = withPostProcessor(withAddedTokens(parsed, config), config, map);
  const special = specialTokens(json, config, map, generation);
  const fingerprint = createHash("sha256").update(JSON.stringify(json)).digest("hex");
  return createTokenizer(json, {
    where: path,
    config: libraryConfig(config),
    special,
    chatTemplate: template,
    fingerprint,
  });
}

function missing(folder: string): ThimbleError {
  return new ThimbleError("tokenizer-missing", "The model folder has no tokenizer.json", {
    where: folder,
    fix: "Write one with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
  });
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR"))
      return undefined;
    throw new ThimbleError("tokenizer-unreadable", `The file cannot be read: ${messageOf(error)}`, {
      where: path,
      cause: error,
    });
  }
}

async function readObject(path: string): Promise<JsonObject> {
  const text = await readOptional(path);
  return text === undefined ? {} : parseObject(text, path);
}

function parseObject(text: string, path: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw brokenTokenizer(path, `it is not JSON (${messageOf(error)})`, undefined, error);
  }
  const object = asObject(value);
  if (object === undefined) throw brokenTokenizer(path, "it is not a JSON object", kindOf(value));
  return object;
}

/** A template is one string, or a list of named ones of which "default" is meant for conversations. */
function templateOf(config: JsonObject): string | undefined {
  const value = config["chat_template"];
  if (typeof value === "string") return value;
  const named = (asArray(value) ?? []).map(asObject);
  const chosen = named.find((entry) => entry?.["name"] === "default") ?? named[0];
  return asString(chosen?.["template"]);
}

/** The few settings of tokenizer_config.json that the library acts on. */
function libraryConfig(config: JsonObject): JsonObject {
  const eos = tokenContent(config["eos_token"]);
  return {
    ...(eos === undefined ? {} : { eos_token: eos }),
    ...(config["remove_space"] === true ? { remove_space: true } : {}),
    ...(config["do_lowercase_and_remove_accent"] === true ? { do_lowercase_and_remove_accent: true } : {}),
  };
}

/** A special token is written as its text or as an object with its text. */
function tokenContent(value: unknown): string | undefined {
  return asString(value) ?? asString(asObject(value)?.["content"]);
}

/** Adds the tokens that only tokenizer_config.json knows (`added_tokens_decoder`), as transformers does. */
function withAddedTokens(json: JsonObject, config: JsonObject): JsonObject {
  const present = asArray(json["added_tokens"]) ?? [];
  const ids = new Set(present.map((entry) => asObject(entry)?.["id"]));
  const extra = Object.entries(asObject(config["added_tokens_decoder"]) ?? {})
    .map(([id, entry]) => ({ ...asObject(entry), id: Number(id) }))
    .filter((entry) => Number.isInteger(entry.id) && !ids.has(entry.id));
  return extra.length === 0 ? json : { ...json, added_tokens: [...present, ...extra] };
}

/** `add_bos_token` and `add_eos_token`, where given, replace a plain post-processor, as in transformers 5. */
function withPostProcessor(json: JsonObject, config: JsonObject, map: JsonObject): JsonObject {
  const [addBos, addEos] = [asBoolean(config["add_bos_token"]), asBoolean(config["add_eos_token"])];
  const type = asObject(json["post_processor"])?.["type"];
  const plain = type === undefined || type === "TemplateProcessing" || type === "ByteLevel";
  if ((addBos === undefined && addEos === undefined) || !plain) return json;
  const bos = addBos === true ? tokenContent(config["bos_token"] ?? map["bos_token"]) : undefined;
  const eos = addEos === true ? tokenContent(config["eos_token"] ?? map["eos_token"]) : undefined;
  return { ...json, post_processor: framePostProcessor(bos, eos) };
}

/** A post-processor that puts the given tokens, by their text, before and after a text. */
export function framePostProcessor(before: string | undefined, after: string | undefined): JsonObject {
  const special = (token: string | undefined): JsonObject[] =>
    token === undefined ? [] : [{ SpecialToken: { id: token, type_id: 0 } }];
  const single = [...special(before), { Sequence: { id: "A", type_id: 0 } }, ...special(after)];
  return { type: "TemplateProcessing", single, pair: single };
}

function specialTokens(json: JsonObject, config: JsonObject, map: JsonObject, generation: JsonObject): SpecialTokens {
  const idOf = idLookup(json);
  const named = (name: string): number | undefined => idOf(tokenContent(config[name] ?? map[name]));
  const bos = named("bos_token") ?? asCount(generation["bos_token_id"]);
  const pad = named("pad_token") ?? asCount(generation["pad_token_id"]);
  const unknown = named("unk_token") ?? idOf(asString(asObject(json["model"])?.["unk_token"]));
  const ends = [named("eos_token"), ...[generation["eos_token_id"]].flat().map(asCount)];
  const eos = [...new Set(ends.filter((id) => id !== undefined))];
  const [first] = eos;
  return {
    ...(bos === undefined ? {} : { bos }),
    ...(first === undefined ? {} : { eos: eos.length === 1 ? first : eos }),
    ...(pad === undefined ? {} : { pad }),
    ...(unknown === undefined ? {} : { unknown }),
  };
}

function idLookup(json: JsonObject): (token: string | undefined) => number | undefined {
  const added = (asArray(json["added_tokens"]) ?? []).map(asObject);
  const vocabulary = asObject(json["model"])?.["vocab"];
  return (token) => {
    if (token === undefined) return undefined;
    const found = asCount(added.find((entry) => entry?.["content"] === token)?.["id"]);
    if (found !== undefined) return found;
    const list = asArray(vocabulary);
    if (list === undefined) return asCount(asObject(vocabulary)?.[token]);
    const index = list.findIndex((entry) => asArray(entry)?.[0] === token);
    return index < 0 ? undefined : index;
  };
}
