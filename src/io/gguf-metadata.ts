/** Metadata values of GGUF files, and how they are read. */
import { must, ThimbleError } from "../errors.js";
import type { HeaderCursor } from "./gguf-cursor.js";

export type GgufNumberType = "u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "f64";
export type GgufNumbers =
  Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array | Float32Array | Float64Array;

export type GgufArray =
  | { readonly type: "array"; readonly of: GgufNumberType | "bool"; readonly value: GgufNumbers }
  | { readonly type: "array"; readonly of: "u64" | "i64"; readonly value: BigUint64Array | BigInt64Array }
  | { readonly type: "array"; readonly of: "string"; readonly value: readonly string[] }
  | { readonly type: "array"; readonly of: "array"; readonly value: readonly GgufArray[] };

/** A metadata value with its type. Bools in arrays are 0 and 1. */
export type GgufValue =
  | { readonly type: GgufNumberType; readonly value: number }
  | { readonly type: "u64" | "i64"; readonly value: bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | GgufArray;

export type GgufType = GgufValue["type"];

/** Names of the value types, by number. */
export const ggufTypes: readonly GgufType[] = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "string",
  "array",
  "u64",
  "i64",
  "f64",
];

/** The least bytes a value takes in a file. */
export const ggufSizes: Readonly<Record<GgufType, number>> = {
  u8: 1,
  i8: 1,
  bool: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  u64: 8,
  i64: 8,
  f64: 8,
  string: 8,
  array: 12,
};

const arrays = {
  u8: Uint8Array,
  bool: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f32: Float32Array,
  f64: Float64Array,
  u64: BigUint64Array,
  i64: BigInt64Array,
} as const;

/** Arrays of arrays are in the format, but no known file has them. */
const maximumDepth = 4;

function readType(cursor: HeaderCursor, where: string): GgufType {
  const number = cursor.u32();
  const type = ggufTypes[number];
  if (type === undefined) {
    throw new ThimbleError("gguf-value-type", "A metadata value has an unknown type", {
      where: `${where} in ${cursor.path}`,
      given: `type ${number}`,
      expected: `0 to ${ggufTypes.length - 1}`,
    });
  }
  return type;
}

/** Reads a type and the value after it. */
export function readValue(cursor: HeaderCursor, key: string): GgufValue {
  const type = readType(cursor, key);
  switch (type) {
    case "array":
      return readArray(cursor, key, 1);
    case "string":
      return { type, value: cursor.string() };
    case "bool":
      return { type, value: cursor.bytes(1)[0] !== 0 };
    case "u64":
    case "i64":
      return { type, value: must(readPlain(cursor, type, 1)[0], "value") as bigint };
    default:
      return { type, value: must(readPlain(cursor, type, 1)[0], "value") as number };
  }
}

function readPlain(
  cursor: HeaderCursor,
  type: keyof typeof arrays,
  count: number,
): GgufNumbers | BigUint64Array | BigInt64Array {
  const bytes = cursor.bytes(count * ggufSizes[type]);
  return new arrays[type](bytes.slice().buffer);
}

function readArray(cursor: HeaderCursor, key: string, depth: number): GgufArray {
  const of = readType(cursor, key);
  const count = cursor.count(ggufSizes[of], `array ${key}`);
  switch (of) {
    case "string":
      return { type: "array", of, value: Array.from({ length: count }, () => cursor.string()) };
    case "array":
      if (depth === maximumDepth) {
        throw new ThimbleError("gguf-value-type", "Metadata arrays are nested too deeply", {
          where: `${key} in ${cursor.path}`,
          expected: `at most ${maximumDepth} levels`,
        });
      }
      return { type: "array", of, value: Array.from({ length: count }, () => readArray(cursor, key, depth + 1)) };
    case "u64":
    case "i64":
      return { type: "array", of, value: readPlain(cursor, of, count) as BigUint64Array | BigInt64Array };
    default:
      return { type: "array", of, value: readPlain(cursor, of, count) as GgufNumbers };
  }
}
