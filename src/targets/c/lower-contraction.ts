import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { sizeOf } from "../../ir/dtype.js";
import { elements, sameShape } from "../../ir/shape.js";
import type { ContractionKernel, Operand } from "../../passes/kernels.js";
import { storageOf } from "../../passes/kernels.js";
import { storeEpilogue } from "./contraction-epilogue.js";
import type { ContractionSpec, OperandArguments } from "./contraction.js";
import { contractionArguments, contractionWorkspace, renderContraction } from "./contraction.js";
import { epilogueC } from "./loops-epilogue.js";
import type { LoweredKernel, SymbolicWord } from "./lower-fixed.js";
import { inputWord, workspace } from "./lower-fixed.js";
import { denseType, storageForm } from "./lower-operand.js";
import { renderFill } from "./operand-fill.js";

export function lowerContraction(kernel: ContractionKernel, threads: number): LoweredKernel {
  const { rows, columns, batch, compute } = kernel;
  const depths = kernel.segments.map(({ a }) => depthOf(a));
  const epilogue = lowerEpilogue(kernel);
  const spec: ContractionSpec = {
    segments: kernel.segments.map(({ a, b }) => ({ a: form(a, compute), b: form(b, compute) })),
    compute,
    epilogue: epilogue.epilogue,
  };
  const words = contractionArguments<SymbolicWord>({
    rows,
    columns,
    batch,
    workspace,
    segments: kernel.segments.map(({ a, b }, index) => ({
      a: operandWords(kernel, a),
      b: operandWords(kernel, b),
      depth: must(depths[index], "depth"),
    })),
    epilogue: epilogue.words,
    computed: kernel.segments.flatMap(({ a, b }) => [...computedWords(kernel, a), ...computedWords(kernel, b)]),
  });
  return {
    generated: renderContraction(spec),
    words,
    workspaceBytes: contractionWorkspace(spec, { rows, columns, depths, batch }, threads),
    inPlace: kernel.outputs.map((output) => overwritable(kernel, output)),
  };
}

function form(
  { node, transposed, computed }: Operand,
  compute: ContractionSpec["compute"],
): ContractionSpec["segments"][number]["a"] {
  if (computed !== undefined) return { dtype: "f32", decoder: renderFill(computed, compute).decoder, transposed };
  return { ...storageForm(node), transposed };
}

function computedWords(kernel: ContractionKernel, { computed }: Operand): SymbolicWord[] {
  if (computed === undefined) return [];
  const { words } = renderFill(computed, kernel.compute);
  return words.map((word) => (typeof word === "number" ? word : inputWord(kernel, word.node)));
}

/** A is stored [M, K], or [K, M] where transposed. */
function depthOf({ shape, transposed }: Operand): number {
  return must(shape.at(transposed ? -2 : -1), "depth");
}

function operandWords(kernel: ContractionKernel, { node, shape }: Operand): OperandArguments<SymbolicWord> {
  const [rows, columns] = [must(shape.at(-2), "rows"), must(shape.at(-1), "columns")];
  return { address: inputWord(kernel, node), rowStride: columns, batchStride: shape.length === 3 ? rows * columns : 0 };
}

function lowerEpilogue(kernel: ContractionKernel): { epilogue: ContractionSpec["epilogue"]; words: SymbolicWord[] } {
  const { accumulator, epilogue, outputs, epilogueInputs, rows, columns } = kernel;
  const output = must(outputs[0], "output");
  if (epilogue === accumulator) {
    return { epilogue: storeEpilogue(denseType(output)), words: [{ output: 0 }, columns, rows * columns] };
  }
  const { source, name, words, layout } = epilogueC([epilogue], accumulator, epilogueInputs);
  const resolved = layout.map((word): SymbolicWord => {
    if (typeof word === "number" || "output" in word) return word;
    return inputWord(kernel, must(epilogueInputs[word.input], "epilogue input"));
  });
  return { epilogue: { source, name, words }, words: resolved };
}

/** Epilogue operands that are read only at the place that is then stored. */
function overwritable(kernel: ContractionKernel, output: Node): number[] {
  const multiplied = new Set(kernel.segments.flatMap(({ a, b }) => [a.node, b.node]));
  return kernel.epilogueInputs.flatMap((node) => {
    const base = storageOf(node);
    const aligned = sameShape(node.shape, output.shape) && !multiplied.has(base);
    const fits =
      aligned && sizeOf(base.dtype) === sizeOf(output.dtype) && elements(base.shape) === elements(output.shape);
    return fits ? [kernel.inputs.indexOf(base)] : [];
  });
}
