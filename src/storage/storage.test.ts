import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { f16FromBits } from "../ir/dtype.js";
import { scalar as s } from "../ir/scalar.js";
import { compileScalar } from "../ir/scalar-javascript.js";
import { halfToFloat } from "./bits.js";
import { compileDecoder } from "./decoder.js";
import { bytesOf } from "./format.js";
import { storageFormat, storageFormats } from "./registry.js";

interface Fixture {
  decode: Record<string, { packed: string; values: string }>;
  encode: { values: string; packed: Record<string, string> };
}

const fixture = JSON.parse(readFileSync(new URL("fixtures/gguf-blocks.json", import.meta.url), "utf8")) as Fixture;
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
const floats = (text: string): Float32Array => new Float32Array(bytes(text).buffer);
const bitsOf = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

describe("decoding", () => {
  test.each(storageFormats.map((format) => format.id))("%s gives the values of the gguf package", (id) => {
    const { packed, values } = fixture.decode[id]!;
    const expected = floats(values);
    const decoded = new Float32Array(expected.length);
    compileDecoder(storageFormat(id))(bytes(packed), decoded);
    expect(bitsOf(decoded)).toEqual(bitsOf(expected));
  });

  test("f16 is right for every bit pattern", () => {
    const decode = compileScalar(halfToFloat(s.argument(0, "u32")), 1);
    for (let bits = 0; bits < 65536; bits++) {
      if (!Object.is(decode(bits), f16FromBits(bits))) expect([bits, decode(bits)]).toEqual([bits, f16FromBits(bits)]);
    }
  });
});

describe("encoding", () => {
  test.each(["q8_0", "q4_0", "f16", "bf16"])("%s packs as the gguf package", (id) => {
    expect(storageFormat(id).encode?.(floats(fixture.encode.values))).toEqual(bytes(fixture.encode.packed[id]!));
  });

  test("f32 is the bytes as they are, for a view too", () => {
    const values = Float32Array.of(1, 2, 3).subarray(1);
    expect(storageFormat("f32").encode?.(values)).toEqual(new Uint8Array(Float32Array.of(2, 3).buffer));
  });

  test.each(["q8_0", "q4_0"])("%s comes back within half a step", (id) => {
    const format = storageFormat(id);
    const steps = id === "q8_0" ? 127 : 8;
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, min: -100, max: 100 }), { minLength: 32, maxLength: 32 }),
        (list) => {
          const values = Float32Array.from(list);
          const decoded = new Float32Array(32);
          compileDecoder(format)(format.encode!(values), decoded);
          const largest = Math.max(...list.map(Math.abs));
          // Half a step, a whole one at the clipped end of q4_0, and the rounding of the scale.
          const tolerance = (largest / steps) * (id === "q4_0" ? 1 : 0.5) + largest * 2 ** -10 + 127 * 2 ** -24;
          return list.every((value, index) => Math.abs(value - decoded[index]!) <= tolerance);
        },
      ),
    );
  });

  test("refuses what a block cannot hold", () => {
    for (const id of ["q8_0", "q4_0"]) {
      const encode = storageFormat(id).encode!;
      expect(() => encode(new Float32Array(33))).toThrow(expect.objectContaining({ code: "storage-row" }));
      for (const bad of [NaN, Infinity, 3e38]) {
        const values = new Float32Array(64).fill(1);
        values[40] = bad;
        expect(() => encode(values)).toThrow(expect.objectContaining({ code: "storage-range" }));
      }
    }
  });
});

describe("formats", () => {
  test("count bytes by whole blocks of a row", () => {
    expect(bytesOf(storageFormat("q4_1"), [3, 64])).toBe(3 * 2 * 20);
    expect(bytesOf(storageFormat("q6_K"), [2, 512])).toBe(2 * 2 * 210);
    expect(bytesOf(storageFormat("bf16"), [])).toBe(2);
    expect(() => bytesOf(storageFormat("q4_K"), [256, 128])).toThrow(expect.objectContaining({ code: "storage-row" }));
  });

  test("are found by name", () => {
    expect(() => storageFormat("q9_9")).toThrow(expect.objectContaining({ code: "storage-unknown" }));
  });

  test("decode one element by index as they decode a block", () => {
    for (const format of storageFormats) {
      const packed = bytes(fixture.decode[format.id]!.packed).subarray(0, format.block.bytes);
      const values = new Float32Array(format.block.elements);
      compileDecoder(format)(packed, values);
      const element = compileScalar(format.decode(s.argument(0, "i32")), 1, packed);
      values.forEach((value, index) => {
        expect(Object.is(element(index), value), `${format.id}[${index}]`).toBe(true);
      });
    }
  });
});
