/** The registry of methods, src/methods/registry.ts: one line a folder that declares a method. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../src/methods", import.meta.url));
export const registryPath = join(folder, "registry.ts");

/** `wta-crs` -> `wtaCrs`, as the folder's index.ts exports it. */
function exported(id: string): string {
  return id.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** The file's text: a folder of src/methods is a method if it has an index.ts. */
export function registryText(): string {
  const ids = readdirSync(folder)
    .filter((name) => existsSync(join(folder, name, "index.ts")))
    .sort();
  return [
    "// Made by scripts/docs.ts from the folders beside this file. Do not edit.",
    ...ids.map((id) => `import { ${exported(id)} } from "./${id}/index.js";`),
    'import type { Method } from "./types.js";',
    "",
    "/** Every method, by name. */",
    "export const methods: readonly Method[] = [",
    ...ids.map((id) => `  ${exported(id)},`),
    "];",
    "",
  ].join("\n");
}
