/** Reads GGUF files, versions 2 and 3, little-endian, whole or split by gguf-split. */
import { ThimbleError } from "../errors.js";
import { checkedProduct, checkOverlaps, withFile } from "./header.js";
import { ggmlTypeByNumber, ggmlTypes } from "./ggml-types.js";
import { HeaderCursor } from "./gguf-cursor.js";
import type { GgufValue } from "./gguf-metadata.js";
import { readValue } from "./gguf-metadata.js";
import type { TensorInfo } from "./tensor-file.js";
import { TensorFile } from "./tensor-file.js";

export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** ggml has no tensors of more axes. */
const maximumRank = 4;
const keyLimit = 65535;

export class GgufFile extends TensorFile {
  readonly version: number;
  readonly metadata: GgufMetadata;

  constructor(version: number, metadata: GgufMetadata, tensors: readonly TensorInfo[]) {
    super(tensors);
    this.version = version;
    this.metadata = metadata;
  }

  /** A string value, or undefined if the key is missing. */
  text(key: string): string | undefined {
    const entry = this.metadata.get(key);
    if (entry === undefined || entry.type === "string") return entry?.value;
    throw wrongType(key, entry, "a string");
  }

  /** A number of any width, or undefined if the key is missing. */
  number(key: string): number | undefined {
    const entry = this.metadata.get(key);
    if (entry === undefined) return undefined;
    if (typeof entry.value === "number" || typeof entry.value === "bigint") return Number(entry.value);
    throw wrongType(key, entry, "a number");
  }

  /** A bool, or undefined if the key is missing. */
  boolean(key: string): boolean | undefined {
    const entry = this.metadata.get(key);
    if (entry === undefined || entry.type === "bool") return entry?.value;
    throw wrongType(key, entry, "a bool");
  }

  /** An array of strings, or undefined if the key is missing. */
  texts(key: string): readonly string[] | undefined {
    const entry = this.metadata.get(key);
    if (entry === undefined) return undefined;
    if (entry.type === "array" && entry.of === "string") return entry.value;
    throw wrongType(key, entry, "an array of strings");
  }

  /** An array of numbers, or undefined if the key is missing. */
  numbers(key: string): ArrayLike<number> | undefined {
    const entry = this.metadata.get(key);
    if (entry === undefined) return undefined;
    if (entry.type !== "array") throw wrongType(key, entry, "an array of numbers");
    switch (entry.of) {
      case "string":
      case "array":
        throw wrongType(key, entry, "an array of numbers");
      case "u64":
      case "i64":
        return Float64Array.from(entry.value, Number);
      default:
        return entry.value;
    }
  }
}

function wrongType(key: string, entry: GgufValue, expected: string): ThimbleError {
  return new ThimbleError("gguf-metadata", `The GGUF metadata ${key} has another type than it should`, {
    given: entry.type === "array" ? `an array of ${entry.of}` : entry.type,
    expected,
  });
}

interface Part {
  readonly version: number;
  readonly metadata: Map<string, GgufValue>;
  readonly tensors: TensorInfo[];
}

/** Opens a GGUF file; only its header is read. Of a split model, name the first part. */
export async function openGguf(path: string): Promise<GgufFile> {
  const first = await readPart(path);
  const tensors = [...first.tensors];
  for (const other of otherParts(path, first.metadata.get("split.count")))
    tensors.push(...(await readPart(other)).tensors);
  const names = new Set<string>();
  for (const { name, file } of tensors) {
    if (names.has(name)) throw tensorError(name, file, "is there twice");
    names.add(name);
  }
  return new GgufFile(first.version, first.metadata, tensors);
}

function otherParts(path: string, count: GgufValue | undefined): string[] {
  const total = count === undefined ? 1 : Number(count.value);
  if (!(total > 1)) return [];
  const match = /^(.*)-00001-of-(\d{5})\.gguf$/.exec(path);
  if (match === null || Number(match[2]) !== total) {
    throw new ThimbleError("gguf-split", "This is one part of a split GGUF model", {
      where: path,
      given: `a model of ${total} parts`,
      expected: `the first part, named MODEL-00001-of-${String(total).padStart(5, "0")}.gguf, with the others beside it`,
    });
  }
  return Array.from(
    { length: total - 1 },
    (_, index) => `${match[1]}-${String(index + 2).padStart(5, "0")}-of-${match[2]}.gguf`,
  );
}

function readPart(path: string): Promise<Part> {
  return withFile(path, (handle, size) => Promise.resolve(parse(new HeaderCursor(path, handle.fd, size))));
}

function parse(cursor: HeaderCursor): Part {
  const version = readVersion(cursor);
  // A tensor's description takes 24 bytes and its name, a metadata entry 12 and its key and value.
  const tensorCount = cursor.count(24, "tensors");
  const metadataCount = cursor.count(13, "metadata");
  const metadata = readMetadata(cursor, metadataCount);
  const pending = readTensors(cursor, tensorCount);
  const alignment = readAlignment(metadata, cursor.path);
  const start = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = pending.map((tensor) => placed(tensor, start, alignment, cursor.size));
  checkOverlaps("gguf-tensor", tensors, cursor.path);
  return { version, metadata, tensors };
}

