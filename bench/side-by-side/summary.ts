import { z } from "zod";
import { median } from "../../src/train/measure.js";
import type { Machine } from "../machine.js";
import type { Peak } from "../peak.js";
import type { Figures, Measurement } from "./log.js";
import type { Contender, Marks, Peer, Row } from "./rows.js";
import { contendersOf, peers, rowName } from "./rows.js";

const contender = z.object({
  peer: z.enum(peers),
  variant: z.string(),
  /** Medians over the rounds; absent where no round gave figures. */
  tokensPerSecond: z.number().optional(),
  peakMiB: z.number().optional(),
  planMiB: z.number().optional(),
  rounds: z.number(),
  /** Slowest and fastest round. */
  range: z.tuple([z.number(), z.number()]).optional(),
  failure: z.string().optional(),
  /** The first round's. */
  losses: z.array(z.number()),
});

const ratios = z.object({
  /** The PyTorch variant that it is held against. */
  against: z.string(),
  speed: z.number(),
  memory: z.number(),
  speedMark: z.number(),
  memoryMark: z.number(),
  goal: z.number().optional(),
});

const summaryRow = z.object({
  name: z.string(),
  method: z.string(),
  dtype: z.string(),
  batch: z.number(),
  seq: z.number(),
  sittings: z.array(z.string()),
  steps: z.number(),
  /** Operations that a token cannot do without; see bench/flops.ts. */
  flopsPerToken: z.number(),
  contenders: z.array(contender),
  /** Largest difference of a loss from PyTorch's, relative; of the first step and of all. */
  lossDifference: z.object({ first: z.number(), all: z.number() }).optional(),
  tolerance: z.object({ first: z.number(), all: z.number() }),
  default: ratios.optional(),
  min: ratios.optional(),
  /** Why there are no ratios. */
  withheld: z.string().optional(),
});

export const summarySchema = z.object({
  version: z.string(),
  machine: z.record(z.string(), z.unknown()),
  /** Fewest rounds of any contender that gave figures. */
  rounds: z.number(),
  /** GFLOP/s that the machine's multipliers do at most. */
  peak: z.object({ threads: z.number(), f32: z.number(), bf16: z.number() }).optional(),
  /** Each time that the command was started, with the commit it ran and when it measured. */
  sittings: z.array(z.object({ started: z.string(), commits: z.array(z.string()), last: z.string() })),
  rows: z.array(summaryRow),
});

export type Summary = z.infer<typeof summarySchema>;
export type SummaryRow = Summary["rows"][number];
export type SummaryContender = z.infer<typeof contender>;
export type Ratios = z.infer<typeof ratios>;

/**
 * How far losses may lie from PyTorch's, relative. The first step is the same function of the same weights in each, but
 * for rounding; later ones differ where the methods draw random numbers (LoRA's A, MeZO's directions, from the first
 * step on) or round differently (bf16 weights, which Thimble rounds stochastically).
 */
export function toleranceOf({ method, dtype }: Pick<Row, "method" | "dtype">): { first: number; all: number } {
  if (method === "mezo") return { first: 0.02, all: 0.03 };
  if (method === "qlora") return { first: 0.01, all: 0.03 };
  if (dtype === "bf16") return { first: 0.005, all: method === "forward" ? 0.005 : 0.03 };
  return { first: 1e-4, all: method === "lora" ? 0.02 : 1e-3 };
}

function summarise(one: Contender, all: readonly Measurement[]): SummaryContender {
  const own = all.filter(({ peer, variant }) => peer === one.peer && variant === one.variant);
  const figures = own.map((measurement) => measurement.figures).filter((found) => found !== undefined);
  const middle = (of: (found: Figures) => number | undefined): number | undefined => {
    const values = figures.map(of).filter((value) => value !== undefined);
    return values.length === 0 ? undefined : median(values);
  };
  const speeds = figures.map(({ tokensPerSecond }) => tokensPerSecond);
  const failures = own.map((measurement) => measurement.failure).filter((reason) => reason !== undefined);
  const failure = failures.findLast((reason) => figures.length === 0 || !reason.startsWith("skipped"));
  const [tokensPerSecond, peakMiB] = [middle((found) => found.tokensPerSecond), middle((found) => found.peakMiB)];
  const planMiB = middle((found) => found.planMiB);
  return {
    ...one,
    rounds: figures.length,
    losses: [...(figures[0]?.losses ?? [])],
    ...(tokensPerSecond === undefined || peakMiB === undefined
      ? {}
      : { tokensPerSecond, peakMiB, range: [Math.min(...speeds), Math.max(...speeds)] as [number, number] }),
    ...(planMiB === undefined ? {} : { planMiB }),
    ...(failure === undefined ? {} : { failure }),
  };
}

type Measured = SummaryContender & { tokensPerSecond: number; peakMiB: number };

