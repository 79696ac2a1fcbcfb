import { z } from "zod";
import type { MachineReport } from "../../index.js";
import { examineMachine } from "../../index.js";
import { bytes, table, wrapped } from "../format.js";
import type { Terminal } from "../terminal.js";
import { defineVerb, status } from "../verb.js";

function mark(good: boolean, { colors }: Terminal): string {
  return good ? colors.green("✓") : colors.red("✗");
}

function extensionText({ name, processor, compiler }: MachineReport["extensions"][number]): string {
  if (compiler) return name;
  return processor === true ? `${name} (the compiler does not use it)` : `no ${name}`;
}

function print(report: MachineReport, terminal: Terminal): void {
  const { colors, width } = terminal;
  const { compiler, extensions, threads, memoryFree, memoryTotal, cache } = report;
  const facts: [string, string][] = [
    ["Node", `${report.node}, ${report.platform}`],
    ["processor", report.processor],
    ["uses", extensions.map(extensionText).join(", ")],
    ["threads", String(threads)],
    ["memory", `${bytes(memoryFree)} free of ${bytes(memoryTotal)}`],
    ["compiler", compiler === undefined ? colors.red("none found") : `${compiler.path} (${compiler.version})`],
    ["cache", cache.usable ? cache.folder : `${cache.folder}: ${cache.reason ?? "cannot be used"}`],
  ];
  terminal.print(
    table(
      [{ title: "" }, { title: "" }],
      facts.filter(([, text]) => text !== ""),
    ).join("\n"),
  );
  terminal.print(`\n${colors.bold("Targets")}`);
  for (const { name, works, reason } of report.targets) {
    terminal.print(`${mark(works, terminal)} ${name.padEnd(9)}  ${reason.split("\n")[0] ?? ""}`);
  }
  terminal.print(`--target auto takes ${report.chosen ?? "nothing"}: ${report.why}.`);
  terminal.print(`\n${colors.bold("What would be better")}`);
  for (const line of report.advice.length === 0 ? ["Nothing: this machine is used fully."] : report.advice) {
    terminal.print(
      wrapped(line, width - 2)
        .map((part, at) => `${at === 0 ? "-" : " "} ${part}`)
        .join("\n"),
    );
  }
}

export const doctorVerb = defineVerb({
  name: "doctor",
  summary: "Tell what this machine has, what is used of it, and what would be faster",
  description: "Tries the compiler with a small program. The exit status is 1 if no fast target works.",
  settings: [],
  options: z.strictObject({}),
  examples: [
    { command: "doctor", purpose: "look at this machine" },
    { command: "doctor --json", purpose: "for scripts and bug reports" },
  ],
  run: async ({ terminal, world }) => {
    const report = await examineMachine(world.environment);
    print(report, terminal);
    terminal.result(report);
    return report.targets.some(({ fast }) => fast) ? status.ok : status.failed;
  },
});
