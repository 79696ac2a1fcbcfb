import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { add, cast, divide, multiply, sigmoid, subtract } from "../../ops/arithmetic.js";
import { reshape } from "../../ops/layout.js";
import { detach } from "../../ops/reduce.js";
import { applySmallLinear } from "../small-linear.js";
import type { AdaptContext, AdapterTensor, MethodSlots } from "../types.js";
import type { Rung, SideNetwork } from "./config.js";
import { root } from "./config.js";

/** The frozen blocks as they are, a side network that reads their outputs, and the head on that one's output alone. */
export function ladderStack(side: SideNetwork): NonNullable<MethodSlots["stack"]> {
  const { settings, network, rungs, blocks, first, up, mergeGate } = side;
  const { merge_last: merges, add_residual_after: after, dropout } = settings;
  const deepest = Math.max(...rungs.keys());
  return (context, tower, x) => {
    const { graph } = context;
    const inSide = (build: () => Node): Node => graph.inScope("side", build);
    const beside = context.beside(root, network, ({ name }) => context.trainable(must(blocks.get(name), name)));
    let hidden = x;
    let state = inSide(() =>
      stored(x, applySmallLinear(context, first, context.dropout(detach(x), dropout, `${root}.first`))),
    );
    for (const block of merges ? tower.blocks : tower.blocks.slice(0, deepest + 1)) {
      hidden = block.mlp(block.attention(hidden));
      const rung = rungs.get(block.index);
      if (rung === undefined) continue;
      const own = must(beside.blocks[block.index], "side block");
      // Outside the block's scope, so that what is read of the backbone is kept and its block never run again.
      const climb = (value: Node): Node =>
        inSide(() => climbed(context, settings.gate_temperature, rung, value, hidden));
      const run = (value: Node): Node => inSide(() => own.mlp(own.attention(value)));
      state = after ? climb(run(state)) : run(climb(state));
    }
    const out = inSide(() =>
      applySmallLinear(context, up, context.dropout(beside.norm(state), dropout, `${root}.last`)),
    );
    if (mergeGate === undefined) return stored(x, out);
    const model = cast(detach(tower.norm(hidden)), "f32");
    return inSide(() => stored(x, mixed(gateOf(context, mergeGate, settings.gate_temperature), out, model)));
  };
}

/** The side's state with that of the block: mu s + (1 - mu) Dn(h), or s + Dn(h), or s alone. */
function climbed(context: AdaptContext, temperature: number, { ladder, gate }: Rung, state: Node, hidden: Node): Node {
  if (ladder === undefined) return state;
  const rung = applySmallLinear(context, ladder, detach(hidden));
  const own = cast(state, "f32");
  const met = gate === undefined ? add(own, rung) : mixed(gateOf(context, gate, temperature), own, rung);
  return stored(hidden, met);
}

/** sigmoid(a / T), f32 [1, 1]. */
function gateOf(context: AdaptContext, gate: AdapterTensor, temperature: number): Node {
  return sigmoid(divide(reshape(context.trainable(gate), [1, 1]), temperature));
}

function mixed(share: Node, a: Node, b: Node): Node {
  return add(multiply(share, a), multiply(subtract(1, share), b));
}

function stored(like: Node, x: Node): Node {
  return cast(x, like.dtype);
}
