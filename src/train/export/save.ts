import { join } from "node:path";
import { ThimbleError } from "../../errors.js";
import { writePeft } from "../../io/peft.js";
import type { ComposedMethods } from "../../methods/compose.js";
import type { HostTensors } from "../../methods/types.js";
import type { Session } from "../../session/types.js";
import type { OpenedModel } from "../model.js";
import { writeGgufModel } from "./gguf.js";
import { writeHuggingFace } from "./hugging-face.js";
import { exportContext, sessionTensors, trainedTensors } from "./tensor-source.js";

/** Writes an adapter as a PEFT folder over the model's original checkpoint. */
export async function writeAdapter(
  folder: string,
  methods: ComposedMethods,
  tensors: HostTensors,
  model: OpenedModel,
  seed: number,
): Promise<void> {
  if (methods.peft === undefined) {
    throw new ThimbleError("export-peft", "These methods together have no form that PEFT knows", {
      given: methods.methods.map(({ id }) => id).join(", "),
      fix: "Merge them into the base instead.",
    });
  }
  const form = await methods.peft(tensors, exportContext(model.files.weights, seed));
  await writePeft(folder, form, { baseModel: model.name });
}

/** The result of a run that trained an adapter. */
export function saveAdapter(
  session: Session,
  methods: ComposedMethods,
  model: OpenedModel,
  seed: number,
  folder: string,
): Promise<void> {
  return writeAdapter(folder, methods, trainedTensors(session, methods), model, seed);
}

/** The result of a run that trained the weights themselves: a folder for transformers, or model.gguf where it began so. */
export async function saveModel(
  session: Session,
  methods: ComposedMethods,
  model: OpenedModel,
  dtype: "f32" | "bf16",
  folder: string,
): Promise<void> {
  const source = sessionTensors(session, methods);
  if (model.files.format === "gguf") await writeGgufModel(join(folder, "model.gguf"), model, source, dtype);
  else await writeHuggingFace(folder, model, source, dtype);
}
