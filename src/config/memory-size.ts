import { ThimbleError } from "../errors.js";

const powers = ["", "K", "M", "G", "T"];

/** Bytes of a size as people write it: `900MiB` (1024s), `1.5GB` (1000s), `2G` (1024s), or a number of bytes. */
export function parseMemorySize(size: string | number): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(?:([KMGT]?)(i?)(B?))\s*$/i.exec(String(size));
  const [, number = "", prefix = "", binary = "", unit = ""] = match ?? [];
  const power = powers.indexOf(prefix.toUpperCase());
  const base = binary === "" && unit !== "" ? 1000 : 1024;
  const bytes = Math.floor(Number(number) * base ** power);
  if (match !== null && Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new ThimbleError("config-value", "memoryBudget: must be bytes, a size such as 900MiB, or min", {
    where: "--memory-budget",
    given: String(size),
  });
}
