import type { Span } from "./chat-template.js";
import type { Tokenizer } from "./tokenizer.js";

/** Token ids and which of them count. */
export interface WeightedTokens {
  readonly ids: readonly number[];
  /** 0 or 1 for each id; absent where all are 1. */
  readonly weights?: Uint8Array;
}

/**
 * Encodes a text and gives weight 1 to the tokens of its spans. The ids are those of the whole text. A token that
 * reaches over the start or the end of a span belongs to it.
 */
export function encodeSpans(tokenizer: Tokenizer, text: string, spans: readonly Span[]): Required<WeightedTokens> {
  const ids = tokenizer.encode(text, { addSpecial: false });
  const weights = new Uint8Array(ids.length);
  const cuts = spans.flatMap((span) => [span.start, span.end]);
  const places = fromPieces(tokenizer, text, cuts, ids) ?? fromPrefixes(tokenizer, text, cuts, ids);
  spans.forEach((_, index) => {
    const [start, end] = [places[2 * index], places[2 * index + 1]];
    if (start !== undefined && end !== undefined) weights.fill(1, start.whole, end.touched);
  });
  return { ids, weights };
}

/** How many tokens lie wholly before a cut, and how many begin before it. */
interface Place {
  readonly whole: number;
  readonly touched: number;
}

/** The usual case: the parts between the cuts, encoded alone, give the ids of the whole. */
function fromPieces(
  tokenizer: Tokenizer,
  text: string,
  cuts: readonly number[],
  ids: readonly number[],
): Place[] | undefined {
  const places: Place[] = [];
  let [done, from] = [0, 0];
  for (const cut of [...cuts, text.length]) {
    for (const id of cut === from ? [] : tokenizer.encode(text.slice(from, cut), { addSpecial: false })) {
      if (ids[done++] !== id) return undefined;
    }
    places.push({ whole: done, touched: done });
    from = cut;
  }
  return done === ids.length ? places : undefined;
}

/** Where tokens reach over a cut, or a text's start is marked: what the text up to the cut has in common with the whole. */
function fromPrefixes(tokenizer: Tokenizer, text: string, cuts: readonly number[], ids: readonly number[]): Place[] {
  return cuts.map((cut) => {
    const prefix = cut === 0 ? [] : tokenizer.encode(text.slice(0, cut), { addSpecial: false });
    let whole = 0;
    while (whole < prefix.length && prefix[whole] === ids[whole]) whole++;
    return { whole, touched: whole < prefix.length ? whole + 1 : whole };
  });
}
