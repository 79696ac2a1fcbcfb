/** Options of commander from declared settings: names, help texts, defaults and ranges come from one schema each. */
import { Option } from "commander";
import { z } from "zod";
import type { FlagSpec } from "../config/flags.js";
import { parseFlag, runFlags } from "../config/flags.js";
import { flagName } from "../config/names.js";
import type { RunKey } from "../config/schema.js";
import { ThimbleError } from "../errors.js";

/** A setting as a command line has it, whichever schema declares it. */
export type AnyFlag = Omit<FlagSpec, "key"> & { readonly key: string };

interface Property {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
}

/** Headings of help texts over the settings of a run, in order. */
export const groups: readonly (readonly [string, readonly RunKey[]])[] = [
  [
    "Model and data:",
    ["model", "data", "task", "labels", "adapter", "template", "format", "trainOn", "rows", "overlong", "documents"],
  ],
  ["Data order and evaluation:", ["order", "seed", "holdout", "evalEvery"]],
  ["Method:", ["method", "set"]],
  ["Step:", ["batch", "seq", "steps", "accumulate", "clip"]],
  ["Learning rate:", ["lr", "schedule", "warmup", "minRatio", "decay"]],
  ["Optimizer:", ["optimizer", "weightDecay", "beta1", "beta2", "epsilon", "momentum", "nesterov"]],
  [
    "Machine and memory:",
    ["dtype", "masterDtype", "stateDtype", "recompute", "memoryBudget", "allowLossy", "weightsOn", "threads", "target"],
  ],
  ["Output:", ["out", "resume", "saveEvery", "keep"]],
];

export const ownGroup = "Options:";

function groupOf(key: string): string {
  return groups.find(([, keys]) => (keys as readonly string[]).includes(key))?.[0] ?? ownGroup;
}

/** The settings of a run as flags, sorted into their groups; of some keys only if `keys` says which. */
export function runFlagsOf(keys: readonly RunKey[] | "all"): FlagSpec[] {
  const order = groups.flatMap(([, members]) => members);
  return runFlags
    .filter(({ key }) => keys === "all" || keys.includes(key))
    .sort((a, b) => order.indexOf(a.key) - order.indexOf(b.key));
}

/** The flags of a verb's own options. */
export function ownFlags(schema: z.ZodObject): AnyFlag[] {
  const { properties = {} } = z.toJSONSchema(schema, { io: "input" }) as { properties?: Record<string, Property> };
  return Object.entries(properties).map(([key, property]) => ownFlag(key, property));
}

function ownFlag(key: string, property: Property): AnyFlag {
  const { type, description = "", minimum, maximum, default: standard } = property;
  const kind = type === "boolean" ? "switch" : type === "integer" || type === "number" ? type : "text";
  const text = property.enum === undefined ? "<TEXT>" : `<${property.enum.join("|")}>`;
  const lowest = minimum === Number.MIN_SAFE_INTEGER ? undefined : minimum;
  const highest = maximum === Number.MAX_SAFE_INTEGER ? undefined : maximum;
  return {
    key,
    flag: `--${flagName(key)}`,
    kind,
    placeholder: { switch: "", integer: "<N>", number: "<X>", text }[kind],
    repeatable: type === "array",
    numeric: false,
    ...(property.enum === undefined ? {} : { choices: property.enum }),
    ...(lowest === undefined ? {} : { minimum: lowest }),
    ...(highest === undefined ? {} : { maximum: highest }),
    ...(standard === undefined ? {} : { default: standard }),
    description,
  };
}

/** Choices that make a flag's placeholder longer than this are listed behind its description instead. */
const longestPlaceholder = 16;

/** A flag with what stands for its value. */
export function flagTerm({ flag, placeholder }: AnyFlag): string {
  return `${flag} ${placeholder.length > longestPlaceholder && placeholder.includes("|") ? "<CHOICE>" : placeholder}`.trimEnd();
}

/** What a help text says of a flag: its description, and its choices, range and default where they are not in it. */
export function explainFlag(spec: AnyFlag): string {
  const { description, default: standard, kind, minimum, maximum, choices = [] } = spec;
  const facts: string[] = [];
  if (flagTerm(spec).endsWith("<CHOICE>")) facts.push(choices.join(", "));
  const largest = maximum !== undefined && maximum < 2 ** 31 - 1 ? maximum : undefined;
  if (minimum !== undefined && largest !== undefined) facts.push(`${minimum} to ${largest}`);
  const plain = Array.isArray(standard) ? standard.map(String).join(", ") : (standard as string | number | undefined);
  const shown = kind === "switch" || plain === undefined || plain === "" || description.includes("default");
  if (!shown) facts.push(`default ${plain}`);
  return facts.length === 0 ? description : `${description} (${facts.join("; ")})`;
}

/** Switches may be turned off, too, where a config file turned them on. */
export const switchValue = "[true|false]";

/** A flag as commander takes it; its values arrive parsed by kind, and as a list where it may be repeated. `others` are no values. */
export function toOption(spec: AnyFlag, others: ReadonlySet<string>): Option {
  const option = new Option(
    spec.kind === "switch" ? `${spec.flag} ${switchValue}` : flagTerm(spec),
    explainFlag(spec),
  ).helpGroup(groupOf(spec.key));
  const parse = (text: string): unknown => {
    if (others.has(text)) throw missingValue(spec, text);
    return parseFlag(spec as FlagSpec, text);
  };
  if (spec.kind === "switch") option.preset("true");
  return option.argParser<unknown>((text, earlier) =>
    spec.repeatable ? [...(Array.isArray(earlier) ? (earlier as unknown[]) : []), parse(text)] : parse(text),
  );
}

/** Another flag stands where the value should be. */
function missingValue(spec: AnyFlag, text: string): ThimbleError {
  return new ThimbleError("cli-usage", `${spec.flag} needs a value`, {
    given: `${spec.flag} ${text}`,
    expected: flagTerm(spec),
  });
}
