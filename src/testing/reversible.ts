import { gradients } from "../autodiff/gradients.js";
import { inverted, reversibleOp } from "../autodiff/reversible.js";
import { must } from "../errors.js";
import { Graph, reachable } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import type { MethodSelection } from "../methods/compose.js";
import { drawNormal } from "../methods/initial.js";
import type { ModelDefinition } from "../models/types.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import { leafAttributes, leafOp, result } from "../ops/leaves.js";
import { stepScalars } from "../step/inputs.js";
import { trainedModel } from "../step/estimate.js";
import type { Precision } from "../targets/interpret/evaluate.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { trainingOptions } from "./method-training.js";
import { tinyLlama } from "./tiny.js";

const rows = 2;
const length = 6;

/** Models of two families, small enough for the interpreter: norms before the parts of a block, and behind them. */
export function deepModel(kind: "pre-norm" | "post-norm", layers: number): ModelDefinition {
  const sizes = { hidden_size: 16, intermediate_size: 24, num_attention_heads: 2, num_hidden_layers: layers };
  if (kind === "pre-norm") return tinyLlama(sizes);
  return fromHuggingFaceConfig({
    ...sizes,
    model_type: "bert",
    architectures: ["BertForSequenceClassification"],
    vocab_size: 33,
    max_position_embeddings: 16,
    type_vocab_size: 1,
    num_labels: 3,
  });
}

/** The gradient step of a model under methods as a graph, with plausible values: what the interpreter is asked. */
export class GradientStep {
  readonly graph = new Graph();
  readonly loss: Node;
  readonly trained: readonly { readonly name: string; readonly node: Node }[];
  readonly gradients: readonly Node[];
  readonly values: ReadonlyMap<Node, Tensor>;

  constructor(
    readonly model: ModelDefinition,
    selection: readonly MethodSelection[],
    options: { readonly dtype?: "f32" | "bf16"; readonly adapters?: number } = {},
  ) {
    const { graph } = this;
    const dtype = options.dtype ?? "f32";
    const session = { batch: rows, length, segments: false, dtype };
    const built = trainingOptions({ selection, model, session });
    const net = trainedModel(graph, { ...built, activation: dtype }, stepScalars(graph));
    this.loss = net.loss({ dropout: true });
    this.trained = net.trainables();
    this.gradients = gradients(
      this.loss,
      this.trained.map(({ node }) => node),
    );
    const leaves = reachable([this.loss, ...this.gradients]).filter(({ op }) => op === leafOp);
    this.values = new Map(leaves.map((leaf) => [leaf, valueOf(leaf, model, options.adapters ?? 1)]));
  }

  run(nodes: readonly Node[], precision: Precision = "exact"): Tensor[] {
    return evaluate(nodes, this.values, precision);
  }

  /** All gradients in one line. */
  gradient(precision: Precision = "exact"): number[] {
    return this.run(this.gradients, precision).flatMap(({ data }) => [...data]);
  }

  /** The reversible segments, lowest first. */
  get segments(): Node[] {
    return reachable([this.loss]).filter(({ op }) => op === reversibleOp);
  }

  /** What a segment starts from, and what of it comes back when it is run backwards. */
  inverse(segment: Node, precision: Precision = "exact"): { readonly start: number[]; readonly back: number[] } {
    const values = (nodes: readonly Node[]): number[] => this.run(nodes, precision).flatMap(({ data }) => [...data]);
    return {
      start: values(segment.inputs.slice(2, 4)),
      back: values(inverted([result(segment, 0), result(segment, 1)])),
    };
  }
}

/** Weights as large as keep values at their size, norms near 1; adapters `adapters` times what they start as. */
function valueOf(leaf: Node, model: ModelDefinition, adapters: number): Tensor {
  const { name, role, shape, dtype } = leafAttributes(leaf);
  const count = elements(shape);
  const numbered = (value: (index: number) => number): Tensor =>
    tensor(
      shape,
      Float64Array.from({ length: count }, (_, index) => value(index)),
      dtype,
    );
  if (name.endsWith("ids")) return numbered((index) => (index * 7) % model.vocabularySize);
  if (name.endsWith("labels")) return numbered((index) => (index * 5) % (model.task?.labels.length ?? 7));
  if (name.endsWith("positions")) return numbered((index) => index % length);
  if (role === "input") return numbered(() => (dtype === "f32" ? 1 / count : 3));
  const norm = shape.length === 1 && /norm.*weight$/i.test(name);
  const own = must(shape.at(-1), "width");
  const deviation = name.startsWith("meft.") ? 0.02 * adapters : shape.length === 1 ? 0.1 : 1 / Math.sqrt(own);
  const drawn = drawNormal(5, name, count);
  return numbered((index) => (norm ? 1 : 0) + (drawn[index] ?? 0) * (norm ? 0.1 : deviation));
}

/** Euclidean length of the difference, relative to that of what is expected. */
export function relativeNorm(actual: readonly number[], expected: readonly number[]): number {
  let [difference, whole] = [actual.length === expected.length ? 0 : Infinity, 0];
  expected.forEach((value, place) => {
    difference += (value - (actual[place] ?? NaN)) ** 2;
    whole += value ** 2;
  });
  return Math.sqrt(difference / whole);
}
