import { must, ThimbleError } from "../errors.js";
import { drawUniform } from "../methods/initial.js";
import type { EventContext, ProgramOutputs } from "../methods/programs.js";
import { programInput } from "../step/inputs.js";
import type { SessionPlan } from "./finish.js";
import { splitBatch } from "./split.js";
import type { SessionBatch, StepOptions } from "./types.js";

/** What running a method's own programs takes of a session. */
export interface ProgramHost {
  readonly plan: SessionPlan;
  bytes(name: string): Uint8Array;
  write(name: string, values: Float32Array): void;
  /** Writes a batch as it is, with raw weights. */
  writeBatch(batch: SessionBatch): void;
  run(program: string): Promise<void>;
  /** Bytes of an output of the program that ran last. */
  output(program: string, output: string): Uint8Array;
}

/** Runs a method's own program on each part of a batch: rows are put together, sums added up. */
export async function runProgram(
  host: ProgramHost,
  program: string,
  batch: SessionBatch,
  inputs: Readonly<Record<string, Float32Array>> = {},
): Promise<ProgramOutputs> {
  const { own, options, leaves } = host.plan;
  const found = must(
    own.find((one) => one.program.name === program),
    `program ${program}`,
  );
  for (const [name, values] of Object.entries(inputs)) {
    if (leaves.has(programInput(name))) host.write(programInput(name), values);
  }
  const names = found.program.phases.flatMap(({ outputs }) => Object.keys(outputs));
  const collected = new Map<string, Float32Array[]>(names.map((name) => [name, []]));
  for (const part of splitBatch(batch, options.split ?? 1)) {
    host.writeBatch(part);
    await host.run(program);
    for (const [name, parts] of collected) parts.push(asF32(host.output(program, name)).slice());
  }
  return Object.fromEntries(
    [...collected].map(([name, parts]) => [name, found.rows.includes(name) ? joined(parts) : added(parts)]),
  );
}

/** Numbers of a pass over the data that no step comes to: 2^40 micro-batches are more than any run has. */
const apart = 2 ** 40;

/** What methods see of a session beside its data; what they log goes into `logged`. */
export function hostContext(
  host: ProgramHost,
  step: number,
  logged: Record<string, number>,
): Omit<EventContext, "batch"> {
  const { seed } = host.plan.options;
  return {
    step,
    seed,
    run: (program, batch, inputs) => runProgram(host, program, batch, inputs),
    state: (name) => asF32(host.bytes(name)),
    bytes: (name) => host.bytes(name),
    uniform: (name, count) => drawUniform(seed, `${name}.${step}`, count),
    log: (name, value) => {
      logged[name] = value;
    },
  };
}

/** Runs the events that come before a step, one after the other; what they log, by name. */
export async function runEvents(
  host: ProgramHost,
  { step, data }: Pick<StepOptions, "step" | "data">,
): Promise<Record<string, number>> {
  const { methods, train } = host.plan.options;
  const logged: Record<string, number> = {};
  const due = train ? (methods?.events ?? []).filter((event) => event.due(step)) : [];
  const given: EventContext["batch"] = (index) => givenData(data)(apart + index);
  const context: EventContext = { ...hostContext(host, step, logged), batch: given };
  for (const event of due) await event.run(context);
  return logged;
}

function givenData(data: StepOptions["data"]): (index: number) => SessionBatch {
  if (data !== undefined) return data;
  throw new ThimbleError(
    "event-data",
    "A method looks at training data before this step, and the step was given none",
    {
      fix: "Pass the run's data to the step.",
    },
  );
}

function asF32(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const [first] = parts;
  if (first !== undefined && parts.length === 1) return first;
  return Float32Array.from(parts.flatMap((part) => [...part]));
}

function added(parts: readonly Float32Array[]): Float32Array {
  const [first, ...rest] = parts;
  return must(first, "a part").map((value, place) => rest.reduce((sum, part) => sum + (part[place] ?? 0), value));
}
