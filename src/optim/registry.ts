import type { z } from "zod";
import { ThimbleError } from "../errors.js";
import { nearestName } from "../methods/nearest.js";
import { parseSettings } from "../methods/settings.js";
import { adamw, adamwConfig } from "./adamw.js";
import { sgd, sgdConfig } from "./sgd.js";
import { sm3, sm3Config } from "./sm3.js";
import type { Optimizer } from "./types.js";

export interface OptimizerEntry {
  readonly id: string;
  readonly config: z.ZodObject;
  /** The optimizer with settings of its schema; faults are reported at `optimizer.<key>`. */
  make(settings: unknown): Optimizer;
}

function entry<Schema extends z.ZodObject>(
  id: string,
  config: Schema,
  build: (settings: z.infer<Schema>) => Optimizer,
): OptimizerEntry {
  return { id, config, make: (settings) => build(parseSettings("optimizer", config, settings)) };
}

export const optimizers: readonly OptimizerEntry[] = [
  entry("adamw", adamwConfig, adamw),
  entry("sgd", sgdConfig, sgd),
  entry("sm3", sm3Config, sm3),
];

/** The optimizer of a configuration such as `{ id: "adamw", beta2: 0.95 }`; AdamW where no id is given. */
export function makeOptimizer(settings: Readonly<Record<string, unknown>>): Optimizer {
  const id = settings["id"] ?? "adamw";
  const found = optimizers.find((known) => known.id === id);
  if (found !== undefined) return found.make({ ...settings, id });
  const ids = optimizers.map((known) => known.id);
  const nearest = typeof id === "string" ? nearestName(id, ids) : undefined;
  throw new ThimbleError("optimizer-unknown", "There is no such optimizer", {
    given: JSON.stringify(id),
    expected: ids.join(", "),
    where: "optimizer.id",
    ...(nearest === undefined ? {} : { fix: `Did you mean "${nearest}"?` }),
  });
}
