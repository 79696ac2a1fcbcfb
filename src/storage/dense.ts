/** One element a block: f32, f16, bf16. */
import { bf16Bits, f16Bits } from "../ir/dtype.js";
import { scalar as s } from "../ir/scalar.js";
import { doubleWordAt, halfToFloat, wordAt } from "./bits.js";
import { defineFormat } from "./format.js";

export const f32 = defineFormat({
  id: "f32",
  block: { elements: 1, bytes: 4 },
  runs: 1,
  decodeRun: () => s.bitcast("f32", doubleWordAt(0)),
  encode: (values) => new Uint8Array(values.slice().buffer),
});

export const f16 = defineFormat({
  id: "f16",
  block: { elements: 1, bytes: 2 },
  runs: 1,
  decodeRun: () => halfToFloat(wordAt(0)),
  encode: (values) => new Uint8Array(Uint16Array.from(values, f16Bits).buffer),
});

export const bf16 = defineFormat({
  id: "bf16",
  block: { elements: 1, bytes: 2 },
  runs: 1,
  decodeRun: () => s.bitcast("f32", s.shiftLeft(wordAt(0), 16)),
  encode: (values) => new Uint8Array(Uint16Array.from(values, bf16Bits).buffer),
});
