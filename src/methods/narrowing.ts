import { must, ThimbleError } from "../errors.js";
import { elements } from "../ir/shape.js";
import { weightOf } from "../models/parameters.js";
import type { LinearRole, LinearSpec, ModelDefinition, NarrowModel, ParameterSpec } from "../models/types.js";

/** What a narrower form of a tensor keeps of it, in its order: outputs (the elements of a vector), and inputs. */
export interface KeptParts {
  readonly outputs: Int32Array;
  readonly inputs?: Int32Array;
}

/** How much each value of a tensor of the model counts, row-major as stored; the sign does not matter. */
export type Importance = (parameter: string) => Promise<ArrayLike<number>>;

type Pair = NarrowModel["parameters"][number];

/**
 * What structured pruning of the model keeps in its narrow form, by the names of the narrow tensors. The walk of LST
 * (Sung et al., arXiv 2206.06522, `pruning_without_residual`): from the embedding on, in the order of use, each matrix
 * keeps the inputs that the one before it kept as outputs, and of its outputs those with the largest L1 norm of
 * importance. Matrices whose outputs meet element by element keep the same ones, ranked by the product of their
 * importances. Heads are not kept as units.
 */
export async function keptParts(
  model: ModelDefinition,
  narrow: NarrowModel,
  importance: Importance,
): Promise<Map<string, KeptParts>> {
  const walk = new Walk(model, narrow, importance);
  await walk.start();
  for (const pair of narrow.parameters) await walk.visit(pair);
  return walk.kept;
}

/** The values that a narrow tensor takes over from the model's. */
export function narrowed(of: ParameterSpec, { outputs, inputs }: KeptParts, values: ArrayLike<number>): Float32Array {
  if (inputs === undefined) return Float32Array.from(outputs, (place) => must(values[place], of.name));
  const matrix = new Matrix(of, values);
  const [rows, columns] = of.linear?.transposed === true ? [inputs, outputs] : [outputs, inputs];
  const taken = new Float32Array(rows.length * columns.length);
  rows.forEach((row, i) => {
    columns.forEach((column, j) => (taken[i * columns.length + j] = matrix.values[row * matrix.columns + column] ?? 0));
  });
  return taken;
}

/** The `count` places of the largest scores, ascending; of equal ones, the first. */
export function largestPlaces(scores: Float64Array, count: number, what: string): Int32Array {
  const broken = scores.findIndex((score) => Number.isNaN(score));
  if (broken >= 0) {
    throw new ThimbleError("importance-not-finite", `The importance of output ${broken} of ${what} is not a number`, {
      where: what,
      fix: "Check that the weights and, with Fisher importance, the losses of the examples are finite.",
    });
  }
  const order = Array.from(scores.keys()).sort((a, b) => must(scores[b], what) - must(scores[a], what) || a - b);
  return Int32Array.from(order.slice(0, count)).sort();
}

/** A linear layer's weight by outputs and inputs, however it is stored. */
class Matrix {
  readonly columns: number;
  private readonly transposed: boolean;

  constructor(
    { shape, linear }: ParameterSpec,
    readonly values: ArrayLike<number>,
  ) {
    this.columns = shape[1] ?? 1;
    this.transposed = linear?.transposed === true;
  }

  at(output: number, input: number): number {
    const place = this.transposed ? input * this.columns + output : output * this.columns + input;
    return Math.abs(this.values[place] ?? NaN);
  }
}

/** A matrix of a group, and where its part of output number `place` is. */
interface Member {
  readonly matrix: Matrix;
  readonly output: (place: number) => number;
}

/** log of the sum over `inputs` of the product of the members' importances: products of three underflow in f32. */
function logNorm(members: readonly Member[], place: number, inputs: Int32Array): number {
  let peak = -Infinity;
  const logs = Array.from(inputs, (input) => {
    let sum = 0;
    for (const { matrix, output } of members) sum += Math.log(matrix.at(output(place), input));
    if (!(sum <= peak)) peak = sum;
    return sum;
  });
  if (!Number.isFinite(peak)) return peak;
  return peak + Math.log(logs.reduce((sum, value) => sum + Math.exp(value - peak), 0));
}

class Walk {
  readonly kept = new Map<string, KeptParts>();
  /** Which of its inputs the next matrix keeps. */
  private current: Int32Array = new Int32Array(0);

  constructor(
    private readonly model: ModelDefinition,
    private readonly narrow: NarrowModel,
    private readonly importance: Importance,
  ) {}