function measured(contenders: readonly SummaryContender[], peer: Peer): Measured[] {
  return contenders.filter(
    (one): one is Measured => one.peer === peer && one.tokensPerSecond !== undefined && one.peakMiB !== undefined,
  );
}

function best<Value>(values: readonly Value[], score: (value: Value) => number): Value | undefined {
  return values.reduce<Value | undefined>(
    (found, value) => (found === undefined || score(value) > score(found) ? value : found),
    undefined,
  );
}

function compare(own: Measured | undefined, other: Measured | undefined, mark: Row["min"]): Ratios | undefined {
  if (own === undefined || other === undefined || mark === undefined) return undefined;
  return {
    against: other.variant,
    speed: own.tokensPerSecond / other.tokensPerSecond,
    memory: own.peakMiB / other.peakMiB,
    speedMark: mark.speed,
    memoryMark: mark.memory,
  };
}

/** Largest relative difference between the losses of any two contenders, one of each peer. */
function lossDifference(contenders: readonly SummaryContender[]): { first: number; all: number } | undefined {
  const differences = measured(contenders, "thimble").flatMap((own) =>
    measured(contenders, "pytorch").map((other) =>
      other.losses.map((loss, step) => Math.abs((own.losses[step] ?? NaN) - loss) / Math.abs(loss)),
    ),
  );
  if (differences.length === 0) return undefined;
  const largest = (values: readonly number[]): number =>
    values.some((value) => Number.isNaN(value)) ? Infinity : Math.max(0, ...values);
  return { first: largest(differences.map((steps) => steps[0] ?? NaN)), all: largest(differences.flat()) };
}

function withholding(
  difference: { first: number; all: number } | undefined,
  tolerance: { first: number; all: number },
): string | undefined {
  if (difference === undefined) return undefined;
  const far = difference.first > tolerance.first || difference.all > tolerance.all;
  return far
    ? `the losses differ by ${difference.first.toExponential(1)} at first and ${difference.all.toExponential(1)} in all`
    : undefined;
}

/** Measurements with as many steps as the row's last has: those of another number of steps are of another time. */
function comparable(all: readonly Measurement[]): Measurement[] {
  return all.filter(({ steps }) => steps === all.at(-1)?.steps);
}

function summariseRow(row: Row, measurements: readonly Measurement[], flopsPerToken: number): SummaryRow {
  const all = comparable(measurements);
  const contenders = contendersOf(row).map((one) => summarise(one, all));
  const pytorch = measured(contenders, "pytorch");
  const own = (variant: string): Measured | undefined =>
    measured(contenders, "thimble").find((one) => one.variant === variant);
  const difference = lossDifference(contenders);
  const tolerance = toleranceOf(row);
  const withheld = withholding(difference, tolerance);
  const plain = compare(
    own("default"),
    best(pytorch, (one) => one.tokensPerSecond),
    row,
  );
  const min = compare(
    own("min"),
    best(pytorch, (one) => -one.peakMiB),
    row.min,
  );
  const { method, dtype, batch, seq, goal } = row;
  return {
    ...{ name: rowName(row), method, dtype, batch, seq },
    sittings: [...new Set(all.map(({ sitting }) => sitting))],
    steps: all[0]?.steps ?? 0,
    flopsPerToken,
    contenders,
    ...(difference === undefined ? {} : { lossDifference: difference }),
    tolerance,
    ...(plain === undefined || withheld !== undefined
      ? {}
      : { default: { ...plain, ...(goal === undefined ? {} : { goal }) } }),
    ...(min === undefined || withheld !== undefined ? {} : { min }),
    ...(withheld === undefined ? {} : { withheld }),
  };
}

function sittingsOf(all: readonly Measurement[]): Summary["sittings"] {
  return [...new Set(all.map(({ sitting }) => sitting))].sort().map((started) => {
    const own = all.filter(({ sitting }) => sitting === started);
    const last = own.reduce((latest, { time }) => (time > latest ? time : latest), started);
    return { started, commits: [...new Set(own.map(({ commit }) => commit))], last };
  });
}

export interface SummaryFacts {
  readonly version: string;
  readonly machine: Machine;
  readonly peak: Peak | undefined;
  readonly flopsOf: (row: Row) => number;
}

/** All rows that have measurements. */
export function summariseAll(marks: Marks, all: readonly Measurement[], facts: SummaryFacts): Summary {
  const rows = marks.rows
    .map((row) => [row, all.filter((one) => one.row === rowName(row))] as const)
    .filter(([, own]) => own.length > 0)
    .map(([row, own]) => summariseRow(row, own, facts.flopsOf(row)));
  const rounds = rows.flatMap(({ contenders }) => contenders.map((one) => one.rounds).filter((count) => count > 0));
  return {
    version: facts.version,
    machine: { ...facts.machine },
    rounds: Math.min(...rounds, all.length),
    ...(facts.peak === undefined ? {} : { peak: facts.peak }),
    sittings: sittingsOf(all),
    rows,
  };
}
