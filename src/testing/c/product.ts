/** Random contractions, run natively and compared with plain JavaScript in f64. */
import { must } from "../../errors.js";
import { bf16Bits, f16Bits, roundTo } from "../../ir/dtype.js";
import {
  contractionArguments,
  contractionWorkspace,
  type ContractionSpec,
  type Decoder,
  type Operand,
} from "../../targets/c/contraction.js";
import { type Kernels, Memory } from "./harness.js";

/** A made-up block format of signed bytes, scaled by the block's first byte / 64, to stand for any decoder. */
export function byteDecoder(elements: number): Decoder {
  const name = `decode_bytes_${elements}`;
  const source = `static inline void ${name}(const uint8_t* block, float* out) {
  for (int i = 0; i < ${elements}; i++) out[i] = (float)(int8_t)block[1 + i] * ((float)block[0] * 0.015625f);
}`;
  return { name, source, elements, bytes: elements + 1 };
}

let state = 1;
export function uniform(): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 31 - 1;
}

export interface Stored {
  readonly memory: Memory;
  /** Values as the kernel should read them, row by row, without the padding. */
  readonly values: Float64Array;
  readonly rowStride: number;
  readonly batchStride: number;
}

function write(memory: Memory, operand: Operand, at: number, value: number): number {
  const view = new DataView(memory.data.buffer, memory.data.byteOffset, memory.bytes);
  if (operand.dtype === "f32") view.setFloat32(at * 4, value, true);
  else view.setUint16(at * 2, operand.dtype === "bf16" ? bf16Bits(value) : f16Bits(value), true);
  return roundTo(operand.dtype, value);
}

/** Rows of random values in the operand's storage, with `pad` unused elements after each row. */
export function store(operand: Operand, batch: number, rows: number, length: number, pad: number): Stored {
  const values = new Float64Array(batch * rows * length);
  const { decoder } = operand;
  if (decoder !== undefined) {
    const blocks = Math.ceil(length / decoder.elements);
    const memory = new Memory(batch * rows * blocks * decoder.bytes, 1);
    for (let row = 0; row < batch * rows; row++) {
      for (let block = 0; block < blocks; block++) {
        const at = (row * blocks + block) * decoder.bytes;
        const scale = 1 + (Math.abs(Math.floor(uniform() * 1000)) % 3);
        memory.data[at] = scale;
        for (let i = 0; i < decoder.elements; i++) {
          const code = Math.floor(uniform() * 32);
          memory.data[at + 1 + i] = code & 255;
          const column = block * decoder.elements + i;
          if (column < length) values[row * length + column] = (code * scale) / 64;
        }
      }
    }
    const rowStride = blocks * decoder.elements;
    return { memory, values, rowStride, batchStride: rows * rowStride };
  }
  const rowStride = length + pad;
  const memory = new Memory(Math.max(0, batch * rows * rowStride - pad) * (operand.dtype === "f32" ? 4 : 2), 4);
  for (let row = 0; row < batch * rows; row++) {
    for (let column = 0; column < length; column++) {
      values[row * length + column] = write(memory, operand, row * rowStride + column, uniform());
    }
  }
  return { memory, values, rowStride, batchStride: rows * rowStride };
}

export interface Sizes {
  readonly rows: number;
  readonly columns: number;
  readonly depths: readonly number[];
  readonly batch?: number;
}

interface Prepared {
  readonly a: Stored;
  readonly b: Stored;
  readonly depth: number;
}

export interface Product {
  readonly output: Memory;
  readonly expected: Float64Array;
  /** Sum of the terms' magnitudes for each result: the scale of rounding errors. */
  readonly magnitude: Float64Array;
  /** Runs the kernel on `threads` threads and returns the output's bytes. */
  run(kernels: Kernels, name: string, threads: number): Uint8Array;
  free(): void;
}

function reference(spec: ContractionSpec, sizes: Sizes, prepared: readonly Prepared[]): [Float64Array, Float64Array] {
  const { rows, columns, batch = 1 } = sizes;
  const expected = new Float64Array(batch * rows * columns);
  const magnitude = new Float64Array(expected.length);
  prepared.forEach(({ a, b, depth }, index) => {
    const segment = must(spec.segments[index], "segment");
    const seen = (x: Float64Array): Float64Array => (spec.compute === "bf16" ? x.map((y) => roundTo("bf16", y)) : x);
    const [left, right] = [seen(a.values), seen(b.values)];
    const [am, ak] = segment.a.transposed ? [1, rows] : [depth, 1];
    const [bn, bk] = segment.b.transposed ? [depth, 1] : [1, columns];
    for (let i = 0; i < batch; i++) {
      for (let m = 0; m < rows; m++) {
        for (let n = 0; n < columns; n++) {
          let [sum, size] = [0, 0];
          for (let k = 0; k < depth; k++) {
            const term =
              (left[i * rows * depth + m * am + k * ak] ?? NaN) * (right[i * columns * depth + n * bn + k * bk] ?? NaN);
            sum += term;
            size += Math.abs(term);
          }
          const at = (i * rows + m) * columns + n;
          expected[at] = (expected[at] ?? NaN) + sum;
          magnitude[at] = (magnitude[at] ?? NaN) + size;
        }
      }
    }
  });
  return [expected, magnitude];
}

/** Operands, output (`bytes` an element, dense) and reference of one random contraction; `extra` ends its epilogue words. */
export function product(
  spec: ContractionSpec,
  sizes: Sizes,
  bytes: number,
  pad: number,
  extra: readonly bigint[] = [],
): Product {
  const { rows, columns, depths, batch = 1 } = sizes;
  const prepared = spec.segments.map(({ a, b }, index): Prepared => {
    const depth = must(depths[index], "depth");
    const left = a.transposed ? store(a, batch, depth, rows, pad) : store(a, batch, rows, depth, pad);
    const right = b.transposed ? store(b, batch, columns, depth, pad) : store(b, batch, depth, columns, pad);
    return { a: left, b: right, depth };
  });
  const output = new Memory(batch * rows * columns * bytes, bytes);
  const [expected, magnitude] = reference(spec, sizes, prepared);
  const run = (kernels: Kernels, name: string, threads: number): Uint8Array => {
    const workspace = new Memory(contractionWorkspace(spec, sizes, threads), 4);
    const operand = ({
      memory,
      rowStride,
      batchStride,
    }: Stored): { address: bigint; rowStride: bigint; batchStride: bigint } => ({
      address: memory.address,
      rowStride: BigInt(rowStride),
      batchStride: BigInt(batchStride),
    });
    const words = contractionArguments<bigint>({
      rows: BigInt(rows),
      columns: BigInt(columns),
      batch: BigInt(batch),
      workspace: workspace.address,
      segments: prepared.map(({ a, b, depth }) => ({ a: operand(a), b: operand(b), depth: BigInt(depth) })),
      epilogue: [output.address, BigInt(columns), BigInt(rows * columns), ...extra],
    });
    kernels.run(name, words, threads);
    const memories = [workspace, output, ...prepared.flatMap(({ a, b }) => [a.memory, b.memory])];
    const broken = memories.findIndex((memory) => !memory.intact());
    workspace.free();
    if (broken >= 0) throw new Error(`${name} wrote outside memory ${broken} (0: workspace, 1: output, then operands)`);
    return output.read();
  };
  const free = (): void => {
    [output, ...prepared.flatMap(({ a, b }) => [a.memory, b.memory])].forEach((memory) => {
      memory.free();
    });
  };
  return { output, expected, magnitude, run, free };
}
