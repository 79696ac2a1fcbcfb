import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import type { RunConfig } from "../config/schema.js";
import { Batches } from "../data/batches.js";
import type { Batch } from "../data/batches.js";
import type { DataOptions, Dataset } from "../data/dataset.js";
import { openDataset } from "../data/dataset.js";
import type { LabelledDataset } from "../data/labelled.js";
import { openLabelled } from "../data/labelled.js";
import { tokensPrefix } from "../data/inputs.js";
import type { Tokenizer } from "../data/tokenizer.js";
import { must, ThimbleError } from "../errors.js";
import type { ComposedMethods } from "../methods/compose.js";
import type { SourceTable } from "../methods/examples.js";
import type { ModelDefinition } from "../models/types.js";
import type { SessionBatch } from "../session/types.js";
import { fingerprintFile } from "./fingerprint.js";
import type { BatchSource, FiniteBatches } from "./types.js";

/** The data of a run, open. */
export interface RunData {
  readonly dataset: Dataset;
  readonly batches: BatchSource;
  readonly heldOut?: FiniteBatches;
  /** What belongs to the rows of its batches, where the model has a task. */
  readonly labels?: Pick<LabelledDataset, "labelsOf" | "heldLabelsOf">;
  readonly tokenizer: Tokenizer | undefined;
  /** Digest of the files, the tokenizer and the settings that decide which tokens come when. */
  readonly fingerprint: string;
}

/** Whether the data is a file of token ids, which needs no tokenizer. */
export function isTokenData(config: Pick<RunConfig, "data">): boolean {
  return config.data.some((input) => input.startsWith(tokensPrefix));
}

/** What is held out where the settings do not say: some, if the run evaluates. */
export function holdoutOf({ holdout, evalEvery }: Pick<RunConfig, "holdout" | "evalEvery">): RunConfig["holdout"] {
  if (holdout === 0) return undefined;
  return holdout ?? (evalEvery > 0 ? 0.05 : undefined);
}

/**
 * Whether rows may hold several records, which must not see each other. Decided by the settings alone, so that a plan
 * without data is that of the run.
 */
export function needsSegments(config: RunConfig): boolean {
  if (config.rows === "padded") return false;
  if (config.data.length === 0) return config.rows === "packed";
  const holdout = typeof config.holdout === "string" ? [config.holdout] : [];
  const single = (inputs: readonly string[]): boolean => {
    const [input = "", ...others] = inputs;
    if (input.startsWith(tokensPrefix)) return true;
    const text = [".txt", ".md"].includes(extname(input).toLowerCase()) && !/[*?[\]{}()!]/.test(input);
    return text && others.length === 0 && config.documents !== "blank-lines" && config.rows !== "packed";
  };
  return !(single(config.data) && (holdout.length === 0 || single(holdout)));
}

/** The settings with rows of one record each, where a method needs that: chosen for it, or a refusal. */
export function rowsFor(config: RunConfig, methods: ComposedMethods | undefined): RunConfig {
  const method = methods?.methods.find(({ oneRecord }) => oneRecord !== undefined);
  if (method === undefined || !needsSegments(config)) return config;
  if (config.rows === undefined) return { ...config, rows: "padded" };
  throw new ThimbleError("rows-packed", `${method.id} needs rows of one record each: ${method.oneRecord ?? ""}`, {
    where: "rows",
    given: config.rows,
    expected: "padded",
    fix: "Leave the setting out, or set --rows padded.",
  });
}

/** The settings of the data, as the data's own code reads them. */
async function dataOptions(config: RunConfig): Promise<DataOptions> {
  const { data, batch, seq, seed, rows, overlong, order, format, documents, trainOn, template } = config;
  const given = {
    mode: rows,
    overlong,
    order,
    format,
    documents,
    trainOn,
    holdout: holdoutOf(config),
    chatTemplate: template === undefined ? undefined : await readTemplate(template),
  };
  const known = Object.entries(given).filter(([, value]) => value !== undefined);
  return { train: data, batch, sequence: seq, seed, ...Object.fromEntries(known) };
}

async function readTemplate(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new ThimbleError("config-template", "The chat template cannot be read", {
      where: path,
      given: error instanceof Error ? error.message : String(error),
      cause: error,
    });
  }
}

/**
 * Opens the data of a run and its held-out part: labelled records where the model has a task. `loadTokenizer` is called
 * unless the data is token ids.
 */
export async function openRunData(
  config: RunConfig,
  definition: ModelDefinition,
  loadTokenizer: () => Promise<Tokenizer>,
): Promise<RunData> {
  if (config.data.length === 0) {
    throw new ThimbleError("config-missing", "No data is given", {
      where: "--data",
      fix: "Name a text, JSONL or parquet file, such as --data text.txt, or --data tokens:FILE.",
    });
  }
  if (definition.task !== undefined) return openTaskData(config, definition, await loadTokenizer());
  const tokenizer = isTokenData(config) ? undefined : await loadTokenizer();
  const options = await dataOptions(config);
  const dataset = await openDataset({ ...options, vocabularySize: definition.vocabularySize }, tokenizer);
  const checked = (batches: Batches): BatchSource => ({
    batch: (index) => sessionBatch(batches.batch(index), definition.vocabularySize),
  });
  const { holdout } = dataset;
  return {
    dataset,
    tokenizer,
    batches: checked(dataset.train),
    ...(holdout === undefined ? {} : { heldOut: { ...checked(holdout), count: holdout.batchesPerEpoch } }),
    fingerprint: await fingerprintData(options, dataset, tokenizer),
  };
}

