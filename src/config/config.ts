import type { z } from "zod";
import { ThimbleError } from "../errors.js";
import { refuseConflicts } from "./conflicts.js";
import type { ConfigFile } from "./file.js";
import { flagName, normaliseKeys, unknownKey } from "./names.js";
import type { RunConfig } from "./schema.js";
import { runSchema } from "./schema.js";

export interface ConfigInput {
  readonly file?: ConfigFile;
  /** By flag name or key, with values as parsed by {@link parseFlag} or as typed by a caller of the API. */
  readonly flags?: Readonly<Record<string, unknown>>;
}

/**
 * The settings of a run from a file and flags; flags win, key by key, and `set` flags come after the file's. Throws
 * `config-unknown-key`, `config-repeated`, `config-value` or `config-conflict`, each with the place of the key.
 */
export function resolveConfig({ file, flags = {} }: ConfigInput): RunConfig {
  const fromFile = normaliseKeys(file?.values ?? {}, (name) => file?.where([name]) ?? name);
  const fromFlags = normaliseKeys(flags, (name) => `--${flagName(name)}`);
  const merged: Record<string, unknown> = {};
  for (const [key, { value }] of [...fromFile, ...fromFlags]) merged[key] = value;
  const sets = [fromFile.get("set")?.value, fromFlags.get("set")?.value].filter((value) => value !== undefined);
  if (sets.length > 0) merged["set"] = sets.flat();
  const where = (path: readonly PropertyKey[]): string => {
    const key = String(path[0] ?? "");
    const written = fromFile.get(key)?.name;
    if (fromFlags.has(key) || file === undefined || written === undefined) {
      return path.length === 0 ? "the settings" : `--${flagName(key)}`;
    }
    return file.where([written, ...path.slice(1)]);
  };
  const parsed = runSchema.safeParse(merged);
  if (!parsed.success) throw invalid(parsed.error, merged, where);
  refuseConflicts(parsed.data, (key) => where([key]));
  return parsed.data;
}

function invalid(error: z.ZodError, merged: unknown, where: (path: readonly PropertyKey[]) => string): ThimbleError {
  const faults = error.issues.map(deepest);
  const [first] = faults;
  if (first === undefined) return new ThimbleError("config-value", "The settings are not valid");
  if (first.code === "unrecognized_keys") {
    const key = first.keys[0] ?? "";
    const path = [...first.path, key];
    if (first.path.length === 0) return unknownKey(key, where(path));
    return new ThimbleError("config-unknown-key", `There is no setting "${path.map(String).join(".")}"`, {
      where: where(path),
      expected: "id, settings",
    });
  }
  const more = faults.length - 1;
  const given = valueAt(merged, first.path);
  return new ThimbleError("config-value", `${first.path.map(String).join(".")}: ${first.message}`, {
    where: where(first.path),
    ...(given === undefined ? {} : { given: JSON.stringify(given) }),
    ...(more === 0 ? {} : { fix: `There ${more === 1 ? "is one more fault" : `are ${more} more faults`} like this.` }),
  });
}

/** Of a union's fault, the one of the alternative that came furthest: "expected string" says more than "invalid". */
function deepest(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors
    .flat()
    .map((fault) => deepest({ ...fault, path: [...issue.path, ...fault.path] }))
    .sort(
      (a, b) => b.path.length - a.path.length || Number(a.code === "invalid_type") - Number(b.code === "invalid_type"),
    );
  return inner[0] ?? issue;
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let found = value;
  for (const key of path) {
    if (typeof found !== "object" || found === null) return undefined;
    found = (found as Record<PropertyKey, unknown>)[key];
  }
  return found;
}
