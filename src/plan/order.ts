import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Schedule } from "../passes/schedule.js";
import type { Load } from "./order-model.js";
import { OrderModel } from "./order-model.js";
import type { TargetFacts } from "./types.js";

/** Steps that may be looked at, over and over, per search: some tenths of a second at most. */
const budget = 1_000_000;
/** How far from the peak, in steps, a step is looked for whose move would lower it. */
const reach = 400;

/**
 * The same steps in an order whose peak is lower, or as low. Values that nothing reads for long are made later, what
 * frees memory runs sooner; then, step by step, the peak itself is lowered by moving single steps across it. The
 * search is bounded by a count, not by a clock, so that equal programs get equal orders.
 */
export function lowerPeak(schedule: Schedule, outputs: readonly Node[], facts: TargetFacts): Schedule {
  // When tensors come from disk was decided for the order as it is.
  if (schedule.stays !== undefined) return schedule;
  const model = new OrderModel(schedule, outputs, facts);
  const moved = [sinkAndHoist(model), moveAcrossPeak(model)].some(Boolean);
  if (!moved) return schedule;
  return { ...schedule, steps: Array.from(model.order, (step) => must(schedule.steps[step], "step")) };
}

/** Moves every step to where it keeps the fewest bytes alive, where that raises no peak on the way. */
function sinkAndHoist(model: OrderModel): boolean {
  let moved = false;
  const count = model.order.length;
  for (let step = count - 1; step >= 0; step--) {
    const [, last] = model.range(step);
    const made = bytesMade(model, step);
    const place = model.position[step] ?? 0;
    if (last > place && made > bytesEnded(model, step)) moved = attempt(model, place, last, lowersArea) || moved;
  }
  for (let step = 0; step < count; step++) {
    const [first] = model.range(step);
    const place = model.position[step] ?? 0;
    if (first < place && bytesEnded(model, step) > bytesMade(model, step)) {
      moved = attempt(model, place, first, lowersArea) || moved;
    }
  }
  return moved;
}

function bytesMade(model: OrderModel, step: number): number {
  return (model.writes[step] ?? []).reduce((sum, value) => sum + (model.values[value]?.bytes ?? 0), 0);
}

/** Bytes of the values that nothing needs after a step. */
function bytesEnded(model: OrderModel, step: number): number {
  const place = model.position[step] ?? 0;
  const ended = (model.reads[step] ?? []).filter((value) => model.lastUse(value) === place);
  return ended.reduce((sum, value) => sum + (model.values[value]?.bytes ?? 0), 0);
}

type Accept = (after: Load, before: Load) => boolean;

const lowersArea: Accept = (after, before) => after.peak <= before.peak && after.area < before.area;
const lowersPeak: Accept = (after, before) => after.peak < before.peak;

/** Moves a step if the load of the positions that it passes becomes better by it. */
function attempt(model: OrderModel, from: number, to: number, accept: Accept): boolean {
  if (from === to || model.spent > budget) return false;
  const [low, high] = [Math.min(from, to), Math.max(from, to)];
  const before = model.load(low, high);
  model.move(from, to);
  if (accept(model.load(low, high), before)) {
    model.settle(low, high);
    return true;
  }
  model.move(to, from);
  return false;
}

/** While the peak can be lowered by moving one step across it, does so. */
function moveAcrossPeak(model: OrderModel): boolean {
  let moved = false;
  while (model.spent < budget) {
    const loads = model.loads();
    const peak = loads.reduce((best, bytes, place) => (bytes > (loads[best] ?? 0) ? place : best), 0);
    if (!candidates(model, peak).some(([from, to]) => attempt(model, from, to, lowersPeak))) return moved;
    moved = true;
  }
  return moved;
}

/** Whether less is alive at a position before which a step runs if it runs after it. */
function freesByWaiting(model: OrderModel, step: number, peak: number): boolean {
  const kept = (model.reads[step] ?? []).filter((value) => model.lastUse(value) < peak);
  return bytesMade(model, step) > kept.reduce((sum, value) => sum + (model.values[value]?.bytes ?? 0), 0);
}

/** Whether less is alive at a position after which a step runs if it runs before it. */
function freesByHurrying(model: OrderModel, step: number): boolean {
  return bytesEnded(model, step) > bytesMade(model, step);
}

/** Moves of one step from one side of a position to the other, or of the step there away, the nearest first. */
function candidates(model: OrderModel, peak: number): (readonly [number, number])[] {
  const found: (readonly [number, number])[] = [];
  const [first, last] = model.range(model.order[peak] ?? 0);
  if (last > peak) found.push([peak, last]);
  if (first < peak) found.push([peak, first]);
  for (let distance = 1; distance <= reach; distance++) {
    const [earlier, later] = [peak - distance, peak + distance];
    const before = model.order[earlier];
    if (earlier >= 0 && before !== undefined) {
      const end = model.range(before)[1];
      if (end >= peak && freesByWaiting(model, before, peak)) found.push([earlier, end], [earlier, peak]);
    }
    const after = model.order[later];
    if (after === undefined) continue;
    const start = model.range(after)[0];
    if (start <= peak && freesByHurrying(model, after)) found.push([later, peak], [later, start]);
  }
  return found;
}
