/** What `ollama create NAME -f Modelfile` needs of an export folder, checked by its structure. */
import type { GgufFile } from "../../src/io/gguf.js";
import type { Outcome } from "./check.js";
import { holds } from "./check.js";

const known = ["FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES"];

interface Instruction {
  readonly name: string;
  readonly value: string;
}

/** The instructions of a Modelfile: one a line, or with a value in triple quotes over several. */
export function parseModelfile(text: string): Instruction[] {
  const found: Instruction[] = [];
  const pattern = /^([A-Za-z]+)[ \t]+(?:"""([\s\S]*?)"""|(.*))$/gm;
  for (const [, name = "", long, short] of text.matchAll(pattern)) {
    found.push({ name: name.toUpperCase(), value: long ?? short ?? "" });
  }
  return found;
}

export function checkOllamaFolder(files: readonly string[], modelfile: string, gguf: GgufFile): Outcome {
  const instructions = parseModelfile(modelfile);
  const valuesOf = (name: string): string[] =>
    instructions.filter((one) => one.name === name).map(({ value }) => value);
  const from = valuesOf("FROM");
  const template = valuesOf("TEMPLATE");
  const stops = valuesOf("PARAMETER").flatMap((value) => {
    const text = /^stop (".*")$/.exec(value)?.[1];
    return text === undefined ? [] : [JSON.parse(text) as unknown];
  });
  const tokens = gguf.metadata.get("tokenizer.ggml.tokens")?.value;
  const vocabulary = new Set<unknown>(Array.isArray(tokens) ? tokens : []);
  const opened = template[0]?.match(/\{\{/g)?.length ?? 0;
  const closed = template[0]?.match(/\}\}/g)?.length ?? 0;
  const markers = template[0]?.match(/<\|[^|]+\|>/g) ?? [];
  return holds("ollama folder", "Modelfile and files of `thimble export`, by structure (Ollama itself is not run)", [
    ["only instructions that a Modelfile has", instructions.every(({ name }) => known.includes(name))],
    ["one FROM, of a file in the folder", from.length === 1 && files.includes((from[0] ?? "").replace(/^\.\//, ""))],
    ["one TEMPLATE, which places the messages", template.length === 1 && /\.Messages|\.Prompt/.test(template[0] ?? "")],
    ["as many {{ as }}", opened > 0 && opened === closed],
    ["the template's markers are tokens", markers.length > 0 && markers.every((marker) => vocabulary.has(marker))],
    ["a stop parameter", stops.length > 0],
    ["each stop is a token", stops.every((stop) => vocabulary.has(stop))],
    ["an end token in the file", gguf.metadata.has("tokenizer.ggml.eos_token_id")],
    ["the architecture in the file", gguf.text("general.architecture") !== undefined],
  ]);
}
