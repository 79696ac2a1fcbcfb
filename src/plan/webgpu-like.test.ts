import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { nodesOf } from "../ir/program.js";
import type { Program } from "../ir/program.js";
import type { ModelDefinition } from "../models/types.js";
import { composeMethods } from "../methods/compose.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { makeOptimizer } from "../optim/registry.js";
import type { TrainingOptions } from "../step/build.js";
import { buildEvaluation, buildTraining } from "../step/build.js";
import { buildDecode } from "../step/decode.js";
import { kernelKey } from "../passes/kernel-key.js";
import { compileProgram } from "../passes/pipeline.js";
import type { SavedPolicy } from "../passes/saved.js";
import { executePlan, interpretFacts } from "../targets/interpret/execute.js";
import { tensorFromBytes, tensorToBytes } from "../targets/interpret/memory.js";
import { plausibleValue, sequence, tinyLlama } from "../testing/tiny.js";
import { checkBindings, ShardedMemory, webgpuLikeFacts, webgpuLimits } from "../testing/webgpu-like.js";
import type { PersistentLayout, ProgramPlan, TargetFacts, TargetLimits } from "./plan.js";
import { layOutLeaves, planProgram } from "./plan.js";
import { reportPrograms } from "./report.js";

type Activation = "f32" | "bf16";

function options(definition: ModelDefinition, method: string, activation: Activation): TrainingOptions {
  return {
    definition,
    methods: composeMethods([{ id: method, settings: {} }], definition),
    batch: 2,
    length: 6,
    activation,
    storedFormat: () => activation,
    optimizer: makeOptimizer({ states: activation }),
    clip: undefined,
    accumulate: 1,
    segments: true,
  };
}

interface Planned {
  readonly leaves: readonly Node[];
  readonly layout: PersistentLayout;
  readonly plan: ProgramPlan;
}

function planFor(source: Program, facts: TargetFacts, saved: SavedPolicy): Planned {
  const { program, schedule } = compileProgram(source, { saved, target: facts });
  const leaves = nodesOf(program).filter((node) => node.op === leafOp);
  const layout = layOutLeaves(leaves, facts.alignment, facts.limits);
  const outputs = must(program.phases[0], "phase").outputs;
  return { leaves, layout, plan: planProgram("step", schedule, outputs, program.gradients, layout, facts) };
}

/** Everything that a step leaves behind: each leaf's value and each output's, by name. */
function run({ leaves, layout, plan }: Planned): Map<string, Uint8Array> {
  const memory = new ShardedMemory(plan.shards);
  const next = sequence(1);
  const place = (leaf: Node): Uint8Array =>
    memory.of(must(layout.buffers.get(leafAttributes(leaf).name), leafAttributes(leaf).name));
  const byName = leaves.toSorted((a, b) => (leafAttributes(a).name < leafAttributes(b).name ? -1 : 1));
  for (const leaf of byName) tensorToBytes(plausibleValue(leaf, 33, 6, next), place(leaf));
  executePlan(plan, memory.bytes, { poison: true });
  const bits = (node: Node, bytes: Uint8Array): Uint8Array =>
    new Uint8Array(Float64Array.from(tensorFromBytes(node, bytes).data).buffer);
  const results = new Map(byName.map((leaf) => [leafAttributes(leaf).name, bits(leaf, place(leaf))]));
  for (const [name, { buffer, node }] of plan.outputs) results.set(`output ${name}`, bits(node, memory.of(buffer)));
  return results;
}

const tight: TargetLimits = { largestShard: 64 * 1024, largestBinding: 16 * 1024, bindings: 5 };
const tighter: TargetLimits = { largestShard: 8 * 1024, largestBinding: 8 * 1024, bindings: 4 };

const cases = ["lora", "full"].flatMap((method) =>
  (["all", "cheap", "block"] as const).flatMap((saved) =>
    (["f32", "bf16"] as const).map((activation) => ({ method, saved, activation })),
  ),
);

