import { add } from "../ops/arithmetic.js";
import type { Node } from "../ir/node.js";
import type { CollectContext, Collected, RegulariseContext, ResolvedMethod } from "./types.js";

/** What methods add to a step beside gradients and update rules, of all of them together. */
export interface Afterwards {
  scalars(step: number): Readonly<Record<string, number>>;
  readonly regularise?: (context: RegulariseContext) => Node;
  readonly collect?: (context: CollectContext) => Collected;
}

/** Methods cannot meet in a name: scalars and states carry the method's id before their own. */
const named = (id: string, name: string): string => `${id}.${name}`;

/** The slots `scalars`, `regularise` and `collect` of several methods as one: sums of terms, one after the other. */
export function afterwards(methods: readonly ResolvedMethod[]): Afterwards {
  const terms = methods.flatMap(({ slots }) => slots.regularise ?? []);
  const [first, ...rest] = terms;
  return {
    scalars: (step) =>
      Object.fromEntries(
        methods.flatMap(({ id, slots }) =>
          Object.entries(slots.scalars?.(step) ?? {}).map(([name, value]) => [named(id, name), value]),
        ),
      ),
    ...(first === undefined
      ? {}
      : { regularise: (context) => rest.reduce((sum, term) => add(sum, term(context)), first(context)) }),
    ...(methods.some(({ slots }) => slots.collect !== undefined)
      ? { collect: (context) => collectAll(methods, context) }
      : {}),
  };
}

/** Each method sees what the ones before it made of the tensors. */
function collectAll(methods: readonly ResolvedMethod[], context: CollectContext): Collected {
  const tensors = new Map(context.tensors);
  const values = new Map<string, Node>();
  const states = new Map<string, Node>();
  for (const { id, slots } of methods) {
    const collected = slots.collect?.({
      ...context,
      tensors,
      state: (name, shape) => context.state(named(id, name), shape),
      scalar: (name) => context.scalar(named(id, name)),
    });
    for (const [name, after] of collected?.values ?? []) {
      const tensor = tensors.get(name);
      if (tensor !== undefined) tensors.set(name, { ...tensor, after });
      values.set(name, after);
    }
    for (const [name, value] of collected?.states ?? []) states.set(named(id, name), value);
  }
  return { values, states };
}
