/** Tiny models of each family with what transformers computes from them (made by scripts/fixtures/models.py). */
import { fileURLToPath } from "node:url";
import { must } from "../errors.js";
import { gradients } from "../autodiff/gradients.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { openModel } from "../io/model.js";
import { openSafetensors } from "../io/safetensors.js";
import { plainContext } from "../models/context.js";
import { tokenLoss } from "../models/loss.js";
import type { ModelDefinition } from "../models/types.js";
import { dot } from "../ops/dot.js";
import { leaf } from "../ops/leaves.js";

export const goldenFamilies = ["llama", "smollm", "smollm3", "mistral", "qwen2", "qwen3", "gemma3", "gpt2"] as const;
export type GoldenFamily = (typeof goldenFamilies)[number];

/** The settings of AdamW with which the fixtures were trained; no weight decay. */
export const goldenTraining = { steps: 5, rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 } as const;

/** What transformers computes of a fixture. */
export interface GoldenValues {
  /** Before each of the five steps and after the last. */
  readonly losses: readonly number[];
  /** Of the loss before the first step, by parameter. */
  readonly gradients: ReadonlyMap<string, Tensor>;
  /** After five steps. */
  readonly trained: ReadonlyMap<string, Tensor>;
}

export interface Golden extends GoldenValues {
  readonly definition: ModelDefinition;
  readonly batch: number;
  readonly length: number;
  /** i32 [B*T] each; labels are those of the next token. */
  readonly ids: Tensor;
  readonly positions: Tensor;
  readonly labels: Tensor;
  /** f32 [B*T]: each token's share of the loss. */
  readonly weights: Tensor;
  /** f32, by name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** f32 [B*T, V]. */
  readonly logits: Tensor;
}

/** The folder of a family's fixture: config.json, model.safetensors, expected.safetensors, some with .gguf files. */
export function goldenFolder(family: GoldenFamily): string {
  return fileURLToPath(new URL(`../models/fixtures/${family}`, import.meta.url));
}

export async function loadGolden(family: GoldenFamily): Promise<Golden> {
  const folder = goldenFolder(family);
  const { definition, weights } = await openModel(folder);
  const expected = await openSafetensors(`${folder}/expected.safetensors`);
  const read = async (name: string): Promise<Tensor> => {
    const { type, shape } = expected.info(name);
    const data = type === "i32" ? await expected.readAs(name, "i32") : await expected.readAs(name, "f32");
    return { shape, dtype: type === "i32" ? "i32" : "f32", data };
  };
  const ids = await read("ids");
  const logits = await read("logits");
  const batch = 2;
  const length = ids.data.length / batch;
  const parameters = new Map<string, Tensor>();
  const golden = { gradients: new Map<string, Tensor>(), trained: new Map<string, Tensor>() };
  for (const { name, shape } of definition.parameters) {
    const data = new Float32Array(must(weights.tensor(name).bytes, "bytes") / 4);
    await weights.readInto(name, new Uint8Array(data.buffer), "f32");
    parameters.set(name, { shape, dtype: "f32", data });
    golden.gradients.set(name, await read(`gradient.${name}`));
    golden.trained.set(name, await read(`trained.${name}`));
  }
  const rest = { labels: await read("labels"), weights: await read("weights") };
  const losses = Array.from((await read("losses")).data);
  await Promise.all([weights.close(), expected.close()]);
  const positions = tensor(
    ids.shape,
    Array.from(ids.data, (_, index) => index % length),
    "i32",
  );
  return { definition, batch, length, ids, positions, ...rest, parameters, logits, losses, ...golden };
}

/** The whole step of a golden as a graph, with the values of its leaves. */
export interface GoldenGraph {
  readonly graph: Graph;
  /** f32 [B*T, V]. */
  readonly logits: Node;
  /** f32 []. */
  readonly loss: Node;
  /** Leaves by parameter name. */
  readonly parameters: ReadonlyMap<string, Node>;
  /** Of the loss, by parameter name. */
  readonly gradients: ReadonlyMap<string, Node>;
  /** Inputs and parameters. */
  readonly bindings: Map<Node, Tensor>;
}

