/** Data whose records have a label each: one record a row, padded. */
import { basename } from "node:path";
import { ThimbleError } from "../errors.js";
import type { ModelTask } from "../models/types.js";
import type { Batch } from "./batches.js";
import { Batches } from "./batches.js";
import type { DataOptions, DataReport, Dataset } from "./dataset.js";
import { countDuplicates, countShared } from "./holdout.js";
import { findInputs } from "./inputs.js";
import type { InputFile } from "./inputs.js";
import { classOf, labelledRecords, numberOf } from "./labelled-records.js";
import { lay } from "./layout.js";
import { MemoryTokens } from "./token-source.js";
import type { TokenRecord } from "./token-source.js";
import type { Tokenizer } from "./tokenizer.js";

export interface LabelledOptions extends Pick<
  DataOptions,
  "train" | "holdout" | "sequence" | "batch" | "seed" | "order"
> {
  readonly task: ModelTask;
}

/** Records as token ids, with what belongs to each. */
interface LabelledTokens {
  readonly tokens: MemoryTokens;
  /** The number of its class, or the number to tell. */
  readonly labels: Float64Array;
  /** Where its second text begins; its length where there is none. */
  readonly seconds: Int32Array;
  readonly files: readonly { readonly path: string; readonly records: number }[];
  readonly truncated: number;
}

/** What a batch of labelled records holds beside its tokens. */
export interface RowLabels {
  /** Numbers of the classes, i32 [batch]; 0 in a regression and at rows of padding. */
  readonly labels: Int32Array;
  /** Numbers to tell, f32 [batch]. */
  readonly targets: Float32Array;
  /** 1 for each row with a record, f32 [batch]. */
  readonly weights: Float32Array;
  /** 1 at tokens of second texts, i32 [batch, sequence]. */
  readonly types: Int32Array;
}

export interface LabelledDataset {
  readonly dataset: Dataset;
  /** What belongs to the rows of a batch of `dataset.train`, and of `dataset.holdout`. */
  readonly labelsOf: (batch: Batch) => RowLabels;
  readonly heldLabelsOf: (batch: Batch) => RowLabels;
}

/** Reads and tokenises labelled data; all of it stays in memory. Longer records are cut off at the row's end. */
export async function openLabelled(options: LabelledOptions, tokenizer: Tokenizer): Promise<LabelledDataset> {
  const { holdout, sequence, batch } = options;
  const train = await readLabelled(await findInputs([options.train].flat()), options, tokenizer);
  const separate =
    holdout === undefined || typeof holdout === "number"
      ? undefined
      : await readLabelled(await findInputs([holdout].flat()), options, tokenizer);
  const layout = { mode: "padded", overlong: "truncate", sequence, raw: false } as const;
  const sides = lay(train.tokens, layout, typeof holdout === "number" ? holdout : undefined);
  const held = separate === undefined ? sides.held : lay(separate.tokens, layout, undefined).train;
  const shape = { batch, sequence, padding: tokenizer.special.pad ?? 0 };
  const order = options.order === "sequential" ? {} : { seed: options.seed };
  const heldData = separate ?? train;
  const duplicates = countDuplicates(train.tokens);
  const report: DataReport = {
    format: "labelled text",
    files: [...train.files, ...(separate?.files ?? [])],
    mode: "padded",
    train: sides.train.report,
    ...(held === undefined ? {} : { holdout: held.report }),
    empty: 0,
    duplicates,
    notices: [...tokenizer.notices, ...notices(train, separate, duplicates)],
  };
  const dataset: Dataset = {
    train: new Batches(train.tokens, sides.train.plan, { ...shape, ...order }),
    ...(held === undefined ? {} : { holdout: new Batches(heldData.tokens, held.plan, { ...shape, endless: false }) }),
    report,
    sources: train.files.map(({ path }) => basename(path)),
    close: () => undefined,
  };
  return {
    dataset,
    labelsOf: (rows) => rowLabels(rows, train, options.task),
    heldLabelsOf: (rows) => rowLabels(rows, heldData, options.task),
  };
}

async function readLabelled(
  files: readonly InputFile[],
  { task, sequence }: LabelledOptions,
  tokenizer: Tokenizer,
): Promise<LabelledTokens> {
  const records: TokenRecord[] = [];
  const labels: number[] = [];
  const seconds: number[] = [];
  const counts: { path: string; records: number }[] = [];
  let truncated = 0;
  for (const [source, file] of files.entries()) {
    const before = records.length;
    for await (const record of labelledRecords([file])) {
      const encoded = tokenizer.encodePair(record.text, record.pair, sequence);
      if (encoded.truncated) truncated++;
      records.push({ ids: Int32Array.from(encoded.ids), source });
      seconds.push(encoded.second);
      labels.push(task.kind === "regression" ? numberOf(record) : classOf(record, task.labels));
    }
    counts.push({ path: file.path, records: records.length - before });
  }
  if (records.length === 0) {
    throw new ThimbleError("data-labels", "The data holds no records", {
      given: files.map(({ path }) => path).join(", "),
      expected: "records with a text and a label",
      fix: "Check that this is the file that was meant.",
    });
  }
  return {
    tokens: new MemoryTokens(records),
    labels: Float64Array.from(labels),
    seconds: Int32Array.from(seconds),
    files: counts,
    truncated,
  };
}

function notices(train: LabelledTokens, separate: LabelledTokens | undefined, duplicates: number): string[] {
  const shared = separate === undefined ? 0 : countShared(separate.tokens, train.tokens);
  const cut = train.truncated + (separate?.truncated ?? 0);
  return [
    ...(duplicates > 0 ? [`${duplicates} records repeat an earlier one.`] : []),
    ...(shared > 0 ? [`${shared} training records also occur in the held-out data.`] : []),
    ...(cut > 0 ? [`${cut} records are longer than a row and were cut off.`] : []),
  ];
}

function rowLabels(batch: Batch, { labels, seconds }: LabelledTokens, { kind }: ModelTask): RowLabels {
  const made: RowLabels = {
    labels: new Int32Array(batch.batch),
    targets: new Float32Array(batch.batch),
    weights: new Float32Array(batch.batch),
    types: new Int32Array(batch.batch * batch.sequence),
  };
  for (const { row, offset, length, record } of batch.records) {
    const label = labels[record] ?? 0;
    if (kind === "regression") made.targets[row] = label;
    else made.labels[row] = label;
    made.weights[row] = 1;
    const start = row * batch.sequence + offset;
    made.types.fill(1, start + Math.min(length, seconds[record] ?? length), start + length);
  }
  return made;
}
