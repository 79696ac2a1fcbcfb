import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { GgufTensorToWrite } from "./gguf-write.js";
import { writeGguf } from "./gguf-write.js";
import { openGguf } from "./gguf.js";
import type { GgufValue } from "./gguf-metadata.js";
import type { GgufPiece } from "./testing/files.js";
import { fixture, ggufFile, ggufMagic, temporaryFolder } from "./testing/files.js";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => {
  folder.remove();
});

describe("reading the gguf package's file", () => {
  test("gives metadata of every type", async () => {
    const file = await openGguf(fixture("reference.gguf"));
    expect(file.version).toBe(3);
    expect(file.text("general.architecture")).toBe("llama");
    expect(file.text("test.string")).toBe("grüße");
    const numbers = {
      uint8: 200,
      int8: -100,
      uint16: 60000,
      int16: -30000,
      uint32: 4000000000,
      int32: -2000000000,
      float32: 1.5,
      float64: 1 / 3,
    };
    for (const [name, value] of Object.entries(numbers)) expect(file.number(`test.${name}`)).toBe(value);
    expect(file.metadata.get("test.uint64")).toEqual({ type: "u64", value: 2n ** 63n + 1n });
    expect(file.metadata.get("test.int64")).toEqual({ type: "i64", value: -(2n ** 62n) });
    expect(file.boolean("test.bool")).toBe(true);
    expect(file.texts("tokenizer.ggml.tokens")).toEqual(["<s>", "a", "é", ""]);
    expect([...Array.from(file.numbers("tokenizer.ggml.token_type")!)]).toEqual([3, 1, 1, 1]);
    expect(Array.from(file.numbers("test.floats")!)).toEqual([0.5, -1.5]);
    expect(Array.from(file.numbers("test.longs")!)).toEqual([1, -2]);
    expect(file.metadata.get("test.flags")).toMatchObject({ of: "bool", value: Uint8Array.of(1, 0) });
    expect(file.number("absent")).toBeUndefined();
    for (const wrong of [
      () => file.text("test.bool"),
      () => file.number("test.bool"),
      () => file.texts("test.longs"),
    ]) {
      expect(wrong).toThrow(expect.objectContaining({ code: "gguf-metadata" }));
    }
  });

  test("gives tensors, outermost axis first, raw or decoded", async () => {
    const file = await openGguf(fixture("reference.gguf"));
    expect(file.info("matrix.q4_0")).toMatchObject({ type: "q4_0", shape: [4, 64], bytes: 4 * 2 * 18 });
    expect([...(await file.readAs("counts", "i32"))]).toEqual([1, -2, 3]);
    const vector = await file.readAs("vector", "f32");
    for (const [name, error] of [
      ["f16", 2e-3],
      ["bf16", 1e-2],
      ["q8_0", 2e-2],
      ["q4_0", 0.4],
    ] as const) {
      const values = await file.readAs(`matrix.${name}`, "f32");
      expect(values).toHaveLength(256);
      vector.forEach((value, index) => {
        expect(Math.abs(value - values[index]!)).toBeLessThan(error);
      });
    }
    const row = new Float32Array(64);
    await file.readAsInto("matrix.q8_0", "f32", new Uint8Array(row.buffer), { from: 128, to: 192 });
    expect(row).toEqual((await file.readAs("matrix.q8_0", "f32")).subarray(128, 192));
    const part = file.readAsInto("matrix.q8_0", "f32", new Uint8Array(40), { from: 0, to: 10 });
    await expect(part).rejects.toThrow(expect.objectContaining({ code: "tensor-range" }));
    await file.close();
  });
});

