import { spawn } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export interface KillOptions {
  /** Flags of the run, without out and resume. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly steps: number;
  /** A folder for the runs. */
  readonly folder: string;
  readonly kills: number;
  /** A number in [0, 1), each time another. */
  readonly random: () => number;
  readonly onEvent?: (text: string) => void;
}

export interface KillReport {
  readonly kills: number;
  /** Runs that came to their end after kills, all equal to the straight one. */
  readonly finished: number;
  /** The last step that was seen done before each kill; 0 where the process had done none. */
  readonly at: readonly number[];
}

interface Ending {
  readonly done: boolean;
  readonly lastStep: number;
  readonly milliseconds: number;
}

const child = fileURLToPath(new URL("kill-child.ts", import.meta.url));

/** Runs the training in a process of its own; `kill` says when to end it with SIGKILL. */
async function runChild(
  flags: Readonly<Record<string, unknown>>,
  kill: { readonly afterMilliseconds?: number; readonly afterStep?: number; readonly delay?: number } = {},
): Promise<Ending> {
  const started = performance.now();
  const running = spawn(process.execPath, ["--import", "tsx", child, JSON.stringify(flags)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [text, errors, lastStep] = ["", "", 0];
  const end = (): void => {
    running.kill("SIGKILL");
  };
  const timer = kill.afterMilliseconds === undefined ? undefined : setTimeout(end, kill.afterMilliseconds);
  running.stdout.on("data", (data: Buffer) => {
    text += data.toString();
    lastStep = Number(/step (\d+)\n(?!.*step)/s.exec(text)?.[1] ?? lastStep);
    if (kill.afterStep !== undefined && lastStep >= kill.afterStep) void sleep(kill.delay ?? 0).then(end);
  });
  running.stderr.on("data", (data: Buffer) => (errors += data.toString()));
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    running.on("close", (status, by) => {
      resolve([status, by]);
    });
  });
  clearTimeout(timer);
  if (code !== 0 && signal !== "SIGKILL") throw new Error(`the run failed: ${errors}`);
  return { done: text.endsWith("done\n"), lastStep, milliseconds: performance.now() - started };
}

async function outcome(out: string): Promise<{ losses: number[]; adapter: string }> {
  const lines = (await readFile(join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
  const records = lines.map((line) => JSON.parse(line) as { step: number; loss?: number });
  const adapter = await readFile(join(out, "adapter", "adapter_model.safetensors"));
  return { losses: records.flatMap(({ loss }) => loss ?? []), adapter: adapter.toString("base64") };
}

/**
 * Kills a run with SIGKILL at random moments (of its whole life, and just after steps, when it writes) and resumes it
 * each time, over and over. Throws unless every run that comes to its end has the losses and the adapter of one that
 * was left alone, bit for bit.
 */
export async function killRuns(options: KillOptions): Promise<KillReport> {
  const { flags, steps, folder, kills, random, onEvent = () => undefined } = options;
  const settings = { ...flags, steps };
  const straightOut = join(folder, "straight");
  await runChild({ ...settings, out: straightOut });
  const straight = await outcome(straightOut);
  const { milliseconds } = await runChild({ ...settings, out: straightOut, resume: true, steps });
  const lifetime = milliseconds * 1.5;
  onEvent(`straight: ${straight.losses.length} steps`);
  const at: number[] = [];
  let finished = 0;
  const out = join(folder, "killed");
  for (let last = false; !last || finished === 0;) {
    last = at.length >= kills;
    const timed = { afterMilliseconds: random() * lifetime };
    const stepped = { afterStep: Math.ceil(random() * steps), delay: random() * 40 };
    const ending = await runChild({ ...settings, out, resume: true }, last ? {} : random() < 0.4 ? timed : stepped);
    if (!ending.done) {
      at.push(ending.lastStep);
      onEvent(`kill ${at.length}: after step ${ending.lastStep}`);
      continue;
    }
    compare(straight, await outcome(out));
    finished++;
    onEvent(`finished run ${finished}: equal`);
    await rm(out, { recursive: true });
  }
  return { kills: at.length, finished, at };
}

function compare(straight: { losses: number[]; adapter: string }, killed: typeof straight): void {
  const place = straight.losses.findIndex((loss, index) => loss !== killed.losses[index]);
  if (place >= 0 || straight.losses.length !== killed.losses.length) {
    throw new Error(`the losses differ from step ${place + 1}`);
  }
  if (straight.adapter !== killed.adapter) throw new Error("the adapters differ");
}
