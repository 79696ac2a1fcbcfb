import { invariant, must, ThimbleError } from "../errors.js";
import { isFloat } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import type { GradientContext, OpDefinition } from "../ir/op.js";
import { reachableAbove, substituted } from "../ir/substitute.js";
import { add, multiply } from "../ops/arithmetic.js";
import { constant, leafOp, result } from "../ops/leaves.js";
import { detach } from "../ops/reduce.js";
import { pullback } from "./gradients.js";
import type { StreamArithmetic } from "./streams.js";
import { fixedPoint, floating, shiftOf } from "./streams.js";

/** y1 = factors[0] x1 + first(x2); y2 = factors[1] x2 + second(y1): f32 streams of one shape. Neither factor is 0. */
export interface ReversibleLayer {
  readonly first: (x: Node) => Node;
  readonly second: (x: Node) => Node;
  readonly factors: readonly [number, number];
  /** The next layer gets (y2, y1) instead of (y1, y2). */
  readonly swap: boolean;
}

export type Streams = readonly [Node, Node];

export interface ReversibleOptions {
  /** Streams in fixed point with so many bits behind the point, which are inverted without loss; absent = f32. */
  readonly fraction?: number | undefined;
}

/** What a layer was made of, for its inverse: streams, and what its functions read and gave. */
interface Trace {
  readonly x1: Node;
  readonly x2: Node;
  readonly firstReads: Node;
  readonly f: Node;
  readonly y1: Node;
  readonly secondReads: Node;
  readonly g: Node;
  readonly y2: Node;
  readonly factors: readonly [number, number];
  /** What the coupling dropped of x1 and x2, where it did. */
  readonly dropped1: Node | undefined;
  readonly dropped2: Node | undefined;
}

const traced = 10;

/** What backward makes of one layer is in a scope of this name, the chain's number and the layer's. */
export const undoneScope = "undone";

/**
 * The two streams at the end of a chain of layers. Inputs are the ends' values and those of the start; then ten nodes a
 * layer (see {@link Trace}), a 0 where nothing was dropped; then every leaf that the layers read. Backward reads nothing
 * of it but the streams at the end, and what couplings dropped: it is the op's derivative rule that makes the values
 * between again, from the end to the start. Nothing of it is left after differentiation: it is the ends.
 */
export const reversibleOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "reversible",
  cost: "free",
  infer: (inputs) => {
    const [first, second, ...starts] = inputs.slice(0, 4);
    const same = [second, ...starts].every(
      (type) => String(type?.shape) === String(first?.shape) && type?.dtype === "f32",
    );
    if (first?.dtype !== "f32" || second === undefined || !same) {
      throw new ThimbleError("shape", "Reversible layers take and give two f32 streams of one shape");
    }
    return [first, second];
  },
  lowering: { kind: "movement" },
  evaluate: (inputs) => inputs.slice(0, 2),
  gradient: (context) => reverse(context),
});

function arithmeticOf(fraction: number | undefined): StreamArithmetic {
  return fraction === undefined || fraction < 0 ? floating : fixedPoint(fraction);
}

/** One layer with the derivative that follows from how it is computed. */
export function coupledStreams(layer: ReversibleLayer, [x1, x2]: Streams): Streams {
  const { y1, y2 } = traceLayer(layer, [x1, x2], floating);
  return layer.swap ? [y2, y1] : [y1, y2];
}

function traceLayer({ first, second, factors }: ReversibleLayer, [x1, x2]: Streams, how: StreamArithmetic): Trace {
  const firstReads = how.read(x2);
  const f = first(firstReads);
  const { y: y1, dropped: dropped1 } = how.couple(x1, factors[0], f);
  const secondReads = how.read(y1);
  const g = second(secondReads);
  const { y: y2, dropped: dropped2 } = how.couple(x2, factors[1], g);
  return { x1, x2, firstReads, f, y1, secondReads, g, y2, factors, dropped1, dropped2 };
}

/**
 * Layers of two streams of which backward keeps the last alone: x2 = (y2 - second(y1)) / factors[1] and
 * x1 = (y1 - first(x2)) / factors[0] are made again, layer by layer, and the functions differentiated at them (Gomez et
 * al. 2017, "The reversible residual network", arXiv 1707.04585). One pass through every function more than backward
 * from kept values. In f32 the inverse of a layer multiplies an error by about 1 / factor a stream.
 */
