import { spawn } from "node:child_process";

/** What a program printed last, or why it did not. */
export type Outcome =
  { readonly kind: "done"; readonly lastLine: string } | { readonly kind: "failed"; readonly reason: string };

/** Lets an interrupt end what is running, too: what is started below has a process group of its own. */
export function endChildrenOnInterrupt(): void {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
}

const keptCharacters = 1 << 16;

/** Runs a program to its end, or ends it and its children after so many seconds. */
export function runProgram(
  command: string,
  parameters: readonly string[],
  { seconds, environment = {} }: { seconds: number; environment?: Readonly<Record<string, string>> },
): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(command, parameters, {
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
      env: { ...process.env, ...environment },
    });
    let [out, err, late] = ["", "", false];
    const end = (): void => {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    };
    const timer = setTimeout(() => {
      late = true;
      end();
    }, seconds * 1000);
    process.once("exit", end);
    child.stdout.on("data", (chunk: Buffer) => (out = (out + chunk.toString()).slice(-keptCharacters)));
    child.stderr.on("data", (chunk: Buffer) => (err = (err + chunk.toString()).slice(-keptCharacters)));
    const finish = (outcome: Outcome): void => {
      clearTimeout(timer);
      process.removeListener("exit", end);
      resolve(outcome);
    };
    child.on("error", (error) => {
      finish({ kind: "failed", reason: error.message });
    });
    child.on("close", (code, signal) => {
      const lastLine = lastOf(out);
      if (late) finish({ kind: "failed", reason: `took more than ${seconds} s` });
      else if (code === 0 && lastLine !== "") finish({ kind: "done", lastLine });
      else finish({ kind: "failed", reason: reasonOf(out, err, String(signal ?? code)) });
    });
  });
}

function lastOf(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

const longestReason = 300;

/** A refusal in JSON, else the last line of the log. */
function reasonOf(out: string, err: string, status: string): string {
  try {
    const { error } = JSON.parse(lastOf(out)) as { error?: { code: string; message: string } };
    if (error !== undefined) return `${error.code}: ${error.message}`;
  } catch {
    // Not a refusal in JSON: the log says why.
  }
  return `ended with ${status}: ${lastOf(err).slice(0, longestReason)}`;
}
