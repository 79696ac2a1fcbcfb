/** What an encoder's head tells in a run: from the settings, the adapter, the checkpoint or the data, in this order. */
import { join } from "node:path";
import { z } from "zod";
import type { RunConfig } from "../config/schema.js";
import { findInputs, tokensPrefix } from "../data/inputs.js";
import type { DataTask } from "../data/labelled-records.js";
import { taskOfData } from "../data/labelled-records.js";
import { ThimbleError } from "../errors.js";
import { isFile } from "../io/header.js";
import { readConfig } from "../io/model.js";
import { fromHuggingFaceConfig, modelFamily } from "../models/registry.js";
import type { ModelDefinition } from "../models/types.js";
import { adapterFolder } from "./adapter-folder.js";

export type TaskSettings = Pick<RunConfig, "task" | "labels" | "data" | "adapter">;

/** The file of an adapter's folder that names its classes: PEFT's own files do not. */
export const taskFile = "task.json";

const savedTask = z.object({
  task: z.enum(["classification", "regression"]),
  labels: z.array(z.string()).min(1),
});

const modelFields = z.looseObject({ model_type: z.string(), architectures: z.array(z.string()).nullish() });

/** Prefix of the names of transformers' classes, by model type. */
const classPrefixes: Readonly<Record<string, string>> = {
  bert: "Bert",
  roberta: "Roberta",
  "xlm-roberta": "XLMRoberta",
  camembert: "Camembert",
};

/** Refuses the settings of a task where the model predicts tokens. */
export function refuseTask({ family, task }: ModelDefinition, settings: TaskSettings): void {
  if (task !== undefined || (settings.task === undefined && settings.labels.length === 0)) return;
  throw new ThimbleError("task-model", "The model predicts tokens: it has no head for a task", {
    where: settings.task === undefined ? "labels" : "task",
    given: family,
    expected: Object.keys(classPrefixes).join(", "),
    fix: "Use an encoder, or leave the setting out and train on prompts and completions.",
  });
}

/**
 * The configuration of a model as a run means it: where the model is an encoder, its head has the run's task. One that
 * predicts tokens is left as it is.
 */
export async function withTask(json: unknown, settings: TaskSettings): Promise<unknown> {
  const known = modelFields.safeParse(json).data;
  if (known === undefined || modelFamily(known.model_type).tells !== "records") return json;
  const task = await findTask(json, settings, known.architectures ?? []);
  if (task === undefined) return json;
  const numbered = task.labels.map((name, index) => [name, index] as const);
  return {
    ...known,
    architectures: [`${classPrefixes[known.model_type] ?? ""}ForSequenceClassification`],
    id2label: Object.fromEntries(numbered.map(([name, index]) => [String(index), name])),
    label2id: Object.fromEntries(numbered),
    num_labels: task.labels.length,
    problem_type: task.kind === "regression" ? "regression" : "single_label_classification",
  };
}

/** The run's task; undefined = the checkpoint's own. */
async function findTask(
  json: unknown,
  settings: TaskSettings,
  architectures: readonly string[],
): Promise<DataTask | undefined> {
  const given = givenTask(settings);
  if (given !== undefined) return given;
  if (settings.adapter !== undefined) {
    const saved = await adapterTask(await adapterFolder(settings.adapter));
    if (saved !== undefined) return checked(saved, settings);
  }
  if (architectures.some((name) => name.endsWith("ForSequenceClassification"))) {
    const own = fromHuggingFaceConfig(json).task;
    if (own !== undefined && (settings.task === undefined || settings.task === own.kind)) return undefined;
  }
  const inputs = settings.data.filter((input) => !input.startsWith(tokensPrefix));
  if (inputs.length === 0) return undefined;
  return taskOfData(await findInputs(inputs), settings.task);
}

/** What `task` and `labels` say by themselves: names of the classes, or how many there are. */
function givenTask({ task, labels }: TaskSettings): DataTask | undefined {
  const [first] = labels;
  if (first === undefined) return task === "regression" ? { kind: task, labels: ["LABEL_0"] } : undefined;
  const count = labels.length === 1 ? Number(first) : NaN;
  const names = Number.isInteger(count)
    ? Array.from({ length: count }, (_, index) => `LABEL_${index}`)
    : labels.map(String);
  if (task === "regression" || names.length < 2 || new Set(names).size < names.length) {
    throw new ThimbleError("task-labels", "These are not the labels of a classification", {
      where: "labels",
      given: labels.join(", "),
      expected: task === "regression" ? "none: a regression has one number" : "two different names or more, or a count",
      fix: task === "regression" ? "Leave labels out." : "Name each class once, or leave labels to the data.",
    });
  }
  return { kind: "classification", labels: names };
}

async function adapterTask(folder: string): Promise<DataTask | undefined> {
  const path = join(folder, taskFile);
  if (!(await isFile(path))) return undefined;
  const parsed = savedTask.safeParse(await readConfig(path));
  if (!parsed.success) {
    throw new ThimbleError("adapter-task", "The adapter's task cannot be read", {
      where: path,
      given: z.prettifyError(parsed.error),
      expected: '{"task": "classification", "labels": ["...", "..."]}',
      fix: "Fetch the adapter again, or name the classes with --labels.",
    });
  }
  return { kind: parsed.data.task, labels: parsed.data.labels };
}

function checked(saved: DataTask, { task }: TaskSettings): DataTask {
  if (task === undefined || task === saved.kind) return saved;
  throw new ThimbleError("adapter-task", "The adapter was trained for another task", {
    where: "task",
    given: task,
    expected: saved.kind,
    fix: "Leave the setting out.",
  });
}
