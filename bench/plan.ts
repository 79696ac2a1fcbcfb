/**
 * How long it takes to plan a training step, without weights: `npx tsx bench/plan.ts [repeats]`. Prints the CPU
 * seconds of the fastest of several runs, from a model's config to the place of every buffer.
 */
import { composeMethods } from "../src/methods/compose.js";
import { fromHuggingFaceConfig } from "../src/models/registry.js";
import type { ModelDefinition } from "../src/models/types.js";
import { makeOptimizer } from "../src/optim/registry.js";
import { planSession } from "../src/session/plan.js";
import type { SessionPlan } from "../src/session/plan.js";
import type { TargetFacts } from "../src/plan/plan.js";
import { cFacts } from "../src/targets/c/facts.js";
import { interpretFacts } from "../src/targets/interpret/execute.js";

const repeats = Number(process.argv[2] ?? 3);

function llama(
  vocabulary: number,
  width: number,
  inner: number,
  layers: number,
  heads: number,
  keyHeads: number,
): ModelDefinition {
  return fromHuggingFaceConfig({
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    vocab_size: vocabulary,
    hidden_size: width,
    intermediate_size: inner,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keyHeads,
    rms_norm_eps: 1e-5,
    rope_theta: 100000,
    max_position_embeddings: 8192,
    tie_word_embeddings: width < 1024,
    hidden_act: "silu",
  });
}

const models = {
  "135M": { definition: llama(49152, 576, 1536, 30, 9, 3), dtype: "f32", batch: 4, length: 256, saved: "cheap" },
  "8B": { definition: llama(128256, 4096, 14336, 32, 32, 8), dtype: "bf16", batch: 1, length: 512, saved: "block" },
  "70B": { definition: llama(128256, 8192, 28672, 80, 64, 8), dtype: "bf16", batch: 1, length: 512, saved: "block" },
} as const;

function plan(model: keyof typeof models, method: string, target: "c" | "interpret", facts: TargetFacts): SessionPlan {
  const { definition, dtype, batch, length, saved } = models[model];
  return planSession(
    {
      definition,
      storedFormat: () => dtype,
      methods: composeMethods([{ id: method, settings: {} }], definition),
      batch,
      length,
      accumulate: 1,
      dtype,
      optimizer: makeOptimizer({ states: "f32" }),
      clip: undefined,
      saved,
      segments: true,
      train: true,
      evaluate: false,
      decode: undefined,
      target,
      threads: 2,
      seed: 1,
    },
    facts,
  );
}

for (const [target, facts] of [
  ["interpret", interpretFacts],
  ["c", cFacts(2)],
] as const) {
  for (const model of ["135M", "8B", "70B"] as const) {
    for (const method of ["lora", "full"]) {
      let fastest = Infinity;
      let steps = 0;
      let bytes = 0;
      for (let repeat = 0; repeat < repeats; repeat++) {
        const before = process.cpuUsage();
        const { plans, report } = plan(model, method, target, facts);
        const { user, system } = process.cpuUsage(before);
        fastest = Math.min(fastest, (user + system) / 1e6);
        steps = plans[0]?.steps.length ?? 0;
        bytes = report.planBytes;
      }
      const size = `${String(steps).padStart(5)} steps  ${(bytes / 2 ** 30).toFixed(2).padStart(7)} GiB`;
      console.log(`${target.padEnd(9)}  ${model.padEnd(4)}  ${method}  ${size}  ${fastest.toFixed(2)} s`);
    }
  }
}
