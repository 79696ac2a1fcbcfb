/** Finds a model's tensors in a weight file and compares them with what the model needs, before any data is read. */
import { ThimbleError } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import { elements, sameShape } from "../ir/shape.js";
import type { Family } from "../models/family.js";
import type { ModelDefinition, ParameterSpec } from "../models/types.js";
import type { TensorFile } from "./tensor-file.js";
import type { StoredTensor } from "./weight-source.js";

/** Names a list in an error without filling the screen. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, 8).join(", ");
  return names.length > 8 ? `${shown} and ${names.length - 8} more` : shown;
}

/** Tensors of a Hugging Face checkpoint. Old ones leave out the family's prefix or hold buffers beside the weights. */
export function huggingFaceTensors(
  definition: ModelDefinition,
  family: Family,
  file: TensorFile,
): Map<string, StoredTensor> {
  const { prefix, ignored, alias } = family;
  const find = ({ name, kind }: ParameterSpec): StoredTensor & { readonly candidates: readonly string[] } => {
    const candidates = [name, ...(name.startsWith(prefix) ? [name.slice(prefix.length)] : [])];
    if (kind === "embedding" && definition.tiedEmbeddings) candidates.push("lm_head.weight");
    if (alias !== undefined) candidates.push(...candidates.map(alias));
    const found = candidates.find((candidate) => file.tensors.has(candidate)) ?? name;
    return { name: found, shape: [], interleavedHeads: 0, added: 0, candidates };
  };
  // Where the embedding is the output layer too, checkpoints may hold a copy under the head's name.
  const spare = definition.tiedEmbeddings ? ["lm_head.weight"] : [];
  const isIgnored = (name: string): boolean => spare.includes(name) || ignored.some((rule) => rule.test(name));
  const lacking = lackingTensors(definition, family, file);
  // What the file has of a part that is drawn anew (a head of other labels) is no fault of the file.
  const replaced = new Set(lacking.map((parameter) => find(parameter).name));
  const parameters = definition.parameters.filter((parameter) => !lacking.includes(parameter));
  return matched({ ...definition, parameters }, file, find, (name) => replaced.has(name) || isIgnored(name));
}

/**
 * The tensors that a Hugging Face checkpoint may lack and does, and those that it has for other labels: they are drawn
 * anew, whole layers at a time.
 */
export function lackingTensors(definition: ModelDefinition, family: Family, file: TensorFile): ParameterSpec[] {
  const optional = definition.parameters.filter(({ initial }) => initial !== undefined);
  const has = ({ name, shape }: ParameterSpec): boolean =>
    [name, ...(name.startsWith(family.prefix) ? [name.slice(family.prefix.length)] : [])].some((candidate) => {
      const info = file.tensors.get(candidate);
      return info !== undefined && fits(info.shape, shape);
    });
  const lost = new Set(optional.filter((parameter) => !has(parameter)).map(({ linear }) => linear?.path));
  return optional.filter(({ linear }) => lost.has(linear?.path));
}

/** Tensors of a GGUF file. */
export function ggufTensors(definition: ModelDefinition, family: Family, file: TensorFile): Map<string, StoredTensor> {
  const find = (parameter: ParameterSpec): Omit<StoredTensor, "shape"> => family.ggufTensor(definition, parameter);
  return matched(definition, file, find, (name) => name === "rope_freqs.weight");
}

function matched(
  definition: ModelDefinition,
  file: TensorFile,
  find: (parameter: ParameterSpec) => Omit<StoredTensor, "shape">,
  ignored: (name: string) => boolean,
): Map<string, StoredTensor> {
  const found = new Map<string, StoredTensor>();
  for (const parameter of definition.parameters) {
    const { name, interleavedHeads, added } = find(parameter);
    found.set(parameter.name, { name, interleavedHeads, added, shape: parameter.shape });
  }
  checkPresence([...found.values()], file, ignored);
  checkShapes(definition, found, file);
  return found;
}

function checkPresence(wanted: readonly StoredTensor[], file: TensorFile, ignored: (name: string) => boolean): void {
  const names = new Set(wanted.map(({ name }) => name));
  const missing = [...names].filter((name) => !file.tensors.has(name));
  const extra = [...file.tensors.keys()].filter((name) => !names.has(name) && !ignored(name));
  if (missing.length > 0) {
    throw new ThimbleError("model-tensors", "The weights lack tensors that the model needs", {
      given: `missing: ${listed(missing)}${extra.length > 0 ? `; not known: ${listed(extra)}` : ""}`,
      fix: "Check that the configuration belongs to these weights and that no file of the model is missing.",
    });
  }
  if (extra.length > 0) {
    throw new ThimbleError("model-tensors", "The weights hold tensors that this model has no place for", {
      given: listed(extra),
      fix: "Check that the configuration belongs to these weights: they may be of another kind of model.",
    });
  }
}

function checkShapes(definition: ModelDefinition, found: ReadonlyMap<string, StoredTensor>, file: TensorFile): void {
  const wrong: string[] = [];
  for (const { name, shape } of definition.parameters) {
    const stored = found.get(name)?.name ?? name;
    const given = file.info(stored).shape;
    if (!fits(given, shape)) wrong.push(`${stored} is [${given.join(", ")}] instead of [${shape.join(", ")}]`);
  }
  if (wrong.length === 0) return;
  throw new ThimbleError("model-tensors", "Tensors of the weights have another shape than the configuration says", {
    given: listed(wrong),
    fix: "Check that the configuration belongs to these weights.",
  });
}

/** Equal, or equal but for axes of size 1, which GGUF drops. */
function fits(given: Shape, wanted: Shape): boolean {
  const trimmed = (shape: Shape): Shape => shape.filter((size) => size !== 1);
  return (
    sameShape(given, wanted) || (elements(given) === elements(wanted) && sameShape(trimmed(given), trimmed(wanted)))
  );
}
