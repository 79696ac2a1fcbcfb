import { readFileSync } from "node:fs";
import { z } from "zod";

const mark = z.object({ speed: z.number(), memory: z.number() });

/** One row of the table, with what is asked of it. */
const row = mark.extend({
  method: z.enum(["full", "lora", "qlora", "mezo", "forward"]),
  dtype: z.enum(["f32", "bf16"]),
  batch: z.int(),
  seq: z.int(),
  goal: z.number().optional(),
  min: mark.optional(),
});

export const marksSchema = z.object({ note: z.string(), rows: z.array(row) });

export type Row = z.infer<typeof row>;
export type Marks = z.infer<typeof marksSchema>;
export type Method = Row["method"];

export function readMarks(path: string): Marks {
  return marksSchema.parse(JSON.parse(readFileSync(path, "utf8")));
}

/** The name of a row on the command line and in results: lora-bf16-4x256. */
export function rowName({ method, dtype, batch, seq }: Pick<Row, "method" | "dtype" | "batch" | "seq">): string {
  return `${method}-${dtype}-${batch}x${seq}`;
}

export const peers = ["thimble", "pytorch"] as const;
export type Peer = (typeof peers)[number];

/** What is run in a row, beside how often. */
export interface Contender {
  readonly peer: Peer;
  /** Thimble: default or min (the smallest memory budget). PyTorch: eager, or flags of the yardstick joined by +. */
  readonly variant: string;
}

/** Without a backward pass there is nothing to recompute in it. */
const forwardOnly: readonly Method[] = ["mezo", "forward"];

/** Everything that a row runs, in the order of a round: Thimble's and PyTorch's in turn. */
export function contendersOf(row: Row): Contender[] {
  const checkpointed = forwardOnly.includes(row.method) ? [] : ["checkpoint", "compile+checkpoint"];
  const pytorch = ["eager", "compile", ...checkpointed].map((variant) => ({ peer: "pytorch", variant }) as const);
  const thimble = (row.min === undefined ? ["default"] : ["default", "min"]).map(
    (variant) => ({ peer: "thimble", variant }) as const,
  );
  const order: Contender[] = [];
  for (let place = 0; place < Math.max(pytorch.length, thimble.length); place++) {
    order.push(...[thimble[place], pytorch[place]].filter((one) => one !== undefined));
  }
  return order;
}

/** Rough tokens a second of PyTorch on two cores, for estimates before anything is measured. */
const roughRate: Readonly<Record<Method, Readonly<Record<Row["dtype"], number>>>> = {
  full: { f32: 130, bf16: 350 },
  lora: { f32: 190, bf16: 350 },
  qlora: { f32: 150, bf16: 220 },
  mezo: { f32: 170, bf16: 300 },
  forward: { f32: 500, bf16: 1300 },
};
const longRate = 130;
const startSeconds = 15;
const compileSeconds = 120;

/** Seconds that one process will take, before any was measured. */
export function roughSeconds(row: Row, { peer, variant }: Contender, steps: number): number {
  const rate = row.seq > 1024 ? longRate : roughRate[row.method][row.dtype];
  const own = peer === "thimble" ? rate * 2 : rate;
  const setup = peer === "pytorch" && variant.includes("compile") ? compileSeconds : 0;
  return startSeconds + setup + (steps * row.batch * row.seq) / own;
}
