/** What the host makes of the probes' outputs: some numbers for each row of a batch. */
import { must } from "../../errors.js";
import { sum } from "../../plan/sum.js";
import type { ExampleBatch, ProgramOutputs } from "../programs.js";

/** Runs a probe on a batch. */
export type RunProbe = (batch: ExampleBatch) => Promise<ProgramOutputs>;

/** A batch with the number of its rows, and the weights of each. */
export interface ProbedBatch {
  readonly batch: ExampleBatch;
  readonly rows: number;
}

function weightsOf({ batch, rows }: ProbedBatch, row: number): Float32Array {
  const width = batch.weights.length / rows;
  return batch.weights.subarray(row * width, (row + 1) * width);
}

/** Sum of the weights of each row's labels: for weights of 0 and 1, the tokens that count. */
export function labelledLengths(probed: ProbedBatch): number[] {
  return Array.from({ length: probed.rows }, (_, row) => sum(weightsOf(probed, row), (weight) => weight));
}

/** c_ij = (l_i(theta + eps z_j) - l_i(theta - eps z_j)) / (2 eps), of the mean loss of each row's tokens; [rows][j]. */
export async function rowSlopes(
  probed: ProbedBatch,
  { epsilon, directions }: { readonly epsilon: number; readonly directions: number },
  run: RunProbe,
): Promise<Float64Array[]> {
  const outputs = await run(probed.batch);
  const lossOf = (name: string, row: number): number => must(outputs[name]?.[row], name);
  return labelledLengths(probed).map((length, row) =>
    Float64Array.from(
      { length: directions },
      (_, use) => (lossOf(`above${use}`, row) - lossOf(`below${use}`, row)) / (2 * epsilon * length),
    ),
  );
}

/** The gradient of the mean loss of each row's tokens: a run for each, in which the other rows do not count. */
export async function rowGradients(probed: ProbedBatch, run: RunProbe): Promise<Float64Array[]> {
  const found: Float64Array[] = [];
  for (const [row, length] of labelledLengths(probed).entries()) {
    const weights = new Float32Array(probed.batch.weights.length);
    const own = weightsOf(probed, row);
    weights.set(own, row * own.length);
    const { gradient } = await run({ ...probed.batch, weights });
    found.push(Float64Array.from(must(gradient, "gradient"), (value) => value / length));
  }
  return found;
}

/** The hidden state at the last token of each row whose label counts. */
export async function lastHidden(probed: ProbedBatch, run: RunProbe): Promise<Float64Array[]> {
  const { batch, rows } = probed;
  const hidden = must((await run(batch))["hidden"], "hidden");
  const width = hidden.length / batch.ids.length;
  return Array.from({ length: rows }, (_, row) => {
    const last = Math.max(
      0,
      weightsOf(probed, row).findLastIndex((weight) => weight > 0),
    );
    const at = (row * (batch.ids.length / rows) + last) * width;
    return Float64Array.from(hidden.subarray(at, at + width));
  });
}

/** One number each. */
export function single(values: Iterable<number>): Float64Array[] {
  return Array.from(values, (value) => Float64Array.of(value));
}
