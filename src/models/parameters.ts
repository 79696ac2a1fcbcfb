import type { LinearSpec, ParameterSpec } from "./types.js";

/** The weight tensor of a linear layer: [out, in], or [in, out] where the checkpoint stores it transposed. */
export function weightOf(linear: LinearSpec): ParameterSpec {
  const { inputs, outputs, path, transposed } = linear;
  const shape = transposed ? [inputs, outputs] : [outputs, inputs];
  return { name: `${path}.weight`, shape, linear, kind: "weight", ...blockOf(linear) };
}

/** The bias tensor of a linear layer that has one: [out]. */
export function biasOf(linear: LinearSpec): ParameterSpec {
  return { name: `${linear.path}.bias`, shape: [linear.outputs], linear, kind: "bias", ...blockOf(linear) };
}

/** The block of a layer's tensors; layers behind the blocks belong to none. */
export function blockOf({ role, block }: LinearSpec): { readonly block?: number } {
  return role === "head" || role === "pooler" ? {} : { block };
}

/** The tensors of a linear layer, in order of use. */
export function tensorsOf(linear: LinearSpec): ParameterSpec[] {
  return linear.bias ? [weightOf(linear), biasOf(linear)] : [weightOf(linear)];
}

/** The linear layers that a list of parameters belongs to, each once, the output layer left out. */
export function linearsOf(parameters: readonly ParameterSpec[]): LinearSpec[] {
  const layers = new Map<string, LinearSpec>();
  for (const { linear } of parameters) {
    if (linear !== undefined && linear.role !== "head" && !layers.has(linear.path)) layers.set(linear.path, linear);
  }
  return [...layers.values()];
}