export function reversible(
  layers: readonly ReversibleLayer[],
  start: Streams,
  { fraction }: ReversibleOptions = {},
): Streams {
  refuseFactors(layers, fraction);
  const how = arithmeticOf(fraction);
  let streams: Streams = [how.enter(start[0]), how.enter(start[1])];
  const traces = layers.map((layer): Trace => {
    const trace = traceLayer(layer, streams, how);
    streams = layer.swap ? [trace.y2, trace.y1] : [trace.y1, trace.y2];
    return trace;
  });
  const { graph } = start[0];
  const nothing = constant(graph, 0);
  const inputs = [
    ...streams.map((stream) => how.read(stream)),
    ...start,
    ...traces.flatMap((trace) => [
      ...[trace.x1, trace.x2, trace.firstReads, trace.f, trace.y1, trace.secondReads, trace.g, trace.y2],
      ...[trace.dropped1 ?? nothing, trace.dropped2 ?? nothing],
    ]),
    ...new Set(
      traces.flatMap((trace) => [...readBy(trace.f, trace.firstReads), ...readBy(trace.g, trace.secondReads)]),
    ),
  ];
  const factors = layers.flatMap((layer) => layer.factors);
  const swapped = layers.at(-1)?.swap === true;
  const node = graph.add(reversibleOp, inputs, { factors, swapped, fraction: fraction ?? -1 });
  return [result(node, 0), result(node, 1)];
}

function refuseFactors(layers: readonly ReversibleLayer[], fraction: number | undefined): void {
  const wrong = layers
    .flatMap(({ factors }) => factors)
    .find(
      (factor) => factor === 0 || !Number.isFinite(factor) || (fraction !== undefined && shiftOf(factor) === undefined),
    );
  if (wrong === undefined) return;
  throw new ThimbleError("reversible-factor", "A stream's factor cannot be undone", {
    given: String(wrong),
    expected: fraction === undefined ? "a number that is not 0" : "1, 1/2, 1/4, … down to 2^-16, in fixed point",
    fix: "Give the layer another factor.",
  });
}

/** The float leaves that `value` reads beside `input`. */
function readBy(value: Node, input: Node): Node[] {
  const isRead = (node: Node): boolean => node !== input && node.op === leafOp && isFloat(node.dtype);
  return reachableAbove([value], new Set([input])).filter(isRead);
}

function tracesOf({ inputs, attributes }: Node): Trace[] {
  const factors = attributes["factors"] as readonly number[];
  return Array.from({ length: factors.length / 2 }, (_, layer): Trace => {
    const at = (place: number): Node => must(inputs[4 + layer * traced + place], "node of a reversible layer");
    const kept = (place: number): Node | undefined => (at(place).shape.length === 0 ? undefined : at(place));
    return {
      ...{ x1: at(0), x2: at(1), firstReads: at(2), f: at(3) },
      ...{ y1: at(4), secondReads: at(5), g: at(6), y2: at(7) },
      ...{ dropped1: kept(8), dropped2: kept(9) },
      factors: [must(factors[2 * layer], "factor"), must(factors[2 * layer + 1], "factor")],
    };
  });
}

/** What the forward pass makes of it for backward alone. */
export function droppedBy(node: Node): readonly Node[] {
  return tracesOf(node).flatMap(({ dropped1, dropped2 }) => [dropped1, dropped2].filter((one) => one !== undefined));
}

/** Streams made again, by what they are in the forward pass. */
class Inverse {
  readonly #known = new Map<Node, Node>();

  /**
   * The streams at the end are the same memory but other nodes: what backward computes from them is then never what
   * forward computed, and kept.
   */
  constructor(
    ends: readonly Node[],
    private readonly how: StreamArithmetic,
  ) {
    for (const end of ends) this.#known.set(end, detach(end));
  }

