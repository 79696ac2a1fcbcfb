import { parse as parseYaml } from "yaml";
import { ThimbleError } from "../errors.js";
import type { MethodSelection } from "../methods/compose.js";
import { findMethod } from "../methods/compose.js";
import { nearestName } from "../methods/nearest.js";
import type { RunConfig } from "./schema.js";

/** The methods of a run with their settings: those of their entries, then those of `set`, later ones winning. */
export function methodSelections(config: Pick<RunConfig, "method" | "set">): MethodSelection[] {
  const selected = config.method.map((entry) =>
    typeof entry === "string" ? { id: entry, settings: {} } : { id: entry.id, settings: { ...entry.settings } },
  );
  for (const { id } of selected) findMethod(id);
  for (const assignment of config.set) apply(assignment, selected);
  return selected;
}

function apply(assignment: string, selected: readonly { id: string; settings: Record<string, unknown> }[]): void {
  const equals = assignment.indexOf("=");
  const dot = assignment.indexOf(".");
  const id = assignment.slice(0, dot);
  const key = assignment.slice(dot + 1, equals);
  const method = selected.find((entry) => entry.id === id);
  if (method === undefined) {
    const ids = selected.map((entry) => entry.id);
    const nearest = nearestName(id, ids);
    throw new ThimbleError("config-set", `set names a method that is not selected: "${id}"`, {
      where: `--set ${assignment}`,
      expected: ids.join(", "),
      fix: nearest === undefined ? `Add --method ${id}.` : `Did you mean "${nearest}"?`,
    });
  }
  method.settings[key] = readValue(assignment, assignment.slice(equals + 1));
}

/** A value as YAML reads it: numbers, booleans and [lists] are what they look like, the rest is text. */
function readValue(assignment: string, text: string): unknown {
  try {
    return parseYaml(text) as unknown;
  } catch (error) {
    throw new ThimbleError("config-set", "The value of set cannot be read", {
      where: `--set ${assignment}`,
      given: error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error),
      fix: "Put text with special characters in quotes.",
    });
  }
}
