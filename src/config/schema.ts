import { z } from "zod";
import { recordFormats } from "../data/formats.js";
import { methods } from "../methods/registry.js";

/** The largest count that a setting may have: sizes are computed from it. */
const most = 2 ** 31 - 1;
const count = z.int().min(1).max(most);
const countOrNone = z.int().min(0).max(most);
const source = z.string().min(1);

/** What trains where nothing is said. */
export const defaultMethods: readonly string[] = ["lora"];

/** Steps of a run that does not say how many. */
export const defaultSteps = 100;

/** Bytes, with or without a unit. */
const memorySize = /^\s*\d+(\.\d+)?\s*([KMGT]i?B?|B)?\s*$/i;

/** Steps (1 and more) or a share of all steps (below 1). */
const stepsOrShare = z
  .number()
  .min(0)
  .max(most)
  .refine((value) => value < 1 || Number.isInteger(value), "must be a whole number of steps, or a fraction below 1");

const methodEntry = z.union([
  z.string().min(1),
  z.strictObject({ id: z.string().min(1), settings: z.record(z.string(), z.unknown()).default({}) }),
]);

const assignment = z
  .string()
  .regex(/^[^.=\s]+\.[^=\s]+=/, { error: "must look like method.key=value" })
  .describe("method.key=value");

/** A value or a list of them, read as a list. */
const listOf = <Schema extends z.ZodType>(element: Schema) =>
  z
    .union([element, z.array(element)])
    .transform((value): z.output<Schema>[] => (Array.isArray(value) ? value : [value]) as z.output<Schema>[]);

/**
 * Every setting of a run. Flags are these names in kebab case; YAML files may use either spelling. Help texts, the
 * JSON schema and the docs are derived from this value.
 */
