import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { nodesOf, rootsOf } from "../ir/program.js";

/** Who reads what in a program. */
export class Uses {
  readonly nodes: readonly Node[];
  readonly roots: ReadonlySet<Node>;
  readonly #consumers = new Map<Node, Node[]>();
  readonly #present: Uint8Array;

  constructor(program: Program) {
    this.nodes = nodesOf(program);
    this.roots = new Set(rootsOf(program));
    this.#present = new Uint8Array((this.nodes.at(-1)?.id ?? 0) + 1);
    for (const node of this.nodes) {
      this.#present[node.id] = 1;
      for (const input of new Set(node.inputs)) {
        const list = this.#consumers.get(input);
        if (list === undefined) this.#consumers.set(input, [node]);
        else list.push(node);
      }
    }
  }

  /** Whether a node is part of the program. */
  has(node: Node): boolean {
    return this.#present[node.id] === 1;
  }

  consumers(node: Node): readonly Node[] {
    return this.#consumers.get(node) ?? [];
  }

  /** The only reader of a value that is not an effect of the program. */
  soleConsumer(node: Node): Node | undefined {
    const list = this.consumers(node);
    return list.length === 1 && !this.roots.has(node) ? list[0] : undefined;
  }
}
