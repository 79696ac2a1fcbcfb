import { ThimbleError } from "../errors.js";
import type { RunConfig, RunKey } from "./schema.js";
import { defaultSteps } from "./schema.js";

interface Conflict {
  /** The setting that has no meaning. */
  readonly key: RunKey;
  /** The setting because of which. */
  readonly other: RunKey;
  readonly applies: (config: RunConfig) => boolean;
  readonly reason: string;
}

const isSet = (key: RunKey) => (config: RunConfig) => config[key] !== undefined;

const ofOptimizer = (key: RunKey, optimizer: NonNullable<RunConfig["optimizer"]>): Conflict => ({
  key,
  other: "optimizer",
  applies: (config) => isSet(key)(config) && (config.optimizer ?? "adamw") !== optimizer,
  reason: `${key} is a setting of ${optimizer}`,
});

/** Settings that contradict each other whatever the model and the data are. */
const conflicts: readonly Conflict[] = [
  ...(["beta1", "beta2", "epsilon"] as const).map((key) => ofOptimizer(key, "adamw")),
  ...(["momentum", "nesterov"] as const).map((key) => ofOptimizer(key, "sgd")),
  {
    key: "nesterov",
    other: "momentum",
    applies: ({ nesterov, momentum }) => nesterov === true && (momentum ?? 0) === 0,
    reason: "nesterov looks ahead along a momentum, and there is none",
  },
  {
    key: "decay",
    other: "schedule",
    applies: ({ decay, schedule }) => decay !== undefined && schedule !== "wsd",
    reason: "decay is the length of the last part of the wsd schedule",
  },
  {
    key: "minRatio",
    other: "schedule",
    applies: ({ minRatio, schedule }) => minRatio !== undefined && schedule === "constant",
    reason: "a constant rate does not fall",
  },
  {
    key: "warmup",
    other: "steps",
    applies: ({ warmup, steps = defaultSteps }) => warmup >= 1 && warmup > steps,
    reason: "the warm-up is longer than the run",
  },
  {
    key: "evalEvery",
    other: "holdout",
    applies: ({ evalEvery, holdout }) => evalEvery > 0 && holdout === 0,
    reason: "evaluation while training needs a share of the data that training does not see",
  },
  {
    key: "recompute",
    other: "memoryBudget",
    applies: ({ recompute, memoryBudget }) => recompute !== undefined && memoryBudget !== undefined,
    reason: "a budget decides what is recomputed, value by value",
  },
  {
    key: "allowLossy",
    other: "memoryBudget",
    applies: ({ allowLossy, memoryBudget }) => allowLossy && memoryBudget === undefined,
    reason: "it is leave for a budget, and there is none",
  },
];

/** Refuses settings that contradict each other, by the names of both. `where` gives a key's place. */
export function refuseConflicts(config: RunConfig, where: (key: RunKey) => string): void {
  const found = conflicts.find(({ applies }) => applies(config));
  if (found === undefined) return;
  const { key, other, reason } = found;
  throw new ThimbleError("config-conflict", `${key} and ${other} do not go together: ${reason}`, {
    where: where(key),
    given: `${key} = ${JSON.stringify(config[key])}, ${other} = ${JSON.stringify(config[other])}`,
    fix: `Remove ${key} or change ${other}.`,
  });
}
