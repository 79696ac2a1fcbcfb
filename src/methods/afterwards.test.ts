import { expect, test } from "vitest";
import { must } from "../errors.js";
import { Graph } from "../ir/node.js";
import { multiply, add } from "../ops/arithmetic.js";
import { concatenate } from "../ops/concatenate.js";
import { constant } from "../ops/leaves.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { afterwards } from "./afterwards.js";
import type { MethodSlots, ResolvedMethod } from "./types.js";

const method = (id: string, slots: MethodSlots): ResolvedMethod => ({
  id,
  slots,
  claims: [],
  adapters: [],
  config: {},
});

/** Adds its term, and what it finds of "w" to twice it. */
const doubling = (id: string, term: number): ResolvedMethod =>
  method(id, {
    scalars: (step) => ({ step }),
    regularise: ({ graph }) => constant(graph, term),
    collect: ({ tensors, state, scalar }) => {
      const { after } = must(tensors.get("w"), "w");
      const count = state("count", []);
      return {
        values: new Map([["w", add(multiply(after, 2), scalar("step"))]]),
        states: new Map([["count", add(count, 1)]]),
      };
    },
  });

test("methods without the slots add nothing", () => {
  const composed = afterwards([method("plain", {})]);
  expect(composed.scalars(3)).toEqual({});
  expect(composed.regularise).toBeUndefined();
  expect(composed.collect).toBeUndefined();
});

test("terms add up, changes follow each other, and names carry the method", () => {
  const graph = new Graph();
  const composed = afterwards([doubling("one", 2), method("plain", {}), doubling("two", 3)]);
  expect(composed.scalars(4)).toEqual({ "one.step": 4, "two.step": 4 });
  const term = must(composed.regularise, "regularise")({ graph, values: new Map() });
  const one = constant(graph, 1);
  const asked: string[] = [];
  const { values, states } = must(
    composed.collect,
    "collect",
  )({
    graph,
    variant: "",
    idle: new Map(),
    tensors: new Map([["w", { before: one, gradient: one, after: constant(graph, 5) }]]),
    state: (name) => {
      asked.push(name);
      return one;
    },
    scalar: (name) => constant(graph, name === "one.step" ? 0.25 : 0.5),
  });
  expect(asked).toEqual(["one.count", "two.count"]);
  expect([...states.keys()]).toEqual(asked);
  const results = evaluate([term, must(values.get("w"), "w")], new Map());
  expect(results.map(({ data }) => data[0])).toEqual([5, 2 * (2 * 5 + 0.25) + 0.5]);
});

test("lines stand one after the other", () => {
  const graph = new Graph();
  const lines = [2, 1, 3].map((length) => constant(graph, length, [length]));
  expect([...evaluate([concatenate(lines)], new Map())[0]!.data]).toEqual([2, 2, 1, 3, 3, 3]);
});
