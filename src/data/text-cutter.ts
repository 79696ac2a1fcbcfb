import type { PlainEncoder } from "./plain-encoder.js";

/** Pieces are cut near this many UTF-16 units. */
const pieceLength = 1 << 16;
/** How much text on either side of a cut is looked at. */
const contextLength = 96;
/** A text without any safe cut in this many units is cut anyway, since memory is bounded. */
const longestPiece = 1 << 20;
/** How many places are tried around one length before the next is tried. */
const mostTries = 200;

/** A piece of a text; all but the first continue it. */
export interface TextPiece {
  readonly text: string;
  readonly continues: boolean;
}

/**
 * Cuts a long text where encoding the pieces one by one gives the same ids as encoding the whole.
 *
 * A cut is taken between two characters of different kinds (letter and space, line end and word, ...) and then proved
 * on the text around it. Either the pre-tokenizer separates the two sides there, by itself and when each side stands
 * alone, so that no token can cross; or, where it does not, no token of the vocabulary holds the two characters next
 * to each other, so that neither a merge nor a best path can cross. A cut near an added token is never taken.
 */
export class TextCutter {
  private readonly margin: number;
  private adjacent: Set<string> | undefined;

  constructor(private readonly encoder: PlainEncoder) {
    this.margin = contextLength + Math.max(0, ...encoder.added.map((content) => content.length));
  }

  /** Cuts a text that is in memory. */
  *cut(text: string, onForcedCut?: () => void): Generator<TextPiece> {
    let start = 0;
    while (text.length - start > pieceLength + this.margin) {
      const buffer = text.slice(start, start + longestPiece);
      const length = this.findCut(buffer) ?? forcedCut(text, start, onForcedCut);
      yield { text: text.slice(start, start + length), continues: start > 0 };
      start += length;
    }
    if (start < text.length) yield { text: text.slice(start), continues: start > 0 };
  }

  /** Cuts a text that arrives in parts; holds at most a piece of 2^20 units and one part. */
  async *cutStream(
    chunks: AsyncIterable<string> | Iterable<string>,
    onForcedCut?: () => void,
  ): AsyncGenerator<TextPiece> {
    let [buffer, continues, enough] = ["", false, pieceLength + this.margin];
    for await (const chunk of chunks) {
      buffer += chunk;
      while (buffer.length > enough) {
        let length = this.findCut(buffer.slice(0, longestPiece));
        if (length === undefined && buffer.length <= longestPiece) {
          enough = Math.min(2 * buffer.length, longestPiece);
          continue;
        }
        length ??= forcedCut(buffer, 0, onForcedCut);
        yield { text: buffer.slice(0, length), continues };
        buffer = buffer.slice(length);
        continues = true;
        enough = pieceLength + this.margin;
      }
    }
    for (const piece of this.cut(buffer, onForcedCut))
      yield { text: piece.text, continues: continues || piece.continues };
  }

  /** The length of a first piece after which the buffer may be cut, or undefined where no place was found. */
  private findCut(buffer: string): number | undefined {
    const end = buffer.length - this.margin;
    for (let target = Math.min(pieceLength, end); target > 0; target = target < end ? Math.min(target * 2, end) : 0) {
      for (const suits of [startsWord, changesKind]) {
        let tries = 0;
        for (let at = target; at > target / 2 && tries < mostTries; at--) {
          if (!suits(buffer, at)) continue;
          tries++;
          if (this.isSafe(buffer, at)) return at;
        }
      }
    }
    return undefined;
  }

  private isSafe(text: string, at: number): boolean {
    const near = text.slice(Math.max(0, at - this.margin), at + this.margin).toLowerCase();
    if (this.encoder.added.some((content) => near.includes(content))) return false;
    const before = text.slice(Math.max(0, at - contextLength), at);
    const after = text.slice(at, at + contextLength);
    const left = this.encoder.words(before, false);
    const right = this.encoder.words(after, true);
    const [whole, parts] = [this.encoder.words(before + after, false), [...left, ...right]];
    if (this.encoder.hasWords && sameList(whole, parts)) return true;
    if (whole.join("") !== parts.join("") || this.areAdjacent(left.at(-1), right[0])) return false;
    const ids = [...this.encoder.encode(before, false), ...this.encoder.encode(after, true)];
    return sameList(this.encoder.encode(before + after, false), ids);
  }

  /** Whether some token holds the last character of `left` directly before the first one of `right`. */
  private areAdjacent(left: string | undefined, right: string | undefined): boolean {
    const [last, first] = [Array.from(left ?? "").at(-1), Array.from(right ?? "").at(0)];
    if (last === undefined || first === undefined) return true;
    this.adjacent ??= adjacentPairs(this.encoder.vocabulary);
    return this.adjacent.has(last + first);
  }
}

/** A cut that is only known to keep characters whole. */
function forcedCut(text: string, start: number, onForcedCut: (() => void) | undefined): number {
  const end = Math.min(text.length, start + longestPiece);
  if (end === text.length) return end - start;
  onForcedCut?.();
  return (isLowSurrogate(text.charCodeAt(end)) ? end - 1 : end) - start;
}

function adjacentPairs(vocabulary: readonly (string | undefined)[]): Set<string> {
  const pairs = new Set<string>();
  for (const token of vocabulary) {
    let previous = "";
    for (const character of token ?? "") {
      if (previous !== "") pairs.add(previous + character);
      previous = character;
    }
  }
  return pairs;
}

/** A single space between two letters: the commonest cut, safe with nearly every tokenizer. */
function startsWord(text: string, at: number): boolean {
  return text[at] === " " && kind(text, at - 1) === "letter" && kind(text, at + 1) === "letter";
}

function changesKind(text: string, at: number): boolean {
  const here = kind(text, at);
  return here !== "mark" && here !== kind(text, at - 1);
}

function kind(text: string, at: number): "letter" | "digit" | "space" | "line" | "mark" | "other" {
  if (isLowSurrogate(text.charCodeAt(at))) return "mark";
  const character = String.fromCodePoint(text.codePointAt(at) ?? 0);
  if (/\p{L}/u.test(character)) return "letter";
  if (/\p{N}/u.test(character)) return "digit";
  if (/[\r\n]/.test(character)) return "line";
  if (/\s/.test(character)) return "space";
  return /\p{M}|\p{Cf}/u.test(character) ? "mark" : "other";
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff;
}

function sameList(left: readonly unknown[], right: readonly unknown[]): boolean {
  return left.length === right.length && left.every((value, index) => value === right[index]);
}