function readVersion(cursor: HeaderCursor): number {
  const magic = cursor.u32();
  const version = cursor.u32();
  const fail = (message: string, given: string, expected: string): never => {
    throw new ThimbleError("gguf-magic", message, { where: cursor.path, given, expected });
  };
  if (magic !== 0x46554747)
    fail("This is not a GGUF file", `0x${magic.toString(16).padStart(8, "0")} at its start`, "GGUF");
  if (version !== 0 && (version & 0xffff) === 0) fail("The GGUF file is big-endian", "big-endian", "little-endian");
  if (version !== 2 && version !== 3) fail("The GGUF file has another version", String(version), "2 or 3");
  return version;
}

function readMetadata(cursor: HeaderCursor, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let index = 0; index < count; index++) {
    const key = readName(cursor, "key");
    if (metadata.has(key))
      throw new ThimbleError("gguf-metadata", `The metadata has ${key} twice`, { where: cursor.path });
    metadata.set(key, readValue(cursor, key));
  }
  return metadata;
}

function readName(cursor: HeaderCursor, what: string): string {
  const length = cursor.u64();
  if (length > keyLimit) {
    throw new ThimbleError("gguf-header", `A ${what} is too long`, {
      where: `byte ${cursor.position} of ${cursor.path}`,
      given: length === Infinity ? "2^53 bytes or more" : `${length} bytes`,
      expected: `at most ${keyLimit}`,
    });
  }
  return new TextDecoder().decode(cursor.bytes(length));
}

function readAlignment(metadata: ReadonlyMap<string, GgufValue>, where: string): number {
  const entry = metadata.get("general.alignment");
  if (entry === undefined) return 32;
  const alignment = entry.type === "u32" ? entry.value : 0;
  if (alignment > 0 && alignment <= 2 ** 20 && (alignment & (alignment - 1)) === 0) return alignment;
  throw new ThimbleError("gguf-metadata", "general.alignment is impossible", {
    where,
    given: entry.type === "array" ? "an array" : `${entry.type} ${String(entry.value)}`,
    expected: "a u32 that is a power of two, at most 2^20",
  });
}

/** Tensors with offsets from the start of the data. */
function readTensors(cursor: HeaderCursor, count: number): TensorInfo[] {
  return Array.from({ length: count }, () => readTensor(cursor));
}

function tensorError(
  name: string,
  where: string,
  what: string,
  detail: { given?: string; expected?: string } = {},
): ThimbleError {
  return new ThimbleError("gguf-tensor", `Tensor ${name} ${what}`, { where, ...detail });
}

function readTensor(cursor: HeaderCursor): TensorInfo {
  const name = readName(cursor, "tensor name");
  const rank = cursor.u32();
  if (rank > maximumRank) {
    throw tensorError(name, cursor.path, "has too many axes", {
      given: String(rank),
      expected: `at most ${maximumRank}`,
    });
  }
  const shape = Array.from({ length: rank }, () => cursor.u64()).reverse();
  const number = cursor.u32();
  const offset = cursor.u64();
  const type = ggmlTypeByNumber.get(number);
  if (type === undefined) {
    throw tensorError(name, cursor.path, "has an unknown type", {
      given: `type ${number}`,
      expected: ggmlTypes.map((known) => `${known.number} (${known.id})`).join(", "),
    });
  }
  const total = checkedProduct([...shape.filter((size) => size !== 0), type.block.bytes]);
  if (total === undefined) throw tensorError(name, cursor.path, "is too large", { given: `[${shape.join(", ")}]` });
  if ((shape.at(-1) ?? 1) % type.block.elements !== 0) {
    throw tensorError(name, cursor.path, `has rows that are not whole blocks of ${type.id}`, {
      given: `[${shape.join(", ")}]`,
      expected: `a last axis that is a multiple of ${type.block.elements}`,
    });
  }
  const bytes = shape.includes(0) ? 0 : total / type.block.elements;
  return { name, type: type.id, shape, bytes, file: cursor.path, offset };
}

function placed(tensor: TensorInfo, start: number, alignment: number, size: number): TensorInfo {
  if (tensor.offset % alignment !== 0) {
    throw tensorError(tensor.name, tensor.file, "is not aligned", {
      given: `offset ${tensor.offset}`,
      expected: `a multiple of ${alignment}`,
    });
  }
  const offset = start + tensor.offset;
  if (offset + tensor.bytes > size) {
    throw tensorError(tensor.name, tensor.file, "reaches past the end of the file", {
      given: `a file of ${size} bytes`,
      expected: `${offset + tensor.bytes} bytes: the file is cut short`,
    });
  }
  return { ...tensor, offset };
}
