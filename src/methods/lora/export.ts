import { weightOf } from "../../models/parameters.js";
import { ThimbleError } from "../../errors.js";
import type { LinearSpec, ModelDefinition } from "../../models/types.js";
import { patternLookup } from "../pattern.js";
import { targetNames } from "../targets.js";
import type { ExportContext, HostTensors, PeftForm } from "../types.js";
import type { LoraConfig, LoraTarget } from "./config.js";
import { pissaIterations, scaleOf, tensorsOf } from "./config.js";
import { pissaStart } from "./prepare.js";
import { valuesOf } from "./tensors.js";

/** A tensor of a PEFT directory. */
type Stored = PeftForm["tensors"] extends ReadonlyMap<string, infer Value> ? Value : never;

/**
 * The adapter as PEFT reads it over the original checkpoint. A PiSSA adapter belongs to the residual, so it is
 * written at twice the rank: s (B A - B₀ A₀), with the start computed again from the checkpoint.
 */
export async function peftForm(
  config: LoraConfig,
  model: ModelDefinition,
  targets: readonly LoraTarget[],
  tensors: HostTensors,
  context: ExportContext,
): Promise<PeftForm> {
  const iterations = pissaIterations(config);
  const stored = new Map<string, Stored>();
  for (const target of targets) {
    const own = new Map(
      tensorsOf(target).map((tensor) => [tensor.name, { shape: tensor.shape, data: valuesOf(tensor, tensors) }]),
    );
    const start =
      iterations === undefined
        ? undefined
        : pissaStart(target, await context.read(weightOf(target.spec).name), iterations, context.seed);
    for (const [name, tensor] of start === undefined ? own : doubled(target, tensors, start)) stored.set(name, tensor);
  }
  return { config: peftConfig(config, model, targets, iterations !== undefined), tensors: stored };
}

/** [A; A₀] and [B, -B₀]. */
function doubled(target: LoraTarget, tensors: HostTensors, start: HostTensors): Map<string, Stored> {
  const { a, b, rank, spec } = target;
  const rows = new Float32Array(2 * rank * spec.inputs);
  rows.set(valuesOf(a, tensors));
  rows.set(valuesOf(a, start), rank * spec.inputs);
  const now = valuesOf(b, tensors);
  const before = valuesOf(b, start);
  const columns = new Float32Array(spec.outputs * 2 * rank);
  for (let row = 0; row < spec.outputs; row++) {
    for (let column = 0; column < rank; column++) {
      columns[row * 2 * rank + column] = now[row * rank + column] ?? 0;
      columns[row * 2 * rank + rank + column] = -(before[row * rank + column] ?? 0);
    }
  }
  return new Map([
    [a.name, { shape: [2 * rank, spec.inputs], data: rows }],
    [b.name, { shape: [spec.outputs, 2 * rank], data: columns }],
  ]);
}

/** The method's part of `adapter_config.json`: the keys that every reader understands. */
function peftConfig(
  config: LoraConfig,
  model: ModelDefinition,
  targets: readonly LoraTarget[],
  twice: boolean,
): Record<string, unknown> {
  const ranks = twice ? 2 : 1;
  // The scale must not change with the rank: alpha / r needs twice alpha, alpha / sqrt(r) needs sqrt 2 of it.
  const alphas = !twice ? 1 : config.rslora ? Math.SQRT2 : 2;
  return {
    peft_type: "LORA",
    r: config.r * ranks,
    lora_alpha: config.alpha * alphas,
    lora_dropout: config.dropout,
    target_modules: targetNames(
      model,
      targets.map(({ spec }) => spec),
    ),
    bias: "none",
    use_rslora: config.rslora,
    use_dora: config.dora,
    fan_in_fan_out: transposedOf(targets),
    modules_to_save: null,
    rank_pattern: exceptions(targets, config.r * ranks, ({ rank }) => rank * ranks),
    alpha_pattern: exceptions(targets, config.alpha * alphas, ({ alpha }) => alpha * alphas),
    inference_mode: true,
    init_lora_weights: true,
  };
}

/** PEFT has one flag for all layers and corrects it by each layer's type on loading. */
function transposedOf(targets: readonly { readonly spec: LinearSpec }[]): boolean {
  return targets.every(({ spec }) => spec.transposed);
}

/** Whole paths of the layers that differ from the global value: patterns that no reader can take otherwise. */
function exceptions(
  targets: readonly LoraTarget[],
  common: number,
  value: (target: LoraTarget) => number,
): Record<string, number> {
  return Object.fromEntries(
    targets.filter((target) => value(target) !== common).map((target) => [target.spec.path, value(target)]),
  );
}

/**
 * The form that PEFT, vLLM and llama.cpp all read alike: every scale folded into B, every layer zero-padded to one
 * rank r, alpha = r, no patterns. DoRA has no such form.
 */
export function portableForm(form: PeftForm): PeftForm {
  const { config } = form;
  if (config["use_dora"] === true) {
    throw new ThimbleError(
      "export-portable",
      "A DoRA adapter has no portable form: its magnitudes are not a low-rank term",
      {
        fix: "Merge it into the base instead.",
      },
    );
  }
  const layers = [...form.tensors.keys()].flatMap((name) =>
    name.endsWith(suffixA) ? [name.slice(0, -suffixA.length)] : [],
  );
  const patterns = config["alpha_pattern"] as Readonly<Record<string, number>>;
  const alphaOf = patternLookup(patterns, config["lora_alpha"] as number, "alpha_pattern");
  const rank = Math.max(...layers.map((path) => tensorOf(form, path + suffixA).shape[0] ?? 0));
  const tensors = new Map<string, Stored>();
  for (const path of layers) {
    const a = tensorOf(form, path + suffixA);
    const b = tensorOf(form, path + suffixB);
    tensors.set(path + suffixA, padRows(a, rank));
    tensors.set(
      path + suffixB,
      padColumns(b, rank, scaleOf(alphaOf(path), a.shape[0] ?? 1, config["use_rslora"] === true)),
    );
  }
  const plain = { r: rank, lora_alpha: rank, use_rslora: false, rank_pattern: {}, alpha_pattern: {} };
  return { config: { ...config, ...plain }, tensors };
}

const suffixA = ".lora_A.weight";
const suffixB = ".lora_B.weight";

function tensorOf(form: PeftForm, name: string): Stored {
  const tensor = form.tensors.get(name);
  if (tensor !== undefined) return tensor;
  throw new ThimbleError("adapter-tensor", `The adapter's ${name} is missing`);
}

function padRows({ shape, data }: Stored, rank: number): Stored {
  const width = shape[1] ?? 0;
  const padded = new Float32Array(rank * width);
  padded.set(data);
  return { shape: [rank, width], data: padded };
}

function padColumns({ shape, data }: Stored, rank: number, scale: number): Stored {
  const [rows = 0, columns = 0] = shape;
  const padded = new Float32Array(rows * rank);
  for (let place = 0; place < data.length; place++) {
    padded[Math.floor(place / columns) * rank + (place % columns)] = (data[place] ?? 0) * scale;
  }
  return { shape: [rows, rank], data: padded };
}
