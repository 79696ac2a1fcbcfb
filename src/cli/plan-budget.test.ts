import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { processBytes } from "../session/overhead.js";
import { run } from "./testing/run.js";

const config = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  vocab_size: 64,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 64,
  tie_word_embeddings: true,
  hidden_act: "silu",
};

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-budget-"));
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const plan = (...more: string[]): ReturnType<typeof run> =>
  run(["plan", "--model", `file:${folder}`, "--batch", "1", "--seq", "64", ...more]);

interface Planned {
  readonly peak: { readonly planBytes: number };
  readonly decisions: readonly { what: string; savedBytes: number; seconds: number; exact: boolean }[];
  readonly predictedStepSeconds: number;
  readonly processBytes: number;
}

const planned = async (...more: string[]): Promise<Planned> =>
  JSON.parse((await plan("--json", ...more)).stdout) as Planned;

test("a plan with a budget names what it decides, and what that costs", async () => {
  const plain = await planned();
  expect(plain.decisions).toEqual([]);
  const smallest = await planned("--memory-budget", "min");
  expect(smallest.peak.planBytes).toBeLessThan(plain.peak.planBytes);
  expect(smallest.decisions[0]?.what).toContain("recompute");
  expect(smallest.predictedStepSeconds).toBeGreaterThan(plain.predictedStepSeconds);
  const shown = await plan("--memory-budget", "min");
  expect(shown.stdout + shown.stderr).toMatch(/recompute .* of blocks 0/);
  expect(shown.stdout + shown.stderr).toContain("(predicted)");
});

test("the smallest budget of a refusal works, with or without a unit", async () => {
  const refused = await plan("--json", "--memory-budget", "1MB");
  expect(refused.status).not.toBe(0);
  const { error } = JSON.parse(refused.stdout) as { error: { code: string; smallestBudget: number } };
  expect(error.code).toBe("budget-too-small");
  const accepted = await planned("--memory-budget", String(error.smallestBudget));
  expect(accepted.peak.planBytes).toBe(error.smallestBudget - processBytes);
  const inKibibytes = `${Math.ceil(error.smallestBudget / 1024)}KiB`;
  expect((await plan("--json", "--memory-budget", inKibibytes)).status).toBe(0);
});

test.each([
  [["--memory-budget", "much"], "memoryBudget"],
  [["--memory-budget", "min", "--recompute", "block"], "recompute and memoryBudget"],
  [["--allow-lossy"], "allowLossy and memoryBudget"],
])("%j is refused", async (flags, message) => {
  const { status, stderr } = await plan(...flags);
  expect(status).not.toBe(0);
  expect(stderr).toContain(message);
});
