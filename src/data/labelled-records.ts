import { ThimbleError } from "../errors.js";
import { asString, kindOf } from "./json.js";
import type { InputFile } from "./inputs.js";
import { recordsOf } from "./ingest.js";
import type { FileRecord } from "./read-files.js";

/** A text, or two, with what is to be told of it. */
export interface LabelledRecord {
  readonly text: string;
  readonly pair?: string;
  /** A class by its name or number, or a number to tell. */
  readonly label: string | number;
  readonly where: string;
}

/** Fields of the text, and of the second text that may stand beside it. */
const textFields: readonly (readonly [string, string?])[] = [
  ["text", "text_pair"],
  ["text1", "text2"],
  ["sentence1", "sentence2"],
  ["premise", "hypothesis"],
  ["question1", "question2"],
  ["question", "sentence"],
  ["query", "passage"],
  ["sentence"],
];
const labelFields = ["label", "labels", "score"] as const;

const expected =
  '{"text": "...", "label": "name"}, with "text_pair" for a second text; or sentence1 and sentence2, premise and ' +
  "hypothesis, question1 and question2";

/** The labelled records of files, in order. Throws `data-record` with the place of one that is none. */
export async function* labelledRecords(files: readonly InputFile[]): AsyncGenerator<LabelledRecord> {
  for (const file of files) {
    if (file.kind === "text") {
      throw new ThimbleError("data-labels", "A text file has no labels", {
        where: file.path,
        expected: `records such as ${expected}`,
        fix: "Write the texts and labels as JSONL, CSV or parquet.",
      });
    }
    for await (const record of recordsOf(file)) yield parseLabelled(record);
  }
}

function parseLabelled({ record, where }: FileRecord): LabelledRecord {
  const fields = textFields.find(([first]) => record[first] !== undefined && record[first] !== null);
  const label = labelFields.map((field) => record[field]).find((value) => value !== undefined && value !== null);
  const problem = (what: string, given: string): ThimbleError =>
    new ThimbleError("data-record", `The record cannot be used: ${what}`, {
      where,
      given,
      expected,
      fix: "Correct this record or take it out.",
    });
  if (fields === undefined) throw problem("it has no text", `the fields ${Object.keys(record).join(", ")}`);
  if (label === undefined) throw problem("it has no label", `the fields ${Object.keys(record).join(", ")}`);
  const [first, second] = fields;
  const text = asString(record[first]);
  if (text === undefined) throw problem(`"${first}" is not a string`, kindOf(record[first]));
  const beside = second === undefined ? undefined : (record[second] ?? undefined);
  const pair = asString(beside);
  if (beside !== undefined && pair === undefined) throw problem(`"${second ?? ""}" is not a string`, kindOf(beside));
  return { text, ...(pair === undefined ? {} : { pair }), label: labelOf(label, problem), where };
}

function labelOf(value: unknown, problem: (what: string, given: string) => ThimbleError): string | number {
  const plain = typeof value === "bigint" ? Number(value) : typeof value === "boolean" ? String(value) : value;
  if (typeof plain === "string" && plain !== "") return plain;
  if (typeof plain === "number" && Number.isFinite(plain)) return plain;
  throw problem("its label is neither a name nor a number", kindOf(value));
}

/** What a task is, before a model is opened. */
export interface DataTask {
  readonly kind: "classification" | "regression";
  /** Names of the classes; where the data numbers them from 0, as transformers calls them. */
  readonly labels: readonly string[];
}

/** More classes than data with labels has: what has more are numbers. */
const mostClasses = 4096;

/**
 * The task that the labels of the data mean: a regression where any is not a whole number, else a classification with
 * what occurs as its classes. Reads all records; `kind` is what the run says already.
 */
export async function taskOfData(files: readonly InputFile[], kind?: DataTask["kind"]): Promise<DataTask> {
  if (kind === "regression") return { kind, labels: ["LABEL_0"] };
  const found = new Set<string>();
  let [numbers, fractions, others] = [0, 0, 0];
  for await (const { label, where } of labelledRecords(files)) {
    const value = typeof label === "number" ? label : label.trim() === "" ? NaN : Number(label);
    if (Number.isInteger(value)) numbers++;
    else if (Number.isFinite(value)) fractions++;
    else others++;
    if (found.size <= mostClasses) found.add(String(label));
    else if (fractions === 0 || kind === "classification") throw tooMany(where);
  }
  if (kind === undefined && fractions > 0 && others === 0) return { kind: "regression", labels: ["LABEL_0"] };
  return { kind: "classification", labels: classNames([...found], numbers > 0 && fractions + others === 0) };
}

function classNames(found: readonly string[], whole: boolean): string[] {
  if (found.length < 2) {
    throw new ThimbleError("data-labels", "All records of the data have the same label, or there are none", {
      given: found.length === 0 ? "no records" : found.join(", "),
      expected: "records of at least two classes",
      fix: "Check the file, or name the classes with --labels.",
    });
  }
  if (!whole) return [...found].sort((a, b) => (a < b ? -1 : 1));
  const numbers = [...new Set(found.map(Number))].sort((a, b) => a - b);
  const fromZero = numbers.every((value, index) => value === index);
  return numbers.map((value) => (fromZero ? `LABEL_${value}` : String(value)));
}

function tooMany(where: string): ThimbleError {
  return new ThimbleError("data-labels", `The data has more than ${mostClasses} different labels`, {
    where,
    expected: "names or numbers of classes",
    fix: "If the labels are numbers to tell, say --task regression.",
  });
}

/** The number of a class by its name, or as the data numbers it. Throws `data-label`. */
export function classOf({ label, where }: LabelledRecord, labels: readonly string[]): number {
  const named = labels.indexOf(String(label));
  if (named >= 0) return named;
  const number = typeof label === "number" ? label : /^\d+$/.test(label) ? Number(label) : NaN;
  if (Number.isInteger(number) && number >= 0 && number < labels.length) return number;
  const shown = labels.slice(0, 12).join(", ");
  throw new ThimbleError("data-label", "The model has no such class", {
    where,
    given: JSON.stringify(label),
    expected: `${shown}${labels.length > 12 ? ", ..." : ""}, or a number from 0 to ${labels.length - 1}`,
    fix: "Correct the label, or name all classes with --labels.",
  });
}

/** The number that a record's label says. Throws `data-label`. */
export function numberOf({ label, where }: LabelledRecord): number {
  const value = typeof label === "number" ? label : label.trim() === "" ? NaN : Number(label);
  if (Number.isFinite(value)) return value;
  throw new ThimbleError("data-label", "The label is no number, as a regression needs", {
    where,
    given: JSON.stringify(label),
    expected: "a number",
    fix: "Correct the label, or say --task classification.",
  });
}
