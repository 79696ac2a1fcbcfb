import { stat } from "node:fs/promises";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import type { AsyncBuffer, FileMetaData } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { ThimbleError } from "../errors.js";
import { asObject, messageOf } from "./json.js";
import type { FileRecord } from "./read-files.js";

/** Row groups above this size are not read, since one is held in memory at a time. */
const mostGroupBytes = 1 << 30;
const mostGroupRows = 1 << 24;

/** The rows of a Parquet file, one row group in memory at a time. Throws `data-parquet`. */
export async function* readParquet(path: string): AsyncGenerator<FileRecord> {
  const { file, metadata } = await readHead(path);
  let first = 0;
  for (const [index, group] of metadata.row_groups.entries()) {
    const [rows, bytes] = [Number(group.num_rows), Number(group.total_byte_size)];
    if (!(rows >= 0 && rows <= mostGroupRows && bytes >= 0 && bytes <= mostGroupBytes)) {
      throw parquetError(path, `row group ${index} claims ${rows} rows in ${bytes} bytes`);
    }
    const records = await readGroup(path, file, metadata, first, first + rows);
    for (const [row, value] of records.entries()) {
      const record = asObject(plain(value));
      if (record !== undefined) yield { record, where: `${path}: row ${first + row + 1}` };
    }
    first += rows;
  }
}

async function readHead(path: string): Promise<{ file: AsyncBuffer; metadata: FileMetaData }> {
  try {
    const { size } = await stat(path);
    if (size < 12) throw new Error("it is too short");
    const file = await asyncBufferFromFile(path);
    return { file, metadata: await parquetMetadataAsync(file) };
  } catch (error) {
    throw parquetError(path, messageOf(error), error);
  }
}

async function readGroup(
  path: string,
  file: AsyncBuffer,
  metadata: FileMetaData,
  rowStart: number,
  rowEnd: number,
): Promise<unknown[]> {
  let rows: unknown[];
  try {
    rows = await parquetReadObjects({ file, metadata, rowStart, rowEnd, compressors });
  } catch (error) {
    throw parquetError(path, messageOf(error), error);
  }
  if (rows.length === rowEnd - rowStart) return rows;
  throw parquetError(path, `a row group gives ${rows.length} rows, not ${rowEnd - rowStart}`);
}

/** Values as JSON has them: integers of 64 bits become numbers, dates text. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(plain);
  const object = asObject(value);
  if (object === undefined || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(object).map(([key, entry]) => [key, plain(entry)]));
}

function parquetError(path: string, reason: string, cause?: unknown): ThimbleError {
  return new ThimbleError("data-parquet", `The Parquet file cannot be read: ${reason}`, {
    where: path,
    expected: "a Parquet file",
    fix: "Fetch or write the file again; write row groups of less than 1 GiB.",
    cause,
  });
}
