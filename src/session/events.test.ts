import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { gradients } from "../autodiff/gradients.js";
import { must } from "../errors.js";
import { composeMethods } from "../methods/compose.js";
import { defineMethod } from "../methods/define.js";
import type { MethodProgram } from "../methods/programs.js";
import { methods as registered } from "../methods/registry.js";
import type { MethodSlots } from "../methods/types.js";
import { add } from "../ops/arithmetic.js";
import { reduceSum, reshape, slice } from "../ops/layout.js";
import { randomWeights, trainedModel, trainingBatch, trainingOptions } from "../testing/method-training.js";
import { relativeDifference } from "../testing/tiny.js";
import { openSession } from "./open.js";
import type { RunningSession } from "./session.js";
import type { SessionOptions } from "./types.js";

const vocabulary = trainedModel.vocabularySize;
const data = (index: number) => trainingBatch(index, vocabulary);

const movedName = "model.layers.1.mlp.down_proj.lora_B.weight";

/** Losses of rows with each block's adapter dimmed, with a tensor moved, and the gradient of one tensor. */
const programs: readonly MethodProgram[] = [
  {
    name: "dim",
    build: ({ input, rowLosses }) => {
      const knob = input("knob", [trainedModel.blocks]);
      const scale = ({ block }: { block: number }) => reshape(slice(knob, [block], [1]), []);
      return { rows: { plain: rowLosses(), dimmed: rowLosses({ scale }) } };
    },
  },
  {
    name: "move",
    build: ({ input, rowLosses, state, graph }) => {
      const by = input("by", []);
      const moved = rowLosses({ read: ({ name, node }) => (name === movedName ? add(node, by) : node) });
      const total = reshape(reduceSum(moved, [0]), []);
      return {
        rows: { moved },
        sums: { total },
        assignments: [
          {
            target: state("total"),
            value: add(
              state("total"),
              graph.inScope("", () => total),
            ),
          },
        ],
      };
    },
  },
  {
    name: "slope",
    build: ({ rowLosses, trainables }) => {
      const loss = reshape(reduceSum(rowLosses(), [0]), []);
      const last = must(
        trainables().find(({ name }) => name === movedName),
        "the moved tensor",
      );
      const [gradient] = gradients(loss, [last.node]);
      const slope = reshape(reduceSum(must(gradient, "gradient"), [0, 1]), []);
      return { sums: { slope }, gradients: [must(gradient, "gradient")], loss };
    },
  },
];

const slots: MethodSlots = {
  programs,
  states: [
    { name: "scores", shape: [3], dtype: "f32" },
    { name: "total", shape: [], dtype: "f32" },
  ],
  events: [
    {
      due: (step) => step % 2 === 1,
      run: async ({ batch, run, state, uniform, step, log }) => {
        const { dimmed } = await run("dim", batch(step), { knob: Float32Array.of(0.5, 1) });
        const scores = state("scores");
        scores[0] = (scores[0] ?? 0) + must(dimmed?.[0], "loss");
        scores[1] = must(uniform("draw", 1)[0], "number");
        log("score", must(scores[0], "score"));
      },
    },
  ],
};

const probing = defineMethod({
  id: "probing",
  title: "A method with programs and events",
  paper: "none",
  year: 2024,
  summary: "Looks at losses before steps.",
  reduces: [],
  fills: ["programs", "events", "states"],
  config: z.strictObject({}),
  resolve: (config) => ({ id: "probing", config, slots, claims: [], adapters: [] }),
});

function optionsOf(more: Partial<SessionOptions> = {}): SessionOptions {
  const selection = [
    { id: "lora", settings: { r: 4 } },
    { id: "probing", settings: {} },
  ];
  const methods = composeMethods(selection, trainedModel, [...registered, probing]);
  return { ...trainingOptions({ selection: selection.slice(0, 1) }), methods, ...more };
}

async function opened(options: SessionOptions, poison = true): Promise<RunningSession> {
  const session = await openSession(options, { poison });
  await session.load(randomWeights(trainedModel));
  return session;
}

async function steps(session: RunningSession, from: number, to: number): Promise<unknown[]> {
  const results: unknown[] = [];
  for (let step = from; step < to; step++) {
    const { loss, logged } = await session.step([data(step)], { rate: 0.01, step, data });
    results.push([loss, logged]);
  }
  return results;
}

const changing = (session: RunningSession) =>
  new Map(session.tensors.flatMap(({ name, changes }) => (changes ? [[name, session.bytes(name).slice()]] : [])));

