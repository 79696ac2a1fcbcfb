import { invariant, must, ThimbleError } from "../errors.js";
import { elements } from "../ir/shape.js";
import type { StateReader } from "../methods/programs.js";
import type { Turn } from "../methods/types.js";
import { leafAttributes } from "../ops/leaves.js";
import { countsName, isStateOfTurn, keepsByBlock } from "./block-states.js";
import type { SessionPlan } from "./finish.js";
import { copyMasters } from "./load.js";
import type { SessionOptions } from "./types.js";

/** Which blocks train in a step, by what the methods' states hold; undefined where they do not take turns. */
export function turnsAt(
  { methods, train, seed }: SessionOptions,
  step: number,
  state: StateReader,
): readonly Turn[] | undefined {
  if (!train || methods?.turns === undefined) return undefined;
  const turns = methods.turns.at(step, seed, state);
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

/** Plans of so many sets of blocks are kept: where there are few sets, each is planned once. */
const keptPlans = 8;

/** The plans of a session in which other blocks have their turn than in its first; those used last are kept. */
export class TurnPlans {
  readonly #plans = new Map<string, SessionPlan>();

  constructor(
    private readonly first: SessionPlan,
    private readonly planAgain: (options: SessionOptions, before: SessionPlan) => SessionPlan,
  ) {}

  at(turns: readonly Turn[]): SessionPlan {
    const key = turns.map(({ block }) => block).join();
    const plan = this.#plans.get(key) ?? this.planAgain(withTurns(this.first, turns), this.first);
    this.#plans.delete(key);
    this.#plans.set(key, plan);
    const [oldest] = this.#plans.keys();
    if (oldest !== undefined && this.#plans.size > keptPlans) this.#plans.delete(oldest);
    return plan;
  }
}

/**
 * A session whose blocks take turns: the plan of its first step, with the memory of the largest of several sets: the
 * lowest blocks, the highest, and blocks far apart. Blocks are alike, so that where the lowest of them is matters most.
 */
export function planTurns(
  options: SessionOptions,
  planOne: (options: SessionOptions, before?: SessionPlan) => SessionPlan,
): SessionPlan {
  refuseBudget(options);
  const first = must(turnsAt(options, 0, startOf(options)), "turns");
  const plan = planOne({ ...options, active: first.map(({ block }) => block) });
  const { blocks } = options.definition;
  const count = first.length;
  const sets = [
    first.map((_, turn) => turn),
    first.map((_, turn) => blocks - 1 - turn),
    first.map((_, turn) => Math.floor((turn * blocks) / count)),
  ];
  const others = sets.map((active) => planOne({ ...options, layout: plan.layout, active }, plan));
  const largest = others.reduce((most, one) => (one.report.planBytes > most.report.planBytes ? one : most), plan);
  const note = `${count} of ${blocks} blocks train at a time: the plan is that of the largest of ${others.length + 1} sets`;
  return { ...plan, report: { ...largest.report, notes: [...largest.report.notes, note] } };
}

/** What the methods' states hold at the start of a run. */
function startOf({ methods }: SessionOptions): StateReader {
  return (name) => {
    const { shape } = must(
      methods?.states.find((state) => state.name === name),
      `state ${name}`,
    );
    return new Float32Array(elements(shape));
  };
}

/** The number of the step, from 1, that update rules see in each turn; `counted` says that it is done. */
export function turnSteps(
  { options }: SessionPlan,
  turns: readonly Turn[],
  step: number,
  bytesOf: (name: string) => Uint8Array,
): { readonly numbers: readonly number[]; readonly counted: () => void } {
  if (!keepsByBlock(options)) {
    return { numbers: turns.map(({ since }) => step - since + 1), counted: () => undefined };
  }
  const bytes = bytesOf(countsName);
  const counts = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const numbers = turns.map(({ block }) => (counts[block] ?? 0) + 1);
  return {
    numbers,
    counted: () => {
      turns.forEach(({ block }, turn) => (counts[block] = must(numbers[turn], "count")));
    },
  };
}

function refuseBudget({ budget }: SessionOptions): void {
  if (budget === undefined) return;
  throw new ThimbleError("budget-turns", "A memory budget does not go with blocks that take turns in training", {
    where: "memory-budget",
    fix: "Leave the budget out, and choose --recompute block for the least memory.",
  });
}

/** Gives the states of turns that begin their values: zeros, or the parameter's own. Blocks keep theirs. */
export function startStates(plan: SessionPlan, turns: readonly number[], bytesOf: (name: string) => Uint8Array): void {
  if (keepsByBlock(plan.options)) return;
  const own = (name: string): boolean => turns.some((turn) => isStateOfTurn(name, String(turn)));
  for (const one of plan.leaves.values()) {
    const { name, role } = leafAttributes(one);
    if (role === "state" && own(name)) bytesOf(name).fill(0);
  }
  copyMasters(plan, bytesOf, own);
}
