import { must, ThimbleError } from "../errors.js";
import { sizeOf } from "../ir/dtype.js";
import { elements } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import type { WeightSource } from "../io/weight-source.js";
import { leafAttributes } from "../ops/leaves.js";
import { tensorToBytes } from "../targets/interpret/memory.js";
import { compileDecoder } from "../storage/decoder.js";
import { storageFormat } from "../storage/registry.js";
import { initialValues } from "../methods/initial.js";
import { streamPrefix } from "../step/inputs.js";
import type { SessionPlan } from "./plan.js";

type BytesOf = (name: string) => Uint8Array;

/** Gives every persistent tensor its value at the start of a run: base weights, methods' tensors, states. */
export async function loadTensors(plan: SessionPlan, weights: WeightSource, bytesOf: BytesOf): Promise<void> {
  const { leaves, options } = plan;
  const base = new Set(options.definition.parameters.map((parameter) => parameter.name));
  for (const [name, leaf] of leaves) {
    const { role, format } = leafAttributes(leaf);
    if (base.has(name)) await weights.readInto(name, bytesOf(name), format);
    else if (name.startsWith(streamPrefix)) writeStream(name, bytesOf(name));
    else if (role !== "weight") bytesOf(name).fill(0);
  }
  for (const tensor of options.methods?.adapters ?? []) {
    if (!leaves.has(tensor.name)) continue;
    if (tensor.initial.kind === "prepared") bytesOf(tensor.name).fill(0xff);
    else write({ ...tensor, data: initialValues(tensor, options.seed) }, bytesOf(tensor.name));
  }
  await prepareMethods(plan, bytesOf);
  copyMasters(plan, bytesOf);
}

function writeStream(name: string, bytes: Uint8Array): void {
  new Uint32Array(bytes.buffer, bytes.byteOffset, 1)[0] = Number(name.slice(streamPrefix.length));
}

function write(value: Tensor, bytes: Uint8Array): void {
  tensorToBytes(value, bytes);
}

/** Lets methods read and change base weights in place, and set their own tensors. */
async function prepareMethods({ options, leaves }: SessionPlan, bytesOf: BytesOf): Promise<void> {
  const { methods, definition, seed } = options;
  if (methods?.prepares !== true) return;
  const formatOf = (name: string): string => leafAttributes(must(leaves.get(name), `tensor ${name}`)).format;
  await methods.prepare({
    model: definition,
    seed,
    format: formatOf,
    read: (name) => {
      const values = new Float32Array(elements(must(leaves.get(name), `tensor ${name}`).shape));
      compileDecoder(storageFormat(formatOf(name)))(bytesOf(name), values);
      return Promise.resolve(values);
    },
    replace: (name, values) => {
      const { encode } = storageFormat(formatOf(name));
      if (encode === undefined) {
        throw new ThimbleError("storage-encode", "A method changes a base weight whose format cannot be written", {
          given: `${name} in ${formatOf(name)}`,
          fix: "Use a base in f32 or bf16.",
        });
      }
      bytesOf(name).set(encode(values));
      return Promise.resolve();
    },
    set: (name, values) => {
      const leaf = leaves.get(name);
      if (leaf !== undefined) write({ shape: leaf.shape, dtype: leaf.dtype, data: values }, bytesOf(name));
    },
  });
}

/** States that start as their parameter's own value (f32 masters of bf16 weights). */
function copyMasters({ training, leaves }: SessionPlan, bytesOf: BytesOf): void {
  for (const [state, parameter] of training?.copies ?? []) {
    const source = leafAttributes(must(leaves.get(parameter), parameter));
    const values = new Float32Array(bytesOf(state).byteLength / sizeOf("f32"));
    compileDecoder(storageFormat(source.format))(bytesOf(parameter), values);
    write({ shape: source.shape, dtype: "f32", data: values }, bytesOf(state));
  }
}
