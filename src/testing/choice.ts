import { must } from "../errors.js";
import type { ChosenExamples, SourceTable } from "../methods/examples.js";
import { drawUniform } from "../methods/initial.js";
import type { RunningSession } from "../session/session.js";
import type { SessionBatch, SessionOptions } from "../session/types.js";

/** What the methods of a session choose of a draw before a step, which is not made. */
export async function chooseWith(
  session: RunningSession,
  options: SessionOptions,
  batches: readonly SessionBatch[],
  { step, sources: table }: { readonly step: number; readonly sources?: SourceTable },
): Promise<ChosenExamples> {
  const examples = must(options.methods?.examples, "a choice");
  const sources = Int32Array.from(batches.flatMap((batch) => [...(batch.sources ?? [])]));
  return examples.choose({
    step,
    seed: options.seed,
    run: (program, batch) => session.run(program, batch, { step }),
    state: (name) => new Float32Array(session.bytes(name).slice().buffer),
    bytes: (name) => session.bytes(name),
    has: (name) => session.tensors.some((tensor) => tensor.name === name),
    uniform: (name, count) => drawUniform(options.seed, `${name}.${step}`, count),
    log: () => undefined,
    draw: { batches, rows: batches.length * options.batch, sources, ...(table === undefined ? {} : { table }) },
    count: options.batch * options.accumulate,
  });
}
