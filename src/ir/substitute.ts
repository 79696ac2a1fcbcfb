import type { Node } from "./node.js";
import { rebuilt } from "./program.js";

/**
 * The nodes that `roots` depend on, themselves included, in topological order, not looking below `boundary`, whose
 * nodes are included where they are met.
 */
export function reachableAbove(roots: Iterable<Node>, boundary: { has(node: Node): boolean }): Node[] {
  const stack = [...roots];
  const seen = new Set<Node>();
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    if (!boundary.has(node)) stack.push(...node.inputs);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

/** The expression `root` once more, reading others in the place of some of the nodes that it depends on. */
export function substituted(root: Node, replacements: ReadonlyMap<Node, Node>): Node {
  const made = new Map(replacements);
  for (const node of reachableAbove([root], replacements)) {
    if (made.has(node)) continue;
    const inputs = node.inputs.map((input) => made.get(input) ?? input);
    made.set(node, rebuilt(node, inputs));
  }
  return made.get(root) ?? root;
}