export const runSchema = z.strictObject({
  model: source
    .optional()
    .describe("Model: a folder or GGUF file (file:PATH), hf:OWNER/NAME, npm:PACKAGE, pypi:PACKAGE or https://..."),
  data: listOf(source)
    .default([])
    .describe("Training data: text, JSONL, CSV or parquet files, or tokens:FILE of raw token ids; may be repeated"),
  method: listOf(methodEntry)
    .default([...defaultMethods])
    .describe(`What trains, and how: ${methods.map(({ id }) => id).join(", ")}; may be repeated`),
  set: listOf(assignment).default([]).describe("A method's setting as method.key=value; may be repeated"),
  adapter: source.optional().describe("Folder of a PEFT adapter to start from"),
  dtype: z
    .enum(["f32", "bf16"])
    .default("f32")
    .describe("Type of frozen weights, saved values and products; bf16 sums in f32"),
  masterDtype: z
    .enum(["f32", "none"])
    .optional()
    .describe("Whether bf16 weights that train keep an f32 copy; default none (stochastic rounding instead)"),
  stateDtype: z
    .enum(["f32", "bf16", "8bit", "fp8"])
    .optional()
    .describe(
      "Type of the optimizer's states; 8bit: block-wise; fp8: E4M3 in groups; default bf16 for full tuning in bf16, else f32",
    ),
  batch: count.default(4).describe("Rows of a micro-batch"),
  seq: count.default(256).describe("Tokens of a row"),
  steps: count
    .optional()
    .describe(`Optimizer steps in all, those before a resume included; default ${defaultSteps}; limits an evaluation`),
  accumulate: count.default(1).describe("Micro-batches of one optimizer step"),
  task: z
    .enum(["classification", "regression"])
    .optional()
    .describe("What an encoder's head tells of each record; default what its checkpoint or the labels of the data say"),
  labels: listOf(z.union([source, z.int().min(2).max(65536)]))
    .default([])
    .describe(
      "Names of the classes, or how many there are; default those of the checkpoint or the data; may be repeated",
    ),
  seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(0).describe("Seed of all random numbers"),
  threads: count.max(1024).optional().describe("Threads; results do not depend on it; default all usable cores"),
  target: z.enum(["auto", "c", "interpret"]).default("auto").describe("What runs the step: auto picks c"),
  lr: z.number().min(0).max(1e3).optional().describe("Learning rate; default one that suits the method"),
  schedule: z
    .enum(["constant", "linear", "cosine", "wsd"])
    .default("constant")
    .describe("Course of the rate after warm-up; wsd holds it and decays over the last part"),
  warmup: stepsOrShare.default(0).describe("Steps, or share of all steps below 1, over which the rate rises from 0"),
  minRatio: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe("Lowest rate of a schedule as a share of the highest; default 0"),
  decay: stepsOrShare.optional().describe("wsd: steps, or share of all below 1, of the final decay; default 0.1"),
  optimizer: z
    .enum(["adamw", "sgd", "sm3"])
    .optional()
    .describe("Update rule; default adamw, or what suits the method"),
  beta1: z.number().min(0).lt(1).optional().describe("adamw: decay of the mean of the gradient; default 0.9"),
  beta2: z.number().min(0).lt(1).optional().describe("adamw: decay of the mean of its square; default 0.999"),
  epsilon: z.number().positive().max(1).optional().describe("adamw: added to the root; default 1e-8"),
  momentum: z.number().min(0).lt(1).optional().describe("sgd: share of the last change that is kept; default 0"),
  nesterov: z.boolean().optional().describe("sgd: look ahead along the momentum; default false"),
  weightDecay: z.number().min(0).max(100).default(0).describe("Decoupled weight decay of matrices"),
  clip: z.number().positive().optional().describe("Largest global gradient norm; default no clipping"),
  recompute: z
    .enum(["none", "cheap", "block"])
    .optional()
    .describe(
      "What backward makes again instead of keeping it: nothing, what costs little, all inside a block; default the fastest, or what memory-budget asks for",
    ),
  memoryBudget: z
    .union([
      z.literal("min"),
      z.int().min(1),
      z.string().regex(memorySize, "must be bytes, a size such as 900MiB, or min"),
    ])
    .optional()
    .describe("What a training run may take, as 900MiB or 1.5GB, its process included; min = as little as can be"),
  allowLossy: z.boolean().default(false).describe("Let memory-budget choose bf16 where the run says f32"),
  weightsOn: z
    .enum(["memory", "disk", "auto"])
    .default("memory")
    .describe(
      "Where frozen matrices lie; from disk they are read block by block while the step runs; auto: memory, or what memory-budget asks for",
    ),
  format: z
    .enum(recordFormats)
    .optional()
    .describe("Format of JSONL, JSON and parquet records; default found by their fields"),
  rows: z
    .enum(["packed", "padded", "stream"])
    .optional()
    .describe("How records fill rows: several that do not see each other, one each, or cut from one text"),
  overlong: z
    .enum(["split", "truncate", "drop"])
    .optional()
    .describe("Records longer than a row; default split for text, else truncate"),
  documents: z
    .enum(["file", "blank-lines"])
    .optional()
    .describe("Where documents of text files end: with the file, or at blank lines too; default file"),
  order: z
    .enum(["shuffled", "sequential"])
    .optional()
    .describe("Order of the rows; default sequential for token files, else shuffled anew in each epoch"),
  trainOn: z
    .enum(["all", "assistant", "completion"])
    .optional()
    .describe("Tokens with a loss; default completions and assistant turns, and all of plain text"),
  template: source.optional().describe("Jinja file that replaces the model's chat template"),
  holdout: z
    .union([z.number().min(0).lt(1), source])
    .optional()
    .describe("Data to evaluate on: a share of the data, or a file; default 0.05 with eval-every, else none"),
  evalEvery: countOrNone.default(0).describe("Evaluate on the held-out data every so many steps; 0 = never"),
  saveEvery: countOrNone.default(100).describe("Checkpoint every so many steps; 0 = only after the last"),
  keep: count.default(2).describe("Checkpoints to keep"),
  out: source.default("thimble-out").describe("Folder for checkpoints, logs and the result"),
  resume: z.boolean().default(false).describe("Go on from the last complete checkpoint in the out folder"),
});

export type RunConfig = z.output<typeof runSchema>;
export type RunKey = keyof typeof runSchema.shape;

/** Every key of a run, in the order of help texts. */
export const runKeys: readonly RunKey[] = Object.keys(runSchema.shape) as RunKey[];

/** The JSON schema of a config file. */
export function runJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(runSchema, { io: "input", unrepresentable: "any" });
  return { title: "Thimble run", ...schema };
}
