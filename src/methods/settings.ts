import type { z } from "zod";
import { ThimbleError } from "../errors.js";
import { nearestName } from "./nearest.js";

type Issue = z.core.$ZodIssue;

/**
 * Settings checked against a schema. The first fault becomes the error's message, with its place as
 * `<owner>.<key>`; an unknown key names the nearest valid one.
 */
export function parseSettings<Schema extends z.ZodObject>(
  owner: string,
  schema: Schema,
  given: unknown,
): z.infer<Schema> {
  const outcome = schema.safeParse(given);
  if (outcome.success) return outcome.data;
  const issue = outcome.error.issues[0];
  if (issue === undefined) throw new ThimbleError("settings", `The settings of ${owner} are not valid`);
  if (issue.code === "unrecognized_keys") throw unknownKey(owner, schema, issue.path, issue.keys);
  throw new ThimbleError("settings", `${owner}: ${issue.message}`, {
    where: [owner, ...issue.path.map(String)].join("."),
    given: shown(valueAt(given, issue)),
    ...(outcome.error.issues.length > 1
      ? { fix: `There are ${outcome.error.issues.length - 1} more faults: ${others(owner, outcome.error.issues)}` }
      : {}),
  });
}

function unknownKey(
  owner: string,
  schema: z.ZodObject,
  path: readonly PropertyKey[],
  keys: readonly string[],
): ThimbleError {
  const key = keys[0] ?? "";
  const valid = Object.keys(schema.shape);
  const nearest = path.length === 0 ? nearestName(key, valid) : undefined;
  return new ThimbleError("settings-unknown", `${owner} has no setting "${key}"`, {
    where: [owner, ...path.map(String), key].join("."),
    expected: valid.length === 0 ? "no settings" : valid.join(", "),
    ...(nearest === undefined ? {} : { fix: `Did you mean "${nearest}"?` }),
  });
}

function valueAt(given: unknown, issue: Issue): unknown {
  let value = given;
  for (const key of issue.path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function shown(value: unknown): string {
  const text = value === undefined ? "nothing" : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function others(owner: string, issues: readonly Issue[]): string {
  return issues
    .slice(1, 4)
    .map((issue) => `${[owner, ...issue.path.map(String)].join(".")}: ${issue.message}`)
    .join("; ");
}
