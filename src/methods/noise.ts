import { must } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import type { OpDefinition } from "../ir/op.js";
import type { Shape } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { normalOp } from "../ops/normal.js";
import { randomBitsOp } from "../ops/random.js";

/** Where standard normal numbers come from: the arguments of `randomBits`, as numbers. */
export interface NoiseKey {
  readonly seed: number;
  readonly stream: number;
  readonly step: number;
  readonly use: number;
}

/** What `normalFrom(randomBits(...))` is in a program of that seed and step, to the bit, on the host. */
export function hostNormal({ seed, stream, step, use }: NoiseKey, shape: Shape): Float32Array {
  const words = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, step, stream];
  const scalars = words.map((word) => tensor([], [word], "u32"));
  const run = ({ evaluate }: OpDefinition, inputs: readonly Tensor[], attributes: object, dtype: DType): Tensor => {
    const results = must(evaluate, "meaning")(inputs, { ...attributes }, [{ shape, dtype }]);
    return must(results[0], "result");
  };
  const bits = run(randomBitsOp, scalars, { shape, use }, "u32");
  return Float32Array.from(run(normalOp, [bits], {}, "f32").data);
}
