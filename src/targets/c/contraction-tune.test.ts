import { expect, it } from "vitest";
import { Kernels, nativeFlags } from "../../testing/c/harness.js";
import { product } from "../../testing/c/product.js";
import { storeEpilogue } from "./contraction-epilogue.js";
import {
  blockCandidates,
  chooseTuning,
  defaultTuning,
  parseTuning,
  tuningSource,
  tuningText,
} from "./contraction-tune.js";
import { renderContraction, type ContractionSpec } from "./contraction.js";

it("keeps the default unless a candidate is clearly faster", () => {
  const at = (...seconds: number[]): number => blockCandidates.indexOf(chooseTuning(seconds).block);
  expect(at(1, 0.97, 0.99, 1.2)).toBe(0);
  expect(at(1, 0.9, 0.8, 0.85)).toBe(2);
  expect(at()).toBe(0);
});

it("writes tunings that it reads back, and reads nothing else", () => {
  for (const block of blockCandidates) expect(parseTuning(tuningText({ block }))).toEqual({ block });
  for (const text of ["", "block 1", "block 49152 ", "49152"]) expect(parseTuning(text)).toBeUndefined();
  expect(tuningSource(defaultTuning)).toBe("");
});

it("gives the same bits within the same workspace whatever the block", () => {
  const side = (transposed: boolean): ContractionSpec["segments"][number]["a"] => ({ dtype: "f32", transposed });
  const specs = [side(false), side(true)].map((a): ContractionSpec => ({
    segments: [
      { a, b: side(false) },
      { a: side(false), b: side(true) },
    ],
    compute: "f32",
    epilogue: storeEpilogue("f32"),
  }));
  const kernels = [Math.max(...blockCandidates), Math.min(...blockCandidates)].map(
    (block) =>
      new Kernels(
        specs.map((spec) => renderContraction(spec).source),
        [...nativeFlags, `-DTHIMBLE_BLOCK=${block}`],
      ),
  );
  for (const spec of specs) {
    const { name } = renderContraction(spec);
    const one = product(spec, { rows: 31, columns: 530, depths: [2309, 40] }, 4, 0);
    const results = kernels.map((kernel) => Buffer.from(one.run(kernel, name, 2)));
    for (const result of results) expect(result.equals(results[0]!)).toBe(true);
    one.free();
  }
});
