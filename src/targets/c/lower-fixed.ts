import { must, ThimbleError } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { attentionAttributes, attentionBackwardOp, attentionOp, attentionSizes } from "../../ops/attention.js";
import {
  linearCrossEntropyGradientOp,
  linearCrossEntropyOp,
  linearCrossEntropyWeightGradientOp,
} from "../../ops/cross-entropy.js";
import type { OpDefinition } from "../../ir/op.js";
import { elements } from "../../ir/shape.js";
import { cumulativeSumOp } from "../../ops/cumulative-sum.js";
import { scatterAddOp, scatterWriteOp } from "../../ops/gather.js";
import { symmetricEigenOp } from "../../ops/symmetric-eigen.js";
import type { TopKOptions } from "../../ops/top-k.js";
import { topKOp } from "../../ops/top-k.js";
import { operandStorage } from "../../passes/contractions.js";
import { lossWeight } from "../../passes/operand-expression.js";
import type { FixedKernel } from "../../passes/kernels.js";
import { storageOf } from "../../passes/kernels.js";
import { attentionBackwardWorkspace, attentionWorkspace, type AttentionSpec } from "./attention.js";
import { renderAttentionBackward } from "./attention-backward.js";
import { renderAttention } from "./attention-forward.js";
import { crossEntropyWorkspace, weightGradientWorkspace } from "./cross-entropy-plan.js";
import type { CrossEntropySpec } from "./cross-entropy-types.js";
import {
  crossEntropyArguments,
  renderCrossEntropy,
  renderWeightGradient,
  weightGradientArguments,
} from "./cross-entropy.js";
import { cumulativeSumWords, renderCumulativeSum } from "./cumulative-sum.js";
import type { GeneratedKernel } from "./entries.js";
import { denseType, sizeAt, storageForm } from "./lower-operand.js";
import { renderFill } from "./operand-fill.js";
import { renderScatter, scatterWords } from "./scatter.js";
import { eigenWords, eigenWorkspace, renderSymmetricEigen } from "./symmetric-eigen.js";
import { renderTopK, topKWords, topKWorkspace } from "./top-k.js";

/** A word of a kernel before buffers have addresses: a number, an input, an output, or the workspace. */
export type SymbolicWord =
  number | { readonly input: number } | { readonly output: number } | { readonly workspace: true };

/** A kernel as lowered for one structure: everything but where its buffers are. */
export interface LoweredKernel {
  readonly generated: GeneratedKernel;
  readonly words: readonly SymbolicWord[];
  readonly workspaceBytes: number;
  /** For each output, the inputs whose memory it may take over. */
  readonly inPlace: readonly (readonly number[])[];
}

export const workspace: SymbolicWord = { workspace: true };

/** Which input of the kernel holds a value. */
export function inputWord(kernel: { readonly inputs: readonly Node[] }, node: Node): SymbolicWord {
  const index = kernel.inputs.indexOf(storageOf(node));
  return { input: index >= 0 ? index : must(kernel.inputs.indexOf(operandStorage(node)), "input of kernel") };
}

export function lowerFixed(kernel: FixedKernel, threads: number): LoweredKernel {
  const { op } = kernel.node;
  const lower = lowerings.get(op);
  if (lower !== undefined) return lower(kernel, threads);
  throw new ThimbleError("target-kernel-missing", `The C target has no kernel for ${op.name}`, {
    where: kernel.node.scope,
  });
}

const single = new Float32Array(1);
const singleBits = new Int32Array(single.buffer);

function floatBits(value: number): number {
  single[0] = value;
  return singleBits[0] ?? 0;
}

const absent = [] as readonly number[];

