import { describe, expect, test } from "vitest";
import { compileDecoder } from "./decoder.js";
import { bytesOf } from "./format.js";
import { storageFormat } from "./registry.js";

/** Integers that lie less than 2^bits apart in every group, with zero points from 0 to the largest. */
function integers(count: number, bits: number, group: number): Float32Array {
  const most = 2 ** bits - 1;
  return Float32Array.from({ length: count }, (_, index) => {
    const zero = (Math.floor(index / group) * 7) % (most + 1);
    return ((index * 31 + (index >> 3)) % (most + 1)) - zero;
  });
}

describe.each([2, 3, 4, 8])("integers of %i bits", (bits) => {
  test.each([
    [8, 264],
    [48, 48 * 11],
    [64, 64 * 33],
    [576, 576 * 3],
  ])("in groups of %i come back exactly", (group, count) => {
    const format = storageFormat(`int${bits}-${group}`);
    const given = integers(count, bits, group);
    const packed = format.encode!(given);
    const decoded = new Float32Array(count);
    compileDecoder(format)(packed, decoded);
    expect(decoded).toEqual(given);
    const lines = (bytes: number): number => Math.ceil(bytes / 64) * 64;
    expect(packed.length).toBe(bytesOf(format, [count]));
    expect(packed.length).toBe(64 + lines((count * bits) / 8) + lines(count / group));
  });
});

test("other numbers are rounded and clamped; what is not finite is refused with the tensor's name", () => {
  const format = storageFormat("int2-8");
  const decoded = new Float32Array(8);
  compileDecoder(format)(format.encode!(Float32Array.of(-1.2, 0.4, 7, 2, 0, 1, -1, 0)), decoded);
  expect([...decoded]).toEqual([-1, 0, 2, 2, 0, 1, -1, 0]);
  expect(() => format.encode!(Float32Array.of(NaN, 0, 0, 0, 0, 0, 0, 0))).toThrow(
    expect.objectContaining({ code: "storage-range" }),
  );
  expect(() => storageFormat("int4-12")).toThrow(expect.objectContaining({ code: "storage-unknown" }));
  expect(() => storageFormat("int5-64")).toThrow(expect.objectContaining({ code: "storage-unknown" }));
});
