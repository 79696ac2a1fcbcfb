/** Small weight files for tests, good and bad. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The path of a committed fixture. */
export function fixture(name: string): string {
  return new URL(`../fixtures/${name}`, import.meta.url).pathname;
}

/** A folder that `remove` deletes. */
export function temporaryFolder(): {
  path: string;
  remove: () => void;
  file: (name: string, data: Uint8Array | string) => string;
} {
  const path = mkdtempSync(join(tmpdir(), "thimble-io-"));
  return {
    path,
    remove: () => {
      rmSync(path, { recursive: true, force: true });
    },
    file: (name, data) => {
      writeFileSync(join(path, name), data);
      return join(path, name);
    },
  };
}

/** A safetensors file with this header, as text or as an object, and `bytes` of data. */
export function safetensorsFile(header: unknown, bytes: number): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + bytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  return file;
}

/** A piece of a GGUF file: numbers are u32, bigints u64, strings carry their length. */
export type GgufPiece = number | bigint | string | Uint8Array;

export function ggufFile(...parts: readonly GgufPiece[]): Uint8Array {
  return Buffer.concat(
    parts.map((part) => {
      if (part instanceof Uint8Array) return part;
      const buffer = Buffer.alloc(typeof part === "number" ? 4 : 8);
      if (typeof part === "number") buffer.writeUInt32LE(part);
      else if (typeof part === "bigint") buffer.writeBigUInt64LE(part);
      else {
        buffer.writeBigUInt64LE(BigInt(Buffer.byteLength(part)));
        return Buffer.concat([buffer, Buffer.from(part)]);
      }
      return buffer;
    }),
  );
}

export const ggufMagic = 0x46554747;
