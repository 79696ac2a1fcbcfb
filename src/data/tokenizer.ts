import { ThimbleError } from "../errors.js";
import type { JsonObject } from "./json.js";
import { messageOf } from "./json.js";
import { PlainEncoder } from "./plain-encoder.js";
import { TextCutter } from "./text-cutter.js";
import type { TextPiece } from "./text-cutter.js";
import { TokenSurface } from "./token-surface.js";
import { adaptToLibrary } from "./tokenizer-adapt.js";
import { brokenTokenizer, parseTokenizerJson } from "./tokenizer-json.js";
import { buildLibraryTokenizer } from "./tokenizer-library.js";
import type { LibraryTokenizer } from "./tokenizer-library.js";

/** Ids of the tokens with a role. `eos` has several entries where a model may end its turn in several ways. */
export interface SpecialTokens {
  readonly bos?: number;
  readonly eos?: number | readonly number[];
  readonly pad?: number;
  readonly unknown?: number;
}

export interface EncodeOptions {
  /** Whether to add what the model expects around a text (BOS, EOS, [CLS], ...). Default true, as in transformers. */
  readonly addSpecial?: boolean;
}

export interface EncodeStreamOptions extends EncodeOptions {
  /** Called when a piece had to be cut where the ids may differ from those of the whole text (see TextCutter). */
  readonly onForcedCut?: () => void;
}

/** Text to token ids and back, for one model. */
export interface Tokenizer {
  /** One more than the largest id. */
  readonly vocabularySize: number;
  readonly special: SpecialTokens;
  /** The Jinja chat template that came with the model. */
  readonly chatTemplate?: string;
  /** Whether encode() with `addSpecial` puts the BOS token first. */
  readonly addBos: boolean;
  /** Whether encode() with `addSpecial` puts the EOS token last. */
  readonly addEos: boolean;
  /** Names everything that decides about ids; equal fingerprints give equal ids. */
  readonly fingerprint: string;
  /** The texts of all control tokens. */
  readonly specialTexts: readonly string[];
  /** What a user should know about this tokenizer, a sentence each. */
  readonly notices: readonly string[];
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * One text, or two together, as the model's post-processor frames them, in at most `limit` tokens: of texts that are
   * too long, the longer one is cut off first.
   */
  encodePair(first: string, second: string | undefined, limit: number): EncodedPair;
  /** Encodes a text that arrives in parts, in bounded memory; the ids equal those of encode() on the whole. */
  encodeStream(
    chunks: AsyncIterable<string> | Iterable<string>,
    options?: EncodeStreamOptions,
  ): AsyncGenerator<number[]>;
  decode(ids: readonly number[], options?: { skipSpecial?: boolean }): string;
  /** One token as a person reads it; bytes that are no text by themselves appear as `\xE2`. */
  tokenText(id: number): string;
  /** The id of a token by its exact text in the vocabulary, added tokens included. */
  tokenId(text: string): number | undefined;
  /** Whether the token is one of the control tokens that decode() leaves out with `skipSpecial`. */
  isSpecial(id: number): boolean;
}

/** A text, or two together, as token ids. */
export interface EncodedPair {
  readonly ids: readonly number[];
  /** Where the second part begins; the number of ids where there is none. */
  readonly second: number;
  /** Whether anything was cut off. */
  readonly truncated: boolean;
}

/** What createTokenizer() needs beside the tokenizer.json. */
export interface TokenizerOptions {
  /** The file, for error messages. */
  readonly where: string;
  /** tokenizer_config.json, as far as the library reads it. */
  readonly config?: JsonObject;
  readonly special: SpecialTokens;
  readonly chatTemplate?: string | undefined;
  readonly fingerprint: string;
  readonly notices?: readonly string[];
}

/** Texts longer than this many UTF-16 units are encoded in pieces; the library is not made for long ones. */
const longText = 1 << 17;