  of(stream: Node): Node {
    return must(this.#known.get(stream), "stream made again");
  }

  /** A function of the layer at what it read, made again. */
  again(value: Node, reads: Node, stream: Node): { readonly reads: Node; readonly value: Node } {
    const renewed = this.how.read(this.of(stream));
    return { reads: renewed, value: substituted(value, new Map([[reads, renewed]])) };
  }

  undo(x: Node, y: Node, factor: number, f: Node, dropped: Node | undefined): void {
    this.#known.set(x, this.how.uncouple(this.of(y), factor, f, dropped));
  }
}

function endsOf(traces: readonly Trace[]): Node[] {
  const last = must(traces.at(-1), "last layer");
  return [last.y1, last.y2];
}

/** The streams that a chain starts from, made again from its ends: for tests of how much is lost. */
export function inverted(streams: Streams): Streams {
  const node = must(streams[0].inputs[0], "reversible layers");
  invariant(node.op === reversibleOp, "these are no ends of reversible layers");
  const traces = tracesOf(node);
  const how = arithmeticOf(node.attributes["fraction"] as number);
  const inverse = new Inverse(endsOf(traces), how);
  for (const trace of traces.toReversed()) {
    const { x1, x2, y1, y2, factors } = trace;
    inverse.undo(x2, y2, factors[1], inverse.again(trace.g, trace.secondReads, y1).value, trace.dropped2);
    inverse.undo(x1, y1, factors[0], inverse.again(trace.f, trace.firstReads, x2).value, trace.dropped1);
  }
  const { x1, x2 } = must(traces[0], "first layer");
  return [how.read(inverse.of(x1)), how.read(inverse.of(x2))];
}

/** Gradients by node, summed up as they come. */
class Gradients {
  readonly #sums = new Map<Node, Node>();

  add(node: Node, gradient: Node | undefined): void {
    if (gradient === undefined) return;
    const before = this.#sums.get(node);
    this.#sums.set(node, before === undefined ? gradient : add(before, gradient));
  }

  get(node: Node): Node | undefined {
    return this.#sums.get(node);
  }
}

function reverse({ node, outputs, wants }: GradientContext): (Node | undefined)[] {
  const traces = tracesOf(node);
  const how = arithmeticOf(node.attributes["fraction"] as number);
  const inverse = new Inverse(endsOf(traces), how);
  const gradients = new Gradients();
  const wanted = new Set(node.inputs.filter((input, place) => wants[place] === true && input.op === leafOp));
  const [first, second] = node.attributes["swapped"] === true ? [outputs[1], outputs[0]] : outputs;
  const last = must(traces.at(-1), "last layer");
  gradients.add(last.y1, first);
  gradients.add(last.y2, second);
  // What a function passes back to the stream that it read; what it passes to leaves is added up beside.
  const passBack = (value: Node, reads: Node, gradient: Node | undefined): Node | undefined => {
    if (gradient === undefined) return undefined;
    const leaves = readBy(value, reads).filter((one) => wanted.has(one));
    const [inner, ...rest] = pullback(value, gradient, [reads, ...leaves]);
    leaves.forEach((one, place) => {
      gradients.add(one, rest[place]);
    });
    return inner;
  };
  const undo = (trace: Trace): void => {
    const { x1, x2, y1, y2, factors } = trace;
    const g = inverse.again(trace.g, trace.secondReads, y1);
    inverse.undo(x2, y2, factors[1], g.value, trace.dropped2);
    const by2 = gradients.get(y2);
    gradients.add(y1, passBack(g.value, g.reads, by2));
    const f = inverse.again(trace.f, trace.firstReads, x2);
    inverse.undo(x1, y1, factors[0], f.value, trace.dropped1);
    const by1 = gradients.get(y1);
    gradients.add(x2, by2 === undefined ? undefined : multiply(by2, factors[1]));
    gradients.add(x2, passBack(f.value, f.reads, by1));
    gradients.add(x1, by1 === undefined ? undefined : multiply(by1, factors[0]));
  };
  for (const [place, trace] of [...traces.entries()].reverse()) {
    node.graph.inScope(`${undoneScope}.${node.id}.${place}`, () => {
      undo(trace);
    });
  }
  const { x1, x2 } = must(traces[0], "first layer");
  return node.inputs.map((input, place) => {
    if (place === 2) return gradients.get(x1);
    if (place === 3) return x1 === x2 ? undefined : gradients.get(x2);
    return place > 3 + traced * traces.length ? gradients.get(input) : undefined;
  });
}
