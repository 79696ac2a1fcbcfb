import type { Node } from "../ir/node.js";
import { leafAttributes } from "../ops/leaves.js";

/** Which value of which leaf, as a key; `next` counts assignments from there. */
export function versionKey(leaf: Node, next = 0): string {
  const { name, version } = leafAttributes(leaf);
  return `${version + next}@${name}`;
}
