import { gradients } from "../autodiff/gradients.js";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { DType } from "../ir/dtype.js";
import { Graph, reachable } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import type { Shape } from "../ir/shape.js";
import type { Tensor, TensorData } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import type { ComposedMethods, MethodSelection } from "../methods/compose.js";
import { composeMethods } from "../methods/compose.js";
import { drawNormal, drawUniform, initialValues } from "../methods/initial.js";
import type { AdaptContext, AdapterTensor, PrepareContext } from "../methods/types.js";
import type { PlainContext } from "../models/context.js";
import { besideContext, chained, plainContext, plainLinear } from "../models/context.js";
import { biasOf, weightOf } from "../models/parameters.js";
import type { ForwardInputs, ModelDefinition } from "../models/types.js";
import { cast, multiply } from "../ops/arithmetic.js";
import { dot } from "../ops/dot.js";
import { reduceSum, reshape } from "../ops/layout.js";
import { iota, leaf } from "../ops/leaves.js";
import { detachOp } from "../ops/reduce.js";
import { prefixed, withoutPrefix } from "../step/prefix.js";
import { evaluate } from "../targets/interpret/evaluate.js";

export interface BenchOptions {
  readonly seed?: number;
  readonly activation?: "f32" | "bf16";
  /** Dropout is live. */
  readonly training?: boolean;
  /** Base weights to use instead of random ones. */
  readonly weights?: ReadonlyMap<string, Float32Array>;
  /** Token ids of the one record that is run. */
  readonly ids?: readonly number[];
  /** Storage format reported for every base tensor. */
  readonly format?: string;
}

const someIds = [1, 4, 0, 10, 7, 2, 4];

/** A model under a selection of methods, run by the interpreter: what the methods' common tests are made of. */
export class MethodBench {
  readonly graph = new Graph();
  readonly composed: ComposedMethods;
  /** Output of the model with methods, and without them, [tokens, width]. */
  readonly hidden: Node;
  readonly plain: Node;
  /** A scalar that depends on every output. */
  readonly loss: Node;
  /** Leaves of the methods' tensors, and of the base's, by name. */
  readonly adapters = new Map<string, { readonly leaf: Node; readonly tensor?: AdapterTensor }>();
  readonly base: ReadonlyMap<string, Node>;
  /** Values by leaf name; the base's are those after `prepare`. */
  readonly values = new Map<string, Float32Array>();
  /** Logits of every position under the methods, [tokens, vocabulary]. */
  readonly logits: Node;
  readonly #inputs = new Map<Node, Tensor>();
  readonly #options: BenchOptions;

  private constructor(
    readonly model: ModelDefinition,
    selection: readonly MethodSelection[],
    options: BenchOptions,
  ) {
    this.#options = options;
    this.composed = composeMethods(selection, model);
    const { graph } = this;
    const given = options.ids ?? someIds;
    const length = given.length;
    const ids = leaf(graph, { name: "ids", role: "input", shape: [length], dtype: "i32" });
    this.#inputs.set(ids, tensor([length], given, "i32"));
    const context = plainContext({ graph, batch: 1, length, activation: options.activation ?? "f32" });
    const inputs = { ids, positions: iota(graph, [length], 0) };
    const adapt = this.#adaptContext(context, inputs);
    this.plain = model.forward(context, inputs).hidden;
    const linear: PlainContext["linear"] = (spec, x) =>
      this.composed.linear(adapt, spec, x, (value) => plainLinear(context, spec, adapt.operand(spec, value)));
    const { composed } = this;
    const rows = { batch: 1, length, prefix: composed.prefix };
    const whole = prefixed({ ...inputs, labels: ids, weights: ids, segments: undefined }, rows);
    const changed: PlainContext = {
      ...context,
      length: rows.prefix + length,
      linear,
      embedded: (found) => composed.embedded(adapt, found, whole.positions),
      part: (part, block, x, body) => composed.part(adapt, part, block, x, body),
      stack: (tower, x) => (composed.stack === undefined ? chained(tower, x) : composed.stack(adapt, tower, x)),
    };
    const { hidden: made, head } = model.forward(changed, whole);
    const hidden = withoutPrefix(made, rows);
    this.hidden = hidden;
    this.logits = dot(hidden, cast(head, hidden.dtype), { transposeB: true });
    this.base = context.leaves;
    const probe = leaf(graph, { name: "probe", role: "input", shape: hidden.shape, dtype: "f32" });
    this.#inputs.set(probe, tensor(probe.shape, drawNormal(3, "probe", elements(probe.shape))));
    this.loss = reshape(reduceSum(multiply(cast(hidden, "f32"), probe), [0, 1]), []);
  }

