import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Frontier, MemoryCurves } from "./curves.js";
import { frontierSchema, memorySchema } from "./curves.js";
import { frontierChart, lengthChart, peakChart, ratioChart, toSvg } from "./plots.js";
import type { Summary } from "./summary.js";
import { summarySchema } from "./summary.js";
import { budgetTable, fullTable, gaps, lossTable, mainTable, origin } from "./table.js";

const results = new URL("../results/", import.meta.url);
const root = new URL("../../", import.meta.url);

export interface Results {
  readonly summary: Summary;
  readonly memory: MemoryCurves;
  /** Absent until bench/frontier.ts was run. */
  readonly frontier: Frontier | undefined;
}

function readJson(name: string): unknown {
  return JSON.parse(readFileSync(new URL(name, results), "utf8"));
}

function readFrontier(): Frontier | undefined {
  try {
    return frontierSchema.parse(readJson("frontier.json"));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** The committed results. */
export function readResults(): Results {
  return {
    summary: summarySchema.parse(readJson("side-by-side.json")),
    memory: memorySchema.parse(readJson("memory.json")),
    frontier: readFrontier(),
  };
}

export const readmePath = fileURLToPath(new URL("README.md", root));
export const pagePath = fileURLToPath(new URL("docs/benchmarks.md", root));
export const plotFolder = fileURLToPath(new URL("docs/benchmarks/", root));

const begin = "<!-- begin: made by bench/table.ts from bench/results; do not edit -->";
const end = "<!-- end: made by bench/table.ts -->";

/** `text` with what stands between the markers replaced. Fails where there are no markers. */
export function replaceSection(text: string, section: string): string {
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error("README.md has no markers of the measured section");
  return `${text.slice(0, from)}${begin}\n\n${section}\n\n${text.slice(to)}`;
}

/** The section of the README that holds the measurements. */
export function readmeSection({ summary }: Results): string {
  return [
    mainTable(summary),
    "",
    `${origin(summary)}${gaps(summary)} [All variants, plots and losses](docs/benchmarks.md); ` +
      "[how to measure it again](bench/README.md).",
  ].join("\n");
}

/** docs/benchmarks.md. */
export function benchmarkPage(found: Results): string {
  const { summary, frontier } = found;
  const image = (name: string, text: string): string => `![${text}](benchmarks/${name}.svg)`;
  const lines = [
    "# Benchmarks",
    "",
    "<!-- Made by bench/table.ts from bench/results. Do not edit. -->",
    "",
    "SmolLM2-135M; the same tokens, batch, steps and threads for all, in turn on one machine. Speed is that of whole",
    "steps, memory the resident memory of the process above what it was before the model was read. A ratio is Thimble's",
    "number over PyTorch's; the mark that was set for it stands in brackets, and a ratio that reaches it is bold.",
    "",
    `${origin(summary)}${gaps(summary)}`,
    "",
    "## Default plan, against PyTorch's fastest variant",
    "",
    mainTable(summary),
    "",
    image("ratios", "Speed and memory over PyTorch's, row by row, with marks"),
    "",
    "## Smallest memory budget, against PyTorch's variant of least memory",
    "",
    budgetTable(summary),
    "",
    "## Share of the machine's peak",
    "",
    "Operations that a step cannot do without (bench/flops.ts) over those that the multipliers could do in its time.",
    "",
    image("peak", "Share of the machine's peak, row by row"),
    "",
    "## Memory against the length of a row",
    "",
    "Bytes of the plan, which are what the runtime allocates; LoRA r 16 on all linear layers, one row.",
    "",
    image("length", "Bytes of the plan against tokens of a row"),
    "",
    ...(frontier === undefined
      ? []
      : ["## Budget and time", "", image("frontier", "Tokens a second against peak memory"), ""]),
    "## Every contender",
    "",
    fullTable(summary),
    "",
    "## Losses",
    "",
    "Largest relative difference between a loss of Thimble's and PyTorch's. A row beyond its tolerance is not published.",
    "",
    lossTable(summary),
  ];
  return `${lines.join("\n")}\n`;
}

/** The plots by file name. */
export async function plots({ summary, memory, frontier }: Results): Promise<Map<string, string>> {
  const charts = [
    ["ratios.svg", ratioChart(summary)],
    ["peak.svg", peakChart(summary)],
    ["length.svg", lengthChart(memory, summary)],
    ...(frontier === undefined ? [] : [["frontier.svg", frontierChart(frontier)] as const]),
  ] as const;
  return new Map(await Promise.all(charts.map(async ([name, chart]) => [name, await toSvg(chart)] as const)));
}
