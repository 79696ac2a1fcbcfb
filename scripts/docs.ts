/**
 * Writes the registry of methods from their folders, docs/cli.md from the values that declare the commands and their settings, and renews the dumps and tables on
 * the other pages.
 *
 *   npx tsx scripts/docs.ts [--check]
 *
 * With --check, writes nothing and fails where the file is not what it should be.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import type { AnyFlag } from "../src/cli/flags.js";
import { explainFlag, flagTerm, groups, ownFlags, runFlagsOf } from "../src/cli/flags.js";
import type { Verb } from "../src/cli/verb.js";
import { verbs } from "../src/cli/verbs.js";
import { renewPages } from "./docs-pages.js";
import { registryPath, registryText } from "./docs-registry.js";

export const pagePath = fileURLToPath(new URL("../docs/cli.md", import.meta.url));

/** Text as a cell of a table. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
}

function code(text: string): string {
  return `\`${text.replaceAll("|", "\\|")}\``;
}

function flagTable(flags: readonly AnyFlag[]): string[] {
  const rows = flags.map((flag) => `| ${code(flagTerm(flag))} | ${cell(explainFlag(flag))} |`);
  return ["| Flag | What it does |", "| --- | --- |", ...rows, ""];
}

function settingsOf({ settings }: Verb): string[] {
  if (settings === "all") return ["It takes all [settings of a run](#settings-of-a-run), and `--config FILE`.", ""];
  if (settings.length === 0) return [];
  const flags = runFlagsOf(settings).map(({ flag }) => code(flag));
  return [`Of the [settings of a run](#settings-of-a-run): ${flags.join(", ")}, and \`--config FILE\`.`, ""];
}

function verbSection(verb: Verb): string[] {
  const { name, summary, description, examples, options, positionals = [] } = verb;
  const own = ownFlags(options);
  const words = positionals.map((one) => ` [${one.name}]`).join("");
  return [
    `## thimble ${name}`,
    "",
    `${summary}. ${description}`,
    "",
    "```sh",
    ...examples.flatMap(({ command, purpose }) => [`# ${purpose}`, `thimble ${command}`]),
    "```",
    "",
    `Usage: \`thimble ${name}${words} [flags]\``,
    "",
    ...positionals.map((one) => `- \`${one.name}\`: ${one.description}`),
    ...(positionals.length > 0 ? [""] : []),
    ...settingsOf(verb),
    ...(own.length === 0 ? [] : flagTable(own)),
  ];
}

function runSettings(): string[] {
  const all = runFlagsOf("all");
  return groups.flatMap(([heading, keys]) => [
    `### ${heading.replace(":", "")}`,
    "",
    ...flagTable(all.filter(({ key }) => keys.includes(key))),
  ]);
}

const head = [
  "# The command line",
  "",
  "<!-- Made by scripts/docs.ts from the declarations of the commands. Do not edit. -->",
  "",
  "All commands take `--help`, and `--json`: then stdout gets exactly one line with one JSON object, and everything for",
  'people goes to stderr. A failure is `{"error": {code, message, …}}` there.',
  "",
  "| Exit status | Meaning |",
  "| --- | --- |",
  "| 0 | done |",
  "| 1 | the run failed |",
  "| 2 | the command line or the config is wrong |",
  "| 130 | interrupted, after a checkpoint |",
  "",
  "Colours and bars are for terminals only; `NO_COLOR=1` turns colours off. `THIMBLE_CACHE` names the folder of compiled",
  "kernels, fetched models and tokenised data. `CC` names the C compiler. `THIMBLE_DEBUG=1` shows where a failure arose.",
  "",
  "## Settings of a run",
  "",
  "The same names serve as flags and, in either spelling (`weight-decay`, `weightDecay`), as keys of a YAML file that",
  "`--config` names. Flags win. `thimble config` prints the JSON schema of the file.",
  "",
];

/** The whole page. */
export function commandPage(): string {
  return `${[...head, ...runSettings(), ...verbs.flatMap(verbSection)].join("\n").trimEnd()}\n`;
}

async function main(): Promise<void> {
  const page = commandPage();
  if (!process.argv.includes("--check")) {
    await mkdir(dirname(pagePath), { recursive: true });
    await writeFile(pagePath, page);
  } else if ((await readFile(pagePath, "utf8").catch(() => "")) !== page) {
    process.stderr.write("docs/cli.md is out of date: npx tsx scripts/docs.ts\n");
    process.exitCode = 1;
  }
  const check = process.argv.includes("--check");
  if ((await readFile(registryPath, "utf8")) !== registryText()) {
    if (!check) await writeFile(registryPath, registryText());
    const next = check ? "is out of date: npx tsx scripts/docs.ts" : "is new: run this again for the pages";
    process.stderr.write(`src/methods/registry.ts ${next}\n`);
    if (check) process.exitCode = 1;
  }
  for (const name of renewPages({ check })) {
    process.stderr.write(check ? `docs/${name} is out of date: npx tsx scripts/docs.ts\n` : `wrote docs/${name}\n`);
    if (check) process.exitCode = 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
