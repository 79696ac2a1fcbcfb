import { describe, expect, it } from "vitest";
import { jsonOf, run } from "./testing/run.js";
import { workspace } from "./testing/workspace.js";

const { tiny } = workspace();

describe("explain", () => {
  it("lists every kernel in order with what it costs, and shows one with loops and source", async () => {
    const { programs, kernels } = jsonOf(await run(["explain", ...tiny("--json")])) as {
      programs: { steps: { line: number; kind: string; kernel: string; bytesMoved: number; operations: number }[] }[];
      kernels: { name: string; lines: number[] }[];
    };
    const steps = programs.flatMap((program) => program.steps);
    expect(steps.map(({ line }) => line)).toEqual(steps.map((_, index) => index + 1));
    expect(kernels.flatMap(({ lines }) => lines)).toHaveLength(steps.length);
    expect(steps.every(({ bytesMoved }) => bytesMoved > 0)).toBe(true);
    for (const kind of ["loops", "contraction", "fixed"]) {
      const step = steps.find((one) => one.kind === kind);
      const shown = await run(["explain", String(step?.line), "--source", ...tiny()]);
      expect(shown.status).toBe(0);
      expect(shown.stdout).toContain(step?.kernel);
      expect(shown.stdout).toMatch(/threads/);
      expect(shown.stdout).toMatch(/\{[^}]*\}/);
    }
    const [first] = kernels;
    const named = await run(["explain", first?.name ?? "", ...tiny()]);
    expect(named.stdout).toMatch(/runs \d+ times/);
    expect(await run(["explain", first?.name.slice(0, -4) ?? "", ...tiny()])).toEqual(named);
    expect((await run(["explain", "99999", ...tiny()])).status).toBe(2);
    expect((await run(["explain", "nothing_like_it", ...tiny()])).status).toBe(2);
  });

  it("shows kernels that are made by hand", async () => {
    const sparse = ["--method", "spiel", "--set", "spiel.density=0.1"];
    const { programs } = jsonOf(await run(["explain", ...tiny(...sparse, "--json")])) as {
      programs: { steps: { line: number; kind: string; kernel: string }[] }[];
    };
    const fixed = programs.flatMap(({ steps }) => steps).filter(({ kind }) => kind === "fixed");
    for (const name of ["top_k_smallest_rank", "sparse_dot_f32", "match_places"]) {
      const line = fixed.find(({ kernel }) => kernel === name)?.line;
      const { status, stdout } = await run(["explain", String(line), ...tiny(...sparse)]);
      expect(status, name).toBe(0);
      expect(stdout).toContain(name);
      expect(stdout).toMatch(/\d/);
    }
  });

  it("counts what a LoRA step multiplies", async () => {
    const { kernels } = jsonOf(await run(["explain", ...tiny("--method", "full", "--json")])) as {
      kernels: { kind: string; operations: number }[];
    };
    const products = kernels.filter(({ kind }) => kind === "contraction").reduce((sum, one) => sum + one.operations, 0);
    // Forward, and the gradients of inputs and weights: each layer's weights times tokens, twice for multiply and add.
    const perBlock = 32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 64;
    const forward = 2 * 32 * 2 * perBlock;
    expect(products).toBe(3 * forward);
  });

  it("times the kernels of a compiled run", async () => {
    const args = ["explain", "--profile", "2", ...tiny("--target", "c", "--json")];
    const outcome = await run(args);
    expect(outcome.stderr).not.toMatch(/error/);
    type Times = { seconds: number; runs: number; ofLimit: number };
    const { kernels, groups, total, limits, stepSeconds, steps } = jsonOf(outcome) as {
      kernels: (Times & { group: string; limit: string })[];
      groups: (Times & { group: string })[];
      total: Times;
      limits: { f32: number; bf16: number; bandwidth: number };
      stepSeconds: number;
      steps: number;
    };
    expect(steps).toBe(2);
    expect(stepSeconds).toBeGreaterThan(0);
    expect(kernels.some(({ seconds }) => seconds > 0)).toBe(true);
    expect(kernels.every(({ runs }) => runs > 0)).toBe(true);
    expect(Math.min(limits.f32, limits.bandwidth)).toBeGreaterThan(1e8);
    expect(limits.bf16).toBeGreaterThanOrEqual(limits.f32);
    expect(kernels.every(({ ofLimit, seconds }) => (seconds > 0 ? ofLimit > 0 : ofLimit === 0))).toBe(true);
    // Groups and the total are sums of the kernels, and least times stay sums as well.
    for (const one of [...groups, { group: undefined, ...total }]) {
      const members = kernels.filter(({ group }) => one.group === undefined || group === one.group);
      const sum = (of: (kernel: Times) => number): number => members.reduce((all, kernel) => all + of(kernel), 0);
      expect(one.runs).toBe(sum(({ runs }) => runs));
      expect(one.seconds).toBeCloseTo(sum(({ seconds }) => seconds));
      expect(one.ofLimit * one.seconds).toBeCloseTo(sum((kernel) => kernel.ofLimit * kernel.seconds));
    }
    expect(groups.map(({ group }) => group)).toEqual(
      expect.arrayContaining(["products", "attention", "loss", "loops"]),
    );
    const shown = await run(["explain", "--profile", "1", ...tiny("--target", "c")]);
    expect(shown.stdout).toMatch(/all kernels\nlimits measured on \d+ threads?: f32 [\d.]+ GFLOP\/s/);
    const refused = await run(["explain", "--profile", "2", ...tiny("--json")]);
    expect(jsonOf(refused)).toMatchObject({ error: { code: "profile-target" } });
  });
});
