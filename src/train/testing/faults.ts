import type { FileHandle } from "node:fs/promises";
import type { FileSystem } from "../files.js";
import { diskFiles } from "../files.js";

/** What a file operation throws once the process counts as killed. */
export class Killed extends Error {
  constructor() {
    super("killed");
  }
}

/**
 * The disk as a process sees it that is killed at its operation number `at` (from 0): that operation is not done, or
 * done by half where it writes, and neither is any after it.
 */
export class FaultyFiles {
  operations = 0;

  constructor(private readonly at: number) {}

  get files(): FileSystem {
    return this.wrap(diskFiles) as FileSystem;
  }

  private wrap(target: object): object {
    return new Proxy(target, {
      get: (object, name) => {
        const member: unknown = Reflect.get(object, name);
        if (typeof member !== "function") return member;
        return async (...given: unknown[]): Promise<unknown> => {
          await this.count(object, name, given);
          const result: unknown = await Reflect.apply(member as (...all: unknown[]) => unknown, object, given);
          return name === "open" ? this.wrap(result as object) : result;
        };
      },
    });
  }

  private async count(object: object, name: string | symbol, given: readonly unknown[]): Promise<void> {
    const number = this.operations++;
    // A dead process's files are closed by the system.
    if (name === "close" && number > this.at) return;
    if (number < this.at) return;
    if (number === this.at) await tear(object, name, given);
    throw new Killed();
  }
}

/** The part of a write that reaches the disk before a kill. */
async function tear(object: object, name: string | symbol, given: readonly unknown[]): Promise<void> {
  const [data] = given;
  const handle = object as FileHandle;
  if (name === "write" && data instanceof Uint8Array) await handle.write(data, 0, Math.floor(data.length / 2));
  if ((name === "writeFile" || name === "appendFile") && (typeof data === "string" || data instanceof Uint8Array)) {
    await handle.appendFile(data.slice(0, Math.floor(data.length / 2)));
  }
}
