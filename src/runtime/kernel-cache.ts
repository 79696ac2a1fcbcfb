import { createHash, randomBytes } from "node:crypto";
import { chmodSync, lstatSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ThimbleError } from "../errors.js";
import { cacheDirectory, librarySuffix, readText } from "./platform.js";

/** SHA-256 of the parts, each with its length, as 64 hexadecimal digits. */
export function digestOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(`${String(part.length)}:`).update(part);
  return hash.digest("hex");
}

const staleAfterMilliseconds = 24 * 3600 * 1000;

/**
 * Compiled units on disk, safe for several processes at once:
 *
 *     compiled-1/unit-<key>/{unit.c, unit.so, digest}   made under a temporary name, then renamed
 *     compiled-1/kernel-<key>                           names the unit that holds this kernel
 *     compiled-1/note-<key>                             a fact that is slow to find out
 *
 * What is read back is code that will run, so the directory must be this user's own (mode 0700), and a library is
 * used only if it still has the digest it was stored with.
 */
export class KernelCache {
  readonly directory: string;

  constructor(root: string = cacheDirectory()) {
    this.directory = join(root, "compiled-1");
    mkdirSync(this.directory, { recursive: true, mode: 0o700 });
    this.#checkOwner();
  }

  #checkOwner(): void {
    if (process.getuid === undefined) return;
    const status = lstatSync(this.directory);
    if (!status.isDirectory() || status.uid !== process.getuid()) {
      throw new ThimbleError("cache-unsafe", "The cache directory belongs to someone else", {
        given: `${this.directory}, owned by user ${status.uid}`,
        expected: `a directory of user ${process.getuid()}`,
        fix: "Set THIMBLE_CACHE to a directory of your own.",
      });
    }
    if ((status.mode & 0o077) !== 0) chmodSync(this.directory, 0o700);
  }

  /** The key of the unit that holds a kernel, or undefined. */
  unitOf(kernelKey: string): string | undefined {
    try {
      const text = readFileSync(join(this.directory, `kernel-${kernelKey}`), "utf8");
      return /^[0-9a-f]{64}$/.test(text) ? text : undefined;
    } catch {
      return undefined;
    }
  }

  /** Remembers that a unit holds a kernel. */
  link(kernelKey: string, unitKey: string): void {
    this.#write(`kernel-${kernelKey}`, unitKey);
  }

  #write(name: string, text: string): void {
    const temporary = join(this.directory, `tmp-${String(process.pid)}-${randomBytes(6).toString("hex")}`);
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, join(this.directory, name));
  }

  /** The text kept under a key, or what `make` gives, which is then kept. */
  async remember(key: string, make: () => Promise<string | undefined>): Promise<string | undefined> {
    const name = `note-${digestOf(key)}`;
    const kept = readText(join(this.directory, name));
    if (kept !== undefined) return kept;
    const made = await make();
    if (made !== undefined) this.#write(name, made);
    return made;
  }

  /** The path of a stored unit's library, or undefined when it is absent or not what was stored. */
  libraryOf(unitKey: string): string | undefined {
    const unit = join(this.directory, `unit-${unitKey}`);
    const path = join(unit, `unit${librarySuffix()}`);
    try {
      const expected = readFileSync(join(unit, "digest"), "utf8");
      return digestOf(readFileSync(path)) === expected ? path : undefined;
    } catch {
      return undefined;
    }
  }

  /** A new empty directory to build a unit in. */
  workDirectory(): string {
    this.#dropStale();
    const path = join(this.directory, `tmp-${String(process.pid)}-${randomBytes(6).toString("hex")}`);
    mkdirSync(path, { mode: 0o700 });
    return path;
  }

  /** Moves a built unit into its place; where another process was first, its unit is kept if it is sound. */
  store(unitKey: string, workDirectory: string): string {
    const digest = digestOf(readFileSync(join(workDirectory, `unit${librarySuffix()}`)));
    writeFileSync(join(workDirectory, "digest"), digest, { mode: 0o600 });
    const target = join(this.directory, `unit-${unitKey}`);
    for (let attempt = 0; attempt < 20; attempt++) {
      try {
        renameSync(workDirectory, target);
      } catch (error) {
        const code = error instanceof Error && "code" in error ? error.code : undefined;
        if (code !== "ENOTEMPTY" && code !== "EEXIST" && code !== "EPERM" && code !== "EACCES") throw error;
      }
      const path = this.libraryOf(unitKey);
      if (path !== undefined) {
        rmSync(workDirectory, { recursive: true, force: true });
        return path;
      }
      rmSync(target, { recursive: true, force: true });
    }
    throw new ThimbleError("cache-write", "A compiled kernel could not be stored", {
      where: target,
      fix: "Check that the disk has room, or set THIMBLE_CACHE to another directory.",
    });
  }

  /** Keeps the source of a unit that did not compile, and says where. */
  keepFailed(unitKey: string, source: string): string {
    const path = join(this.directory, `failed-${unitKey}.c`);
    writeFileSync(path, source, { mode: 0o600 });
    return path;
  }

  /** Removes what interrupted processes left behind. */
  #dropStale(): void {
    for (const name of readdirSync(this.directory)) {
      if (!name.startsWith("tmp-") && !name.startsWith("failed-")) continue;
      const path = join(this.directory, name);
      const age = Date.now() - (lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
      if (age > staleAfterMilliseconds) rmSync(path, { recursive: true, force: true });
    }
  }
}
