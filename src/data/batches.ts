import { ThimbleError } from "../errors.js";
import { hasFollowingLabel } from "./rows.js";
import type { Piece, RowPlan } from "./rows.js";
import { Permutation } from "./shuffle.js";
import type { TokenSource } from "./token-source.js";

/** Where a piece of a record stands in a batch. */
export interface BatchPiece {
  /** Row of the batch. */
  readonly row: number;
  /** First position within the row. */
  readonly offset: number;
  readonly length: number;
  readonly record: number;
  /** First token within the record. */
  readonly start: number;
}

/** One micro-batch of `batch` rows of `sequence` tokens; all arrays are row-major [batch, sequence]. */
export interface Batch {
  readonly batch: number;
  readonly sequence: number;
  readonly ids: Int32Array;
  /** The id that follows each position, or -1 where there is none (end of a record, padding). */
  readonly labels: Int32Array;
  /** How much predicting each label counts; 0 where it is not trained or there is none. */
  readonly weights: Float32Array;
  /** Position within the piece, from 0 in each segment; 0 at padding. */
  readonly positions: Int32Array;
  /** Number of the piece within its row, from 0; -1 at padding. Tokens attend within their segment only. */
  readonly segments: Int32Array;
  /** Sum of `weights`: what the loss sum of a step is divided by, added up over its micro-batches. */
  readonly weightSum: number;
  readonly records: readonly BatchPiece[];
  /** Source of the first record of each row, [batch]; -1 for rows of padding. */
  readonly sources: Int32Array;
}

/** A place in an endless run over the data: the next row to be read. */
export interface DataPosition {
  readonly epoch: number;
  readonly index: number;
}

export interface BatchOptions {
  readonly batch: number;
  readonly sequence: number;
  /** Shuffles the rows anew in each epoch; without it they come in order. */
  readonly seed?: number;
  /** Whether the rows start over at the end. Otherwise the last batch is filled up with padding. Default true. */
  readonly endless?: boolean;
  /** The id that stands at padding, which nothing reads. Default 0. */
  readonly padding?: number;
}

/**
 * Batches by number, without hidden state: `batch(step)` is a pure function of the data, the options and the step.
 * Rows are counted through all epochs, so a batch may hold the end of one epoch and the start of the next.
 */
export class Batches {
  readonly rowsPerEpoch: number;
  readonly batchSize: number;
  readonly sequence: number;
  private readonly endless: boolean;
  private order: { epoch: number; permutation: Permutation } | undefined;

  constructor(
    readonly source: TokenSource,
    readonly rows: RowPlan,
    private readonly options: BatchOptions,
  ) {
    if (rows.rowCount === 0) throw noTrainedToken("The data gives no row with a trained token");
    this.rowsPerEpoch = rows.rowCount;
    this.batchSize = options.batch;
    this.sequence = options.sequence;
    this.endless = options.endless ?? true;
  }

  /** Batches in one pass over the data, the last one partly filled. */
  get batchesPerEpoch(): number {
    return Math.ceil(this.rowsPerEpoch / this.batchSize);
  }

  /** Where batch number `step` starts. */
  position(step: number): DataPosition {
    const row = step * this.batchSize;
    return { epoch: Math.floor(row / this.rowsPerEpoch), index: row % this.rowsPerEpoch };
  }

  /** The batch that starts at a position; `position(step)` and this are inverse to each other. */
  step(position: DataPosition): number {
    return (position.epoch * this.rowsPerEpoch + position.index) / this.batchSize;
  }

  /** Batch number `step` >= 0. */
  batch(step: number): Batch {
    const batch = emptyBatch(this.batchSize, this.sequence, this.options.padding ?? 0);
    const records: BatchPiece[] = [];
    const sources = new Int32Array(this.batchSize).fill(-1);
    let weightSum = 0;
    for (let row = 0; row < this.batchSize; row++) {
      const source = this.rowAt(step * this.batchSize + row);
      if (source === undefined) continue;
      sources[row] = this.sourceOfRow(source);
      weightSum += this.fillRow(batch, records, row, this.rows.pieces(source));
    }
    return { ...batch, weightSum, records, sources };
  }

  /** Rows of each source in one pass over the data, by the source of their first record. */
  countSources(): number[] {
    const counts: number[] = [];
    for (let row = 0; row < this.rowsPerEpoch; row++) {
      const source = this.sourceOfRow(row);
      while (counts.length <= source) counts.push(0);
      counts[source] = (counts[source] ?? 0) + 1;
    }
    return counts;
  }

  private sourceOfRow(row: number): number {
    const [first] = this.rows.pieces(row);
    return first === undefined ? -1 : this.source.sourceOf(first.record);
  }

  /** The row that is number `count` in the endless order, or undefined behind the end of a finite one. */
  private rowAt(count: number): number | undefined {
    const epoch = Math.floor(count / this.rowsPerEpoch);
    if (epoch > 0 && !this.endless) return undefined;
    const index = count % this.rowsPerEpoch;
    if (this.options.seed === undefined) return index;
    if (this.order?.epoch !== epoch) {
      this.order = { epoch, permutation: new Permutation(this.rowsPerEpoch, this.options.seed, epoch) };
    }
    return this.order.permutation.at(index);
  }

  private fillRow(batch: BatchArrays, records: BatchPiece[], row: number, pieces: readonly Piece[]): number {
    let [offset, weightSum] = [0, 0];
    pieces.forEach((piece, segment) => {
      weightSum += this.fillPiece(batch, row * this.sequence + offset, piece, segment);
      const start = piece.start - this.source.start(piece.record);
      records.push({ row, offset, length: piece.length, record: piece.record, start });
      offset += piece.length;
    });
    return weightSum;
  }

  private fillPiece(batch: BatchArrays, at: number, piece: Piece, segment: number): number {
    const { start, length } = piece;
    const follows = hasFollowingLabel(this.source, piece, this.rows.labelLimit) ? 1 : 0;
    const ids = new Int32Array(length + follows);
    this.source.readIds(start, ids);
    const weights = new Uint8Array(length + follows).fill(1);
    if (!this.source.allTrained) this.source.readWeights(start, weights);
    batch.ids.set(ids.subarray(0, length), at);
    batch.segments.fill(segment, at, at + length);
    let sum = 0;
    for (let i = 0; i < length; i++) {
      batch.positions[at + i] = i;
      if (i + 1 >= ids.length) continue;
      batch.labels[at + i] = ids[i + 1] ?? -1;
      const weight = weights[i + 1] ?? 0;
      batch.weights[at + i] = weight;
      sum += weight;
    }
    return sum;
  }
}

type BatchArrays = Pick<Batch, "batch" | "sequence" | "ids" | "labels" | "weights" | "positions" | "segments">;

function emptyBatch(batch: number, sequence: number, padding: number): BatchArrays {
  const size = batch * sequence;
  return {
    batch,
    sequence,
    ids: new Int32Array(size).fill(padding),
    labels: new Int32Array(size).fill(-1),
    weights: new Float32Array(size),
    positions: new Int32Array(size),
    segments: new Int32Array(size).fill(-1),
  };
}

/** The refusal of data in which nothing would be learnt. */
export function noTrainedToken(message: string, where?: string): ThimbleError {
  return new ThimbleError("data-no-trained-token", message, {
    ...(where === undefined ? {} : { where }),
    expected: "at least one token with a weight above 0 that follows another token of its record",
    fix: "Look at the tokens and their weights with `thimble data`, and check the format, --train-on and the template.",
  });
}