  /** Ranks the embedding's dimensions over the vocabulary. */
  async start(): Promise<void> {
    const { model, narrow } = this;
    const embedding = must(
      model.parameters.find(({ kind }) => kind === "embedding"),
      "an embedding",
    );
    const values = await this.importance(embedding.name);
    const scores = new Float64Array(model.width);
    for (let place = 0; place < elements(embedding.shape); place++) {
      const dimension = place % model.width;
      scores[dimension] = (scores[dimension] ?? 0) + Math.abs(values[place] ?? NaN);
    }
    this.current = largestPlaces(scores, narrow.width, embedding.name);
  }

  async visit(pair: Pair): Promise<void> {
    if (this.kept.has(pair.own.name)) return;
    const { linear, kind } = pair.of;
    if (kind === "norm") await this.norm(pair);
    else if (linear !== undefined) await this.layer(linear);
  }

  /** A norm keeps what it is fed; one of each head's elements, which meet no other matrix, its own largest. */
  private async norm({ own, of }: Pair): Promise<void> {
    if (of.shape[0] === this.model.width) {
      this.kept.set(own.name, { outputs: this.current });
      return;
    }
    const scores = Float64Array.from(Array.from(await this.importance(of.name), Math.abs));
    this.kept.set(own.name, { outputs: largestPlaces(scores, elements(own.shape), of.name) });
  }

  private async layer(linear: LinearSpec): Promise<void> {
    switch (linear.role) {
      case "query":
        return this.attention(linear);
      case "query-key-value":
        return this.joined(linear);
      case "gate":
        return this.alike([linear, this.sibling(linear, "up")]);
      default:
        return this.alike([linear]);
    }
  }

  /** Layers whose outputs meet element by element, or one alone: all keep the same. */
  private async alike(layers: readonly LinearSpec[]): Promise<void> {
    const members = await Promise.all(layers.map((layer) => this.member(layer)));
    const [first] = layers;
    const outputs = this.largest(members, must(first, "layer"));
    for (const layer of layers) this.keep(layer, outputs);
    this.current = outputs;
  }

  /**
   * Queries, keys and values meet by heads: an output of the keys with that of the values, and with one of each query
   * head that reads them. Of the queries, those are kept which meet the keys that are.
   */
  private async attention(query: LinearSpec): Promise<void> {
    const [key, value] = [this.sibling(query, "key"), this.sibling(query, "value")];
    const width = this.model.headWidth;
    const group = query.outputs / key.outputs;
    const read = (place: number, one: number): number =>
      (Math.floor(place / width) * group + one) * width + (place % width);
    const queries = await this.member(query);
    const readers = Array.from({ length: group }, (_, one) => ({
      ...queries,
      output: (place: number): number => read(place, one),
    }));
    const outputs = this.largest([await this.member(key), await this.member(value), ...readers], key);
    const narrowWidth = (outputs.length * width) / key.outputs;
    const kept = Int32Array.from({ length: outputs.length * group }, (_, place) => {
      const [head, element] = [Math.floor(place / narrowWidth), place % narrowWidth];
      const own = must(outputs[Math.floor(head / group) * narrowWidth + element], "kept key");
      return read(own, head % group);
    });
    this.keep(query, kept);
    this.keep(key, outputs);
    this.keep(value, outputs);
    this.current = kept;
  }

  /** One matrix that holds queries, keys and values after each other. */
  private async joined(layer: LinearSpec): Promise<void> {
    const width = layer.outputs / 3;
    const { matrix } = await this.member(layer);
    const parts = [0, 1, 2].map((part) => ({ matrix, output: (place: number): number => part * width + place }));
    const outputs = this.largest(parts, { ...layer, outputs: width });
    this.keep(
      layer,
      Int32Array.from([0, 1, 2].flatMap((part) => Array.from(outputs, (place) => part * width + place))),
    );
    this.current = outputs;
  }

  private async member(layer: LinearSpec): Promise<Member> {
    const weight = weightOf(layer);
    return { matrix: new Matrix(weight, await this.importance(weight.name)), output: (place) => place };
  }

  /** As large a share of the outputs as the narrow model has of the width. */
  private largest(members: readonly Member[], { path, outputs }: LinearSpec): Int32Array {
    const scores = new Float64Array(outputs).map((_, place) => logNorm(members, place, this.current));
    return largestPlaces(scores, (outputs * this.narrow.width) / this.model.width, path);
  }

  private keep(layer: LinearSpec, outputs: Int32Array): void {
    for (const { own, of } of this.narrow.parameters) {
      if (of.linear?.path !== layer.path) continue;
      this.kept.set(own.name, of.kind === "bias" ? { outputs } : { outputs, inputs: this.current });
    }
  }

  private sibling({ block }: LinearSpec, role: LinearRole): LinearSpec {
    return must(
      this.model.linears.find((one) => one.block === block && one.role === role),
      `${role} of block ${block}`,
    );
  }
}
