import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add, cast, cos, divide, exp, less, multiply, select, sin, subtract } from "../ops/arithmetic.js";
import { flip, pad, reshape, slice } from "../ops/layout.js";
import { iota } from "../ops/leaves.js";
import type { Rotary } from "./types.js";

/** What turns heads, shared by all blocks of one program. */
export interface RotaryTables {
  /** How much of each head turns. */
  readonly width: number;
  /** f32 [tokens, 1, 1, width/2]. */
  readonly cosine: Node;
  /** f32 [tokens, 1, 2, width/2]: negative in the first half, as the rotation subtracts there. */
  readonly signedSine: Node;
}

/** Cosines and sines of each token's angles; positions i32 [tokens]. Su et al., "RoFormer" (arXiv 2104.09864). */
export function rotaryTables(positions: Node, rotary: Rotary): RotaryTables {
  const { graph } = positions;
  const half = rotary.width / 2;
  const tokens = must(positions.shape[0], "tokens");
  const place = cast(reshape(positions, [tokens, 1]), "f32");
  const angles = reshape(multiply(place, frequencies(positions, rotary)), [tokens, 1, 1, half]);
  const sign = subtract(multiply(cast(iota(graph, [1, 1, 2, 1], 2), "f32"), 2), 1);
  return { width: rotary.width, cosine: cos(angles), signedSine: multiply(sin(angles), sign) };
}

/** Radians a position, f32 [width/2]. */
function frequencies(like: Node, { theta, width, scaling }: Rotary): Node {
  const pair = cast(iota(like.graph, [width / 2], 0), "f32");
  const plain = exp(multiply(pair, (-2 * Math.log(theta)) / width));
  switch (scaling.kind) {
    case "none":
      return plain;
    case "linear":
      return divide(plain, scaling.factor);
    case "llama3":
      return llama3Frequencies(plain, scaling);
  }
}

/** Long wavelengths slowed by the factor, short ones kept, those between blended (Llama 3.1's rule). */
function llama3Frequencies(plain: Node, scaling: Rotary["scaling"] & { readonly kind: "llama3" }): Node {
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext } = scaling;
  // Turns within the original context: originalContext / wavelength.
  const turns = multiply(plain, originalContext / (2 * Math.PI));
  const slowed = divide(plain, factor);
  const share = divide(subtract(turns, low), high - low);
  const blended = add(multiply(subtract(1, share), slowed), multiply(share, plain));
  return select(less(turns, low), slowed, select(less(high, turns), plain, blended));
}

/** Turns the first `width` values of each head, the i-th with the i-th of the second half: x f32 [tokens, H, D]. */
export function applyRotary(x: Node, tables: RotaryTables): Node {
  const [tokens = 0, heads = 0, headWidth = 0] = x.shape;
  const { width } = tables;
  const turning = slice(x, [0, 0, 0], [tokens, heads, width]);
  const pairs = reshape(turning, [tokens, heads, 2, width / 2]);
  const turned = add(multiply(pairs, tables.cosine), multiply(flip(pairs, 2), tables.signedSine));
  const joined = reshape(turned, [tokens, heads, width]);
  if (width === headWidth) return joined;
  const rest = slice(x, [0, 0, width], [tokens, heads, headWidth - width]);
  return add(pad(joined, [0, 0, 0], [0, 0, headWidth - width]), pad(rest, [0, 0, width], [0, 0, 0]));
}
