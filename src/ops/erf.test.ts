import { expect, it } from "vitest";
import { compileScalar } from "../ir/scalar-javascript.js";
import { scalar } from "../ir/scalar.js";
import { erfOf, erfOp } from "./erf.js";

it("is the error function", () => {
  const known = [
    [0, 0],
    [1e-6, 1.1283791670951362e-6],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [2, 0.9953222650189527],
    [3.5, 0.9999992569016276],
    [7, 1],
  ] as const;
  for (const [x, value] of known) {
    expect(Math.abs(erfOf(x) - value)).toBeLessThan(1e-15);
    expect(erfOf(-x)).toBe(-erfOf(x));
  }
  expect(erfOf(NaN)).toBeNaN();
  expect(erfOf(-Infinity)).toBe(-1);
});

it("is within 2e-7 on every target", () => {
  if (erfOp.lowering.kind !== "elementwise") throw new Error("erf is element-wise");
  const compiled = compileScalar(erfOp.lowering.expression([scalar.argument(0, "f32")], {}), 1);
  let worst = 0;
  for (let step = -60_000; step <= 60_000; step++) {
    const x = Math.fround(step / 10_000);
    worst = Math.max(worst, Math.abs(compiled(x) - erfOf(x)));
  }
  expect(worst).toBeLessThan(2e-7);
  const tiny = Math.fround(1e-20);
  expect(Math.abs(compiled(tiny) / erfOf(tiny) - 1)).toBeLessThan(2e-7);
  expect(compiled(Infinity)).toBe(1);
  expect(compiled(-100)).toBe(-1);
});