describe("writing", () => {
  test("gives the bytes of the gguf package, from values and from bytes", async () => {
    const source = await openGguf(fixture("reference.gguf"));
    const copies = [...source.tensors.values()].map(({ name, type, shape }): GgufTensorToWrite => ({
      name,
      type,
      shape,
      chunks: async function* () {
        yield await source.readBytes(name);
      },
    }));
    const copy = join(folder.path, "copy.gguf");
    await writeGguf(copy, source.metadata, copies);
    expect(readFileSync(copy).equals(readFileSync(fixture("reference.gguf")))).toBe(true);
    await source.close();
  });

  test("encodes values in pieces", async () => {
    const path = join(folder.path, "new.gguf");
    const values = Float32Array.from({ length: 128 }, (_, index) => Math.sin(index));
    const types = ["f32", "f16", "bf16", "q8_0", "q4_0"];
    const metadata = new Map<string, GgufValue>([
      ["general.alignment", { type: "u32", value: 64 }],
      ["nested", { type: "array", of: "array", value: [{ type: "array", of: "u8", value: Uint8Array.of(1, 2) }] }],
      ["big", { type: "string", value: "x".repeat(200000) }],
    ]);
    await writeGguf(
      path,
      metadata,
      types.map((type) => ({
        name: type,
        type,
        shape: [2, 64],
        values: () => [values.subarray(0, 64), values.subarray(64)],
      })),
    );
    const file = await openGguf(path);
    expect(file.metadata).toEqual(metadata);
    for (const type of types) {
      const read = await file.readAs(type, "f32");
      const worst = read.reduce((most, value, index) => Math.max(most, Math.abs(value - values[index]!)), 0);
      expect(worst).toBeLessThan({ f32: 1e-9, f16: 5e-4, bf16: 4e-3, q8_0: 5e-3, q4_0: 0.13 }[type]!);
      expect(file.info(type).offset % 64).toBe(0);
    }
    await file.close();
  });

  test("refuses what the format cannot hold", async () => {
    const path = join(folder.path, "bad.gguf");
    const tensor = { name: "w", type: "q4_0", shape: [64], values: () => [new Float32Array(64)] };
    const attempt = async (change: Partial<GgufTensorToWrite>, code: string): Promise<void> => {
      const wrong = [{ ...tensor, ...change } as GgufTensorToWrite];
      await expect(writeGguf(path, new Map(), wrong)).rejects.toThrow(expect.objectContaining({ code }));
    };
    await attempt({ type: "q6_K", shape: [256] }, "tensor-write");
    await attempt({ type: "f31" }, "tensor-write");
    await attempt({ name: "n".repeat(64) }, "tensor-write");
    await attempt({ shape: [1, 1, 1, 1, 64] }, "tensor-write");
    await attempt({ shape: [65] }, "storage-row");
    await attempt({ shape: [2, 64] }, "tensor-write");
  });
});

