/** What the method finds: a teacher whose weight differs from the base in few entries, of which its outputs are known. */
import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import type { WeightSource } from "../../io/weight-source.js";
import { elements } from "../../ir/shape.js";
import { tensorsOf } from "../../models/parameters.js";
import type { LinearSpec, ModelDefinition, ParameterSpec } from "../../models/types.js";
import { cast } from "../../ops/arithmetic.js";
import { gather } from "../../ops/gather.js";
import { openSession } from "../../session/open.js";
import type { SessionBatch } from "../../session/types.js";
import { trainingOptions } from "../../testing/method-training.js";
import { toyModel } from "../../testing/toy-model.js";
import type { MethodSelection } from "../compose.js";
import { drawNormal, drawSubset, drawUniform } from "../initial.js";

const [vocabulary, width] = [128, 40];
const linear: LinearSpec = {
  ...{ path: "model.layers.0.self_attn.q_proj", role: "query", block: 0 },
  ...{ inputs: width, outputs: width, bias: false, transposed: false },
};
const embedding: ParameterSpec = { name: "model.embed_tokens.weight", shape: [vocabulary, width], kind: "embedding" };
const head: ParameterSpec = { name: "lm_head.weight", shape: [vocabulary, width], kind: "embedding" };
const [weight] = tensorsOf(linear);

/** Logits H W e of a token with the row e of an embedding. */
const model: ModelDefinition = {
  ...toyModel(),
  ...{ vocabularySize: vocabulary, width, blocks: 1, headWidth: width, tiedEmbeddings: false },
  parameters: [embedding, head, ...tensorsOf(linear)],
  linears: [linear],
  forward: (context, { ids }) => {
    const x = cast(gather(context.parameter(embedding), ids), context.activation);
    return { hidden: cast(context.linear(linear, x), context.activation), head: context.parameter(head) };
  },
};

const valuesOf = ({ name, shape }: ParameterSpec): Float32Array =>
  Float32Array.from(drawNormal(2, name, elements(shape)), (value) => value / (name === embedding.name ? 1 : 4));
const weights: WeightSource = {
  tensor: () => ({ shape: [], storageFormat: "f32", bytes: 0 }),
  readInto: (name, target) => {
    const spec = must(
      model.parameters.find((one) => one.name === name),
      name,
    );
    target.set(new Uint8Array(valuesOf(spec).buffer));
    return Promise.resolve();
  },
  close: () => Promise.resolve(),
};

/** Of the teacher's places; five times as many entries train. */
const count = (width * width) / 100;
const planted = drawSubset(5, "planted", count, width * width);
const [rows, length, steps] = [8, 64, 150];

/** Labels drawn from the teacher: the base with 1 or -1 added at the planted places. */
function batches(): SessionBatch[] {
  const taught = valuesOf(must(weight, "weight"));
  planted.forEach((place, index) => (taught[place]! += index % 2 === 0 ? 1 : -1));
  const [rowsOf, out] = [valuesOf(embedding), valuesOf(head)];
  const dot = (a: Float32Array, b: ArrayLike<number>, row: number): number => {
    let sum = 0;
    for (let at = 0; at < width; at++) sum += a[row * width + at]! * b[at]!;
    return sum;
  };
  const shares = Array.from({ length: vocabulary }, (_, id) => {
    const x = rowsOf.subarray(id * width, (id + 1) * width);
    const hidden = Array.from({ length: width }, (__, row) => dot(taught, x, row));
    const logits = Array.from({ length: vocabulary }, (__, row) => dot(out, hidden, row));
    const powers = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
    const total = powers.reduce((a, b) => a + b, 0);
    let sum = 0;
    return powers.map((power) => (sum += power / total));
  });
  return Array.from({ length: steps }, (_, step) => {
    const tokens = rows * length;
    const ids = Int32Array.from(drawUniform(step, "ids", tokens), (value) => Math.floor(value * vocabulary));
    const labels = Int32Array.from(drawUniform(step, "labels", tokens), (value, at) =>
      must(shares[ids[at]!], "token").findIndex((share) => value <= share),
    );
    const zeros = new Int32Array(tokens);
    return { ids, labels, weights: new Float32Array(tokens).fill(1), positions: zeros, segments: zeros };
  });
}

interface Outcome {
  /** Mean loss of the last steps. */
  readonly loss: number;
  /** Share of the planted places among those of the entries at the end. */
  readonly recall: number;
}

const data = batches();

async function outcome(selection: MethodSelection, optimizer: string, rate: number): Promise<Outcome> {
  const session = await openSession(
    trainingOptions({
      ...{ model, selection: [selection], optimizer: { id: optimizer } },
      session: { batch: rows, length, segments: false, evaluate: false },
    }),
  );
  try {
    await session.load(weights);
    const losses: number[] = [];
    for (const [step, batch] of data.entries()) {
      const { loss } = await session.step([batch], { rate: rate * (1 - step / steps), step });
      losses.push(loss);
    }
    const own = session.tensors.find(({ name }) => name.endsWith("spiel_indices"));
    const places = new Set(own === undefined ? [] : new Int32Array(session.bytes(own.name).slice().buffer));
    const last = losses.slice(-30);
    return {
      loss: last.reduce((sum, loss) => sum + loss, 0) / last.length,
      recall: planted.filter((place) => places.has(place)).length / count,
    };
  } finally {
    session.close();
  }
}

const spielOf = (algorithm: string, seed: number): MethodSelection => ({
  id: "spiel",
  settings: { selection_algorithm: algorithm, seed, num_tunable_weights: 5 * count, total_steps: steps },
});

describe("SpIEL with a planted sparse teacher", () => {
  test("finds its places by gradients, some of them by moments, and trains better than a fixed support", async () => {
    const lora = await outcome({ id: "lora", settings: { r: 1 } }, "adamw", 0.02);
    for (const seed of [0, 1, 2]) {
      const [found, moments, fixed] = [
        await outcome(spielOf("rigl", seed), "adamw", 0.05),
        await outcome(spielOf("sm3", seed), "sm3", 0.5),
        await outcome(spielOf("none", seed), "adamw", 0.05),
      ];
      expect(found.recall).toBeGreaterThanOrEqual(0.7);
      expect(moments.recall).toBeLessThan(found.recall);
      expect(fixed.recall).toBeLessThan(moments.recall);
      expect(found.loss).toBeLessThan(moments.loss);
      expect(moments.loss).toBeLessThan(fixed.loss);
      // LoRA of rank 1 trains as many values.
      expect(found.loss).toBeLessThan(1.03 * lora.loss);
    }
  });
});
