import { recordAt } from "./token-source.js";
import type { TokenSource } from "./token-source.js";

/** A run of tokens of one record that lies in one row. */
export interface Piece {
  readonly record: number;
  /** Offset in the token source. */
  readonly start: number;
  readonly length: number;
}

/** Which tokens stand in which row of `sequence` tokens; a row's pieces stand one after the other from its start. */
export interface RowPlan {
  readonly rowCount: number;
  pieces(row: number): readonly Piece[];
  /**
   * A row's last token may be asked for the token that follows it in its record but not in the row, if that token lies
   * before this offset of the source. 0: labels stay within the row.
   */
  readonly labelLimit: number;
}

/** A range of tokens of a source: [start, end). */
export interface TokenRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Contiguous windows of `sequence` tokens over a range, one after the other. With labels that leave the row, every
 * token but the first is predicted exactly once, and a shorter window at the end counts; without (raw token files),
 * only whole windows are rows.
 */
export function windowRows(source: TokenSource, range: TokenRange, sequence: number, labelsLeaveRow: boolean): RowPlan {
  const labelLimit = labelsLeaveRow ? range.end : 0;
  const count = range.end - range.start;
  const rowCount = labelsLeaveRow ? Math.ceil(Math.max(0, count - 1) / sequence) : Math.floor(count / sequence);
  const pieces = (row: number): Piece[] => {
    const list: Piece[] = [];
    const end = Math.min(range.start + (row + 1) * sequence, range.end);
    let start = range.start + row * sequence;
    let record = recordAt(source, start);
    while (start < end) {
      const length = Math.min(end, source.start(record + 1)) - start;
      if (length > 0) list.push({ record, start, length });
      start += length;
      record++;
    }
    return list;
  };
  return { rowCount, pieces, labelLimit };
}

/** The rows of a plan that are listed, in that order. */
export function chosenRows(plan: RowPlan, rows: Int32Array): RowPlan {
  return { ...plan, rowCount: rows.length, pieces: (row) => plan.pieces(rows[row] ?? 0) };
}

/** The rows of a plan that have at least one trained target, and how many were left out. */
export function rowsWithTargets(plan: RowPlan, source: TokenSource): { plan: RowPlan; dropped: number } {
  if (source.allTrained) return { plan, dropped: 0 };
  const kept: number[] = [];
  for (let row = 0; row < plan.rowCount; row++) {
    if (plan.pieces(row).some((piece) => pieceTargets(source, piece, plan.labelLimit) > 0)) kept.push(row);
  }
  const dropped = plan.rowCount - kept.length;
  return dropped === 0 ? { plan, dropped } : { plan: chosenRows(plan, Int32Array.from(kept)), dropped };
}

/** Whether the token behind a piece is a label of the piece's last token. */
export function hasFollowingLabel(source: TokenSource, piece: Piece, labelLimit: number): boolean {
  const next = piece.start + piece.length;
  return next < labelLimit && next < source.start(piece.record + 1);
}

/** How many trained targets a piece gives: weighted tokens after its first one, and the one that follows it. */
export function pieceTargets(source: TokenSource, piece: Piece, labelLimit: number): number {
  const count = piece.length - 1 + (hasFollowingLabel(source, piece, labelLimit) ? 1 : 0);
  if (source.allTrained || count <= 0) return Math.max(count, 0);
  const [start, end] = [source.start(piece.record), source.start(piece.record + 1)];
  if (piece.start === start && piece.start + piece.length === end) return source.targets(piece.record);
  const weights = new Uint8Array(count);
  source.readWeights(piece.start + 1, weights);
  return weights.reduce((sum, weight) => sum + weight, 0);
}
