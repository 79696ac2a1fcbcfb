import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import type { RunConfig } from "../config/schema.js";
import { Batches } from "../data/batches.js";
import type { Batch } from "../data/batches.js";
import type { DataOptions, Dataset } from "../data/dataset.js";
import { openDataset } from "../data/dataset.js";
import { tokensPrefix } from "../data/inputs.js";
import type { Tokenizer } from "../data/tokenizer.js";
import { ThimbleError } from "../errors.js";
import type { ModelDefinition } from "../models/types.js";
import type { SessionBatch } from "../session/types.js";
import { fingerprintFile } from "./fingerprint.js";
import type { BatchSource, FiniteBatches } from "./types.js";

/** The data of a run, open. */
export interface RunData {
  readonly dataset: Dataset;
  readonly batches: BatchSource;
  readonly heldOut?: FiniteBatches;
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

/** Opens the data of a run and its held-out part. `loadTokenizer` is called unless the data is token ids. */
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

/** The held-out data of an open data set, or all of it, in order and once: what an evaluation goes through. */
export function evaluationBatches({ dataset }: RunData, definition: ModelDefinition, limit?: number): FiniteBatches {
  const { train, holdout } = dataset;
  const settings = { batch: train.batchSize, sequence: train.sequence, endless: false };
  const batches = holdout ?? new Batches(train.source, train.rows, settings);
  return {
    count: Math.min(limit ?? Infinity, batches.batchesPerEpoch),
    batch: (index) => sessionBatch(batches.batch(index), definition.vocabularySize),
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
  const { ids, labels, weights, positions, segments } = batch;
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
  return { ids, labels: labels.map((id) => Math.max(0, id)), weights, positions, segments };
}
