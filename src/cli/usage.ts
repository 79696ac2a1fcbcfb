/** What went wrong, as an exit status and as words. */
import type { CommanderError } from "commander";
import { flagName } from "../config/names.js";
import { defaultMethods } from "../config/schema.js";
import { ThimbleError } from "../errors.js";
import { describeMethod } from "../methods/describe.js";
import { nearestName } from "../methods/nearest.js";
import { methods } from "../methods/registry.js";
import type { Terminal } from "./terminal.js";
import { colorsFor } from "./terminal.js";
import { status } from "./verb.js";

/** Areas and single codes of mistakes in the command line or the config, as against failures of the run. */
const usageAreas = /^(cli|config|settings|method|methods)(-|$)/;
const usageCodes = [
  ...["out-not-empty", "resume-changed", "resume-steps", "source-name", "data-usage", "adapter-method"],
  ...["adapter-settings", "export-type", "export-adapter", "profile-target"],
];

export function exitStatus(error: unknown): number {
  const usage = error instanceof ThimbleError && (usageAreas.test(error.code) || usageCodes.includes(error.code));
  return usage ? status.usage : status.failed;
}

/** Any failure as a ThimbleError: what is none is a bug, or the system's refusal of something. */
export function toThimbleError(error: unknown): ThimbleError {
  if (error instanceof ThimbleError) return error;
  if (error instanceof Error && "syscall" in error) {
    return new ThimbleError("system", "The system refused something", { given: error.message, cause: error });
  }
  const message = error instanceof Error ? error.message : String(error);
  return new ThimbleError("internal", message, {
    fix: "This is a bug in Thimble; please report it with the output under THIMBLE_DEBUG=1.",
    cause: error,
  });
}

/** Tells of a failure: in words on stderr, and as the line of JSON where one was asked for. */
export function reportError(error: unknown, terminal: Terminal): void {
  const known = toThimbleError(error);
  const { world } = terminal;
  const colors = colorsFor(world.stderr, world.environment);
  const [first = "", ...rest] = known.describe().split("\n");
  world.stderr.write(`${[`${colors.red("error:")} ${first}`, ...rest].join("\n")}\n`);
  if (world.environment["THIMBLE_DEBUG"] === "1") {
    const stack = known.cause instanceof Error ? known.cause.stack : known.stack;
    world.stderr.write(`${stack ?? "no stack"}\n`);
  }
  terminal.result({ error: known.toJSON() });
}

/** Flags by the names that other tools give them. */
const otherNames: Readonly<Record<string, string>> = {
  "--learning-rate": "--lr",
  "--epochs": "--steps",
  "--max-steps": "--steps",
  "--max-length": "--seq",
  "--context": "--seq",
  "--gradient-accumulation": "--accumulate",
  "--gradient-accumulation-steps": "--accumulate",
  "--precision": "--dtype",
  "--output": "--out",
  "--output-dir": "--out",
  "--dataset": "--data",
  "--base-model": "--model",
  "--max-grad-norm": "--clip",
  "--gradient-checkpointing": "--recompute",
  "--rank": "--set lora.r=VALUE",
  "--lora-rank": "--set lora.r=VALUE",
};

/** The refusal of a command line that commander could not read. */
export function usageError(error: CommanderError, verb: string | undefined, valid: readonly string[]): ThimbleError {
  const message = (error.message.split("\n")[0] ?? "").replace(/^error: /, "");
  const command = verb === undefined ? "thimble" : `thimble ${verb}`;
  const help = `See ${command} --help.`;
  const named = /'([^']+)'/.exec(message)?.[1];
  if (error.code === "commander.unknownOption" && named !== undefined) {
    return new ThimbleError("cli-flag", `There is no flag ${named}`, {
      where: command,
      fix: flagAdvice(named, valid, help),
    });
  }
  return new ThimbleError("cli-usage", message.charAt(0).toUpperCase() + message.slice(1), {
    where: command,
    fix: help,
  });
}

function flagAdvice(given: string, valid: readonly string[], help: string): string {
  const name = given.split("=")[0] ?? given;
  const elsewhere = otherNames[name];
  if (elsewhere !== undefined && valid.includes(elsewhere.split(" ")[0] ?? "")) {
    return `Here it is called ${elsewhere}. ${help}`;
  }
  const owner = valid.includes("--set") ? methodWithSetting(name) : undefined;
  if (owner !== undefined) return `It is a setting of a method: --set ${owner}=VALUE`;
  const foreign = Object.keys(otherNames).filter((one) => valid.includes(otherNames[one]?.split(" ")[0] ?? ""));
  const bare = (flag: string): string => flag.replace(/^-+/, "");
  const nearest = nearestName(bare(name), [...valid, ...foreign].map(bare));
  if (nearest === undefined) return help;
  const own = otherNames[`--${nearest}`] ?? `--${nearest}`;
  return own === `--${nearest}` ? `Did you mean ${own}? ${help}` : `Here it is called ${own}. ${help}`;
}

/** `method.setting` for a flag that is named like a method's setting. */
function methodWithSetting(flag: string): string | undefined {
  const plain = flag.replace(/^-+/, "");
  // Of several methods with such a setting, the one that a run has where nothing else is said.
  const usual = methods.filter(({ id }) => defaultMethods.includes(id));
  for (const method of [...usual, ...methods]) {
    const setting = describeMethod(method).settings.find(({ name }) =>
      [name, `${method.id}_${name}`].some((one) => flagName(one).replaceAll("_", "-") === plain.replaceAll("_", "-")),
    );
    if (setting !== undefined) return `${method.id}.${setting.name}`;
  }
  return undefined;
}

/** The refusal of a command that does not exist. */
export function unknownVerb(name: string, verbs: readonly string[]): ThimbleError {
  const nearest = nearestName(name, verbs);
  return new ThimbleError("cli-verb", `There is no command "${name}"`, {
    expected: verbs.join(", "),
    fix: nearest === undefined ? "See thimble --help." : `Did you mean "thimble ${nearest}"?`,
  });
}
