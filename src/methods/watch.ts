import type { Node } from "../ir/node.js";
import type { Optimizer } from "../optim/types.js";
import type { ResolvedMethod, TrainedTensor, UpdateContext, WatchContext, Watched } from "./types.js";

/** What methods do with gradients, of all of them together. */
export interface Watching {
  /** What becomes of what is watched; absent = nothing is. */
  readonly watch?: (context: WatchContext) => Watched;
  /** The update rule of a trained tensor in a kind of step: each method may wrap that of the ones before it. */
  update(tensor: TrainedTensor, optimizer: Optimizer, variant: string, context: UpdateContext): Optimizer;
}

/** The slots `watch`, `moments` and `update` of several methods. */
export function watching(methods: readonly ResolvedMethod[]): Watching {
  return {
    update: (tensor, optimizer, variant, context) => {
      const stored = methods.reduce((rule, { slots }) => {
        const states = slots.moments?.(tensor);
        return states === undefined ? rule : rule.withStates(states);
      }, optimizer);
      return methods.reduce((rule, { id, slots }) => {
        const own: UpdateContext = { ...context, scalar: (name) => context.scalar(`${id}.${name}`) };
        return slots.update?.(tensor, rule, variant, own) ?? rule;
      }, stored);
    },
    ...(methods.some(({ slots }) => slots.watch !== undefined)
      ? { watch: (context) => watchAll(methods, context) }
      : {}),
  };
}

function watchAll(methods: readonly ResolvedMethod[], context: WatchContext): Watched {
  const all = methods.flatMap(({ slots }) => slots.watch?.(context) ?? []);
  return {
    sums: new Map<string, Node>(all.flatMap(({ sums }) => [...sums])),
    moved: all.flatMap(({ moved }) => moved),
  };
}