function lowerAttention(kernel: FixedKernel, threads: number): LoweredKernel {
  const { node } = kernel;
  const [q, k, v] = [must(node.inputs[0], "q"), must(node.inputs[1], "k"), must(node.inputs[2], "v")];
  const attributes = attentionAttributes(node.attributes);
  const sizes = attentionSizes(q, k);
  const storage = denseType(q);
  const spec: AttentionSpec = {
    headSize: sizes.width,
    storage,
    compute: storage,
    causal: attributes.causal,
    segments: attributes.segments,
  };
  const backward = node.op === attentionBackwardOp;
  const dims = {
    batch: sizes.batch,
    heads: sizes.heads,
    keyHeads: sizes.keyHeads,
    queries: sizes.queries,
    keys: sizes.keys,
  };
  const own = backward ? node.inputs.slice(0, -3) : node.inputs;
  const segments = attributes.segments ? inputWord(kernel, must(own[3], "segments")) : 0;
  const offset = attributes.offset ? inputWord(kernel, must(own.at(-1), "offset")) : 0;
  const [out, lse, dy] = backward ? node.inputs.slice(-3) : [];
  const saved = (value: Node | undefined, output: number): SymbolicWord =>
    value === undefined ? { output } : inputWord(kernel, value);
  const words: SymbolicWord[] = [
    ...[q, k, v].map((value) => inputWord(kernel, value)),
    saved(out, 0),
    saved(lse, 1),
    segments,
    offset,
    workspace,
    ...[dims.batch, dims.queries, dims.keys, dims.heads, dims.keyHeads, attributes.window, floatBits(attributes.scale)],
  ];
  if (dy !== undefined) words.push(inputWord(kernel, dy), { output: 0 }, { output: 1 }, { output: 2 });
  return {
    generated: backward ? renderAttentionBackward(spec) : renderAttention(spec),
    words,
    workspaceBytes: backward
      ? attentionBackwardWorkspace(spec, dims, threads)
      : attentionWorkspace(spec, dims, threads),
    inPlace: kernel.outputs.map(() => absent),
  };
}

function lowerCrossEntropy(kernel: FixedKernel, threads: number): LoweredKernel {
  const { node } = kernel;
  const [x, weight, labels, rowWeights] = node.inputs as [Node, Node, Node, Node];
  const gradient = node.op === linearCrossEntropyGradientOp;
  const compute = x.dtype === "bf16" && weight.dtype === "bf16" ? "bf16" : "f32";
  const computed = lossWeight(node);
  const fill = computed === undefined ? undefined : renderFill(computed, compute);
  const spec: CrossEntropySpec = {
    x: denseType(x),
    weight: fill === undefined ? storageForm(operandStorage(weight)) : { dtype: "f32", decoder: fill.decoder },
    compute,
    ...(gradient ? { inputGradient: "f32" } : {}),
    ...(node.attributes["weight"] === true ? { normalizers: true } : {}),
  };
  const [rows, depth, vocabulary] = [sizeAt(x, 0), sizeAt(x, 1), sizeAt(weight, 0)];
  const matrix = (address: SymbolicWord): { address: SymbolicWord; rowStride: SymbolicWord } => ({
    address,
    rowStride: depth,
  });
  const sizes = { rows, depth, vocabulary };
  const operands = {
    ...sizes,
    workspace,
    x: matrix(inputWord(kernel, x)),
    weight: matrix(fill === undefined ? inputWord(kernel, weight) : 0),
    labels: inputWord(kernel, labels),
    rowWeights: inputWord(kernel, rowWeights),
  };
  const inPlace = kernel.outputs.map(() => absent);
  if (node.op === linearCrossEntropyWeightGradientOp) {
    const [normalizer, miss] = node.inputs.slice(4).map((value) => inputWord(kernel, value));
    return {
      generated: renderWeightGradient(spec),
      words: weightGradientArguments<SymbolicWord>({
        ...operands,
        normalizer: must(normalizer, "normalizer"),
        miss: must(miss, "miss"),
        weightGradient: matrix({ output: 0 }),
      }),
      workspaceBytes: weightGradientWorkspace(spec, sizes, threads),
      inPlace,
    };
  }
  return {
    generated: renderCrossEntropy(spec),
    words: [
      ...crossEntropyArguments<SymbolicWord>({
        ...operands,
        nll: { output: 0 },
        inputGradient: matrix(gradient ? { output: 1 } : 0),
        normalizer: spec.normalizers === true ? { output: 2 } : 0,
        miss: spec.normalizers === true ? { output: 3 } : 0,
      }),
      ...(fill?.words ?? []).map((word) => (typeof word === "number" ? word : inputWord(kernel, word.node))),
    ],
    workspaceBytes: crossEntropyWorkspace(spec, sizes, threads),
    inPlace,
  };
}

