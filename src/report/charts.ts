import type { TopLevelSpec } from "vega-lite";

export type ChartSpec = TopLevelSpec;

/** A chart as SVG text with no references to anything outside itself. */
export async function renderChart(spec: ChartSpec): Promise<string> {
  // Loaded when a chart is wanted: no other command needs them.
  const [{ compile }, { parse, View }] = await Promise.all([import("vega-lite"), import("vega")]);
  const view = new View(parse(compile(spec).spec), { renderer: "none" });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
