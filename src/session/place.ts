import type { Node } from "../ir/node.js";
import { leafAttributes } from "../ops/leaves.js";
import type { Schedule } from "../passes/schedule.js";
import type { Streaming } from "../passes/place.js";
import type { Lever } from "./lever.js";
import type { SessionOptions } from "./types.js";

/** Which tensors of a session lie on disk, and how they are read while a program runs. */
export interface PlaceOptions extends Streaming {
  /** Of the frozen matrices of the checkpoint, by name: those that lie on disk. All else lies in memory. */
  readonly disk: (parameter: string) => boolean;
  /** All lies in memory, unless a memory budget asks for the disk. */
  readonly whenNeeded?: boolean;
  /** Where the file of what does not lie on disk in its format already is made; the cache folder if not given. */
  readonly folder?: string;
  /** Ask the system not to keep what was read in its cache of files: for measuring what a small machine would do. */
  readonly uncached?: boolean;
}

/** Where the tensors of a session lie: as the methods say while they train, else as its options do. */
export function placeOptions({ place, methods, train }: SessionOptions): PlaceOptions | undefined {
  const placement = train ? methods?.place : undefined;
  if (placement === undefined) return place;
  // What the options alone would put there comes and goes with the blocks.
  const { folder, uncached } = place ?? {};
  return {
    disk: place === undefined || place.whenNeeded === true ? () => false : place.disk,
    visits: placement.overlap ? "beside" : "alone",
    ...(folder === undefined ? {} : { folder }),
    ...(uncached === undefined ? {} : { uncached }),
  };
}

/**
 * The leaves that lie on disk: those that the options choose among the checkpoint's matrices that no program changes,
 * and what the methods choose, be it changed or not, with the optimizer's states of it. Vectors alone are too small to
 * be worth a read.
 */
export function leavesOnDisk(
  options: SessionOptions,
  programs: readonly Pick<Schedule, "assigned">[],
): (leaf: Node) => boolean {
  const { definition, train, methods } = options;
  const place = placeOptions(options);
  if (place === undefined || place.whenNeeded === true) return () => false;
  const changed = new Set<string>();
  for (const { assigned } of programs) {
    for (const target of assigned.values()) changed.add(leafAttributes(target).name);
  }
  const base = new Set(definition.parameters.map(({ name }) => name));
  const placement = train ? methods?.place : undefined;
  const visiting = new Set(definition.parameters.flatMap((one) => (placement?.disk(one) === true ? [one.name] : [])));
  return (leaf) => {
    const { name, role, shape } = leafAttributes(leaf);
    if (role === "state") return shape.length > 0 && visiting.has(parameterOfState(name));
    if (role !== "weight") return false;
    const frozen = base.has(name) && !changed.has(name);
    return visiting.has(name) || (frozen && shape.length >= 2 && place.disk(name));
  };
}

/** `model.layers.0.mlp.up_proj.weight.adamw.m` -> `model.layers.0.mlp.up_proj.weight`. */
function parameterOfState(name: string): string {
  return name.split(".").slice(0, -2).join(".");
}

/** Ways for a budget to use the disk, where it may: every other block, then all that may lie there. Both are exact. */
export function diskLevers({ place }: SessionOptions): Lever[] {
  if (place?.whenNeeded !== true) return [];
  const lever = (what: string, chosen: (parameter: string) => boolean): Lever => ({
    name: "disk",
    what,
    exact: true,
    apply: (options) => ({
      ...options,
      place: { ...place, whenNeeded: false, disk: (parameter) => place.disk(parameter) && chosen(parameter) },
    }),
  });
  return [
    lever(
      "keep the frozen weights of every other block on disk",
      (parameter) => (blockNumber(parameter) ?? 1) % 2 === 0,
    ),
    lever("keep the frozen weights on disk", () => true),
  ];
}

function blockNumber(parameter: string): number | undefined {
  const digits = /\.(\d+)\./.exec(parameter)?.[1];
  return digits === undefined ? undefined : Number(digits);
}
