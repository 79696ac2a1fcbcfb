import { asArray, asObject } from "./json.js";
import type { JsonObject } from "./json.js";
import { find, uses } from "./tokenizer-adapt.js";
import type { TokenizerJson } from "./tokenizer-json.js";
import { buildLibraryTokenizer } from "./tokenizer-library.js";
import type { LibraryTokenizer } from "./tokenizer-library.js";

/** An id as the library gives it: nothing where the vocabulary has no token. */
export type LibraryId = number | null | undefined;

/**
 * Encodes texts without special tokens around them, either as the start of a text or as the continuation of one.
 * The two differ for tokenizers that mark the start of every text (`▁`, a prefix space).
 */
export class PlainEncoder {
  /** The added tokens, in lower case, as they would stand in a text. */
  readonly added: readonly string[];
  private readonly exactAdded: readonly string[];
  private readonly continuation: LibraryTokenizer;

  constructor(
    json: TokenizerJson,
    private readonly library: LibraryTokenizer,
  ) {
    this.exactAdded = json.added_tokens.map((token) => token.content);
    this.added = this.exactAdded.map((content) => content.toLowerCase());
    this.continuation = marksStart(json) ? withoutStartMark(json, library) : library;
  }

  /** Whether the pre-tokenizer cuts texts into words, so that no token can cross from one to the next. */
  get hasWords(): boolean {
    return this.library.pre_tokenizer !== null;
  }

  get vocabulary(): readonly (string | undefined)[] {
    return this.library.model.vocab;
  }

  encode(text: string, continues: boolean): LibraryId[] {
    if (!continues || this.continuation === this.library) return idsOf(this.library, text);
    // Behind an added token the usual rules apply again, so only what stands before the first one is special.
    const first = this.firstAdded(text);
    if (first === undefined) return idsOf(this.continuation, text);
    const before = idsOf(this.continuation, text.slice(0, first.at + first.length)).slice(0, -1);
    return [...before, ...idsOf(this.library, text.slice(first.at))];
  }

  private firstAdded(text: string): { at: number; length: number } | undefined {
    let first: { at: number; length: number } | undefined;
    for (const content of this.exactAdded) {
      const at = text.indexOf(content);
      const sooner = first === undefined || at < first.at || (at === first.at && content.length > first.length);
      if (at >= 0 && sooner) first = { at, length: content.length };
    }
    return first;
  }

  /** The words that the pre-tokenizer makes of a text without added tokens. */
  words(text: string, continues: boolean): string[] {
    const library = continues ? this.continuation : this.library;
    const normal = library.normalizer === null ? text : library.normalizer(text);
    return library.pre_tokenizer === null ? [normal] : library.pre_tokenizer(normal, { section_index: 0 });
  }
}

function idsOf(library: LibraryTokenizer, text: string): LibraryId[] {
  return library.encode(text, { add_special_tokens: false }).ids;
}

function marksStart(json: TokenizerJson): boolean {
  const prefixesSpace = find(json.pre_tokenizer, "ByteLevel")?.["add_prefix_space"] === true;
  return prefixesSpace || uses(json.normalizer, "Prepend") || uses(json.pre_tokenizer, "Metaspace");
}

/** The same tokenizer, sharing the model, that takes a text for the middle of one. */
function withoutStartMark(json: TokenizerJson, library: LibraryTokenizer): LibraryTokenizer {
  const bare = {
    ...json,
    added_tokens: [],
    post_processor: null,
    model: { type: "BPE", vocab: { a: 0 }, merges: [] },
    normalizer: unmark(json.normalizer),
    pre_tokenizer: unmark(json.pre_tokenizer),
  };
  const { normalizer, pre_tokenizer } = buildLibraryTokenizer(bare, {});
  return Object.assign(Object.create(library) as LibraryTokenizer, { normalizer, pre_tokenizer });
}

function unmark(part: JsonObject | null): JsonObject | null {
  if (part === null || part["type"] === "Prepend") return null;
  if (part["type"] === "Metaspace") return { ...part, prepend_scheme: "never" };
  if (part["type"] === "ByteLevel") return { ...part, add_prefix_space: false };
  if (part["type"] !== "Sequence") return part;
  const name = "normalizers" in part ? "normalizers" : "pretokenizers";
  const parts = (asArray(part[name]) ?? []).map((entry) => unmark(asObject(entry) ?? null));
  return { ...part, [name]: parts.filter((entry) => entry !== null) };
}
