import type { Batch, Batches } from "./batches.js";
import type { Dataset, DataReport } from "./dataset.js";
import type { TokenSource } from "./token-source.js";
import type { Tokenizer } from "./tokenizer.js";

/** One token of a row as it will be trained. */
export interface InspectedToken {
  readonly id: number;
  readonly text: string;
  /** How much predicting this token counts. */
  readonly weight: number;
  /** Whether a record, or a further part of one, starts here. */
  readonly startsPiece: boolean;
}

export interface InspectedRow {
  readonly tokens: readonly InspectedToken[];
  /** Positions without a token. */
  readonly padding: number;
  /** What is to be told of the row, where records have labels. */
  readonly label?: string;
}

/** How many records have from `from` to `to` tokens. */
export interface LengthBucket {
  readonly from: number;
  readonly to: number;
  readonly records: number;
}

/** What `thimble data` shows. */
export interface Inspection {
  readonly report: DataReport;
  readonly sequence: number;
  readonly lengths: { readonly shortest: number; readonly median: number; readonly longest: number };
  readonly histogram: readonly LengthBucket[];
  /** The first rows in the order of training. */
  readonly rows: readonly InspectedRow[];
}

/** Gathers what a user should see of the data before training on it. Without a tokenizer, ids stand for texts. */
export function inspectDataset(
  dataset: Dataset,
  tokenizer?: Tokenizer,
  rows = 2,
  labelsOf?: (batch: Batch) => readonly string[],
): Inspection {
  const { source } = dataset.train;
  const lengths = Float64Array.from({ length: source.recordCount }, (_, record) => lengthOf(source, record)).sort();
  const middle = lengths[lengths.length >>> 1] ?? 0;
  return {
    report: dataset.report,
    sequence: dataset.train.sequence,
    lengths: { shortest: lengths[0] ?? 0, median: middle, longest: lengths.at(-1) ?? 0 },
    histogram: histogram(lengths),
    rows: firstRows(dataset.train, tokenizer, rows, labelsOf),
  };
}

function lengthOf(source: TokenSource, record: number): number {
  return source.start(record + 1) - source.start(record);
}

/** Buckets that double in width: 1, 2-3, 4-7, ... */
function histogram(lengths: Float64Array): LengthBucket[] {
  const counts = new Map<number, number>();
  for (const length of lengths) {
    const bucket = length < 1 ? 0 : Math.floor(Math.log2(length));
    counts.set(bucket, (counts.get(bucket) ?? 0) + 1);
  }
  const used = [...counts.keys()];
  const [first, last] = [Math.min(...used), Math.max(...used)];
  return Array.from({ length: used.length === 0 ? 0 : last - first + 1 }, (_, index) => {
    const bucket = first + index;
    return { from: 2 ** bucket, to: 2 ** (bucket + 1) - 1, records: counts.get(bucket) ?? 0 };
  });
}

function firstRows(
  batches: Batches,
  tokenizer: Tokenizer | undefined,
  count: number,
  labelsOf: ((batch: Batch) => readonly string[]) | undefined,
): InspectedRow[] {
  const rows: InspectedRow[] = [];
  for (let step = 0; rows.length < Math.min(count, batches.rowsPerEpoch); step++) {
    const batch = batches.batch(step);
    const labels = labelsOf?.(batch);
    for (let row = 0; row < batch.batch && rows.length < count; row++) {
      const tokens: InspectedToken[] = [];
      for (let at = row * batch.sequence; at < (row + 1) * batch.sequence; at++) {
        if (batch.segments[at] === -1) continue;
        const startsPiece = batch.positions[at] === 0;
        const id = batch.ids[at] ?? 0;
        const text = tokenizer === undefined ? ` ${id}` : tokenizer.tokenText(id);
        // A token counts as the label of the position before it.
        const weight = startsPiece || labels !== undefined ? 0 : (batch.weights[at - 1] ?? 0);
        tokens.push({ id, text, weight, startsPiece });
      }
      const label = labels?.[row];
      rows.push({ tokens, padding: batch.sequence - tokens.length, ...(label === undefined ? {} : { label }) });
    }
  }
  return rows;
}
