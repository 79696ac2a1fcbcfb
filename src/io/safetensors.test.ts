import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openSafetensors } from "./safetensors.js";
import { writeSafetensors } from "./safetensors-write.js";
import { fixture, safetensorsFile, temporaryFolder } from "./testing/files.js";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => {
  folder.remove();
});

const halves = [-1, -0.6, -0.2, 0.2, 0.6, 1];

describe("reading the reference implementation's file", () => {
  test("lists tensors and metadata", async () => {
    const file = await openSafetensors(fixture("reference.safetensors"));
    expect(file.metadata).toEqual(new Map([["format", "pt"]]));
    expect(file.tensors.size).toBe(20);
    expect(file.info("f8_e4m3")).toMatchObject({ type: "f8_e4m3", shape: [2, 3], bytes: 6 });
    expect(file.info("scalar")).toMatchObject({ type: "f32", shape: [], bytes: 4 });
    expect(file.info("empty")).toMatchObject({ shape: [0, 4], bytes: 0 });
    await file.close();
  });

  test("gives the values of every type", async () => {
    const file = await openSafetensors(fixture("reference.safetensors"));
    const f32 = async (name: string): Promise<number[]> => [...(await file.readAs(name, "f32"))];
    expect([...(await file.readAs("f64", "f64"))]).toEqual([1 / 3, -2.5]);
    expect(await f32("f64")).toEqual([Math.fround(1 / 3), -2.5]);
    for (const [name, error] of [
      ["f32", 2e-7],
      ["f16", 5e-4],
      ["bf16", 4e-3],
    ] as const) {
      const values = await f32(name);
      halves.forEach((value, index) => {
        expect(Math.abs(value - values[index]!)).toBeLessThan(error);
      });
    }
    expect(await f32("f8_e4m3")).toEqual([0.5, -1.5, 0, 448, 2 ** -9, -0.0078125]);
    expect(await f32("f8_e5m2")).toEqual([0.5, -1.5, 0, 448, 2 ** -9, -0.0078125]);
    expect(await f32("f8_e4m3fnuz")).toEqual([0.125, -0.375, 0, 112, 0, -0.001953125]);
    expect(await f32("f8_e5m2fnuz")).toEqual([0.125, -0.375, 0, 112, 2 ** -11, -0.001953125]);
    expect(await f32("i64")).toEqual([-(2 ** 40), 7]);
    expect(await f32("u64")).toEqual([2 ** 40, 7]);
    expect([...(await file.readAs("i32", "i32"))]).toEqual([-(2 ** 31), 2 ** 31 - 1]);
    expect([...(await file.readAs("i16", "i32"))]).toEqual([-32768, 32767, 3]);
    expect([...(await file.readAs("i8", "i32"))]).toEqual([-128, 127, 3]);
    expect([...(await file.readAs("u32", "u32"))]).toEqual([2 ** 32 - 1]);
    expect([...(await file.readAs("u16", "u32"))]).toEqual([65535, 1]);
    expect([...(await file.readAs("u8", "u8"))]).toEqual([255, 1, 0]);
    expect([...(await file.readAs("bool", "bool"))]).toEqual([1, 0, 1]);
    expect([...(await file.readAs("bool", "u8"))]).toEqual([1, 0, 1]);
    expect(await f32("scalar")).toEqual([2.5]);
    expect(await f32("empty")).toEqual([]);
    expect([...(await file.readAs("f32", "bf16"))][5]).toBe(0x3f80);
    expect([...(await file.readAs("f32", "f16"))][5]).toBe(0x3c00);
    await file.close();
  });

  test("reads parts into place", async () => {
    const file = await openSafetensors(fixture("reference.safetensors"));
    const memory = new Uint8Array(20).fill(7);
    await file.readInto("i32", memory.subarray(3, 7), { from: 4, to: 8 });
    expect([...memory.subarray(2, 8)]).toEqual([7, 0xff, 0xff, 0xff, 0x7f, 7]);
    await file.readAsInto("bf16", "f32", memory.subarray(8, 16), { from: 4, to: 6 });
    expect(new DataView(memory.buffer).getFloat32(12, true)).toBe(1);
    await file.close();
  });

  test("refuses what cannot be meant", async () => {
    const file = await openSafetensors(fixture("reference.safetensors"));
    const code = (value: string): unknown => expect.objectContaining({ code: value });
    await expect(file.readAs("f31", "f32")).rejects.toThrow(code("tensor-missing"));
    await expect(file.readAs("f32", "i32")).rejects.toThrow(code("tensor-type"));
    await expect(file.readAs("u8", "bool")).rejects.toThrow(code("tensor-type"));
    await expect(file.readAs("i64", "i32")).rejects.toThrow(code("tensor-range"));
    await expect(file.readInto("f32", new Uint8Array(23))).rejects.toThrow(code("tensor-range"));
    await expect(file.readInto("f32", new Uint8Array(8), { from: 20, to: 28 })).rejects.toThrow(code("tensor-range"));
    await expect(openSafetensors(join(folder.path, "none.safetensors"))).rejects.toThrow(code("file-unreadable"));
    await file.close();
  });
});

