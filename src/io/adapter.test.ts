import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { tinyLlama } from "../testing/tiny.js";
import { readAdapter, writeAdapterFolder } from "./adapter.js";

const model = tinyLlama();
const selections = [{ id: "spiel", settings: { density: 0.1 } }];
const parts = [
  { name: "a.delta", shape: [3], data: Float32Array.of(0.5, -2, 1e-9) },
  { name: "a.indices", shape: [3], data: Int32Array.of(7, 2 ** 30 + 1, 0) },
];
let folder = "";

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-own-"));
  await writeAdapterFolder(folder, selections, parts, { baseModel: "base" });
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function rewritten(change: (config: Record<string, unknown>) => unknown): Promise<void> {
  const path = join(folder, "adapter_config.json");
  const config = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  await writeFile(path, JSON.stringify(change(config)));
}

describe("an adapter in Thimble's own form", () => {
  test("comes back with its methods, values and integers, to the bit", async () => {
    const { selections: found, tensors, integers, baseModel } = await readAdapter(folder, model);
    expect(found).toEqual(selections);
    expect(tensors).toEqual(new Map([["a.delta", parts[0]?.data]]));
    expect(integers).toEqual(new Map([["a.indices", parts[1]?.data]]));
    expect(baseModel).toBe("base");
  });

  test.each([
    ["no methods", (config: object) => ({ ...config, methods: [] }), /^adapter-config$/],
    ["methods without names", (config: object) => ({ ...config, methods: [{ settings: {} }] }), /^adapter-config$/],
    ["another kind", (config: object) => ({ ...config, peft_type: "IA3" }), /^peft-/],
  ])("is refused with %s", async (_, change, code) => {
    await rewritten(change);
    await expect(readAdapter(folder, model)).rejects.toMatchObject({ code: expect.stringMatching(code) as unknown });
  });

  test("is refused with values that are not finite, with a tensor of another size, and cut short", async () => {
    const broken = [{ name: "a.delta", shape: [1], data: Float32Array.of(NaN) }];
    await writeAdapterFolder(folder, selections, broken);
    await expect(readAdapter(folder, model)).rejects.toMatchObject({ code: "adapter-values" });
    const odd = [{ name: "a.delta", shape: [2], data: Float32Array.of(1) }];
    await expect(writeAdapterFolder(folder, selections, odd)).rejects.toMatchObject({ code: "adapter-tensor" });
    await writeAdapterFolder(folder, selections, parts);
    await truncate(join(folder, "adapter_model.safetensors"), 60);
    await expect(readAdapter(folder, model)).rejects.toMatchObject({ name: "ThimbleError" });
  });
});