export function goldenGraph(golden: Golden, activation: "f32" | "bf16" = "f32"): GoldenGraph {
  const { definition, batch, length } = golden;
  const graph = new Graph();
  const input = (name: "ids" | "positions" | "labels" | "weights"): Node =>
    leaf(graph, { name, role: "input", shape: golden[name].shape, dtype: golden[name].dtype });
  const inputs = { ids: input("ids"), positions: input("positions") };
  const targets = { labels: input("labels"), weights: input("weights") };
  const context = plainContext({ graph, batch, length, activation });
  const result = definition.forward(context, inputs);
  const loss = tokenLoss(result, targets);
  const logits = dot(result.hidden, result.head, { transposeB: true });
  const names = definition.parameters.map(({ name }) => name);
  const leaves = names.map((name) => must(context.leaves.get(name), name));
  const made = gradients(loss, leaves);
  const bindings = new Map<Node, Tensor>([
    [inputs.ids, golden.ids],
    [inputs.positions, golden.positions],
    [targets.labels, golden.labels],
    [targets.weights, golden.weights],
  ]);
  leaves.forEach((node, index) => {
    const { shape, data } = must(golden.parameters.get(must(names[index], "name")), "value");
    bindings.set(node, tensor(shape, data, activation));
  });
  const byName = (nodes: readonly Node[]): Map<string, Node> =>
    new Map(names.map((name, index) => [name, must(nodes[index], name)]));
  return { graph, logits, loss, parameters: byName(leaves), gradients: byName(made), bindings };
}

/** The largest difference, relative to the largest expected value. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Infinity;
  let difference = 0;
  let largest = 0;
  for (let index = 0; index < expected.length; index++) {
    const value = expected[index] ?? NaN;
    const error = Math.abs((actual[index] ?? NaN) - value);
    if (Number.isNaN(error)) return NaN;
    difference = Math.max(difference, error);
    largest = Math.max(largest, Math.abs(value));
  }
  return largest === 0 ? difference : difference / largest;
}

function largestOf(values: ArrayLike<number>): number {
  let largest = 0;
  for (let index = 0; index < values.length; index++) largest = Math.max(largest, Math.abs(values[index] ?? 0));
  return largest;
}

/** The largest gradient of any parameter. */
function gradientScale(golden: GoldenValues): number {
  return largestOf([...golden.gradients.values()].map(({ data }) => largestOf(data)));
}

/**
 * The largest difference of a parameter's gradient from the golden one, relative to its largest value. (Gradients
 * that are zero but for rounding, such as those of key biases without rotary positions, are measured by a hundredth of
 * the model's largest gradient.)
 */
export function gradientError(golden: GoldenValues, name: string, actual: ArrayLike<number>): number {
  const expected = must(golden.gradients.get(name), name).data;
  const largest = largestOf(expected);
  const scale = gradientScale(golden);
  if (largest >= scale * 1e-6) return relativeError(actual, expected);
  return (relativeError(actual, expected) * (largest === 0 ? 1 : largest)) / (scale * 1e-2);
}

/**
 * The largest difference of a trained parameter from the golden one, relative to its largest value. Adam divides a
 * gradient by its own size, so elements whose gradient is rounding noise (below 1e-4 of the largest) may end anywhere
 * within five steps of where they started; they count as Infinity only beyond that.
 */
export function trainedError(golden: GoldenValues, name: string, actual: ArrayLike<number>): number {
  const expected = must(golden.trained.get(name), name).data;
  const gradient = must(golden.gradients.get(name), name).data;
  const noise = gradientScale(golden) * 1e-4;
  const reach = 2 * goldenTraining.steps * goldenTraining.rate;
  const kept = Float64Array.from(expected);
  for (let index = 0; index < kept.length; index++) {
    const value = actual[index] ?? NaN;
    const close = Math.abs(value - (expected[index] ?? NaN)) <= reach;
    if (!close) return Infinity;
    if (Math.abs(gradient[index] ?? 0) < noise) kept[index] = value;
  }
  return relativeError(actual, kept);
}
