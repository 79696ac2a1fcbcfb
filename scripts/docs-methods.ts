/** The tables of docs/methods.md: the methods as they declare themselves, and what ran (bench/results/methods.json). */
import { existsSync, readFileSync } from "node:fs";
import type { Attempt, MethodMatrix } from "../bench/methods/results.js";
import { matrixPath, precisions, targets } from "../bench/methods/results.js";
import { describeMethod } from "../src/methods/describe.js";
import { methods } from "../src/methods/registry.js";
import { trainedShare } from "../src/methods/share.js";

function share(value: number): string {
  return `${(100 * value).toPrecision(3)} %`;
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

function tableOf(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  return [row(heads), row(heads.map(() => "---")), ...rows.map(row)].join("\n");
}

/** One line a method, from its declaration. */
export function declaredTable(): string {
  const rows = methods.map((method) => {
    const { id, title, paper, year, reduces, fills, companions } = describeMethod(method);
    const { trained, atOnce } = trainedShare(id);
    const link = /^\d{4}\.\d{4,5}$/.test(paper) ? `[${paper}](https://arxiv.org/abs/${paper})` : paper;
    return [
      `[\`${id}\`](../src/methods/${id}/README.md)`,
      title,
      trained === atOnce ? share(trained) : `${share(atOnce)} of ${share(trained)}`,
      reduces.length === 0 ? "—" : reduces.join(", "),
      fills.join(", "),
      companions.length === 0 ? "—" : companions.join(", "),
      `${link}, ${year}`,
    ];
  });
  return tableOf(["method", "what it is", "trains", "less memory for", "slots", "brings along", "paper"], rows);
}

function readMatrix(): readonly Attempt[] {
  return existsSync(matrixPath) ? (JSON.parse(readFileSync(matrixPath, "utf8")) as MethodMatrix).rows : [];
}

const marks = { ran: "✓", refused: "–", failed: "✗" } as const;

/** Notes by their text, numbered as they come. */
class Notes {
  readonly #numbers = new Map<string, number>();

  mark(text: string): string {
    const number = this.#numbers.get(text) ?? this.#numbers.size + 1;
    this.#numbers.set(text, number);
    return `<sup>${number}</sup>`;
  }

  lines(): string[] {
    return [...this.#numbers].map(([text, number]) => `${number}. ${text}`);
  }
}

function noteOf(attempt: Attempt): string | undefined {
  if (attempt.outcome === "ran") return undefined;
  return attempt.outcome === "refused" ? `\`${attempt.code}\`: ${attempt.reason}.` : `failed: ${attempt.reason}.`;
}

/** Method × family; a cell has a mark for each precision on each target, or one where all agree. */
export function familyTable(rows: readonly Attempt[] = readMatrix()): string {
  const alone = rows.filter((one) => one.methods.length === 1);
  const families = [...new Set(alone.map(({ family }) => family))];
  const notes = new Notes();
  const lines = [...new Set(alone.map((one) => one.methods.join()))].map((id) => [
    `\`${id}\``,
    ...families.map((family) => cellOf(alone, id, family, notes)),
  ]);
  const head = tableOf(["method", ...families], lines);
  return [head, "", ...notes.lines()].join("\n").trimEnd();
}

function cellOf(rows: readonly Attempt[], id: string, family: string, notes: Notes): string {
  const own = rows.filter((one) => one.methods.join() === id && one.family === family);
  const kinds = new Set(own.map((one) => `${one.outcome}${noteOf(one) ?? ""}`));
  const text = (one: Attempt): string => {
    const note = noteOf(one);
    return marks[one.outcome] + (note === undefined ? "" : notes.mark(note));
  };
  const [first] = own;
  if (first !== undefined && kinds.size === 1) return text(first);
  return precisions
    .flatMap((dtype) =>
      targets.flatMap((target) => {
        const one = own.find((entry) => entry.dtype === dtype && entry.target === target);
        return one === undefined || one.outcome === "ran" ? [] : [`${dtype} ${target} ${text(one)}`];
      }),
    )
    .join("<br>");
}

/** Every two methods together, above the diagonal. */
export function pairTable(rows: readonly Attempt[] = readMatrix()): string {
  const pairs = rows.filter((one) => one.methods.length === 2);
  const ids = [...new Set(pairs.flatMap((one) => one.methods))];
  const notes = new Notes();
  const lines = ids.slice(0, -1).map((first, at) => [
    `\`${first}\``,
    ...ids.slice(1).map((second, place) => {
      const one = pairs.find(({ methods: [a, b] }) => a === first && b === second);
      if (place < at || one === undefined) return "";
      const note = noteOf(one);
      return marks[one.outcome] + (note === undefined ? "" : notes.mark(note));
    }),
  ]);
  return [tableOf(["", ...ids.slice(1)], lines), "", ...notes.lines()].join("\n").trimEnd();
}
