import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { storageOf } from "../passes/kernels.js";
import type { Schedule } from "../passes/schedule.js";
import type { Draft, DraftStep } from "./drafts.js";
import { DraftBuffers } from "./drafts.js";
import { shardRoom } from "./layout.js";
import type { Interval, Placement } from "./offsets.js";
import { largestLive, placeIntervals } from "./offsets.js";
import { lowerPeak } from "./order.js";
import { sum } from "./sum.js";
import type { Buffer, PersistentLayout, ProgramPlan, TargetFacts } from "./types.js";

export * from "./types.js";
export { bytesOfValue, layOutLeaves, round } from "./layout.js";

/**
 * Decides where every value of a scheduled program lies. With `enough`, bytes that are there for it beyond what
 * persists, no order or placement is sought that takes less.
 */
export function planProgram(
  name: string,
  schedule: Schedule,
  outputs: Readonly<Record<string, Node>>,
  gradients: readonly Node[],
  layout: PersistentLayout,
  facts: TargetFacts,
  enough = 0,
): ProgramPlan {
  const draft = (order: Schedule): Drafted => {
    const drafted = draftProgram(order, outputs, gradients, layout, facts);
    return { ...drafted, units: unitsOf(drafted.drafts.transient) };
  };
  const room = { used: layout.shards, largest: shardRoom(facts.limits, facts.alignment) };
  const place = (one: Drafted): Placement => placeIntervals(one.units, room, enough);
  const given = draft(schedule);
  const first = largestLive(given.units) <= enough ? place(given) : undefined;
  const chosen =
    first !== undefined && first.extent <= enough
      ? given
      : draftLowest(given, schedule, Object.values(outputs), facts, draft);
  const { drafts, steps, units } = chosen;
  const placement = chosen === given && first !== undefined ? first : place(chosen);
  const placed = placedBuffers(units, placement);
  const buffer = (one: Draft): Buffer => one.persistent ?? must(placed.get(one), "placement");
  return {
    name,
    steps: steps.map((entry) => ({
      step: entry.step,
      inputs: entry.inputs.map(buffer),
      outputs: entry.outputs.map(buffer),
      workspace: entry.workspace === undefined ? undefined : buffer(entry.workspace),
      copies: entry.copies.map(([from, to]) => [buffer(from), buffer(to)] as const),
    })),
    buffers: drafts.transient.map(buffer),
    transfers: drafts.slots.transfers(buffer),
    outputs: new Map(Object.entries(outputs).map(([key, node]) => [key, { buffer: buffer(drafts.last(node)), node }])),
    extent: placement.extent,
    shards: placement.sizes,
    bound: placement.bound,
  };
}

interface Drafted {
  readonly drafts: DraftBuffers;
  readonly steps: readonly DraftStep[];
  readonly units: readonly Unit[];
}

/** The order given, or one with a lower peak where the search finds it and the drafts bear it out. */
function draftLowest(
  given: Drafted,
  schedule: Schedule,
  outputs: readonly Node[],
  facts: TargetFacts,
  draft: (order: Schedule) => Drafted,
): Drafted {
  const lowered = lowerPeak(schedule, outputs, facts);
  if (lowered === schedule) return given;
  const other = draft(lowered);
  return largestLive(other.units) < largestLive(given.units) ? other : given;
}

/** The most bytes alive at one step, persistent ones left out: what no placement of this order can go below. */
export function liveExtent(
  schedule: Schedule,
  outputs: Readonly<Record<string, Node>>,
  gradients: readonly Node[],
  layout: PersistentLayout,
  facts: TargetFacts,
): number {
  return largestLive(unitsOf(draftProgram(schedule, outputs, gradients, layout, facts).drafts.transient));
}

function draftProgram(
  schedule: Schedule,
  outputs: Readonly<Record<string, Node>>,
  gradients: readonly Node[],
  layout: PersistentLayout,
  facts: TargetFacts,
): { readonly drafts: DraftBuffers; readonly steps: readonly DraftStep[] } {
  const drafts = new DraftBuffers(schedule, layout, facts, new Set(gradients.map(storageOf)), Object.values(outputs));
  const steps = schedule.steps.map((step, index) => drafts.take(step, index));
  for (const node of Object.values(outputs)) drafts.keep(node, schedule.steps.length);
  return { drafts, steps };
}

/** What is placed as one: a draft, or several that must lie side by side. */
interface Unit extends Interval {
  readonly members: readonly Draft[];
}

function unitsOf(drafts: readonly Draft[]): Unit[] {
  return drafts.flatMap((draft): Unit[] => {
    const members = draft.group ?? [draft];
    if (members[0] !== draft) return [];
    return [
      {
        members,
        bytes: sum(members, ({ bytes }) => bytes),
        start: Math.min(...members.map(({ start }) => start)),
        end: Math.max(...members.map(({ end }) => end)),
      },
    ];
  });
}

function placedBuffers(units: readonly Unit[], placement: Placement): Map<Draft, Buffer> {
  const placed = new Map<Draft, Buffer>();
  units.forEach(({ members }, index) => {
    const shard = must(placement.shards[index], "shard");
    let offset = must(placement.offsets[index], "offset");
    for (const draft of members) {
      const { name, kind, bytes, start, end } = draft;
      placed.set(draft, { name, kind, bytes, tier: "device", shard, offset, start, end });
      offset += bytes;
    }
  });
  return placed;
}
