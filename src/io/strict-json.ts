/** JSON from files that nobody vouches for. */
import { ThimbleError } from "../errors.js";

export interface JsonLimits {
  readonly code: string;
  readonly where: string;
  readonly depth: number;
}

/**
 * Parses JSON and refuses what `JSON.parse` lets pass: text that is not UTF-8, deep nesting, and an object that names
 * a key twice.
 */
export function parseStrictJson(bytes: Uint8Array, limits: JsonLimits): unknown {
  const text = decodeText(bytes, limits);
  checkStructure(text, limits);
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new ThimbleError(limits.code, "This is not valid JSON", { where: limits.where, given: String(cause), cause });
  }
}

function decodeText(bytes: Uint8Array, { code, where }: JsonLimits): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new ThimbleError(code, "This JSON is not UTF-8 text", { where, cause });
  }
}

/**
 * One pass over the text: depth, and the keys of every open object. What is malformed is left to `JSON.parse`. A loop
 * and not a regular expression, whose stack a string of many megabytes can exhaust.
 */
function checkStructure(text: string, limits: JsonLimits): void {
  const keys: Set<string>[] = [];
  for (let at = 0; at < text.length; at++) {
    const character = text.charAt(at);
    if (character === "{" || character === "[") {
      if (keys.push(new Set()) > limits.depth) {
        throw new ThimbleError(limits.code, "This JSON is nested too deeply", {
          where: limits.where,
          expected: `at most ${limits.depth} levels`,
        });
      }
    } else if (character === "}" || character === "]") keys.pop();
    else if (character === '"') {
      const end = endOfString(text, at);
      if (isBeforeColon(text, end)) checkKey(text.slice(at, end), keys.at(-1), limits);
      at = end - 1;
    }
  }
}

/** The position after the string that starts at `start`. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const character = text.charAt(at);
    if (character === "\\") at++;
    else if (character === '"') return at + 1;
  }
  return text.length;
}

function isBeforeColon(text: string, start: number): boolean {
  let at = start;
  while (at < text.length && " \t\n\r".includes(text.charAt(at))) at++;
  return text.charAt(at) === ":";
}

function checkKey(literal: string, keys: Set<string> | undefined, { code, where }: JsonLimits): void {
  const key = literal.includes("\\") ? unescaped(literal) : literal.slice(1, -1);
  if (keys === undefined || key === undefined) return;
  if (keys.has(key)) throw new ThimbleError(code, `The JSON names "${key}" twice in one object`, { where });
  keys.add(key);
}

function unescaped(literal: string): string | undefined {
  try {
    return JSON.parse(literal) as string;
  } catch {
    return undefined;
  }
}
