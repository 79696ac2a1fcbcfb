import { ThimbleError } from "../errors.js";
import { composeMethods } from "../methods/compose.js";
import type { Calibration, HostTensors } from "../methods/types.js";
import { squares, squaresState } from "../optim/squares.js";
import { planOnly } from "../session/open.js";
import { splitBatch } from "../session/split.js";
import type { SessionBatch, SessionOptions } from "../session/types.js";
import { readTensor } from "./export/tensor-source.js";
import type { Environment, PreparedRun, TrainEvents } from "./types.js";

/** Rows looked at for each that is wanted: some have nothing to predict. */
const patience = 4;

/**
 * The statistics that the methods of a run need before it starts, from its first examples: sums of squared gradients of
 * the whole model's loss, one example at a time, in a session of its own. What it keeps is what the methods make of them.
 */
export async function calibrate(
  run: Pick<PreparedRun, "options" | "batches" | "weights">,
  { examples, reduce }: Calibration,
  { openSession }: Pick<Environment, "openSession">,
  onNotice?: TrainEvents["onNotice"],
): Promise<HostTensors> {
  const whole = wholeModel(run.options);
  const bytes = planOnly(whole).report.planBytes;
  refuseOverBudget(run.options, bytes);
  const size = `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  const message = `Before the first step, ${examples} examples run through the whole model and back, which takes ${size}.`;
  onNotice?.({ code: "calibrating", message });
  const session = await openSession(whole);
  try {
    await session.load(run.weights);
    let count = 0;
    for (let row = 0; count < examples && row < patience * examples; row++) {
      const example = rowOf(run, row);
      if (!example.weights.some((weight) => weight > 0)) continue;
      await session.step([example], { rate: 0, step: count });
      count += 1;
    }
    if (count === 0) throw nothingToPredict(patience * examples);
    return await reduce((name) => Promise.resolve(readTensor(session, `${name}.squares.${squaresState}`)));
  } finally {
    session.close();
  }
}

/** All of the model's gradients at one row, summed up and nothing changed. */
export function wholeModel(options: SessionOptions): SessionOptions {
  const { definition, dtype, length, segments, target, threads, seed } = options;
  const fixed = { batch: 1, accumulate: 1, clip: undefined, train: true, evaluate: false, decode: undefined } as const;
  return {
    ...{ definition, dtype, length, segments, target, threads, seed, ...fixed },
    methods: composeMethods([{ id: "full", settings: {} }], definition),
    storedFormat: () => dtype,
    optimizer: squares(),
    saved: "cheap",
  };
}

/** Row number `row` of the run's data. */
function rowOf({ options: { batch }, batches }: Pick<PreparedRun, "options" | "batches">, row: number): SessionBatch {
  const rows = splitBatch(batches.batch(Math.floor(row / batch)), batch);
  const found = rows[row % batch];
  if (found === undefined) throw new ThimbleError("internal", "a batch has rows");
  return found;
}

function refuseOverBudget({ budget }: SessionOptions, bytes: number): void {
  if (budget === undefined) return;
  const allowed = budget.bytes === "min" ? 0 : budget.bytes - budget.overheadBytes;
  if (bytes <= allowed) return;
  throw new ThimbleError("calibration-budget", "What comes before the first step does not keep to the memory budget", {
    where: "memoryBudget",
    given: `${bytes} bytes: all gradients of the whole model, squared`,
    expected: budget.bytes === "min" ? "as little as possible" : `at most ${allowed} bytes`,
    fix: "Choose a start that needs no gradients (lst: init magnitude), or a larger budget.",
  });
}

function nothingToPredict(rows: number): ThimbleError {
  return new ThimbleError("calibration-empty", "No example of the run's data has anything to predict", {
    given: `the first ${rows} rows`,
    fix: "Check the data, or choose a start that needs no examples.",
  });
}
