import type { Comparison, Spread } from "../train/compare/types.js";
import type { ChartSpec } from "./charts.js";
import { renderChart } from "./charts.js";
import { escapeHtml, htmlPage, htmlTable } from "./html.js";

const mebibyte = 2 ** 20;

/** Columns of the table of methods: titles, and the cells of each method. */
export function comparisonTable({ methods }: Comparison): { heads: string[]; rows: string[][] } {
  const heads = [
    ...["method", "held-out loss", "perplexity", "planned MiB", "measured MiB", "tokens/s"],
    ...["trainable", "result MiB", "rate"],
  ];
  const spread = ({ mean, deviation }: Spread, digits: number): string =>
    deviation === 0 ? mean.toFixed(digits) : `${mean.toFixed(digits)} ± ${deviation.toFixed(digits)}`;
  const rows = methods.map((method) => [
    method.name,
    spread(method.heldOutLoss, 4),
    Math.exp(method.heldOutLoss.mean).toFixed(2),
    (method.planBytes / mebibyte).toFixed(1),
    (method.rssBytes / mebibyte).toFixed(1),
    spread(method.tokensPerSecond, 0),
    method.trainableParameters.toLocaleString("en-US"),
    (method.resultBytes / mebibyte).toFixed(2),
    String(method.learningRate),
  ]);
  return { heads, rows };
}

const schema = "https://vega.github.io/schema/vega-lite/v5.json";
const width = 760;

function lossCourse({ methods }: Comparison): ChartSpec {
  const values = methods.flatMap(({ name, runs }) =>
    runs.flatMap(({ seed, losses }) =>
      smoothed(losses).map((loss, index) => ({ method: name, run: `${name} ${seed}`, step: index + 1, loss })),
    ),
  );
  return {
    $schema: schema,
    width,
    height: 300,
    data: { values },
    mark: { type: "line", strokeWidth: 1.4, opacity: 0.85 },
    encoding: {
      x: { field: "step", type: "quantitative", title: "optimizer step", axis: { format: "d", tickMinStep: 1 } },
      y: { field: "loss", type: "quantitative", title: "training loss", scale: { zero: false } },
      color: {
        field: "method",
        type: "nominal",
        title: null,
        sort: methods.map(({ name }) => name),
        ...(methods.length > 10 ? { scale: { scheme: "tableau20" } } : {}),
      },
      detail: { field: "run" },
    },
  };
}

/** A mean over the last tenth of the steps so far, at most 20: single batches differ more than methods do. */
function smoothed(losses: readonly number[]): number[] {
  const window = Math.max(1, Math.min(20, Math.floor(losses.length / 10)));
  return losses.map((_, index) => {
    const part = losses.slice(Math.max(0, index + 1 - window), index + 1);
    return part.reduce((sum, loss) => sum + loss, 0) / part.length;
  });
}

function heldOut({ methods, before }: Comparison): ChartSpec {
  const values = methods.flatMap(({ name, runs }) => runs.map(({ heldOutLoss }) => ({ method: name, heldOutLoss })));
  return {
    $schema: schema,
    width,
    data: { values },
    layer: [
      {
        mark: { type: "point", filled: true, size: 70, opacity: 0.8 },
        encoding: {
          y: { field: "method", type: "nominal", title: null, sort: methods.map(({ name }) => name) },
          x: {
            field: "heldOutLoss",
            type: "quantitative",
            title: "held-out loss, a point a seed; the line is the model before training",
            scale: { zero: false },
          },
        },
      },
      {
        data: { values: [{ before }] },
        mark: { type: "rule", strokeDash: [4, 4] },
        encoding: { x: { field: "before", type: "quantitative" } },
      },
    ],
  };
}

function memory({ methods }: Comparison): ChartSpec {
  const kinds = ["weights", "states", "gradients", "saved", "workspace"] as const;
  const values = methods.flatMap(({ name, composition }) =>
    kinds.map((kind, order) => ({ method: name, kind, order, size: composition[kind] / mebibyte })),
  );
  return {
    $schema: schema,
    width,
    data: { values },
    mark: "bar",
    encoding: {
      y: { field: "method", type: "nominal", title: null, sort: methods.map(({ name }) => name) },
      x: { field: "size", type: "quantitative", title: "planned memory at the peak, MiB", stack: "zero" },
      color: { field: "kind", type: "nominal", title: null, sort: [...kinds] },
      order: { field: "order" },
    },
  };
}

/** One self-contained page: facts, table, charts, and what was refused. */
export async function comparisonPage(comparison: Comparison): Promise<string> {
  const { model, data, dtype, batch, seq, steps, seeds, memoryBudget, before, methods, refused, machine } = comparison;
  const facts = [
    `${model} on ${data.join(", ")}`,
    `${steps} steps of ${batch} x ${seq} tokens in ${dtype}, ${seeds.length === 1 ? `seed ${seeds.join()}` : `seeds ${seeds.join(", ")}`}`,
    ...(memoryBudget === undefined ? [] : [`memory budget ${memoryBudget}`]),
    `held-out loss before training ${before.toFixed(4)}`,
    `Thimble ${machine["version"] ?? ""}`,
  ];
  const { heads, rows } = comparisonTable(comparison);
  const charts =
    methods.length === 0
      ? []
      : await Promise.all([heldOut(comparison), lossCourse(comparison), memory(comparison)].map(renderChart));
  const [points = "", course = "", bars = ""] = charts;
  const reasons = htmlTable(
    ["method", "why it does not run here", "code"],
    refused.map(({ name, reason, code }) => [name, reason, code]),
  );
  const sections = [
    `<h1>Methods compared</h1><p class="facts">${facts.map(escapeHtml).join("<br>")}</p>`,
    `<div class="wide">${htmlTable(heads, rows)}</div>`,
    '<p class="facts">Measured memory is the process\'s peak above what it took before the model was read.</p>',
    `<h2>Held-out loss</h2>${points}<h2>Course of the training loss</h2>${course}<h2>Memory</h2>${bars}`,
    ...(refused.length === 0 ? [] : [`<h2>Refused</h2><div class="reasons">${reasons}</div>`]),
  ];
  return htmlPage("Thimble: methods compared", sections.join("\n"));
}
