import { beforeAll, describe, expect, it } from "vitest";
import { bf16FromBits, roundTo } from "../../ir/dtype.js";
import {
  crossEntropyArguments,
  crossEntropyWorkspace,
  renderCrossEntropy,
  renderWeightGradient,
  weightGradientArguments,
  weightGradientWorkspace,
  type CrossEntropySizes,
  type CrossEntropySpec,
} from "./cross-entropy.js";
import { Kernels, Memory, nativeFlags } from "../../testing/c/harness.js";
import { byteDecoder, store, uniform } from "../../testing/c/product.js";

const specs: Readonly<Record<string, CrossEntropySpec>> = {
  "f32 loss": { x: "f32", weight: { dtype: "f32" }, compute: "f32" },
  "f32 loss and dx": { x: "f32", weight: { dtype: "f32" }, compute: "f32", inputGradient: "f32" },
  "f32 loss, dx and dW": {
    ...{ x: "f32", weight: { dtype: "f32" }, compute: "f32" },
    ...{ inputGradient: "bf16", normalizers: true },
  },
  "bf16 loss": { x: "bf16", weight: { dtype: "bf16" }, compute: "bf16" },
  "bf16 loss, dx and dW": {
    ...{ x: "bf16", weight: { dtype: "bf16" }, compute: "bf16" },
    ...{ inputGradient: "f32", normalizers: true },
  },
  "packed weight in bf16, dx": {
    ...{ x: "f32", weight: { dtype: "f32", decoder: byteDecoder(32) }, compute: "bf16", inputGradient: "f32" },
  },
  "packed weight in f32, no dx": {
    ...{ x: "f16", weight: { dtype: "f32", decoder: byteDecoder(32) }, compute: "f32", normalizers: true },
  },
};

interface Reference {
  readonly nll: Float64Array;
  readonly dx: Float64Array;
  readonly dw: Float64Array;
  readonly dxScale: Float64Array;
  readonly dwScale: Float64Array;
}

/** Loss and gradients in f64, and the sums of magnitudes that rounding errors are measured against. */
function reference(
  { rows, depth, vocabulary }: CrossEntropySizes,
  x: Float64Array,
  w: Float64Array,
  labels: Int32Array,
  weights: Float32Array,
): Reference {
  const nll = new Float64Array(rows);
  const [dx, dxScale] = [new Float64Array(rows * depth), new Float64Array(rows * depth)];
  const [dw, dwScale] = [new Float64Array(vocabulary * depth), new Float64Array(vocabulary * depth)];
  for (let row = 0; row < rows; row++) {
    const weight = weights[row]!;
    const label = labels[row]!;
    if (weight === 0 || label < 0 || label >= vocabulary) continue;
    const logits = Array.from({ length: vocabulary }, (_, v) => {
      let sum = 0;
      for (let k = 0; k < depth; k++) sum += x[row * depth + k]! * w[v * depth + k]!;
      return sum;
    });
    const top = Math.max(...logits);
    const powers = logits.map((logit) => Math.exp(logit - top));
    const total = powers.reduce((sum, power) => sum + power, 0);
    nll[row] = weight * (Math.log(total) + top - logits[label]!);
    const others = powers.reduce((sum, power, v) => (v === label ? sum : sum + power), 0);
    for (let v = 0; v < vocabulary; v++) {
      const factor = (weight * (v === label ? -others : powers[v]!)) / total;
      for (let k = 0; k < depth; k++) {
        dx[row * depth + k]! += factor * w[v * depth + k]!;
        dxScale[row * depth + k]! += Math.abs(factor * w[v * depth + k]!);
        dw[v * depth + k]! += factor * x[row * depth + k]!;
        dwScale[v * depth + k]! += Math.abs(factor * x[row * depth + k]!);
      }
    }
  }
  return { nll, dx, dw, dxScale, dwScale };
}

function near(actual: ArrayLike<number>, expected: Float64Array, scale: Float64Array, relative: number): void {
  expected.forEach((wanted, index) => {
    const error = Math.abs(actual[index]! - wanted);
    if (!(error <= relative * scale[index]! + 1e-30)) throw new Error(`at ${index}: ${actual[index]!} for ${wanted}`);
  });
}

