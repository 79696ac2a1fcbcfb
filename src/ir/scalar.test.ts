import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fusedMultiplyAdd, multiplyHigh, roundHalfEven } from "./exact.js";
import { scalar as s } from "./scalar.js";
import { hoistInvariants, matchScalar, rewriteScalar, substituteArguments } from "./scalar-fold.js";
import { scalarSteps } from "./scalar-graph.js";
import { compileScalar } from "./scalar-javascript.js";

const single = fc.float({ noNaN: true, noDefaultInfinity: true });
const word = fc.integer({ min: 0, max: 0xffffffff });
const int = fc.integer({ min: -0x80000000, max: 0x7fffffff });

/** A finite f32 as an integer multiple of 2^-149. */
function units(value: number): bigint {
  const [mantissa, exponent] = split(value);
  return BigInt(mantissa) << BigInt(exponent + 149);
}

function split(value: number): [number, number] {
  let exponent = 0;
  let mantissa = value;
  while (!Number.isInteger(mantissa)) {
    mantissa *= 2;
    exponent--;
  }
  return [mantissa, exponent];
}

/** The f32 nearest to an integer multiple of 2^-298, ties to even, by exact integer arithmetic. */
function nearestSingle(value: bigint): number {
  const magnitude = value < 0n ? -value : value;
  const length = magnitude.toString(2).length;
  const shift = BigInt(Math.max(length - 24, 149));
  const quotient = magnitude >> shift;
  const rest = magnitude - (quotient << shift);
  const half = 1n << (shift - 1n);
  const rounded = rest > half || (rest === half && (quotient & 1n) === 1n) ? quotient + 1n : quotient;
  const result = Number(rounded) * 2 ** Number(shift - 149n) * 2 ** -149;
  return value < 0n ? -Math.fround(result) : Math.fround(result);
}

describe("exact arithmetic", () => {
  test("fused multiply-add rounds once", () => {
    const near = fc.tuple(single, single, fc.integer({ min: -3, max: 3 }), fc.double({ min: -2, max: 2, noNaN: true }));
    fc.assert(
      fc.property(near, fc.option(single), ([a, b, ulps, factor], other) => {
        // c near -a b, so that what cancels and what is left below half a unit both happen.
        const c = other ?? Math.fround(Math.fround(-a * b) * factor + ulps * 2 ** -149);
        if (!Number.isFinite(Math.fround(a * b)) || !Number.isFinite(c)) return true;
        const exact = units(a) * units(b) + (units(c) << 149n);
        return exact === 0n || fusedMultiplyAdd(a, b, c) === nearestSingle(exact);
      }),
      { numRuns: 5000 },
    );
  });

  test("fused multiply-add where rounding twice is wrong", () => {
    // 97 * 172961 = 2^24 + 1 lies halfway between two f32; what f64 cannot add to it decides.
    for (const tiny of [2 ** -60, 1e-45]) {
      expect(fusedMultiplyAdd(97, 172961, tiny)).toBe(2 ** 24 + 2);
      expect(fusedMultiplyAdd(97, 172961, -tiny)).toBe(2 ** 24);
      expect(fusedMultiplyAdd(-97, 172961, -tiny)).toBe(-(2 ** 24) - 2);
      expect(Math.fround(97 * 172961 + tiny)).toBe(2 ** 24);
    }
    expect(fusedMultiplyAdd(2, 3, Infinity)).toBe(Infinity);
    expect(fusedMultiplyAdd(Infinity, 0, 1)).toBeNaN();
    expect(fusedMultiplyAdd(3e38, 2, -3e38)).toBe(Math.fround(3e38));
  });

  test("round half even", () => {
    expect([0.5, 1.5, 2.5, -0.5, -1.5, 2 ** 60, 0.49999997].map(roundHalfEven)).toEqual([0, 2, 2, -0, -2, 2 ** 60, 0]);
    expect(roundHalfEven(NaN)).toBeNaN();
  });

  test("high word of a product", () => {
    fc.assert(fc.property(word, word, (a, b) => BigInt(multiplyHigh(a, b)) === (BigInt(a) * BigInt(b)) >> 32n));
  });
});

