import { join } from "node:path";
import { must } from "../../errors.js";
import { writeAdapterFolder } from "../../io/adapter.js";
import { writePeft } from "../../io/peft.js";
import type { Shape } from "../../ir/shape.js";
import type { ComposedMethods, MethodSelection } from "../../methods/compose.js";
import { computes } from "../../methods/compose.js";
import type { Session } from "../../session/types.js";
import type { OpenedModel } from "../model.js";
import { writeGgufModel } from "./gguf.js";
import { writeHuggingFace } from "./hugging-face.js";
import { headTensors, writeTask } from "./task-head.js";
import { adapterIntegers, exportContext, readTensor, sessionTensors, trainedTensors } from "./tensor-source.js";

/**
 * The result of a run that trained an adapter: a PEFT folder over the model's original checkpoint where PEFT knows the
 * methods, and the methods' tensors under their own names otherwise.
 */
export async function saveAdapter(
  session: Session,
  methods: ComposedMethods,
  model: OpenedModel,
  seed: number,
  folder: string,
): Promise<void> {
  const trained = trainedTensors(session, methods);
  const { definition } = model.files;
  const head = headTensors(definition, (name) => readTensor(session, name));
  await writeTask(folder, definition);
  const origin = { baseModel: model.name, ...(head === undefined ? {} : { head }) };
  if (methods.peft !== undefined) {
    const form = await methods.peft(trained, exportContext(model.files.weights, seed));
    await writePeft(folder, form, origin);
    return;
  }
  const parts = [...trained].map(([name, data]) => ({ name, shape: shapeOf(session, name), data }));
  const integers = [...adapterIntegers(session, methods)].map(([name, data]) => {
    return { name, shape: shapeOf(session, name), data };
  });
  const whole = [...(head ?? [])].map(([name, tensor]) => ({ name, ...tensor }));
  await writeAdapterFolder(folder, inference(methods), [...parts, ...integers, ...whole], origin);
}

function shapeOf(session: Pick<Session, "tensors">, name: string): Shape {
  return must(
    session.tensors.find((tensor) => tensor.name === name),
    `tensor ${name}`,
  ).shape;
}

/** The methods that decide what the trained model computes; what decides only how it trains is left out. */
function inference({ methods }: ComposedMethods): MethodSelection[] {
  return methods.filter(computes).map(({ id, config }) => ({ id, settings: config as MethodSelection["settings"] }));
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
