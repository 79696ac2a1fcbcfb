import { ThimbleError } from "../errors.js";
import { bf16, f16, f32 } from "./dense.js";
import type { StorageFormat } from "./format.js";
import { fourBitFormat, parseFourBitId } from "./four-bit.js";
import { integerFormat, parseIntegerId } from "./integer.js";
import { q4_0, q4_1, q5_0, q5_1, q8_0 } from "./gguf-blocks.js";
import { q2_K, q3_K, q4_K, q5_K, q6_K } from "./gguf-k-blocks.js";

/** Every storage format without settings of its own, in the order in which they are listed to a person. */
export const storageFormats: readonly StorageFormat[] = [
  f32,
  f16,
  bf16,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q2_K,
  q3_K,
  q4_K,
  q5_K,
  q6_K,
];

const byId = new Map(storageFormats.map((format) => [format.id, format]));

/** The format of this name, made when it is first asked for; undefined where there is none. */
function find(id: string): StorageFormat | undefined {
  const known = byId.get(id);
  if (known !== undefined) return known;
  const fourBit = parseFourBitId(id);
  const integer = parseIntegerId(id);
  const made =
    fourBit !== undefined ? fourBitFormat(fourBit) : integer !== undefined ? integerFormat(integer) : undefined;
  if (made === undefined) return undefined;
  byId.set(id, made);
  return made;
}

/** The format of this name, or an error that lists the names. */
export function storageFormat(id: string): StorageFormat {
  const format = find(id);
  if (format === undefined) {
    throw new ThimbleError("storage-unknown", `Thimble has no storage format named ${id}`, {
      given: id,
      expected: `${storageFormats.map((known) => known.id).join(", ")}, nf4-BLOCK, fp4-BLOCK, nf4-BLOCK-dq, fp4-BLOCK-dq or intBITS-GROUP`,
    });
  }
  return format;
}

export function isStorageFormat(id: string): boolean {
  return find(id) !== undefined;
}
