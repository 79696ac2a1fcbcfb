/** A model's tensors by their Hugging Face names, whatever file they lie in. */
import { must, ThimbleError } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import type { StreamEncoder } from "../storage/format.js";
import { bytesOf } from "../storage/format.js";
import { isStorageFormat, storageFormat } from "../storage/registry.js";
import { decodable } from "./element-types.js";
import type { TensorFile } from "./tensor-file.js";

/** What a source says of a tensor before its data is read. */
export interface WeightTensor {
  /** As the model's definition has it, outermost axis first. */
  readonly shape: Shape;
  /** The format in which it can be had without loss: that of the file, or f32 where that is no storage format. */
  readonly storageFormat: string;
  /** Bytes in that format. */
  readonly bytes: number;
}

export interface WeightSource {
  /** A tensor of the model by its Hugging Face name. */
  tensor(name: string): WeightTensor;
  /**
   * Reads a tensor into `target`, which must have just its bytes in the storage format `format`: as it lies in the
   * file, converted to another float type, decoded, or packed into a format that can be written. No more than a few
   * MiB are held beside the target.
   */
  readInto(name: string, target: Uint8Array, format: string): Promise<void>;
  /** Where a file holds the very bytes that `readInto` would give, if one does. */
  place?(name: string, format: string): { readonly path: string; readonly offset: number } | undefined;
  close(): Promise<void>;
}

/** Where a tensor of the model lies in the file, and how it was changed there. */
export interface StoredTensor {
  /** Its name in the file. */
  readonly name: string;
  readonly shape: Shape;
  /** Heads whose rows lie in neighbouring pairs instead of halves; 0 = none. */
  readonly interleavedHeads: number;
  /** What must be taken from every value. */
  readonly added: number;
}

/** Elements converted at once; a multiple of every block. */
const chunkElements = 2 ** 20;
const dense: readonly string[] = ["f32", "f16", "bf16"];

/** The tensors of a file under the names of a model. */
export class FileWeights implements WeightSource {
  readonly #file: TensorFile;
  readonly #tensors: ReadonlyMap<string, StoredTensor>;

  constructor(file: TensorFile, tensors: ReadonlyMap<string, StoredTensor>) {
    this.#file = file;
    this.#tensors = tensors;
  }

  tensor(name: string): WeightTensor {
    const { shape, name: stored, added } = this.#stored(name);
    const { type } = this.#file.info(stored);
    const format = isStorageFormat(type) && (added === 0 || dense.includes(type)) ? type : "f32";
    return { shape, storageFormat: format, bytes: bytesOf(storageFormat(format), shape) };
  }

  async readInto(name: string, target: Uint8Array, format: string): Promise<void> {
    const stored = this.#stored(name);
    const storage = storageFormat(format);
    const bytes = bytesOf(storage, stored.shape);
    if (target.length !== bytes) {
      throw new ThimbleError("tensor-range", `Tensor ${name} does not fit the place it is read into`, {
        given: `${target.length} bytes`,
        expected: `${bytes} bytes in ${format}`,
      });
    }
    if (storage.encoder !== undefined) {
      await this.#pack(stored, storage.encoder(target, elements(stored.shape), name));
    } else if (stored.interleavedHeads > 0) await this.#readHeads(stored, target, format);
    else await this.#readRange(stored, target, format, 0, elements(stored.shape));
  }

  place(name: string, format: string): { readonly path: string; readonly offset: number } | undefined {
    const { name: stored, interleavedHeads, added } = this.#stored(name);
    const { type, file, offset } = this.#file.info(stored);
    return type === format && interleavedHeads === 0 && added === 0 ? { path: file, offset } : undefined;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #stored(name: string): StoredTensor {
    const stored = this.#tensors.get(name);
    if (stored !== undefined) return stored;
    throw new ThimbleError("tensor-missing", "The model has no tensor of this name", { given: name });
  }