  /** Builds the graph, draws base weights and start values, and runs the methods' preparation. */
  static async create(
    model: ModelDefinition,
    selection: readonly MethodSelection[],
    options: BenchOptions = {},
  ): Promise<MethodBench> {
    const bench = new MethodBench(model, selection, options);
    for (const { name, shape } of model.parameters) {
      bench.values.set(name, options.weights?.get(name) ?? randomValues(name, shape));
    }
    const { composed, values } = bench;
    if (composed.prepares) await composed.prepare(bench.prepareContext());
    for (const adapter of composed.adapters) {
      if (!values.has(adapter.name)) values.set(adapter.name, initialValues(adapter, options.seed ?? 1));
    }
    return bench;
  }

  prepareContext(): PrepareContext {
    const { model, values } = this;
    return {
      model,
      seed: this.#options.seed ?? 1,
      format: () => this.#options.format ?? "f32",
      read: (name) => Promise.resolve(must(values.get(name), name).slice()),
      original: (name) => Promise.resolve(must(values.get(name), name).slice()),
      replace: (name, replaced) => {
        values.set(name, replaced);
        return Promise.resolve();
      },
      set: (name, prepared) => {
        values.set(name, Float32Array.from(prepared));
      },
    };
  }

  /** Gives every trainable adapter tensor random values, as after some training. */
  scramble(size = 0.3): this {
    for (const { name, shape } of this.composed.adapters) {
      const drawn = drawNormal(11, name, elements(shape)).map((value) => value * size);
      const start = name.endsWith("_vector") ? must(this.values.get(name), name) : undefined;
      this.values.set(
        name,
        Float32Array.from(drawn, (value, place) => (start?.[place] ?? 0) + value),
      );
    }
    return this;
  }

