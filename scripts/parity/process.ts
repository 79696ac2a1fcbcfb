/** Running Thimble's command line, and other programs, as a user would. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

export interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export function runProgram(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (code) => {
      resolve({ status: code ?? 1, stdout, stderr });
    });
  });
}

/** A script of this repository in a process of its own. */
export function runScript(script: string, args: readonly string[], environment = {}): Promise<Ended> {
  return runProgram(process.execPath, ["--import", "tsx", script, ...args], environment);
}

/** `thimble ... --json`: the object that it prints. Throws with its words if it fails. */
export async function thimble(...args: readonly string[]): Promise<unknown> {
  const { status, stdout, stderr } = await runScript("src/cli/main.ts", [...args, "--json"]);
  if (status !== 0) throw new Error(`thimble ${args[0] ?? ""} ended with ${status}: ${stderr.slice(-2000)}`);
  return JSON.parse(stdout) as unknown;
}
