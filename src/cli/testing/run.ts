import { Readable, Writable } from "node:stream";
import { runCli } from "../program.js";
import type { World } from "../terminal.js";

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface FakeWorld {
  readonly stdin?: string;
  readonly tty?: boolean;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Gets a function that presses Ctrl-C. */
  readonly onReady?: (interrupt: () => void) => void;
  /** Called with each piece of output for people. */
  readonly onOutput?: (text: string, interrupt: () => void) => void;
}

/** A world of strings, and what was written to it. */
export function fakeWorld({ stdin = "", tty = false, environment = process.env, onReady, onOutput }: FakeWorld = {}): {
  readonly world: World;
  readonly written: { stdout: string; stderr: string; aborted: number | undefined };
} {
  const written: { stdout: string; stderr: string; aborted: number | undefined } = {
    stdout: "",
    stderr: "",
    aborted: undefined,
  };
  const handlers = new Set<() => void>();
  const interrupt = (): void => {
    for (const handler of handlers) handler();
  };
  onReady?.(interrupt);
  const stream = (name: "stdout" | "stderr"): Writable & { isTTY: boolean; columns: number } =>
    Object.assign(
      new Writable({
        write: (chunk: Buffer, _encoding, done) => {
          written[name] += chunk.toString();
          done();
          onOutput?.(chunk.toString(), interrupt);
        },
      }),
      { isTTY: tty, columns: 80 },
    );
  const world: World = {
    stdin: Readable.from([stdin]),
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    environment,
    onInterrupt: (handler) => {
      handlers.add(handler);
      return () => handlers.delete(handler);
    },
    abort: (status) => {
      written.aborted = status;
    },
  };
  return { world, written };
}

/** Runs a command line in a world of strings. */
export async function run(argv: readonly string[], options: FakeWorld = {}): Promise<Outcome> {
  const { world, written } = fakeWorld(options);
  const status = await runCli(argv, world);
  return { status, stdout: written.stdout, stderr: written.stderr };
}

/** The one object that a command with --json prints; fails where stdout is anything but one line. */
export function jsonOf({ stdout }: Outcome): Record<string, unknown> {
  const lines = stdout.split("\n");
  if (lines.length !== 2 || lines[1] !== "") throw new Error(`stdout is not one line: ${stdout}`);
  return JSON.parse(lines[0] ?? "") as Record<string, unknown>;
}
