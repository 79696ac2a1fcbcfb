import { must, ThimbleError } from "../errors.js";
import { elements } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import type { WeightSource } from "../io/weight-source.js";
import { leafAttributes } from "../ops/leaves.js";
import type { DiskWeights } from "../runtime/disk-weights.js";
import { tensorToBytes } from "../targets/interpret/memory.js";
import { compileDecoder } from "../storage/decoder.js";
import { storageFormat } from "../storage/registry.js";
import { initialValues } from "../methods/initial.js";
import type { HostTensors } from "../methods/types.js";
import { streamPrefix } from "../step/inputs.js";
import type { SessionPlan } from "./finish.js";

type BytesOf = (name: string) => Uint8Array;

/** Where the tensors of a session are while they get their values. */
export interface LoadTarget {
  /** A tensor in memory as it lies there; a copy of one on disk. */
  readonly bytes: BytesOf;
  /** Those that lie on disk, if there are any, and memory in which each of them can be put together. */
  readonly stored?: { readonly disk: DiskWeights; readonly staging: BytesOf };
  /** What the methods' calibration made, where there was one. */
  readonly calibrated?: HostTensors | undefined;
}

/** Gives every persistent tensor its value at the start of a run: base weights, methods' tensors, states. */
export async function loadTensors(plan: SessionPlan, weights: WeightSource, target: LoadTarget): Promise<void> {
  const { leaves, options } = plan;
  const bytesOf = target.bytes;
  const base = new Map(options.definition.parameters.map((parameter) => [parameter.name, parameter]));
  const { methods } = options;
  for (const [name, leaf] of leaves) {
    const { role, format } = leafAttributes(leaf);
    const parameter = base.get(name);
    if (parameter !== undefined) {
      const changes = methods?.prepares === true || (options.train && methods?.trains(parameter) === true);
      await loadWeight({ name, format, weights, target, changes });
    } else if (name.startsWith(streamPrefix)) writeStream(name, bytesOf(name));
    else if (role !== "weight") put(target, name, (bytes) => bytes.fill(0));
  }
  for (const tensor of options.methods?.adapters ?? []) {
    if (!leaves.has(tensor.name)) continue;
    if (tensor.initial.kind === "prepared") bytesOf(tensor.name).fill(0xff);
    else write({ ...tensor, data: initialValues(tensor, options.seed) }, bytesOf(tensor.name));
  }
  await prepareMethods(plan, weights, target);
  if (methods?.prepares === true) {
    copyMasters(plan, bytesOf, undefined, (name, make) => {
      put(target, name, make);
    });
  } else await readMasters(plan, weights, target);
}

/** Gives a tensor its bytes, wherever it lies. */
function put(target: LoadTarget, name: string, make: (bytes: Uint8Array) => void): void {
  const { stored, bytes } = target;
  const onDisk = stored?.disk.has(name) === true ? stored : undefined;
  const whole = (onDisk?.staging ?? bytes)(name);
  make(whole);
  onDisk?.disk.write(name, whole);
}

/** Masters hold what the file does, before its rounding to the parameter's type. */
async function readMasters(plan: SessionPlan, weights: WeightSource, target: LoadTarget): Promise<void> {
  const base = new Set(plan.options.definition.parameters.map(({ name }) => name));
  for (const [state, parameter] of plan.training?.copies ?? []) {
    if (!base.has(parameter)) continue;
    const onDisk = target.stored?.disk.has(state) === true ? target.stored : undefined;
    const whole = (onDisk?.staging ?? target.bytes)(state);
    await weights.readInto(parameter, whole, "f32");
    onDisk?.disk.write(state, whole);
  }
  copyMasters(plan, target.bytes, (state) => !base.has(plan.training?.copies.get(state) ?? ""));
}

interface WeightLoad {
  readonly name: string;
  readonly format: string;
  readonly weights: WeightSource;
  readonly target: LoadTarget;
  /** Whether methods may change it before training. */
  readonly changes: boolean;
}

/** Reads a weight into its place in memory; one on disk stays in its file, or is put together and written to another. */
async function loadWeight({ name, format, weights, target, changes }: WeightLoad): Promise<void> {
  const { stored, bytes } = target;
  if (stored?.disk.has(name) !== true) {
    await weights.readInto(name, bytes(name), format);
    return;
  }
  const found = changes ? undefined : weights.place?.(name, format);
  if (found !== undefined) {
    stored.disk.borrow(name, found.path, found.offset);
    return;
  }
  const whole = stored.staging(name);
  await weights.readInto(name, whole, format);
  stored.disk.write(name, whole);
}

function writeStream(name: string, bytes: Uint8Array): void {
  new Uint32Array(bytes.buffer, bytes.byteOffset, 1)[0] = Number(name.slice(streamPrefix.length));
}

function write(value: Tensor, bytes: Uint8Array): void {
  tensorToBytes(value, bytes);
}

/** Lets methods read and change base weights in place, and set their own tensors. */
async function prepareMethods(
  { options, leaves }: SessionPlan,
  weights: WeightSource,
  target: LoadTarget,
): Promise<void> {
  const { bytes: bytesOf, stored, calibrated } = target;
  const { methods, definition, seed } = options;
  const base = new Map(definition.parameters.map((parameter) => [parameter.name, parameter]));
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
    calibrated,
    // Of any tensor of the model, used by the programs or not.
    original: async (name) => {
      const values = new Float32Array(elements(must(base.get(name), `tensor ${name}`).shape));
      await weights.readInto(name, new Uint8Array(values.buffer), "f32");
      return values;
    },
    replace: (name, values) => {
      const { encode } = storageFormat(formatOf(name));
      if (encode === undefined) {
        throw new ThimbleError("storage-encode", "A method changes a base weight whose format cannot be written", {
          given: `${name} in ${formatOf(name)}`,
          fix: "Use a base in f32 or bf16.",
        });
      }
      if (stored?.disk.has(name) === true) stored.disk.write(name, encode(values));
      else bytesOf(name).set(encode(values));
      return Promise.resolve();
    },
    set: (name, values) => {
      const leaf = leaves.get(name);
      if (leaf !== undefined) write({ shape: leaf.shape, dtype: leaf.dtype, data: values }, bytesOf(name));
    },
  });
}

/** States that start as their parameter's own value (f32 masters of bf16 weights). */
export function copyMasters(
  { training, leaves }: Pick<SessionPlan, "training" | "leaves">,
  bytesOf: BytesOf,
  wanted: (state: string) => boolean = () => true,
  set: (name: string, make: (bytes: Uint8Array) => void) => void = (name, make) => {
    make(bytesOf(name));
  },
): void {
  for (const [state, parameter] of training?.copies ?? []) {
    if (!wanted(state)) continue;
    const source = leafAttributes(must(leaves.get(parameter), parameter));
    const values = new Float32Array(elements(source.shape));
    compileDecoder(storageFormat(source.format))(bytesOf(parameter), values);
    set(state, (bytes) => {
      write({ shape: source.shape, dtype: "f32", data: values }, bytes);
    });
  }
}
