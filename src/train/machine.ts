import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { findCompiler } from "../runtime/find-compiler.js";
import { cpuFacts } from "../runtime/platform.js";
import type { TargetName } from "../session/types.js";

/** The version in the nearest package.json above this file: that of Thimble, from source or built. */
export function thimbleVersion(): string {
  for (const place of ["../../package.json", "../../../package.json"]) {
    try {
      const parsed: unknown = JSON.parse(readFileSync(new URL(place, import.meta.url), "utf8"));
      if (typeof parsed === "object" && parsed !== null && "name" in parsed && parsed.name === "thimble") {
        return "version" in parsed ? String(parsed.version) : "0";
      }
    } catch {
      continue;
    }
  }
  return "0";
}

/**
 * The code and machine that compute a run, as far as they decide how values round. Fails where the target needs a
 * compiler and there is none, so that this is known before anything is read.
 */
export async function describeMachine(target: TargetName): Promise<Record<string, string>> {
  const version = thimbleVersion();
  if (target === "interpret") return { version };
  const { path, prefix, version: compiler } = await findCompiler();
  const { architecture, flags } = cpuFacts();
  const extensions = createHash("sha256").update(flags.join(" ")).digest("hex").slice(0, 16);
  return { version, compiler: [compiler, path, ...prefix].join(" "), processor: `${architecture} ${extensions}` };
}
