/** `adapter_config.json` of PEFT (as of 0.21): which settings are understood, ignored or refused. */
import { z } from "zod";
import { ThimbleError } from "../errors.js";

/** What Thimble reads of the file. PEFT drops what a reader does not know, so unknown keys pass; see below. */
const configSchema = z.looseObject({
  peft_type: z.string(),
  target_modules: z.union([z.string(), z.array(z.string())]),
  exclude_modules: z.union([z.string(), z.array(z.string())]).nullish(),
  layers_to_transform: z.union([z.int().min(0), z.array(z.int().min(0))]).nullish(),
  r: z.int().min(1).max(65536).default(8),
  lora_alpha: z.number().positive().default(8),
  lora_dropout: z.number().min(0).lt(1).default(0),
  use_rslora: z.boolean().default(false),
  use_dora: z.boolean().default(false),
  rank_pattern: z.record(z.string(), z.int().min(1).max(65536)).nullish(),
  alpha_pattern: z.record(z.string(), z.number().positive()).nullish(),
  init_lora_weights: z.union([z.boolean(), z.string()]).default(true),
  bias: z.string().default("none"),
  modules_to_save: z.array(z.string()).nullish(),
  base_model_name_or_path: z.string().nullish(),
});

export type PeftConfig = z.infer<typeof configSchema>;

/** Settings that change what the adapter computes, in ways that Thimble does not. */
const unsupported = [
  "lora_bias",
  "layer_replication",
  "target_parameters",
  "trainable_token_indices",
  "alora_invocation_tokens",
  "arrow_config",
  "use_qalora",
  "use_bdlora",
  "kasa_config",
  "monteclora_config",
];

/** Settings that say nothing about the trained adapter's maths. */
const ignored = [
  "auto_mapping",
  "corda_config",
  "ensure_weight_tying",
  "eva_config",
  "fan_in_fan_out",
  "inference_mode",
  "layers_pattern",
  "loftq_config",
  "lora_ga_config",
  "megatron_config",
  "megatron_core",
  "peft_version",
  "qalora_group_size",
  "revision",
  "runtime_config",
  "task_type",
  "velora_config",
];

/** Starts that changed the base weights: without the changed base, the adapter is wrong. PiSSA's exact one is redone. */
const changedBase = /^(olora|corda|loftq|lora_ga|pissa_niter_\d+)$/;

function isSet(value: unknown): boolean {
  if (value === null || value === undefined || value === false) return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

/** Checks the parsed JSON; `where` is the file. Settings without meaning to Thimble are listed in `warnings`. */
export function checkPeftConfig(given: unknown, where: string): { config: PeftConfig; warnings: string[] } {
  const type =
    typeof given === "object" && given !== null ? (given as Record<string, unknown>)["peft_type"] : undefined;
  if (type !== "LORA") {
    throw new ThimbleError("peft-type", "Thimble reads LoRA adapters (also rsLoRA and DoRA)", {
      given: `peft_type ${JSON.stringify(type)}`,
      expected: '"LORA"',
      where,
    });
  }
  const outcome = configSchema.safeParse(given);
  if (!outcome.success) {
    const issue = outcome.error.issues[0];
    throw new ThimbleError("peft-config", `The adapter's configuration is not valid: ${issue?.message ?? ""}`, {
      where: `${where}: ${issue?.path.map(String).join(".") ?? ""}`,
    });
  }
  const config = outcome.data;
  refuseUnsupported(config, where);
  const known = new Set([...Object.keys(configSchema.shape), ...unsupported, ...ignored]);
  const strange = Object.keys(config).filter((key) => !known.has(key) && isSet(config[key]));
  return {
    config,
    warnings: strange.length === 0 ? [] : [`Settings of the adapter that Thimble does not know: ${strange.join(", ")}`],
  };
}

function refuseUnsupported(config: PeftConfig, where: string): void {
  const found = unsupported.filter((key) => isSet(config[key]));
  if (config.bias !== "none") found.push("bias");
  if (found.length > 0) {
    throw new ThimbleError("peft-unsupported", "The adapter uses parts of PEFT that Thimble does not compute", {
      given: found.map((key) => `${key} ${JSON.stringify(config[key])}`).join(", "),
      where,
      fix: "Merge it into its base with PEFT, and train from there.",
    });
  }
  const start = config.init_lora_weights;
  if (typeof start === "string" && changedBase.test(start)) {
    throw new ThimbleError("peft-unsupported", "The adapter belongs to a base that its start changed", {
      given: `init_lora_weights "${start}"`,
      where,
      fix: "Save it again with PEFT's path_initial_model_for_weight_conversion, which makes it fit the original base.",
    });
  }
}