function check(kernels: Kernels, spec: CrossEntropySpec, wanted: CrossEntropySizes): void {
  const depth = spec.weight.decoder === undefined ? wanted.depth : Math.ceil(wanted.depth / 32) * 32;
  const { rows, vocabulary } = wanted;
  const sizes = { rows, depth, vocabulary };
  const { name } = renderCrossEntropy(spec);
  const x = store({ dtype: spec.x, transposed: false }, 1, rows, depth, 3);
  const w = store({ ...spec.weight, transposed: false }, 1, vocabulary, depth, rows % 2);
  const labels = new Int32Array(rows).map((_, i) =>
    i % 7 === 3 ? -100 : Math.floor((uniform() + 1) * 0.5 * vocabulary),
  );
  const weights = new Float32Array(rows).map((_, i) => (i % 7 === 3 || i % 5 === 2 ? 0 : 0.5 + (i % 3)));
  labels.forEach((_, i) => {
    if (i % 5 === 2) labels[i] = 0x7fffffff;
  });
  const seen = (values: Float64Array): Float64Array =>
    spec.compute === "bf16" ? values.map((value) => roundTo("bf16", value)) : values;
  const expected = reference(sizes, seen(x.values), seen(w.values), labels, weights);
  const memory = (bytes: number, from?: ArrayBufferLike): Memory => {
    const made = new Memory(bytes);
    if (from !== undefined) made.data.set(new Uint8Array(from));
    return made;
  };
  const half = spec.inputGradient === "bf16";
  const inputs = [memory(rows * 4, labels.buffer), memory(rows * 4, weights.buffer)] as const;
  const outputs = [memory(rows * 4), memory(rows * depth * (half ? 2 : 4)), memory(vocabulary * depth * 4)] as const;
  const kept = [memory(rows * 4), memory(rows * 4)] as const;
  const results = [1, 2, 3].map((threads) => {
    const bytes = [crossEntropyWorkspace(spec, sizes, threads), weightGradientWorkspace(spec, sizes, threads)];
    const workspaces = bytes.map((count) => memory(count));
    const operands = {
      ...sizes,
      x: { address: x.memory.address, rowStride: x.rowStride },
      weight: { address: w.memory.address, rowStride: w.rowStride },
      labels: inputs[0].address,
      rowWeights: inputs[1].address,
    };
    const perRow = { normalizer: kept[0].address, miss: kept[1].address };
    const words = crossEntropyArguments<bigint | number>({
      ...operands,
      workspace: workspaces[0]!.address,
      nll: outputs[0].address,
      inputGradient: { address: outputs[1].address, rowStride: depth },
      ...(spec.normalizers === true ? perRow : { normalizer: 0, miss: 0 }),
    });
    outputs.forEach((output) => output.data.fill(0xff));
    kernels.run(name, words, threads);
    if (spec.normalizers === true) {
      const weightGradient = { address: outputs[2].address, rowStride: depth };
      const late = { ...operands, ...perRow, workspace: workspaces[1]!.address, weightGradient };
      kernels.run(renderWeightGradient(spec).name, weightGradientArguments<bigint | number>(late), threads);
    }
    const all = [...workspaces, x.memory, w.memory, ...inputs, ...outputs, ...kept];
    expect(all.map((one) => one.intact())).toEqual(all.map(() => true));
    workspaces.forEach((workspace) => {
      workspace.free();
    });
    return outputs.map((output) => output.read());
  });
  for (const result of results) {
    expect(result.map((bytes, index) => Buffer.compare(bytes, results[0]![index]!))).toEqual([0, 0, 0]);
  }
  const [nll, dx, dw] = results[0]!;
  const loose = spec.compute === "bf16" ? 2 ** -7 : 2e-5;
  near(
    new Float32Array(nll!.buffer),
    expected.nll,
    expected.nll.map((value) => Math.abs(value) + 1),
    1e-5,
  );
  if (spec.inputGradient !== undefined) {
    const values = half ? Array.from(new Uint16Array(dx!.buffer), bf16FromBits) : new Float32Array(dx!.buffer);
    near(values, expected.dx, expected.dxScale, half ? 2 ** -7 : loose);
  } else expect(dx!.every((byte) => byte === 0xff)).toBe(true);
  if (spec.normalizers === true) near(new Float32Array(dw!.buffer), expected.dw, expected.dwScale, loose);
  else expect(dw!.every((byte) => byte === 0xff)).toBe(true);
  [x.memory, w.memory, ...inputs, ...outputs, ...kept].forEach((one) => {
    one.free();
  });
}

