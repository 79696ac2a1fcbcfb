/**
 * CoLM on a mixture of one large and three small synthetic sources: what 64 chosen of 128 examples learn against 64
 * drawn at random and all 128, and how close true-gradient coresets come to the gradient of the whole draw. Writes
 * bench/results/colm.json: `npx tsx bench/methods/colm.ts`.
 */
import { fileURLToPath } from "node:url";
import { must } from "../../src/errors.js";
import { writeJsonAtomically } from "../../src/io/atomic.js";
import type { MethodSelection } from "../../src/methods/compose.js";
import { drawUniform } from "../../src/methods/initial.js";
import { gathered } from "../../src/session/choice.js";
import { openSession } from "../../src/session/open.js";
import type { RunningSession } from "../../src/session/session.js";
import type { SessionBatch, SessionOptions } from "../../src/session/types.js";
import { chooseWith } from "../../src/testing/choice.js";
import { randomWeights, trainedModel, trainingOptions } from "../../src/testing/method-training.js";
import { describeMachine } from "../machine.js";

const length = 12;
const [drawn, taken, micro] = [128, 64, 8];
const [steps, seeds, gradientDraws] = [60, 5, 20];
const shares = [0.85, 0.05, 0.05, 0.05];
const table = { names: ["large", "small 1", "small 2", "small 3"], counts: shares.map((share) => share * 1e4) };
const tensor = "model.layers.1.self_attn.v_proj.weight";

/** Rows in which one of 16 tokens of the source follows another by a rule of its own; every eighth is noise. */
function rowsOf(name: string, count: number, source?: number): SessionBatch {
  const draws = drawUniform(3, name, count * (length + 2) * 2);
  let next = 0;
  const draw = (): number => must(draws[next++], "draw");
  const sources = new Int32Array(count);
  const tokens = new Int32Array(count * (length + 1));
  for (let row = 0; row < count; row++) {
    let left = draw();
    const found = shares.findIndex((share) => (left -= share) < 0);
    sources[row] = source ?? Math.max(0, found);
    let token = Math.floor(draw() * 16);
    for (let at = 0; at <= length; at++) {
      tokens[row * (length + 1) + at] = 16 * must(sources[row], "source") + token;
      token = draw() < 0.125 ? Math.floor(draw() * 16) : (token * (3 + 2 * must(sources[row], "source")) + 1) % 16;
    }
  }
  const of = (value: (row: number, at: number) => number): Int32Array =>
    Int32Array.from({ length: count * length }, (_, place) => value(Math.floor(place / length), place % length));
  return {
    ids: of((row, at) => must(tokens[row * (length + 1) + at], "token")),
    labels: of((row, at) => must(tokens[row * (length + 1) + at + 1], "token")),
    weights: new Float32Array(count * length).fill(1),
    positions: of((_, at) => at),
    segments: new Int32Array(count * length),
    sources,
  };
}

/** Rows as micro-batches. */
function parts(batch: SessionBatch, count: number): SessionBatch[] {
  const names = Object.keys(batch) as (keyof SessionBatch)[];
  return Array.from({ length: count / micro }, (_, part) => {
    const entries = names.map((name) => {
      const values = must(batch[name], name);
      const size = (values.length / count) * micro;
      return [name, values.slice(part * size, (part + 1) * size)] as const;
    });
    return Object.fromEntries(entries) as unknown as SessionBatch;
  });
}

interface Started {
  readonly session: RunningSession;
  readonly options: SessionOptions;
}

/** Full tuning in steps of so many rows, by CoLM if it has settings. */
async function start(settings: Readonly<Record<string, unknown>> | undefined, rows: number): Promise<Started> {
  const full: MethodSelection = { id: "full", settings: {} };
  const selection = settings === undefined ? [full] : [full, { id: "colm", settings }];
  const shape = { batch: micro, length, accumulate: rows / micro, segments: false };
  const options = trainingOptions({ selection, session: shape });
  const session = await openSession(options);
  await session.load(randomWeights(trainedModel));
  return { session, options };
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

function summary(values: readonly number[]): { readonly mean: number; readonly error: number } {
  const centre = mean(values);
  const variance = values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1);
  return { mean: centre, error: Math.sqrt(variance / values.length) };
}

type Kind = "chosen 64 of 128" | "random 64" | "all 128";

