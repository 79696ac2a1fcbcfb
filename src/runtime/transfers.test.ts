import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { FilePlaces } from "./file-places.js";
import type { NativeMemory } from "./native.js";
import { createPool, type Pool } from "./pool.js";
import type { Entry } from "./table.js";

const size = 5 * 2 ** 20 + 12345;
const pattern = (index: number): number => (index * 31 + (index >>> 9)) & 255;
const contents = Uint8Array.from({ length: size }, (_, index) => pattern(index));

describe.each([1, 2, 3])("transfers with %i threads", (threads) => {
  let folder: string;
  let path: string;
  let file: number;
  let pool: Pool;
  let memory: NativeMemory;
  let places: FilePlaces;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "thimble-transfers-"));
    path = join(folder, "weights");
    file = openSync(path, "w+");
    writeSync(
      file,
      Uint8Array.from({ length: size }, (_, index) => pattern(index)),
    );
    pool = await createPool(threads);
    memory = pool.memory(2 * size);
    places = pool.places(["first", "second"]);
    places.set(0, { file, offset: 0, path });
    places.set(1, { file, offset: 4096, path, uncached: true });
  });
  afterEach(() => {
    pool.close();
    memory.release();
    places.close();
    closeSync(file);
    rmSync(folder, { recursive: true });
  });

  const view = (): Uint8Array => new Uint8Array(memory.buffer(0, memory.bytes));
  const read = (place: number, offset: number, bytes: number): Entry => ({
    kind: "read",
    memory: memory.address + BigInt(offset),
    place: places.address(place),
    bytes,
  });
  const run = async (entries: readonly Entry[], timed = false): Promise<void> => {
    const program = pool.program(entries, timed, places);
    try {
      expect(await program.run()).toEqual({ completed: entries.length, cancelled: false });
    } finally {
      program.close();
    }
  };

  it("read while other entries run, and are there after the wait", async () => {
    const copies: Entry[] = [
      read(0, 0, size),
      read(1, size, 1000),
      { kind: "wait", transfers: 2 },
      {
        kind: "copy",
        target: memory.address + BigInt(size + 1000),
        source: memory.address + BigInt(size),
        bytes: 1000,
      },
    ];
    await run(copies, true);
    const bytes = view();
    expect(Buffer.compare(bytes.subarray(0, size), contents)).toBe(0);
    expect(Buffer.compare(bytes.subarray(size + 1000, size + 2000), contents.subarray(4096, 5096))).toBe(0);
  });

  it("write what memory holds, in order with reads, and are finished when the run is, waited for or not", async () => {
    const text = new TextEncoder().encode("written back");
    view().set(text, 100);
    const write: Entry = { kind: "write", memory: memory.address + 100n, place: places.address(1), bytes: text.length };
    await run([write, read(1, 5000, text.length)]);
    expect(view().slice(5000, 5000 + text.length)).toEqual(text);
    expect(new Uint8Array(readFileSync(path).subarray(4096, 4096 + text.length))).toEqual(text);
  });

  it("may be more than are held at once", async () => {
    const many = Array.from({ length: 700 }, (_, index) => read(index % 2, index * 64, 64));
    await run([...many, { kind: "wait", transfers: many.length }]);
    const bytes = view();
    const wrong = many.filter((_, index) => bytes[index * 64 + 7] !== pattern((index % 2) * 4096 + 7));
    expect(wrong).toEqual([]);
  });

  it("that fail stop the program at the wait, say why, and leave the pool whole", async () => {
    const fill: Entry = { kind: "fill", target: memory.address, bytes: 4, pattern: 0x01010101 };
    const program = pool.program([read(0, 64, size), { kind: "wait", transfers: 1 }, fill], false, places);
    view().fill(9, 0, 4);
    ftruncateSync(file, 3 * 2 ** 20);
    await expect(program.run()).rejects.toMatchObject({
      code: "transfer-truncated",
      where: `first in ${path}`,
      given: `end of file ${3 * 2 ** 20} bytes into the tensor`,
    });
    expect(view()[0]).toBe(9);
    places.set(0, { file: 999_999, offset: 0, path: "closed" });
    await expect(program.run()).rejects.toMatchObject({ code: "transfer-failed", where: "first in closed" });
    places.set(0, { file, offset: 0, path });
    ftruncateSync(file, size);
    expect(await program.run()).toEqual({ completed: 3, cancelled: false });
    expect(view()[0]).toBe(1);
    program.close();
  });

  it("that fail and are not waited for fail the run all the same", async () => {
    const readOnly = openSync(path, "r");
    places.set(0, { file: readOnly, offset: 0, path });
    const write: Entry = { kind: "write", memory: memory.address, place: places.address(0), bytes: 8 };
    const given = expect.stringContaining("EBADF") as string;
    await expect(run([write])).rejects.toMatchObject({ code: "transfer-failed", given });
    closeSync(readOnly);
  });
});

it("a place without a file is refused in words", async () => {
  const pool = await createPool(1);
  const memory = pool.memory(64);
  const places = pool.places(["tensor"]);
  const program = pool.program(
    [
      { kind: "read", memory: memory.address, place: places.address(0), bytes: 64 },
      { kind: "wait", transfers: 1 },
    ],
    false,
    places,
  );
  await expect(program.run()).rejects.toMatchObject({ code: "transfer-no-file", where: "tensor" });
  program.close();
  places.close();
  memory.release();
  pool.close();
});
