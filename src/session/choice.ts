/** The data slot: which rows of a larger draw make up the micro-batches of a step. */
import { must } from "../errors.js";
import type { ChosenExamples, Draw, SourceTable } from "../methods/examples.js";
import { sum } from "../plan/sum.js";
import type { ProgramHost } from "./events.js";
import { hostContext } from "./events.js";
import type { SessionBatch, SessionOptions } from "./types.js";

/** What a step trains on. */
export interface StepBatches {
  readonly batches: readonly SessionBatch[];
  /** What the sum of the token losses is divided by. */
  readonly total: number;
  /** Rows of the draw, where some were chosen. */
  readonly chosen?: readonly number[];
}

function totalWeight(batches: readonly SessionBatch[]): number {
  return sum(batches, ({ weights }) => sum(weights, (weight) => weight));
}

/** The micro-batches of a step: those that were drawn, or what a method chooses of them. */
export async function chooseBatches(
  host: ProgramHost,
  drawn: readonly SessionBatch[],
  { step, sources: table }: { readonly step: number; readonly sources?: SourceTable },
  logged: Record<string, number>,
): Promise<StepBatches> {
  const { methods, batch, accumulate } = host.plan.options;
  if (methods?.examples === undefined) return { batches: drawn, total: totalWeight(drawn) };
  const sources = drawn.every((one) => one.sources !== undefined)
    ? Int32Array.from(drawn.flatMap((one) => [...(one.sources ?? [])]))
    : undefined;
  const draw: Draw = {
    batches: drawn,
    rows: drawn.length * batch,
    ...(sources === undefined ? {} : { sources }),
    ...(table === undefined ? {} : { table }),
  };
  const count = batch * accumulate;
  const has = (name: string): boolean => host.plan.leaves.has(name);
  const chosen = await methods.examples.choose({ ...hostContext(host, step, logged), has, draw, count });
  return gathered(drawn, chosen, { batch, accumulate });
}

/** Micro-batches of the chosen rows, in their order, filled up with rows that do not count. */
export function gathered(
  drawn: readonly SessionBatch[],
  { rows, factors }: ChosenExamples,
  { batch, accumulate }: Pick<SessionOptions, "batch" | "accumulate">,
): StepBatches {
  const places = Array.from({ length: batch * accumulate }, (_, place) => rows[place]);
  const plain = Array.from({ length: accumulate }, (_, part) =>
    rowsOf(drawn, places.slice(part * batch, (part + 1) * batch), batch),
  );
  const total = totalWeight(plain);
  const batches = factors === undefined ? plain : plain.map((one, part) => weighted(one, factors, part * batch, batch));
  return { batches, total, chosen: rows.slice(0, places.length) };
}

/** A batch of rows of a draw; a row that is undefined is the first, with no token that counts. */
function rowsOf(drawn: readonly SessionBatch[], rows: readonly (number | undefined)[], batch: number): SessionBatch {
  const first = must(drawn[0], "a batch");
  const gather = (name: keyof SessionBatch): Int32Array | Float32Array => {
    const made = must(first[name], name).slice();
    const width = made.length / batch;
    rows.forEach((row = 0, place) => {
      const values = must(drawn[Math.floor(row / batch)]?.[name], name);
      made.set(values.subarray((row % batch) * width, ((row % batch) + 1) * width), place * width);
    });
    rows.forEach((row, place) => {
      if (row === undefined && name === "weights") made.fill(0, place * width, (place + 1) * width);
    });
    return made;
  };
  const names = Object.keys(first) as (keyof SessionBatch)[];
  return Object.fromEntries(names.map((name) => [name, gather(name)])) as unknown as SessionBatch;
}

function weighted(batch: SessionBatch, factors: readonly number[], first: number, rows: number): SessionBatch {
  const width = batch.weights.length / rows;
  const weights = batch.weights.map((weight, at) => weight * (factors[first + Math.floor(at / width)] ?? 0));
  return { ...batch, weights };
}
