import { ThimbleError } from "../errors.js";
import type { TokenRange } from "./rows.js";
import type { TokenSource } from "./token-source.js";

/** Records by side of a split. */
export interface RecordSplit {
  readonly train: Int32Array;
  readonly held: Int32Array;
}

/**
 * Holds out a fraction of the records: those whose content hashes are the smallest. Which ones depends on the content
 * alone, so the split is the same for every seed and order, records with equal content are on the same side, and adding
 * records moves few. At least one record is held out, and at least one is left.
 */
export function splitRecords(source: TokenSource, fraction: number): RecordSplit {
  checkFraction(fraction);
  const count = source.recordCount;
  const byHash = Int32Array.from({ length: count }, (_, record) => record);
  byHash.sort((a, b) => source.hash(a) - source.hash(b) || a - b);
  let held = Math.max(1, Math.round(count * fraction));
  while (held < count && sameContent(source, byHash, held - 1)) held++;
  if (held >= count) throw tooSmall(`${count} records`);
  return { train: byHash.slice(held).sort(), held: byHash.slice(0, held).sort() };
}

/** Holds out the last fraction of a token stream; the cut lies at a multiple of `align` tokens. */
export function splitStream(
  source: TokenSource,
  fraction: number,
  align: number,
): { train: TokenRange; held: TokenRange } {
  checkFraction(fraction);
  const all = source.tokenCount;
  const held = Math.max(2, Math.round(all * fraction));
  const cut = Math.floor((all - held) / align) * align;
  if (cut < 2) throw tooSmall(`${all} tokens`);
  return { train: { start: 0, end: cut }, held: { start: cut, end: all } };
}

/** Records of one source whose content also occurs in another. */
export function countShared(held: TokenSource, train: TokenSource): number {
  const hashes = new Set(Array.from({ length: held.recordCount }, (_, record) => held.hash(record)));
  let shared = 0;
  for (let record = 0; record < train.recordCount; record++) if (hashes.has(train.hash(record))) shared++;
  return shared;
}

/** Records whose content an earlier record has too. */
export function countDuplicates(source: TokenSource): number {
  const hashes = Float64Array.from({ length: source.recordCount }, (_, record) => source.hash(record)).sort();
  let duplicates = 0;
  for (let index = 1; index < hashes.length; index++) if (hashes[index] === hashes[index - 1]) duplicates++;
  return duplicates;
}

function sameContent(source: TokenSource, order: Int32Array, index: number): boolean {
  const [one, other] = [order[index], order[index + 1]];
  return one !== undefined && other !== undefined && source.hash(one) === source.hash(other);
}

function checkFraction(fraction: number): void {
  if (fraction > 0 && fraction < 1) return;
  throw new ThimbleError("data-holdout", "The share of data to hold out is not a fraction", {
    given: String(fraction),
    expected: "a number above 0 and below 1, or a file",
  });
}

function tooSmall(given: string): ThimbleError {
  return new ThimbleError("data-holdout", "There is too little data to hold any of it out", {
    given,
    expected: "at least two different records, or a few rows of text",
    fix: "Give the held-out data as a file of its own, or train without.",
  });
}
