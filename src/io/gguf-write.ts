/** Writes GGUF files (version 3, little-endian), tensor by tensor. */
import { must, ThimbleError } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import { bytesOf } from "../storage/format.js";
import { storageFormat } from "../storage/registry.js";
import type { Write } from "./atomic.js";
import { writeAtomically } from "./atomic.js";
import type { GgmlType } from "./ggml-types.js";
import { ggmlTypeById } from "./ggml-types.js";
import type { GgufMetadata } from "./gguf.js";
import type { GgufArray, GgufType, GgufValue } from "./gguf-metadata.js";
import { ggufSizes, ggufTypes } from "./gguf-metadata.js";
import type { Chunks } from "./tensor-write.js";
import { checkNames, writeChunks } from "./tensor-write.js";

export type GgufTensorToWrite = {
  readonly name: string;
  /** A storage format: `f32`, `f16`, `bf16`, `q8_0`, `q4_0`, or any other that is given as bytes. */
  readonly type: string;
  /** Row-major, outermost axis first; the file gets the reverse, as ggml wants it. */
  readonly shape: Shape;
} & (
  | {
      /** Values to be encoded, in pieces of whole blocks. */
      readonly values: () => Chunks<Float32Array>;
    }
  | {
      /** Bytes that are in the type already, in pieces of any size. */
      readonly chunks: () => Chunks<Uint8Array>;
    }
);

/** ggml keeps names in 64 bytes, the last of them 0. */
const nameLimit = 63;

/** Writes the file atomically; `metadata` in its order. Its `general.alignment`, if there, is obeyed. */
export async function writeGguf(
  path: string,
  metadata: GgufMetadata,
  tensors: readonly GgufTensorToWrite[],
): Promise<void> {
  checkNames(tensors);
  const alignment = alignmentOf(metadata);
  const sizes = tensors.map((tensor) => bytesOf(ggmlType(tensor), tensor.shape));
  const header = encodeHeader(metadata, tensors, sizes, alignment);
  await writeAtomically(path, async (write) => {
    await write(header);
    await pad(write, header.length, alignment);
    for (const [index, tensor] of tensors.entries()) {
      const bytes = must(sizes[index], "tensor's size");
      await writeChunks(write, tensor.name, bytes, "values" in tensor ? encoded(tensor) : tensor.chunks());
      await pad(write, bytes, alignment);
    }
  });
}

function ggmlType({ name, type }: GgufTensorToWrite): GgmlType {
  const known = ggmlTypeById.get(type);
  if (known !== undefined) return known;
  throw new ThimbleError("tensor-write", `Tensor ${name} cannot be written to a GGUF file`, {
    given: `type ${type}`,
    expected: [...ggmlTypeById.keys()].join(", "),
  });
}

function alignmentOf(metadata: GgufMetadata): number {
  const entry = metadata.get("general.alignment");
  if (entry === undefined) return 32;
  if (entry.type === "u32" && entry.value > 0 && (entry.value & (entry.value - 1)) === 0) return entry.value;
  throw new ThimbleError("gguf-metadata", "general.alignment is impossible", {
    expected: "a u32 that is a power of two",
  });
}

async function pad(write: Write, length: number, alignment: number): Promise<void> {
  const rest = length % alignment;
  if (rest !== 0) await write(new Uint8Array(alignment - rest));
}

async function* encoded(tensor: Extract<GgufTensorToWrite, { values: unknown }>): AsyncIterable<Uint8Array> {
  const { encode } = storageFormat(tensor.type);
  if (encode === undefined) {
    throw new ThimbleError("tensor-write", `Thimble cannot encode ${tensor.type}`, {
      where: `tensor ${tensor.name}`,
      expected: "f32, f16, bf16, q8_0 or q4_0",
    });
  }
  for await (const values of tensor.values()) yield encode(values);
}

function encodeHeader(
  metadata: GgufMetadata,
  tensors: readonly GgufTensorToWrite[],
  sizes: readonly number[],
  alignment: number,
): Uint8Array {
  const bytes = new GrowingBytes();
  bytes.u32(0x46554747);
  bytes.u32(3);
  bytes.u64(BigInt(tensors.length));
  bytes.u64(BigInt(metadata.size));
  for (const [key, value] of metadata) {
    bytes.string(key);
    writeValue(bytes, value);
  }
  let offset = 0;
  for (const [index, tensor] of tensors.entries()) {
    const { name, shape } = tensor;
    if (new TextEncoder().encode(name).length > nameLimit || shape.length > 4) {
      throw new ThimbleError("tensor-write", `Tensor ${name} cannot be written to a GGUF file`, {
        given: `[${shape.join(", ")}]`,
        expected: `a name of at most ${nameLimit} bytes and at most 4 axes`,
      });
    }
    bytes.string(name);
    bytes.u32(shape.length);
    for (const size of [...shape].reverse()) bytes.u64(BigInt(size));
    bytes.u32(ggmlType(tensor).number);
    bytes.u64(BigInt(offset));
    offset += Math.ceil(must(sizes[index], "tensor's size") / alignment) * alignment;
  }
  return bytes.take();
}

function writeValue(bytes: GrowingBytes, value: GgufValue): void {
  bytes.u32(ggufTypes.indexOf(value.type));
  if (value.type === "array") writeArray(bytes, value);
  else bytes.scalar(value.type, value.value);
}

function writeArray(bytes: GrowingBytes, array: GgufArray): void {
  bytes.u32(ggufTypes.indexOf(array.of));
  bytes.u64(BigInt(array.value.length));
  if (array.of === "array") for (const inner of array.value) writeArray(bytes, inner);
  else for (const item of array.value) bytes.scalar(array.of, item);
}

/** Bytes that are appended to. */
class GrowingBytes {
  #bytes = new Uint8Array(2 ** 16);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  take(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  u32(value: number): void {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: bigint): void {
    const at = this.#reserve(8);
    this.#view.setBigUint64(at, value, true);
  }

  string(text: string): void {
    const encodedText = new TextEncoder().encode(text);
    this.u64(BigInt(encodedText.length));
    const at = this.#reserve(encodedText.length);
    this.#bytes.set(encodedText, at);
  }

  scalar(type: Exclude<GgufType, "array">, value: number | bigint | boolean | string): void {
    if (type === "string") {
      this.string(String(value));
      return;
    }
    const at = this.#reserve(ggufSizes[type]);
    const number = Number(value);
    switch (type) {
      case "u8":
      case "i8":
      case "bool":
        this.#view.setUint8(at, number);
        return;
      case "u16":
      case "i16":
        this.#view.setUint16(at, number, true);
        return;
      case "u32":
      case "i32":
        this.#view.setUint32(at, number, true);
        return;
      case "f32":
        this.#view.setFloat32(at, number, true);
        return;
      case "f64":
        this.#view.setFloat64(at, number, true);
        return;
      case "u64":
      case "i64":
        this.#view.setBigInt64(at, BigInt(value), true);
        return;
    }
  }

  /** The position of `count` new bytes; call it before touching the memory, which it may replace. */
  #reserve(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}
