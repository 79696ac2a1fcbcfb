import { beforeAll, describe, expect, it } from "vitest";
import { must } from "../../errors.js";
import { bf16Bits, roundTo } from "../../ir/dtype.js";
import { scalar as s } from "../../ir/scalar.js";
import { drawNormal } from "../../methods/initial.js";
import { compileDecoder } from "../../storage/decoder.js";
import { float, floatAt, signedByteAt } from "../../storage/bits.js";
import type { StorageFormat } from "../../storage/format.js";
import { definePlaneFormat } from "../../storage/format.js";
import { openPlanes } from "../../storage/planes.js";
import { storageFormat } from "../../storage/registry.js";
import { Kernels, Memory, nativeFlags } from "../../testing/c/harness.js";
import type { ContractionSpec } from "./contraction.js";
import { contractionArguments, contractionWorkspace, renderContraction } from "./contraction.js";
import { storeEpilogue } from "./contraction-epilogue.js";
import type { Decoder } from "./contraction-types.js";
import { elementDecoderC, renderPlaneDecoderC } from "./plane-decoder.js";

const bytePlanes = [
  { elements: 16, bytes: 16 },
  { elements: 64, bytes: 4 },
] as const;

/** Signed bytes with an f32 scale for each 64: a format without codes of 4 bits. */
const signedBytes = definePlaneFormat({
  id: "test-i8",
  planes: bytePlanes,
  decodeRun: (_run, lane) => s.multiply(float(signedByteAt(lane)), floatAt(1)),
  encoder: (target, count) => {
    const [codes, scales] = openPlanes(bytePlanes, target, count);
    const view = new DataView(must(scales, "scales").buffer, must(scales, "scales").byteOffset);
    let at = 0;
    return {
      write: (values) => {
        for (const value of values) must(codes, "codes")[at++] = Math.round(value * 50);
        for (let group = 0; group * 64 < count; group++) view.setFloat32(group * 4, (group % 5) / 64, true);
      },
      finish: () => undefined,
    };
  },
});

const formats: readonly StorageFormat[] = [
  ...["nf4-64-dq", "nf4-64", "fp4-32", "nf4-256-dq", "nf4-4096"].map(storageFormat),
  ...["int4-64", "int4-48", "int3-64", "int2-96", "int8-24"].map(storageFormat),
  signedBytes,
];
const decoderOf = (format: StorageFormat): Decoder => renderPlaneDecoderC(format, must(format.planes, "planes"));

/** A packed tensor in native memory, and what it holds. */
function tensorOf(format: StorageFormat, count: number): { memory: Memory; values: Float32Array } {
  const data = Float32Array.from(drawNormal(count, "weights", count), (value) => value / 10);
  const packed = must(format.encode, "encode")(data);
  const memory = new Memory(packed.length);
  memory.data.set(packed);
  const values = new Float32Array(count);
  compileDecoder(format)(packed, values);
  return { memory, values };
}

/** Kernels of the words (base, element, count, out) for the parts of a decoder. */
function wrappers(format: StorageFormat): string {
  const { name, source, planes } = decoderOf(format);
  const { tables, body } = elementDecoderC(format);
  const call = "(const char*)w[0], w[1], w[2]";
  const signature = "(const int64_t* w, Context* context)";
  const halves = planes?.halves === true;
  return `#ifndef WRAP_${name}
#define WRAP_${name}
${source}
EXPORT void fill_${name}${signature} { (void)context; ${name}_fill(${call}, (float*)w[3]); }
EXPORT void halves_${name}${signature} {
  (void)context;
#if defined(HAS_BF16_DOT) && ${halves ? 1 : 0}
  ${name}_halves(${call}, (thimble_half_alias*)w[3]);
#else
  for (int64_t i = 0; i < w[2]; i++) {
    float value;
    ${name}_fill((const char*)w[0], w[1] + i, 1, &value);
    ((thimble_half_alias*)w[3])[i] = f32_to_bf16(value);
  }
#endif
}
${tables}
static float element_${name}(const uint8_t* packed, int64_t at) { ${body.join("\n")} }
EXPORT void elements_${name}${signature} {
  (void)context;
  for (int64_t i = 0; i < w[2]; i++) ((float*)w[3])[i] = element_${name}((const uint8_t*)w[0], w[1] + i);
}
#endif
`;
}

const builds: readonly (readonly [string, readonly string[]])[] = [
  ["this machine with bf16 dot", [...nativeFlags, "-DTHIMBLE_BF16_DOT=1"]],
  ["this machine without", [...nativeFlags, "-DTHIMBLE_BF16_DOT=0"]],
  ["portable code", ["-DTHIMBLE_GENERIC"]],
  ...(process.arch === "x64" ? ([["AVX2", ["-mavx2", "-mfma"]]] as const) : []),
];

