import { invariant, must, ThimbleError } from "../errors.js";
import type { DType } from "./dtype.js";
import type { OpDefinition } from "./op.js";
import type { Shape } from "./shape.js";

export type AttributeValue = string | number | boolean | readonly number[] | readonly string[];
export type Attributes = Readonly<Record<string, AttributeValue>>;

export interface TensorType {
  readonly shape: Shape;
  readonly dtype: DType;
}

/**
 * One value (or a tuple of values) of a tensor graph. Nodes are frozen and hash-consed: within one graph, the same
 * op on the same inputs with the same attributes is the same object.
 */
export interface Node {
  /** Position in its graph; inputs always have smaller ids, so ids are a topological order. */
  readonly id: number;
  readonly graph: Graph;
  readonly op: OpDefinition;
  readonly inputs: readonly Node[];
  readonly attributes: Attributes;
  /** One type an output; only tuple ops have more than one. */
  readonly types: readonly TensorType[];
  /** Shape of the first output. */
  readonly shape: Shape;
  /** Element type of the first output. */
  readonly dtype: DType;
  /** The model scope that first made the node, as in `blocks.3.attention`: provenance, not identity. */
  readonly scope: string;
}

/** The table of all nodes of one or more programs. */
export class Graph {
  readonly nodes: Node[] = [];
  readonly #interned = new Map<string, Node>();
  #scope = "";

  add(op: OpDefinition, inputs: readonly Node[], attributes: Attributes = {}): Node {
    for (const input of inputs) invariant(input.graph === this, `${op.name} mixes nodes of two graphs`);
    const key = `${op.name}(${inputs.map((input) => input.id).join(",")})${JSON.stringify(attributes)}`;
    const known = this.#interned.get(key);
    if (known !== undefined) return known;
    const types = this.#infer(op, inputs, attributes);
    const first = must(types[0], `${op.name}'s output type`);
    const node: Node = Object.freeze({
      id: this.nodes.length,
      graph: this,
      op,
      inputs: Object.freeze([...inputs]),
      attributes: Object.freeze({ ...attributes }),
      types: Object.freeze(types),
      shape: first.shape,
      dtype: first.dtype,
      scope: this.#scope,
    });
    this.nodes.push(node);
    this.#interned.set(key, node);
    return node;
  }

  /** Runs `build` with `name` appended to the scope of the nodes that it makes first. */
  inScope<T>(name: string, build: () => T): T {
    const outer = this.#scope;
    this.#scope = outer === "" ? name : `${outer}.${name}`;
    try {
      return build();
    } finally {
      this.#scope = outer;
    }
  }

  get scope(): string {
    return this.#scope;
  }

  #infer(op: OpDefinition, inputs: readonly Node[], attributes: Attributes): readonly TensorType[] {
    try {
      return op.infer(inputs.map(firstType), attributes);
    } catch (error) {
      if (!(error instanceof ThimbleError) || error.where !== undefined) throw error;
      const operands = inputs.map((input) => `${input.dtype}[${input.shape.join(", ")}]`).join(", ");
      throw new ThimbleError(error.code, error.message, {
        given: error.given ?? operands,
        ...(error.expected === undefined ? {} : { expected: error.expected }),
        where: `${op.name}(${operands})${this.#scope === "" ? "" : ` in ${this.#scope}`}`,
      });
    }
  }
}

function firstType(node: Node): TensorType {
  return must(node.types[0], "output type");
}

/** The nodes that `roots` (of one graph) depend on, themselves included, in topological order. */
export function reachable(roots: Iterable<Node>): Node[] {
  const stack = [...roots];
  const seen = new Uint8Array(stack.reduce((most, node) => Math.max(most, node.id + 1), 0));
  const graph = stack[0]?.graph;
  const found: Node[] = [];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (seen[node.id] === 1) continue;
    seen[node.id] = 1;
    found.push(node);
    for (const input of node.inputs) if (seen[input.id] !== 1) stack.push(input);
  }
  // Ids are an order: where most nodes were found, walking them all is cheaper than sorting.
  if (graph === undefined || found.length * 8 < seen.length) return found.sort((a, b) => a.id - b.id);
  return graph.nodes.filter((node) => seen[node.id] === 1);
}
