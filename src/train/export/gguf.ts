import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { ThimbleError } from "../../errors.js";
import type { GgufTensorToWrite } from "../../io/gguf-write.js";
import { writeGguf } from "../../io/gguf-write.js";
import type { GgufValue } from "../../io/gguf-metadata.js";
import { openGguf } from "../../io/gguf.js";
import type { JsonObject } from "../../data/json.js";
import { ggufFamily, modelFamily } from "../../models/registry.js";
import type { Family, GgufTensor } from "../../models/family.js";
import type { ParameterSpec } from "../../models/types.js";
import type { OpenedModel } from "../model.js";
import { architectureOf, modelSettings, rotaryFactors, text, u32 } from "./gguf-settings.js";
import { tokenizerSettings } from "./gguf-tokenizer.js";
import type { TensorSource } from "./tensor-source.js";

export type GgufType = "f32" | "f16" | "bf16" | "q8_0" | "q4_0";

/** `general.file_type`, as llama.cpp numbers it. */
const fileTypes: Readonly<Record<GgufType, number>> = { f32: 0, f16: 1, q4_0: 2, q8_0: 7, bf16: 32 };

/** Values handed to the writer at once: whole blocks of every format. */
const chunkElements = 2 ** 20;

/** Writes a whole model as one GGUF file with its tokenizer and chat template. */
export async function writeGgufModel(
  path: string,
  model: OpenedModel,
  source: TensorSource,
  type: GgufType,
): Promise<void> {
  const { family, metadata, extra, transposed } = await describe(model, type);
  const { definition } = model.files;
  const tensors = definition.parameters.map((parameter): GgufTensorToWrite => {
    const place = family.ggufTensor(definition, parameter);
    const turned = transposed && parameter.linear?.transposed === true && parameter.kind === "weight";
    const shape = turned ? [...parameter.shape].reverse() : parameter.shape;
    const stored = storedType(parameter, shape, type);
    return { name: place.name, type: stored, shape, values: () => valuesOf(parameter, place, turned, source) };
  });
  await writeGguf(path, metadata, [...tensors, ...extra]);
}

interface Description {
  readonly family: Family;
  readonly metadata: Map<string, GgufValue>;
  /** Tensors that the model's parameters do not hold. */
  readonly extra: readonly GgufTensorToWrite[];
  /** The checkpoint stores some weights as [in, out], GGUF never. */
  readonly transposed: boolean;
}

async function describe(model: OpenedModel, type: GgufType): Promise<Description> {
  const kind: [string, GgufValue][] = [
    ["general.file_type", u32(fileTypes[type])],
    ["general.quantization_version", u32(2)],
  ];
  return model.files.format === "gguf" ? fromGguf(model.files.files.path, kind) : fromHuggingFace(model, kind);
}

/** All that the file says of itself, with the new type. */
async function fromGguf(path: string, kind: readonly [string, GgufValue][]): Promise<Description> {
  const file = await openGguf(path);
  try {
    const split = (key: string): boolean => key.startsWith("split.");
    const kept = [...file.metadata].filter(([key]) => !split(key));
    const metadata = new Map([...kept, ...kind]);
    const family = ggufFamily(file.text("general.architecture") ?? "");
    const factors = file.tensors.has("rope_freqs.weight") ? await file.readAs("rope_freqs.weight", "f32") : undefined;
    return { family, metadata, extra: rotaryTensor(factors), transposed: false };
  } finally {
    await file.close();
  }
}

async function fromHuggingFace(model: OpenedModel, kind: readonly [string, GgufValue][]): Promise<Description> {
  const { files } = model;
  if (files.format !== "huggingface") throw new ThimbleError("internal", "not a Hugging Face model");
  const { folder } = files.files;
  const config = files.files.config as JsonObject;
  const { definition } = files;
  const tokenizer = await model.loadTokenizer();
  const where = join(folder, "tokenizer.json");
  const json = JSON.parse(await readFile(where, "utf8")) as JsonObject;
  const head: [string, GgufValue][] = [
    ["general.architecture", text(architectureOf(config))],
    ["general.type", text("model")],
    ["general.name", text(basename(model.name))],
  ];
  return {
    family: modelFamily(String(config["model_type"])),
    metadata: new Map([
      ...head,
      ...kind,
      ...modelSettings(config, definition),
      ...tokenizerSettings(json, tokenizer, definition.vocabularySize, where),
    ]),
    extra: rotaryTensor(rotaryFactors(config, definition)),
    transposed: true,
  };
}

function rotaryTensor(factors: Float32Array | undefined): GgufTensorToWrite[] {
  if (factors === undefined) return [];
  return [{ name: "rope_freqs.weight", type: "f32", shape: [factors.length], values: () => [factors] }];
}

/** Norms, biases and position tables stay f32, as llama.cpp wants them; embeddings are not packed below 8 bits. */
function storedType({ kind }: ParameterSpec, shape: readonly number[], type: GgufType): GgufType {
  if (shape.length < 2 || kind === "position") return "f32";
  const packed = type === "q8_0" || type === "q4_0";
  if (packed && (shape.at(-1) ?? 0) % 32 !== 0) return "f16";
  return type === "q4_0" && kind !== "weight" ? "q8_0" : type;
}

/** A tensor's values as the converter would lay them: heads interleaved, transposed weights turned, norms shifted. */
async function* valuesOf(
  parameter: ParameterSpec,
  place: GgufTensor,
  turned: boolean,
  source: TensorSource,
): AsyncGenerator<Float32Array> {
  const [rows = 1, columns = 1] = parameter.shape;
  let values = await source.read(parameter);
  if (turned) values = transpose(values, rows, columns);
  if (place.interleavedHeads > 0) values = interleave(values, place.interleavedHeads, rows);
  if (place.added !== 0) values = values.map((value) => value + place.added);
  for (let start = 0; start < values.length; start += chunkElements) {
    yield values.subarray(start, start + chunkElements);
  }
}

function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  const turned = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) turned[column * rows + row] = values[row * columns + column] ?? 0;
  }
  return turned;
}

/** Rows of each head from halves (r0 r1 ... r0' r1' ...) into neighbouring pairs (r0 r0' r1 r1' ...). */
function interleave(values: Float32Array, heads: number, rows: number): Float32Array {
  const width = values.length / rows;
  const each = rows / heads;
  const laid = new Float32Array(values.length);
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < each; row++) {
      const to = row < each / 2 ? 2 * row : 2 * (row - each / 2) + 1;
      const from = (head * each + row) * width;
      laid.set(values.subarray(from, from + width), (head * each + to) * width);
    }
  }
  return laid;
}
