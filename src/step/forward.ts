import { invariant, ThimbleError } from "../errors.js";
import type { Graph, Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";
import type { ComposedMethods } from "../methods/compose.js";
import { movingLeaf } from "../methods/moving.js";
import type { AdaptContext, AdapterTensor, FixedTensor } from "../methods/types.js";
import { besideContext, chained, plainContext, plainLinear } from "../models/context.js";
import { biasOf, weightOf } from "../models/parameters.js";
import type { ForwardContext, ForwardResult, LinearSpec, ModelDefinition, ParameterSpec } from "../models/types.js";
import { cast, less, multiply, select } from "../ops/arithmetic.js";
import { leaf } from "../ops/leaves.js";
import { randomBits, uniformFrom } from "../ops/random.js";
import type { StepInputs, StepScalars } from "./inputs.js";
import { streamLeaf } from "./inputs.js";
import { checkPrefix, prefixed, withoutPrefix } from "./prefix.js";

export interface ForwardOptions {
  readonly definition: ModelDefinition;
  readonly methods: ComposedMethods | undefined;
  readonly batch: number;
  readonly length: number;
  readonly activation: "f32" | "bf16";
  /** Storage format of a checkpoint tensor in memory. */
  readonly storedFormat: (parameter: string) => string;
  /** What the model reads instead of the leaf of a tensor that trains; absent = the leaf. */
  readonly replace?: ((name: string, leaf: Node) => Node) | undefined;
  /** The block of each turn, where blocks take turns in training. */
  readonly active?: readonly number[];
  /** The kind of the step; absent = an ordinary one. */
  readonly variant?: string;
  /** Takes up what methods watch, by name; absent = they watch nothing. */
  readonly probes?: Map<string, Node>;
  /** What multiplies that which methods add to a linear layer, f32 []; absent = nothing does. */
  readonly scale?: ((spec: LinearSpec) => Node | undefined) | undefined;
}

/** A forward pass together with the leaves that it introduced. */
export interface BuiltForward {
  readonly result: ForwardResult;
  /** Checkpoint tensors by name. */
  readonly parameters: ReadonlyMap<string, { readonly spec: ParameterSpec; readonly node: Node }>;
  /** Tensors of methods that train, by name. */
  readonly adapters: ReadonlyMap<string, { readonly tensor: AdapterTensor; readonly node: Node }>;
  /** Tensors of methods that `prepare` sets once. */
  readonly fixed: ReadonlyMap<string, Node>;
}

/** The element type of a stored tensor's value: bf16 as stored, quantised blocks as the f32 they decode to. */
export function valueType(format: string): "f32" | "bf16" | "f16" {
  return format === "bf16" || format === "f16" ? format : "f32";
}

/** Whether it is the number of a block: layers behind the blocks go by a number beyond, and take no turns. */
export function isBlock({ blocks }: Pick<ModelDefinition, "blocks">, block: number | undefined): block is number {
  return block !== undefined && block < blocks;
}

/**
 * Builds the model's forward pass with the methods' changes; `scalars` only where the step trains (for dropout).
 * With "refuse" there may be no dropout: two passes could not have the same.
 */
export function buildForward(
  graph: Graph,
  inputs: StepInputs,
  options: ForwardOptions,
  scalars: StepScalars | "refuse" | undefined,
  attention?: ForwardContext["attention"],
): BuiltForward {
  const { definition, methods, batch, activation } = options;
  // Decoding programs are given what comes in front like any other tokens.
  const rows = { batch, length: options.length, prefix: attention === undefined ? (methods?.prefix ?? 0) : 0 };
  checkPrefix(definition, rows);
  const whole = prefixed(inputs, rows);
  const length = rows.prefix + rows.length;
  const parameters = new Map<string, { spec: ParameterSpec; node: Node }>();
  const base = plainContext({
    graph,
    batch,
    length,
    activation,
    form: ({ name }) => ({ format: options.storedFormat(name), dtype: valueType(options.storedFormat(name)) }),
    ...(whole.segments === undefined ? {} : { segments: whole.segments }),
  });
  const isActive = ({ block }: { readonly block?: number }): boolean =>
    options.active === undefined || !isBlock(definition, block) || options.active.includes(block);
  const parameter = (spec: ParameterSpec): Node => {
    const node = base.parameter(spec);
    parameters.set(spec.name, { spec, node });
    return methods?.trains(spec) === true && isActive(spec) ? (options.replace?.(spec.name, node) ?? node) : node;
  };
  const trains = scalars !== undefined && scalars !== "refuse";
  const represent: ForwardContext["represent"] = (place, x) =>
    trains ? (methods?.represent(collected, place, x) ?? x) : x;
  const own: ForwardContext = { ...base, parameter, represent, ...(attention === undefined ? {} : { attention }) };
  const replace = (tensor: AdapterTensor, node: Node): Node =>
    isActive(tensor) ? (options.replace?.(tensor.name, node) ?? node) : node;
  const saved: AdaptContext["operand"] = (spec, x) =>
    methods === undefined || !isActive(spec) ? x : methods.saved(collected, spec, x);
  const beside: AdaptContext["beside"] = (name, network, value) =>
    network.build(besideContext(own, name, value), whole);
  const collected = new AdapterLeaves(graph, definition, saved, parameter, scalars, replace, options, beside);
  const linear: ForwardContext["linear"] = (spec, x) =>
    methods === undefined
      ? plainLinear(own, spec, x)
      : methods.linear(collected, spec, x, (below) => {
          const trains = methods.trains(weightOf(spec));
          return plainLinear(own, spec, trains ? collected.operand(spec, below) : below);
        });
  const context: ForwardContext = {
    ...own,
    linear: (spec, x) =>
      represent({ role: "output", linear: spec }, linear(spec, represent({ role: "input", linear: spec }, x))),
    embedded: (found) => methods?.embedded(collected, found, whole.positions) ?? found,
    part: (part, block, x, body) => methods?.part(collected, part, block, x, body) ?? body(x),
    stack: (tower, x) => (methods?.stack === undefined ? chained(tower, x) : methods.stack(collected, tower, x)),
  };
  const made = definition.forward(context, whole);
  // Heads of tasks have taken the row that they read already.
  const result = made.logits === undefined ? { ...made, hidden: withoutPrefix(made.hidden, rows) } : made;
  return { result, parameters, adapters: collected.adapters, fixed: collected.fixedLeaves };
}

/** What methods see of the graph while it is built; remembers the tensors that they declare. */
class AdapterLeaves implements AdaptContext {
  readonly adapters = new Map<string, { tensor: AdapterTensor; node: Node }>();
  readonly fixedLeaves = new Map<string, Node>();
  readonly #streams = new Map<string, number>();

  constructor(
    readonly graph: Graph,
    readonly model: ModelDefinition,
    private readonly saved: AdaptContext["operand"],
    private readonly parameter: (spec: ParameterSpec) => Node,
    private readonly scalars: StepScalars | "refuse" | undefined,
    private readonly replace: (tensor: AdapterTensor, leaf: Node) => Node,
    private readonly options: Pick<ForwardOptions, "scale" | "variant" | "probes">,
    readonly beside: AdaptContext["beside"],
  ) {}

  trainable(tensor: AdapterTensor): Node {
    const { name, shape, dtype } = tensor;
    const node = leaf(this.graph, { name, role: "weight", shape, dtype });
    this.adapters.set(name, { tensor, node });
    return this.replace(tensor, node);
  }

  fixed({ name, shape, dtype }: { name: string; shape: readonly number[]; dtype: AdapterTensor["dtype"] }): Node {
    const node = leaf(this.graph, { name, role: "weight", shape, dtype });
    this.fixedLeaves.set(name, node);
    return node;
  }

  moving(tensor: FixedTensor): Node {
    return movingLeaf(this.graph, tensor);
  }

  get variant(): string {
    return this.options.variant ?? "";
  }

  probe(name: string, shape: Shape): Node | undefined {
    const { probes } = this.options;
    if (probes === undefined) return undefined;
    const node = leaf(this.graph, { name: `probe.${name}`, role: "input", shape, dtype: "f32" });
    probes.set(name, node);
    return node;
  }

  weight(spec: Parameters<AdaptContext["weight"]>[0]): Node {
    return this.parameter(weightOf(spec));
  }

  bias(spec: Parameters<AdaptContext["bias"]>[0]): Node | undefined {
    return spec.bias ? this.parameter(biasOf(spec)) : undefined;
  }

  operand(spec: LinearSpec, x: Node): Node {
    return this.scalars === undefined || this.scalars === "refuse" ? x : this.saved(spec, x);
  }

  scaled(spec: LinearSpec, value: Node): Node {
    const factor = this.options.scale?.(spec);
    return factor === undefined ? value : cast(multiply(cast(value, "f32"), factor), value.dtype);
  }

  uniform(shape: Shape, place: string): Node {
    invariant(this.scalars !== undefined && this.scalars !== "refuse", `${place}: random numbers outside training`);
    const { seedLow, seedHigh, step } = this.scalars;
    const number = this.#streams.get(place) ?? this.#streams.size;
    this.#streams.set(place, number);
    const stream = streamLeaf(this.graph, dropoutStreams + number);
    return uniformFrom(randomBits({ low: seedLow, high: seedHigh }, stream, step, shape));
  }

  /** Inverted dropout; the mask is made again from its bits wherever it is read, never stored. */
  dropout(x: Node, p: number, place: string): Node {
    if (this.scalars === undefined || p === 0) return x;
    if (this.scalars === "refuse") throw dropoutError(p, place);
    const drawn = this.uniform(x.shape, place);
    return cast(select(less(drawn, p), 0, multiply(cast(x, "f32"), 1 / (1 - p))), x.dtype);
  }
}

function dropoutError(p: number, place: string): ThimbleError {
  return new ThimbleError("estimate-dropout", "Dropout would drown the difference that the gradient is made of", {
    where: place,
    given: `dropout ${p}`,
    expected: "dropout 0 with a zeroth-order method",
    fix: "Set the method's dropout to 0.",
  });
}

/** Streams of random bits below this belong to the optimizer's rounding. */
export const dropoutStreams = 1 << 24;
