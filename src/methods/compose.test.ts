import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import { Graph } from "../ir/node.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import type { ModelDefinition } from "../models/types.js";
import { multiply } from "../ops/arithmetic.js";
import { leaf } from "../ops/leaves.js";
import { runSchema } from "../config/schema.js";
import { methodSelections } from "../config/selection.js";
import { toyModel } from "../testing/toy-model.js";
import type { MethodSelection } from "./compose.js";
import { composeMethods, decays, findMethod } from "./compose.js";
import { defineMethod } from "./define.js";
import { describeMethod } from "./describe.js";
import { methods } from "./registry.js";
import type { AdaptContext, Claim, Method } from "./types.js";

const model = toyModel();

/** A method that multiplies a linear layer's output by 2 and its input by `factor`. */
function scaling(id: string, factor: number, claims: readonly Claim[] = []): Method {
  return defineMethod({
    id,
    title: id,
    paper: "",
    year: 2024,
    summary: "Scales for the tests of composition.",
    reduces: [],
    fills: ["linear", "select"],
    config: z.strictObject({ block: z.int().default(0) }),
    resolve: (config) => ({
      id,
      config,
      claims,
      slots: {
        linear: (_context, _spec, x, next) => multiply(next(multiply(x, factor)), 2),
        select: (parameter) => parameter.block === config.block,
      },
      learningRate: factor,
      adapters: [],
    }),
  });
}

/** A real family's names, for the configurations of the READMEs. */
function llama(): ModelDefinition {
  return fromHuggingFaceConfig({
    model_type: "llama",
    vocab_size: 97,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-6,
  });
}

function failure(run: () => unknown): ThimbleError {
  try {
    run();
  } catch (error) {
    if (error instanceof ThimbleError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const select = (...ids: string[]): MethodSelection[] => ids.map((id) => ({ id, settings: {} }));

describe("composition", () => {
  test("wrappers chain in the order of the selection, the first next to the base", () => {
    const composed = composeMethods(select("three", "five"), model, [scaling("three", 3), scaling("five", 5)]);
    const graph = new Graph();
    const x = leaf(graph, { name: "x", role: "input", shape: [1], dtype: "f32" });
    const seen: Node[] = [];
    const context = { graph } as AdaptContext;
    const y = composed.linear(context, must(model.linears[0], "layer"), x, (value) => {
      seen.push(value);
      return value;
    });
    const inner = multiply(multiply(x, 5), 3);
    expect(seen).toEqual([inner]);
    expect(y).toBe(multiply(multiply(inner, 2), 2));
  });

  test("trained sets unite; the lowest suggested rate is taken", () => {
    const known = [scaling("three", 3), scaling("five", 5)];
    const selection = [
      { id: "five", settings: { block: 1 } },
      { id: "three", settings: {} },
    ];
    const composed = composeMethods(selection, model, known);
    const trained = model.parameters.filter((parameter) => composed.trains(parameter)).map(({ block }) => block);
    expect(new Set(trained)).toEqual(new Set([0, 1]));
    expect(composed.learningRate).toBe(3);
    expect(composed.saves).toBe("adapter");
  });

  test("LoRA alone: no preparation, an adapter, PEFT's form", () => {
    const composed = composeMethods(select("lora"), model);
    expect(composed).toMatchObject({ prepares: false, saves: "adapter", learningRate: 2e-4 });
    expect(composed.peft).toBeDefined();
    expect(composed.adapters).toHaveLength(8);
    expect(model.parameters.some((parameter) => composed.trains(parameter))).toBe(false);
  });
});

describe("refusals", () => {
  test("two exclusive claims on one resource name both methods and both reasons", () => {
    const error = failure(() => composeMethods(select("full", "lora"), model));
    expect(error.code).toBe("methods-conflict");
    expect(error.message).toBe("full and lora do not go together");
    expect(error.given).toMatch(/full needs the base weights for itself because it trains all of them/);
    expect(error.given).toMatch(/lora does because it trains a correction of weights that stay as they are/);
    expect(error.expected).toContain("model.layers.0.self_attn.q_proj.weight");
  });

  test.each([
    [[true, ["a"]], [true, ["b"]], false],
    [[true, ["a", "b"]], [true, ["b"]], true],
    [[true, undefined], [true, ["b"]], true],
    [[true, undefined], [false, undefined], false],
    [[false, ["a"]], [false, ["a"]], false],
  ] as const)("claims %j and %j conflict: %s", (first, second, conflict) => {
    const claim = ([exclusive, tensors]: readonly [boolean, readonly string[] | undefined]): Claim => ({
      resource: "gradients",
      exclusive,
      reason: "tests",
      ...(tensors === undefined ? {} : { tensors }),
    });
    const known = [scaling("one", 1, [claim(first)]), scaling("two", 2, [claim(second)])];
    const run = (): unknown => composeMethods(select("one", "two"), model, known);
    if (conflict) expect(failure(run).code).toBe("methods-conflict");
    else expect(run()).toBeDefined();
  });

  test("claims on different resources never conflict", () => {
    const on = (resource: Claim["resource"]): Claim[] => [{ resource, exclusive: true, reason: "tests" }];
    const known = [scaling("one", 1, on("moments")), scaling("two", 2, on("estimator"))];
    expect(composeMethods(select("one", "two"), model, known).methods).toHaveLength(2);
  });

  test("unknown, repeated and absent methods, and unknown settings", () => {
    expect(failure(() => findMethod("loar"))).toMatchObject({ code: "method-unknown", fix: 'Did you mean "lora"?' });
    expect(failure(() => composeMethods(select("lora", "lora"), model)).code).toBe("methods-repeated");
    expect(failure(() => composeMethods([], model)).code).toBe("methods-none");
    const extra = [{ id: "full", settings: { rank: 3 } }];
    expect(failure(() => composeMethods(extra, model))).toMatchObject({
      code: "settings-unknown",
      where: "full.rank",
      expected: "no settings",
    });
  });
});

describe("description", () => {
  test("every method describes itself and its settings from its declaration", () => {
    expect(new Set(methods.map(({ id }) => id)).size).toBe(methods.length);
    const described = describeMethod(findMethod("lora"));
    expect(described).toMatchObject({ id: "lora", paper: "2106.09685", year: 2021 });
    const rows = new Map(described.settings.map((setting) => [setting.name, setting]));
    expect(rows.get("r")).toEqual({
      name: "r",
      type: "integer 1..65536",
      default: "16",
      description: "Rank of the correction",
    });
    expect(rows.get("dropout")?.type).toBe("number >= 0 and < 1");
    expect(rows.get("target_modules")?.type).toBe("string | list of string");
    expect(rows.get("rank_pattern")?.type).toBe("names with integer 1..65536");
    expect(rows.get("loraplus_ratio")).not.toHaveProperty("default");
    expect(JSON.parse(JSON.stringify(described))).toEqual(described);
  });

  test.each(methods.map(({ id }) => id))("the README of %s has settings that run", async (id) => {
    const readme = await readFile(new URL(`${id}/README.md`, import.meta.url), "utf8");
    const block = must(/```yaml\n([^`]*)```/.exec(readme)?.[1], "a configuration");
    const selection = methodSelections(runSchema.parse(parse(block)));
    expect(selection.map((entry) => entry.id)).toContain(id);
    expect(composeMethods(selection, llama()).methods).toHaveLength(selection.length);
  });

  test("decay spares norms and biases", () => {
    const kinds = model.parameters.filter(decays).map(({ kind }) => kind);
    expect(new Set(kinds)).toEqual(new Set(["embedding", "weight"]));
  });
});
