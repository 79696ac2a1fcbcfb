import type { z } from "zod";
import { ThimbleError } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import type { ModelDefinition, ParameterSpec } from "../../models/types.js";
import { add, cast, less, minimum, multiply, select, subtract } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { gather } from "../../ops/gather.js";
import { expand, reshape } from "../../ops/layout.js";
import { constant } from "../../ops/leaves.js";
import { defineMethod } from "../define.js";
import { drawDistinct } from "../initial.js";
import type { AdaptContext, AdapterTensor, PrepareContext } from "../types.js";
import { deptConfig } from "./config.js";

type Settings = z.infer<typeof deptConfig>;

/** DePT: a short soft prompt, and a low-rank update of the embedded tokens. */
export const dept = defineMethod({
  id: "dept",
  title: "DePT: decomposed prompt tuning",
  paper: "2309.05173",
  year: 2023,
  summary: "Trains a short soft prompt and a low-rank update of the embedded tokens; the model itself stays frozen.",
  reduces: ["gradients", "states"],
  fills: ["prepare", "embedded", "export"],
  config: deptConfig,
  defaultsFor: ({ length }) => ({ max_length: length }),
  textSettings: { init_text: "init_tokens" },
  resolve: (settings, model) => {
    check(settings, model);
    const tensors = tensorsOf(settings, model);
    const embedding = embeddingOf(model);
    const adapters = [tensors.prompt, tensors.a, tensors.b].filter(({ shape }) => shape[0] !== 0 && shape[1] !== 0);
    return {
      id: "dept",
      config: settings,
      claims: [
        { resource: "input-rows", exclusive: true, reason: "puts a prompt in front of them" },
        {
          resource: "base-weights",
          exclusive: true,
          tensors: [embedding.name],
          reason: "trains an update of embeddings that stay as they are",
        },
      ],
      oneRecord: "its prompt stands in front of a record",
      slots: {
        ...(fromTokens(settings)
          ? { prepare: (context: PrepareContext) => startFromTokens(settings, embedding, context) }
          : {}),
        prefix: settings.prefix_length,
        embedded: (context, rows, positions) => {
          const updated = settings.r === 0 ? rows : withUpdate(context, settings, tensors, rows, positions);
          return settings.prefix_length === 0 ? updated : withPrompt(context, tensors.prompt, updated, positions);
        },
      },
      learningRate: 0.3,
      saves: "adapter",
      adapters,
    };
  },
});

function check({ prefix_length: prefix, r, init_tokens: ids }: Settings, model: ModelDefinition): void {
  if (prefix === 0 && r === 0) {
    throw new ThimbleError("dept-nothing", "With neither a prompt nor an update of embeddings, nothing trains", {
      where: "dept.prefix_length, dept.r",
      given: "0 and 0",
      fix: "Set one of them to 1 or more.",
    });
  }
  const strange = ids?.find((id) => id >= model.vocabularySize);
  if (strange === undefined) return;
  throw new ThimbleError("dept-tokens", "The prompt starts from a token that the model does not have", {
    where: "dept.init_tokens",
    given: String(strange),
    expected: `ids below ${model.vocabularySize}`,
  });
}

function fromTokens({ init, init_tokens: ids, init_text: text, prefix_length: prefix }: Settings): boolean {
  return prefix > 0 && (init === "vocabulary" || ids !== undefined || text !== undefined);
}

interface DeptTensors {
  /** P [m, d]. */
  readonly prompt: AdapterTensor;
  /** A [positions, r] and B [r, d]. */
  readonly a: AdapterTensor;
  readonly b: AdapterTensor;
}

/** Under the names of the reference's files. */
function tensorsOf(settings: Settings, { width }: ModelDefinition): DeptTensors {
  const { prefix_length: prefix, r, max_length: length, low_rank_rate: rateFactor } = settings;
  const low = { dtype: "f32", rateFactor, decay: false } as const;
  return {
    prompt: {
      name: "prompt_embeddings",
      shape: [prefix, width],
      dtype: "f32",
      initial: fromTokens(settings) ? { kind: "prepared" } : { kind: "normal", deviation: 1 },
      rateFactor: 1,
      decay: false,
    },
    a: {
      ...low,
      name: "prompt_encoder.lora_embedding_A",
      shape: [length, r],
      initial: { kind: "uniform", bound: 1 / Math.sqrt(Math.max(1, r)) },
    },
    b: { ...low, name: "prompt_encoder.lora_embedding_B", shape: [r, width], initial: { kind: "zeros" } },
  };
}

function embeddingOf({ parameters }: ModelDefinition): ParameterSpec {
  const found = parameters.find(({ kind }) => kind === "embedding");
  if (found !== undefined) return found;
  throw new ThimbleError("dept-model", "The model embeds no tokens", { fix: "Choose another method." });
}

function integer(like: Node, value: number): Node {
  return constant(like.graph, value, like.shape, "i32");
}

/** A condition [tokens] for every column of `like` [tokens, d]. */
function acrossColumns(condition: Node, like: Node): Node {
  return expand(reshape(condition, [like.shape[0] ?? 0, 1]), like.shape);
}

/** E + s A B: the same matrix for every record, by the position within it; positions beyond its rows have none. */
function withUpdate(
  context: AdaptContext,
  { r, alpha, max_length: length, prefix_length: prefix }: Settings,
  { a, b }: DeptTensors,
  rows: Node,
  positions: Node,
): Node {
  const product = multiply(dot(context.trainable(a), context.trainable(b)), alpha / Math.sqrt(r));
  const slot = subtract(positions, integer(positions, prefix));
  const inside = less(slot, integer(slot, length));
  // Rows in front of the first position are replaced by the prompt; any row of the table will do for them.
  const update = gather(product, minimum(slot, integer(slot, length - 1)));
  const added = select(acrossColumns(inside, update), update, 0);
  return cast(add(cast(rows, "f32"), added), rows.dtype);
}

/** The prompt in the first positions of every row of the batch. */
function withPrompt(context: AdaptContext, prompt: AdapterTensor, rows: Node, positions: Node): Node {
  const [prefix = 0] = prompt.shape;
  const taken = gather(context.trainable(prompt), minimum(positions, integer(positions, prefix - 1)));
  const inFront = acrossColumns(less(positions, integer(positions, prefix)), rows);
  return cast(select(inFront, taken, cast(rows, "f32")), rows.dtype);
}

/** The prompt as embeddings of tokens: those that are given, or different ones drawn by the seed. */
async function startFromTokens(settings: Settings, embedding: ParameterSpec, context: PrepareContext): Promise<void> {
  const { prefix_length: prefix, init_tokens: given } = settings;
  const { vocabularySize, width } = context.model;
  const ids =
    given ?? drawDistinct(context.seed, "prompt_embeddings", Math.min(prefix, vocabularySize), vocabularySize);
  const table = await context.read(embedding.name);
  const prompt = new Float32Array(prefix * width);
  for (let row = 0; row < prefix; row++) {
    const id = ids[row % ids.length] ?? 0;
    prompt.set(table.subarray(id * width, (id + 1) * width), row * width);
  }
  context.set("prompt_embeddings", prompt);
}
