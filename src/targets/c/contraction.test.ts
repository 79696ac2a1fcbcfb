import { beforeAll, describe, expect, it } from "vitest";
import { bf16FromBits, f16FromBits } from "../../ir/dtype.js";
import { storeEpilogue } from "./contraction-epilogue.js";
import { contractionWorkspace, renderContraction, type ContractionSpec, type Operand } from "./contraction.js";
import { Kernels, nativeFlags } from "../../testing/c/harness.js";
import { byteDecoder, product, type Sizes } from "../../testing/c/product.js";

const plain = (dtype: Operand["dtype"] = "f32"): Operand => ({ dtype, transposed: false });
const turned = (dtype: Operand["dtype"] = "f32"): Operand => ({ dtype, transposed: true });
const packed = (elements: number, transposed: boolean): Operand => ({
  dtype: "f32",
  transposed,
  decoder: byteDecoder(elements),
});
const f32 = storeEpilogue("f32");

function spec(compute: ContractionSpec["compute"], ...pairs: (readonly [Operand, Operand])[]): ContractionSpec {
  return { segments: pairs.map(([a, b]) => ({ a, b })), compute, epilogue: f32 };
}

/** Every layout, dtype and number of segments that a training step uses. */
const specs: Readonly<Record<string, ContractionSpec>> = {
  "f32 X W^T": spec("f32", [plain(), turned()]),
  "f32 G W": spec("f32", [plain(), plain()]),
  "f32 G^T X": spec("f32", [turned(), plain()]),
  "f32 A^T B^T": spec("f32", [turned(), turned()]),
  "bf16 X W^T from bf16": spec("bf16", [plain("bf16"), turned("bf16")]),
  "bf16 G W from f32": spec("bf16", [plain(), plain()]),
  "bf16 G^T X from mixed": spec("bf16", [turned("bf16"), plain("f32")]),
  "f32 from halves": spec("f32", [plain("f16"), turned("bf16")]),
  "three segments": spec("f32", [plain(), turned()], [plain("bf16"), turned()], [turned(), plain()]),
  "bf16 two segments": spec("bf16", [plain(), turned()], [plain("bf16"), turned("f16")]),
  "packed weight, forward": spec("f32", [plain(), packed(32, true)]),
  "packed weight, backward": spec("bf16", [plain("bf16"), packed(32, false)]),
};
const aligned: Readonly<Record<string, ContractionSpec>> = {
  "256-blocks, forward": spec("bf16", [plain(), packed(256, true)]),
  "256-blocks, backward": spec("f32", [plain(), packed(256, false)]),
  "packed left side": spec("f32", [packed(32, false), plain()]),
};

const odd = [1, 5, 6, 7, 15, 16, 17, 63, 64, 65, 100];
const mixed: readonly Sizes[] = Array.from({ length: 33 }, (_, i) => ({
  rows: odd[i % 11]!,
  columns: odd[(i * 4 + 3) % 11]!,
  depths: [odd[(i * 7 + Math.floor(i / 11) * 3) % 11]!, odd[(i * 3 + 2) % 11]!, odd[(i * 5 + 1) % 11]!],
}));

/** Machine code to test, and which share of the sizes. */
const builds: readonly (readonly [string, readonly string[], number])[] = [
  ["this machine", nativeFlags, 1],
  ["this machine with bf16 dot", [...nativeFlags, "-DTHIMBLE_BF16_DOT=1"], 1],
  ["portable code", ["-DTHIMBLE_GENERIC"], 4],
  ...(process.arch === "x64" ? ([["AVX2", ["-mavx2", "-mfma"], 4]] as const) : []),
];

function check(kernels: Kernels, of: ContractionSpec, sizes: Sizes): void {
  const { name } = renderContraction(of);
  const depths = sizes.depths.slice(0, of.segments.length).map((depth, index) => {
    const segment = of.segments[index]!;
    const along = [
      segment.a.transposed ? undefined : segment.a.decoder,
      segment.b.transposed ? segment.b.decoder : undefined,
    ];
    const block = Math.max(1, ...along.map((decoder) => decoder?.elements ?? 1));
    return Math.ceil(depth / block) * block;
  });
  const one = product(of, { ...sizes, depths }, 4, sizes.rows % 3);
  const first = one.run(kernels, name, 1);
  const total = depths.reduce((sum, depth) => sum + depth, 0);
  const results = new Float32Array(first.buffer);
  results.forEach((value, index) => {
    const bound = (total + 2) * 2 ** -24 * one.magnitude[index]!;
    const error = Math.abs(value - one.expected[index]!);
    if (!(error <= bound)) {
      throw new Error(`${JSON.stringify({ ...sizes, depths })} at ${index}: ${value} for ${one.expected[index]!}`);
    }
  });
  for (const threads of [2, 3]) expect(Buffer.compare(one.run(kernels, name, threads), first)).toBe(0);
  one.free();
}

