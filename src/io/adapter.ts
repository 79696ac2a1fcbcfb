/** Adapter folders: PEFT's where PEFT knows the method, and Thimble's own form for all others. */
import { join } from "node:path";
import { z } from "zod";
import { ThimbleError } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import type { MethodSelection } from "../methods/compose.js";
import type { ModelDefinition } from "../models/types.js";
import { writeJsonAtomically } from "./atomic.js";
import type { PeftOrigin } from "./peft.js";
import { adapterConfigName, adapterWeightsName, openWeights, readAdapterConfig, readPeft } from "./peft.js";
import { writeSafetensors } from "./safetensors-write.js";
import type { SafetensorsFile } from "./safetensors.js";

/** What stands for `peft_type` in the configuration of an adapter of Thimble's own form. */
const ownType = "THIMBLE";

/** An adapter as it was read: the methods that compute it, and their tensors by name. */
export interface SavedAdapter {
  readonly selections: readonly MethodSelection[];
  readonly tensors: ReadonlyMap<string, Float32Array>;
  /** Integers that belong to it, such as indices. */
  readonly integers: ReadonlyMap<string, Int32Array>;
  readonly baseModel: string | undefined;
  readonly warnings: readonly string[];
}

/** A tensor of an adapter in Thimble's own form. */
export interface AdapterPart {
  readonly name: string;
  readonly shape: Shape;
  readonly data: Float32Array | Int32Array;
}

const ownConfig = z.object({
  peft_type: z.literal(ownType),
  methods: z.array(z.object({ id: z.string(), settings: z.record(z.string(), z.unknown()) })).min(1),
  base_model_name_or_path: z.string().nullish(),
});

/** Reads an adapter folder of either form. Whether its tensors fit the methods is for whoever composes them. */
export async function readAdapter(folder: string, model: ModelDefinition): Promise<SavedAdapter> {
  const config = await readAdapterConfig(folder);
  const type = typeof config === "object" && config !== null && "peft_type" in config ? config.peft_type : undefined;
  if (type !== ownType) {
    const { selection, ...adapter } = await readPeft(folder, model);
    return { ...adapter, selections: [selection], integers: new Map() };
  }
  const parsed = ownConfig.safeParse(config);
  if (!parsed.success) {
    throw new ThimbleError("adapter-config", "The adapter's configuration does not say which methods it is of", {
      where: join(folder, adapterConfigName),
      given: z.prettifyError(parsed.error),
      fix: "Fetch the adapter again.",
    });
  }
  const file = await openWeights(folder);
  try {
    const { methods, base_model_name_or_path: baseModel } = parsed.data;
    return { selections: methods, ...(await readParts(file)), baseModel: baseModel ?? undefined, warnings: [] };
  } finally {
    await file.close();
  }
}

async function readParts(file: SafetensorsFile): Promise<Pick<SavedAdapter, "tensors" | "integers">> {
  const tensors = new Map<string, Float32Array>();
  const integers = new Map<string, Int32Array>();
  for (const [name, { type }] of file.tensors) {
    if (type === "i32") integers.set(name, await file.readAs(name, "i32"));
    else tensors.set(name, finite(await file.readAs(name, "f32"), name));
  }
  return { tensors, integers };
}

function finite(values: Float32Array, name: string): Float32Array {
  const place = values.findIndex((value) => !Number.isFinite(value));
  if (place < 0) return values;
  throw new ThimbleError("adapter-values", "The adapter holds a value that is not a finite number", {
    given: `${String(values[place])} at element ${place}`,
    where: name,
    fix: "Use an adapter from an earlier step of its run.",
  });
}

/** Writes an adapter in Thimble's own form: the methods with their settings, and tensors by the methods' names. */
export async function writeAdapterFolder(
  folder: string,
  selections: readonly MethodSelection[],
  parts: readonly AdapterPart[],
  { baseModel }: PeftOrigin = {},
): Promise<void> {
  const wrong = parts.find(({ shape, data }) => data.length !== elements(shape));
  if (wrong !== undefined) {
    throw new ThimbleError("adapter-tensor", `${wrong.name} has other values than its shape says`);
  }
  const tensors = parts.map(({ name, shape, data }) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { name, type: data instanceof Int32Array ? "i32" : "f32", shape, chunks: () => [bytes] };
  });
  await writeSafetensors(join(folder, adapterWeightsName), tensors, { format: "pt" });
  await writeJsonAtomically(join(folder, adapterConfigName), {
    base_model_name_or_path: baseModel ?? null,
    methods: selections,
    peft_type: ownType,
  });
}
