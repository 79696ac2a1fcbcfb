import { basename } from "node:path";
import { ThimbleError } from "../errors.js";
import { Batches, noTrainedToken } from "./batches.js";
import { cacheKey, dataCacheDirectory, openCache } from "./cache.js";
import type { CachedTokens } from "./cache.js";
import { cacheVersion, fileDigest } from "./cache-files.js";
import { countDuplicates, countShared } from "./holdout.js";
import { ingest } from "./ingest.js";
import type { IngestOptions, IngestReport } from "./ingest.js";
import { findInputs, tokensPrefix } from "./inputs.js";
import type { JsonObject } from "./json.js";
import { lay } from "./layout.js";
import type { RowMode, Side, SideReport } from "./layout.js";
import type { Overlong } from "./packing.js";
import { RawTokens } from "./raw-tokens.js";
import { endIds } from "./tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";

export interface DataOptions extends IngestOptions {
  /** Paths and glob patterns of one kind of data, or `tokens:FILE`. */
  readonly train: string | readonly string[];
  /** Data to evaluate on: a fraction of the training data, or files of its own. */
  readonly holdout?: number | string | readonly string[];
  /** Default: `stream` for text and token files, else `packed`. */
  readonly mode?: RowMode;
  /** Default: text is split, other records are truncated. */
  readonly overlong?: Overlong;
  /** Default: `sequential` for token files, else `shuffled`. */
  readonly order?: "shuffled" | "sequential";
  /** Tokens a row. */
  readonly sequence: number;
  /** Rows a batch. */
  readonly batch: number;
  readonly seed: number;
  /** Ids of token files must be below it; default that of the tokenizer. */
  readonly vocabularySize?: number;
  /** Default: the user's cache directory. */
  readonly cacheDirectory?: string;
}

export interface DataReport {
  /** The format of the records, `plain text`, `labelled text` or `token ids`. */
  readonly format: IngestReport["format"] | "labelled text" | "token ids";
  readonly files: IngestReport["files"];
  readonly mode: RowMode;
  readonly train: SideReport;
  readonly holdout?: SideReport;
  readonly empty: number;
  readonly duplicates: number;
  readonly notices: readonly string[];
}

export type { RowMode, SideReport } from "./layout.js";

export interface Dataset {
  readonly train: Batches;
  /** In order, once through, the last batch filled up with padding. */
  readonly holdout?: Batches;
  readonly report: DataReport;
  /** Where the training records come from, by number: what their field `source` says, else the name of their file. */
  readonly sources: readonly string[];
  /** Closes the files. */
  close(): void;
}

/**
 * Opens data for training: finds the files, tokenises them once (cached on disk), and lays the records into rows.
 * A tokenizer is needed for all but token files, where it serves to check the ids.
 */
export async function openDataset(options: DataOptions, tokenizer?: Tokenizer): Promise<Dataset> {
  const train = await openSource(toList(options.train), options, tokenizer);
  const held = isFiles(options.holdout) ? await openSource(toList(options.holdout), options, tokenizer) : undefined;
  return assemble(options, train, held, tokenizer);
}

interface OpenSource {
  readonly tokens: CachedTokens | RawTokens;
  readonly report: Omit<IngestReport, "format"> & { readonly format: DataReport["format"] };
}

async function openSource(
  inputs: readonly string[],
  options: DataOptions,
  tokenizer: Tokenizer | undefined,
): Promise<OpenSource> {
  const [first = "", ...others] = inputs;
  if (inputs.some((input) => input.startsWith(tokensPrefix))) {
    if (others.length > 0) throw usage("A token file cannot be joined with other data", inputs.join(", "));
    const tokens = new RawTokens(first.slice(tokensPrefix.length), options.vocabularySize ?? tokenizer?.vocabularySize);
    try {
      tokens.checkIds();
    } catch (error) {
      tokens.close();
      throw error;
    }
    const files = [{ path: tokens.path, records: 1 }];
    return { tokens, report: { format: "token ids", files, empty: 0, ignoredFields: [], sources: [0], notices: [] } };
  }
  if (tokenizer === undefined) throw usage("Text needs a tokenizer", first);
  const files = await findInputs(inputs);
  const { onProgress, format, documents, trainOn, chatTemplate } = options;
  const contents = await Promise.all(files.map(async ({ path, kind }) => [kind, await fileDigest(path)]));
  const facts = { cacheVersion, contents, tokenizer: tokenizer.fingerprint, special: { ...tokenizer.special } };
  const template = chatTemplate ?? tokenizer.chatTemplate;
  const key = cacheKey({ ...facts, template, format, documents, trainOn });
  const directory = options.cacheDirectory ?? dataCacheDirectory();
  const { tokens, state } = await openCache(
    directory,
    key,
    tokenizer.vocabularySize <= 1 << 16 ? 2 : 4,
    async (writer) => {
      const settings = { format, documents, trainOn, chatTemplate, onProgress };
      return toJson(await ingest(files, tokenizer, withoutUndefined(settings), writer));
    },
  );
  const report = tokens.report as unknown as IngestReport;
  const remade = state === "remade" ? ["The cache of tokenised data was damaged and has been made again."] : [];
  const named = report.files.map((file, index) => ({ ...file, path: files[index]?.path ?? file.path }));
  return { tokens, report: { ...report, files: named, notices: [...report.notices, ...remade] } };
}

