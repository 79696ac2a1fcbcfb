import { pieceTargets } from "./rows.js";
import type { Piece, RowPlan } from "./rows.js";
import type { TokenSource } from "./token-source.js";

/** What to do with a record that is longer than a row. */
export type Overlong = "split" | "truncate" | "drop";

/** What became of the records on their way into rows. */
export interface PackingReport {
  /** Records longer than a row that were split into several pieces, cut off, or left out. */
  readonly split: number;
  readonly truncated: number;
  readonly dropped: number;
  /** Records, or pieces of them, that were left out since no token of theirs is trained. */
  readonly untrained: number;
  /** Tokens that are in no row because of the above. */
  readonly tokensLost: number;
}

/** Pieces by three columns, so that millions of records need no objects. */
interface PieceTable {
  readonly record: number[];
  readonly start: number[];
  readonly length: number[];
}

/** Cuts the records into pieces of at most `sequence` tokens that have something to train on. */
export function cutRecords(
  source: TokenSource,
  records: Iterable<number>,
  sequence: number,
  overlong: Overlong,
): { pieces: PieceTable; report: PackingReport } {
  const pieces: PieceTable = { record: [], start: [], length: [] };
  const report = { split: 0, truncated: 0, dropped: 0, untrained: 0, tokensLost: 0 };
  const labelLimit = overlong === "split" ? source.tokenCount : 0;
  const add = (piece: Piece): void => {
    if (pieceTargets(source, piece, labelLimit) > 0) {
      pieces.record.push(piece.record);
      pieces.start.push(piece.start);
      pieces.length.push(piece.length);
      return;
    }
    report.untrained++;
    report.tokensLost += piece.length;
  };
  for (const record of records) {
    const start = source.start(record);
    const length = source.start(record + 1) - start;
    if (length <= sequence) {
      add({ record, start, length });
    } else if (overlong === "split") {
      report.split++;
      // A last piece of one token would have no target of its own: the piece before already predicts it.
      for (let at = 0; at < length - 1; at += sequence) {
        add({ record, start: start + at, length: Math.min(sequence, length - at) });
      }
    } else if (overlong === "truncate") {
      report.truncated++;
      report.tokensLost += length - sequence;
      add({ record, start, length: sequence });
    } else {
      report.dropped++;
      report.tokensLost += length;
    }
  }
  return { pieces, report };
}

/** One piece a row. */
export function paddedRows(pieces: PieceTable, labelLimit: number): RowPlan {
  return planOf(
    pieces,
    Int32Array.from(pieces.record, (_, index) => index),
    rowStarts(pieces.record.map(() => 1)),
    labelLimit,
  );
}

/**
 * Best fit, longest first: each piece goes into the fullest row that still has room for it. Never splits a piece.
 * Rows with equal room are taken last in, first out; pieces of equal length in the order of the records.
 */
export function packedRows(pieces: PieceTable, sequence: number, labelLimit: number): RowPlan {
  const order = Int32Array.from(pieces.length, (_, index) => index);
  order.sort((a, b) => (pieces.length[b] ?? 0) - (pieces.length[a] ?? 0) || a - b);
  const open = new OpenRows(sequence);
  const rows: number[][] = [];
  for (const piece of order) {
    const length = pieces.length[piece] ?? 0;
    const found = open.take(length);
    const row = found?.row ?? rows.length;
    if (found === undefined) rows.push([]);
    rows[row]?.push(piece);
    open.put(row, (found?.room ?? sequence) - length);
  }
  return planOf(pieces, Int32Array.from(rows.flat()), rowStarts(rows.map((row) => row.length)), labelLimit);
}

/** Rows by the room that is left in them, with a tree of counts to find the least room that is enough. */
class OpenRows {
  private readonly size: number;
  private readonly counts: Int32Array;
  private readonly stacks = new Map<number, number[]>();

  constructor(sequence: number) {
    this.size = 2 ** Math.ceil(Math.log2(sequence + 1));
    this.counts = new Int32Array(2 * this.size);
  }

  put(row: number, room: number): void {
    if (room === 0) return;
    const stack = this.stacks.get(room);
    if (stack === undefined) this.stacks.set(room, [row]);
    else stack.push(row);
    this.change(room, 1);
  }

  take(needed: number): { row: number; room: number } | undefined {
    const room = this.leastRoom(needed);
    const row = room === undefined ? undefined : this.stacks.get(room)?.pop();
    if (room === undefined || row === undefined) return undefined;
    this.change(room, -1);
    return { row, room };
  }

  private change(room: number, by: number): void {
    for (let node = this.size + room; node > 0; node >>= 1) this.counts[node] = (this.counts[node] ?? 0) + by;
  }

  /** The least room of at least `needed` that some row has. */
  private leastRoom(needed: number): number | undefined {
    let node = this.size + needed;
    if (this.has(node)) return needed;
    // Up to the first subtree to the right that is not empty, then down to its leftmost leaf.
    while (node > 1 && (node % 2 === 1 || !this.has(node + 1))) node >>= 1;
    if (node <= 1) return undefined;
    node++;
    while (node < this.size) node = this.has(2 * node) ? 2 * node : 2 * node + 1;
    return node - this.size;
  }

  private has(node: number): boolean {
    return (this.counts[node] ?? 0) > 0;
  }
}

function rowStarts(lengths: readonly number[]): Int32Array {
  const starts = new Int32Array(lengths.length + 1);
  lengths.forEach((length, row) => (starts[row + 1] = (starts[row] ?? 0) + length));
  return starts;
}

function planOf(pieces: PieceTable, order: Int32Array, starts: Int32Array, labelLimit: number): RowPlan {
  return {
    rowCount: starts.length - 1,
    labelLimit,
    pieces: (row) =>
      Array.from(order.subarray(starts[row], starts[row + 1]), (index) => ({
        record: pieces.record[index] ?? 0,
        start: pieces.start[index] ?? 0,
        length: pieces.length[index] ?? 0,
      })),
  };
}
