/** Writes safetensors files, tensor by tensor. */
import { ThimbleError } from "../errors.js";
import { elements } from "../ir/shape.js";
import { writeAtomically } from "./atomic.js";
import { safetensorsBits } from "./safetensors-header.js";
import type { TensorToWrite } from "./tensor-write.js";
import { checkNames, writeChunks } from "./tensor-write.js";

const typeOrder = Object.keys(safetensorsBits);

/**
 * Writes the file atomically, byte for byte as the reference implementation does: larger element types come first and
 * then names in order, so that every tensor is aligned. `metadata` becomes `__metadata__`.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  checkNames(tensors);
  const sorted = tensors
    .map((tensor) => ({ tensor, bytes: bytesOf(tensor), rank: typeOrder.indexOf(tensor.type.toUpperCase()) }))
    .sort((a, b) => b.rank - a.rank || compare(a.tensor.name, b.tensor.name));
  const header: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  if (Object.keys(metadata).length > 0) header["__metadata__"] = metadata;
  let offset = 0;
  for (const { tensor, bytes } of sorted) {
    const { name, type, shape } = tensor;
    header[name] = { dtype: type.toUpperCase(), shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  await writeAtomically(path, async (write) => {
    await write(encodeHeader(header));
    for (const { tensor, bytes } of sorted) await writeChunks(write, tensor.name, bytes, tensor.chunks());
  });
}

/** Code units in order: the same on every machine, unlike a locale's order. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function bitsOf({ name, type }: TensorToWrite): number {
  const bits = safetensorsBits[type.toUpperCase()];
  if (bits === undefined || name === "__metadata__") {
    throw new ThimbleError("tensor-write", `Tensor ${name} cannot be written to a safetensors file`, {
      given: `type ${type}`,
      expected: `a name other than __metadata__, and a type of ${Object.keys(safetensorsBits).join(", ").toLowerCase()}`,
    });
  }
  return bits;
}

function bytesOf(tensor: TensorToWrite): number {
  const bytes = (elements(tensor.shape) * bitsOf(tensor)) / 8;
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new ThimbleError("tensor-write", `Tensor ${tensor.name} is not a whole number of bytes`, {
    given: `${tensor.type} [${tensor.shape.join(", ")}]`,
  });
}

/** The length and the JSON, padded with spaces so that the data is aligned to 8 bytes. */
function encodeHeader(header: Readonly<Record<string, unknown>>): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}
