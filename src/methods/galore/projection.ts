import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import type { Shape } from "../../ir/shape.js";
import { cast } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { slice } from "../../ops/layout.js";
import { symmetricEigen } from "../../ops/symmetric-eigen.js";

export const projectionTypes = ["std", "reverse_std", "left", "right", "full"] as const;
export type ProjectionType = (typeof projectionTypes)[number];

/** Which singular vectors of a gradient [m, n] span the subspace; projectors are stored as rows, [rank, m] or [rank, n]. */
export interface Projection {
  readonly left: boolean;
  readonly right: boolean;
  readonly rank: number;
}

/** `std` projects the smaller side, so that projector and states are smallest; equal sides project the right one. */
export function projectionOf(type: ProjectionType, rank: number, [rows = 0, columns = 0]: Shape): Projection {
  const right = type === "std" ? rows >= columns : type === "reverse_std" ? rows < columns : type !== "left";
  return { right, left: type === "full" || !right, rank };
}

/** Shape of R, in which the optimizer works. */
export function projectedShape({ left, right, rank }: Projection, [rows = 0, columns = 0]: Shape): Shape {
  return [left ? rank : rows, right ? rank : columns];
}

/** The projectors by name, with their shapes. */
export function projectorShapes({ left, right, rank }: Projection, [rows = 0, columns = 0]: Shape): [string, Shape][] {
  return [
    ...(left ? [["left", [rank, rows]] as [string, Shape]] : []),
    ...(right ? [["right", [rank, columns]] as [string, Shape]] : []),
  ];
}

export type Projectors = Readonly<Record<string, Node>>;

/**
 * The leading singular vectors of G as eigenvectors of G Gᵀ or Gᵀ G (Zhao et al. 2024, section 3.3). Signs are fixed by
 * {@link symmetricEigen}.
 */
export function newProjectors({ left, right, rank }: Projection, gradient: Node): Projectors {
  const leading = (gram: Node): Node =>
    slice(symmetricEigen(gram).vectors, [0, 0], [rank, must(gram.shape[1], "side")]);
  return {
    ...(left ? { left: leading(dot(gradient, gradient, { transposeB: true })) } : {}),
    ...(right ? { right: leading(dot(gradient, gradient, { transposeA: true })) } : {}),
  };
}

/** R = L G Rᵀ with whichever of the two there are. */
export function project({ left, right }: Projection, projectors: Projectors, gradient: Node): Node {
  const turned = left ? dot(cast(must(projectors["left"], "left"), "f32"), gradient) : gradient;
  return right ? dot(turned, cast(must(projectors["right"], "right"), "f32"), { transposeB: true }) : turned;
}

/** Lᵀ N R: a change of the weight. */
export function projectBack({ left, right }: Projection, projectors: Projectors, change: Node): Node {
  const turned = right ? dot(change, cast(must(projectors["right"], "right"), "f32")) : change;
  return left ? dot(cast(must(projectors["left"], "left"), "f32"), turned, { transposeA: true }) : turned;
}
