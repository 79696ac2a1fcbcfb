import type { RunConfig } from "../config/schema.js";
import type { Inspection } from "../data/inspect.js";
import { inspectDataset } from "../data/inspect.js";
import type { Progress } from "../io/download.js";
import { openRunModel } from "./model.js";
import { openRunData } from "./run-data.js";

export interface InspectOptions {
  /** Called while a model is fetched. */
  readonly progress?: Progress | undefined;
  /** Rows to show. */
  readonly rows?: number;
}

/** What a run would train on, as `thimble data` shows it. Refuses data in which no token is trained. */
export async function inspectData(config: RunConfig, { progress, rows }: InspectOptions = {}): Promise<Inspection> {
  const model = await openRunModel(config.model, { progress });
  try {
    const data = await openRunData(config, model.files.definition, () => model.loadTokenizer());
    try {
      // Token files need no tokenizer to train on, but showing their text does.
      const tokenizer = data.tokenizer ?? (await model.loadTokenizer().catch(() => undefined));
      return inspectDataset(data.dataset, tokenizer, rows);
    } finally {
      data.dataset.close();
    }
  } finally {
    await model.files.weights.close();
  }
}
