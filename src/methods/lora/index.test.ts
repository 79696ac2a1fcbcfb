import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must, ThimbleError } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import { Graph } from "../../ir/node.js";
import type { Node } from "../../ir/node.js";
import type { Tensor } from "../../ir/tensor.js";
import { tensor } from "../../ir/tensor.js";
import { weightOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import { add, multiply } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { reduceSum, reshape } from "../../ops/layout.js";
import { leaf } from "../../ops/leaves.js";
import { evaluate } from "../../targets/interpret/evaluate.js";
import { largestDifference, MethodBench } from "../../testing/method-bench.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { toyModel } from "../../testing/toy-model.js";
import { composeMethods } from "../compose.js";
import { exactSvd } from "../linalg.js";
import { drawNormal } from "../initial.js";
import { methods } from "../registry.js";
import type { AdaptContext, ExportContext } from "../types.js";

const settings = { r: 2, alpha: 3 };
const lora = (more: Record<string, unknown> = {}): { id: string; settings: Record<string, unknown> } => ({
  id: "lora",
  settings: { ...settings, ...more },
});

checkMethodBattery({ title: "LoRA", selection: lora() });
checkMethodBattery({ title: "LoRA over transposed weights", selection: lora(), model: { transposed: true } });
checkMethodBattery({ title: "rsLoRA with dropout", selection: lora({ rslora: true, dropout: 0.3, init: "gaussian" }) });
checkMethodBattery({ title: "DoRA", selection: lora({ dora: true }) });
checkMethodBattery({
  title: "DoRA, no bias, dropout",
  selection: lora({ dora: true, dropout: 0.3 }),
  model: { bias: false },
});
checkMethodBattery({ title: "DoRA, transposed", selection: lora({ dora: true }), model: { transposed: true } });
checkMethodBattery({ title: "PiSSA", selection: lora({ init: "pissa" }), startTolerance: 1e-6 });
checkMethodBattery({
  title: "PiSSA, fast, transposed",
  selection: lora({ init: "pissa_niter_8" }),
  model: { transposed: true },
  startTolerance: 1e-6,
});

function codeOf(run: () => unknown): ThimbleError {
  try {
    run();
  } catch (error) {
    if (error instanceof ThimbleError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const model = toyModel();
const compose = (more: Record<string, unknown>): ReturnType<typeof composeMethods> =>
  composeMethods([lora(more)], model);
const names = (more: Record<string, unknown>): string[] => compose(more).adapters.map(({ name }) => name);

/** One linear layer under LoRA, and the same through the dense W + s B A. */
function oneLayer(dtype: "f32" | "bf16", more: Record<string, unknown>) {
  const spec: LinearSpec = {
    path: "l",
    role: "query",
    block: 0,
    inputs: 9,
    outputs: 8,
    bias: false,
    transposed: false,
  };
  const one = { ...model, linears: [spec], parameters: [weightOf(spec)] };
  const composed = composeMethods([lora({ r: 3, ...more })], one);
  const graph = new Graph();
  const values = new Map<Node, Tensor>();
  const make = (name: string, shape: readonly number[], type: "f32" | "bf16" = "f32"): Node => {
    const node = leaf(graph, { name, role: "weight", shape, dtype: type });
    values.set(node, tensor(shape, drawNormal(1, name, elements(shape)), type));
    return node;
  };
  const w = make("w", [8, 9], dtype);
  const x = make("x", [6, 9], dtype);
  const adapters = new Map<string, Node>();
  const context: AdaptContext = {
    graph,
    model: one,
    trainable: ({ name, shape }) => {
      const node = make(name, shape);
      adapters.set(name, node);
      return node;
    },
    fixed: ({ name, shape }) => make(name, shape),
    weight: () => w,
    bias: () => undefined,
    operand: (_spec, value) => value,
    uniform: () => {
      throw new Error("not in training");
    },
    dropout: (value) => value,
    scaled: (_spec, value) => value,
    moving: () => {
      throw new Error("nothing moves");
    },
    variant: "",
    probe: () => undefined,
    beside: () => {
      throw new Error("nothing is beside one layer");
    },
  };
  const y = composed.linear(context, spec, x, (value) => dot(value, w, { transposeB: true }));
  const a = must(adapters.get("l.lora_A.weight"), "A");
  const b = must(adapters.get("l.lora_B.weight"), "B");
  return { graph, w, x, a, b, y, values, make };
}

describe("the maths", () => {
  test("dA, dB and dX equal dense autograd of W + s B A to 1e-5", () => {
    const { w, x, a, b, y, values, make } = oneLayer("f32", {});
    const probe = make("probe", [6, 8]);
    const dense = dot(x, add(w, multiply(dot(b, a), 3 / 3)), { transposeB: true });
    const loss = (value: Node): Node => reshape(reduceSum(multiply(value, probe), [0, 1]), []);
    const ours = evaluate(gradients(loss(y), [a, b, x]), values);
    const theirs = evaluate(gradients(loss(dense), [a, b, x]), values);
    ours.forEach((made, index) => {
      const wanted = must(theirs[index], "dense gradient").data;
      const scale = Math.max(...wanted.map(Math.abs));
      expect(scale).toBeGreaterThan(0.1);
      expect(largestDifference(made.data, wanted) / scale).toBeLessThan(1e-5);
    });
  });

  test("products follow the type of the input, the result is f32", () => {
    const { y, values, x } = oneLayer("bf16", {});
    const products = y.graph.nodes.filter((node) => node.op.name === "dot");
    expect(products.every((node) => node.inputs.every((input) => input.dtype === "bf16"))).toBe(true);
    expect(y.dtype).toBe("f32");
    expect(x.dtype).toBe("bf16");
    expect(evaluate([y], values)[0]?.data.every(Number.isFinite)).toBe(true);
  });

  test("dropout takes bf16 inputs, and is absent outside training", async () => {
    const create = (training: boolean): Promise<MethodBench> =>
      MethodBench.create(model, [lora({ dropout: 0.5, dora: true })], { activation: "bf16", training });
    const [training, evaluation] = [(await create(true)).scramble(), (await create(false)).scramble()];
    const [dropped, whole] = [training.run([training.hidden])[0], evaluation.run([evaluation.hidden])[0]];
    expect(largestDifference(must(dropped, "a").data, must(whole, "b").data)).toBeGreaterThan(1e-2);
    expect(must(dropped, "a").data.every(Number.isFinite)).toBe(true);
    // DoRA multiplies by the base a second time only where dropout changes the input.
    const products = (bench: MethodBench): number => bench.graph.nodes.filter(({ op }) => op.name === "dot").length;
    expect(products(training)).toBe(products(evaluation) + 4);
  });

  test("rsLoRA divides alpha by the root of the rank", async () => {
    const plain = (await MethodBench.create(model, [lora({ r: 4, alpha: 8 })])).scramble();
    const rooted = (await MethodBench.create(model, [lora({ r: 4, alpha: 4, rslora: true })])).scramble();
    const [a, b] = [plain.run([plain.hidden])[0], rooted.run([rooted.hidden])[0]];
    expect(must(a, "a").data).toEqual(must(b, "b").data);
  });

  test("DoRA's cheap norm equals the dense one", async () => {
    const bench = (await MethodBench.create(model, [lora({ dora: true })])).scramble();
    const spec = must(model.linears[0], "layer");
    const values = (name: string): Float32Array => must(bench.values.get(name), name);
    const [a, b] = [values(`${spec.path}.lora_A.weight`), values(`${spec.path}.lora_B.weight`)];
    const weight = values(`${spec.path}.weight`);
    const norms = Array.from({ length: spec.outputs }, (_, row) => {
      const sums = Array.from({ length: spec.inputs }, (_, column) => {
        const low = (b[row * 2] ?? 0) * (a[column] ?? 0) + (b[row * 2 + 1] ?? 0) * (a[spec.inputs + column] ?? 0);
        return (weight[row * spec.inputs + column] ?? 0) + 1.5 * low;
      });
      return Math.hypot(...sums);
    });
    const held = [...bench.detached().values()].find(({ shape }) => shape[0] === spec.outputs);
    expect(largestDifference(must(held, "norm").data, norms)).toBeLessThan(1e-5);
  });

  test("LoRA+ gives B and the magnitudes the higher rate; magnitudes never decay", () => {
    const { adapters } = compose({ loraplus_ratio: 16, dora: true });
    expect(adapters.slice(0, 3).map(({ rateFactor, decay }) => [rateFactor, decay])).toEqual([
      [1, true],
      [16, true],
      [16, false],
    ]);
  });

  test("a 4096 x 4096 layer at rank 16 trains 131,072 values", () => {
    const spec: LinearSpec = { ...must(model.linears[0], "layer"), inputs: 4096, outputs: 4096 };
    const { adapters } = composeMethods([{ id: "lora", settings: {} }], { ...model, linears: [spec] });
    expect(adapters.reduce((sum, { shape }) => sum + elements(shape), 0)).toBe(131072);
  });

  test("start values: A within its bound or of its deviation, B zero", async () => {
    const uniform = await MethodBench.create(model, [lora({ r: 64 })]);
    const a = must(uniform.values.get("model.layers.0.self_attn.q_proj.lora_A.weight"), "A");
    const bound = 1 / Math.sqrt(6);
    expect(Math.max(...a.map(Math.abs))).toBeLessThanOrEqual(Math.fround(bound));
    expect(a.reduce((sum, value) => sum + value * value, 0) / a.length).toBeCloseTo((bound * bound) / 3, 2);
    expect(uniform.values.get("model.layers.0.self_attn.q_proj.lora_B.weight")?.every((value) => value === 0)).toBe(
      true,
    );
    const gaussian = await MethodBench.create(model, [lora({ r: 64, init: "gaussian" })]);
    const normal = must(gaussian.values.get("model.layers.0.self_attn.q_proj.lora_A.weight"), "A");
    const deviation = Math.sqrt(normal.reduce((sum, value) => sum + value * value, 0) / normal.length);
    expect(deviation * 64).toBeCloseTo(1, 1);
  });
});

describe("PiSSA", () => {
  test.each(["pissa", "pissa_niter_8"])(
    "%s: residual + s B A = W, and the adapter holds the leading part",
    async (init) => {
      const before = await MethodBench.create(model, [lora()]);
      const bench = await MethodBench.create(model, [lora({ init })]);
      for (const spec of model.linears) {
        const { name } = weightOf(spec);
        const whole = bench.composed.merge(spec, must(bench.values.get(name), name), bench.values);
        const original = must(before.values.get(name), name);
        expect(largestDifference(whole, original)).toBeLessThan(1e-5);
        // The residual lacks just the leading part: its singular values are the base's from the third on.
        const spectrum = (data: Float32Array): Float64Array =>
          exactSvd({ rows: spec.outputs, columns: spec.inputs, data }, 5).values;
        const rest = spectrum(must(bench.values.get(name), name));
        expect(largestDifference(rest, [...spectrum(original).slice(2), 0, 0])).toBeLessThan(1e-3);
      }
    },
  );

  test.each([false, true])(
    "the export of twice the rank gives trained outputs on the original base (rslora %s)",
    async (rslora) => {
      const pissa = lora({ init: "pissa_niter_8", rslora, rank_pattern: { down_proj: 3 } });
      const bench = (await MethodBench.create(model, [pissa])).scramble();
      const original = await MethodBench.create(model, [lora()]);
      const context: ExportContext = {
        seed: 1,
        read: (name) => Promise.resolve(must(original.values.get(name), name)),
      };
      const form = await must(bench.composed.peft, "form")(bench.values, context);
      expect(form.config).toMatchObject({ r: 4, lora_alpha: rslora ? 3 * Math.SQRT2 : 6, init_lora_weights: true });
      const again = await MethodBench.create(model, [
        lora({
          r: form.config["r"],
          alpha: form.config["lora_alpha"],
          rslora,
          rank_pattern: form.config["rank_pattern"],
        }),
      ]);
      for (const [name, { data }] of form.tensors) again.values.set(name, data);
      const [trained, reread] = [bench.run([bench.hidden])[0], again.run([again.hidden])[0]];
      expect(largestDifference(must(trained, "a").data, must(reread, "b").data)).toBeLessThan(1e-5);
    },
  );

  test("a quantised base is refused before any weight is read", async () => {
    const create = MethodBench.create(model, [lora({ init: "pissa" })], { format: "q4_0" });
    await expect(create).rejects.toMatchObject({ code: "lora-init", where: "lora.init" });
  });
});

describe("settings", () => {
  test("which layers: names, a regular expression, exclusions, layers", () => {
    expect(names({ target_modules: ["q_proj"] })).toHaveLength(4);
    expect(names({ target_modules: "model\\.layers\\.[01]\\.mlp\\..*" })).toEqual([
      "model.layers.0.mlp.down_proj.lora_A.weight",
      "model.layers.0.mlp.down_proj.lora_B.weight",
      "model.layers.1.mlp.down_proj.lora_A.weight",
      "model.layers.1.mlp.down_proj.lora_B.weight",
    ]);
    expect(names({ exclude_modules: ["mlp.down_proj"] })).toHaveLength(4);
    expect(names({ layers_to_transform: 1 })).toHaveLength(4);
    expect(names({ layers_to_transform: [1], target_modules: ["q_proj"] })).toHaveLength(2);
  });

  test("ranks and alphas of single layers", () => {
    const { adapters } = compose({ rank_pattern: { "layers.0.*q_proj": 5, q_proj: 7 } });
    expect(adapters.filter(({ name }) => name.includes("lora_A")).map(({ shape }) => shape[0])).toEqual([5, 2, 7, 2]);
  });

  test.each([
    [{ r: 0 }, "settings", "lora.r"],
    [{ dropout: 1 }, "settings", "lora.dropout"],
    [{ init: "pisa" }, "settings", "lora.init"],
    [{ bias: "all" }, "settings", "lora.bias"],
    [{ rank_pattern: { q_proj: 0 } }, "settings", "lora.rank_pattern.q_proj"],
    [{ lora_alpha: 8 }, "settings-unknown", "lora.lora_alpha"],
    [{ target_modules: ["q_prog"] }, "targets-none", "lora.target_modules"],
    [{ target_modules: ["q_proj", "v_proj"] }, "targets-none", "lora.target_modules"],
    [{ target_modules: ["q_proj"], exclude_modules: ["q_proj"] }, "targets-none", "lora.target_modules"],
    [{ target_modules: ".*q_proj", layers_to_transform: [0] }, "targets-layers", "lora.layers_to_transform"],
    [{ layers_to_transform: [0, 2] }, "targets-layers", "lora.layers_to_transform"],
    [{ target_modules: "(q_proj" }, "pattern", "lora.target_modules"],
    [{ rank_pattern: { "(?=q)": 3 } }, "pattern", "lora.rank_pattern.(?=q)"],
    [{ dora: true, init: "pissa" }, "lora-init", "lora.init"],
    [{ r: 6, init: "pissa" }, "lora-rank", "lora.r"],
  ])("refuses %j", (more, code, where) => {
    expect(codeOf(() => compose(more))).toMatchObject({ code, where });
  });

  test("an unknown key or name suggests the nearest", () => {
    expect(codeOf(() => compose({ lora_alpha: 8 })).fix).toBe('Did you mean "alpha"?');
    expect(codeOf(() => compose({ use_rslora: true })).fix).toBe('Did you mean "rslora"?');
    expect(codeOf(() => compose({ target_module: [] })).fix).toBe('Did you mean "target_modules"?');
    expect(codeOf(() => compose({ target_modules: ["q_prog"] })).fix).toBe('Did you mean "q_proj"?');
  });

  test("a pattern that would hang a backtracking engine does not", () => {
    expect(codeOf(() => compose({ target_modules: "(((a|[a-z._0-9])+)+)+!" })).code).toBe("targets-none");
  });

  test("a merge that is not finite is refused", async () => {
    const bench = (await MethodBench.create(model, [lora()])).scramble();
    const spec = must(model.linears[0], "layer");
    must(bench.values.get(`${spec.path}.lora_B.weight`), "B")[3] = Infinity;
    const weight = must(bench.values.get(weightOf(spec).name), "weight");
    expect(codeOf(() => bench.composed.merge(spec, weight, bench.values)).code).toBe("merge-not-finite");
    expect(methods.some(({ id }) => id === "lora")).toBe(true);
  });
});
