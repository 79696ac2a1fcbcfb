import { execFile } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { promisify } from "node:util";
import { ThimbleError } from "../errors.js";
import { compilerAdvice } from "./platform.js";

const run = promisify(execFile);

/** A C compiler that answered when asked for its version. */
export interface Compiler {
  /** The full path of the program to start. */
  readonly path: string;
  /** What comes before the flags: `["cc"]` for `zig cc`. */
  readonly prefix: readonly string[];
  /** The first line of its `--version`. */
  readonly version: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

const candidates: readonly (readonly string[])[] = [
  ["cc"],
  ["gcc"],
  ["clang"],
  ["zig", "cc"],
  ["python3", "-m", "ziglang", "cc"],
  ["python", "-m", "ziglang", "cc"],
];

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** The full path that a shell would start for `name`, or undefined. */
function resolveProgram(name: string, environment: Environment): string | undefined {
  const suffixes = process.platform === "win32" ? ["", ".exe", ".cmd"] : [""];
  const directories =
    isAbsolute(name) || /[/\\]/.test(name)
      ? [""]
      : (environment["PATH"] ?? "").split(delimiter).filter((directory) => directory !== "");
  const paths = directories.flatMap((directory) => suffixes.map((suffix) => join(directory, name + suffix)));
  return paths.find(isProgram);
}

/** Keeps texts from one process to the next: gives the text kept under a key, or makes and keeps it. */
export type Remember = (key: string, make: () => Promise<string | undefined>) => Promise<string | undefined>;

async function versionOf(
  path: string,
  prefix: readonly string[],
  environment: Environment,
): Promise<string | undefined> {
  try {
    const { stdout } = await run(path, [...prefix, "--version"], { timeout: 60_000, env: { ...environment } });
    return stdout.split("\n")[0]?.trim();
  } catch {
    return undefined;
  }
}

async function probe(
  command: readonly string[],
  environment: Environment,
  remember: Remember,
): Promise<Compiler | undefined> {
  const [name = "", ...prefix] = command;
  const path = resolveProgram(name, environment);
  if (path === undefined) return undefined;
  const { mtimeMs, size } = statSync(path);
  const key = JSON.stringify([path, prefix, mtimeMs, size]);
  const version = await remember(key, () => versionOf(path, prefix, environment));
  return version === undefined || version === "" ? undefined : { path, prefix, version };
}

/**
 * The C compiler to use: `CC` if it is set, else the first that works of cc, gcc, clang, `zig cc`, and the zig that
 * the Python package `ziglang` brings. Some take a second to tell their version, so it may be remembered.
 */
export async function findCompiler(
  environment: Environment = process.env,
  remember: Remember = (_key, make) => make(),
): Promise<Compiler> {
  const chosen = environment["CC"]?.trim() ?? "";
  if (chosen !== "") {
    const compiler = await probe(chosen.split(/\s+/), environment, remember);
    if (compiler !== undefined) return compiler;
    throw new ThimbleError("compiler-missing", "The compiler that CC names does not run", {
      given: `CC=${chosen}`,
      expected: "a C compiler that answers to --version",
      fix: `Correct CC, or unset it to let Thimble look for one. ${compilerAdvice()}`,
    });
  }
  for (const candidate of candidates) {
    const compiler = await probe(candidate, environment, remember);
    if (compiler !== undefined) return compiler;
  }
  throw new ThimbleError("compiler-missing", "No C compiler was found", {
    given: `PATH=${environment["PATH"] ?? ""}`,
    expected: `one of ${candidates.map((candidate) => `\`${candidate.join(" ")}\``).join(", ")}`,
    fix: compilerAdvice(),
  });
}
