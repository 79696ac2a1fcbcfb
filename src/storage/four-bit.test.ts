import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import { scalar as s } from "../ir/scalar.js";
import { compileScalar } from "../ir/scalar-javascript.js";
import { drawNormal } from "../methods/initial.js";
import { compileDecoder } from "./decoder.js";
import { dynamicCode, dynamicLevels } from "./dynamic-map.js";
import { bytesOf } from "./format.js";
import type { FourBitType } from "./four-bit-levels.js";
import { FourBitCoder, fourBitBlocks, fourBitLevels } from "./four-bit-levels.js";
import { fourBitId } from "./four-bit.js";
import { layOutPlanes } from "./planes.js";
import { isStorageFormat, storageFormat } from "./registry.js";
import { torchSum } from "./torch-sum.js";

interface Case {
  type: FourBitType;
  blocksize: number;
  count: number;
  double: boolean;
  codes: string;
  absmax: string;
  nested?: string;
  offset?: string;
  decoded: string | null;
}

/** Made with bitsandbytes by scripts/fixtures/four_bit.py. */
const fixture = JSON.parse(readFileSync(new URL("fixtures/four-bit.json", import.meta.url), "utf8")) as {
  map: string;
  cases: Case[];
  sums: { count: number; sum: number }[];
};
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
const floats = (text: string): Float32Array => new Float32Array(bytes(text).buffer);

/** The numbers that the fixture was made of. */
function values(count: number, seed: number): Float32Array {
  let state = seed;
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
  return Float32Array.from({ length: count }, (_, index) => {
    const uniform = next() / 2 ** 31 - 1;
    return next() % 29 === 0 ? 0 : uniform * (1 + (Math.floor(index / 96) % 7));
  });
}

/** The planes of a packed tensor. */
function planes(id: string, packed: Uint8Array, count: number): Uint8Array[] {
  const { offsets, bytes: end } = layOutPlanes(storageFormat(id).planes!, count);
  return offsets.map((offset, index) => packed.slice(offset, offsets[index + 1] ?? end));
}

function decode(id: string, packed: Uint8Array, count: number): Float32Array {
  const decoded = new Float32Array(count);
  compileDecoder(storageFormat(id))(packed, decoded);
  return decoded;
}