/** Builds a tokenizer from a parsed tokenizer.json. Throws `tokenizer-broken` or `tokenizer-unsupported`. */
export function createTokenizer(value: unknown, options: TokenizerOptions): Tokenizer {
  const { json, notices } = adaptToLibrary(parseTokenizerJson(value, options.where), options.where);
  const config = { ...options.config, unk_token: json.model["unk_token"] };
  try {
    const library = buildLibraryTokenizer(json, config);
    library.encode("Hello, world 1", { add_special_tokens: true });
    const surface = new TokenSurface(json, library.model.vocab);
    const encoder = new PlainEncoder(json, library);
    return new LoadedTokenizer(library, surface, encoder, {
      ...options,
      notices: [...(options.notices ?? []), ...notices],
    });
  } catch (error) {
    if (error instanceof ThimbleError) throw error;
    throw brokenTokenizer(options.where, messageOf(error), undefined, error);
  }
}

class LoadedTokenizer implements Tokenizer {
  readonly vocabularySize: number;
  readonly special: SpecialTokens;
  readonly chatTemplate?: string;
  readonly addBos: boolean;
  readonly addEos: boolean;
  readonly fingerprint: string;
  readonly specialTexts: readonly string[];
  readonly notices: readonly string[];
  private readonly where: string;
  private readonly cutter: TextCutter;
  private readonly prefix: readonly number[];
  private readonly suffix: readonly number[];
  private pairFrame: PairFrame | undefined;

  constructor(
    private readonly library: LibraryTokenizer,
    private readonly surface: TokenSurface,
    private readonly encoder: PlainEncoder,
    options: TokenizerOptions,
  ) {
    this.where = options.where;
    this.cutter = new TextCutter(encoder);
    this.vocabularySize = library.model.vocab.length;
    this.special = options.special;
    if (options.chatTemplate !== undefined) this.chatTemplate = options.chatTemplate;
    this.fingerprint = options.fingerprint;
    this.specialTexts = surface.specialTexts;
    this.notices = options.notices ?? [];
    [this.prefix, this.suffix] = this.findFrame();
    this.addBos = this.special.bos !== undefined && this.prefix.includes(this.special.bos);
    this.addEos = this.suffix.some((id) => endIds(this.special).includes(id));
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    const ids: number[] = [];
    const add = (piece: TextPiece): void => {
      for (const id of this.encodePiece(piece)) ids.push(id);
    };
    if (options.addSpecial !== false) ids.push(...this.prefix);
    if (text.length <= longText) add({ text, continues: false });
    else for (const piece of this.cutter.cut(text)) add(piece);
    if (options.addSpecial !== false) ids.push(...this.suffix);
    return ids;
  }

  encodePair(first: string, second: string | undefined, limit: number): EncodedPair {
    const plain = { addSpecial: false };
    const one = this.encode(first, plain);
    if (second === undefined) {
      const room = roomFor(limit, this.prefix.length + this.suffix.length);
      const ids = [...this.prefix, ...one.slice(0, room), ...this.suffix];
      return { ids, second: ids.length, truncated: one.length > room };
    }
    const other = this.encode(second, plain);
    const { before, between, after, ownBetween } = (this.pairFrame ??= this.findPairFrame());
    const room = roomFor(limit, before.length + between.length + after.length);
    const [keptOne, keptOther] = longestFirst(one.length, other.length, room);
    const start = before.length + keptOne + ownBetween;
    const ids = [...before, ...one.slice(0, keptOne), ...between, ...other.slice(0, keptOther), ...after];
    return { ids, second: start, truncated: keptOne + keptOther < one.length + other.length };
  }

  async *encodeStream(
    chunks: AsyncIterable<string> | Iterable<string>,
    options: EncodeStreamOptions = {},
  ): AsyncGenerator<number[]> {
    if (options.addSpecial !== false && this.prefix.length > 0) yield [...this.prefix];
    for await (const piece of this.cutter.cutStream(chunks, options.onForcedCut)) yield this.encodePiece(piece);
    if (options.addSpecial !== false && this.suffix.length > 0) yield [...this.suffix];
  }

  decode(ids: readonly number[], options: { skipSpecial?: boolean } = {}): string {
    const skip = options.skipSpecial === true;
    const known = ids.filter((id) => this.surface.has(this.checkId(id)) && !(skip && this.isSpecial(id)));
    if (known.length === 0) return "";
    const plain = { skip_special_tokens: false, clean_up_tokenization_spaces: false };
    return this.guarded(() => this.library.decode(known, plain));
  }

  tokenText(id: number): string {
    return this.surface.text(this.checkId(id));
  }

