import { beforeAll, describe, expect, it } from "vitest";
import type { DType } from "../../ir/dtype.js";
import { isFloat } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import type { OpDefinition } from "../../ir/op.js";
import type { Tensor } from "../../ir/tensor.js";
import { tensor } from "../../ir/tensor.js";
import * as arithmetic from "../../ops/arithmetic.js";
import { erfOp } from "../../ops/erf.js";
import { leaf } from "../../ops/leaves.js";
import { evaluate } from "../interpret/evaluate.js";
import type { LoopKernel } from "../loops/nest.js";
import { CompiledLoops, noise } from "../../testing/c/loops.js";

const special = [0, -0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, Infinity, -Infinity, NaN, 1e-45, -1e-45, 1.1754942e-38];
const extreme = [3.4028235e38, -3.4028235e38, 88.7, -87.3, -103.9, -104.5, 89, 16777216, 0.9999999, 1.0000001, 1e-20];
const counts = [0, 1, 2, 3, 7, 31, 0x7fffffff, 0x12345678, 65535, 65536];

function floats(count: number): number[] {
  const wide = noise(count, 3).map((value, place) => value * 10 ** ((place % 9) - 4));
  return [...special, ...extreme, ...wide].slice(0, count);
}

/** Two lists of numbers of a type such that special values meet special values. */
function operands(dtype: DType, count: number): number[][] {
  const first = isFloat(dtype)
    ? floats(count)
    : noise(count, 5).map((value, place) => counts[place] ?? Math.floor(value * 2 ** 31));
  const shift = (by: number): number[] => first.map((_, place) => first[(place * by + by) % count] ?? 0);
  const truths = (by: number): number[] => noise(count, by).map((value) => (value > 0 ? 1 : 0));
  return dtype === "bool" ? [truths(1), truths(2), truths(3)] : [first, shift(7), shift(13)];
}

/** Steps between two f32 values. */
function ulps(a: number, b: number): number {
  if (Object.is(a, b) || (Number.isNaN(a) && Number.isNaN(b))) return 0;
  if (Number.isNaN(a) || Number.isNaN(b)) return Infinity;
  const order = (value: number): number => {
    const bits = new Int32Array(new Float32Array([value]).buffer)[0]!;
    return bits < 0 ? -(bits & 0x7fffffff) : bits;
  };
  return Math.abs(order(a) - order(b));
}

interface Case {
  readonly op: OpDefinition;
  readonly types: readonly DType[];
}

const all: readonly OpDefinition[] = [...Object.values(arithmetic), erfOp].filter(
  (value): value is OpDefinition => typeof value === "object" && value.lowering.kind === "elementwise",
);

/** Every op with every combination of operand types that its shape rule admits. */
function casesOf(op: OpDefinition): Case[] {
  const types: readonly DType[] = ["f32", "i32", "u32", "bool"];
  const lists = [1, 2, 3].flatMap((arity): (readonly DType[])[] =>
    arity === 3 ? types.map((type) => ["bool", type, type]) : types.map((type) => new Array<DType>(arity).fill(type)),
  );
  return lists.filter((list) => admits(op, list)).map((list) => ({ op, types: list }));
}

function admits(op: OpDefinition, types: readonly DType[]): boolean {
  const arity =
    { select: 3 }[op.name] ??
    (/^(add|subtract|multiply|divide|minimum|maximum|less|lessEqual|equal|and|or|xor|shiftLeft|shiftRight|multiplyHigh)$/.test(
      op.name,
    )
      ? 2
      : 1);
  if (types.length !== arity || op.name === "bitcast") return false;
  try {
    op.infer(
      types.map((dtype) => ({ dtype, shape: [1] })),
      {},
    );
    return true;
  } catch {
    return false;
  }
}

/**
 * Errors in units in the last place, or absolute; every other op is exact. Angles are tested to 10^4. The logistic
 * function is 0 where it is below the normal numbers; erf takes no NaN.
 */
