import { z } from "zod";
import { coordinateChoices } from "../coreset/coordinates.js";
import { rowUnits } from "../coreset/describe.js";

export const colmConfig = z.strictObject({
  small_batch_ratio: z
    .number()
    .positive()
    .max(1)
    .default(0.5)
    .describe("Share of the rows drawn that are trained on; batch and accumulate are those of the rows trained on"),
  data_selection_unit: z
    .enum(rowUnits)
    .default("mezo")
    .describe(
      "What describes a row: a gradient by two forward passes, its last hidden state, its true gradient, its length, or its whole loss",
    ),
  source_wise_selection: z
    .enum(["proportional", "balanced", "none"])
    .optional()
    .describe("How the rows are divided among the sources; default proportional, or none where there is one source"),
  keep_sources: z
    .union([z.literal("auto"), z.array(z.union([z.int().min(0), z.string().min(1)]))])
    .default("auto")
    .describe("Sources of which every row is kept, by number or name; auto: those with fewer rows than the mean"),
  weighted: z.boolean().default(false).describe("Weight each row by the number of rows that it stands for"),
  mezo_eps: z.number().positive().max(1).default(1e-3).describe("Size of the perturbation"),
  probes: z.int().min(1).max(64).default(1).describe("Independent directions of a probe; with 1, as in the paper"),
  resample: z.enum(["run", "step"]).default("run").describe("Whether directions stay the same or are drawn anew"),
  mezo_selection: z
    .enum(["grad", "weight_grad"])
    .default("grad")
    .describe("Whether coordinates are gradients, or gradients times the weights where any is not 0"),
  mezo_optim: z.enum(["adam", "sgd"]).default("adam").describe("Whether gradients are rescaled as Adam would"),
  zo_dim: z.int().min(1).optional().describe("Coordinates that are compared; default 2560, or all there are"),
  mezo_topk: z.enum(coordinateChoices).default("largest").describe("Which coordinates those are, by their mean size"),
  facility_similarity: z
    .enum(["l1", "euclidean", "cosine"])
    .default("l1")
    .describe("How alike two rows are: by the distance of their coordinates, or the angle"),
  probe: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Linear layer (its path) or trained tensor that is probed; default the value projection of the last block",
    ),
  log_selection: z.boolean().default(false).describe("Write the rows chosen in each step into metrics.jsonl"),
});

export type ColmConfig = z.infer<typeof colmConfig>;