describe("writing", () => {
  test("gives the bytes of the reference implementation", async () => {
    const source = await openSafetensors(fixture("reference.safetensors"));
    const path = join(folder.path, "new/copy.safetensors");
    const tensors = [...source.tensors.values()].reverse().map(({ name, type, shape }) => ({
      name,
      type,
      shape,
      chunks: async function* () {
        const bytes = await source.readBytes(name);
        for (let at = 0; at < bytes.length; at += 5) yield bytes.subarray(at, at + 5);
      },
    }));
    await writeSafetensors(path, tensors, { format: "pt" });
    await source.close();
    expect(readFileSync(path).equals(readFileSync(fixture("reference.safetensors")))).toBe(true);
  });

  test("leaves nothing behind when it fails", async () => {
    const path = folder.file("model.safetensors", "old");
    const tensor = (bytes: number) => ({ name: "w", type: "f32", shape: [2], chunks: () => [new Uint8Array(bytes)] });
    const code = expect.objectContaining({ code: "tensor-write" }) as unknown;
    for (const bytes of [7, 9]) await expect(writeSafetensors(path, [tensor(bytes)])).rejects.toThrow(code);
    await expect(writeSafetensors(path, [tensor(8), tensor(8)])).rejects.toThrow(code);
    await expect(writeSafetensors(path, [{ ...tensor(8), type: "q4_0" }])).rejects.toThrow(code);
    await expect(writeSafetensors(path, [{ ...tensor(8), name: "__metadata__" }])).rejects.toThrow(code);
    await expect(writeSafetensors(path, [{ ...tensor(8), type: "f4", shape: [3] }])).rejects.toThrow(code);
    expect(readFileSync(path, "utf8")).toBe("old");
    const { readdirSync } = await import("node:fs");
    expect(readdirSync(folder.path)).toEqual(["model.safetensors"]);
  });
});

describe("a damaged header", () => {
  const f32 = (from: number, to: number, shape: number[]) => ({ dtype: "F32", shape, data_offsets: [from, to] });
  const good = { a: f32(0, 8, [2]), b: f32(8, 12, [1]) };

  test("a good one passes", async () => {
    const path = folder.file("a.safetensors", safetensorsFile(good, 12));
    expect([...(await openSafetensors(path)).tensors.keys()]).toEqual(["a", "b"]);
  });

  test.each([
    ["is too short", new Uint8Array(7), "at least 8 bytes"],
    ["has a length past its end", safetensorsFile(good, 0).subarray(0, 40), "header of"],
    ["has an enormous length", new Uint8Array(64).fill(255), "header of"],
    ["is not JSON", safetensorsFile("{nonsense", 0), "valid JSON"],
    ["is not an object", safetensorsFile("[1]", 0), "start with {"],
    ["is not UTF-8", safetensorsFile(good, 12).map((byte) => (byte === 97 ? 255 : byte)), "UTF-8"],
    [
      "names a tensor twice",
      safetensorsFile(`{"a":${JSON.stringify(good.a)},"\\u0061":${JSON.stringify(good.b)}}`, 12),
      '"a" twice',
    ],
    ["is nested deeply", safetensorsFile(`{"a":${"[".repeat(1000)}${"]".repeat(1000)}}`, 12), "deeply"],
    ["overlaps", safetensorsFile({ a: good.a, b: f32(4, 8, [1]) }, 12), "overlap"],
    ["has a gap", safetensorsFile({ a: good.a, b: f32(12, 16, [1]) }, 16), "fill the file"],
    ["has bytes at the end", safetensorsFile(good, 13), "fill the file"],
    ["is cut short", safetensorsFile(good, 11), "Tensor b reaches past"],
    ["has a wrong size", safetensorsFile({ a: good.a, b: f32(8, 12, [2]) }, 12), "tensor b do not match"],
    ["has a huge shape", safetensorsFile({ a: f32(0, 8, [2 ** 40, 2 ** 40]) }, 8), "tensor a do not match"],
    ["has offsets in reverse", safetensorsFile({ a: f32(8, 0, [2]) }, 8), "tensor a do not match"],
    ["has a negative size", safetensorsFile({ a: f32(0, 8, [-1, -2]) }, 8), "Tensor a has a shape"],
    ["has a fraction", safetensorsFile({ a: f32(0, 8, [0.5, 4]) }, 8), "Tensor a has a shape"],
    ["has three offsets", safetensorsFile({ a: { ...good.a, data_offsets: [0, 4, 8] } }, 8), "data_offsets"],
    ["has an unknown dtype", safetensorsFile({ a: { ...good.a, dtype: "F31" } }, 8), "Tensor a has an unknown dtype"],
    [
      "has a dtype that objects inherit",
      safetensorsFile({ a: { ...good.a, dtype: "constructor" } }, 8),
      "unknown dtype",
    ],
    ["has a tensor that is no object", safetensorsFile({ a: 3 }, 0), "Tensor a is not"],
    ["has metadata that is no string", safetensorsFile({ __metadata__: { a: 1 }, ...good }, 12), "__metadata__"],
  ])("that %s is refused", async (_what, bytes, message) => {
    const path = folder.file("bad.safetensors", bytes);
    const error = await openSafetensors(path).then(
      () => undefined,
      (thrown: unknown) => thrown as Error & { code: string; describe: () => string },
    );
    expect(error?.code).toBe("safetensors-header");
    expect(error?.describe()).toContain(message);
    expect(error?.describe()).toContain(path);
  });

  test.each(["x", "\\\\n", "\\\\\\\\"])("a name of many megabytes of %s is only long", async (piece) => {
    const text = `{"${piece.repeat(2 ** 24)}":${JSON.stringify(good.a)}}`;
    const file = await openSafetensors(folder.file("long.safetensors", safetensorsFile(text, 8)));
    expect(file.tensors.size).toBe(1);
  });

  test("a tensor named __proto__ is a tensor", async () => {
    const text = `{"__proto__":${JSON.stringify(good.a)}}`;
    const file = await openSafetensors(folder.file("p.safetensors", safetensorsFile(text, 8)));
    expect([...file.tensors.keys()]).toEqual(["__proto__"]);
    const copy = join(folder.path, "copy.safetensors");
    await writeSafetensors(copy, [{ name: "__proto__", type: "f32", shape: [2], chunks: () => [new Uint8Array(8)] }]);
    expect([...(await openSafetensors(copy)).tensors.keys()]).toEqual(["__proto__"]);
  });
});

