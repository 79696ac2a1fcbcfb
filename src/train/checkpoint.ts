import { join } from "node:path";
import { ThimbleError } from "../errors.js";
import type { FileSystem } from "./files.js";
import { isMissing, namesIn, replaceFolder, syncFolder } from "./files.js";
import type { Manifest } from "./manifest.js";
import { brokenCheckpoint, decodeManifest, encodeManifest, manifestLimit } from "./manifest.js";
import type { StateHolder } from "./state-file.js";
import { changingTensors, readState, writeState } from "./state-file.js";

const manifestName = "manifest.json";
const stateName = "state.bin";
const folderPattern = /^checkpoint-(\d{6,})$/;
/** Folders that are being made or thrown away: never read, removed when a run resumes. */
const unfinished = ".unfinished-";

export interface Checkpoint {
  readonly folder: string;
  readonly manifest: Manifest;
}

export function checkpointName(step: number): string {
  return `checkpoint-${String(step).padStart(6, "0")}`;
}

/**
 * Writes a checkpoint so that it is there whole or not at all: state and manifest go into a folder of another name,
 * are made to last, and get their name at the end. Returns the folder.
 */
export async function writeCheckpoint(
  files: FileSystem,
  out: string,
  session: StateHolder,
  manifest: Omit<Manifest, "format" | "version" | "tensors">,
): Promise<string> {
  const name = checkpointName(manifest.step);
  const made = join(out, `${unfinished}${name}`);
  await files.rm(made, { recursive: true, force: true });
  await files.mkdir(made, { recursive: true });
  const tensors = await writeState(files, join(made, stateName), session);
  const text = encodeManifest({ format: "thimble-checkpoint", version: 1, ...manifest, tensors });
  const handle = await files.open(join(made, manifestName), "wx");
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncFolder(files, made);
  await replaceFolder(files, made, join(out, name), join(out, `${unfinished}old-${name}`));
  await syncFolder(files, out);
  return join(out, name);
}

/** Removes all checkpoints but the last `keep`, and never the one of `step`. */
export async function pruneCheckpoints(files: FileSystem, out: string, keep: number, step: number): Promise<void> {
  const found = await listCheckpoints(files, out);
  // Steps above the current one are damaged leftovers that the run has fallen back from.
  const before = found.filter((entry) => entry.step <= step).slice(keep);
  for (const entry of [...before, ...found.filter((other) => other.step > step)]) {
    const gone = join(out, `${unfinished}old-${checkpointName(entry.step)}`);
    await files.rm(gone, { recursive: true, force: true });
    await files.rename(entry.folder, gone);
    await files.rm(gone, { recursive: true, force: true });
  }
}

/** Removes what a killed run left half made. */
export async function removeUnfinished(files: FileSystem, out: string): Promise<void> {
  for (const name of await namesIn(files, out)) {
    if (name.startsWith(unfinished)) await files.rm(join(out, name), { recursive: true, force: true });
  }
}

/** Folders that are named like checkpoints, the latest first; whether they are whole is not known. */
async function listCheckpoints(files: FileSystem, out: string): Promise<{ step: number; folder: string }[]> {
  const names = await namesIn(files, out);
  const found = names.flatMap((name) => {
    const digits = folderPattern.exec(name)?.[1];
    return digits === undefined ? [] : [{ step: Number(digits), folder: join(out, name) }];
  });
  return found.sort((a, b) => b.step - a.step);
}

/** Reads a checkpoint's manifest and checks every byte of its state. Throws `checkpoint-broken`. */
export async function verifyCheckpoint(files: FileSystem, folder: string): Promise<Checkpoint> {
  const manifest = await readManifest(files, join(folder, manifestName));
  if (checkpointName(manifest.step) !== folder.replaceAll("\\", "/").split("/").at(-1)) {
    throw brokenCheckpoint(folder, `a manifest of step ${manifest.step}`);
  }
  await readState(files, join(folder, stateName), manifest);
  return { folder, manifest };
}

async function readManifest(files: FileSystem, path: string): Promise<Manifest> {
  let text: string;
  try {
    const { size } = await files.stat(path);
    if (size > manifestLimit) throw brokenCheckpoint(path, `${size} bytes`, `at most ${manifestLimit} bytes`);
    text = await files.readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) throw brokenCheckpoint(path, "no manifest");
    throw error;
  }
  return decodeManifest(text, path);
}

/**
 * The latest whole checkpoint of a run's folder; undefined where there is none at all. Damaged ones are passed over,
 * with a call of `onDamaged` each; if no whole one is left, the error of the latest is thrown.
 */
export async function latestCheckpoint(
  files: FileSystem,
  out: string,
  onDamaged: (error: ThimbleError) => void,
): Promise<Checkpoint | undefined> {
  const errors: ThimbleError[] = [];
  for (const { folder } of await listCheckpoints(files, out)) {
    try {
      const checkpoint = await verifyCheckpoint(files, folder);
      for (const error of errors) onDamaged(error);
      return checkpoint;
    } catch (error) {
      if (!(error instanceof ThimbleError) || error.code !== "checkpoint-broken") throw error;
      errors.push(error);
    }
  }
  const [latest] = errors;
  if (latest !== undefined) throw latest;
  return undefined;
}

/** Puts a checkpoint's tensors into their places. Throws `checkpoint-mismatch` where the session has others. */
export async function restoreCheckpoint(
  files: FileSystem,
  { folder, manifest }: Checkpoint,
  session: StateHolder,
): Promise<void> {
  const expected = changingTensors(session);
  const describe = ({ name, format, shape, bytes }: Omit<Manifest["tensors"][number], "sha256">): string =>
    `${name} ${format} [${shape.join(", ")}], ${bytes} bytes`;
  const wanted = expected.map((tensor) => describe({ ...tensor, shape: [...tensor.shape] }));
  const held = manifest.tensors.map(describe);
  const place = wanted.findIndex((text, index) => text !== held[index]);
  if (place >= 0 || held.length !== wanted.length) {
    const index = place >= 0 ? place : wanted.length;
    throw new ThimbleError("checkpoint-mismatch", "The checkpoint holds other tensors than this run trains", {
      where: folder,
      given: held[index] ?? "no more tensors",
      expected: wanted[index] ?? "no more tensors",
      fix: "Resume with the model, method and settings of the run that wrote it.",
    });
  }
  await readState(files, join(folder, stateName), manifest, {
    of: ({ name }) => session.peek?.(name) ?? session.bytes(name),
    read: ({ name }, bytes) => session.put?.(name, bytes),
  });
}
