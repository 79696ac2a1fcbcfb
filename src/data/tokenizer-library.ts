import { Tokenizer } from "@huggingface/tokenizers";
import type { JsonObject } from "./json.js";
import type { TokenizerJson } from "./tokenizer-json.js";

/** What is used of the library's tokenizer; its own declarations do not resolve under NodeNext. */
export interface LibraryTokenizer {
  readonly normalizer: ((text: string) => string) | null;
  readonly pre_tokenizer: LibraryPreTokenizer | null;
  readonly model: LibraryModel;
  readonly decoder: LibraryDecoder | null;
  encode(
    text: string,
    options: { add_special_tokens: boolean; text_pair?: string; return_token_type_ids?: boolean },
  ): { ids: (number | null | undefined)[]; token_type_ids?: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
}

/** What is used of the library's pre-tokenizers. */
interface LibraryPreTokenizer {
  (text: string, options: { section_index: number }): string[];
  /** The parts of a sequence. */
  readonly tokenizers?: readonly LibraryPreTokenizer[];
  /** Marks the byte-level pre-tokenizer, as do the two flags. */
  readonly byte_encoder?: object;
  readonly use_regex?: boolean;
  readonly add_prefix_space?: boolean;
  pre_tokenize_text(text: string, options: unknown): string[];
  pre_tokenize(text: string | string[], options: unknown): string[];
}

/** What is used of the library's decoders. */
interface LibraryDecoder {
  text_decoder?: InstanceType<typeof TextDecoder>;
  readonly decoders?: readonly LibraryDecoder[];
}

/** What is used of the library's model. */
export interface LibraryModel {
  /** Token text by id; holes are possible. */
  readonly vocab: (string | undefined)[];
  readonly tokens_to_ids: Map<string, number>;
  readonly unk_token?: string | null;
  encode(tokens: string[]): string[];
  cache?: WordCache;
}

/** The part of the library's word cache that its BPE model calls. */
interface WordCache {
  get(word: string): string[] | undefined;
  put(word: string, tokens: string[]): void;
  clear(): void;
}

/** Builds the library's tokenizer and amends what costs time (its word cache) or is missing (byte fallback). */
export function buildLibraryTokenizer(json: TokenizerJson, config: JsonObject): LibraryTokenizer {
  const Constructor = Tokenizer as unknown as new (json: TokenizerJson, config: JsonObject) => LibraryTokenizer;
  const tokenizer = new Constructor(json, config);
  keepByteOrderMarks(tokenizer.decoder);
  rememberBytes(tokenizer.pre_tokenizer);
  if (tokenizer.model.cache !== undefined) tokenizer.model.cache = new GenerationCache(50_000);
  if (json.model["byte_fallback"] === true && Array.isArray(json.model["vocab"])) addByteFallback(tokenizer.model);
  return tokenizer;
}

/** A byte order mark is text like any other; the library's byte fallback would drop it. */
function keepByteOrderMarks(decoder: LibraryDecoder | null): void {
  if (decoder?.text_decoder !== undefined) decoder.text_decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  for (const part of decoder?.decoders ?? []) keepByteOrderMarks(part);
}

/** Keeps the byte-level spelling of words that were seen before: a third of the time to encode a text. */
function rememberBytes(preTokenizer: LibraryPreTokenizer | null): void {
  for (const part of preTokenizer?.tokenizers ?? []) {
    if (part.byte_encoder === undefined || part.use_regex !== false || part.add_prefix_space === true) continue;
    const known = new GenerationCache(50_000);
    const spell = (word: string, options: unknown): string[] => {
      const found = known.get(word);
      if (found !== undefined) return found;
      const spelt = part.pre_tokenize_text(word, options);
      if (word.length < 256) known.put(word, spelt);
      return spelt;
    };
    part.pre_tokenize = (text, options) => [text].flat().flatMap((word) => spell(word, options));
  }
}

/**
 * A bounded cache of two generations: when the young one is full it becomes the old one and the old one is dropped.
 * The library's own cache re-inserts each word at each look-up, which costs more than the merging that it saves.
 */
class GenerationCache implements WordCache {
  private young = new Map<string, string[]>();
  private old = new Map<string, string[]>();

  constructor(private readonly capacity: number) {}

  get(word: string): string[] | undefined {
    const found = this.young.get(word);
    if (found !== undefined) return found;
    const aged = this.old.get(word);
    if (aged !== undefined) this.put(word, aged);
    return aged;
  }

  put(word: string, tokens: string[]): void {
    if (this.young.size >= this.capacity) {
      this.old = this.young;
      this.young = new Map();
    }
    this.young.set(word, tokens);
  }

  clear(): void {
    this.young.clear();
    this.old.clear();
  }
}

/** Spells unknown pieces of a Unigram model as byte tokens, as the original does; the library leaves them unknown. */
function addByteFallback(model: LibraryModel): void {
  const inner = model.encode.bind(model);
  const encoder = new TextEncoder();
  model.encode = (tokens) =>
    inner(tokens).flatMap((token) => {
      if (model.tokens_to_ids.has(token)) return [token];
      const bytes = Array.from(encoder.encode(token), byteToken);
      return bytes.every((byte) => model.tokens_to_ids.has(byte)) ? bytes : [token];
    });
}

/** The SentencePiece name of a byte, `<0x0A>`. */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}
