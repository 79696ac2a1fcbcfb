/** Runs the attention kernels on test cases: on memory full of NaN between guards, on any number of threads. */
import { expect } from "vitest";
import { bf16Bits, bf16FromBits } from "../ir/dtype.js";
import { compileLibrary, type Library } from "../runtime/compiler.js";
import type { NativeMemory } from "../runtime/native.js";
import type { Pool } from "../runtime/pool.js";
import { floatBits, type Word } from "../runtime/table.js";
import { renderAttentionBackward } from "../targets/c/attention-backward.js";
import { renderAttention } from "../targets/c/attention-forward.js";
import {
  attentionBackwardWords,
  attentionBackwardWorkspace,
  attentionName,
  attentionWords,
  attentionWorkspace,
  type AttentionSpec,
} from "../targets/c/attention.js";
import { prelude } from "../targets/c/prelude.js";
import type { ReferenceCase } from "./attention-reference.js";

export interface AttentionCase extends Partial<ReferenceCase> {
  readonly storage?: "f32" | "bf16";
  readonly compute?: "f32" | "bf16";
  /** Lengths of segments; a negative one is padding. */
  readonly packed?: readonly number[];
}

export function specOf(c: AttentionCase): AttentionSpec {
  const { headSize = 64, storage = "f32", compute = "f32", causal = false } = c;
  return { headSize, storage, compute, causal, segments: c.packed !== undefined };
}

let seed = 7;
function random(): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 31 - 1;
}

/** Starts the random numbers anew, by a name: what a case draws then depends on no other case. */
export function seedRandom(name: string): void {
  seed = 1;
  for (const character of name) seed = (Math.imul(seed, 31) + character.charCodeAt(0)) & 0x7fffffff;
}

/** Numbers in -size..size that `storage` holds. */
export function randomValues(storage: "f32" | "bf16", count: number, size = 1): Float32Array {
  const values = new Float32Array(count).map(() => size * random());
  return storage === "f32" ? values : values.map((value) => bf16FromBits(bf16Bits(value)));
}

function segmentsOf(batch: number, keys: number, lengths: readonly number[]): Int32Array {
  const one = lengths.flatMap((length, index) => Array<number>(Math.abs(length)).fill(length < 0 ? -1 : index));
  return Int32Array.from({ length: batch * keys }, (_, i) => one[i % keys] ?? -1);
}

/** The case with random tensors, as the reference takes it. */
export function referenceOf(c: AttentionCase): ReferenceCase {
  const { batch = 1, queries = 64, heads = 1, headSize = 64, storage = "f32" } = c;
  const { keys = queries, keyHeads = heads, scale = 1 / Math.sqrt(headSize) } = c;
  const segments = c.packed === undefined ? undefined : segmentsOf(batch, keys, c.packed);
  const query = randomValues(storage, batch * queries * heads * headSize, 3);
  const key = randomValues(storage, batch * keys * keyHeads * headSize);
  const value = randomValues(storage, batch * keys * keyHeads * headSize);
  const visibility = { causal: c.causal ?? false, window: c.window ?? 0, offset: c.offset, segments };
  return {
    batch,
    queries,
    keys,
    heads,
    keyHeads,
    headSize,
    scale: Math.fround(scale),
    ...visibility,
    query,
    key,
    value,
  };
}

function encode(storage: string, values: Float32Array): Uint8Array {
  return storage === "f32" ? new Uint8Array(values.buffer) : new Uint8Array(Uint16Array.from(values, bf16Bits).buffer);
}

function decode(storage: string, bytes: Uint8Array): Float32Array {
  const { buffer } = bytes.slice();
  return storage === "f32" ? new Float32Array(buffer) : Float32Array.from(new Uint16Array(buffer), bf16FromBits);
}

const guard = 128;

/** One operand between guards, filled with 0xff, which is NaN in every float type. */
class Operand {
  readonly address: bigint;
  readonly data: Uint8Array;
  readonly #all: Uint8Array;
  readonly #memory: NativeMemory;

