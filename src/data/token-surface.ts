import { uses } from "./tokenizer-adapt.js";
import type { TokenizerJson } from "./tokenizer-json.js";

/** How single tokens look: their text, and which of them are control tokens. */
export class TokenSurface {
  readonly specialTexts: readonly string[];
  private readonly added: ReadonlyMap<number, boolean>;
  private readonly bytes: ReadonlyMap<string, number> | undefined;
  private readonly marksSpaces: boolean;

  constructor(
    json: TokenizerJson,
    private readonly vocabulary: readonly (string | undefined)[],
  ) {
    this.added = new Map(json.added_tokens.map((token) => [token.id, token.special]));
    this.specialTexts = json.added_tokens.filter((token) => token.special).map((token) => token.content);
    this.bytes = uses(json.decoder, "ByteLevel") ? byteLevelCharacters() : undefined;
    this.marksSpaces = uses(json.decoder, "Metaspace") || uses(json.decoder, "Replace");
  }

  has(id: number): boolean {
    return this.vocabulary[id] !== undefined;
  }

  isSpecial(id: number): boolean {
    return this.added.get(id) === true;
  }

  text(id: number): string {
    const token = this.vocabulary[id];
    if (token === undefined) return `<no token ${id}>`;
    if (this.added.has(id)) return token;
    if (this.bytes !== undefined)
      return bytesToText(Array.from(token, (character) => this.bytes?.get(character) ?? 0x3f));
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
    if (byte !== undefined) return bytesToText([Number.parseInt(byte, 16)]);
    return this.marksSpaces ? token.replaceAll("▁", " ") : token;
  }
}

/** Decodes UTF-8; bytes that do not form text are written `\xE2`. */
function bytesToText(bytes: readonly number[]): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return bytes
      .map((byte) => (byte < 0x80 ? String.fromCharCode(byte) : `\\x${byte.toString(16).toUpperCase()}`))
      .join("");
  }
}

/** GPT-2's table: each byte has a printable character, the byte's own where it has one. */
function byteLevelCharacters(): Map<string, number> {
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return table;
}
