import { ThimbleError } from "../../errors.js";
import type { LinearSpec, ModelDefinition } from "../../models/types.js";
import type { ResolvedMethod } from "../types.js";
import type { ProbeTensor } from "./probes.js";

/**
 * The tensor whose gradient describes rows: the one of that name, exactly, or that of the linear layer at `named`; if it
 * is not given, of the value projection of the last block (or what holds it). Of a layer, that is of the tensors that
 * methods add the one that starts at 0 (B of LoRA), which alone changes the loss at the start; else the layer's own
 * weight, if it trains. `where` is the setting, for errors.
 */
export function probeTensor(
  named: string | undefined,
  model: ModelDefinition,
  methods: readonly ResolvedMethod[],
  where: string,
): ProbeTensor {
  const added = methods.flatMap(({ adapters }) => adapters);
  const base = model.parameters.filter((spec) => methods.some(({ slots }) => slots.select?.(spec) === true));
  const exact = [...added, ...base].find(({ name }) => name === named);
  if (exact !== undefined) return exact;
  const layer = layerAt(named, model, where);
  const own = added.filter(({ name, layer: of }) => of === layer.path || name.startsWith(`${layer.path}.`));
  const zero = own.find(({ initial }) => initial.kind === "zeros");
  const matrix = own.findLast(({ shape }) => shape.length === 2);
  const found = zero ?? matrix ?? own.at(-1) ?? base.find(({ linear }) => linear?.path === layer.path);
  if (found !== undefined) return found;
  const [first] = [...added, ...base].reverse();
  throw new ThimbleError("probe-layer", `Nothing trains in ${layer.path}, by whose gradient rows would be described`, {
    where,
    given: methods.map(({ id }) => id).join(", "),
    expected: `a layer in which a tensor trains, or such a tensor${first === undefined ? "" : `, as ${first.name}`}`,
    fix: "Name one, let the method train this layer too, or describe rows by something else than gradients.",
  });
}

function layerAt(path: string | undefined, model: ModelDefinition, where: string): LinearSpec {
  const values = model.linears.filter(({ role }) => role === "value" || role === "query-key-value");
  const found =
    path === undefined
      ? values.find(({ block }) => block === model.blocks - 1)
      : model.linears.find((linear) => linear.path === path);
  if (found !== undefined) return found;
  throw new ThimbleError("probe-layer", "The layer that rows are probed by is not in the model", {
    where,
    given: path ?? "none",
    expected: `a path such as ${values.at(-1)?.path ?? model.linears.at(-1)?.path ?? ""}`,
  });
}
