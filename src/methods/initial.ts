import { must, ThimbleError } from "../errors.js";
import { multiplyHigh } from "../ir/exact.js";
import { elements } from "../ir/shape.js";
import type { AdapterTensor } from "./types.js";

/**
 * Philox 4x32-10 on the host (Salmon et al., SC 2011): four random words of a counter and a key, written to `out`
 * from `at` on. The same function as `randomBits` in ops/random.ts, which returns the first of the four. In scalars
 * throughout: start values are millions of these.
 */
export function philox(counter: Uint32Array, low: number, high: number, out: Uint32Array, at = 0): void {
  let c0 = counter[0] ?? 0;
  let c1 = counter[1] ?? 0;
  let c2 = counter[2] ?? 0;
  let c3 = counter[3] ?? 0;
  let k0 = low;
  let k1 = high;
  for (let round = 0; round < 10; round++) {
    const first = multiplyHigh(c2, 0xcd9e8d57) ^ c1 ^ k0;
    const third = multiplyHigh(c0, 0xd2511f53) ^ c3 ^ k1;
    c1 = Math.imul(c2, 0xcd9e8d57);
    c3 = Math.imul(c0, 0xd2511f53);
    c0 = first;
    c2 = third;
    k0 = (k0 + 0x9e3779b9) | 0;
    k1 = (k1 + 0xbb67ae85) | 0;
  }
  out[at] = c0;
  out[at + 1] = c1;
  out[at + 2] = c2;
  out[at + 3] = c3;
}

/** FNV-1a of a name, 32 bits, from a given basis. */
function hash(name: string, basis: number): number {
  let value = basis;
  for (const character of new TextEncoder().encode(name)) value = Math.imul(value ^ character, 0x01000193);
  return value >>> 0;
}

/** A stream of random words that depends on the run's seed and a name alone. */
function words(seed: number, name: string, count: number): Uint32Array {
  const low = hash(name, 0x811c9dc5);
  // The last counter word of the step's own draws is 0; an odd one here keeps the two apart.
  const high = hash(name, 0x2166f5b7) | 1;
  // Writes past the end of a typed array are dropped, so the last four words need no special case.
  const drawn = new Uint32Array(count);
  const counter = new Uint32Array([0, 0, low, high]);
  for (let place = 0; place < count; place += 4) {
    counter[0] = place / 4;
    philox(counter, seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, drawn, place);
  }
  return drawn;
}

/** Uniform in (0, 1), never an end. */
export function drawUniform(seed: number, name: string, count: number): Float64Array {
  const bits = words(seed, name, count);
  const values = new Float64Array(count);
  for (let place = 0; place < count; place++) values[place] = ((bits[place] ?? 0) + 0.5) * 2 ** -32;
  return values;
}

/** `count` different numbers below `total`, uniformly without replacement, in the order in which they are drawn. */
export function drawDistinct(seed: number, name: string, count: number, total: number): number[] {
  const all = Array.from({ length: total }, (_, number) => number);
  const draws = drawUniform(seed, name, count);
  for (let place = 0; place < count; place++) {
    const other = place + Math.floor((draws[place] ?? 0) * (total - place));
    [all[place], all[other]] = [all[other] ?? 0, all[place] ?? 0];
  }
  return all.slice(0, count);
}

/**
 * So many different places of `weights` > 0 as there are numbers in `draws`, each in (0, 1): one after the other, in
 * proportion to their weights among those that are left. In the order in which they are drawn.
 */
export function drawWeighted(weights: readonly number[], draws: Float64Array): number[] {
  const left = weights.map((_, place) => place);
  return Array.from(draws, (draw) => {
    let rest = draw * left.reduce((sum, place) => sum + (weights[place] ?? 0), 0);
    const found = left.findIndex((place) => (rest -= weights[place] ?? 0) < 0);
    // Rounding may leave a rest behind the last of them.
    const [drawn] = left.splice(found, 1);
    return must(drawn, "a place that is left");
  });
}

