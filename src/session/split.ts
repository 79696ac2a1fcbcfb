import type { SessionBatch } from "./types.js";

/** A batch as so many batches of equally many rows, in order: views of it. */
export function splitBatch(batch: SessionBatch, parts: number): SessionBatch[] {
  if (parts === 1) return [batch];
  return Array.from({ length: parts }, (_, part) => {
    const of = <T extends Int32Array | Float32Array>(values: T): T => {
      const size = values.length / parts;
      return values.subarray(part * size, (part + 1) * size) as T;
    };
    return {
      ids: of(batch.ids),
      labels: of(batch.labels),
      weights: of(batch.weights),
      positions: of(batch.positions),
      segments: of(batch.segments),
      ...(batch.types === undefined ? {} : { types: of(batch.types) }),
      ...(batch.targets === undefined ? {} : { targets: of(batch.targets) }),
    };
  });
}
