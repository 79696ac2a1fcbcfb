import { invariant, must, ThimbleError } from "../errors.js";
import type { Turn } from "../methods/types.js";
import { leafAttributes } from "../ops/leaves.js";
import type { SessionPlan } from "./finish.js";
import { copyMasters } from "./load.js";
import type { SessionOptions } from "./types.js";

/** Which blocks train in a step; undefined where they do not take turns. */
export function turnsAt({ methods, train, seed }: SessionOptions, step: number): readonly Turn[] | undefined {
  if (!train || methods?.turns === undefined) return undefined;
  const turns = methods.turns.at(step, seed);
  invariant(turns.length === methods.turns.count, "every step has as many turns");
  return turns;
}

export function sameBlocks({ options }: SessionPlan, turns: readonly Turn[]): boolean {
  return turns.every(({ block }, turn) => options.active?.[turn] === block);
}

/** The options of the same session with other blocks in turn: what persists stays where it is. */
export function withTurns({ options, layout }: SessionPlan, turns: readonly Turn[]): SessionOptions {
  return { ...options, layout, active: turns.map(({ block }) => block) };
}

/**
 * A session whose blocks take turns: the plan of its first step, with the memory of the largest of several sets: the
 * lowest blocks, the highest, and blocks far apart. Blocks are alike, so that where the lowest of them is matters most.
 */
export function planTurns(options: SessionOptions, planOne: (options: SessionOptions) => SessionPlan): SessionPlan {
  refuseBudget(options);
  const first = must(turnsAt(options, 0), "turns");
  const plan = planOne({ ...options, active: first.map(({ block }) => block) });
  const { blocks } = options.definition;
  const count = first.length;
  const sets = [
    first.map((_, turn) => turn),
    first.map((_, turn) => blocks - 1 - turn),
    first.map((_, turn) => Math.floor((turn * blocks) / count)),
  ];
  const others = sets.map((active) => planOne({ ...options, layout: plan.layout, active }));
  const largest = others.reduce((most, one) => (one.report.planBytes > most.report.planBytes ? one : most), plan);
  const note = `${count} of ${blocks} blocks train at a time: the plan is that of the largest of ${others.length + 1} sets`;
  return { ...plan, report: { ...largest.report, notes: [...largest.report.notes, note] } };
}

function refuseBudget({ budget }: SessionOptions): void {
  if (budget === undefined) return;
  throw new ThimbleError("budget-turns", "A memory budget does not go with blocks that take turns in training", {
    where: "memory-budget",
    fix: "Leave the budget out, and choose --recompute block for the least memory.",
  });
}

/** Gives the states of turns that begin their values: zeros, or the parameter's own. */
export function startStates(plan: SessionPlan, turns: readonly number[], bytesOf: (name: string) => Uint8Array): void {
  const own = (name: string): boolean => turns.some((turn) => new RegExp(`(^|\\.)turn${turn}\\.`).test(name));
  for (const leaf of plan.leaves.values()) {
    const { name, role } = leafAttributes(leaf);
    if (role === "state" && own(name)) bytesOf(name).fill(0);
  }
  copyMasters(plan, bytesOf, own);
}