function lowerScatter(kernel: FixedKernel): LoweredKernel {
  const [base, ids, updates] = kernel.node.inputs as [Node, Node, Node];
  const mode = kernel.node.op === scatterAddOp ? "add" : "write";
  const input = (node: Node): SymbolicWord => inputWord(kernel, node);
  const words = scatterWords<SymbolicWord>({
    output: { output: 0 },
    base: input(base),
    ids: input(ids),
    updates: input(updates),
    rows: sizeAt(base, 0),
    width: sizeAt(base, 1),
    count: sizeAt(ids, 0),
  });
  const place = kernel.inputs.indexOf(storageOf(base));
  const shared = storageOf(base) === storageOf(updates);
  return {
    generated: renderScatter({ dtype: denseType(base), mode }),
    words,
    workspaceBytes: 0,
    inPlace: [shared ? [] : [place]],
  };
}

function lowerTopK(kernel: FixedKernel, threads: number): LoweredKernel {
  const { node } = kernel;
  const { count, by, order } = node.attributes as unknown as TopKOptions;
  const x = must(node.inputs[0], "operand");
  const length = must(x.shape.at(-1), "row");
  const words = topKWords<SymbolicWord>({
    x: inputWord(kernel, x),
    values: { output: 0 },
    places: { output: 1 },
    workspace,
    rows: elements(x.shape) / length,
    length,
    count,
  });
  const workspaceBytes = topKWorkspace(count, threads);
  return { generated: renderTopK({ by, order }), words, workspaceBytes, inPlace: kernel.outputs.map(() => absent) };
}

function lowerCumulativeSum(kernel: FixedKernel): LoweredKernel {
  const x = must(kernel.node.inputs[0], "operand");
  const length = must(x.shape.at(-1), "row");
  const places = { x: inputWord(kernel, x), sums: { output: 0 } };
  return {
    generated: renderCumulativeSum(),
    words: cumulativeSumWords<SymbolicWord>({ ...places, rows: elements(x.shape) / length, length }),
    workspaceBytes: 0,
    inPlace: [[0]],
  };
}

function lowerSymmetricEigen(kernel: FixedKernel): LoweredKernel {
  const matrix = must(kernel.node.inputs[0], "operand");
  const size = sizeAt(matrix, 0);
  const places = { matrix: inputWord(kernel, matrix), values: { output: 0 }, vectors: { output: 1 } };
  return {
    generated: renderSymmetricEigen(),
    words: eigenWords<SymbolicWord>({ ...places, workspace, size }),
    workspaceBytes: eigenWorkspace(size),
    inPlace: kernel.outputs.map(() => absent),
  };
}

/** The hand-made kernels, by op. */
const lowerings = new Map<OpDefinition, (kernel: FixedKernel, threads: number) => LoweredKernel>([
  [attentionOp, lowerAttention],
  [attentionBackwardOp, lowerAttention],
  [linearCrossEntropyOp, lowerCrossEntropy],
  [linearCrossEntropyGradientOp, lowerCrossEntropy],
  [linearCrossEntropyWeightGradientOp, lowerCrossEntropy],
  [scatterAddOp, lowerScatter],
  [scatterWriteOp, lowerScatter],
  [topKOp, lowerTopK],
  [symmetricEigenOp, lowerSymmetricEigen],
  [cumulativeSumOp, lowerCumulativeSum],
]);
