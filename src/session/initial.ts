import type { AdapterTensor, Initial } from "../methods/types.js";
import { elements } from "../ir/shape.js";

/** FNV-1a of a name: the stream of random bits that a tensor's start value is drawn from. */
export function streamOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < name.length; index++) hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}

/** High and low words of the product of two u32. */
function multiplyWide(a: number, b: number): [number, number] {
  const product = BigInt(a) * BigInt(b);
  return [Number(product >> 32n), Number(product & 0xffffffffn)];
}

/** Philox 4x32-10 (Salmon et al. 2011): four random u32 for a counter and a key, the same bits as `ops/random`. */
export function philox(counter: readonly [number, number, number, number], key: readonly [number, number]): number[] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiplyWide(0xd2511f53, c0);
    const [high1, low1] = multiplyWide(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** A seed as the two words of a Philox key. */
export function keyOf(seed: number): { low: number; high: number } {
  return { low: seed >>> 0, high: Math.floor(seed / 2 ** 32) >>> 0 };
}

/** Start value of a method's tensor: a pure function of the run's seed, the tensor's name and the element's index. */
export function initialValues(
  tensor: Pick<AdapterTensor, "name" | "shape">,
  initial: Initial,
  seed: number,
): Float32Array {
  const values = new Float32Array(elements(tensor.shape));
  if (initial.kind === "ones") return values.fill(1);
  if (initial.kind === "zeros" || initial.kind === "prepared") return values;
  const { low, high } = keyOf(seed);
  const stream = streamOf(tensor.name);
  for (let index = 0; index < values.length; index++) {
    const [first = 0, second = 0] = philox([index, 0, stream, 0x1717], [low, high]);
    values[index] =
      initial.kind === "uniform" ? (uniform(first) * 2 - 1) * initial.bound : normal(first, second) * initial.deviation;
  }
  return values;
}

/** Uniform in (0, 1), never an end. */
function uniform(word: number): number {
  return (word + 0.5) / 2 ** 32;
}

/** Box and Muller's transform. */
function normal(first: number, second: number): number {
  return Math.sqrt(-2 * Math.log(uniform(first))) * Math.cos(2 * Math.PI * uniform(second));
}
