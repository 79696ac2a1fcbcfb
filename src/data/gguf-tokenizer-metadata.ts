import { ThimbleError } from "../errors.js";
import { asBoolean, asCount, asObject, asString, kindOf } from "./json.js";
import type { JsonObject } from "./json.js";

/** Key-value pairs of a GGUF file: plain values, or each with its type (`{ type, value }`). */
export type MetadataInput = ReadonlyMap<string, unknown> | Readonly<Record<string, unknown>>;

/** `tokenizer.ggml.token_type`, as llama.cpp numbers it. */
export const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The tokenizer's part of a GGUF file's metadata, checked. */
export class GgufTokenizerMetadata {
  readonly model: string;
  /** Token text by id. */
  readonly tokens: readonly string[];
  /** Token type by id, see {@link tokenType}. */
  readonly types: readonly number[];

  constructor(
    private readonly metadata: MetadataInput,
    private readonly where: string,
  ) {
    const model = this.text("tokenizer.ggml.model");
    if (model === undefined) throw this.error("it has no tokenizer", undefined, "the key tokenizer.ggml.model");
    this.model = model;
    this.tokens = this.list("tokenizer.ggml.tokens", asString) ?? this.missing("tokenizer.ggml.tokens");
    this.types = this.list("tokenizer.ggml.token_type", asCount) ?? this.tokens.map(() => tokenType.normal);
    if (this.types.length !== this.tokens.length) {
      throw this.error("it has not one type a token", `${this.types.length} types`, `${this.tokens.length} types`);
    }
  }

  /** The one error of metadata that cannot be used. */
  error(what: string, given: string | undefined, expected: string): ThimbleError {
    return new ThimbleError("gguf-tokenizer", `The GGUF file's tokenizer cannot be used: ${what}`, {
      where: this.where,
      ...(given === undefined ? {} : { given }),
      expected,
      fix: "Convert the model again with a recent llama.cpp, or point to the model's Hugging Face folder for its tokenizer.",
    });
  }

  text(key: string): string | undefined {
    return asString(this.get(key));
  }

  /** The boolean `tokenizer.ggml.NAME`. */
  flag(name: string): boolean | undefined {
    return asBoolean(this.get(`tokenizer.ggml.${name}`));
  }

  /** The id `tokenizer.ggml.NAME_token_id`, where it is within the vocabulary. */
  id(name: string): number | undefined {
    const id = asCount(this.get(`tokenizer.ggml.${name}_token_id`));
    return id === undefined || id >= this.tokens.length ? undefined : id;
  }

  scores(): readonly number[] {
    const key = "tokenizer.ggml.scores";
    const scores = this.list(key, (value) => (typeof value === "number" ? value : undefined)) ?? this.missing(key);
    if (scores.length === this.tokens.length) return scores;
    throw this.error("it has not one score a token", `${scores.length} scores`, `${this.tokens.length} scores`);
  }

  /** Merges as pairs; each is stored as two tokens with a space between, and the first may start with a space. */
  merges(): [string, string][] {
    const key = "tokenizer.ggml.merges";
    const merges = this.list(key, asString) ?? this.missing(key);
    return merges.map((merge) => {
      const space = merge.indexOf(" ", 1);
      return [merge.slice(0, Math.max(space, 0)), merge.slice(space + 1)];
    });
  }

  /** Ids by token text. Throws where two tokens have the same text. */
  vocabulary(tokens: readonly string[] = this.tokens): Record<string, number> {
    const vocabulary: Record<string, number> = Object.create(null) as Record<string, number>;
    tokens.forEach((token, id) => {
      const other = vocabulary[token];
      if (other !== undefined) {
        throw this.error(
          "two tokens have the same text",
          `ids ${other} and ${id}: ${JSON.stringify(token)}`,
          "one each",
        );
      }
      vocabulary[token] = id;
    });
    return vocabulary;
  }

  /** Control tokens, and user-defined ones other than runs of the space mark (those the model merges itself). */
  addedTokens(): JsonObject[] {
    return this.tokens.flatMap((content, id) => {
      const special = this.types[id] === tokenType.control || this.types[id] === tokenType.unknown;
      const user = this.types[id] === tokenType.userDefined && !/^▁+$/.test(content);
      return (special || user) && content !== "" ? [{ id, content, special, normalized: false }] : [];
    });
  }

  private get(key: string): unknown {
    const { metadata } = this;
    if (metadata instanceof Map) return untagged(metadata.get(key));
    return Object.hasOwn(metadata, key) ? untagged((metadata as JsonObject)[key]) : undefined;
  }

  private missing(key: string): never {
    throw this.error(`its metadata lacks ${key}`, undefined, key);
  }

  /** A list whose every element passes `read`; typed arrays count as lists. */
  private list<T>(key: string, read: (value: unknown) => T | undefined): T[] | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) && !ArrayBuffer.isView(value)) {
      throw this.error(`${key} is not a list`, kindOf(value), "an array");
    }
    return Array.from(value as ArrayLike<unknown>, (element, index) => {
      const checked = read(element);
      if (checked === undefined)
        throw this.error(`${key} has a wrong element at ${index}`, kindOf(element), "one type throughout");
      return checked;
    });
  }
}

function untagged(entry: unknown): unknown {
  const tagged = asObject(entry);
  return tagged !== undefined && "type" in tagged && "value" in tagged ? tagged["value"] : entry;
}
