/** How a weight lies in memory: packed blocks, and one scalar expression that says what they mean. */
import { invariant, ThimbleError } from "../errors.js";
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";

export interface StorageFormat {
  readonly id: string;
  /** A row is a whole number of blocks. */
  readonly block: { readonly elements: number; readonly bytes: number };
  /** The type that the decoder gives. */
  readonly value: "f32";
  /** Stretches of a block in which the decoder is affine: element `run * length + lane`; `length` is a power of two. */
  readonly runs: { readonly count: number; readonly length: number };
  /** The value of element `run * runs.length + lane` (both i32) of one packed block, read with `scalar.byte`. */
  readonly decodeRun: (run: Scalar, lane: Scalar) => Scalar;
  /** The value of element `index` (i32, 0..elements-1) of one packed block. */
  readonly decode: (index: Scalar) => Scalar;
  /** Packs whole blocks; not every format can be written. */
  readonly encode?: (values: Float32Array) => Uint8Array;
}

type FormatDefinition = Pick<StorageFormat, "id" | "block" | "decodeRun" | "encode"> & { readonly runs: number };

export function defineFormat({ id, block, runs, decodeRun, encode }: FormatDefinition): StorageFormat {
  const length = block.elements / runs;
  const shift = Math.log2(length);
  invariant(Number.isInteger(shift), `the runs of ${id} are a power of two long`);
  return Object.freeze({
    id,
    block,
    value: "f32" as const,
    runs: { count: runs, length },
    decodeRun,
    decode: (index: Scalar) => decodeRun(s.shiftRight(index, shift), s.and(index, length - 1)),
    ...(encode === undefined ? {} : { encode }),
  });
}

/** Bytes of a tensor of this shape; its last axis must be a whole number of blocks. */
export function bytesOf(format: Pick<StorageFormat, "id" | "block">, shape: Shape): number {
  const row = shape.at(-1) ?? 1;
  if (row % format.block.elements !== 0) {
    throw new ThimbleError("storage-row", `The rows of the tensor are not whole blocks of ${format.id}`, {
      given: `shape [${shape.join(", ")}]`,
      expected: `a last axis that is a multiple of ${format.block.elements}`,
      fix: "Keep this tensor in f32, f16 or bf16.",
    });
  }
  return (elements(shape) / format.block.elements) * format.block.bytes;
}
