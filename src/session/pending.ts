import { ThimbleError } from "../errors.js";

/** The refusal to read weights that lack their last update. */
export function pendingError(reader: string): ThimbleError {
  return new ThimbleError("weights-pending", "The last update has not been applied to the weights yet", {
    where: reader,
    fix: "Let the session settle first, or leave zo2's auto_flush on.",
  });
}
