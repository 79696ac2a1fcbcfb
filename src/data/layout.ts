import { splitRecords, splitStream } from "./holdout.js";
import { cutRecords, packedRows, paddedRows } from "./packing.js";
import type { Overlong, PackingReport } from "./packing.js";
import { pieceTargets, rowsWithTargets, windowRows } from "./rows.js";
import type { RowPlan, TokenRange } from "./rows.js";
import type { TokenSource } from "./token-source.js";

/** How records become rows: packed whole and kept apart, one a row, or cut from one running text. */
export type RowMode = "packed" | "padded" | "stream";

/** What became of one side of the data. */
export interface SideReport {
  readonly records: number;
  readonly tokens: number;
  /** Tokens that are predicted and counted in one epoch. */
  readonly trainedTokens: number;
  readonly rows: number;
  /** Share of the rows' positions that hold a token. */
  readonly efficiency: number;
  /** Absent for `stream`. */
  readonly packing?: PackingReport;
}

/** How to lay records into rows. */
export interface Layout {
  readonly mode: RowMode;
  readonly overlong: Overlong;
  readonly sequence: number;
  /** Token files: whole rows only, and labels stay within their row. */
  readonly raw: boolean;
}

/** One side of the data, laid into rows. */
export interface Side {
  readonly plan: RowPlan;
  readonly report: SideReport;
  /** Rows left out since nothing in them is trained. */
  readonly droppedRows: number;
  /** Tokens at the end that do not fill a row, where only whole rows are wanted. */
  readonly tail: number;
}

/** Lays the records into rows; with a fraction, the held-out ones apart from the others. */
export function lay(source: TokenSource, layout: Layout, holdout: number | undefined): { train: Side; held?: Side } {
  if (layout.mode === "stream") {
    if (holdout === undefined) return { train: layStream(source, layout, { start: 0, end: source.tokenCount }) };
    const split = splitStream(source, holdout, layout.sequence);
    return { train: layStream(source, layout, split.train), held: layStream(source, layout, split.held) };
  }
  const all = Int32Array.from({ length: source.recordCount }, (_, record) => record);
  if (holdout === undefined) return { train: layRecords(source, layout, all) };
  const split = splitRecords(source, holdout);
  return { train: layRecords(source, layout, split.train), held: layRecords(source, layout, split.held) };
}

function layStream(source: TokenSource, layout: Layout, range: TokenRange): Side {
  const { plan, dropped } = rowsWithTargets(windowRows(source, range, layout.sequence, !layout.raw), source);
  const tokens = range.end - range.start;
  const tail = layout.raw ? tokens % layout.sequence : 0;
  return { plan, report: sideReport(source, plan, layout, source.recordCount, tokens), droppedRows: dropped, tail };
}

function layRecords(source: TokenSource, layout: Layout, records: Int32Array): Side {
  const { pieces, report: packing } = cutRecords(source, records, layout.sequence, layout.overlong);
  const limit = layout.overlong === "split" ? source.tokenCount : 0;
  const plan = layout.mode === "packed" ? packedRows(pieces, layout.sequence, limit) : paddedRows(pieces, limit);
  const tokens = records.reduce((sum, record) => sum + source.start(record + 1) - source.start(record), 0);
  return {
    plan,
    report: { ...sideReport(source, plan, layout, records.length, tokens), packing },
    droppedRows: 0,
    tail: 0,
  };
}

function sideReport(source: TokenSource, plan: RowPlan, layout: Layout, records: number, tokens: number): SideReport {
  let [trainedTokens, filled] = [0, 0];
  for (let row = 0; row < plan.rowCount; row++) {
    for (const piece of plan.pieces(row)) {
      trainedTokens += pieceTargets(source, piece, plan.labelLimit);
      filled += piece.length;
    }
  }
  const positions = plan.rowCount * layout.sequence;
  return { records, tokens, trainedTokens, rows: plan.rowCount, efficiency: positions === 0 ? 0 : filled / positions };
}
