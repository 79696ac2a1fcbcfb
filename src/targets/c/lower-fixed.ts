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
import { scatterAddOp, scatterMaximumOp, scatterWriteOp } from "../../ops/gather.js";
import { exchangeSlotsOp, matchPlacesOp, topOuterOp } from "../../ops/index-set.js";
import { sampledDotOp, sparseAttributes, sparseDotOp } from "../../ops/sparse.js";
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
import type { ExchangeArguments, MatchArguments, TopOuterArguments } from "./index-set.js";
import {
  exchangeWords,
  exchangeWorkspace,
  matchWords,
  matchWorkspace,
  renderExchange,
  renderMatch,
  renderTopOuter,
  topOuterWords,
  topOuterWorkspace,
} from "./index-set.js";
import { denseType, sizeAt, storageForm } from "./lower-operand.js";
import { renderFill } from "./operand-fill.js";
import type { ScatterSpec } from "./scatter.js";
import { renderScatter, scatterWords } from "./scatter.js";
import type { SampledDotArguments, SparseDotArguments } from "./sparse.js";
import {
  renderSampledDot,
  renderSparseDot,
  sampledDotWords,
  sampledDotWorkspace,
  sparseDotWords,
  sparseDotWorkspace,
} from "./sparse.js";
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

const scatterModes = new Map<OpDefinition, ScatterSpec["mode"]>([
  [scatterAddOp, "add"],
  [scatterWriteOp, "write"],
  [scatterMaximumOp, "maximum"],
]);

function lowerScatter(kernel: FixedKernel): LoweredKernel {
  const [base, ids, updates] = kernel.node.inputs as [Node, Node, Node];
  const mode = must(scatterModes.get(kernel.node.op), "mode of a scatter");
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

function lowerSparseDot(kernel: FixedKernel, threads: number): LoweredKernel {
  const { node } = kernel;
  const [x, places, values] = node.inputs as [Node, Node, Node];
  const { transpose, ...size } = sparseAttributes(node.attributes);
  const count = elements(places.shape);
  const words: SparseDotArguments<SymbolicWord> = {
    ...{ x: inputWord(kernel, x), places: inputWord(kernel, places), values: inputWord(kernel, values) },
    ...{ output: { output: 0 }, workspace, tokens: sizeAt(x, 0), ...size, count },
  };
  return {
    generated: renderSparseDot(denseType(x), transpose),
    words: sparseDotWords(words),
    workspaceBytes: sparseDotWorkspace(size, count, threads),
    inPlace: [absent],
  };
}

function lowerSampledDot(kernel: FixedKernel): LoweredKernel {
  const [a, b, places] = kernel.node.inputs as [Node, Node, Node];
  const size = { rows: sizeAt(a, 1), columns: sizeAt(b, 1) };
  const words: SampledDotArguments<SymbolicWord> = {
    ...{ a: inputWord(kernel, a), b: inputWord(kernel, b), places: inputWord(kernel, places) },
    ...{ output: { output: 0 }, workspace, tokens: sizeAt(a, 0), ...size, count: elements(places.shape) },
  };
  return {
    generated: renderSampledDot(denseType(a), denseType(b)),
    words: sampledDotWords(words),
    workspaceBytes: sampledDotWorkspace(size),
    inPlace: [absent],
  };
}

function lowerMatch(kernel: FixedKernel): LoweredKernel {
  const [keys, queries] = kernel.node.inputs as [Node, Node];
  const [keyCount, queryCount] = [elements(keys.shape), elements(queries.shape)];
  const words: MatchArguments<SymbolicWord> = {
    ...{ keys: inputWord(kernel, keys), queries: inputWord(kernel, queries), output: { output: 0 } },
    ...{ workspace, keyCount, queryCount },
  };
  const workspaceBytes = matchWorkspace(keyCount);
  return { generated: renderMatch(), words: matchWords(words), workspaceBytes, inPlace: [absent] };
}

function lowerExchange(kernel: FixedKernel): LoweredKernel {
  const [leaving, arriving, slots, limit] = kernel.node.inputs as [Node, Node, Node, Node];
  const [slotCount, candidateCount] = [elements(leaving.shape), elements(arriving.shape)];
  const words: ExchangeArguments<SymbolicWord> = {
    ...{ leaving: inputWord(kernel, leaving), arriving: inputWord(kernel, arriving), slots: inputWord(kernel, slots) },
    ...{ limit: inputWord(kernel, limit), output: { output: 0 }, workspace, slotCount, candidateCount },
  };
  const workspaceBytes = exchangeWorkspace(slotCount);
  return { generated: renderExchange(), words: exchangeWords(words), workspaceBytes, inPlace: [absent] };
}

function lowerTopOuter(kernel: FixedKernel): LoweredKernel {
  const [rows, columns, taken, limit] = kernel.node.inputs as [Node, Node, Node, Node];
  const [rowCount, columnCount, takenCount] = [elements(rows.shape), elements(columns.shape), elements(taken.shape)];
  const words: TopOuterArguments<SymbolicWord> = {
    ...{ rows: inputWord(kernel, rows), columns: inputWord(kernel, columns), taken: inputWord(kernel, taken) },
    ...{ limit: inputWord(kernel, limit), output: { output: 0 }, workspace, rowCount, columnCount, takenCount },
    count: elements(kernel.node.shape),
  };
  const workspaceBytes = topOuterWorkspace(rowCount, columnCount, takenCount);
  return { generated: renderTopOuter(), words: topOuterWords(words), workspaceBytes, inPlace: [absent] };
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
  [scatterMaximumOp, lowerScatter],
  [sparseDotOp, lowerSparseDot],
  [sampledDotOp, lowerSampledDot],
  [matchPlacesOp, lowerMatch],
  [exchangeSlotsOp, lowerExchange],
  [topOuterOp, lowerTopOuter],
  [topKOp, lowerTopK],
  [symmetricEigenOp, lowerSymmetricEigen],
  [cumulativeSumOp, lowerCumulativeSum],
]);
