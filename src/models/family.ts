import type { Shape } from "../ir/shape.js";
import type { ModelDefinition, ParameterSpec } from "./types.js";

/** What a GGUF file says of its model, without its tensors' data. */
export interface GgufFacts {
  readonly metadata: ReadonlyMap<string, unknown>;
  /** Shapes by tensor name, outermost axis first. */
  readonly tensors: ReadonlyMap<string, Shape>;
  /** Values of `rope_freqs.weight`, where the file has one: what each pair's frequency is divided by. */
  readonly rotaryFactors?: readonly number[] | undefined;
}

/** Where a parameter lies in a GGUF file, and what the converter did to it. */
export interface GgufTensor {
  readonly name: string;
  /**
   * Heads whose rows the converter reordered from halves to neighbouring pairs (llama.cpp's interleaved rotary);
   * 0 = rows as in the Hugging Face checkpoint.
   */
  readonly interleavedHeads: number;
  /** What the converter added to every value. */
  readonly added: number;
}

/** One model family: the only place that knows its names and settings. */
export interface Family {
  readonly id: string;
  /** Values of `model_type` in config.json that it reads. */
  readonly modelTypes: readonly string[];
  /** Values of `general.architecture` in GGUF files that it reads. */
  readonly architectures: readonly string[];
  /** A prefix that some checkpoints of the family leave out of their tensor names. */
  readonly prefix: string;
  /** Tensors of checkpoints that the model does not read, matched by name: old buffers, heads of other tasks. */
  readonly ignored: readonly RegExp[];
  /** Whether its models tell something of whole records, with a head for a task; absent = they predict tokens. */
  readonly tells?: "records";
  /** What a tensor is called in old checkpoints. */
  readonly alias?: (name: string) => string;
  /** The model that a parsed config.json describes. */
  fromHuggingFace(config: unknown): ModelDefinition;
  /** The model that a GGUF file's metadata describes. */
  fromGguf(facts: GgufFacts): ModelDefinition;
  ggufTensor(definition: ModelDefinition, parameter: ParameterSpec): GgufTensor;
}
