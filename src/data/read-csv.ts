import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { CsvError, parse } from "csv-parse";
import { ThimbleError } from "../errors.js";
import { asObject, messageOf } from "./json.js";
import type { FileRecord } from "./read-files.js";
import { readText } from "./read-files.js";

/** A longer record is taken for an open quotation mark. */
const mostRecordBytes = 1 << 24;

/**
 * The rows of a CSV file (or TSV, by its delimiter, which knows no quotation marks) as records of texts, by the names in
 * its first row. Throws `data-csv`, and what reading any text throws.
 */
export async function* readCsv(path: string, delimiter: "," | "\t"): AsyncGenerator<FileRecord> {
  const parser = parse({
    delimiter,
    columns: true,
    skip_empty_lines: true,
    max_record_size: mostRecordBytes,
    info: true,
    quote: delimiter === "," ? '"' : false,
  });
  // What goes wrong in either stream ends the other: it is met below, where the rows are read.
  const feeding = pipeline(Readable.from(readText(path)), parser).catch(() => undefined);
  try {
    for await (const row of parser) {
      const { record, info } = row as { record: unknown; info: { lines: number } };
      const object = asObject(record);
      if (object !== undefined) yield { record: object, where: `${path}:${info.lines}` };
    }
  } catch (error) {
    if (error instanceof ThimbleError) throw error;
    const line = error instanceof CsvError ? `:${String(error["lines"])}` : "";
    throw new ThimbleError("data-csv", `The file cannot be read as a table: ${messageOf(error)}`, {
      where: `${path}${line}`,
      expected: "names of columns in the first row, and as many fields in each row after it",
      fix: "Put fields with delimiters or line ends into quotation marks, or write JSONL.",
      cause: error,
    });
  } finally {
    parser.destroy();
    await feeding;
  }
}
