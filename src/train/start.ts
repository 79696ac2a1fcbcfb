import { ThimbleError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import { latestCheckpoint, removeUnfinished } from "./checkpoint.js";
import type { FileSystem } from "./files.js";
import { namesIn } from "./files.js";
import { checkResume } from "./identity.js";
import type { Environment, PreparedRun, TrainEvents } from "./types.js";

/**
 * Decides where a run starts, before any weight is read: at a checkpoint of its out folder, or at step 0 (undefined).
 * Refuses a folder with files in it unless the run resumes, and a checkpoint that another run wrote.
 */
export async function findStart(
  run: PreparedRun,
  { files }: Pick<Environment, "files">,
  events: TrainEvents,
): Promise<Checkpoint | undefined> {
  const { out, resume, steps } = run.loop;
  if (!resume) {
    await refuseUsedFolder(files, out);
    return undefined;
  }
  await removeUnfinished(files, out);
  const checkpoint = await latestCheckpoint(files, out, (error) => events.onDamaged?.(error));
  if (checkpoint === undefined) {
    events.onNotice?.({ code: "resume-empty", message: `${out} holds no checkpoint yet: the run starts at step 1.` });
    return undefined;
  }
  const { identity, machine, factor } = run;
  const inexact = checkResume(checkpoint, { run: identity, machine, factor, steps });
  if (inexact !== undefined) events.onNotice?.({ code: "resume-inexact", message: inexact });
  events.onResume?.({ step: checkpoint.manifest.step, folder: checkpoint.folder });
  return checkpoint;
}

/** Refuses an out folder that holds anything. */
export async function refuseUsedFolder(files: FileSystem, out: string): Promise<void> {
  const count = (await namesIn(files, out)).length;
  if (count === 0) return;
  throw new ThimbleError("out-not-empty", "The out folder is not empty", {
    where: out,
    given: `${count} entries`,
    expected: "an empty folder, or none",
    fix: "Give another --out, or --resume to go on with the run that is in it.",
  });
}