  /** Elements `from` to `to` of the file's tensor, in the file's order: whole blocks of both formats. */
  async #readRange(stored: StoredTensor, target: Uint8Array, format: string, from: number, to: number): Promise<void> {
    const { name, added } = stored;
    const { type } = this.#file.info(name);
    if (added === 0 && type === format) {
      const { block } = storageFormat(format);
      const at = (element: number): number => (element / block.elements) * block.bytes;
      await this.#file.readInto(name, target, { from: at(from), to: at(to) });
    } else if (added === 0 && dense.includes(format)) {
      await this.#file.readAsInto(name, format as DType, target, { from, to });
    } else await this.#encodeRange(stored, target, format, from, to);
  }

  /** Feeds an encoder in f32, a chunk (or a head) at a time, in the model's order. */
  async #pack(stored: StoredTensor, encoder: StreamEncoder): Promise<void> {
    const { shape, interleavedHeads } = stored;
    const count = elements(shape);
    const step = interleavedHeads > 0 ? count / interleavedHeads : chunkElements;
    for (let from = 0; from < count; from += step) {
      const to = Math.min(count, from + step);
      const values = new Float32Array(to - from);
      const bytes = new Uint8Array(values.buffer);
      if (interleavedHeads > 0)
        await this.#readHead(stored, bytes, "f32", from, must(shape[0], "rows") / interleavedHeads);
      else await this.#readRange(stored, bytes, "f32", from, to);
      encoder.write(values);
    }
    encoder.finish();
  }

  /** By way of f32, a chunk at a time. */
  async #encodeRange(
    { name, added }: StoredTensor,
    target: Uint8Array,
    format: string,
    from: number,
    to: number,
  ): Promise<void> {
    const { encode, block } = storageFormat(format);
    if (encode === undefined) {
      throw new ThimbleError("storage-encode", `Thimble cannot pack tensors into ${format}`, {
        given: `tensor ${name}`,
        fix: "Choose a format that can be written, such as q8_0 or bf16.",
      });
    }
    const sourceBlock = decodable(this.#file.info(name).type, name).block.elements;
    const step = chunkElements - (chunkElements % (sourceBlock * block.elements));
    for (let start = from; start < to; start += step) {
      const end = Math.min(to, start + step);
      const values = new Float32Array(end - start);
      await this.#file.readAsInto(name, "f32", new Uint8Array(values.buffer), { from: start, to: end });
      if (added !== 0) for (let index = 0; index < values.length; index++) values[index] = (values[index] ?? 0) - added;
      target.set(encode(values), ((start - from) / block.elements) * block.bytes);
    }
  }

  /** One head at a time. */
  async #readHeads(stored: StoredTensor, target: Uint8Array, format: string): Promise<void> {
    const { shape, interleavedHeads } = stored;
    const rows = must(shape[0], "rows") / interleavedHeads;
    const count = elements(shape) / interleavedHeads;
    const bytes = target.length / interleavedHeads;
    for (let index = 0; index < interleavedHeads; index++) {
      const place = target.subarray(index * bytes, (index + 1) * bytes);
      await this.#readHead(stored, place, format, index * count, rows);
    }
  }

  /**
   * The rows of one head, from element `from` on, put back from neighbouring pairs (r0 r0' r1 r1' ...) into halves
   * (r0 r1 ... r0' ...).
   */
  async #readHead(stored: StoredTensor, target: Uint8Array, format: string, from: number, rows: number): Promise<void> {
    const head = new Uint8Array(target.length);
    await this.#readRange(
      stored,
      head,
      format,
      from,
      from + (elements(stored.shape) / must(stored.shape[0], "rows")) * rows,
    );
    const rowBytes = head.length / rows;
    for (let row = 0; row < rows; row++) {
      const pair = row < rows / 2 ? 2 * row : 2 * (row - rows / 2) + 1;
      target.set(head.subarray(pair * rowBytes, (pair + 1) * rowBytes), row * rowBytes);
    }
  }
}
