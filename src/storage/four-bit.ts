/** bitsandbytes' 4-bit formats (QLoRA, arXiv 2305.14314): NF4 and FP4 codes in blocks with a scale each. */
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import { field, floatAt } from "./bits.js";
import { dynamicLevels } from "./dynamic-map.js";
import type { StorageFormat } from "./format.js";
import { definePlaneFormat } from "./format.js";
import { FourBitEncoder } from "./four-bit-encode.js";
import type { FourBitOptions } from "./four-bit-levels.js";
import { fourBitBlocks, fourBitLevels, fourBitTypes, nestedBlock } from "./four-bit-levels.js";
import type { Plane } from "./planes.js";
import { openPlanes } from "./planes.js";

/** As in `nf4-64-dq`: type, elements a block, and whether scales are quantised too. */
export function fourBitId({ type, blocksize, double }: FourBitOptions): string {
  return `${type}-${blocksize}${double ? "-dq" : ""}`;
}

/** The options that an id names, if it names any. */
export function parseFourBitId(id: string): FourBitOptions | undefined {
  const match = /^(nf4|fp4)-(\d{2,4})(-dq)?$/.exec(id);
  const type = fourBitTypes.find((known) => known === match?.[1]);
  const blocksize = fourBitBlocks.find((known) => String(known) === match?.[2]);
  if (type === undefined || blocksize === undefined) return undefined;
  return { type, blocksize, double: match?.[3] !== undefined };
}

/**
 * Codes; then f32 scales, or 8-bit codes of scales, an f32 scale for each 256 of those, and the scales' mean. A value
 * is level[code] * scale; a scale that is stored in 8 bits is map[code] * (its own scale) + mean. All products in f32.
 */
export function fourBitFormat(options: FourBitOptions): StorageFormat {
  const { type, blocksize, double } = options;
  const levels = fourBitLevels(type);
  const scale = double
    ? s.add(s.multiply(s.table(dynamicLevels, s.bitcast("i32", s.byte(0, 1))), floatAt(2)), floatAt(3))
    : floatAt(1);
  const value = (code: Scalar): Scalar => s.multiply(s.table(levels, code), scale);
  const scales: Plane[] = double
    ? [
        { elements: blocksize, bytes: 1 },
        { elements: blocksize * nestedBlock, bytes: 4 },
        { elements: Infinity, bytes: 4 },
      ]
    : [{ elements: blocksize, bytes: 4 }];
  const planes = [{ elements: 32, bytes: 16 }, ...scales] as const;
  return definePlaneFormat({
    id: fourBitId(options),
    planes,
    codes: value,
    decodeRun: (_run, lane) => value(field(s.byte(s.shiftRight(lane, 1)), s.xor(s.shiftLeft(s.and(lane, 1), 2), 4), 4)),
    encoder: (target, count, name) => new FourBitEncoder(options, openPlanes(planes, target, count), count, name),
  });
}
