/** Runs generated loop kernels on tensors, in memory filled with NaN and fenced by guard words. */
import { must } from "../../errors.js";
import { bf16Bits, bf16FromBits, f16Bits, f16FromBits } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import type { Tensor } from "../../ir/tensor.js";
import { tensor } from "../../ir/tensor.js";
import type { LoopKernel, LoopNest } from "../../targets/loops/nest.js";
import { lowerLoops } from "../../targets/loops/lower.js";
import { loopArguments, renderLoopsC } from "../../targets/c/loops.js";
import { Kernels, Memory } from "./harness.js";

const widths = { f64: 8, f32: 4, i32: 4, u32: 4, bf16: 2, f16: 2, u8: 1, bool: 1 } as const;

/** The bytes of a tensor in the layout of its element type. */
export function bytesOfTensor({ dtype, data }: Tensor): Uint8Array {
  switch (dtype) {
    case "bf16":
      return new Uint8Array(Uint16Array.from(data, bf16Bits).buffer);
    case "f16":
      return new Uint8Array(Uint16Array.from(data, f16Bits).buffer);
    case "f32":
      return new Uint8Array(Float32Array.from(data).buffer);
    case "i32":
      return new Uint8Array(Int32Array.from(data).buffer);
    case "u32":
      return new Uint8Array(Uint32Array.from(data).buffer);
    default:
      return Uint8Array.from(data);
  }
}

function numbersOf(dtype: Node["dtype"], bytes: Uint8Array): Tensor["data"] {
  const { buffer } = bytes.slice();
  switch (dtype) {
    case "bf16":
      return Float64Array.from(new Uint16Array(buffer), bf16FromBits);
    case "f16":
      return Float64Array.from(new Uint16Array(buffer), f16FromBits);
    case "f32":
      return Float64Array.from(new Float32Array(buffer));
    case "i32":
      return new Int32Array(buffer);
    case "u32":
      return new Uint32Array(buffer);
    default:
      return new Uint8Array(buffer);
  }
}

/** Kernels lowered, rendered and compiled together. */
export class CompiledLoops {
  readonly nests: readonly LoopNest[];
  readonly #library: Kernels;

  constructor(kernels: readonly LoopKernel[], flags?: readonly string[]) {
    this.nests = kernels.map(lowerLoops);
    this.#library = new Kernels(
      this.nests.map((nest) => renderLoopsC(nest).source),
      ...(flags === undefined ? [] : [flags]),
    );
  }

  /**
   * The bytes of each output of kernel `index`. `inputs` are bytes as they lie in memory; `overwrite` names, for an
   * output, the input whose memory it takes. Throws where memory outside the outputs was written.
   */
  run(
    index: number,
    inputs: readonly Uint8Array[],
    options: { threads?: number; overwrite?: readonly (number | undefined)[]; repeats?: number } = {},
  ): { outputs: Uint8Array[]; seconds: number } {
    const nest = must(this.nests[index], "kernel");
    const { name } = renderLoopsC(nest);
    const layout = loopArguments(nest);
    const sources = inputs.map((bytes) => {
      const memory = new Memory(bytes.length);
      memory.data.set(bytes);
      return memory;
    });
    const threads = options.threads ?? 1;
    const targets = layout.outputs.map((node, output) => {
      const place = options.overwrite?.[output];
      return place === undefined
        ? new Memory(elements(node.shape) * widths[node.dtype])
        : must(sources[place], "input");
    });
    const bytes = layout.workspaceBytes(threads);
    const work = new Memory(bytes);
    const addresses = [...sources, ...targets, ...(bytes > 0 ? [work] : [])].map((memory) => memory.address);
    const seconds = this.#library.run(name, [...addresses, ...layout.sizes], threads, options.repeats ?? 1);
    const outputs = targets.map((memory) => memory.read());
    const all = new Set([...sources, ...targets, work]);
    const intact = [...all].every((memory) => memory.intact());
    const kept = sources.every(
      (memory, place) => targets.includes(memory) || Buffer.from(memory.data).equals(Buffer.from(inputs[place] ?? [])),
    );
    for (const memory of all) memory.free();
    if (!intact || !kept) throw new Error(`${name} wrote where it should not`);
    return { outputs, seconds };
  }

  /** The outputs of a kernel as tensors, checked to be the same to the bit on 1, 2 and 3 threads. */
  evaluate(index: number, bindings: ReadonlyMap<Node, Tensor>): Tensor[] {
    const { inputs, outputs } = must(this.nests[index], "kernel").kernel;
    const bytes = inputs.map((node) => bytesOfTensor(must(bindings.get(node), "binding")));
    const [first, ...others] = [1, 2, 3].map((threads) => this.run(index, bytes, { threads }).outputs);
    for (const other of others) {
      for (const [place, result] of must(first, "result").entries()) {
        if (!Buffer.from(result).equals(Buffer.from(must(other[place], "output")))) {
          throw new Error("results depend on the number of threads");
        }
      }
    }
    return must(first, "result").map((result, place) => {
      const { shape, dtype } = must(outputs[place], "output");
      return { shape, dtype, data: numbersOf(dtype, result) };
    });
  }
}

/** Numbers from a fixed sequence (a linear congruential generator), in -1..1. */
export function noise(count: number, seed: number): number[] {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** A value for every input: floats in -1..1, small integers, truth values. */
export function randomBindings(inputs: readonly Node[], seed = 1): Map<Node, Tensor> {
  return new Map(
    inputs.map((node, place) => {
      const values = noise(elements(node.shape), seed * 100 + place);
      const integers = values.map((value) => Math.floor((value + 1) * 50));
      const floats = ["f32", "bf16", "f16"].includes(node.dtype);
      const numbers = floats ? values : node.dtype === "bool" ? integers.map((value) => value % 2) : integers;
      return [node, tensor(node.shape, numbers, node.dtype)];
    }),
  );
}

/** Largest difference of two tensors, relative to the largest expected element. */
export function worstError(actual: Tensor, expected: Tensor): number {
  const scale = Array.from(expected.data).reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
  let worst = 0;
  for (const [place, value] of expected.data.entries()) {
    const got = actual.data[place] ?? NaN;
    const error = Object.is(got, value) || got === value ? 0 : Math.abs(got - value) / scale;
    if (!(error <= worst)) worst = error;
  }
  return worst;
}
