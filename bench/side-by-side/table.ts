import type { Ratios, Summary, SummaryContender, SummaryRow } from "./summary.js";

/** A table in Markdown; the first column is text, the others numbers. */
function markdown(heads: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(heads), line(heads.map((_, place) => (place === 0 ? "---" : "--:"))), ...rows.map(line)];
}

const whole = (value: number | undefined): string =>
  value === undefined ? "–" : Math.round(value).toLocaleString("en-US");

/** A ratio beside what was asked for; bold where it is reached. */
function against(value: number, mark: number, reached: boolean): string {
  const text = value.toFixed(2);
  return `${reached ? `**${text}**` : text} (${mark.toFixed(2)})`;
}

const speedCell = ({ speed, speedMark }: Ratios): string => against(speed, speedMark, speed >= speedMark);
const memoryCell = ({ memory, memoryMark }: Ratios): string => against(memory, memoryMark, memory <= memoryMark);

function thimbleOf(row: SummaryRow, variant: string): SummaryContender | undefined {
  return row.contenders.find((one) => one.peer === "thimble" && one.variant === variant);
}

function pytorchOf(row: SummaryRow, variant: string): SummaryContender | undefined {
  return row.contenders.find((one) => one.peer === "pytorch" && one.variant === variant);
}

/** How people call a row. */
export function rowTitle({ method, dtype, batch, seq }: SummaryRow): string {
  return `${method} ${dtype} ${batch}×${seq}`;
}

/** Tokens a second that the multipliers would allow if nothing else took time. */
export function limitOf(row: SummaryRow, peak: Summary["peak"]): number | undefined {
  return peak === undefined ? undefined : (peak[row.dtype === "bf16" ? "bf16" : "f32"] * 1e9) / row.flopsPerToken;
}

function mainRow(row: SummaryRow, summary: Summary): string[] {
  const ratios = row.default;
  const [own, other] = [thimbleOf(row, "default"), ratios && pytorchOf(row, ratios.against)];
  const limit = whole(limitOf(row, summary.peak));
  if (ratios === undefined || own === undefined || other === undefined) {
    return [rowTitle(row), row.withheld ?? own?.failure ?? "not measured", "", "", limit, "", "", ""];
  }
  return [
    rowTitle(row),
    whole(own.tokensPerSecond),
    `${whole(other.tokensPerSecond)} (${ratios.against})`,
    speedCell(ratios),
    limit,
    whole(own.peakMiB),
    whole(other.peakMiB),
    memoryCell(ratios),
  ];
}

const mainHeads = [
  "",
  "tokens/s",
  "PyTorch's fastest",
  "speed × (mark)",
  "machine's limit",
  "peak MiB",
  "PyTorch",
  "memory × (mark)",
];

/** Thimble's default plan against the fastest variant of PyTorch in each row. */
export function mainTable(summary: Summary): string {
  return markdown(
    mainHeads,
    summary.rows.map((row) => mainRow(row, summary)),
  ).join("\n");
}

/** Thimble with its smallest budget against the variant of PyTorch that takes least memory. */
export function budgetTable(summary: Summary): string {
  const rows = summary.rows.flatMap((row) => {
    const own = thimbleOf(row, "min");
    if (own === undefined) return [];
    const other = row.min && pytorchOf(row, row.min.against);
    if (row.min === undefined || other === undefined) {
      return [[rowTitle(row), row.withheld ?? own.failure ?? "not measured", "", "", "", "", ""]];
    }
    const { against: name } = row.min;
    const memory = [whole(own.peakMiB), `${whole(other.peakMiB)} (${name})`, memoryCell(row.min)];
    return [[rowTitle(row), ...memory, whole(own.tokensPerSecond), whole(other.tokensPerSecond), speedCell(row.min)]];
  });
  const heads = ["", "peak MiB", "PyTorch's least", "memory × (mark)", "tokens/s", "PyTorch", "speed × (mark)"];
  return markdown(heads, rows).join("\n");
}

function contenderRow(row: SummaryRow, one: SummaryContender): string[] {
  const name = `${rowTitle(row)}, ${one.peer === "thimble" ? "Thimble" : "PyTorch"} ${one.variant}`;
  if (one.range === undefined) return [name, one.failure ?? "not measured", "", "", "", "", ""];
  const over = one.planMiB === undefined || one.peakMiB === undefined ? undefined : one.peakMiB - one.planMiB;
  const range = `${one.range[0].toFixed(0)} to ${one.range[1].toFixed(0)}`;
  return [
    name,
    whole(one.tokensPerSecond),
    range,
    whole(one.peakMiB),
    whole(one.planMiB),
    whole(over),
    String(one.rounds),
  ];
}

/** Every contender of every row. */
export function fullTable(summary: Summary): string {
  return markdown(
    ["", "tokens/s", "of the rounds", "peak MiB", "plan MiB", "above it", "rounds"],
    summary.rows.flatMap((row) => row.contenders.map((one) => contenderRow(row, one))),
  ).join("\n");
}

/** How far the losses lie apart. */
export function lossTable(summary: Summary): string {
  const rows = summary.rows.map((row) => {
    const { lossDifference: found, tolerance } = row;
    const cell = (value: number | undefined, limit: number): string =>
      value === undefined ? "–" : `${value.toExponential(1)} (${limit})`;
    return [rowTitle(row), cell(found?.first, tolerance.first), cell(found?.all, tolerance.all)];
  });
  return markdown(["", "first step (tolerance)", "all steps (tolerance)"], rows).join("\n");
}

/** Which variants the measured rows were not held against, and why. */
export function gaps(summary: Summary): string {
  const sentences = summary.rows.flatMap((row) => {
    const absent = row.contenders.filter((one) => one.range === undefined);
    if (absent.length === 0) return [];
    const names = absent.map(({ peer, variant, failure }) => {
      const name = peer === "thimble" ? `Thimble ${variant}` : variant;
      return failure === undefined ? name : `${name} (${failure})`;
    });
    return [`${rowTitle(row)}: ${names.join(", ")}`];
  });
  return sentences.length === 0 ? "" : ` Without figures: ${sentences.join("; ")}.`;
}

/** What the numbers were measured on, and when. */
export function origin(summary: Summary): string {
  const { machine, peak, sittings, rounds } = summary;
  const rates =
    peak === undefined
      ? ""
      : ` Its multipliers do ${whole(peak.f32)} GFLOP/s in f32 and ${whole(peak.bf16)} in bf16 on ${peak.threads} threads.`;
  const times = sittings.map(({ started, commits }) => `${started.slice(0, 10)} (commit ${commits.join(", ")})`);
  const when = [...new Set(times)].join("; ");
  return (
    `${String(machine["processor"])}, ${String(machine["cores"])} cores, ${String(machine["memoryGiB"])} GiB, ` +
    `Node ${String(machine["node"])}.${rates} At least ${rounds} ${rounds === 1 ? "round" : "rounds"} of each, medians. Measured ${when}.`
  );
}