describe("shards", () => {
  const shard = (name: string) => safetensorsFile({ [name]: { dtype: "U8", shape: [1], data_offsets: [0, 1] } }, 1);
  const index = (map: unknown): string => JSON.stringify({ metadata: { total_size: 2 }, weight_map: map });

  test("are read through their index, or the folder", async () => {
    folder.file("model-1.safetensors", shard("a"));
    folder.file("model-2.safetensors", shard("b"));
    folder.file("model.safetensors.index.json", index({ b: "model-2.safetensors", a: "model-1.safetensors" }));
    const file = await openSafetensors(folder.path);
    expect([...file.tensors.keys()]).toEqual(["b", "a"]);
    expect(await file.readBytes("a")).toEqual(new Uint8Array(1));
    await file.close();
  });

  test.each([
    [{ a: "../model.safetensors" }],
    [{ a: "/etc/passwd" }],
    [{ a: "absent.safetensors" }],
    [{ z: "model-1.safetensors" }],
    [{ a: 3 }],
    [["model-1.safetensors"]],
    ["text"],
  ])("are refused with the map %j", async (map) => {
    folder.file("model-1.safetensors", shard("a"));
    const path = folder.file("model.safetensors.index.json", index(map));
    await expect(openSafetensors(path)).rejects.toThrow(expect.objectContaining({ code: "safetensors-index" }));
  });

  test("a folder must say which file is meant", async () => {
    await expect(openSafetensors(folder.path)).rejects.toThrow(
      expect.objectContaining({ code: "safetensors-missing" }),
    );
    folder.file("a.safetensors", shard("a"));
    expect((await openSafetensors(folder.path)).tensors.size).toBe(1);
    folder.file("b.safetensors", shard("b"));
    await expect(openSafetensors(folder.path)).rejects.toThrow(
      expect.objectContaining({ code: "safetensors-missing" }),
    );
  });
});

test("a file that shrinks while it is read is an error, not zeros", async () => {
  const path = folder.file(
    "a.safetensors",
    safetensorsFile({ a: { dtype: "U8", shape: [9], data_offsets: [0, 9] } }, 9),
  );
  const file = await openSafetensors(path);
  folder.file("a.safetensors", new Uint8Array(10));
  await expect(file.readBytes("a")).rejects.toThrow(expect.objectContaining({ code: "tensor-file-truncated" }));
  await file.close();
});

test("large tensors are converted in several chunks", async () => {
  const count = 2 ** 20 * 2 + 5;
  const path = join(folder.path, "large.safetensors");
  const values = Float32Array.from({ length: count }, (_, index) => index % 65536);
  const bytes = new Uint8Array(values.buffer);
  await writeSafetensors(path, [{ name: "w", type: "f32", shape: [count], chunks: () => [bytes] }]);
  const file = await openSafetensors(path);
  const doubles = await file.readAs("w", "f64");
  expect(doubles.every((value, index) => value === index % 65536)).toBe(true);
  expect(Buffer.from(await file.readBytes("w")).equals(Buffer.from(bytes))).toBe(true);
  await file.close();
});
