/** Reading tensors out of weight files, whatever the format: in bounded chunks, straight into place. */
import type { FileHandle } from "node:fs/promises";
import { open } from "node:fs/promises";
import { closest } from "fastest-levenshtein";
import { ThimbleError } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import { sizeOf } from "../ir/dtype.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import type { TypedValues } from "./convert.js";
import { checkConversion, convertValues, typedArray } from "./convert.js";
import { decodable } from "./element-types.js";

/** Where a tensor lies on disk. */
export interface TensorInfo {
  readonly name: string;
  /** Element type or storage format: `f32`, `bf16`, `i64`, `f8_e4m3`, `q4_K`, ... */
  readonly type: string;
  /** Row-major, outermost axis first (GGUF writes the reverse; this is not reversed again). */
  readonly shape: Shape;
  readonly bytes: number;
  readonly file: string;
  /** Of the first byte, from the start of the file. */
  readonly offset: number;
}

/** A half-open range. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** No more than this is read at once. */
const chunkBytes = 8 * 2 ** 20;
/** Elements converted at once: at most 8 MiB of values of 8 bytes. A multiple of every block size. */
const chunkElements = 2 ** 20;

/** Fills `target` with the bytes of a file from `position` on. */
export async function readExactly(
  handle: FileHandle,
  target: Uint8Array,
  position: number,
  where: string,
): Promise<void> {
  let done = 0;
  while (done < target.length) {
    const length = Math.min(chunkBytes, target.length - done);
    const { bytesRead } = await handle.read(target, done, length, position + done);
    if (bytesRead === 0) {
      throw new ThimbleError("tensor-file-truncated", "The file ends before its contents do", {
        where,
        given: `end of file at byte ${position + done}`,
        expected: `${target.length - done} bytes more`,
        fix: "The file was cut short or changed while it was read: fetch it again.",
      });
    }
    done += bytesRead;
  }
}

/** The tensors of one or more weight files. Files are opened when first read; call `close` at the end. */
export class TensorFile {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #handles = new Map<string, Promise<FileHandle>>();

  constructor(tensors: readonly TensorInfo[]) {
    this.tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  }

  info(name: string): TensorInfo {
    const tensor = this.tensors.get(name);
    if (tensor !== undefined) return tensor;
    const names = [...this.tensors.keys()];
    throw new ThimbleError("tensor-missing", `The weights have no tensor named ${name}`, {
      given: `${names.length} other tensors`,
      ...(names.length === 0 ? {} : { fix: `The nearest name is ${closest(name, names)}.` }),
    });
  }

  /** Reads the tensor's bytes as they are, or those of `range`, into `target`, which must be exactly as long. */
  async readInto(name: string, target: Uint8Array, range?: Range): Promise<void> {
    const { bytes, file, offset } = this.info(name);
    const { from } = checkedRange(name, range ?? { from: 0, to: bytes }, bytes, target.length);
    await readExactly(await this.#handle(file), target, offset + from, `tensor ${name} in ${file}`);
  }

  /** The tensor's bytes as they are. */
  async readBytes(name: string): Promise<Uint8Array> {
    const target = new Uint8Array(this.info(name).bytes);
    await this.readInto(name, target);
    return target;
  }

  /** The tensor's values in another type: floats are rounded, integers must fit. f16 and bf16 are given as bits. */
  async readAs<T extends DType>(name: string, dtype: T): Promise<ArrayOf<T>> {
    const out = typedArray(dtype, elements(this.info(name).shape));
    await this.readAsInto(name, dtype, new Uint8Array(out.buffer));
    return out as ArrayOf<T>;
  }

  /**
   * Like {@link readAs}, into memory given by the caller, and in chunks, so that never more than a few MiB are in
   * flight. `range` is of elements and must be whole blocks of the stored type.
   */
  async readAsInto(name: string, dtype: DType, target: Uint8Array, range?: Range): Promise<void> {
    const info = this.info(name);
    const type = decodable(info.type, name);
    checkConversion(type, dtype, name);
    const size = sizeOf(dtype);
    const count = elements(info.shape);
    const { from, to } = checkedRange(name, range ?? { from: 0, to: count }, count, target.length / size);
    const { block } = type;
    if (from % block.elements !== 0 || to % block.elements !== 0) {
      throw new ThimbleError("tensor-range", `Tensor ${name} is read in whole blocks`, {
        given: `elements ${from} to ${to}`,
        expected: `multiples of ${block.elements}`,
      });
    }
    const toBytes = (at: number): number => (at / block.elements) * block.bytes;
    for (let start = from; start < to; start += chunkElements) {
      const end = Math.min(to, start + chunkElements);
      const slot = target.subarray((start - from) * size, (end - from) * size);
      if (type.id === dtype && dtype !== "bool") {
        await this.readInto(name, slot, { from: toBytes(start), to: toBytes(end) });
        continue;
      }
      const packed = new Uint8Array(toBytes(end) - toBytes(start));
      await this.readInto(name, packed, { from: toBytes(start), to: toBytes(end) });
      const converted = convertValues(type.decode(packed), dtype, name);
      slot.set(new Uint8Array(converted.buffer, converted.byteOffset, converted.byteLength));
    }
  }

  async close(): Promise<void> {
    const handles = await Promise.allSettled(this.#handles.values());
    this.#handles.clear();
    for (const handle of handles) if (handle.status === "fulfilled") await handle.value.close();
  }

  #handle(file: string): Promise<FileHandle> {
    const known = this.#handles.get(file);
    if (known !== undefined) return known;
    const handle = open(file, "r");
    this.#handles.set(file, handle);
    return handle;
  }
}

/** What {@link TensorFile.readAs} gives for a type. */
export type ArrayOf<T extends DType> = T extends "f64"
  ? Float64Array
  : T extends "f32"
    ? Float32Array
    : T extends "f16" | "bf16"
      ? Uint16Array
      : T extends "i32"
        ? Int32Array
        : T extends "u32"
          ? Uint32Array
          : T extends "u8" | "bool"
            ? Uint8Array
            : TypedValues;

function checkedRange(name: string, range: Range, limit: number, room: number): Range {
  const { from, to } = range;
  const valid = Number.isSafeInteger(from) && Number.isSafeInteger(to) && from >= 0 && from <= to && to <= limit;
  if (valid && to - from === room) return range;
  throw new ThimbleError("tensor-range", `A part of tensor ${name} that is not there, or a place of another size`, {
    given: `${from} to ${to}, into room for ${room}`,
    expected: `a range within 0 to ${limit}, and room for just that`,
  });
}