describe.each(builds)("contraction on %s", (_name, flags, every) => {
  let kernels: Kernels;
  beforeAll(() => {
    kernels = new Kernels(
      [...Object.values(specs), ...Object.values(aligned)].map((of) => renderContraction(of).source),
      flags,
    );
  });

  it.each(Object.keys(specs))("%s, odd sizes", (key) => {
    for (const sizes of mixed.filter((_, i) => i % every === 0)) check(kernels, specs[key]!, sizes);
  });

  it.each(Object.keys(aligned))("%s", (key) => {
    for (const sizes of mixed.filter((_, i) => i % 4 === 0)) check(kernels, aligned[key]!, sizes);
    check(kernels, aligned[key]!, { rows: 30, columns: 700, depths: [260] });
  });

  it.each(["f32 X W^T", "f32 G^T X", "bf16 G W from f32", "three segments"])("%s, sizes beyond one block", (key) => {
    check(kernels, specs[key]!, { rows: 20, columns: 700, depths: [300, 16, 33] });
    check(kernels, specs[key]!, { rows: 9, columns: 70, depths: [2999, 17, 2400] });
    check(kernels, specs[key]!, { rows: 1030, columns: 17, depths: [2305, 5, 2] });
    check(kernels, specs[key]!, { rows: 300, columns: 33, depths: [0, 3, 0] });
    check(kernels, specs[key]!, { rows: 7, columns: 33, depths: [0, 0, 0] });
  });

  it.each(["f32 G W", "f32 G^T X", "bf16 G^T X from mixed", "packed weight, backward"])("%s, a thin side", (key) => {
    check(kernels, specs[key]!, { rows: 16, columns: 576, depths: [260] });
    check(kernels, specs[key]!, { rows: 24, columns: 150, depths: [513] });
    check(kernels, specs[key]!, { rows: 576, columns: 16, depths: [260] });
    check(kernels, specs[key]!, { rows: 130, columns: 24, depths: [513] });
    check(kernels, specs[key]!, { rows: 64, columns: 1, depths: [0] });
  });

  it.each(["f32 X W^T", "f32 G^T X", "bf16 two segments"])("%s, batched", (key) => {
    check(kernels, specs[key]!, { rows: 13, columns: 35, depths: [20, 7], batch: 2 });
    check(kernels, specs[key]!, { rows: 6, columns: 50, depths: [33, 4], batch: 7 });
  });
});

describe("contraction epilogues", () => {
  const base = specs["f32 X W^T"]!;
  const bits = 0x3f000000n;
  const cases = [
    ["bf16", storeEpilogue("bf16"), 2, [], (x: number) => x],
    ["f16", storeEpilogue("f16"), 2, [], (x: number) => x],
    ["scaled", storeEpilogue("f32", { scaled: true }), 4, [bits], (x: number) => x / 2],
    ["added", storeEpilogue("f32", { accumulate: true }), 4, [], (x: number) => x + 3],
    [
      "scaled and added to bf16",
      storeEpilogue("bf16", { scaled: true, accumulate: true }),
      2,
      [bits],
      (x: number) => x / 2 + 3,
    ],
  ] as const;

  it.each(cases)("%s", (_name, epilogue, bytes, extra, expected) => {
    const of = { ...base, epilogue };
    const { name, source } = renderContraction(of);
    const kernels = new Kernels([source]);
    for (const rows of [5, 40]) {
      const one = product(of, { rows, columns: 37, depths: [20] }, bytes, 1, extra);
      const output = one.output.data;
      if (bytes === 4) new Float32Array(output.buffer, output.byteOffset, rows * 37).fill(3);
      else new Uint16Array(output.buffer, output.byteOffset, rows * 37).fill(0x4040);
      const result = one.run(kernels, name, 2);
      const decode = epilogue.name.includes("bf16") ? bf16FromBits : f16FromBits;
      const values = bytes === 4 ? new Float32Array(result.buffer) : Array.from(new Uint16Array(result.buffer), decode);
      values.forEach((value, index) => {
        const wanted = expected(one.expected[index]!);
        expect(Math.abs(value - wanted)).toBeLessThanOrEqual(1e-6 + (bytes === 2 ? Math.abs(wanted) * 2 ** -8 : 1e-5));
      });
      one.free();
    }
  });
});

describe("rendering contractions", () => {
  it("gives equal specs equal names and different specs different ones", () => {
    const names = [...Object.values(specs), ...Object.values(aligned)].map((of) => renderContraction(of).name);
    expect(new Set(names).size).toBe(names.length);
    expect(renderContraction({ ...specs["f32 G W"]! }).name).toBe(renderContraction(specs["f32 G W"]!).name);
  });

  it("keeps the workspace small", () => {
    const bytes = contractionWorkspace(specs["f32 X W^T"]!, { rows: 1024, columns: 49152, depths: [576] }, 2);
    expect(bytes).toBeLessThan(2 ** 21);
  });
});