const stretches = [
  [0, 256],
  [64, 64],
  [32, 1],
  [1, 31],
  [63, 2],
  [5, 200],
  [448, 237],
  [700, 0],
  [960, 40],
] as const;

/** Products of X with W^T and with W, in both types, f32 results. */
function productSpec(format: StorageFormat, transposed: boolean, compute: "f32" | "bf16"): ContractionSpec {
  const b = { dtype: "f32", transposed, decoder: decoderOf(format) } as const;
  return { segments: [{ a: { dtype: "f32", transposed: false }, b }], compute, epilogue: storeEpilogue("f32") };
}

const specs = formats.flatMap((format) =>
  [true, false].flatMap((transposed) =>
    (["f32", "bf16"] as const).map((compute) => ({
      format,
      transposed,
      compute,
      spec: productSpec(format, transposed, compute),
    })),
  ),
);

describe.each(builds)("planes on %s", (_name, flags) => {
  let kernels: Kernels;
  let products: Kernels;
  beforeAll(() => {
    kernels = new Kernels(formats.map(wrappers), flags);
    products = new Kernels(
      specs.map(({ spec }) => renderContraction(spec).source),
      flags,
    );
  });

  it.each(formats.map((format) => [format.id, format] as const))("%s: any stretch of elements", (_id, format) => {
    const { memory, values } = tensorOf(format, 1000);
    const { name } = decoderOf(format);
    for (const [element, count] of stretches) {
      const expected = values.subarray(element, element + count);
      for (const part of ["fill", "elements"]) {
        const out = new Memory(count * 4, 4);
        kernels.run(`${part}_${name}`, [memory.address, element, count, out.address]);
        expect(new Float32Array(out.read().buffer), `${part} ${element} ${count}`).toEqual(expected.slice());
        expect(out.intact()).toBe(true);
        out.free();
      }
      const out = new Memory(count * 2, 2);
      kernels.run(`halves_${name}`, [memory.address, element, count, out.address]);
      expect(new Uint16Array(out.read().buffer)).toEqual(Uint16Array.from(expected, bf16Bits));
      expect(out.intact()).toBe(true);
      out.free();
    }
    expect(memory.intact()).toBe(true);
    memory.free();
  });

  it.each(specs.map((one) => [`${one.format.id} ${one.transposed ? "X W^T" : "G W"} ${one.compute}`, one] as const))(
    "%s: rows that blocks straddle, a last block that is short, and rows of whole blocks",
    (_id, { format, transposed, compute, spec }) => {
      for (const [rows, outputs, inputs] of [
        [20, 33, 100],
        [3, 17, 75],
        [40, 70, 192],
        [65, 300, 64],
        [9, 5, 1],
      ] as const) {
        const { memory, values } = tensorOf(format, outputs * inputs);
        const [columns, depth] = transposed ? [outputs, inputs] : [inputs, outputs];
        const round = (value: number): number => (compute === "bf16" ? roundTo("bf16", value) : value);
        const x = Float32Array.from(drawNormal(3, "x", rows * depth));
        const input = new Memory(x.byteLength);
        input.data.set(new Uint8Array(x.buffer));
        const output = new Memory(rows * columns * 4);
        const run = (threads: number): Float32Array => {
          const workspace = new Memory(contractionWorkspace(spec, { rows, columns, depths: [depth] }, threads), 4);
          const words = contractionArguments<bigint>({
            rows: BigInt(rows),
            columns: BigInt(columns),
            batch: 1n,
            workspace: workspace.address,
            segments: [
              {
                a: { address: input.address, rowStride: BigInt(depth), batchStride: 0n },
                b: { address: memory.address, rowStride: BigInt(inputs), batchStride: 0n },
                depth: BigInt(depth),
              },
            ],
            epilogue: [output.address, BigInt(columns), BigInt(rows * columns)],
          });
          products.run(renderContraction(spec).name, words, threads);
          expect([workspace, output, memory, input].every((one) => one.intact())).toBe(true);
          workspace.free();
          return new Float32Array(output.read().buffer);
        };
        const result = run(1);
        expect(run(2)).toEqual(result);
        for (let row = 0; row < rows; row++) {
          for (let column = 0; column < columns; column++) {
            let [sum, size] = [0, 0];
            for (let k = 0; k < depth; k++) {
              const weight = values[transposed ? column * inputs + k : k * inputs + column] ?? NaN;
              const term = round(x[row * depth + k] ?? NaN) * round(weight);
              sum += term;
              size += Math.abs(term);
            }
            const error = Math.abs((result[row * columns + column] ?? NaN) - sum);
            if (!(error <= (depth + 2) * 2 ** -24 * size)) {
              throw new Error(`${rows}x${outputs}x${inputs} at ${row}, ${column}: off by ${error} of ${size}`);
            }
          }
        }
        for (const one of [memory, input, output]) one.free();
      }
    },
  );
});
