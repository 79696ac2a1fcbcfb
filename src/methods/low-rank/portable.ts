import { ThimbleError } from "../../errors.js";
import { patternLookup } from "../pattern.js";
import type { PeftForm } from "../types.js";
import { scaleOf } from "./layer.js";
import type { PeftTensor } from "./peft.js";

const suffixA = ".lora_A.weight";
const suffixB = ".lora_B.weight";

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
      { fix: "Merge it into the base instead." },
    );
  }
  const layers = [...form.tensors.keys()].flatMap((name) =>
    name.endsWith(suffixA) ? [name.slice(0, -suffixA.length)] : [],
  );
  const patterns = config["alpha_pattern"] as Readonly<Record<string, number>>;
  const alphaOf = patternLookup(patterns, config["lora_alpha"] as number, "alpha_pattern");
  const rank = Math.max(...layers.map((path) => tensorOf(form, path + suffixA).shape[0] ?? 0));
  const tensors = new Map<string, PeftTensor>();
  for (const path of layers) {
    const a = tensorOf(form, path + suffixA);
    const b = tensorOf(form, path + suffixB);
    const scale = scaleOf(alphaOf(path), a.shape[0] ?? 1, config["use_rslora"] === true);
    tensors.set(path + suffixA, padRows(a, rank));
    tensors.set(path + suffixB, padColumns(b, rank, scale));
  }
  const plain = { r: rank, lora_alpha: rank, use_rslora: false, rank_pattern: {}, alpha_pattern: {} };
  return { config: { ...config, ...plain }, tensors };
}

function tensorOf(form: PeftForm, name: string): PeftTensor {
  const tensor = form.tensors.get(name);
  if (tensor !== undefined) return tensor;
  throw new ThimbleError("adapter-tensor", `The adapter's ${name} is missing`);
}

function padRows({ shape, data }: PeftTensor, rank: number): PeftTensor {
  const width = shape[1] ?? 0;
  const padded = new Float32Array(rank * width);
  padded.set(data);
  return { shape: [rank, width], data: padded };
}

function padColumns({ shape, data }: PeftTensor, rank: number, scale: number): PeftTensor {
  const [rows = 0, columns = 0] = shape;
  const padded = new Float32Array(rows * rank);
  for (let place = 0; place < data.length; place++) {
    padded[Math.floor(place / columns) * rank + (place % columns)] = (data[place] ?? 0) * scale;
  }
  return { shape: [rows, rank], data: padded };
}
