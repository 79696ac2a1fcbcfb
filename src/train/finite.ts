import { ThimbleError } from "../errors.js";
import type { StateHolder } from "./state-file.js";
import { changingTensors } from "./state-file.js";

/** Name of the first trained tensor or optimizer state that holds NaN or an infinity; undefined where none does. */
export function findNonFinite(session: StateHolder): string | undefined {
  return changingTensors(session).find(
    ({ name, format }) => !allFinite(session.peek?.(name) ?? session.bytes(name), format),
  )?.name;
}

/** Whether every exponent is below the one of infinities and NaN. */
function allFinite(bytes: Uint8Array, format: string): boolean {
  if (format === "f32") {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    for (const word of words) if ((word & 0x7f800000) === 0x7f800000) return false;
  } else if (format === "bf16") {
    const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
    for (const word of words) if ((word & 0x7f80) === 0x7f80) return false;
  } else if (format === "f16") {
    const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
    for (const word of words) if ((word & 0x7c00) === 0x7c00) return false;
  }
  return true;
}

/** Before the first update, no setting of the training can be the cause. */
const nothingTrained =
  "Nothing has trained yet, so weights of the model or the adapter are likely broken: fetch them again.";

/** Where a run that broke can be taken up again, as a sentence. */
function advice(lastCheckpoint: string | undefined): string {
  const kept = lastCheckpoint === undefined ? "" : ` The last good state is in ${lastCheckpoint}.`;
  return `Lower --lr, set --clip 1, or look for empty or broken records with \`thimble data\`.${kept}`;
}

/** The end of a run whose loss is no number: nothing is saved, what was saved before stays. */
export function lossNotFinite(loss: number, step: number, lastCheckpoint: string | undefined): ThimbleError {
  return new ThimbleError("loss-not-finite", `The loss of step ${step} is not a finite number`, {
    given: String(loss),
    fix: step === 1 ? nothingTrained : advice(lastCheckpoint),
  });
}

/** The end of a run whose weights broke while the loss was still a number. */
export function weightsNotFinite(tensor: string, step: number, lastCheckpoint: string | undefined): ThimbleError {
  return new ThimbleError(
    "weights-not-finite",
    `After step ${step} a trained tensor holds values that are not finite`,
    {
      given: tensor,
      fix: advice(lastCheckpoint),
    },
  );
}
