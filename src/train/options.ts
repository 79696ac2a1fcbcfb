import type { RunConfig } from "../config/schema.js";
import { parseMemorySize } from "../config/memory-size.js";
import { defaultSteps } from "../config/schema.js";
import { ThimbleError } from "../errors.js";
import type { WeightSource } from "../io/weight-source.js";
import type { ComposedMethods } from "../methods/compose.js";
import type { ModelDefinition, ParameterSpec } from "../models/types.js";
import { makeOptimizer } from "../optim/registry.js";
import type { PrecisionSettings } from "../optim/precision.js";
import type { Schedule } from "../optim/schedules.js";
import { schedule } from "../optim/schedules.js";
import type { SavedPolicy } from "../passes/saved.js";
import { usableCores } from "../runtime/platform.js";
import type { Lever } from "../session/lever.js";
import { processBytes } from "../session/overhead.js";
import type { SessionOptions, TargetName } from "../session/types.js";

const dense: readonly string[] = ["f32", "f16", "bf16"];

/**
 * In which storage format each tensor of the checkpoint lies in memory: what `packed` names; blocks of a quantised file
 * as they are while they are frozen; all else, and what trains, in the run's type or the one that `stored` names. A task's
 * head is in f32.
 */
export function storedFormats(
  definition: ModelDefinition,
  dtype: "f32" | "bf16",
  weights: WeightSource | undefined,
  trains: (parameter: ParameterSpec) => boolean,
  packed: (parameter: ParameterSpec) => string | undefined = () => undefined,
  stored: (parameter: ParameterSpec) => string | undefined = () => undefined,
): (parameter: string) => string {
  const formats = new Map<string, string>();
  const head = new Set(definition.task?.head);
  for (const parameter of definition.parameters) {
    // A task's head is small, and trains from nothing: it keeps its digits.
    if (head.has(parameter.name)) {
      formats.set(parameter.name, "f32");
      continue;
    }
    const inFile = weights?.tensor(parameter.name).storageFormat ?? dtype;
    const found = dense.includes(inFile) || trains(parameter) ? (stored(parameter) ?? dtype) : inFile;
    formats.set(parameter.name, packed(parameter) ?? found);
  }
  return (name) => formats.get(name) ?? dtype;
}

/** Types of masters and states, where the run leaves them to what suits it. */
export function precisionOf(
  config: RunConfig,
  saves: ComposedMethods["saves"],
): { readonly master: boolean; readonly states: PrecisionSettings["states"] } {
  const bf16Weights = config.dtype === "bf16" && saves === "weights";
  return {
    master: config.masterDtype === "f32",
    states: config.stateDtype ?? (bf16Weights ? "bf16" : "f32"),
  };
}

/** The update rule with all its settings, as the registry of optimizers reads them. */
export function optimizerSettings(
  config: RunConfig,
  { saves, optimizer: suggested }: Pick<ComposedMethods, "saves" | "optimizer">,
): Record<string, unknown> {
  const { optimizer: id = suggested ?? "adamw", beta1, beta2, epsilon, momentum, nesterov, weightDecay } = config;
  const given = Object.entries({ beta1, beta2, epsilon, momentum, nesterov }).filter(
    ([, value]) => value !== undefined,
  );
  return { id, ...Object.fromEntries(given), weight_decay: weightDecay, ...precisionOf(config, saves) };
}

export function scheduleOf({ schedule: kind, warmup, minRatio, decay, steps = defaultSteps }: RunConfig): Schedule {
  return schedule({ kind, warmup, min_ratio: minRatio ?? 0, decay: decay ?? 0.1 }, steps);
}

const savedPolicies: Readonly<Record<NonNullable<RunConfig["recompute"]>, SavedPolicy>> = {
  none: "all",
  cheap: "cheap",
  block: "block",
};

export function targetOf({ target }: Pick<RunConfig, "target">): TargetName {
  return target === "auto" ? "c" : target;
}

/** What differs between training, evaluating and generating with one model. */
export interface SessionParts {
  readonly definition: ModelDefinition;
  readonly weights: WeightSource | undefined;
  readonly methods: ComposedMethods | undefined;
  readonly segments: boolean;
  readonly train: boolean;
  readonly evaluate: boolean;
  readonly decode: SessionOptions["decode"];
}

/** The session of a run, from its settings and its model. */
export function sessionOptions(config: RunConfig, parts: SessionParts): SessionOptions {
  const { definition, weights, methods } = parts;
  const { dtype, batch, seq, accumulate, clip, threads, seed } = config;
  refuseLongRows(seq, definition);
  return {
    definition,
    storedFormat: storedFormats(
      definition,
      dtype,
      weights,
      (parameter) => parts.train && methods?.trains(parameter) === true,
      (parameter) => methods?.baseFormat(parameter),
      (parameter) => (parts.train ? methods?.place?.stored?.(parameter) : undefined),
    ),
    methods,
    batch,
    length: seq,
    accumulate: parts.train ? accumulate : 1,
    dtype,
    optimizer: makeOptimizer(optimizerSettings(config, methods ?? { saves: "adapter" })),
    clip,
    saved: config.recompute === undefined ? "fastest" : savedPolicies[config.recompute],
    ...(parts.train ? budgetOf(config, parts) : {}),
    place: config.weightsOn === "memory" ? undefined : { disk: () => true, whenNeeded: config.weightsOn === "auto" },
    // Attention in both directions sees padding unless it is told what is none.
    segments: parts.segments || definition.task !== undefined,
    train: parts.train,
    evaluate: parts.evaluate,
    decode: parts.decode,
    target: targetOf(config),
    threads: threads ?? usableCores(),
    seed,
  };
}

/** What the run may take, its process included, and what may be changed for it. */
function budgetOf(config: RunConfig, parts: SessionParts): Pick<SessionOptions, "budget" | "lossy"> {
  const { memoryBudget, allowLossy, dtype } = config;
  if (memoryBudget === undefined) return {};
  const bytes = memoryBudget === "min" ? memoryBudget : parseMemorySize(memoryBudget);
  const narrow = (): SessionOptions => sessionOptions({ ...config, memoryBudget: undefined, dtype: "bf16" }, parts);
  const lossy: Lever = {
    name: "bf16",
    what: "keep weights and values in bf16",
    exact: false,
    apply: (options) => {
      const { dtype: type, storedFormat, optimizer } = narrow();
      return { ...options, dtype: type, storedFormat, optimizer };
    },
  };
  return {
    budget: { bytes, overheadBytes: processBytes, allowLossy },
    ...(allowLossy && dtype === "f32" ? { lossy: [lossy] } : {}),
  };
}

function refuseLongRows(seq: number, { contextLength }: ModelDefinition): void {
  if (seq <= contextLength) return;
  throw new ThimbleError("config-seq", "The rows are longer than the model's context", {
    where: "seq",
    given: String(seq),
    expected: `at most ${contextLength}`,
  });
}