describe("a damaged file", () => {
  const header = (tensors: bigint, metadata: bigint) => [ggufMagic, 3, tensors, metadata] as const;
  const tensor = (name: string, type: number, offset: bigint, ...shape: bigint[]) =>
    [name, shape.length, ...shape, type, offset] as const;
  const data = (bytes: number): Uint8Array => new Uint8Array(bytes);
  const padded = (...parts: readonly GgufPiece[]): Uint8Array => {
    const head = ggufFile(...parts);
    return ggufFile(head, data((32 - (head.length % 32)) % 32), data(64));
  };

  test.each([
    ["is empty", "gguf-truncated", data(0)],
    ["is no GGUF", "gguf-magic", ggufFile(0x12345678, 3, 0n, 0n)],
    ["is version 1", "gguf-magic", ggufFile(ggufMagic, 1, 0n, 0n)],
    ["is big-endian", "gguf-magic", ggufFile(ggufMagic, 0x03000000, 0n, 0n)],
    ["ends early", "gguf-truncated", ggufFile(ggufMagic, 3, 0n)],
    ["claims too many tensors", "gguf-count", ggufFile(...header(2n ** 62n, 0n), data(100))],
    ["claims too much metadata", "gguf-count", ggufFile(...header(0n, 9n), data(100))],
    ["has a key too long", "gguf-header", ggufFile(...header(0n, 1n), 2n ** 40n, data(100))],
    ["has a key past the end", "gguf-truncated", ggufFile(...header(0n, 1n), 200n, data(100))],
    ["has an unknown value type", "gguf-value-type", ggufFile(...header(0n, 1n), "k", 13, data(100))],
    ["has a string past the end", "gguf-truncated", ggufFile(...header(0n, 1n), "k", 8, 2n ** 63n, data(100))],
    ["has an array past the end", "gguf-count", ggufFile(...header(0n, 1n), "k", 9, 6, 26n, data(100))],
    ["has an array of unknowns", "gguf-value-type", ggufFile(...header(0n, 1n), "k", 9, 99, 1n, data(100))],
    [
      "nests arrays",
      "gguf-value-type",
      ggufFile(...header(0n, 1n), "k", 9, ...Array.from({ length: 8 }, () => [9, 1n]).flat(), data(100)),
    ],
    ["has a key twice", "gguf-metadata", padded(...header(0n, 2n), "k", 4, 1, "k", 4, 1)],
    ["has a bad alignment", "gguf-metadata", padded(...header(0n, 1n), "general.alignment", 4, 33)],
    ["has an unknown tensor type", "gguf-tensor", padded(...header(1n, 0n), ...tensor("w", 77, 0n, 4n))],
    ["has five axes", "gguf-tensor", padded(...header(1n, 0n), ...tensor("w", 0, 0n, 1n, 1n, 1n, 1n, 1n))],
    ["has sizes that overflow", "gguf-tensor", padded(...header(1n, 0n), ...tensor("w", 0, 0n, 2n ** 40n, 2n ** 40n))],
    ["has a size that overflows", "gguf-tensor", padded(...header(1n, 0n), ...tensor("w", 0, 0n, 2n ** 64n - 1n))],
    ["has part of a block", "gguf-tensor", padded(...header(1n, 0n), ...tensor("w", 2, 0n, 33n))],
    ["reaches past the end", "gguf-tensor", padded(...header(1n, 0n), ...tensor("w", 0, 32n, 9n))],
    ["has an offset that overflows", "gguf-tensor", padded(...header(1n, 0n), ...tensor("w", 0, 2n ** 64n - 32n, 4n))],
    ["is not aligned", "gguf-tensor", padded(...header(1n, 0n), ...tensor("w", 0, 4n, 4n))],
    ["overlaps", "gguf-tensor", padded(...header(2n, 0n), ...tensor("v", 0, 0n, 9n), ...tensor("w", 0, 32n, 8n))],
    [
      "has a tensor twice",
      "gguf-tensor",
      padded(...header(2n, 0n), ...tensor("w", 0, 0n, 8n), ...tensor("w", 0, 32n, 8n)),
    ],
    ["is part of a split", "gguf-split", padded(...header(0n, 1n), "split.count", 4, 3)],
  ])("that %s is refused", async (_what, code, bytes) => {
    const path = folder.file("bad.gguf", bytes);
    await expect(openGguf(path)).rejects.toThrow(expect.objectContaining({ code }));
  });

  test("a good one passes, and version 2 too", async () => {
    const parts = [...tensor("v", 0, 0n, 8n), ...tensor("w", 0, 32n, 2n, 4n)];
    for (const version of [2, 3]) {
      const path = folder.file("good.gguf", padded(ggufMagic, version, 2n, 0n, ...parts));
      expect((await openGguf(path)).info("w").shape).toEqual([4, 2]);
    }
  });

  test("a type without a decoder can be listed and copied but not decoded", async () => {
    const path = folder.file("iq.gguf", padded(...header(1n, 0n), ...tensor("w", 20, 0n, 32n)));
    const file = await openGguf(path);
    expect(await file.readBytes("w")).toHaveLength(18);
    await expect(file.readAs("w", "f32")).rejects.toThrow(expect.objectContaining({ code: "tensor-type" }));
    await file.close();
  });
});

test("a split model is one model", async () => {
  for (const [index, name] of ["v", "w"].entries()) {
    const metadata = new Map<string, GgufValue>([["split.count", { type: "u16", value: 2 }]]);
    const tensors = [{ name, type: "f32", shape: [2], values: () => [Float32Array.of(index, 7)] }];
    await writeGguf(join(folder.path, `model-0000${index + 1}-of-00002.gguf`), metadata, tensors);
  }
  const file = await openGguf(join(folder.path, "model-00001-of-00002.gguf"));
  expect([...(await file.readAs("w", "f32"))]).toEqual([1, 7]);
  await file.close();
  const second = openGguf(join(folder.path, "model-00002-of-00002.gguf"));
  await expect(second).rejects.toThrow(expect.objectContaining({ code: "gguf-split" }));
});
