import { readFile, stat } from "node:fs/promises";
import type { LineCounter as LineCounterType, Node as YamlNode } from "yaml";
import { isNode, LineCounter, parseDocument } from "yaml";
import { ThimbleError } from "../errors.js";

/** A config file as parsed, with the place of every value for error messages. */
export interface ConfigFile {
  readonly values: Readonly<Record<string, unknown>>;
  /** `file:line: key` of a value by its path, or of the nearest value around it. */
  where(path: readonly PropertyKey[]): string;
}

/** No hand-written config is near this large. */
const sizeLimit = 2 ** 20;

/** Reads a YAML (or JSON) config file. Throws `config-file` for one that cannot be read or parsed. */
export async function readConfigFile(path: string): Promise<ConfigFile> {
  return parseConfigFile(await readText(path), path);
}

async function readText(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > sizeLimit) {
      throw new ThimbleError("config-file", "The config file is too large to be one", {
        where: path,
        given: `${size} bytes`,
        expected: `at most ${sizeLimit}`,
      });
    }
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof ThimbleError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new ThimbleError("config-file", "The config file cannot be read", {
      where: path,
      given: reason,
      cause: error,
    });
  }
}

/** Parses the text of a config file; `path` is for error messages. */
export function parseConfigFile(text: string, path: string): ConfigFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const [fault] = document.errors;
  if (fault !== undefined) {
    const reason = fault.message.split("\n")[0] ?? fault.message;
    throw new ThimbleError("config-file", "The config file is not valid YAML", {
      where: `${path}:${lines.linePos(fault.pos[0]).line}`,
      given: reason,
    });
  }
  const values = toPlain(document, path);
  const root = document.contents;
  return {
    values,
    where: (keys) => describePlace(path, isNode(root) ? root : undefined, lines, keys),
  };
}

function toPlain(document: ReturnType<typeof parseDocument>, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ThimbleError("config-file", "The config file cannot be resolved", { where: path, given: reason });
  }
  if (value === null || value === undefined) return {};
  if (typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ThimbleError("config-file", "The config file does not hold settings", {
    where: path,
    given: Array.isArray(value) ? "a list" : JSON.stringify(value),
    expected: "lines of the form key: value",
  });
}

function describePlace(
  path: string,
  root: YamlNode | undefined,
  lines: LineCounterType,
  keys: readonly PropertyKey[],
): string {
  const offset = root === undefined ? 0 : offsetOf(root, keys);
  return [`${path}:${lines.linePos(offset).line}`, keys.map(String).join(".")].filter((part) => part !== "").join(": ");
}

/** Where the key of a value stands, as far down the path as the file has it. */
function offsetOf(root: YamlNode, keys: readonly PropertyKey[]): number {
  let node: unknown = root;
  let offset = root.range?.[0] ?? 0;
  for (const key of keys) {
    const next = childOf(node, key);
    if (next === undefined) break;
    offset = next.offset;
    node = next.value;
  }
  return offset;
}

interface PairLike {
  readonly key: unknown;
  readonly value: unknown;
}

function childOf(node: unknown, key: PropertyKey): { offset: number; value: unknown } | undefined {
  if (typeof node !== "object" || node === null || !("items" in node) || !Array.isArray(node.items)) return undefined;
  const items = node.items as readonly unknown[];
  const element = typeof key === "number" ? items[key] : undefined;
  if (isNode(element)) return { offset: element.range?.[0] ?? 0, value: element };
  const pair = items.find(
    (item): item is PairLike =>
      typeof item === "object" && item !== null && "key" in item && "value" in item && String(item.key) === String(key),
  );
  if (pair === undefined) return undefined;
  return { offset: isNode(pair.key) ? (pair.key.range?.[0] ?? 0) : 0, value: pair.value };
}
