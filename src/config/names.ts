import { ThimbleError } from "../errors.js";
import { nearestName } from "../methods/nearest.js";
import { runKeys } from "./schema.js";

/** `weightDecay` as a flag writes it: `weight-decay`. */
export function flagName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `weight-decay`, `weight_decay` or `weightDecay` as `weightDecay`. */
export function keyName(name: string): string {
  return name.replace(/[-_]+([a-zA-Z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** The refusal of a key that no run has. */
export function unknownKey(name: string, where: string): ThimbleError {
  const nearest = nearestName(keyName(name), runKeys);
  return new ThimbleError("config-unknown-key", `There is no setting "${name}"`, {
    where,
    expected: runKeys.join(", "),
    ...(nearest === undefined ? {} : { fix: `Did you mean "${nearest}"?` }),
  });
}

/**
 * Settings under their keys, whichever spelling they came in. `where` names the place of a key for errors. Throws
 * `config-unknown-key`, or `config-repeated` where one setting is given in two spellings.
 */
export function normaliseKeys(
  values: Readonly<Record<string, unknown>>,
  where: (name: string) => string,
): Map<string, { readonly name: string; readonly value: unknown }> {
  const known = new Set<string>(runKeys);
  const normal = new Map<string, { name: string; value: unknown }>();
  for (const [name, value] of Object.entries(values)) {
    const key = keyName(name);
    if (!known.has(key)) throw unknownKey(name, where(name));
    const other = normal.get(key);
    if (other !== undefined) {
      throw new ThimbleError("config-repeated", `One setting is given twice, as "${other.name}" and as "${name}"`, {
        where: where(name),
      });
    }
    if (value !== undefined && value !== null) normal.set(key, { name, value });
  }
  return normal;
}