const bounds: Readonly<Record<string, { readonly ulps: number; readonly absolute?: number }>> = {
  exp: { ulps: 2 },
  log: { ulps: 2 },
  sin: { ulps: 2, absolute: 2e-7 },
  cos: { ulps: 2, absolute: 2e-7 },
  tanh: { ulps: 4 },
  sigmoid: { ulps: 4, absolute: 1.2e-38 },
  erf: { ulps: 0, absolute: 2e-7 },
};
const count = 203;

describe("elementwise ops in generated loops", () => {
  const cases = all.flatMap(casesOf);
  const kernels: LoopKernel[] = [];
  const bindings: Map<Node, Tensor>[] = [];
  let compiled: CompiledLoops;

  beforeAll(() => {
    for (const { op, types } of cases) {
      const graph = new Graph();
      const inputs = types.map((dtype, place) =>
        leaf(graph, { name: `x${place}`, role: "input", shape: [count], dtype }),
      );
      const values = types.map((dtype, place) => {
        const list = operands(dtype, count)[types.length === 3 ? Math.max(0, place - 1) : place]!;
        const shift = op.name.startsWith("shift") && place === 1;
        const angle = op.name === "sin" || op.name === "cos";
        const finite = op.name === "erf";
        const limited = finite
          ? list.filter((x) => !Number.isNaN(x))
          : shift
            ? list.map((value) => value & 31)
            : angle
              ? list.filter((x) => Math.abs(x) < 1e4)
              : list;
        return tensor([count], limited, dtype);
      });
      kernels.push({ outputs: [graph.add(op, inputs)], inputs });
      bindings.push(new Map(inputs.map((node, place) => [node, values[place]!])));
    }
    compiled = new CompiledLoops(kernels);
  });

  it("covers every elementwise op", () => {
    expect(new Set(cases.map(({ op }) => op.name)).size).toBe(all.length - 1);
  });

  it.each(cases.map(({ op, types }, index) => [`${op.name}(${types.join(", ")})`, index] as const))(
    "%s",
    (_, index) => {
      const kernel = kernels[index]!;
      const inputs = bindings[index]!;
      const [expected] = evaluate(kernel.outputs, inputs);
      const [actual] = compiled.evaluate(index, inputs);
      const { ulps: bound, absolute = 0 } = bounds[cases[index]!.op.name] ?? { ulps: 0 };
      let worst = 0;
      expected!.data.forEach((value, place) => {
        const got = actual!.data[place]!;
        if (Math.abs(got - value) <= absolute) return;
        worst = Math.max(worst, isFloat(expected!.dtype) ? ulps(value, got) : value === got ? 0 : Infinity);
      });
      expect(worst).toBeLessThanOrEqual(bound);
    },
  );
});

describe("casts in generated loops", () => {
  const types: readonly DType[] = ["f32", "bf16", "f16", "i32", "u32", "u8", "bool"];
  const pairs = types.flatMap((from) => types.filter((to) => to !== from).map((to) => [from, to] as const));
  const graph = new Graph();
  const inputs = new Map(
    types.map((dtype) => [dtype, leaf(graph, { name: dtype, role: "input", shape: [77], dtype })]),
  );
  const kernels = pairs.map(([from, to]): LoopKernel => {
    const input = inputs.get(from)!;
    return { outputs: [arithmetic.cast(input, to)], inputs: [input] };
  });
  let compiled: CompiledLoops;

  beforeAll(() => {
    compiled = new CompiledLoops(kernels);
  });

  it.each(pairs.map(([from, to], index) => [from, to, index] as const))("%s to %s", (from, to, index) => {
    const input = inputs.get(from)!;
    // Floats beyond an integer type's range have no meaning there.
    const wide = isFloat(from) && isFloat(to);
    const numbers = noise(77, index).map((value, place) =>
      wide ? (floats(77)[place] ?? 0) : to === "bool" || from === "bool" ? place % 2 : Math.abs(value) * 120,
    );
    const bindings = new Map([[input, tensor([77], numbers, from)]]);
    const [expected] = evaluate(kernels[index]!.outputs, bindings);
    const [actual] = compiled.evaluate(index, bindings);
    expect(Array.from(actual!.data)).toEqual(Array.from(expected!.data));
  });
});
