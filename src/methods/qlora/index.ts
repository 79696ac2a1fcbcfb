import { z } from "zod";
import { weightOf } from "../../models/parameters.js";
import type { LinearSpec, ParameterSpec } from "../../models/types.js";
import { fourBitId } from "../../storage/four-bit.js";
import { fourBitBlocks, fourBitTypes } from "../../storage/four-bit-levels.js";
import { defineMethod } from "../define.js";
import { loraConfig } from "../lora/config.js";
import { resolveLora } from "../lora/index.js";
import type { Claim } from "../types.js";

/** The reference script's defaults, which are not those of `lora`. */
const qloraConfig = z.strictObject({
  bits: z.literal(4).default(4).describe("Bits of a code"),
  quant_type: z
    .enum(fourBitTypes)
    .default("nf4")
    .describe("Code of the packed weights: levels for normally distributed weights, or a 4-bit float"),
  blocksize: z.literal(fourBitBlocks).default(64).describe("Neighbouring weights that share a scale"),
  double_quant: z.boolean().default(true).describe("Store the scales in 8 bits too"),
  adapter: z
    .boolean()
    .default(true)
    .describe("Train a low-rank correction; false = pack the base alone, under what other methods train"),
  ...loraConfig.shape,
  r: loraConfig.shape.r.default(64),
  alpha: loraConfig.shape.alpha.default(16),
  init: z
    .enum(["default", "gaussian"])
    .default("default")
    .describe('Start of A: "default" (uniform) or "gaussian"; B starts at zero'),
});

/** A frozen base in 4 bits, decoded where it is multiplied, under a LoRA adapter (Dettmers et al. 2023). */
export const qlora = defineMethod({
  id: "qlora",
  title: "LoRA over a 4-bit base (QLoRA)",
  paper: "2305.14314",
  year: 2023,
  summary: "Packs the frozen linear layers into 4 bits a weight and trains a low-rank correction of them.",
  reduces: ["weights", "gradients", "states"],
  fills: ["format", "prepare", "linear", "export"],
  config: qloraConfig,
  resolve: (config, model) => {
    const packed = model.linears.filter(isPacked).map((spec) => weightOf(spec).name);
    const id = fourBitId({ type: config.quant_type, blocksize: config.blocksize, double: config.double_quant });
    const names = new Set(packed);
    const claim: Claim = {
      resource: "base-format",
      exclusive: true,
      tensors: packed,
      reason: "packs them into 4 bits",
    };
    const format = ({ name }: ParameterSpec): string | undefined => (names.has(name) ? id : undefined);
    if (!config.adapter) return { id: "qlora", config, claims: [claim], slots: { format }, adapters: [] };
    const lora = resolveLora(config, model, "qlora");
    return { ...lora, claims: [...lora.claims, claim], slots: { ...lora.slots, format } };
  },
});

/** Every linear layer of the blocks, adapted or not: the output layer, embeddings and norms keep the run's type. */
function isPacked({ role }: LinearSpec): boolean {
  return role !== "head";
}
