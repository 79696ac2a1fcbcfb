import type { DType } from "../ir/dtype.js";
import type { Graph, Node } from "../ir/node.js";
import { add, cast } from "../ops/arithmetic.js";
import { attention } from "../ops/attention.js";
import { dot } from "../ops/dot.js";
import { leaf } from "../ops/leaves.js";
import { biasOf, weightOf } from "./parameters.js";
import type { ForwardContext, LinearSpec, ParameterSpec, Tower } from "./types.js";

/** How a parameter's leaf lies in memory and what its value is in the graph. */
export interface ParameterForm {
  /** A storage format id. */
  readonly format: string;
  readonly dtype: DType;
}

export interface PlainContextOptions {
  readonly graph: Graph;
  readonly batch: number;
  readonly length: number;
  readonly activation: "f32" | "bf16";
  /** Form of each parameter; all in the activation's type if not given. */
  readonly form?: (spec: ParameterSpec) => ParameterForm;
  /** i32 [B, T]: which tokens of a packed row see each other; negative = padding. */
  readonly segments?: Node;
}

export interface PlainContext extends ForwardContext {
  /** The leaves that the forward pass has asked for, by parameter name. */
  readonly leaves: ReadonlyMap<string, Node>;
}

/** y = x Wᵀ + b as f32 [tokens, out]; the weight in the activation's type, as stored: [out, in] or transposed. */
export function plainLinear(context: ForwardContext, spec: LinearSpec, x: Node): Node {
  const read = context.represent({ role: "weight", linear: spec }, context.parameter(weightOf(spec)));
  const weight = cast(read, context.activation);
  const product = dot(cast(x, context.activation), weight, { transposeB: !spec.transposed });
  return spec.bias ? add(product, cast(context.parameter(biasOf(spec)), "f32")) : product;
}

/** Each block after the other, then the norm. */
export function chained(tower: Tower, x: Node): Node {
  return tower.norm(tower.blocks.reduce((value, block) => block.mlp(block.attention(value)), x));
}

/**
 * The context of a network beside the model, whose blocks are built as the model's own: with tensors of its own, a cache
 * of its own, and nothing of what methods change in the model.
 */
export function besideContext(
  context: ForwardContext,
  name: string,
  parameter: ForwardContext["parameter"],
): ForwardContext {
  const beside: ForwardContext = {
    ...context,
    parameter,
    linear: (spec, x) => plainLinear(beside, spec, x),
    attention: (block, q, k, v, options) => context.attention(`${name}.${block}`, q, k, v, options),
    represent: (_place, x) => x,
    part: (_part, _block, x, body) => body(x),
  };
  return beside;
}

/** The model as its checkpoint has it: parameters are leaves, linear layers products, attention causal. */
export function plainContext(options: PlainContextOptions): PlainContext {
  const { graph, batch, length, activation, segments } = options;
  const form = options.form ?? ((): ParameterForm => ({ format: activation, dtype: activation }));
  const leaves = new Map<string, Node>();
  const context: PlainContext = {
    graph,
    batch,
    length,
    activation,
    leaves,
    parameter: (spec) => {
      const { name, shape } = spec;
      const node = leaves.get(name) ?? leaf(graph, { name, role: "weight", shape, ...form(spec) });
      leaves.set(name, node);
      return node;
    },
    linear: (spec, x) => plainLinear(context, spec, x),
    attention: (_block, q, k, v, how) => attention(q, k, v, { ...how, segments }),
    represent: (_place, x) => x,
    embedded: (rows) => rows,
    part: (_part, _block, x, body) => body(x),
    stack: chained,
  };
  return context;
}
