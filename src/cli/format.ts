/** Numbers and tables as people read them. */

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes with three digits, in binary units: `513 MiB`. */
export function bytes(count: number): string {
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return unit === 0 ? `${value} B` : `${threeDigits(value)} ${units[unit] ?? ""}`;
}

const prefixes = ["", "k", "M", "G", "T", "P"];

/** A quantity with three digits and a decimal prefix: `4.88 M`. */
export function quantity(count: number): string {
  let [value, prefix] = [count, 0];
  while (value >= 1000 && prefix < prefixes.length - 1) [value, prefix] = [value / 1000, prefix + 1];
  return prefix === 0 ? String(Math.round(value)) : `${threeDigits(value)} ${prefixes[prefix] ?? ""}`;
}

export function threeDigits(value: number): string {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 6));
}

/** A whole number with its thousands apart. */
export function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

export function percent(part: number, all: number): string {
  return `${all === 0 ? "0.0" : ((100 * part) / all).toFixed(1)}%`;
}

/** Seconds as `0.42 s`, `12 s`, `3:05` or `1:02:03`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 10) return `${threeDigits(seconds)} s`;
  const all = Math.round(seconds);
  if (all < 60) return `${all} s`;
  const [hours, minutes, rest] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  const two = (value: number): string => String(value).padStart(2, "0");
  return hours === 0 ? `${minutes}:${two(rest)}` : `${hours}:${two(minutes)}:${two(rest)}`;
}

export interface Column {
  readonly title: string;
  readonly right?: boolean;
}

/** Rows under their titles, columns two spaces apart; the last column is not padded. */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  head: (text: string) => string = (text) => text,
): string[] {
  const widths = columns.map(({ title }, at) => Math.max(title.length, ...rows.map((row) => (row[at] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ right }, at) => {
        const cell = cells[at] ?? "";
        return right === true ? cell.padStart(widths[at] ?? 0) : cell.padEnd(widths[at] ?? 0);
      })
      .join("  ")
      .trimEnd();
  const titles = columns.some(({ title }) => title !== "") ? [head(line(columns.map(({ title }) => title)))] : [];
  return [...titles, ...rows.map(line)];
}

const eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/** A bar of `width` characters at most, to an eighth of a character. */
export function bar(share: number, width: number): string {
  const parts = Math.round(Math.max(0, Math.min(1, share)) * width * 8);
  return "█".repeat(Math.floor(parts / 8)) + (eighths[parts % 8] ?? "");
}

/** Text cut to so many characters, with an ellipsis where it was. */
export function shortened(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}

/** Words over lines of at most `width` characters. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && longer.length > width) {
      lines.push(line);
      line = word;
    } else line = longer;
  }
  return line === "" ? lines : [...lines, line];
}

/** How well a model does beside its loss: the scores of its task, or the perplexity of its text. */
export function measures(result: {
  readonly perplexity: number;
  readonly scores?: Readonly<Record<string, number>> | undefined;
}): string {
  const scores = Object.entries(result.scores ?? {});
  if (scores.length === 0) return `perplexity ${result.perplexity.toFixed(2)}`;
  return scores.map(([name, value]) => `${name} ${value.toFixed(4)}`).join("  ");
}
