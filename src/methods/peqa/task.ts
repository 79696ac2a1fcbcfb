/** What one task trained: the scales of every layer, for the integers that they belong to. */
import { ThimbleError } from "../../errors.js";
import type { HostTensors } from "../types.js";

export interface TaskLayer {
  readonly path: string;
  readonly group: number;
  /** Of the frozen integers. */
  readonly hash: string;
  readonly scales: Float32Array;
}

/** 64 bits of two FNV-1a streams over integers of less than 16 bits, in hexadecimal. */
export function hashIntegers(integers: Float32Array): string {
  let [low, high] = [0x811c9dc5, 0x9747b28c];
  for (const integer of integers) {
    low = Math.imul(low ^ (integer & 0xffff), 0x01000193);
    high = Math.imul(high ^ (integer & 0xffff) ^ (low >>> 15), 0x85ebca6b);
  }
  const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, "0");
  return hex(low) + hex(high);
}

/** A layer as it is trained: where its scales and integers are. */
export interface TaskTarget {
  readonly path: string;
  readonly group: number;
  /** Name of the tensor of its scales. */
  readonly scales: string;
}

/** The task file of trained scales; `integers` gives the integers of a layer by its path. */
export function taskOf(
  targets: readonly TaskTarget[],
  tensors: HostTensors,
  integers: (path: string) => Float32Array,
): TaskLayer[] {
  return targets.flatMap(({ path, group, scales: name }) => {
    const scales = tensors.get(name);
    return scales === undefined ? [] : [{ path, group, hash: hashIntegers(integers(path)), scales: scales.slice() }];
  });
}

/** The scales of a task by tensor name, for a model with just these integers. */
export function tensorsOfTask(
  targets: readonly TaskTarget[],
  task: readonly TaskLayer[],
  integers: (path: string) => Float32Array,
): Map<string, Float32Array> {
  const byPath = new Map(task.map((layer) => [layer.path, layer]));
  return new Map(
    targets.map(({ path, group, scales }) => {
      const layer = byPath.get(path);
      if (layer?.group === group && layer.hash === hashIntegers(integers(path))) return [scales, layer.scales];
      throw new ThimbleError("peqa-task", "The scales of a task belong to other integers than the model's", {
        where: path,
        given: layer === undefined ? "no scales of this layer" : `groups of ${layer.group}, integers ${layer.hash}`,
        expected: `groups of ${group}, integers ${hashIntegers(integers(path))}`,
        fix: "Quantise the checkpoint that the task was trained on, with the same bits and groups.",
      });
    }),
  );
}
