import { RE2JS, RE2JSSyntaxException } from "re2js";
import { ThimbleError } from "../errors.js";

/**
 * A regular expression on module paths, as a test. RE2's engine runs in linear time whatever the pattern, so one
 * from a downloaded file cannot hang; the price is that it knows no look-around and no back-references.
 */
function compile(pattern: string, where: string): (path: string) => boolean {
  if (pattern.length > 4096) {
    throw new ThimbleError("pattern", "The pattern is too long", { given: `${pattern.length} characters`, where });
  }
  try {
    const compiled = RE2JS.compile(pattern);
    return (path) => compiled.matches(path);
  } catch (error) {
    if (!(error instanceof RE2JSSyntaxException)) throw error;
    throw new ThimbleError("pattern", "The pattern is not a regular expression of RE2's syntax", {
      given: pattern,
      where,
      fix: "Look-around and back-references are not supported; leave modules out by exclude_modules instead.",
      cause: error,
    });
  }
}

/** Whether the whole path matches the pattern. */
export function fullMatch(pattern: string, where: string): (path: string) => boolean {
  return compile(pattern, where);
}

/**
 * PEFT's rule for rank_pattern and alpha_pattern: the value of the first key K for which `(.*\.)?(K)$` matches the
 * module path, else the global one.
 */
export function patternLookup(
  patterns: Readonly<Record<string, number>>,
  otherwise: number,
  where: string,
): (path: string) => number {
  const rules = Object.entries(patterns).map(([key, value]) => {
    return { matches: compile(`(?:.*\\.)?(?:${key})`, `${where}.${key}`), value };
  });
  return (path) => rules.find((rule) => rule.matches(path))?.value ?? otherwise;
}