describe("programs of methods", () => {
  for (const target of ["c", "interpret"] as const) {
    describe(target, () => {
      let session: RunningSession;
      const options = optionsOf({ target });
      beforeAll(async () => {
        session = await opened(options);
        await steps(session, 0, 3);
        return () => {
          session.close();
        };
      });
      const batch = data(9);
      const rowsOf = async (program: string, inputs: Record<string, Float32Array>, name: string) =>
        must((await session.run(program, batch, { step: 3, inputs }))[name], name);

      test("give the losses of rows, which add up to that of an evaluation", async () => {
        const plain = await rowsOf("probing.dim", { "probing.knob": Float32Array.of(1, 1) }, "plain");
        const { lossSum } = await session.evaluate(batch);
        expect(plain).toHaveLength(2);
        expect((plain[0] ?? 0) + (plain[1] ?? 0)).toBeCloseTo(lossSum, 3);
      });

      test("dim what methods add, block by block, to nothing at 0 and not at all at 1", async () => {
        const dimmed = (...knob: number[]) =>
          rowsOf("probing.dim", { "probing.knob": Float32Array.from(knob) }, "dimmed");
        const plain = await rowsOf("probing.dim", {}, "plain");
        expect(await dimmed(1, 1)).toEqual(plain);
        const untrained = await opened(options);
        const { plain: base } = await untrained.run("probing.dim", batch, { step: 0 });
        untrained.close();
        expect(await dimmed(0, 0)).toEqual(base);
        const [first, second] = [await dimmed(0, 1), await dimmed(1, 0)];
        expect(first).not.toEqual(plain);
        expect(second).not.toEqual(plain);
        expect(first).not.toEqual(second);
      });

      test("read tensors in another place, and assign to states", async () => {
        const before = new Float32Array(session.bytes("probing.total").slice().buffer)[0];
        const moved = await session.run("probing.move", batch, {
          step: 3,
          inputs: { "probing.by": Float32Array.of(0) },
        });
        expect(
          relativeDifference(must(moved["moved"], "moved"), await rowsOf("probing.dim", {}, "plain")),
        ).toBeLessThan(1e-6);
        const total = must(moved["total"]?.[0], "total");
        const after = new Float32Array(session.bytes("probing.total").slice().buffer)[0];
        expect(after).toBeCloseTo((before ?? NaN) + total, 3);
        const further = await rowsOf("probing.move", { "probing.by": Float32Array.of(0.1) }, "moved");
        expect(further).not.toEqual(moved["moved"]);
      });

      test("may differentiate: the slope is that of differences", async () => {
        const [slope] = await rowsOf("probing.slope", {}, "slope");
        const totalAt = async (by: number) =>
          must((await rowsOf("probing.move", { "probing.by": Float32Array.of(by) }, "total"))[0], "total");
        const difference = ((await totalAt(0.01)) - (await totalAt(-0.01))) / 0.02;
        expect(Math.abs(must(slope, "slope") - difference)).toBeLessThan(0.02 * Math.abs(difference));
      });
    });
  }

  test("give the same of a batch that is run in parts", async () => {
    const [whole, parts] = [await opened(optionsOf()), await opened(optionsOf({ split: 2 }))];
    try {
      const inputs = { "probing.by": Float32Array.of(0.01) };
      const [one, two] = [
        await whole.run("probing.move", data(4), { step: 0, inputs }),
        await parts.run("probing.move", data(4), { step: 0, inputs }),
      ];
      expect(two["moved"]).toEqual(one["moved"]);
      expect(two["total"]?.[0]).toBeCloseTo(must(one["total"]?.[0], "total"), 3);
    } finally {
      whole.close();
      parts.close();
    }
  });

  test("lie in the memory of the plan, as its programs do", async () => {
    const session = await opened(optionsOf());
    try {
      expect(session.arenaBytes).toBe(session.report.planBytes);
      expect(session.report.programs.map(({ name }) => name)).toContain("probing.slope");
      expect(session.report.planBytes).toBe(Math.max(...session.report.programs.map(({ planBytes }) => planBytes)));
    } finally {
      session.close();
    }
  });
});

describe("events", () => {
  test("come before their steps, log numbers, and go on in a resumed run as in one", async () => {
    const whole = await opened(optionsOf());
    const results = await steps(whole, 0, 6);
    const first = await opened(optionsOf());
    const before = await steps(first, 0, 3);
    const second = await opened(optionsOf());
    for (const [name, bytes] of changing(first)) second.bytes(name).set(bytes);
    const after = await steps(second, 3, 6);
    try {
      expect([...before, ...after]).toEqual(results);
      expect(changing(second)).toEqual(changing(whole));
      expect(results.map((result) => (result as unknown[])[1] !== undefined)).toEqual([0, 1, 0, 1, 0, 1].map(Boolean));
      expect(changing(whole).has("probing.scores")).toBe(true);
    } finally {
      for (const session of [whole, first, second]) session.close();
    }
  });

  test("ask for data where a step has none", async () => {
    const session = await opened(optionsOf());
    try {
      await expect(session.step([data(1)], { rate: 0.01, step: 1 })).rejects.toMatchObject({ code: "event-data" });
    } finally {
      session.close();
    }
  });
});
