import { it } from "vitest";
import { Graph, reachable } from "../../ir/node.js";
import { leaf, leafOp } from "../../ops/leaves.js";
import { add, cast, divide, exp, multiply, sigmoid, sqrt, subtract } from "../../ops/arithmetic.js";
import { pad, reduceSum, reshape, slice, permute } from "../../ops/layout.js";
import { reduceMaximum, reduceMean } from "../../ops/reduce.js";
import { gradients } from "../../autodiff/gradients.js";
import { randomBits, uniformFrom } from "../../ops/random.js";
import { CompiledLoops } from "./testing/loops.js";
import { bytesMoved } from "../loops/cost.js";
import { elements } from "../../ir/shape.js";
import { sizeOf } from "../../ir/dtype.js";
const g0 = () => { const g = new Graph(); return (name: string, shape: number[], dtype: any = "f32") => leaf(g, { name, role: "input", shape, dtype }); };
it("bench", () => {
  const ks: [string, any[]][] = [];
  const add1 = (n: string, f: (i: any) => any[]) => ks.push([n, f(g0())]);
  for (const big of [1, 16]) {
    const R = 1024 * big;
    add1(`rms ${R}x576`, (i) => { const x = i("x", [R, 576]); return [multiply(multiply(x, divide(1, sqrt(add(reduceMean(multiply(x, x), [1]), 1e-5)))), i("w", [576]))]; });
    add1(`rms bf16 ${R}x576`, (i) => { const x = cast(i("x", [R, 576], "bf16"), "f32"); return [cast(multiply(multiply(x, divide(1, sqrt(add(reduceMean(multiply(x, x), [1]), 1e-5)))), i("w", [576])), "bf16")]; });
    add1(`rmsbwd ${R}x576`, (i) => { const x = i("x", [R, 576]); const y = multiply(multiply(x, divide(1, sqrt(add(reduceMean(multiply(x, x), [1]), 1e-5)))), i("w", [576]));
      const dy = i("dy", [R, 576]); return gradients(reshape(reduceSum(multiply(y, dy), [0, 1]), []), [x]); });
    add1(`colsum ${R}x576`, (i) => [reshape(reduceSum(i("x", [R, 576]), [0]), [576])]);
    add1(`add ${R}x576`, (i) => [add(i("x", [R, 576]), i("y", [R, 576]))]);
    add1(`swiglu ${R}x1536 bf16`, (i) => { const a = cast(i("x", [R, 1536], "bf16"), "f32"); return [cast(multiply(multiply(a, sigmoid(a)), cast(i("y", [R, 1536], "bf16"), "f32")), "bf16")]; });
    add1(`softmax ${R}x576`, (i) => { const x = i("x", [R, 576]); const e = exp(subtract(x, reduceMaximum(x, [1]))); return [divide(e, reduceSum(e, [1]))]; });
    add1(`rope ${R}x576`, (i) => { const x = i("x", [4, R / 4, 576]); const T = R / 4; const s4 = reshape(x, [4, T, 9, 64]);
      const part = (st: number) => slice(s4, [0, 0, 0, st], [4, T, 9, 32]); const c = reshape(i("c", [T, 32]), [1, T, 1, 32]), s = reshape(i("s", [T, 32]), [1, T, 1, 32]);
      const lo = subtract(multiply(part(0), c), multiply(part(32), s)), hi = add(multiply(part(32), c), multiply(part(0), s));
      return [reshape(add(pad(lo, [0, 0, 0, 0], [0, 0, 0, 32]), pad(hi, [0, 0, 0, 32], [0, 0, 0, 0])), [4, T, 576])]; });
    add1(`transpose ${R}x576`, (i) => [permute(i("x", [R, 576]), [1, 0])]);
    add1(`sumsq ${R * 576}`, (i) => { const x = i("x", [R * 576]); return [reduceSum(multiply(x, x), [0])]; });
    add1(`adamw ${R * 576}`, (i) => { const sh = [R * 576]; const p = i("p", sh), g = i("g", sh), m = i("m", sh), v = i("v", sh);
      const m2 = add(multiply(m, 0.9), multiply(g, 0.1)), v2 = add(multiply(v, 0.99), multiply(multiply(g, g), 0.01));
      return [subtract(multiply(p, 0.999), multiply(divide(m2, add(sqrt(v2), 1e-8)), i("lr", []))), m2, v2]; });
    add1(`uniform ${R * 576}`, (i) => [uniformFrom(randomBits({ low: i("l", [], "u32"), high: i("h", [], "u32") }, 1, i("s", [], "u32"), [R * 576]))]);
  }
  const kernels = ks.map(([, outputs]) => ({ outputs, inputs: reachable(outputs).filter((n) => n.op === leafOp) }));
  const compiled = new CompiledLoops(kernels);
  ks.forEach(([name], index) => {
    const bytes = kernels[index]!.inputs.map((n) => new Uint8Array(elements(n.shape) * sizeOf(n.dtype)).fill(61));
    const small = !/^\w+ ?\w* 16384|94371/.test(name);
    const t = [1, 2].map((threads) => compiled.run(index, bytes, { threads, repeats: small ? 50 : 8 }).seconds);
    const moved = bytesMoved(compiled.nests[index]!);
    console.log(name.padEnd(28), (moved / 1e6).toFixed(1).padStart(8), "MB", t.map((x) => `${(x * 1e6).toFixed(0).padStart(7)} us ${(moved / x / 1e9).toFixed(1).padStart(6)} GB/s`).join("   "));
  });
});
