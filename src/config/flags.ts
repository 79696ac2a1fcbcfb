import { ThimbleError } from "../errors.js";
import { flagName } from "./names.js";
import type { RunKey } from "./schema.js";
import { runJsonSchema, runKeys } from "./schema.js";

/** A setting as a command line has it, derived from the schema. */
export interface FlagSpec {
  readonly key: RunKey;
  /** With its dashes, as in `--weight-decay`. */
  readonly flag: string;
  readonly kind: "text" | "number" | "integer" | "switch";
  /** What stands for the value in help texts, as in `<N>`; empty for a switch. */
  readonly placeholder: string;
  readonly repeatable: boolean;
  /** Whether text that looks like a number is one. */
  readonly numeric: boolean;
  readonly choices?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default?: unknown;
  readonly description: string;
}

interface Property {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly { readonly type?: string }[];
  readonly minimum?: number;
  readonly maximum?: number;
}

/** Every setting as a flag, in the order of help texts. */
export const runFlags: readonly FlagSpec[] = describeFlags();

function describeFlags(): FlagSpec[] {
  const properties = runJsonSchema()["properties"] as Readonly<Record<RunKey, Property>>;
  return runKeys.map((key) => describeFlag(key, properties[key]));
}

function describeFlag(key: RunKey, property: Property): FlagSpec {
  const kinds = { boolean: "switch", integer: "integer", number: "number" } as const;
  const type = property.type ?? "string";
  const kind = type === "boolean" || type === "integer" || type === "number" ? kinds[type] : "text";
  const placeholder = { switch: "", integer: "<N>", number: "<X>", text: placeholderOf(key, property) }[kind];
  return {
    key,
    flag: `--${flagName(key)}`,
    kind,
    placeholder,
    repeatable: property.anyOf?.some((one) => one.type === "array") === true,
    numeric: property.anyOf?.some((one) => one.type === "number") === true,
    ...(property.enum === undefined ? {} : { choices: property.enum }),
    ...(property.minimum === undefined ? {} : { minimum: property.minimum }),
    ...(property.maximum === undefined ? {} : { maximum: property.maximum }),
    ...(property.default === undefined ? {} : { default: property.default }),
    description: property.description ?? "",
  };
}

function placeholderOf(key: RunKey, property: Property): string {
  if (property.enum !== undefined) return `<${property.enum.join("|")}>`;
  const names: Partial<Record<RunKey, string>> = {
    model: "<MODEL>",
    data: "<FILE>",
    method: "<ID>",
    set: "<METHOD.KEY=VALUE>",
    adapter: "<DIR>",
    template: "<FILE>",
    holdout: "<SHARE|FILE>",
    out: "<DIR>",
    memoryBudget: "<SIZE|min>",
  };
  return names[key] ?? "<TEXT>";
}

/** The value of a flag from its text, by its kind; a switch may be given as `true` or `false`. */
export function parseFlag(spec: FlagSpec, text: string): string | number | boolean {
  switch (spec.kind) {
    case "text":
      return spec.numeric && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
    case "switch":
      if (text === "true" || text === "false") return text === "true";
      throw badFlag(spec, text, "true or false");
    case "number":
    case "integer": {
      const value = Number(text);
      if (text.trim() !== "" && Number.isFinite(value)) return value;
      throw badFlag(spec, text, "a number");
    }
  }
}

function badFlag(spec: FlagSpec, text: string, expected: string): ThimbleError {
  return new ThimbleError("config-value", `${spec.key}: expected ${expected}`, {
    where: spec.flag,
    given: JSON.stringify(text),
    expected,
  });
}