  tokenId(text: string): number | undefined {
    return this.library.model.tokens_to_ids.get(text);
  }

  isSpecial(id: number): boolean {
    return this.surface.isSpecial(id);
  }

  /** The ids of a text without special tokens around it. */
  private encodePiece({ text, continues }: TextPiece): number[] {
    const ids = this.guarded(() => this.encoder.encode(text, continues));
    if (!ids.every((id): id is number => typeof id === "number")) throw this.unknownText(text);
    return ids;
  }

  /** Parts of a damaged tokenizer.json may fail only when a text reaches them. */
  private guarded<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw brokenTokenizer(this.where, messageOf(error), undefined, error);
    }
  }

  private unknownText(text: string): ThimbleError {
    const shown = text.length > 60 ? `${text.slice(0, 60)}...` : text;
    return new ThimbleError("tokenizer-unknown-text", "The text has characters that the tokenizer has no token for", {
      given: JSON.stringify(shown),
      expected: "an unknown token in the vocabulary, or byte tokens",
      where: this.where,
      fix: "Use the tokenizer that was made for this language, or remove such characters.",
    });
  }

  /** What the post-processor puts before and after the ids of a text. */
  private findFrame(): [number[], number[]] {
    const ids = this.library.encode("a", { add_special_tokens: true }).ids;
    const plain = this.encodePiece({ text: "a", continues: false });
    for (let start = 0; start + plain.length <= ids.length; start++) {
      if (plain.every((id, index) => ids[start + index] === id)) {
        const known = ids.map((id) => id ?? -1);
        if (known.includes(-1)) break;
        return [known.slice(0, start), known.slice(start + plain.length)];
      }
    }
    throw brokenTokenizer(this.where, "its post-processor names tokens that are not in the vocabulary");
  }

  /** What the post-processor puts before, between and after the ids of two texts. */
  private findPairFrame(): PairFrame {
    const { ids, token_type_ids: types } = this.library.encode("a", {
      text_pair: "a",
      add_special_tokens: true,
      return_token_type_ids: true,
    });
    const known = ids.map((id) => id ?? -1);
    const plain = this.encodePiece({ text: "a", continues: false });
    const at = (from: number): number => {
      for (let start = from; start + plain.length <= known.length; start++) {
        if (plain.every((id, index) => known[start + index] === id)) return start;
      }
      throw brokenTokenizer(this.where, "its post-processor does not put two texts together");
    };
    const first = at(0);
    const second = at(first + plain.length);
    const between = known.slice(first + plain.length, second);
    const typed = (types ?? []).slice(first + plain.length, second).findIndex((type) => type === 1);
    return {
      before: known.slice(0, first),
      between,
      after: known.slice(second + plain.length),
      ownBetween: typed < 0 ? between.length : typed,
    };
  }

  private checkId(id: number): number {
    if (Number.isInteger(id) && id >= 0) return id;
    throw new ThimbleError("token-id-range", "This is not a token id", {
      given: String(id),
      expected: "an integer >= 0",
    });
  }
}

interface PairFrame {
  readonly before: readonly number[];
  readonly between: readonly number[];
  readonly after: readonly number[];
  /** How many of those between belong to the first part. */
  readonly ownBetween: number;
}

function roomFor(limit: number, framed: number): number {
  if (limit > framed) return limit - framed;
  throw new ThimbleError("tokenizer-limit", "The rows have no room for a text beside its special tokens", {
    where: "seq",
    given: `${limit} tokens a row`,
    expected: `more than ${framed}`,
    fix: "Give a larger --seq.",
  });
}

/** How many ids stay of two texts: the longer one is cut off down to the shorter, then both (Hugging Face's rule). */
function longestFirst(one: number, other: number, room: number): [number, number] {
  if (one + other <= room) return [one, other];
  const short = Math.min(one, other);
  const half = Math.floor(room / 2);
  const [kept, long] = 2 * short > room ? [half, room - half] : [short, room - short];
  return one <= other ? [kept, long] : [long, kept];
}

/** All ids that end a text or a turn, the usual one first. */
export function endIds(special: SpecialTokens): readonly number[] {
  if (special.eos === undefined) return [];
  return typeof special.eos === "number" ? [special.eos] : special.eos;
}
