import type { RunConfig } from "../config/schema.js";
import type { Batch } from "../data/batches.js";
import type { Inspection } from "../data/inspect.js";
import { inspectDataset } from "../data/inspect.js";
import type { Progress } from "../io/download.js";
import type { ModelDefinition } from "../models/types.js";
import { openRunModel } from "./model.js";
import type { RunData } from "./run-data.js";
import { openRunData } from "./run-data.js";

export interface InspectOptions {
  /** Called while a model is fetched. */
  readonly progress?: Progress | undefined;
  /** Rows to show. */
  readonly rows?: number;
}

/** What is to be told of each row of a batch, as text. */
function labelNames({ labels }: RunData, { task }: ModelDefinition): ((batch: Batch) => string[]) | undefined {
  if (labels === undefined || task === undefined) return undefined;
  return (batch) => {
    const told = labels.labelsOf(batch);
    if (task.kind === "regression") return Array.from(told.targets, (target) => String(target));
    return Array.from(told.labels, (label) => task.labels[label] ?? String(label));
  };
}

/** What a run would train on, as `thimble data` shows it. Refuses data in which no token is trained. */
export async function inspectData(config: RunConfig, { progress, rows }: InspectOptions = {}): Promise<Inspection> {
  const model = await openRunModel(config.model, { progress, run: config });
  try {
    const data = await openRunData(config, model.files.definition, () => model.loadTokenizer());
    try {
      // Token files need no tokenizer to train on, but showing their text does.
      const tokenizer = data.tokenizer ?? (await model.loadTokenizer().catch(() => undefined));
      return inspectDataset(data.dataset, tokenizer, rows, labelNames(data, model.files.definition));
    } finally {
      data.dataset.close();
    }
  } finally {
    await model.files.weights.close();
  }
}