describe("compiled scalars", () => {
  const [x, y] = [s.argument(0, "f32"), s.argument(1, "f32")];
  const [i, j] = [s.argument(0, "i32"), s.argument(1, "i32")];
  const [u, v] = [s.argument(0, "u32"), s.argument(1, "u32")];

  test("floats round after every operation", () => {
    const sum = compileScalar(s.multiply(s.add(x, y), s.f32(0.1)), 2);
    fc.assert(
      fc.property(single, single, (a, b) => Object.is(sum(a, b), Math.fround(Math.fround(a + b) * Math.fround(0.1)))),
    );
  });

  test("integers wrap", () => {
    expect(compileScalar(s.add(i, j), 2)(0x7fffffff, 1)).toBe(-0x80000000);
    expect(compileScalar(s.subtract(u, v), 2)(0, 1)).toBe(0xffffffff);
    expect(compileScalar(s.negate(i), 1)(-0x80000000)).toBe(-0x80000000);
    expect(compileScalar(s.not(u), 1)(0)).toBe(0xffffffff);
    expect(compileScalar(s.shiftRight(i, 1), 1)(-2)).toBe(-1);
    expect(compileScalar(s.shiftRight(u, 1), 1)(0xfffffffe)).toBe(0x7fffffff);
    const product = compileScalar(s.multiply(u, v), 2);
    fc.assert(fc.property(word, word, (a, b) => BigInt(product(a, b)) === BigInt.asUintN(32, BigInt(a) * BigInt(b))));
    const quotient = compileScalar(s.divide(i, j), 2);
    fc.assert(
      fc.property(int, int, (a, b) => b === 0 || BigInt(quotient(a, b)) === BigInt.asIntN(32, BigInt(a) / BigInt(b))),
    );
  });

  test("minimum and maximum give the second operand for NaN and for two zeros", () => {
    const [least, most] = [compileScalar(s.minimum(x, y), 2), compileScalar(s.maximum(x, y), 2)];
    for (const choose of [least, most]) {
      expect(choose(NaN, 1)).toBe(1);
      expect(choose(1, NaN)).toBeNaN();
      expect(choose(0, -0)).toBe(-0);
    }
    expect([least(1, 2), most(1, 2)]).toEqual([1, 2]);
  });

  test("comparisons, choices and changes of type", () => {
    expect(compileScalar(s.select(s.less(x, y), s.f32(1), s.f32(2)), 2)(1, 2)).toBe(1);
    expect(compileScalar(s.not(s.equal(x, y)), 2)(1, 2)).toBe(1);
    expect(compileScalar(s.and(s.less(x, 3), s.lessEqual(y, 2)), 2)(1, 2)).toBe(1);
    expect(compileScalar(s.convert("i32", x), 1)(-1.75)).toBe(-1);
    expect(compileScalar(s.convert("f32", u), 1)(0xffffffff)).toBe(2 ** 32);
    expect(compileScalar(s.bitcast("u32", x), 1)(-1)).toBe(0xbf800000);
    expect(compileScalar(s.bitcast("i32", x), 1)(-1)).toBe(0xbf800000 | 0);
    expect(compileScalar(s.bitcast("f32", u), 1)(0x40490fdb)).toBe(Math.fround(Math.PI));
  });
});

describe("rewriting", () => {
  const lane = s.argument(0, "i32");

  test("equal parts are one step", () => {
    const sum = s.add(s.multiply(lane, 3), s.multiply(lane, 3));
    expect(scalarSteps([sum, s.multiply(lane, 3)]).steps).toHaveLength(4);
  });

  test("substitution computes what becomes constant", () => {
    const expression = s.select(
      s.less(s.argument(1, "i32"), 4),
      s.add(lane, s.shiftLeft(s.argument(1, "i32"), 2)),
      lane,
    );
    expect(substituteArguments(expression, new Map([[1, s.i32(2)]]))).toEqual(s.add(lane, 8));
    expect(substituteArguments(expression, new Map([[1, s.i32(4)]]))).toEqual(lane);
    expect(substituteArguments(expression, new Map([[1, s.i32(0)]]))).toEqual(lane);
  });

  test("what does not change in a loop is hoisted once", () => {
    const scale = s.convert("f32", s.byte(0));
    const { invariants, bodies } = hoistInvariants([s.multiply(scale, s.convert("f32", lane)), scale], 0, 1);
    expect(invariants).toEqual([scale]);
    expect(bodies).toEqual([s.multiply(s.argument(1, "f32"), s.convert("f32", lane)), s.argument(1, "f32")]);
  });

  test("a template matches only its own form", () => {
    const template = s.add(s.multiply(lane, lane), 1);
    const inner = s.byte(7);
    const i = s.bitcast("i32", inner);
    expect(matchScalar(template, s.add(s.multiply(i, i), 1))).toBe(i);
    expect(matchScalar(template, s.add(s.multiply(i, s.bitcast("i32", s.byte(8))), 1))).toBeUndefined();
    expect(matchScalar(template, s.add(s.multiply(i, i), 2))).toBeUndefined();
    expect(rewriteScalar(s.negate(i), (part) => (part === i ? lane : undefined))).toEqual(s.negate(lane));
  });
});
