import { z } from "zod";
import type { MemoryKind, Method } from "./types.js";

/** One setting of a method, as a row of a table. */
export interface SettingDescription {
  readonly name: string;
  /** In words: "integer 1..65536", "boolean", `"f32" | "bf16"`. */
  readonly type: string;
  /** JSON of the default; absent where there is none and the setting is optional. */
  readonly default?: string;
  readonly description: string;
}

/** Everything that help, documentation and forms say about a method, as plain data. */
export interface MethodDescription {
  readonly id: string;
  readonly title: string;
  readonly paper: string;
  readonly year: number;
  readonly summary: string;
  readonly fills: readonly string[];
  /** Kinds of memory that it takes less of than training all weights. */
  readonly reduces: readonly MemoryKind[];
  /** Methods that it brings along where nothing else trains. */
  readonly companions: readonly string[];
  readonly settings: readonly SettingDescription[];
}

/** The part of JSON Schema that zod's schemas become. */
interface JsonSchema {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly JsonSchema[];
  readonly items?: JsonSchema;
  readonly additionalProperties?: JsonSchema | boolean;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
  readonly pattern?: string;
  readonly default?: unknown;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
}

export function describeMethod(method: Method): MethodDescription {
  const { id, title, paper, year, summary, fills, reduces, companions = [], config } = method;
  return { id, title, paper, year, summary, fills, reduces, companions, settings: describeSettings(config) };
}

/** The settings of any schema, in the order of its keys. */
export function describeSettings(schema: z.ZodObject): SettingDescription[] {
  const { properties = {} } = z.toJSONSchema(schema, { io: "input" }) as JsonSchema;
  return Object.entries(properties).map(([name, property]) => ({
    name,
    type: typeInWords(property),
    ...(property.default === undefined ? {} : { default: JSON.stringify(property.default) }),
    description: property.description ?? "",
  }));
}

function typeInWords(schema: JsonSchema): string {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeInWords).join(" | ");
  if (schema.type === "array") return `list of ${schema.items === undefined ? "values" : typeInWords(schema.items)}`;
  if (schema.type === "object") {
    const values = schema.additionalProperties;
    return `names with ${typeof values === "object" ? typeInWords(values) : "values"}`;
  }
  return [schema.type ?? "value", rangeOf(schema)].filter((part) => part !== "").join(" ");
}

/** As in "1..64", "> 0", ">= 0 and < 1"; the limits of JavaScript's integers are not a range. */
function rangeOf(schema: JsonSchema): string {
  const lowest = schema.minimum === Number.MIN_SAFE_INTEGER ? undefined : schema.minimum;
  const highest = schema.maximum === Number.MAX_SAFE_INTEGER ? undefined : schema.maximum;
  if (lowest !== undefined && highest !== undefined) return `${lowest}..${highest}`;
  const bounds = [
    [">=", lowest],
    [">", schema.exclusiveMinimum],
    ["<=", highest],
    ["<", schema.exclusiveMaximum],
  ] as const;
  return bounds.flatMap(([sign, bound]) => (bound === undefined ? [] : [`${sign} ${bound}`])).join(" and ");
}
