import picocolors from "picocolors";
import type { SideReport } from "./dataset.js";
import type { InspectedRow, InspectedToken, Inspection } from "./inspect.js";

type Colors = ReturnType<typeof picocolors.createColors>;

/** The inspection as text for a terminal: trained tokens green, others dim, `┃` where a record starts. */
export function renderInspection(inspection: Inspection, colors: Colors = picocolors): string {
  const { report } = inspection;
  const rows = inspection.rows.map((row, index) => {
    const label = row.label === undefined ? "" : `  ${colors.green(printable(row.label))}`;
    return `${colors.bold(`row ${index}`)}${label}\n${renderRow(row, colors)}`;
  });
  return [
    ...summary(inspection),
    "",
    ...renderHistogram(inspection),
    ...(report.notices.length === 0 ? [] : ["", ...report.notices.map((notice) => colors.yellow(`! ${notice}`))]),
    "",
    `${colors.green("trained")} ${colors.dim("not trained")} ${colors.cyan("┃")} a record starts`,
    ...rows,
  ].join("\n");
}

function summary({ report, sequence, lengths }: Inspection): string[] {
  const { train, holdout } = report;
  const files = report.files.map((file) => file.path);
  const shown = files.length > 3 ? [...files.slice(0, 3), `and ${files.length - 3} more`] : files;
  return [
    `format      ${report.format}`,
    `files       ${printable(shown.join(", "))}`,
    `train       ${describeSide(train, report.format)}`,
    ...(holdout === undefined ? [] : [`held out    ${describeSide(holdout, report.format)}`]),
    `lengths     shortest ${lengths.shortest}, median ${lengths.median}, longest ${lengths.longest} tokens`,
    `rows        ${report.mode}, ${sequence} tokens each, ${(100 * train.efficiency).toFixed(1)}% filled`,
  ];
}

function describeSide(side: SideReport, format: Inspection["report"]["format"]): string {
  const { records, tokens, trainedTokens, rows } = side;
  const trained = format === "labelled text" ? "" : `, ${trainedTokens} trained`;
  return `${records} records, ${tokens} tokens${trained}, ${rows} rows`;
}

function renderHistogram({ histogram }: Inspection): string[] {
  const most = Math.max(1, ...histogram.map((bucket) => bucket.records));
  return histogram.map(({ from, to, records }) => {
    const range = `${from}-${to}`.padStart(15);
    return `${range} ${"█".repeat(Math.ceil((40 * records) / most))} ${records}`;
  });
}

function renderRow(row: InspectedRow, colors: Colors): string {
  const text = row.tokens.map((token) => renderToken(token, colors)).join("");
  return row.padding === 0 ? text : `${text}${colors.dim(`[${row.padding} empty]`)}`;
}

function renderToken(token: InspectedToken, colors: Colors): string {
  const mark = token.startsPiece ? colors.cyan("┃") : "";
  const paint = token.weight > 0 ? colors.green : colors.dim;
  // A colour never spans a line end, so that each line can be read by itself.
  const lines = printable(token.text).split("\n");
  return mark + lines.map((line) => (line === "" ? "" : paint(line))).join("\n");
}

/** Text without control characters, which could take over a terminal; line ends are shown and kept. */
function printable(text: string): string {
  return text
    .replace(/\n/g, "↵\n")
    .replace(/[\p{Cc}\p{Cf}]/gu, (character) => (character === "\n" ? character : escaped(character)));
}

function escaped(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}
