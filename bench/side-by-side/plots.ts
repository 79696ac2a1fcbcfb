import { parse, View } from "vega";
import { compile } from "vega-lite";
import type { TopLevelSpec } from "vega-lite";
import type { Frontier, MemoryCurves } from "./curves.js";
import type { Summary } from "./summary.js";
import { limitOf, rowTitle } from "./table.js";

const schema = "https://vega.github.io/schema/vega-lite/v5.json";
const config = {
  font: "sans-serif",
  background: "white",
  view: { stroke: "transparent" },
  legend: { labelLimit: 400 },
} as const;

/** A chart as self-contained SVG. */
export async function toSvg(chart: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(chart).spec), { renderer: "none" });
  const svg = await view.toSVG();
  view.finalize();
  return `${svg}\n`;
}

interface RatioPoint {
  readonly row: string;
  readonly quantity: string;
  readonly plan: string;
  readonly value: number;
  readonly mark: number;
  readonly goal?: number;
}

function ratioPoints(summary: Summary): RatioPoint[] {
  return summary.rows.flatMap((row) =>
    (["default", "min"] as const).flatMap((plan): RatioPoint[] => {
      const ratios = row[plan];
      if (ratios === undefined) return [];
      const common = { row: rowTitle(row), plan: plan === "min" ? "smallest budget" : "default plan" };
      const { speed, speedMark, memory, memoryMark, goal } = ratios;
      const goals = goal === undefined ? {} : { goal };
      return [
        { ...common, quantity: "speed", value: speed, mark: speedMark, ...goals },
        { ...common, quantity: "memory", value: memory, mark: memoryMark },
      ];
    }),
  );
}

/** Speed and memory over PyTorch's, with the marks (black) and goals (grey) as ticks. */
export function ratioChart(summary: Summary): TopLevelSpec {
  const values = ratioPoints(summary);
  const offset = { field: "plan", type: "nominal" } as const;
  const y = { field: "row", type: "nominal", title: null, sort: null } as const;
  const panel = (quantity: string, title: string): object => ({
    title,
    transform: [{ filter: `datum.quantity === '${quantity}'` }],
    width: 300,
    height: { step: 14 },
    layer: [
      {
        mark: { type: "bar" },
        encoding: {
          x: { field: "value", type: "quantitative", title: "× PyTorch" },
          color: { field: "plan", title: null },
        },
      },
      {
        mark: { type: "tick", color: "black", thickness: 2 },
        encoding: { x: { field: "mark", type: "quantitative" } },
      },
      { mark: { type: "tick", color: "#999", thickness: 2 }, encoding: { x: { field: "goal", type: "quantitative" } } },
    ],
    encoding: { y, yOffset: offset },
  });
  return {
    $schema: schema,
    config,
    data: { values },
    hconcat: [panel("speed", "Speed (more is better)"), panel("memory", "Memory (less is better)")],
  } as TopLevelSpec;
}

/** What part of the machine's multipliers each row uses. */
export function peakChart(summary: Summary): TopLevelSpec {
  const values = summary.rows.flatMap((row) => {
    const limit = limitOf(row, summary.peak);
    if (limit === undefined || row.default === undefined) return [];
    const { against } = row.default;
    return row.contenders
      .filter((one) => (one.peer === "thimble" ? one.variant === "default" : one.variant === against))
      .map((one) => ({
        row: rowTitle(row),
        peer: one.peer === "thimble" ? "Thimble" : "PyTorch's fastest",
        share: (one.tokensPerSecond ?? 0) / limit,
      }));
  });
  return {
    $schema: schema,
    config,
    data: { values },
    width: 420,
    height: { step: 14 },
    mark: "bar",
    encoding: {
      x: { field: "share", type: "quantitative", title: "share of the measured peak", axis: { format: "%" } },
      y: { field: "row", type: "nominal", title: null, sort: null },
      yOffset: { field: "peer", sort: null },
      color: { field: "peer", title: null, sort: null },
    },
  };
}

const mebibyte = 2 ** 20;

/** Bytes of the plan over the length of a row, with PyTorch's peaks where one-row batches were measured. */
export function lengthChart(memory: MemoryCurves, summary: Summary): TopLevelSpec {
  const planned = memory.curves.flatMap(({ method, dtype, variant, points }) =>
    points.map(({ seq, planBytes }) => ({ seq, MiB: planBytes / mebibyte, what: `${method} ${dtype}, ${variant}` })),
  );
  const measured = summary.rows
    .filter(({ batch, method }) => batch === 1 && method === "lora")
    .flatMap(({ seq, dtype, contenders }) =>
      contenders
        .filter(({ peer, peakMiB }) => peer === "pytorch" && peakMiB !== undefined)
        .map(({ variant, peakMiB }) => ({ seq, MiB: peakMiB, what: `PyTorch ${dtype} ${variant}` })),
    );
  const x = { field: "seq", type: "quantitative", title: "tokens of a row", scale: { type: "log", base: 2 } } as const;
  const y = { field: "MiB", type: "quantitative", scale: { type: "log", base: 2 }, title: "MiB" } as const;
  const color = { field: "what", type: "nominal", title: null, sort: null } as const;
  return {
    $schema: schema,
    config,
    width: 420,
    height: 300,
    layer: [
      { data: { values: planned }, mark: { type: "line", point: true }, encoding: { x, y, color } },
      { data: { values: measured }, mark: { type: "point", size: 80 }, encoding: { x, y, color } },
    ],
  };
}

/** Tokens a second over peak memory, as the budget shrinks. */
export function frontierChart({ points }: Frontier): TopLevelSpec {
  const values = points
    .filter(({ peakMiB, tokensPerSecond }) => peakMiB !== undefined && tokensPerSecond !== undefined)
    .map(({ method, dtype, peakMiB, tokensPerSecond, asked }) => ({
      what: `${method} ${dtype}`,
      peakMiB,
      tokensPerSecond,
      asked,
    }));
  return {
    $schema: schema,
    config,
    width: 420,
    height: 300,
    data: { values },
    mark: { type: "line", point: true },
    encoding: {
      x: { field: "peakMiB", type: "quantitative", title: "peak MiB of the process" },
      y: { field: "tokensPerSecond", type: "quantitative", title: "tokens a second" },
      order: { field: "peakMiB" },
      color: { field: "what", type: "nominal", title: null },
    },
  };
}