describe("bitsandbytes' 4-bit formats", () => {
  test.each(fixture.cases)("$type, blocks of $blocksize, $count values, double $double", (given) => {
    const { count, blocksize, double } = given;
    const id = fourBitId(given);
    const data = values(count, count + blocksize);
    const packed = storageFormat(id).encode!(data);
    expect(packed.length).toBe(bytesOf(storageFormat(id), [count]));
    const [codes, scales, nested, mean] = planes(id, packed, count);
    const same = (plane: Uint8Array | undefined, expected: Uint8Array): void => {
      expect(Buffer.from(plane!.subarray(0, expected.length)).equals(Buffer.from(expected))).toBe(true);
      expect(plane!.subarray(expected.length).every((byte) => byte === 0)).toBe(true);
    };
    same(codes, bytes(given.codes));
    same(scales, bytes(given.absmax));
    if (double) {
      same(nested, bytes(given.nested!));
      same(mean, bytes(given.offset!));
    }
    if (given.decoded !== null) expect(decode(id, packed, count)).toEqual(floats(given.decoded));
  });

  test("the map of double quantisation and the order of its mean's sum are PyTorch's", () => {
    expect(Float32Array.from(dynamicLevels)).toEqual(floats(fixture.map));
    for (const { count, sum } of fixture.sums) expect(torchSum(values(count, count)), String(count)).toBe(sum);
  });

  test("a scale's level is the nearest one, or as near but for a step of the grid", () => {
    let strayed = 0;
    for (const value of drawNormal(4, "scales", 5000).map((x) => Math.fround(Math.max(-1, Math.min(1, x / 3))))) {
      const nearest = Math.min(...dynamicLevels.map((level) => Math.abs(level - value)));
      const excess = Math.abs(must(dynamicLevels[dynamicCode(value)], "level") - value) - nearest;
      expect(excess).toBeLessThan(2.1 / 65535);
      if (excess > 1e-7) strayed += 1;
    }
    expect(strayed).toBeLessThan(25);
  });

  test.each(["nf4", "fp4"] as const)("%s rounds to the nearest level, and every level to itself", (type) => {
    const levels = fourBitLevels(type);
    const coder = new FourBitCoder(type);
    const code = (value: number): number => coder.code(value);
    levels.forEach((level, index) => {
      expect(levels[code(level)]).toBe(level);
      if (level !== 0) expect(code(level)).toBe(index);
    });
    for (const value of drawNormal(7, type, 20000)) {
      const clipped = Math.fround(Math.max(-1, Math.min(1, value / 2)));
      const distances = levels.map((level) => Math.abs(level - clipped));
      const nearest = Math.min(...distances);
      const chosen = distances[code(clipped)]!;
      expect(chosen - nearest).toBeLessThan(1e-7);
    }
  });

  test("values of the tables, and a tie goes to the lower level", () => {
    expect(fourBitLevels("nf4")[12]).toBeCloseTo(0.44070982933044434, 8);
    expect(fourBitLevels("fp4").slice(0, 4)).toEqual([0, 0.0625 / 12, 8 / 12, 1].map(Math.fround));
    const [low = 0, high = 0] = [fourBitLevels("nf4")[14], fourBitLevels("nf4")[15]];
    const middle = Math.fround(Math.fround(low + high) / 2);
    expect(new FourBitCoder("nf4").code(middle)).toBe(14);
    const packed = storageFormat("nf4-64").encode!(Float32Array.of(-1, 1, 0, 0.5));
    expect([...planes("nf4-64", packed, 4)[0]!.subarray(0, 2)]).toEqual([0x0f, 0x7c]);
  });

  test("blocks of zeros, odd numbers and short blocks come back", () => {
    for (const type of ["nf4", "fp4"] as const) {
      for (const [blocksize, count] of [
        [64, 1],
        [64, 63],
        [64, 129],
        [32, 1001],
        [4096, 77],
      ] as const) {
        for (const double of [false, true]) {
          const id = fourBitId({ type, blocksize, double });
          const zeros = decode(id, storageFormat(id).encode!(new Float32Array(count)), count);
          expect(zeros.every((value) => value === 0)).toBe(true);
          const data = values(count, 5);
          const decoded = decode(id, storageFormat(id).encode!(data), count);
          const largest = Math.max(...data.map(Math.abs));
          decoded.forEach((value, index) => {
            expect(Math.abs(value - data[index]!)).toBeLessThan(0.21 * largest + 1e-6);
          });
        }
      }
    }
  });

  test("one element decodes as in its tensor", () => {
    const count = 200;
    const format = storageFormat("nf4-64");
    const packed = format.encode!(values(count, 3));
    const decoded = decode("nf4-64", packed, count);
    const { offsets } = layOutPlanes(format.planes!, count);
    // Element 5 of block 2: bytes of both planes side by side, as the expression reads them.
    const side = Uint8Array.of(
      ...packed.subarray(offsets[0]! + 32, offsets[0]! + 48),
      ...packed.subarray(offsets[1]! + 4, offsets[1]! + 8),
    );
    expect(side).toHaveLength(20);
    const value = compileScalar(
      format.codes!(s.i32(packed[offsets[0]! + 34]! & 15)),
      0,
      packed.subarray(offsets[1]! + 4),
    );
    expect(value()).toBe(decoded[69]);
  });

  test("relative errors on Gaussian weights are those of the method", () => {
    const count = 2 ** 18;
    const data = Float32Array.from(drawNormal(1, "gaussian", count));
    const error = (id: string): number => {
      const decoded = decode(id, storageFormat(id).encode!(data), count);
      let [wrong, all] = [0, 0];
      data.forEach((value, index) => {
        wrong += (value - decoded[index]!) ** 2;
        all += value ** 2;
      });
      return Math.sqrt(wrong / all);
    };
    expect(error("nf4-64") / 0.0919).toBeCloseTo(1, 2);
    expect(error("nf4-128") / 0.0956).toBeCloseTo(1, 2);
    expect(error("fp4-64") / 0.1219).toBeCloseTo(1, 2);
    expect(error("nf4-64-dq") / 0.0919).toBeCloseTo(1, 2);
  });

  test("bytes: 0.258 of bf16 with double quantisation, 0.281 without", () => {
    const shape = [4096, 11008];
    const dense = bytesOf(storageFormat("bf16"), shape);
    expect(Math.abs(bytesOf(storageFormat("nf4-64-dq"), shape) / dense - 0.258)).toBeLessThan(0.001);
    expect(bytesOf(storageFormat("nf4-64"), shape) / dense).toBeCloseTo(0.28125, 5);
    // 100 values: 64 for the first line, 50 -> 64 of codes, 2 scales -> 64.
    expect(bytesOf(storageFormat("nf4-64"), [10, 10])).toBe(192);
    expect(bytesOf(storageFormat("nf4-64-dq"), [10, 10])).toBe(320);
  });

  test("a tensor may be given in pieces of any length", () => {
    const count = 5000;
    const data = values(count, 9);
    const format = storageFormat("nf4-256-dq");
    const whole = format.encode!(data);
    const target = new Uint8Array(whole.length).fill(7);
    const encoder = format.encoder!(target, count, "w");
    for (let from = 0, length = 1; from < count; from += length, length = (length * 3) % 700) {
      encoder.write(data.subarray(from, from + length));
    }
    encoder.finish();
    expect(target).toEqual(whole);
  });

  test("names: sizes of blocks that there are", () => {
    for (const blocksize of fourBitBlocks) {
      expect(storageFormat(`nf4-${blocksize}-dq`)).toBe(storageFormat(`nf4-${blocksize}-dq`));
    }
    for (const id of ["nf4", "nf4-48", "nf4-8192", "nf3-64", "nf4-064", "nf4-64-qd"]) {
      expect(isStorageFormat(id)).toBe(false);
    }
  });

  test("NaN and infinity are refused with the tensor's name", () => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const data = values(200, 1);
      data[150] = bad;
      const format = storageFormat("nf4-64-dq");
      const encoder = format.encoder!(new Uint8Array(bytesOf(format, [200])), 200, "q_proj.weight");
      const pack = (): void => {
        encoder.write(data);
      };
      expect(pack).toThrow(expect.objectContaining({ code: "storage-range", where: "q_proj.weight" }));
    }
  });
});
