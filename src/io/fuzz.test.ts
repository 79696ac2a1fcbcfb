/** Damaged headers: every mutation of a valid small file either opens or gives a ThimbleError, soon and in little memory. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { ThimbleError } from "../errors.js";
import { openGguf } from "./gguf.js";
import { openSafetensors } from "./safetensors.js";
import type { TensorFile } from "./tensor-file.js";
import { fixture, temporaryFolder } from "./testing/files.js";

type Mutation =
  | { readonly kind: "set"; readonly at: number; readonly bytes: readonly number[] }
  | { readonly kind: "cut"; readonly at: number }
  | { readonly kind: "insert"; readonly at: number; readonly bytes: readonly number[] }
  | { readonly kind: "copy"; readonly at: number; readonly from: number; readonly length: number }
  | { readonly kind: "remove"; readonly at: number; readonly length: number };

/** Counts and lengths that overflow something. */
const nasty = [
  0n,
  1n,
  2n ** 31n - 1n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 40n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
  2n ** 64n - 32n,
];

function littleEndian(value: bigint, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, index) => Number((value >> BigInt(8 * index)) & 255n));
}

function mutations(size: number): fc.Arbitrary<Mutation[]> {
  const at = fc.nat(size - 1);
  const length = fc.integer({ min: 1, max: 64 });
  const some = fc.array(fc.nat(255), { minLength: 1, maxLength: 4 });
  const digits = fc
    .constantFrom(...Array.from('0123456789-{}[]",:eE.\\'), "99999999999", "null", "[[[[[[[[")
    .map((text) => [...Buffer.from(text)]);
  const numbers = fc
    .tuple(fc.constantFrom(...nasty), fc.constantFrom(4, 8))
    .map(([value, bytes]) => littleEndian(value, bytes));
  const bytes = fc.oneof(some, digits, numbers);
  const one: fc.Arbitrary<Mutation> = fc.oneof(
    fc.record({ kind: fc.constant("set" as const), at, bytes }),
    fc.record({ kind: fc.constant("cut" as const), at }),
    fc.record({ kind: fc.constant("insert" as const), at, bytes }),
    fc.record({ kind: fc.constant("copy" as const), at, from: at, length }),
    fc.record({ kind: fc.constant("remove" as const), at, length }),
  );
  return fc.array(one, { minLength: 1, maxLength: 4 });
}

function mutate(original: Buffer, changes: readonly Mutation[]): Buffer {
  let file = Buffer.from(original);
  for (const change of changes) {
    const at = Math.min(change.at, file.length);
    const [head, tail] = [file.subarray(0, at), file.subarray(at)];
    if (change.kind === "cut") file = Buffer.from(head);
    else if (change.kind === "insert") file = Buffer.concat([head, Buffer.from(change.bytes), tail]);
    else if (change.kind === "remove") file = Buffer.concat([head, tail.subarray(change.length)]);
    else if (change.kind === "set") Buffer.from(change.bytes).copy(file, at);
    else Buffer.from(file.subarray(change.from, change.from + change.length)).copy(file, at);
  }
  return file;
}

const folder = temporaryFolder();
afterAll(() => {
  folder.remove();
});

/** Opens a mutated file and reads some of it; anything but success or a ThimbleError fails the property. */
async function survives(open: (path: string) => Promise<TensorFile>, path: string): Promise<boolean> {
  try {
    const file = await open(path);
    for (const name of [...file.tensors.keys()].slice(0, 3)) await file.readBytes(name);
    await file.close();
    return true;
  } catch (error) {
    if (error instanceof ThimbleError && error.code !== "internal") return false;
    throw error;
  }
}

const cases = [
  { name: "safetensors", open: openSafetensors, file: "reference.safetensors" },
  { name: "gguf", open: openGguf, file: "reference.gguf" },
] as const;

describe.each(cases)("$name", ({ open, file }) => {
  test("never crashes, hangs or fills memory on damaged headers", async () => {
    const original = readFileSync(fixture(file));
    const path = join(folder.path, file);
    const outcomes = { opened: 0, refused: 0 };
    let [slowest, most] = [0, 0];
    const before = process.memoryUsage().arrayBuffers;
    await fc.assert(
      fc.asyncProperty(mutations(original.length), async (changes) => {
        writeFileSync(path, mutate(original, changes));
        const start = performance.now();
        if (await survives(open, path)) outcomes.opened++;
        else outcomes.refused++;
        slowest = Math.max(slowest, performance.now() - start);
        most = Math.max(most, process.memoryUsage().arrayBuffers - before);
      }),
      { numRuns: 2000, seed: 1 },
    );
    // Both outcomes happen, or the mutations would test nothing.
    expect(outcomes.refused).toBeGreaterThan(500);
    expect(outcomes.opened).toBeGreaterThan(20);
    expect(slowest).toBeLessThan(2000);
    expect(most).toBeLessThan(256 * 2 ** 20);
  });
});
