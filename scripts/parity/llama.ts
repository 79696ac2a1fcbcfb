/** node-llama-cpp, installed outside the repository with its prebuilt CPU binary, and nothing downloaded or built. */
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Context } from "./check.js";
import { Skip } from "./check.js";
import type { LlamaRequest } from "./llama-tokens.js";
import { runProgram, runScript } from "./process.js";

const script = fileURLToPath(new URL("llama-tokens.ts", import.meta.url));
const systems: Readonly<Partial<Record<NodeJS.Platform, string>>> = { linux: "linux", darwin: "mac", win32: "win" };

/** A folder whose node_modules has the library. Skips where npm cannot bring it. */
async function installed({ llama, work }: Context): Promise<string> {
  if (llama !== undefined) return llama;
  const folder = join(work, "llama");
  if (existsSync(join(folder, "node_modules", "node-llama-cpp"))) return folder;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "package.json"), '{"private":true}\n');
  const binary = `@node-llama-cpp/${systems[process.platform] ?? process.platform}-${process.arch}`;
  const flags = ["--prefix", folder, "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"];
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const skip = { NODE_LLAMA_CPP_SKIP_DOWNLOAD: "true" };
  const { status, stderr } = await runProgram(npm, ["install", ...flags, "node-llama-cpp", binary], skip);
  if (status === 0) return folder;
  const reason = stderr.split("\n").find((line) => line.includes("npm error")) ?? stderr.slice(0, 200);
  throw new Skip(`node-llama-cpp does not install here: ${reason}`);
}

export interface LlamaResult {
  /** New tokens of each prompt. */
  readonly results: readonly (readonly number[])[];
  /** The ids of the text. */
  readonly encoded: readonly number[];
}

/** Runs prompts greedily in llama.cpp. */
export async function llamaTokens(context: Context, request: LlamaRequest): Promise<LlamaResult> {
  const folder = await installed(context);
  const path = join(context.work, "llama-request.json");
  await writeFile(path, JSON.stringify(request));
  const { status, stdout, stderr } = await runScript(script, [folder, path]);
  if (status === 0) return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as LlamaResult;
  const words = stderr.trim().slice(-600);
  if (/NoBinaryFound|GLIBC|ERR_MODULE_NOT_FOUND/.test(words)) throw new Skip(`node-llama-cpp does not load: ${words}`);
  throw new Error(`llama.cpp refused the file: ${words}`);
}