/**
 * `count` different numbers below `total`, every set of them alike, ascending; in memory for `count` numbers alone
 * (Floyd's algorithm: Bentley and Floyd, CACM 30(9), 1987).
 */
export function drawSubset(seed: number, name: string, count: number, total: number): Int32Array<ArrayBuffer> {
  const draws = drawUniform(seed, name, count);
  const drawn = new Set<number>();
  for (let place = 0; place < count; place++) {
    const last = total - count + place;
    const one = Math.floor((draws[place] ?? 0) * (last + 1));
    drawn.add(drawn.has(one) ? last : one);
  }
  return Int32Array.from(drawn).sort();
}

/** Standard normal, by the inverse distribution function. */
export function drawNormal(seed: number, name: string, count: number): Float64Array {
  return drawUniform(seed, name, count).map(inverseNormal);
}

/** The start value of a new tensor. `prepared` ones are the method's to give. */
export function initialValues(tensor: AdapterTensor, seed: number): Float32Array {
  const { initial, name, shape } = tensor;
  const count = elements(shape);
  switch (initial.kind) {
    case "zeros":
      return new Float32Array(count);
    case "ones":
      return new Float32Array(count).fill(1);
    case "uniform":
      return new Float32Array(drawUniform(seed, name, count).map((value) => (2 * value - 1) * initial.bound));
    case "normal":
      return new Float32Array(drawNormal(seed, name, count).map((value) => value * initial.deviation));
    case "prepared":
      throw new ThimbleError("tensor-unprepared", `${name} was given no start value`, {
        fix: "Run the methods' preparation first.",
      });
  }
}

function polynomial(x: number, coefficients: readonly number[]): number {
  let sum = 0;
  for (let power = coefficients.length - 1; power >= 0; power--) sum = sum * x + (coefficients[power] ?? 0);
  return sum;
}

const centre = {
  over: [
    3.387132872796366608, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125, 45921.953931549871457,
    67265.770927008700853, 33430.575583588128105, 2509.0809287301226727,
  ],
  under: [
    1, 42.313330701600911252, 687.1870074920579083, 5394.1960214247511077, 21213.794301586595867, 39307.89580009271061,
    28729.085735721942674, 5226.495278852545925,
  ],
};
const near = {
  over: [
    1.42343711074968357734, 4.6303378461565452959, 5.7694972214606914055, 3.64784832476320460504,
    1.27045825245236838258, 0.24178072517745061177, 0.0227238449892691845833, 7.7454501427834140764e-4,
  ],
  under: [
    1, 2.05319162663775882187, 1.6763848301838038494, 0.68976733498510000455, 0.14810397642748007459,
    0.0151986665636164571966, 5.475938084995344946e-4, 1.05075007164441684324e-9,
  ],
};
const far = {
  over: [
    6.6579046435011037772, 5.4637849111641143699, 1.7848265399172913358, 0.29656057182850489123,
    0.026532189526576123093, 0.0012426609473880784386, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
  ],
  under: [
    1, 0.59983220655588793769, 0.13692988092273580531, 0.0148753612908506148525, 7.868691311456132591e-4,
    1.8463183175100546818e-5, 1.4215117583164458887e-7, 2.04426310338993978564e-15,
  ],
};

/** The quantile of the standard normal, to about 1e-16 relative (Wichura, algorithm AS 241, PPND16). */
export function inverseNormal(probability: number): number {
  const q = probability - 0.5;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return (q * polynomial(r, centre.over)) / polynomial(r, centre.under);
  }
  const r = Math.sqrt(-Math.log(q < 0 ? probability : 1 - probability));
  const tail = r <= 5 ? near : far;
  const shifted = r <= 5 ? r - 1.6 : r - 5;
  const size = polynomial(shifted, tail.over) / polynomial(shifted, tail.under);
  return q < 0 ? -size : size;
}
