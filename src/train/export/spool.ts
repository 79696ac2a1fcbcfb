import { mkdtemp, open, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { must } from "../../errors.js";

/** Tensors on disk until they are read: what a merge changes before it can write it need not all be in memory. */
export class TensorSpool {
  private file: { readonly handle: FileHandle; readonly folder: string } | undefined;
  private readonly places = new Map<string, { readonly offset: number; readonly length: number }>();
  private bytes = 0;

  /** The file is made in `folder`: a temporary one may lie in memory. */
  constructor(private readonly folder: string) {}

  has(name: string): boolean {
    return this.places.has(name);
  }

  async put(name: string, values: Float32Array): Promise<void> {
    const { handle } = (this.file ??= await create(this.folder));
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const offset = this.bytes;
    for (let done = 0; done < bytes.length;) {
      done += (await handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
    }
    this.places.set(name, { offset, length: values.length });
    this.bytes += bytes.length;
  }

  async get(name: string): Promise<Float32Array> {
    const { offset, length } = must(this.places.get(name), name);
    const { handle } = must(this.file, "file of tensors");
    const values = new Float32Array(length);
    const bytes = new Uint8Array(values.buffer);
    for (let done = 0; done < bytes.length;) {
      const { bytesRead } = await handle.read(bytes, done, bytes.length - done, offset + done);
      must(bytesRead > 0 ? bytesRead : undefined, `the rest of ${name}`);
      done += bytesRead;
    }
    return values;
  }

  /** Removes the file. */
  async close(): Promise<void> {
    const { file } = this;
    if (file === undefined) return;
    this.file = undefined;
    await file.handle.close();
    await rm(file.folder, { recursive: true, force: true });
  }
}

async function create(parent: string): Promise<{ handle: FileHandle; folder: string }> {
  const folder = await mkdtemp(join(parent, ".unfinished-merge-"));
  return { handle: await open(join(folder, "tensors"), "wx+", 0o600), folder };
}
