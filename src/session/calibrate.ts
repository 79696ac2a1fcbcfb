import { z } from "zod";
import { composeMethods } from "../methods/compose.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import { makeOptimizer } from "../optim/registry.js";
import { bytesMoved, operations } from "../plan/cost.js";
import type { KernelClass, Rates } from "../plan/predict.js";
import { classOf, defaultRates, kernelClasses } from "../plan/predict.js";
import { sum } from "../plan/sum.js";
import { KernelCache } from "../runtime/kernel-cache.js";
import { cpuFacts } from "../runtime/platform.js";
import { openSession, planOnly } from "./open.js";
import type { SessionOptions } from "./types.js";

const ratesSchema = z.strictObject({
  operations: z.record(z.enum(kernelClasses), z.number().positive()),
  bandwidth: z.number().positive(),
  perKernel: z.number().min(0),
});

/** The rates that were measured on this machine before, if they were; nothing is compiled or run. */
export async function knownRates(threads: number): Promise<Rates | undefined> {
  try {
    return parse(await new KernelCache().remember(keyOf(threads), () => Promise.resolve(undefined)));
  } catch {
    return undefined;
  }
}

/** The rates of this machine, measured by a few training steps of a small model if they are not known yet. */
export async function measuredRates(threads: number): Promise<Rates | undefined> {
  const text = await new KernelCache().remember(keyOf(threads), async () => JSON.stringify(await probe(threads)));
  return parse(text);
}

function keyOf(threads: number): string {
  const { architecture, model, flags } = cpuFacts();
  return JSON.stringify(["rates", 1, threads, architecture, model, flags]);
}

function parse(text: string | undefined): Rates | undefined {
  if (text === undefined) return undefined;
  const parsed = ratesSchema.safeParse(JSON.parse(text));
  return parsed.success ? parsed.data : undefined;
}

/** Sizes at which kernels run at the rates of real models, and a step takes some hundredths of a second. */
function probeOptions(threads: number, dtype: "f32" | "bf16"): SessionOptions {
  const definition = fromHuggingFaceConfig({
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    vocab_size: 4096,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 1,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    rms_norm_eps: 1e-5,
    max_position_embeddings: 512,
    tie_word_embeddings: true,
    hidden_act: "silu",
  });
  return {
    definition,
    storedFormat: () => dtype,
    methods: composeMethods([{ id: "lora", settings: {} }], definition),
    batch: 2,
    length: 256,
    accumulate: 1,
    dtype,
    optimizer: makeOptimizer({}),
    clip: undefined,
    saved: "all",
    segments: false,
    train: true,
    evaluate: false,
    decode: undefined,
    target: "c",
    threads,
    seed: 0,
  };
}

const repeats = 4;

interface Sample {
  readonly kind: KernelClass;
  readonly operations: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** One step of the small model, each kernel at the fastest of its runs. All values are zero: no kernel's time depends on them. */
async function sample(options: SessionOptions): Promise<Sample[]> {
  const plan = planOnly(options);
  const session = await openSession(plan, { timed: true });
  try {
    for (const { name } of session.tensors) session.bytes(name).fill(0);
    const tokens = options.batch * options.length;
    const zeros = new Int32Array(tokens);
    const positions = zeros.map((_, index) => index % options.length);
    const weights = new Float32Array(tokens).fill(1);
    const batch = { ids: zeros, labels: zeros, weights, positions, segments: new Int32Array(0) };
    const fastest = plan.plans[0]?.steps.map(() => Infinity) ?? [];
    for (let step = 0; step < repeats; step++) {
      await session.step([batch], { rate: 0, step });
      const times = session.times("train");
      let entry = 0;
      plan.plans[0]?.steps.forEach(({ copies }, index) => {
        fastest[index] = Math.min(fastest[index] ?? Infinity, times[entry] ?? Infinity);
        entry += 1 + copies.length;
      });
    }
    return (plan.plans[0]?.steps ?? []).map(({ step: { kernel } }, index) => ({
      kind: classOf(kernel),
      operations: operations(kernel),
      bytes: bytesMoved(kernel),
      seconds: fastest[index] ?? Infinity,
    }));
  } finally {
    session.close();
  }
}

async function probe(threads: number): Promise<Rates> {
  const samples = [...(await sample(probeOptions(threads, "f32"))), ...(await sample(probeOptions(threads, "bf16")))];
  const common = defaultRates(threads);
  const streams = samples.filter(({ kind, bytes }) => kind === "loops" && bytes > 2 ** 20);
  const bandwidth = ratio(streams, ({ bytes }) => bytes) ?? common.bandwidth;
  const shortest = samples.reduce((least, { seconds }) => Math.min(least, seconds), Infinity);
  const perKernel = Number.isFinite(shortest) ? Math.min(shortest, 1e-4) : common.perKernel;
  const measured = kernelClasses.map((kind): [KernelClass, number] => {
    const own = samples.filter((one) => one.kind === kind);
    // What moving operands takes is counted apart, except for loops, which do both at once.
    const busy = own.map((one) => ({
      ...one,
      seconds: kind === "loops" ? one.seconds : Math.max(one.seconds / 2, one.seconds - one.bytes / bandwidth),
    }));
    return [kind, ratio(busy, (one) => one.operations) ?? common.operations[kind]];
  });
  return { operations: Object.fromEntries(measured) as Rates["operations"], bandwidth, perKernel };
}

function ratio(samples: readonly Sample[], amount: (one: Sample) => number): number | undefined {
  const seconds = sum(samples, (one) => one.seconds);
  const total = sum(samples, amount);
  return seconds > 0 && Number.isFinite(seconds) && total > 0 ? total / seconds : undefined;
}
