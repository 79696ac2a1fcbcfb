import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { must, ThimbleError } from "../errors.js";
import type { Precision } from "../targets/interpret/evaluate.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { encoderFixtures, encoderFolder, encoderGraph, loadEncoderGolden } from "../testing/encoder-goldens.js";
import { excess, trainGolden } from "../testing/golden-training.js";
import { gradientError, relativeError, trainedError } from "../testing/goldens.js";
import { fromHuggingFaceConfig } from "./registry.js";

/** f32 to 1e-5; in f64 only the fixtures' own rounding to f32 remains. */
const tolerances: readonly (readonly [Precision, number])[] = [
  ["exact", 1e-5],
  ["f64", 1e-6],
];

describe.each(encoderFixtures)("%s agrees with transformers", (fixture) => {
  it.each(tolerances)("in logits, loss and every gradient (%s)", async (precision, tolerance) => {
    const golden = await loadEncoderGolden(fixture);
    const step = encoderGraph(golden);
    const outputs = [step.logits, step.loss, ...step.gradients.values()];
    const [logits, loss, ...made] = evaluate(outputs, step.bindings, precision);
    expect(relativeError(must(logits, "logits").data, golden.logits.data)).toBeLessThan(tolerance);
    expect(relativeError(must(loss, "loss").data, golden.losses.slice(0, 1))).toBeLessThan(tolerance);
    const values = new Map([...step.gradients.keys()].map((name, index) => [name, must(made[index], name).data]));
    expect(excess(golden, tolerance, (name) => gradientError(golden, name, must(values.get(name), name)))).toEqual({});
  });

  it.each(tolerances)("over five AdamW steps (%s)", async (precision, tolerance) => {
    const golden = await loadEncoderGolden(fixture);
    const { losses, values } = trainGolden(encoderGraph(golden), precision);
    expect(relativeError(losses, golden.losses)).toBeLessThan(tolerance);
    const error = (name: string): number => trainedError(golden, name, must(values.get(name), name).data);
    expect(excess(golden, tolerance, error)).toEqual({});
  });
});

describe("bf16 activations", () => {
  it.each(encoderFixtures)("keep %s near its f32 loss", async (fixture) => {
    const golden = await loadEncoderGolden(fixture);
    const step = encoderGraph(golden, "bf16");
    const [loss] = evaluate([step.loss], step.bindings);
    expect(Math.abs(must(must(loss, "loss").data[0], "loss") / must(golden.losses[0], "loss") - 1)).toBeLessThan(0.03);
  });
});

function config(fixture: (typeof encoderFixtures)[number]): Record<string, unknown> {
  return JSON.parse(readFileSync(`${encoderFolder(fixture)}/config.json`, "utf8")) as Record<string, unknown>;
}

function failure(json: unknown): ThimbleError {
  try {
    fromHuggingFaceConfig(json);
  } catch (error) {
    expect(error).toBeInstanceOf(ThimbleError);
    return error as ThimbleError;
  }
  throw new Error("no error");
}

describe("an encoder's configuration", () => {
  it("says what the head tells", () => {
    expect(fromHuggingFaceConfig(config("bert")).task).toEqual({
      kind: "classification",
      labels: ["bad", "fair", "good"],
      head: ["classifier.weight", "classifier.bias"],
    });
    expect(fromHuggingFaceConfig(config("roberta-regression")).task).toEqual({
      kind: "regression",
      labels: ["LABEL_0"],
      head: ["dense", "out_proj"].flatMap((name) => [`classifier.${name}.weight`, `classifier.${name}.bias`]),
    });
    const bare = { ...config("bert"), id2label: undefined };
    expect(fromHuggingFaceConfig(bare).task?.labels).toEqual(["LABEL_0", "LABEL_1"]);
    expect(fromHuggingFaceConfig({ ...bare, num_labels: 1 }).task?.kind).toBe("regression");
  });

  it("counts RoBERTa's positions behind the padding id", () => {
    expect(fromHuggingFaceConfig(config("roberta")).contextLength).toBe(16);
    expect(fromHuggingFaceConfig(config("bert")).contextLength).toBe(16);
    expect(failure({ ...config("roberta"), pad_token_id: 17 }).message).toMatch(/max_position_embeddings/);
  });

  it.each([
    [{ position_embedding_type: "relative_key" }, /position_embedding_type/],
    [{ num_attention_heads: 3 }, /num_attention_heads/],
    [{ is_decoder: true }, /is_decoder/],
    [{ problem_type: "multi_label_classification" }, /problem_type/],
    [{ problem_type: "regression" }, /problem_type/],
    [{ hidden_act: "relu6" }, /hidden_act/],
  ])("refuses %j by name", (changes, message) => {
    const error = failure({ ...config("bert"), ...changes });
    expect(error.code).toBe("model-setting");
    expect(error.message).toMatch(message);
  });

  it("puts the layers behind the blocks into no block, and the head among no targets", () => {
    const { parameters, linears, blocks } = fromHuggingFaceConfig(config("bert"));
    expect(parameters.filter(({ name }) => /pooler|classifier/.test(name)).map(({ block }) => block)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(linears.filter(({ role }) => role === "pooler").map(({ path }) => path)).toEqual(["bert.pooler.dense"]);
    expect(linears).toHaveLength(6 * blocks + 1);
  });
});
