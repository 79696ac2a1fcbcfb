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

/** One pass over the tokens: depth, and the keys of every open object. What is malformed is left to `JSON.parse`. */
function checkStructure(text: string, limits: JsonLimits): void {
  const keys: Set<string>[] = [];
  const tokens = /"(?:[^"\\]|\\.)*"\s*(:)?|[{}[\]]/gsy;
  const skip = /[^"{}[\]]+/gy;
  for (let at = 0; at < text.length;) {
    skip.lastIndex = at;
    if (skip.test(text)) at = skip.lastIndex;
    tokens.lastIndex = at;
    const match = tokens.exec(text);
    if (match === null) return;
    at = tokens.lastIndex;
    const token = match[0];
    if (token === "{" || token === "[") {
      keys.push(new Set());
      if (keys.length > limits.depth) {
        throw new ThimbleError(limits.code, "This JSON is nested too deeply", {
          where: limits.where,
          expected: `at most ${limits.depth} levels`,
        });
      }
    } else if (token === "}" || token === "]") keys.pop();
    else if (match[1] === ":") checkKey(token.slice(0, token.lastIndexOf('"') + 1), keys.at(-1), limits);
  }
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
