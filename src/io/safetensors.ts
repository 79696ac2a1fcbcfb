/** Reads safetensors files (format as of safetensors 0.6), alone or sharded. */
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ThimbleError } from "../errors.js";
import { isDirectory, isFile, withFile } from "./header.js";
import { parseSafetensorsHeader } from "./safetensors-header.js";
import { parseStrictJson } from "./strict-json.js";
import type { TensorInfo } from "./tensor-file.js";
import { readExactly, TensorFile } from "./tensor-file.js";

/** The bound of the reference implementation. */
const headerLimit = 100_000_000;
const indexLimit = 100_000_000;

export class SafetensorsFile extends TensorFile {
  /** The `__metadata__` of the file, or of the first shard. */
  readonly metadata: ReadonlyMap<string, string>;

  constructor(tensors: readonly TensorInfo[], metadata: ReadonlyMap<string, string>) {
    super(tensors);
    this.metadata = metadata;
  }
}

interface Shard {
  readonly tensors: readonly TensorInfo[];
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Opens the tensors of a `.safetensors` file, of a `.safetensors.index.json`, or of a folder that has either. Only
 * headers are read.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const file = (await isDirectory(path)) ? await findInFolder(path) : path;
  const shard = file.endsWith(".json") ? await readSharded(file) : await readShard(file);
  return new SafetensorsFile(shard.tensors, shard.metadata);
}

async function findInFolder(folder: string): Promise<string> {
  for (const name of ["model.safetensors.index.json", "model.safetensors"]) {
    if (await isFile(join(folder, name))) return join(folder, name);
  }
  const names = (await readdir(folder)).sort();
  const indices = names.filter((name) => name.endsWith(".safetensors.index.json"));
  const files = names.filter((name) => name.endsWith(".safetensors"));
  const [only] = indices.length > 0 ? indices : files;
  if (only !== undefined && (indices.length === 1 || (indices.length === 0 && files.length === 1)))
    return join(folder, only);
  throw new ThimbleError("safetensors-missing", "The folder does not say which safetensors file is meant", {
    where: folder,
    given: names.length === 0 ? "an empty folder" : [...indices, ...files].join(", ") || "no .safetensors file",
    expected: "model.safetensors, model.safetensors.index.json, or one .safetensors file",
  });
}

async function readShard(file: string): Promise<Shard> {
  return withFile(file, async (handle, size) => {
    if (size < 8) throw headerError(file, `a file of ${size} bytes`, "at least 8 bytes");
    const start = new Uint8Array(8);
    await readExactly(handle, start, 0, file);
    const length = new DataView(start.buffer).getBigUint64(0, true);
    const limit = Math.min(headerLimit, size - 8);
    if (length < 2n || length > BigInt(limit))
      throw headerError(file, `a header of ${length.toString()} bytes`, `2 to ${limit}`);
    const header = new Uint8Array(Number(length));
    await readExactly(handle, header, 8, file);
    return parseSafetensorsHeader(header, file, size);
  });
}

function headerError(where: string, given: string, expected: string): ThimbleError {
  return new ThimbleError("safetensors-header", "The length of the safetensors header is impossible", {
    where,
    given,
    expected,
    fix: "The file is cut short or is not safetensors: fetch it again.",
  });
}

function indexError(where: string, message: string): ThimbleError {
  return new ThimbleError("safetensors-index", message, {
    where,
    expected: `{"weight_map": {"tensor": "file.safetensors"}}`,
  });
}

async function readSharded(index: string): Promise<Shard> {
  const wanted = await readWeightMap(index);
  const tensors: TensorInfo[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [file, names] of wanted) {
    const path = join(dirname(index), file);
    if (!(await isFile(path))) {
      throw new ThimbleError("safetensors-index", "A shard named by the index is missing", {
        where: index,
        given: file,
      });
    }
    const shard = await readShard(path);
    if (tensors.length === 0) metadata = shard.metadata;
    const found = new Map(shard.tensors.map((tensor) => [tensor.name, tensor]));
    for (const name of names) {
      const tensor = found.get(name);
      if (tensor === undefined) throw indexError(index, `Tensor ${name} is not in ${file}, where the index puts it`);
      tensors.push(tensor);
    }
  }
  return { tensors, metadata };
}

/** Names of tensors by file, in the index's order. */
async function readWeightMap(index: string): Promise<Map<string, string[]>> {
  const parsed = await withFile(index, async (handle, size) => {
    if (size > indexLimit) throw indexError(index, "The index is too large");
    const bytes = new Uint8Array(size);
    await readExactly(handle, bytes, 0, index);
    return parseStrictJson(bytes, { code: "safetensors-index", where: index, depth: 16 });
  });
  const map = typeof parsed === "object" && parsed !== null && "weight_map" in parsed ? parsed.weight_map : undefined;
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw indexError(index, "The index has no weight_map");
  const files = new Map<string, string[]>();
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== "string" || basename(file) !== file || file.includes("\\") || !file.endsWith(".safetensors")) {
      throw indexError(index, `The index puts tensor ${name} in no .safetensors file of its own folder`);
    }
    const names = files.get(file) ?? [];
    names.push(name);
    files.set(file, names);
  }
  return files;
}