  constructor(pool: Pool, bytes: number) {
    this.#memory = pool.memory(bytes + 2 * guard);
    this.#all = new Uint8Array(this.#memory.buffer(0, bytes + 2 * guard)).fill(0xa5);
    this.data = this.#all.subarray(guard, guard + bytes).fill(0xff);
    this.address = this.#memory.address + BigInt(guard);
  }

  intact(): boolean {
    const sides = [this.#all.subarray(0, guard), this.#all.subarray(guard + this.data.length)];
    return sides.every((side) => side.every((byte) => byte === 0xa5));
  }

  free(): void {
    this.#memory.release();
  }
}

export interface Outcome {
  readonly output: Float32Array;
  readonly logSumExp: Float32Array;
  readonly queryGradient: Float32Array;
  readonly keyGradient: Float32Array;
  readonly valueGradient: Float32Array;
}

/** The operands of one case; every tensor that kernels write starts as NaN. */
class Operands {
  readonly #all: Operand[] = [];

  constructor(private readonly pool: Pool) {}

  reserve(bytes: number): Operand {
    const operand = new Operand(this.pool, bytes);
    this.#all.push(operand);
    return operand;
  }

  place(bytes: Uint8Array): bigint {
    const operand = this.reserve(bytes.length);
    operand.data.set(bytes);
    return operand.address;
  }

  finish(): void {
    expect(this.#all.map((operand) => operand.intact())).toEqual(this.#all.map(() => true));
    for (const operand of this.#all) operand.free();
  }
}

/** Kernels of some specs, compiled for this machine or with other flags. */
export async function compileAttention(
  specs: readonly AttentionSpec[],
  machineFlags: readonly string[],
): Promise<Library> {
  const distinct = [...new Map(specs.map((spec) => [JSON.stringify(spec), spec])).values()];
  const kernels = distinct.flatMap((spec) => [renderAttention(spec), renderAttentionBackward(spec)]);
  const sources = kernels.map((kernel) => ({ ...kernel, includes: [prelude] }));
  return compileLibrary(sources, { machineFlags });
}

/** Forward and backward of a case. */
export function runAttention(
  library: Library,
  pool: Pool,
  spec: AttentionSpec,
  c: ReferenceCase,
  gradient: Float32Array,
): Outcome {
  const { storage } = spec;
  const operands = new Operands(pool);
  const width = storage === "f32" ? 4 : 2;
  const output = operands.reserve(c.query.length * width);
  const logSumExp = operands.reserve(c.batch * c.heads * c.queries * 4);
  const queryGradient = operands.reserve(c.query.length * width);
  const keyGradient = operands.reserve(c.key.length * width);
  const valueGradient = operands.reserve(c.value.length * width);
  const common = {
    ...c,
    query: operands.place(encode(storage, c.query)),
    key: operands.place(encode(storage, c.key)),
    value: operands.place(encode(storage, c.value)),
    output: output.address,
    logSumExp: logSumExp.address,
    segments: c.segments === undefined ? 0 : operands.place(new Uint8Array(c.segments.buffer)),
    offset: c.offset === undefined ? 0 : operands.place(new Uint8Array(Int32Array.of(c.offset).buffer)),
    scaleBits: floatBits(c.scale),
  };
  const forward = { ...common, workspace: operands.reserve(attentionWorkspace(spec, c, pool.threads)).address };
  const backward = {
    ...common,
    workspace: operands.reserve(attentionBackwardWorkspace(spec, c, pool.threads)).address,
    outputGradient: operands.place(encode(storage, gradient)),
    queryGradient: queryGradient.address,
    keyGradient: keyGradient.address,
    valueGradient: valueGradient.address,
  };
  const entry = (name: string, words: Word[]) => ({
    kind: "kernel" as const,
    address: library.address(name),
    arguments: words,
  });
  const program = pool.program([
    entry(attentionName("forward", spec), attentionWords(forward)),
    entry(attentionName("backward", spec), attentionBackwardWords(backward)),
  ]);
  program.runSync();
  program.close();
  const outcome = {
    output: decode(storage, output.data),
    logSumExp: decode("f32", logSumExp.data),
    queryGradient: decode(storage, queryGradient.data),
    keyGradient: decode(storage, keyGradient.data),
    valueGradient: decode(storage, valueGradient.data),
  };
  operands.finish();
  return outcome;
}
