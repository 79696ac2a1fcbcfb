import { must, ThimbleError } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { add, cast, lessEqual, multiply, select } from "../../ops/arithmetic.js";
import { matchPlaces, topOuter } from "../../ops/index-set.js";
import { reshape } from "../../ops/layout.js";
import { constant, iota } from "../../ops/leaves.js";
import { copied } from "../../ops/reduce.js";
import { topK } from "../../ops/top-k.js";
import type { EntryRule, Optimizer, RuleResult, StateSpec, UpdateArguments, UpdateResult } from "../../optim/types.js";
import { movingLeaf } from "../moving.js";
import type { AdaptContext, FixedTensor, UpdateContext, WatchContext, Watched } from "../types.js";
import type { ExchangeOptions } from "./exchange.js";
import { exchangeEntries } from "./exchange.js";
import { watchEntries, watchWeight } from "./forward.js";
import type { SparseLayer } from "./layer.js";
import { supportOf } from "./layer.js";

/** A layer whose entries move, with those that may come. */
export interface GrowingLayer extends SparseLayer {
  /** Places of the candidates of a growth window, i32 [K]. */
  readonly candidates: FixedTensor;
}

export function growingLayer(layer: SparseLayer): GrowingLayer {
  return { ...layer, candidates: { ...layer.places, name: layer.places.name.replace(/_indices$/, "_candidates") } };
}

/** Steps of a growth window: the first chooses the candidates, and all add up their gradients. */
export const opening = "open";
export const within = "window";
/** Steps after whose update entries are chosen by moments. */
export const selecting = "select";

/** The layer's output with what the step needs to know of its weight's gradient. */
export function watchGrowth(context: AdaptContext, layer: GrowingLayer, x: Node, y: Node): Node {
  const { spec, candidates, count } = layer;
  if (context.variant === opening) {
    const probe = context.probe(candidates.name, [spec.outputs, spec.inputs]);
    return probe === undefined ? y : watchWeight(y, x, probe);
  }
  const probe = context.variant === within ? context.probe(candidates.name, [count]) : undefined;
  return probe === undefined ? y : watchEntries(y, x, context.moving(candidates), probe);
}

/** Where a window opens, the candidates are the K largest elements of the weight's gradient, which is gone after that. */
export function watchCandidates({ graph, variant, gradients }: WatchContext, layers: readonly GrowingLayer[]): Watched {
  const seen = layers.flatMap((layer) => {
    const gradient = gradients.get(layer.candidates.name);
    return gradient === undefined ? [] : [{ layer, gradient }];
  });
  if (variant !== opening) {
    return { sums: new Map(seen.map(({ layer, gradient }) => [layer.candidates.name, gradient])), moved: [] };
  }
  const chosen = seen.map(({ layer: { candidates, count, spec }, gradient }) => {
    const line = reshape(gradient, [spec.outputs * spec.inputs]);
    return { candidates, ...topK(line, { count, by: "magnitude", order: "index" }) };
  });
  return {
    sums: new Map(chosen.map(({ candidates, values }) => [candidates.name, values])),
    moved: chosen.map(({ candidates, places }) => ({ target: movingLeaf(graph, candidates), value: places })),
  };
}

/** The run's rule for the entries of a layer in steps in which none moves. */
export function plainEntries(layer: SparseLayer, rule: Optimizer): Optimizer {
  return entryRule(rule).rule(supportOf(layer));
}

function entryRule(rule: Optimizer): EntryRule {
  if (rule.entries !== undefined) return rule.entries;
  throw new ThimbleError("sparse-optimizer", "This optimizer has no rule for entries that come and go", {
    where: "optimizer",
    given: rule.id,
    fix: "Choose adamw, sgd or sm3.",
  });
}

/**
 * The scalars that growth reads: how many entries a layer of so many may replace after the step, which is none where no
 * window ends, and how many steps the window has.
 */
export function growthScalars(
  layers: readonly SparseLayer[],
  { share, length }: { readonly share: number; readonly length: number },
): Record<string, number> {
  const limits = layers.map(({ count }) => [limitName(count), Math.floor(share * count)] as const);
  return { window: length, ...Object.fromEntries(limits) };
}

const limitName = (count: number): string => `limit${count}`;

function limitOf(context: UpdateContext, { count }: SparseLayer): Node {
  return cast(context.scalar(limitName(count)), "i32");
}

/** The rule in a step of a growth window: candidates' gradients are added up, and after its last step the best come. */
export function growingByGradients(
  layer: GrowingLayer,
  rule: Optimizer,
  variant: string,
  context: UpdateContext,
): Optimizer {
  const { count, candidates } = layer;
  const entries = entryRule(rule);
  const base = entries.rule(supportOf(layer));
  const stateOf = (name: string): StateSpec => ({ name, shape: [count], dtype: "f32", initial: 0 });
  return {
    ...base,
    states: (parameter) => [...base.states(parameter), stateOf("candidate_sum"), stateOf("candidate_squares")],
    update: (args) => {
      const gained = context.sum(candidates.name);
      const added = (name: string, value: Node): Node =>
        variant === opening ? copied(value) : add(must(args.states[name], name), value);
      const sum = added("candidate_sum", gained);
      const squares = added("candidate_squares", multiply(gained, gained));
      const found = context.moved(candidates);
      const made = exchanging(base, args, layer, (_ruled, current) => ({
        candidates: {
          places: found,
          arriving: topK(sum, { count, by: "magnitude", order: "rank" }).places,
          slots: matchPlaces(current, found),
        },
        limit: limitOf(context, layer),
        seeds: entries.seed({ sum, squares, count: context.scalar("window") }),
      }));
      return { ...made, states: { ...made.states, candidate_sum: sum, candidate_squares: squares } };
    },
  };
}

/** SM3 in a step after which entries move: those come whose row and column have the largest product of their numbers. */
export function growingByMoments(layer: GrowingLayer, rule: Optimizer, context: UpdateContext): Optimizer {
  if (rule.id !== "sm3") {
    throw new ThimbleError("sparse-optimizer", "Growth by moments reads the rows and columns of SM3", {
      where: "optimizer",
      given: rule.id,
      expected: "sm3",
      fix: "Leave the optimizer out, or grow by gradients.",
    });
  }
  const base = plainEntries(layer, rule);
  return {
    ...base,
    update: (args) =>
      exchanging(base, args, layer, ({ states }, current) => {
        const { graph } = current;
        const limit = limitOf(context, layer);
        const sides = { rows: must(states["rows"], "rows"), columns: must(states["columns"], "columns") };
        const places = topOuter({ ...sides, taken: current, limit }, layer.count);
        const numbers = iota(graph, [layer.count], 0);
        const arriving = select(lessEqual(0, places), numbers, -1);
        return { candidates: { places, arriving, slots: constant(graph, -1, [layer.count], "i32") }, limit, seeds: {} };
      }),
  };
}

/** The rule's update, and after it an exchange of entries. */
function exchanging(
  base: Optimizer,
  args: UpdateArguments,
  layer: GrowingLayer,
  options: (made: RuleResult, places: Node) => Omit<ExchangeOptions, "places">,
): UpdateResult {
  const places = movingLeaf(args.parameter.graph, layer.places);
  const moved: Node[] = [];
  const made = base.update({
    ...args,
    revise: (ruled) => {
      const exchanged = exchangeEntries(ruled, { places, ...options(ruled, places) });
      moved.push(exchanged.places);
      return exchanged;
    },
  });
  return { ...made, also: moved.map((value) => ({ target: places, value })) };
}