/** Losses on held-out rows after the same number of steps: of each source, and of the mixture. */
async function learn(kind: Kind, seed: number): Promise<{ readonly small: number; readonly overall: number }> {
  const { session } = await start(kind === "chosen 64 of 128" ? {} : undefined, kind === "all 128" ? drawn : taken);
  try {
    for (let step = 0; step < steps; step++) {
      const draw = parts(rowsOf(`train.${seed}.${step}`, drawn), drawn);
      const batches = kind === "random 64" ? draw.slice(0, taken / micro) : draw;
      await session.step(batches, { rate: 3e-3, step, sources: table });
    }
    const losses: number[] = [];
    for (const source of [0, 1, 2, 3]) {
      let [sum, weight] = [0, 0];
      for (const batch of parts(rowsOf(`held.${source}`, 64, source), 64)) {
        const { lossSum, weightSum } = await session.evaluate(batch);
        [sum, weight] = [sum + lossSum, weight + weightSum];
      }
      losses.push(sum / weight);
    }
    const overall = losses.reduce((sum, loss, source) => sum + loss * must(shares[source], "share"), 0);
    return { small: mean(losses.slice(1)), overall };
  } finally {
    session.close();
  }
}

/** The gradient of the probed tensor: of the mean loss of the tokens, which are `total`. */
async function gradientOf(
  session: RunningSession,
  batches: readonly SessionBatch[],
  total: number,
): Promise<Float64Array> {
  const sum = new Float64Array(session.bytes(tensor).byteLength / 4);
  for (const batch of batches) {
    const { gradient } = await session.run("colm.probe", batch, { step: 0 });
    must(gradient, "gradient").forEach((value, place) => (sum[place] = (sum[place] ?? 0) + value / total));
  }
  return sum;
}

/** Distances of the gradient of 64 rows from that of all 128, in as many draws while the model learns. */
async function gradientErrors(settings: Readonly<Record<string, unknown>>): Promise<Record<string, number[]>> {
  const { session, options } = await start({ data_selection_unit: "masked_grad", ...settings }, taken);
  const found: Record<"chosen" | "random", number[]> = { chosen: [], random: [] };
  try {
    for (let step = 0; step < gradientDraws; step++) {
      const draw = parts(rowsOf(`gradient.${step}`, drawn), drawn);
      const all = await gradientOf(session, draw, drawn * length);
      const keys = [...drawUniform(step, "random", drawn)].map((key, row) => ({ key, row }));
      const random = { rows: keys.sort((a, b) => a.key - b.key).slice(0, taken).map(({ row }) => row) }; // prettier-ignore
      const choices = { chosen: await chooseWith(session, options, draw, { step, sources: table }), random };
      for (const name of ["chosen", "random"] as const) {
        const { batches, total } = gathered(draw, choices[name], options);
        const own = await gradientOf(session, batches, total);
        found[name].push(Math.sqrt(own.reduce((sum, value, place) => sum + (value - (all[place] ?? 0)) ** 2, 0)));
      }
      await session.step(draw, { rate: 3e-3, step, sources: table });
    }
    return found;
  } finally {
    session.close();
  }
}

const kinds: readonly Kind[] = ["chosen 64 of 128", "random 64", "all 128"];
const learnt: Record<string, unknown> = {};
for (const kind of kinds) {
  const results: { small: number; overall: number }[] = [];
  for (let seed = 0; seed < seeds; seed++) results.push(await learn(kind, seed));
  learnt[kind] = {
    small: summary(results.map(({ small }) => small)),
    overall: summary(results.map(({ overall }) => overall)),
  };
  process.stdout.write(`${kind}: ${JSON.stringify(learnt[kind])}\n`);
}
const gradients: Record<string, unknown> = {};
for (const weighted of [false, true]) {
  const { chosen = [], random = [] } = await gradientErrors({ weighted });
  const closer = chosen.filter((error, step) => error < must(random[step], "error")).length;
  const name = weighted ? "weighted" : "unweighted";
  gradients[name] = { chosen: summary(chosen), random: summary(random), draws: gradientDraws, closer };
  process.stdout.write(`gradient error, ${name}: ${JSON.stringify(gradients[name])}\n`);
}
await writeJsonAtomically(fileURLToPath(new URL("../results/colm.json", import.meta.url)), {
  machine: describeMachine(),
  setting: { model: "two blocks of width 48, full tuning", length, steps, seeds, shares },
  losses: learnt,
  gradientErrors: gradients,
});
