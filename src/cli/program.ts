import { Command, CommanderError, Option } from "commander";
import { resolveConfig } from "../config/config.js";
import { readConfigFile } from "../config/file.js";
import { parseSettings } from "../methods/settings.js";
import { thimbleVersion } from "../train/machine.js";
import { ownFlags, runFlagsOf, toOption } from "./flags.js";
import { examplesOf, overview, styleHelp } from "./help.js";
import type { World } from "./terminal.js";
import { Terminal } from "./terminal.js";
import { exitStatus, reportError, unknownVerb, usageError } from "./usage.js";
import type { Verb } from "./verb.js";
import { status } from "./verb.js";
import { verbs } from "./verbs.js";

/** Runs one command line (without `node` and the script) and gives its exit status; never throws. */
export async function runCli(argv: readonly string[], world: World): Promise<number> {
  const terminal = new Terminal(world, argv.includes("--json"));
  try {
    const [first] = argv;
    const verb = verbs.find(({ name }) => name === first);
    if (verb !== undefined) return await runVerb(verb, argv.slice(1), terminal);
    return runWithoutVerb(first, argv[1], terminal);
  } catch (error) {
    reportError(error, terminal);
    return exitStatus(error);
  }
}

function runWithoutVerb(first: string | undefined, second: string | undefined, terminal: Terminal): number {
  const { world } = terminal;
  if (first === "--version" || first === "-V") {
    world.stdout.write(`${thimbleVersion()}\n`);
    return status.ok;
  }
  const asked = first === "--help" || first === "-h" || first === "help";
  const about = verbs.find(({ name }) => first === "help" && name === second);
  if (asked && about !== undefined) {
    commandOf(about, new Terminal(world, false)).outputHelp();
    return status.ok;
  }
  if (asked || first === undefined) {
    (asked ? world.stdout : world.stderr).write(overview(verbs, new Terminal(world, !asked)));
    return asked ? status.ok : status.usage;
  }
  throw unknownVerb(
    first,
    verbs.map(({ name }) => name),
  );
}

/** A verb as commander reads its command line. */
export function commandOf(verb: Verb, terminal: Terminal): Command {
  const command = new Command(verb.name);
  const settings = runFlagsOf(verb.settings);
  for (const { name, description } of verb.positionals ?? []) command.argument(`[${name}]`, description);
  const flags = [...ownFlags(verb.options), ...settings];
  const names = new Set([...flags.map(({ flag }) => flag), "--config", "--json", "--help"]);
  for (const flag of flags) command.addOption(toOption(flag, names));
  if (settings.length > 0) command.option("--config <FILE>", "YAML file with settings; flags win over it");
  command.addOption(new Option("--json", "One line with one JSON object on stdout; all else on stderr"));
  command.helpOption("-h, --help", "This text").exitOverride().allowExcessArguments(false);
  command
    .description(`${verb.summary}. ${verb.description}`)
    .addHelpText("after", examplesOf(verb, terminal))
    .configureHelp(styleHelp(verb, terminal));
  command.configureOutput({
    writeOut: (text) => terminal.world.stdout.write(text),
    writeErr: () => undefined,
    getOutHelpWidth: () => terminal.width,
  });
  return command;
}

async function runVerb(verb: Verb, argv: readonly string[], terminal: Terminal): Promise<number> {
  const command = commandOf(verb, argv.includes("--help") ? new Terminal(terminal.world, false) : terminal);
  try {
    command.parse([...argv], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return status.ok;
    const flags = command.options.map(({ long }) => long ?? "");
    throw usageError(error, verb.name, flags);
  }
  const { config: path, ...values } = command.opts<Record<string, unknown>>();
  const settings = new Set<string>(runFlagsOf(verb.settings).map(({ key }) => key));
  const pick = (own: boolean): Record<string, unknown> =>
    Object.fromEntries(Object.entries(values).filter(([key]) => key !== "json" && settings.has(key) !== own));
  const file = typeof path === "string" ? await readConfigFile(path) : undefined;
  const context = {
    terminal,
    world: terminal.world,
    config: resolveConfig({ ...(file === undefined ? {} : { file }), flags: pick(false) }),
    options: parseSettings(`thimble ${verb.name}`, verb.options, pick(true)),
    positionals: command.args,
  };
  return (await verb.run(context)) ?? status.ok;
}