function assemble(
  options: DataOptions,
  train: OpenSource,
  held: OpenSource | undefined,
  tokenizer?: Tokenizer,
): Dataset {
  const raw = train.report.format === "token ids";
  const mode = options.mode ?? (raw || train.report.format === "plain text" ? "stream" : "packed");
  const overlong = options.overlong ?? (/text/.test(train.report.format) ? "split" : "truncate");
  const layout = { mode, overlong, sequence: options.sequence, raw };
  const fraction = typeof options.holdout === "number" ? options.holdout : undefined;
  const sides = lay(train.tokens, layout, fraction);
  const heldSide = held === undefined ? sides.held : lay(held.tokens, layout, undefined).train;
  const shuffled = (options.order ?? (raw ? "sequential" : "shuffled")) === "shuffled";
  const shape = { batch: options.batch, sequence: options.sequence, padding: paddingOf(tokenizer) };
  if (sides.train.report.trainedTokens === 0) throw nothingToTrain(train, toList(options.train)[0]);
  const heldTokens = held?.tokens ?? train.tokens;
  const batches = new Batches(train.tokens, sides.train.plan, shuffled ? { ...shape, seed: options.seed } : shape);
  const evaluation =
    heldSide === undefined ? {} : { holdout: new Batches(heldTokens, heldSide.plan, { ...shape, endless: false }) };
  const duplicates = countDuplicates(train.tokens);
  const shared = held === undefined ? 0 : countShared(held.tokens, train.tokens);
  const report: DataReport = {
    format: train.report.format,
    files: [...train.report.files, ...(held?.report.files ?? [])],
    mode,
    train: sides.train.report,
    ...(heldSide === undefined ? {} : { holdout: heldSide.report }),
    empty: train.report.empty + (held?.report.empty ?? 0),
    duplicates,
    notices: [...train.report.notices, ...countNotices(train.report, sides.train, duplicates, shared)],
  };
  const close = (): void => {
    train.tokens.close();
    held?.tokens.close();
  };
  return { train: batches, ...evaluation, report, sources: sourceNames(train.report), close };
}

/** A file is called by its last part, or by its whole path where that says no more. */
function sourceNames({ files, sources }: OpenSource["report"]): string[] {
  const short = files.map(({ path }) => basename(path));
  return sources.map((source) => {
    if (typeof source === "string") return source;
    const name = short[source] ?? "";
    return short.filter((other) => other === name).length > 1 ? (files[source]?.path ?? name) : name;
  });
}

function nothingToTrain({ tokens, report }: OpenSource, where: string | undefined): ThimbleError {
  if (tokens.tokenCount > 0) return noTrainedToken("No token of the data is trained", where);
  return new ThimbleError("data-no-trained-token", "The data holds no text", {
    ...(where === undefined ? {} : { where }),
    given: report.empty > 0 ? `${report.empty} records, all of them empty` : "no records",
    fix: "Check that this is the file that was meant, and that it was written to its end.",
  });
}

function countNotices(report: OpenSource["report"], side: Side, duplicates: number, shared: number): string[] {
  const { packing } = side.report;
  const notes: [number, (count: number) => string][] = [
    [report.empty, (count) => `${count} empty records were left out.`],
    [duplicates, (count) => `${count} records repeat an earlier one.`],
    [shared, (count) => `${count} training records also occur in the held-out data.`],
    [packing?.truncated ?? 0, (count) => `${count} records are longer than a row and were cut off.`],
    [packing?.split ?? 0, (count) => `${count} records are longer than a row and were split.`],
    [packing?.dropped ?? 0, (count) => `${count} records are longer than a row and were left out.`],
    [
      packing?.untrained ?? 0,
      (count) => `${count} records or parts of records have no trained token and were left out.`,
    ],
    [side.tail, (count) => `The last ${count} tokens do not fill a row and are not used.`],
    [side.droppedRows, (count) => `${count} rows have no trained token and were left out.`],
  ];
  const ignored =
    report.ignoredFields.length === 0 ? [] : [`Fields that are not used: ${report.ignoredFields.join(", ")}.`];
  return [...ignored, ...notes.filter(([count]) => count > 0).map(([count, text]) => text(count))];
}

function paddingOf(tokenizer: Tokenizer | undefined): number {
  return tokenizer?.special.pad ?? (tokenizer === undefined ? undefined : endIds(tokenizer.special)[0]) ?? 0;
}

function toList(value: string | readonly string[]): readonly string[] {
  return typeof value === "string" ? [value] : value;
}

function isFiles(value: DataOptions["holdout"]): value is string | readonly string[] {
  return value !== undefined && typeof value !== "number";
}

function toJson(report: IngestReport): JsonObject {
  return { ...report };
}

function withoutUndefined<T extends object>(value: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as T;
}

function usage(message: string, given: string): ThimbleError {
  return new ThimbleError("data-usage", message, { given, fix: "Give text with a model, or one tokens:FILE." });
}
