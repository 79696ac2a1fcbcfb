/** How a weight lies in memory: packed blocks, and one scalar expression that says what they mean. */
import { invariant, ThimbleError } from "../errors.js";
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import type { Plane } from "./planes.js";
import { layOutPlanes } from "./planes.js";

/** Packs one tensor that is given piece by piece, in row-major order. */
export interface StreamEncoder {
  /** The next values; pieces may be of any length. */
  write(values: Float32Array): void;
  /** Completes the packed tensor when all values have been given. */
  finish(): void;
}

export interface StorageFormat {
  readonly id: string;
  /** A row is a whole number of blocks, except with planes. */
  readonly block: { readonly elements: number; readonly bytes: number };
  /**
   * The parts of a tensor that do not lie in its blocks; absent where a tensor is nothing but blocks. The first plane
   * holds the blocks, the others have groups of whole blocks (a power of two of them).
   */
  readonly planes?: readonly Plane[];
  /**
   * Where the first plane holds 4-bit codes, the even element of a byte in its high half: the value of a code. Lets
   * targets make a table of the 16 values of each group of the other planes.
   */
  readonly codes?: (code: Scalar) => Scalar;
  /** The type that the decoder gives. */
  readonly value: "f32";
  /** Stretches of a block in which the decoder is affine: element `run * length + lane`; `length` is a power of two. */
  readonly runs: { readonly count: number; readonly length: number };
  /** The value of element `run * runs.length + lane` (both i32) of one packed block, read with `scalar.byte`. */
  readonly decodeRun: (run: Scalar, lane: Scalar) => Scalar;
  /** The value of element `index` (i32, 0..elements-1) of one packed block. */
  readonly decode: (index: Scalar) => Scalar;
  /** Packs whole blocks (with planes: a whole tensor); not every format can be written. */
  readonly encode?: (values: Float32Array) => Uint8Array;
  /** With planes: packs a tensor of `count` values into `target`, all of its bytes. `name` is for errors. */
  readonly encoder?: (target: Uint8Array, count: number, name: string) => StreamEncoder;
}

type FormatDefinition = Pick<StorageFormat, "id" | "block" | "decodeRun" | "encode"> & { readonly runs: number };

type PlaneDefinition = Pick<StorageFormat, "id" | "decodeRun" | "codes"> & {
  readonly planes: readonly [Plane, ...Plane[]];
  readonly encoder: NonNullable<StorageFormat["encoder"]>;
};

/** A format with planes; `decodeRun(0, lane)` gives element `lane` of a block, reading `scalar.byte(offset, plane)`. */
export function definePlaneFormat({ id, planes, codes, decodeRun, encoder }: PlaneDefinition): StorageFormat {
  const encode = (values: Float32Array): Uint8Array => {
    const target = new Uint8Array(layOutPlanes(planes, values.length).bytes);
    const stream = encoder(target, values.length, "the tensor");
    stream.write(values);
    stream.finish();
    return target;
  };
  const blocks = defineFormat({ id, block: planes[0], runs: 1, decodeRun, encode });
  return Object.freeze({ ...blocks, planes, encoder, ...(codes === undefined ? {} : { codes }) });
}

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

/** Bytes of a tensor of this shape; its last axis must be a whole number of blocks, except with planes. */
export function bytesOf(format: Pick<StorageFormat, "id" | "block" | "planes">, shape: Shape): number {
  if (format.planes !== undefined) return layOutPlanes(format.planes, elements(shape)).bytes;
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
