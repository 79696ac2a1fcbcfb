/** 64 bits of FNV-1a over the text's UTF-16 units, in hexadecimal. */
export function contentHash(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (let index = 0; index < text.length; index++) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(text.charCodeAt(index))) * 0x100000001b3n);
  }
  return hash.toString(16).padStart(16, "0");
}

/** `source` so that it may stand several times in one translation unit. */
export function once(name: string, source: string): string {
  return `#ifndef THIMBLE_ONCE_${name}\n#define THIMBLE_ONCE_${name}\n${source}\n#endif\n`;
}