describe("a target with WebGPU's limits", () => {
  test.each(cases)("computes $method with saved values '$saved' in $activation to the bit", (entry) => {
    const { method, saved, activation } = entry;
    const source = (): Program => must(buildTraining(options(tinyLlama(), method, activation)).programs[0], "program");
    const expected = run(planFor(source(), interpretFacts, saved));
    expect(expected.size).toBeGreaterThan(20);
    for (const limits of [webgpuLimits, tight, tighter]) {
      const facts = webgpuLikeFacts(limits);
      const planned = planFor(source(), facts, saved);
      expect(checkBindings(planned.plan, facts)).toEqual([]);
      const actual = run(planned);
      for (const [name, bits] of expected) expect(actual.get(name), name).toEqual(bits);
    }
  });

  test.each(["lora", "full"])("of which there are none, nothing changes (%s)", (method) => {
    const source = must(buildTraining(options(tinyLlama(), method, "bf16")).programs[0], "program");
    const keys = (target: TargetFacts | undefined): string[] =>
      compileProgram(source, { saved: "cheap", ...(target === undefined ? {} : { target }) }).schedule.steps.map(
        ({ kernel }) => kernelKey(kernel),
      );
    expect(keys(interpretFacts)).toEqual(keys(undefined));
    expect(keys(webgpuLikeFacts(tight)).length).toBeGreaterThan(keys(undefined).length);
  });

  test("spreads over several shards where one is too small, and over no more than it needs", () => {
    const source = must(buildTraining(options(tinyLlama(), "full", "f32")).programs[0], "program");
    const facts = webgpuLikeFacts(tight);
    const { plan, layout } = planFor(source, facts, "cheap");
    const report = reportPrograms([plan], layout, []);
    expect(report.shards).toEqual(plan.shards);
    expect(report.planBytes).toBe(layout.bytes + plan.extent);
    expect(Object.values(report.composition).reduce((a, b) => a + b)).toBe(report.planBytes);
    expect(plan.shards.length).toBeGreaterThan(1);
    expect(plan.shards.length).toBeLessThanOrEqual(Math.ceil(report.planBytes / tight.largestShard) + 1);
  });

  test.each(["evaluate", "decode"])("plans the program to %s", (name) => {
    const all = options(tinyLlama(), "lora", "bf16");
    const source = name === "decode" ? buildDecode({ ...all, tokens: 3, capacity: 16 }) : buildEvaluation(all);
    for (const limits of [webgpuLimits, tight]) {
      const facts = webgpuLikeFacts(limits);
      expect(checkBindings(planFor(source, facts, "all").plan, facts)).toEqual([]);
    }
  });

  test("refuses a tensor that no kernel could reach in one piece, by name and size", () => {
    const source = must(buildTraining(options(tinyLlama({ vocab_size: 600 }), "lora", "f32")).programs[0], "program");
    expect(() => planFor(source, webgpuLikeFacts(tight), "all")).toThrow(
      expect.objectContaining({ code: "plan-binding-limit", where: "model.embed_tokens.weight", given: "38400 bytes" }),
    );
  });

  test("refuses limits that no kernel can live with", () => {
    const source = must(buildTraining(options(tinyLlama(), "lora", "f32")).programs[0], "program");
    expect(() => planFor(source, webgpuLikeFacts({ ...tight, bindings: 2 }), "all")).toThrow(
      expect.objectContaining({ code: "plan-binding-count" }),
    );
  });
});

describe("the checker of bindings", () => {
  const facts = webgpuLikeFacts(tight);
  const source = must(buildTraining(options(tinyLlama(), "full", "f32")).programs[0], "program");
  const { plan } = planFor(source, facts, "all");

  test("finds a plan made without the limits", () => {
    const free = planFor(source, interpretFacts, "all").plan;
    const faults = checkBindings(free, facts).join("\n");
    expect(faults).toMatch(/bindings/);
    expect(faults).toMatch(/not aligned/);
    expect(faults).toMatch(/shard 0 has/);
  });

  test("finds outputs that are moved onto inputs, off alignment, or out of their shard", () => {
    const index = plan.steps.findIndex(({ step }) => step.kernel.kind === "contraction");
    const step = must(plan.steps[index], "step");
    const [input, output] = [must(step.inputs[0], "input"), must(step.outputs[0], "output")];
    const moved = (change: Partial<typeof output>): string => {
      const steps = plan.steps.with(index, { ...step, outputs: [{ ...output, ...change }] });
      return checkBindings({ ...plan, steps }, facts).join("\n");
    };
    expect(moved({})).toBe("");
    expect(moved({ shard: input.shard, offset: input.offset })).toMatch(/overwrites/);
    expect(moved({ offset: output.offset + 64 })).toMatch(/not aligned/);
    expect(moved({ offset: 64 * 1024 })).toMatch(/leaves its shard/);
    expect(moved({ bytes: 32 * 1024 })).toMatch(/too large/);
  });
});

describe("real sizes within WebGPU's limits", () => {
  const facts = webgpuLikeFacts();
  const llama = (config: Readonly<Record<string, unknown>>): ModelDefinition =>
    fromHuggingFaceConfig({
      model_type: "llama",
      architectures: ["LlamaForCausalLM"],
      rms_norm_eps: 1e-5,
      rope_theta: 100000,
      max_position_embeddings: 8192,
      hidden_act: "silu",
      ...config,
    });
  const smol = llama({
    vocab_size: 49152,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    tie_word_embeddings: true,
  });

  test.each(["lora", "full"])("SmolLM2-135M, %s in f32", (method) => {
    const all = { ...options(smol, method, "f32"), batch: 4, length: 256 };
    const { plan, layout } = planFor(must(buildTraining(all).programs[0], "program"), facts, "cheap");
    expect(checkBindings(plan, facts)).toEqual([]);
    const total = layout.bytes + plan.extent;
    expect(plan.shards.length).toBeLessThanOrEqual(Math.ceil(total / webgpuLimits.largestShard) + 1);
    expect(plan.extent).toBeLessThan(plan.bound * 1.1);
  });

  const llama3 = {
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    tie_word_embeddings: false,
  };
  const planned = (config: Readonly<Record<string, unknown>>): Planned => {
    const all = { ...options(llama(config), "lora", "bf16"), batch: 1, length: 512 };
    return planFor(must(buildTraining(all).programs[0], "program"), facts, "block");
  };

  test("Llama-3-8B's tables of 128,256 rows are refused by name: they do not fit into one binding", () => {
    expect(() => planned({ ...llama3, vocab_size: 128256 })).toThrow(
      expect.objectContaining({
        code: "plan-binding-limit",
        where: "model.embed_tokens.weight",
        given: `${128256 * 4096 * 2} bytes`,
      }),
    );
  });

  test("Llama-3-8B with smaller tables, LoRA in bf16 over some sixty shards", () => {
    const { plan, layout } = planned({ ...llama3, vocab_size: 16384 });
    expect(checkBindings(plan, facts)).toEqual([]);
    expect(layout.bytes).toBeGreaterThan(13 * 2 ** 30);
    expect(plan.shards.length).toBeLessThanOrEqual(
      Math.ceil((layout.bytes + plan.extent) / webgpuLimits.largestShard) + 8,
    );
  });
});
