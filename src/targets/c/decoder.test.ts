import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { describe, expect, test } from "vitest";
import { compileDecoder } from "../../storage/decoder.js";
import { storageFormat, storageFormats } from "../../storage/registry.js";
import { renderDecoderC } from "./decoder.js";

type DecodeRows = (packed: Uint8Array, out: Float32Array, blocks: number) => void;

/** Every decoder, compiled with these flags, as a function over rows of blocks. */
function compileAll(flags: readonly string[]): Map<string, DecodeRows> {
  const folder = mkdtempSync(join(tmpdir(), "thimble-decoder-"));
  try {
    const rendered = storageFormats.map((format) => renderDecoderC(format));
    const rows = rendered.map(
      ({
        name,
        bytes,
        elements,
      }) => `void rows_${name}(const uint8_t* restrict packed, float* restrict out, int blocks) {
  for (int block = 0; block < blocks; block++) ${name}(packed + block * ${bytes}, out + block * ${elements});
}`,
    );
    const source = ["#include <stdint.h>", ...rendered.map((decoder) => decoder.source), ...rows].join("\n");
    writeFileSync(join(folder, "decoders.c"), source);
    const library = join(folder, "decoders.so");
    const always = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC"];
    execFileSync("cc", [...always, ...flags, "-o", library, join(folder, "decoders.c")]);
    const loaded = koffi.load(library);
    return new Map(
      storageFormats.map(({ id }) => [
        id,
        loaded.func(`void rows_decode_${id}(const uint8_t* packed, _Out_ float* out, int blocks)`) as DecodeRows,
      ]),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Bytes from a linear congruential generator: every bit pattern of scales and codes, NaN and infinite scales too. */
function arbitraryBytes(count: number): Uint8Array {
  let state = 12345;
  return Uint8Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}

describe.each([{ flags: ["-O3", "-march=native"] }, { flags: ["-O1", "-DTHIMBLE_GENERIC"] }])(
  "C $flags",
  ({ flags }) => {
    const decoders = compileAll(flags);

    test.each(storageFormats.map((format) => format.id))("%s decodes to the bits of the JavaScript decoder", (id) => {
      const format = storageFormat(id);
      const blocks = Math.ceil(20000 / format.block.elements);
      const packed = arbitraryBytes(blocks * format.block.bytes);
      const expected = new Float32Array(blocks * format.block.elements);
      compileDecoder(format)(packed, expected);
      const decoded = new Float32Array(expected.length);
      decoders.get(id)!(packed, decoded, blocks);
      const different = decoded.findIndex((value, index) => !Object.is(value, expected[index]));
      expect({ different, given: decoded[different], expected: expected[different] }).toEqual({ different: -1 });
    });
  },
);
