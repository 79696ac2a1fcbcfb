/** Tokenised records in one address space: record r holds the tokens [start(r), start(r + 1)). Reads are by range. */
export interface TokenSource {
  readonly tokenCount: number;
  readonly recordCount: number;
  /** Offset of the record's first token; `start(recordCount)` is `tokenCount`. */
  start(record: number): number;
  /** How many tokens of the record are predicted and counted: weighted ones, the record's first left out. */
  targets(record: number): number;
  /** A number that is equal for records with equal tokens and weights. */
  hash(record: number): number;
  /** Number of the source that the record comes from, from 0. */
  sourceOf(record: number): number;
  /** Whether every token counts, so that weights need not be read. */
  readonly allTrained: boolean;
  /** Token ids of [start, start + into.length). */
  readIds(start: number, into: Int32Array): void;
  /** Weights (0 or 1) of [start, start + into.length). */
  readWeights(start: number, into: Uint8Array): void;
}

/** Takes tokens, record by record. */
export interface TokenSink {
  /** Tokens and complete records so far. */
  readonly tokens: number;
  readonly records: number;
  /** Appends tokens to the current record; without weights all of them count. */
  add(ids: ArrayLike<number>, weights?: ArrayLike<number>): void;
  /** Ends the current record, which comes from source number `source` (0 if not given). */
  endRecord(source?: number): void;
}

/** A record before it is stored: ids, and weights (0 or 1) unless all are 1. */
export interface TokenRecord {
  readonly ids: ArrayLike<number>;
  readonly weights?: ArrayLike<number>;
  readonly source?: number;
}

/** A token source in memory, for small sets, tests and the browser. */
export class MemoryTokens implements TokenSource {
  readonly tokenCount: number;
  readonly recordCount: number;
  readonly allTrained: boolean;
  private readonly starts: Float64Array;
  private readonly ids: Int32Array;
  private readonly weights: Uint8Array;
  private readonly trained: number[] = [];
  private readonly hashes: number[] = [];
  private readonly sources: readonly number[];

  constructor(records: readonly TokenRecord[]) {
    this.recordCount = records.length;
    this.sources = records.map(({ source = 0 }) => source);
    this.starts = new Float64Array(records.length + 1);
    records.forEach((record, index) => (this.starts[index + 1] = (this.starts[index] ?? 0) + record.ids.length));
    this.tokenCount = this.starts[records.length] ?? 0;
    this.ids = new Int32Array(this.tokenCount);
    this.weights = new Uint8Array(this.tokenCount).fill(1);
    records.forEach((record, index) => {
      const start = this.start(index);
      this.ids.set(record.ids, start);
      if (record.weights !== undefined) this.weights.set(record.weights, start);
      const hash = new RecordHash();
      for (let i = start; i < start + record.ids.length; i++) hash.add(this.ids[i] ?? 0, this.weights[i] ?? 0);
      this.trained.push(hash.targets);
      this.hashes.push(hash.value);
    });
    this.allTrained = !this.weights.includes(0);
  }

  start(record: number): number {
    return this.starts[record] ?? 0;
  }

  targets(record: number): number {
    return this.trained[record] ?? 0;
  }

  hash(record: number): number {
    return this.hashes[record] ?? 0;
  }

  sourceOf(record: number): number {
    return this.sources[record] ?? 0;
  }

  readIds(start: number, into: Int32Array): void {
    into.set(this.ids.subarray(start, start + into.length));
  }

  readWeights(start: number, into: Uint8Array): void {
    into.set(this.weights.subarray(start, start + into.length));
  }
}

/** Hash and target count of a record, token by token: two FNV-1a lanes of 32 bits, 53 bits of which are the value. */
export class RecordHash {
  targets = 0;
  private length = 0;
  private low = 0x811c9dc5;
  private high = 0x01000193;

  add(id: number, weight: number): void {
    if (this.length > 0 && weight !== 0) this.targets++;
    this.length++;
    const value = id * 2 + weight;
    this.low = Math.imul(this.low ^ value, 0x01000193);
    this.high = Math.imul(this.high ^ value, 0x5bd1e995) ^ (this.low >>> 15);
  }

  get value(): number {
    const low = finalize(this.low ^ this.length);
    return (finalize(this.high ^ low) >>> 11) * 2 ** 32 + low;
  }
}

/** murmur3's finalizer, so that values are spread evenly over their range. */
function finalize(value: number): number {
  let hash = value >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** The record that holds a token: the last one that starts at or before it and is not empty. */
export function recordAt(source: TokenSource, token: number): number {
  let [low, high] = [0, source.recordCount];
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (source.start(middle) <= token) low = middle;
    else high = middle;
  }
  return low;
}
