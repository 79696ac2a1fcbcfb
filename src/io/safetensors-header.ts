/** The header of a safetensors file: JSON of tensor names, types, shapes and byte ranges. */
import { ThimbleError } from "../errors.js";
import { elements } from "../ir/shape.js";
import { checkedProduct, checkOverlaps } from "./header.js";
import { parseStrictJson } from "./strict-json.js";
import type { TensorInfo } from "./tensor-file.js";

/** Bits of an element of every type of the format, in the order of alignment. */
export const safetensorsBits: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

/** Far more axes than any model's tensor has. */
const maximumRank = 64;

export interface SafetensorsHeader {
  readonly tensors: readonly TensorInfo[];
  readonly metadata: ReadonlyMap<string, string>;
}

function fail(where: string, message: string, detail: { given?: string; expected?: string } = {}): never {
  throw new ThimbleError("safetensors-header", message, { where, ...detail });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Parses the header of a file of `size` bytes and checks that its tensors fill the rest of the file exactly. */
export function parseSafetensorsHeader(header: Uint8Array, file: string, size: number): SafetensorsHeader {
  if (header[0] !== 0x7b) fail(file, "The safetensors header does not start with {");
  const parsed = parseStrictJson(header, { code: "safetensors-header", where: file, depth: 4 });
  if (!isRecord(parsed)) fail(file, "The safetensors header is not an object");
  const start = 8 + header.length;
  const tensors: TensorInfo[] = [];
  for (const [name, entry] of Object.entries(parsed)) {
    if (name !== "__metadata__") tensors.push(parseTensor(name, entry, file, start));
  }
  checkOverlaps("safetensors-header", tensors, file);
  checkCoverage(tensors, file, start, size);
  return { tensors, metadata: parseMetadata(parsed["__metadata__"], file) };
}

function parseMetadata(metadata: unknown, file: string): Map<string, string> {
  if (metadata === undefined) return new Map();
  if (!isRecord(metadata)) fail(file, "__metadata__ is not an object");
  return new Map(
    Object.entries(metadata).map(([key, value]) => {
      if (typeof value !== "string") fail(file, `__metadata__ has a value that is no string, at ${key}`);
      return [key, value];
    }),
  );
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function parseTensor(name: string, entry: unknown, file: string, start: number): TensorInfo {
  if (!isRecord(entry)) fail(file, `Tensor ${name} is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  const bits = typeof dtype === "string" && Object.hasOwn(safetensorsBits, dtype) ? safetensorsBits[dtype] : undefined;
  if (typeof dtype !== "string" || bits === undefined) {
    fail(file, `Tensor ${name} has an unknown dtype`, {
      given: String(dtype),
      expected: Object.keys(safetensorsBits).join(", "),
    });
  }
  if (!Array.isArray(shape) || shape.length > maximumRank || !shape.every(isCount)) {
    fail(file, `Tensor ${name} has a shape that is not a list of sizes`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    fail(file, `Tensor ${name} has data_offsets that are not two numbers`);
  }
  const [from, to] = offsets as [number, number];
  const total = checkedProduct([...shape.filter((axis) => axis !== 0), bits]);
  const expected = total === undefined ? undefined : (elements(shape) * bits) / 8;
  if (expected !== to - from) {
    fail(file, `The bytes of tensor ${name} do not match its shape`, {
      given: `data_offsets ${from} to ${to}`,
      expected: `${expected ?? "too many"} bytes for ${dtype} [${shape.join(", ")}]`,
    });
  }
  return { name, type: dtype.toLowerCase(), shape, bytes: to - from, file, offset: start + from };
}

/** The format allows no byte that belongs to no tensor. */
function checkCoverage(tensors: readonly TensorInfo[], file: string, start: number, size: number): void {
  const end = tensors.reduce((last, tensor) => Math.max(last, tensor.offset + tensor.bytes), start);
  const last = tensors.find((tensor) => tensor.offset + tensor.bytes === end);
  if (end > size) {
    fail(file, `Tensor ${last?.name ?? ""} reaches past the end of the file`, {
      given: `a file of ${size} bytes`,
      expected: `${end} bytes: the file is cut short`,
    });
  }
  const total = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  if (start + total !== size) {
    fail(file, "The tensors do not fill the file", {
      given: `${start + total} of ${size} bytes`,
      expected: "all of them",
    });
  }
}
