/** Reads the configurations of BERT and its kin. */
import { z } from "zod";
import { activationNamed, blockCount, parseConfig, size, unsupportedSetting } from "./config.js";
import type { EncoderConfig } from "./encoder-specs.js";
import type { ModelTask } from "./types.js";

/** More classes than any head has. */
const mostLabels = 2 ** 16;

const encoderFields = z.object({
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: blockCount,
  num_attention_heads: size,
  hidden_act: z.string().default("gelu"),
  max_position_embeddings: size,
  type_vocab_size: size,
  layer_norm_eps: z.number().positive().default(1e-12),
  initializer_range: z.number().min(0).max(1).default(0.02),
  pad_token_id: z.int().min(0).nullish(),
  position_embedding_type: z.string().nullish(),
  is_decoder: z.boolean().nullish(),
  add_cross_attention: z.boolean().nullish(),
  num_labels: z.int().min(1).max(mostLabels).nullish(),
  id2label: z.record(z.string(), z.string()).nullish(),
  problem_type: z.string().nullish(),
});

type EncoderFields = z.output<typeof encoderFields>;

/** What a family adds to its configuration. */
export interface EncoderFamily {
  readonly family: string;
  readonly root: string;
  readonly head: EncoderConfig["head"];
  /** Whether positions start behind the padding id. */
  readonly offsetPositions: boolean;
}

/** The model that a parsed config.json of BERT's kin describes. */
export function encoderConfig({ family, root, head, offsetPositions }: EncoderFamily, json: unknown): EncoderConfig {
  const fields = parseConfig(family, encoderFields, json);
  refuse(family, fields);
  const offset = offsetPositions ? (fields.pad_token_id ?? 1) + 1 : 0;
  if (offset >= fields.max_position_embeddings) {
    const expected = `more than the ${offset} rows before the first position`;
    throw unsupportedSetting(family, "max_position_embeddings", fields.max_position_embeddings, expected);
  }
  return {
    family,
    root,
    head,
    vocabularySize: fields.vocab_size,
    width: fields.hidden_size,
    hidden: fields.intermediate_size,
    heads: fields.num_attention_heads,
    blocks: fields.num_hidden_layers,
    positions: fields.max_position_embeddings,
    positionOffset: offset,
    tokenTypes: fields.type_vocab_size,
    epsilon: fields.layer_norm_eps,
    activation: activationNamed(family, "hidden_act", fields.hidden_act),
    deviation: fields.initializer_range,
    task: taskOf(family, fields),
  };
}

function refuse(family: string, fields: EncoderFields): void {
  const { hidden_size: width, num_attention_heads: heads, position_embedding_type: positions } = fields;
  if (width % heads !== 0) {
    throw unsupportedSetting(family, "num_attention_heads", heads, `a divisor of hidden_size = ${width}`);
  }
  if ((positions ?? "absolute") !== "absolute") {
    throw unsupportedSetting(family, "position_embedding_type", positions, '"absolute"');
  }
  if (fields.is_decoder === true) throw unsupportedSetting(family, "is_decoder", true, "false");
  if (fields.add_cross_attention === true) throw unsupportedSetting(family, "add_cross_attention", true, "false");
  const known = ["regression", "single_label_classification"];
  if (typeof fields.problem_type === "string" && !known.includes(fields.problem_type)) {
    throw unsupportedSetting(family, "problem_type", fields.problem_type, known.join(", "));
  }
}

/** transformers' rule: one label is a number, several are classes; two classes where nothing is said. */
function taskOf(family: string, fields: EncoderFields): Pick<ModelTask, "kind" | "labels"> {
  const named = Object.keys(fields.id2label ?? {}).length;
  const count = named > 0 ? named : (fields.num_labels ?? 2);
  if (count > mostLabels) throw unsupportedSetting(family, "id2label", `${count} labels`, `at most ${mostLabels}`);
  const labels = Array.from({ length: count }, (_, index) => fields.id2label?.[String(index)] ?? `LABEL_${index}`);
  const kind = fields.problem_type === "regression" || count === 1 ? "regression" : "classification";
  if (kind === "regression" && count > 1) {
    throw unsupportedSetting(family, "problem_type", fields.problem_type, "one label, as a regression has");
  }
  return { kind, labels };
}
