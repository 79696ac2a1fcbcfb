import { fstatSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { must } from "../errors.js";
import { DiskWeights } from "./disk-weights.js";

const tensors = [
  { name: "a", bytes: 5000, offset: 0 },
  { name: "b", bytes: 300, offset: 8192 },
];
const contents = (bytes: number, seed: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, (_, index) => (index * 7 + seed) & 255);

describe("weights on disk", () => {
  let folder: string;
  let disk: DiskWeights;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "thimble-disk-"));
    disk = new DiskWeights(tensors, { folder: join(folder, "cache"), uncached: false });
  });
  afterEach(() => {
    disk.close();
    rmSync(folder, { recursive: true });
  });

  it("are read as they were written, from a file that nobody else can find or open", () => {
    disk.write("b", contents(300, 2));
    disk.write("a", contents(5000, 1));
    disk.flush();
    expect(disk.read("a")).toEqual(contents(5000, 1));
    expect(disk.read("b")).toEqual(contents(300, 2));
    disk.write("a", contents(5000, 3));
    expect(disk.read("a")).toEqual(contents(5000, 3));
    const { mode, nlink } = fstatSync(must(disk.places.get("a"), "place").file);
    expect(mode & 0o777).toBe(0o600);
    // A process that is killed leaves nothing behind: the file has no name already.
    if (process.platform !== "win32") {
      expect(nlink).toBe(0);
      expect(readdirSync(join(folder, "cache"))).toEqual([]);
    }
  });

  it("can be those of another file, which must stay as it is", () => {
    const path = join(folder, "model");
    writeFileSync(path, contents(9000, 4));
    disk.borrow("a", path, 100);
    expect(disk.read("a")).toEqual(contents(9000, 4).slice(100, 5100));
    disk.check();
    expect(readdirSync(folder)).toEqual(["model"]);
    utimesSync(path, 1, 1);
    expect(() => {
      disk.check();
    }).toThrow(expect.objectContaining({ code: "disk-weights-changed", where: path }) as Error);
    disk.borrow("b", path, 8900);
    expect(() => disk.read("b")).toThrow(
      expect.objectContaining({ code: "transfer-truncated", given: "end of file 100 bytes into the tensor" }) as Error,
    );
  });

  it("are refused where there is no room, no folder or no data", () => {
    const large = new DiskWeights([{ name: "a", bytes: 2 ** 52, offset: 0 }], { folder, uncached: false });
    expect(() => {
      large.write("a", { length: 2 ** 52 } as Uint8Array);
    }).toThrow(expect.objectContaining({ code: "disk-full", where: folder }) as Error);
    expect(() => disk.read("a")).toThrow(expect.objectContaining({ code: "transfer-no-file" }) as Error);
    writeFileSync(join(folder, "cache"), "");
    expect(() => {
      disk.write("b", contents(300, 1));
    }).toThrow(expect.objectContaining({ code: "transfer-failed" }) as Error);
    expect(() => {
      disk.borrow("a", join(folder, "missing"), 0);
    }).toThrow(expect.objectContaining({ code: "transfer-failed" }) as Error);
  });
});