  bindings(values: ReadonlyMap<string, TensorData> = this.values): Map<Node, Tensor> {
    const bound = new Map(this.#inputs);
    for (const node of reachable([this.logits, this.plain, this.loss])) {
      const data = node.inputs.length === 0 ? values.get(String(node.attributes["name"])) : undefined;
      if (data !== undefined) bound.set(node, { shape: node.shape, dtype: node.dtype, data });
    }
    return bound;
  }

  run(nodes: readonly Node[], precision: "exact" | "f64" = "exact"): Tensor[] {
    return evaluate(nodes, this.bindings(), precision);
  }

  /**
   * Largest error of the graph's gradients by the trained tensors against central differences in f64, relative to
   * each tensor's largest gradient. What the methods detach is held fixed, as it is meant to be.
   */
  gradientError(): number {
    const trained = this.trainedLeaves();
    const made = evaluate(gradients(this.loss, trained), this.bindings(), "f64");
    const held = this.detached();
    return Math.max(...trained.map((node, index) => this.#errorOf(node, must(made[index], "gradient"), held)));
  }

  trainedLeaves(): Node[] {
    const adapters = this.composed.adapters.map(({ name }) => must(this.adapters.get(name), name).leaf);
    const base = this.model.parameters.filter((parameter) => this.composed.trains(parameter));
    return [...adapters, ...base.map(({ name }) => must(this.base.get(name), name))];
  }

  #errorOf(node: Node, made: Tensor, held: ReadonlyMap<Node, Tensor>): number {
    const name = String(node.attributes["name"]);
    const start = Float64Array.from(must(this.values.get(name), name));
    const scale = Math.max(1e-6, ...made.data.map(Math.abs));
    const lossAt = (place: number, change: number): number => {
      const data = start.slice();
      data[place] = (data[place] ?? 0) + change;
      const bound = new Map([...this.bindings(), ...held, [node, { shape: node.shape, dtype: node.dtype, data }]]);
      return evaluate([this.loss], bound, "f64")[0]?.data[0] ?? NaN;
    };
    const errors = Array.from({ length: Math.min(start.length, 12) }, (_, sample) => {
      const place = (sample * 7) % start.length;
      const measured = (lossAt(place, 1e-4) - lossAt(place, -1e-4)) / 2e-4;
      return Math.abs(measured - (made.data[place] ?? NaN)) / scale;
    });
    return Math.max(...errors);
  }

  /** Values behind every detach at the present point. */
  detached(): Map<Node, Tensor> {
    const nodes = reachable([this.loss]).filter((node) => node.op === detachOp);
    const values = evaluate(nodes, this.bindings(), "f64");
    return new Map(nodes.map((node, index) => [node, must(values[index], "detached value")]));
  }

  #adaptContext(context: PlainContext, inputs: ForwardInputs): AdaptContext {
    const { graph, model } = this;
    const declare = (name: string, shape: Shape, dtype: DType, tensorOf?: AdapterTensor): Node => {
      const node = leaf(graph, { name, role: "weight", shape, dtype });
      this.adapters.set(name, { leaf: node, ...(tensorOf === undefined ? {} : { tensor: tensorOf }) });
      return node;
    };
    const adapt: AdaptContext = {
      graph,
      model,
      trainable: (adapter) => declare(adapter.name, adapter.shape, "f32", adapter),
      fixed: ({ name, shape, dtype }) => declare(name, shape, dtype),
      weight: (spec) => context.parameter(weightOf(spec)),
      bias: (spec) => (spec.bias ? context.parameter(biasOf(spec)) : undefined),
      operand: (spec, x) => (this.#options.training === true ? this.composed.saved(adapt, spec, x) : x),
      uniform: (shape, place) => this.#drawn(shape, place),
      dropout: (x, p, place) => (p > 0 && this.#options.training === true ? multiply(x, this.#mask(x, p, place)) : x),
      scaled: (_spec, value) => value,
      moving: ({ name, shape, dtype }) => declare(name, shape, dtype),
      variant: "",
      probe: () => undefined,
      beside: (name, network, value) => network.build(besideContext(context, name, value), inputs),
    };
    return adapt;
  }

  #drawn(shape: Shape, place: string): Node {
    const node = leaf(this.graph, { name: `uniform.${place}`, role: "input", shape, dtype: "f32" });
    this.#inputs.set(node, tensor(shape, drawUniform(5, place, elements(shape))));
    return node;
  }

  #mask(x: Node, p: number, place: string): Node {
    const node = leaf(this.graph, { name: `mask.${place}`, role: "input", shape: x.shape, dtype: "f32" });
    const drawn = drawUniform(5, place, elements(x.shape)).map((value) => (value < p ? 0 : 1 / (1 - p)));
    this.#inputs.set(node, tensor(x.shape, drawn));
    return node;
  }
}

/** Base values of a parameter: normal with the usual deviation, norms near 1. */
function randomValues(name: string, shape: Shape): Float32Array {
  const deviation = 1 / Math.sqrt(shape.at(-1) ?? 1);
  const offset = name.includes("norm") ? 1 : 0;
  return Float32Array.from(drawNormal(2, name, elements(shape)), (value) => offset + value * deviation);
}

/** Largest absolute difference of two tensors' values. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let largest = a.length === b.length ? 0 : Infinity;
  for (let place = 0; place < a.length; place++) {
    const difference = Math.abs((a[place] ?? NaN) - (b[place] ?? NaN));
    // A NaN must not pass as a small difference.
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
  }
  return largest;
}
