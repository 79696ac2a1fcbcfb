import koffi, { type KoffiFunc } from "koffi";
import { must, ThimbleError } from "../errors.js";
import { compileLibrary, type CompileOptions, type Library } from "./compiler.js";
import { runnerSource } from "./runner-source.js";

export type RunCall = (
  pool: bigint,
  table: bigint,
  entries: number,
  nanoseconds: bigint,
  control: bigint,
) => number | bigint;

/** The runner's functions as JavaScript sees them. */
export interface NativeFunctions {
  readonly createPool: (threads: number, spin: number) => bigint | null;
  readonly destroyPool: (pool: bigint) => void;
  readonly run: KoffiFunc<RunCall>;
  readonly map: (bytes: number, result: BigInt64Array) => number;
  readonly unmap: (address: bigint, base: bigint, mapped: bigint) => void;
  readonly vacate: (address: bigint, mapped: number) => void;
  readonly touch: bigint;
}

function bind(library: Library): NativeFunctions {
  const handle = library.handle("thimble_run");
  const func = (name: string, result: string, parameters: string[]): unknown => handle.func(name, result, parameters);
  return {
    createPool: func("thimble_pool_create", "uintptr_t", ["int32_t", "int64_t"]) as NativeFunctions["createPool"],
    destroyPool: func("thimble_pool_destroy", "void", ["uintptr_t"]) as NativeFunctions["destroyPool"],
    run: func("thimble_run", "int64_t", [
      "uintptr_t",
      "uintptr_t",
      "int64_t",
      "uintptr_t",
      "uintptr_t",
    ]) as NativeFunctions["run"],
    map: func("thimble_map", "int32_t", ["int64_t", "int64_t*"]) as NativeFunctions["map"],
    unmap: func("thimble_unmap", "void", ["int64_t", "int64_t", "int64_t"]) as NativeFunctions["unmap"],
    vacate: func("thimble_vacate", "void", ["int64_t", "int64_t"]) as NativeFunctions["vacate"],
    touch: handle.symbol("thimble_touch") as bigint,
  };
}

/** A mapping, shared with the registry of its views so that it goes away after the last of them. */
interface Mapping {
  views: number;
  released: boolean;
  readonly unmap: () => void;
}

const viewed = new FinalizationRegistry<Mapping>((mapping) => {
  mapping.views -= 1;
  if (mapping.released && mapping.views === 0) mapping.unmap();
});

/** Memory outside JavaScript's heap. `mapped` is `bytes` rounded up to whole pages. */
export class NativeMemory {
  readonly address: bigint;
  readonly mapped: number;
  readonly #functions: NativeFunctions;
  readonly #mapping: Mapping;

  constructor(
    functions: NativeFunctions,
    readonly bytes: number,
  ) {
    const result = new BigInt64Array(3);
    if (functions.map(bytes, result) === 0) {
      throw new ThimbleError("memory-refused", "The system gave no memory", {
        given: `${(bytes / 2 ** 20).toFixed(1)} MiB asked for`,
        fix: "Close other programs, or lower the memory budget, batch size or sequence length.",
      });
    }
    const address = must(result[0], "an address");
    const base = must(result[1], "a base");
    const mapped = must(result[2], "a size");
    const unmap = (): void => {
      functions.unmap(address, base, mapped);
    };
    this.#functions = functions;
    this.address = address;
    this.mapped = Number(mapped);
    this.#mapping = { views: 0, released: false, unmap };
  }

  /** The bytes of a range without copying. After {@link release} they hold nothing of use, but do no harm. */
  buffer(offset: number, length: number): ArrayBuffer {
    const mapping = this.#mapping;
    const fits = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (mapping.released || !fits || offset + length > this.bytes || length > 2 ** 32) {
      throw new ThimbleError("memory-range", "A view of native memory reaches outside it", {
        given: mapping.released ? "memory that was released" : `${length} bytes at ${offset}`,
        expected: `a range within ${this.bytes} bytes, at most 4 GiB at once`,
      });
    }
    const buffer = koffi.view(this.address + BigInt(offset), length);
    mapping.views += 1;
    viewed.register(buffer, mapping);
    return buffer;
  }

  /** Gives the memory back; only its addresses stay taken while there are views of it. */
  release(): void {
    if (this.#mapping.released) return;
    this.#mapping.released = true;
    if (this.#mapping.views === 0) this.#mapping.unmap();
    else this.#functions.vacate(this.address, this.mapped);
  }
}

let functions: Promise<NativeFunctions> | undefined;

/** The native runner, compiled and loaded once a process. */
export async function loadNative(options: CompileOptions = {}): Promise<NativeFunctions> {
  functions ??= compileLibrary([{ name: "thimble_run", source: runnerSource }], options).then(bind);
  try {
    return await functions;
  } catch (error) {
    functions = undefined;
    throw error;
  }
}
