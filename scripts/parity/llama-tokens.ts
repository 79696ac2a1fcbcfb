/**
 * Greedy tokens of a GGUF file in llama.cpp, by node-llama-cpp, in a process of its own.
 *
 *   node --import tsx llama-tokens.ts FOLDER REQUEST.json
 *
 * FOLDER has node-llama-cpp in its node_modules. REQUEST.json: {path, prompts: [ids], text, count}. Prints one line
 * {results: [ids], encoded: ids of the text}.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** The part of node-llama-cpp that is used; it is no dependency, so its own types are not here. */
interface Library {
  getLlama(options: Readonly<Record<string, unknown>>): Promise<{
    loadModel(options: Readonly<Record<string, unknown>>): Promise<Model>;
  }>;
}
interface Model {
  tokenize(text: string, specialTokens: boolean): number[];
  createContext(options: Readonly<Record<string, unknown>>): Promise<{ getSequence(): Sequence }>;
}
interface Sequence {
  evaluate(tokens: readonly number[], options: Readonly<Record<string, unknown>>): AsyncIterable<number>;
  clearHistory(): Promise<void>;
}

export interface LlamaRequest {
  readonly path: string;
  readonly prompts: readonly (readonly number[])[];
  readonly text: string;
  readonly count: number;
}

const [folder = "", request = ""] = process.argv.slice(2);
const { path, prompts, text, count } = JSON.parse(await readFile(request, "utf8")) as LlamaRequest;
const entry = join(folder, "node_modules", "node-llama-cpp", "dist", "index.js");
const library = (await import(pathToFileURL(entry).href)) as Library;
const quiet = { gpu: false, build: "never", skipDownload: true, progressLogs: false, logLevel: "error" };
const llama = await library.getLlama(quiet);
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const context = await model.createContext({ contextSize: 256, threads: 2 });
const sequence = context.getSequence();
const results: number[][] = [];
for (const prompt of prompts) {
  await sequence.clearHistory();
  const made: number[] = [];
  for await (const id of sequence.evaluate(prompt, { temperature: 0 })) {
    made.push(id);
    if (made.length === count) break;
  }
  results.push(made);
}
process.stdout.write(`${JSON.stringify({ results, encoded: model.tokenize(text, false) })}\n`);
// Nothing is left to do, and the library keeps threads.
process.exit(0);