const builds: readonly (readonly [string, readonly string[]])[] = [
  ["this machine", nativeFlags],
  ["this machine with bf16 dot", [...nativeFlags, "-DTHIMBLE_BF16_DOT=1"]],
  ["portable code", ["-DTHIMBLE_GENERIC"]],
  ...(process.arch === "x64" ? ([["AVX2", ["-mavx2", "-mfma"]]] as const) : []),
];

describe.each(builds)("cross-entropy on %s", (_name, flags) => {
  let kernels: Kernels;
  beforeAll(() => {
    kernels = new Kernels(
      Object.values(specs).flatMap((spec) => [renderCrossEntropy(spec).source, renderWeightGradient(spec).source]),
      flags,
    );
  });

  it.each(Object.keys(specs))("%s", (key) => {
    const spec = specs[key]!;
    check(kernels, spec, { rows: 1, depth: 1, vocabulary: 1 });
    check(kernels, spec, { rows: 5, depth: 17, vocabulary: 7 });
    check(kernels, spec, { rows: 17, depth: 64, vocabulary: 100 });
    check(kernels, spec, { rows: 65, depth: 33, vocabulary: 193 });
    check(kernels, spec, { rows: 63, depth: 300, vocabulary: 400 });
    check(kernels, spec, { rows: 601, depth: 16, vocabulary: 391 });
  });
});

describe("cross-entropy of a confident model", () => {
  it.each(["f32 loss and dx", "bf16 loss, dx and dW"])("%s keeps the small gradient's digits", (key) => {
    const spec = specs[key]!;
    const kernels = new Kernels([renderCrossEntropy(spec).source]);
    const sizes = { rows: 16, depth: 16, vocabulary: 16 };
    const element = spec.x === "f32" ? 4 : 2;
    const diagonal = (value: number): Memory => {
      const memory = new Memory(256 * element);
      const view = new DataView(memory.data.buffer, memory.data.byteOffset, memory.bytes);
      for (let i = 0; i < 256; i++) {
        const entry = Math.floor(i / 16) === i % 16 ? value : 0;
        if (element === 4) view.setFloat32(i * 4, entry, true);
        else view.setUint16(i * 2, entry === 0 ? 0 : entry === 1 ? 0x3f80 : 0x4160, true);
      }
      return memory;
    };
    const [x, w] = [diagonal(14), diagonal(1)];
    const labels = new Memory(64);
    const weights = new Memory(64);
    new Int32Array(labels.data.buffer, labels.data.byteOffset, 16).forEach((_, i, all) => {
      all[i] = i;
    });
    new Float32Array(weights.data.buffer, weights.data.byteOffset, 16).fill(1);
    const [nll, dx, normalizer, missed] = [new Memory(64), new Memory(1024), new Memory(64), new Memory(64)];
    const workspace = new Memory(crossEntropyWorkspace(spec, sizes, 1));
    const at = ({ address }: Memory): { address: bigint; rowStride: number } => ({ address, rowStride: 16 });
    const words = crossEntropyArguments<bigint | number>({
      ...{ ...sizes, workspace: workspace.address, x: at(x), weight: at(w) },
      ...{ labels: labels.address, rowWeights: weights.address, nll: nll.address },
      ...{ inputGradient: at(dx), normalizer: normalizer.address, miss: missed.address },
    });
    kernels.run(renderCrossEntropy(spec).name, words);
    const small = Math.exp(-14);
    const miss = (15 * small) / (1 + 15 * small);
    const values = new Float32Array(dx.data.buffer, dx.data.byteOffset, 256);
    const tolerance = spec.compute === "f32" ? 1e-5 : 2 ** -7;
    values.forEach((value, i) => {
      const wanted = Math.floor(i / 16) === i % 16 ? -miss : small / (1 + 15 * small);
      expect(Math.abs(value - wanted)).toBeLessThanOrEqual(Math.abs(wanted) * tolerance);
    });
    if (spec.normalizers === true) {
      new Float32Array(missed.data.buffer, missed.data.byteOffset, 16).forEach((value) => {
        expect(Math.abs(value / miss - 1)).toBeLessThan(1e-5);
      });
    }
    [x, w, labels, weights, nll, dx, normalizer, missed, workspace].forEach((one) => {
      one.free();
    });
  });
});
