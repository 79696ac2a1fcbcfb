import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Skip } from "./check.js";
import { runProgram } from "./process.js";

/** A Python that checks may call; what is missing makes them skip. */
export class Python {
  readonly #present = new Map<string, boolean>();

  constructor(readonly command: string | undefined) {}

  /** Skips the check unless Python and its packages are here. */
  async require(...packages: readonly string[]): Promise<string> {
    if (this.command === undefined) throw new Skip("no --python");
    for (const name of packages) {
      const present = this.#present.get(name) ?? (await this.#has(name));
      this.#present.set(name, present);
      if (!present) throw new Skip(`Python, or its package ${name}, is not here`);
    }
    return this.command;
  }

  async #has(name: string): Promise<boolean> {
    const find = `import importlib.util as u; raise SystemExit(u.find_spec(${JSON.stringify(name)}) is None)`;
    const ended = await runProgram(this.command ?? "python3", ["-c", find]).catch(() => undefined);
    return ended?.status === 0;
  }

  /** Runs a script of this folder; its last line on stdout, which must be JSON. */
  async run(script: string, ...args: readonly string[]): Promise<unknown> {
    return this.runFile(fileURLToPath(new URL(script, import.meta.url)), ...args);
  }

  async runFile(path: string, ...args: readonly string[]): Promise<unknown> {
    const { status, stdout, stderr } = await runProgram(this.command ?? "python3", [path, ...args]);
    if (status !== 0) throw new Error(`${path.split("/").at(-1) ?? ""} failed: ${stderr.trim().slice(-1500)}`);
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as unknown;
  }
}

/** A model as the PyTorch stack loads it, and the token ids to run; all fields that name files are paths. */
export interface TorchRequest {
  readonly name: string;
  /** A folder for AutoModelForCausalLM. */
  readonly model: string;
  /** A GGUF file in that folder, to load instead. */
  readonly gguf?: string;
  /** A PEFT folder to load over it, or, with `make`, to write. */
  readonly adapter?: string;
  /** Settings of a LoraConfig: an adapter with random values is made. */
  readonly make?: Readonly<Record<string, unknown>>;
  readonly ids: readonly number[];
  /** A text to encode with the folder's tokenizer. */
  readonly text?: string;
}

export interface TorchResult {
  /** Of every position, one after the other. */
  readonly logits: Float32Array;
  /** Ids of the text. */
  readonly encoded: readonly number[] | undefined;
}

/** Logits of models in transformers and peft, by the names of the requests. */
export async function torchLogits(
  python: Python,
  work: string,
  requests: readonly TorchRequest[],
): Promise<Map<string, TorchResult>> {
  const path = join(work, `requests-${requests[0]?.name ?? "none"}.json`);
  await writeFile(path, JSON.stringify(requests));
  const encoded = (await python.run("torch_logits.py", path, work)) as Record<string, number[] | null>;
  const results = new Map<string, TorchResult>();
  for (const { name } of requests) {
    const bytes = await readFile(join(work, `${name}.f32`));
    const logits = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    results.set(name, { logits, encoded: encoded[name] ?? undefined });
  }
  return results;
}
