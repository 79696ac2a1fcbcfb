/** Element types of weight files that are no storage format: their size, and their values as numbers. */
import { ThimbleError } from "../errors.js";
import { f16FromBits } from "../ir/dtype.js";
import { compileDecoder } from "../storage/decoder.js";
import { isStorageFormat, storageFormat } from "../storage/registry.js";

export type Values = Float32Array | Float64Array | Int32Array | Uint32Array | BigInt64Array | BigUint64Array;

/** An element type as a file names it, in lower case but for ggml's K: `f32`, `i64`, `f8_e4m3`, `q4_K`. */
export interface ElementType {
  readonly id: string;
  readonly block: { readonly elements: number; readonly bytes: number };
  readonly kind: "float" | "integer" | "bool";
  /** The values of whole blocks; missing where Thimble can only copy the bytes. */
  readonly decode?: (packed: Uint8Array) => Values;
}

/** The bytes as a buffer of their own; the same memory where they fill one. */
function aligned(packed: Uint8Array, size: number): ArrayBuffer {
  const { buffer, byteOffset, byteLength } = packed;
  if (buffer instanceof ArrayBuffer && byteOffset === 0 && buffer.byteLength === byteLength) return buffer;
  const copy = new Uint8Array(Math.ceil(byteLength / size) * size);
  copy.set(packed);
  return copy.buffer;
}

function define(
  id: string,
  kind: ElementType["kind"],
  bytes: number,
  decode?: (packed: Uint8Array) => Values,
): ElementType {
  return { id, kind, block: { elements: 1, bytes }, ...(decode === undefined ? {} : { decode }) };
}

/** A type of one byte whose 256 values stand in a table. */
function tabulated(id: string, value: (bits: number) => number): ElementType {
  const table = Float32Array.from({ length: 256 }, (_, bits) => value(bits));
  return define(id, "float", 1, (packed) => Float32Array.from(packed, (bits) => table[bits] ?? NaN));
}

/** An 8-bit float with `mantissa` bits of mantissa, without infinities; `isNaN` says which patterns are NaN. */
function smallFloat(mantissa: number, bias: number, isNaN: (bits: number) => boolean): (bits: number) => number {
  return (bits) => {
    if (isNaN(bits)) return NaN;
    const sign = bits & 0x80 ? -1 : 1;
    const exponent = (bits & 0x7f) >>> mantissa;
    const fraction = bits & (2 ** mantissa - 1);
    if (exponent === 0) return sign * fraction * 2 ** (1 - bias - mantissa);
    return sign * (2 ** mantissa + fraction) * 2 ** (exponent - bias - mantissa);
  };
}

const types: readonly ElementType[] = [
  define("f64", "float", 8, (packed) => new Float64Array(aligned(packed, 8))),
  define("i64", "integer", 8, (packed) => new BigInt64Array(aligned(packed, 8))),
  define("u64", "integer", 8, (packed) => new BigUint64Array(aligned(packed, 8))),
  define("i32", "integer", 4, (packed) => new Int32Array(aligned(packed, 4))),
  define("u32", "integer", 4, (packed) => new Uint32Array(aligned(packed, 4))),
  define("i16", "integer", 2, (packed) => Int32Array.from(new Int16Array(aligned(packed, 2)))),
  define("u16", "integer", 2, (packed) => Uint32Array.from(new Uint16Array(aligned(packed, 2)))),
  define("i8", "integer", 1, (packed) => Int32Array.from(packed, (byte) => (byte << 24) >> 24)),
  define("u8", "integer", 1, (packed) => Uint32Array.from(packed)),
  define("bool", "bool", 1, (packed) => Uint32Array.from(packed, (byte) => (byte === 0 ? 0 : 1))),
  tabulated(
    "f8_e4m3",
    smallFloat(3, 7, (bits) => (bits & 0x7f) === 0x7f),
  ),
  tabulated("f8_e5m2", (bits) => f16FromBits(bits << 8)),
  tabulated(
    "f8_e4m3fnuz",
    smallFloat(3, 8, (bits) => bits === 0x80),
  ),
  tabulated(
    "f8_e5m2fnuz",
    smallFloat(2, 16, (bits) => bits === 0x80),
  ),
  tabulated("f8_e8m0", (bits) => (bits === 255 ? NaN : 2 ** (bits - 127))),
];

const byId = new Map(types.map((type) => [type.id, type]));

function fromStorage(id: string): ElementType {
  const format = storageFormat(id);
  const decodeInto = compileDecoder(format);
  const { elements, bytes } = format.block;
  return {
    id,
    kind: "float",
    block: format.block,
    decode: (packed) => {
      if (id === "f32") return new Float32Array(aligned(packed, 4));
      const out = new Float32Array((packed.length / bytes) * elements);
      decodeInto(packed, out);
      return out;
    },
  };
}

/** The element type of this name, storage formats included, if Thimble can give its values. */
export function elementType(id: string): ElementType | undefined {
  const known = byId.get(id);
  if (known !== undefined || !isStorageFormat(id)) return known;
  const type = fromStorage(id);
  byId.set(id, type);
  return type;
}

/** The values of an element type, or an error that names the tensor. */
export function decodable(id: string, tensor: string): Required<ElementType> {
  const type = elementType(id);
  if (type?.decode === undefined) {
    throw new ThimbleError("tensor-type", `Thimble cannot read the values of tensor ${tensor}`, {
      given: `type ${id}`,
      expected: "a float, integer or bool type, or a GGUF block type up to q8_0 and q6_K",
      fix: "Use a copy of the model in another format, such as bf16, q8_0 or q4_K.",
    });
  }
  return type as Required<ElementType>;
}