/** Settings of running text and conversations, which labelled records are not. */
const textKeys = ["overlong", "format", "documents", "trainOn", "template"] as const;

async function openTaskData(config: RunConfig, definition: ModelDefinition, tokenizer: Tokenizer): Promise<RunData> {
  const task = must(definition.task, "task");
  const { data, batch, seq: sequence, seed, order } = config;
  const strange = textKeys.find((key) => config[key] !== undefined);
  if (strange !== undefined || (config.rows ?? "padded") !== "padded" || isTokenData(config)) {
    const key = strange ?? (isTokenData(config) ? "data" : "rows");
    throw new ThimbleError("task-data", "The setting has no meaning for labelled records, one of which fills a row", {
      where: key,
      given: String(config[key]),
      fix: key === "data" ? "Give JSONL, CSV or parquet files of texts and labels." : "Leave it out.",
    });
  }
  const holdout = holdoutOf(config);
  const given = { train: data, sequence, batch, seed, task, ...(order === undefined ? {} : { order }) };
  const opened = await openLabelled(holdout === undefined ? given : { ...given, holdout }, tokenizer);
  const { dataset, labelsOf, heldLabelsOf } = opened;
  const told = (batches: Batches, labels: LabelledDataset["labelsOf"]): BatchSource => ({
    batch: (index) => {
      const rows = batches.batch(index);
      return { ...sessionBatch(rows, definition.vocabularySize), ...labels(rows) };
    },
  });
  const held = dataset.holdout;
  const files = await Promise.all(dataset.report.files.map(({ path }) => fingerprintFile(path)));
  const share = typeof holdout === "number" ? holdout : undefined;
  const facts = { files, order, share, tokenizer: tokenizer.fingerprint, task: [task.kind, ...task.labels] };
  return {
    dataset,
    labels: opened,
    tokenizer,
    batches: told(dataset.train, labelsOf),
    ...(held === undefined ? {} : { heldOut: { ...told(held, heldLabelsOf), count: held.batchesPerEpoch } }),
    fingerprint: createHash("sha256").update(JSON.stringify(facts)).digest("hex"),
  };
}

/** The sources of the training data, and how many rows come from each. */
export function sourceTable({ sources, train }: Dataset): SourceTable {
  const counts = train.countSources();
  return { names: sources, counts: sources.map((_, source) => counts[source] ?? 0) };
}

/** The held-out data of an open data set, or all of it, in order and once: what an evaluation goes through. */
export function evaluationBatches(
  { dataset, labels }: RunData,
  definition: ModelDefinition,
  limit?: number,
): FiniteBatches {
  const { train, holdout } = dataset;
  const settings = { batch: train.batchSize, sequence: train.sequence, endless: false };
  const batches = holdout ?? new Batches(train.source, train.rows, settings);
  return {
    count: Math.min(limit ?? Infinity, batches.batchesPerEpoch),
    batch: (index) => {
      const batch = batches.batch(index);
      const told = holdout === undefined ? labels?.labelsOf(batch) : labels?.heldLabelsOf(batch);
      return { ...sessionBatch(batch, definition.vocabularySize), ...told };
    },
  };
}

async function fingerprintData(
  options: DataOptions,
  { report }: Dataset,
  tokenizer: Tokenizer | undefined,
): Promise<string> {
  const files = await Promise.all(report.files.map(({ path }) => fingerprintFile(path)));
  const { mode, overlong, order, format, documents, trainOn, chatTemplate, holdout } = options;
  const settings = { mode, overlong, order, format, documents, trainOn, chatTemplate };
  const share = typeof holdout === "number" ? holdout : undefined;
  const facts = { files, settings, share, tokenizer: tokenizer?.fingerprint, template: tokenizer?.chatTemplate };
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex");
}

/** A batch as programs take it: every label is an id, and every id is one of the model's. */
function sessionBatch(batch: Batch, vocabularySize: number): SessionBatch {
  const { ids, labels, weights, positions, segments, sources } = batch;
  const strange = ids.find((id) => id < 0 || id >= vocabularySize);
  const label = labels.find((id) => id >= vocabularySize);
  if (strange !== undefined || label !== undefined) {
    throw new ThimbleError("data-token-range", "The data holds a token id that the model does not have", {
      given: `id ${strange ?? label ?? ""}`,
      expected: `ids below ${vocabularySize}`,
      fix: "Use data and a tokenizer that were made for this model.",
    });
  }
  // Where there is no next token, its weight is 0 and any id will do.
  return { ids, labels: labels.map((id) => Math.max(0, id)), weights, positions, segments, sources };
}
