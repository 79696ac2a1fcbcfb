import { must } from "../../errors.js";
import { add, cast, multiply, subtract } from "../../ops/arithmetic.js";
import { constant } from "../../ops/leaves.js";
import { Rounder } from "../../optim/rounding.js";
import type { Optimizer, ParameterType, RandomSource, StateSpec } from "../../optim/types.js";
import type { Projection } from "./projection.js";
import { newProjectors, project, projectBack, projectedShape, projectorShapes } from "./projection.js";

/** Streams of a tensor that the rule within may use for its states; the weight is rounded with the one after. */
const innerStreams = 2;

/**
 * The run's rule in the subspace of the projectors (Zhao et al. 2024, algorithm 2): it updates a zero tensor of R's
 * shape, and what that became, times `scale`, is projected back and added to the weight, which decays after that.
 * With `renew` the projectors are those of this gradient; moments are kept as they are.
 */
export function projected(rule: Optimizer, projection: Projection, scale: number, renew: boolean): Optimizer {
  const within = ({ shape }: ParameterType): ParameterType => ({
    shape: projectedShape(projection, shape),
    dtype: "f32",
  });
  const masterOf = (parameter: ParameterType): StateSpec | undefined =>
    rule.states(parameter).find(({ initial }) => initial === "parameter");
  return {
    id: `galore_${rule.id}`,
    weightDecay: rule.weightDecay,
    states: (parameter) => {
      const master = masterOf(parameter);
      const projectors = projectorShapes(projection, parameter.shape).map(([name, shape]): StateSpec => ({
        name,
        shape,
        dtype: parameter.dtype,
        initial: 0,
      }));
      return [...rule.states(within(parameter)), ...projectors, ...(master === undefined ? [] : [master])];
    },
    scalars: (step) => rule.scalars(step),
    withStates: (settings) => projected(rule.withStates(settings), projection, scale, renew),
    rounds: (parameter) =>
      rule.rounds(within(parameter)) || (rule.rounds(parameter) && masterOf(parameter) === undefined),
    update: (args) => {
      const { parameter, gradient, states, rate, random } = args;
      const { graph } = parameter;
      const type = { shape: parameter.shape, dtype: parameter.dtype };
      const projectors = renew
        ? Object.entries(newProjectors(projection, gradient)).map(
            ([name, value]) => [name, cast(value, type.dtype)] as const,
          )
        : projectorShapes(projection, type.shape).map(([name]) => [name, must(states[name], name)] as const);
      const used = Object.fromEntries(projectors);
      const inner = rule.update({
        ...args,
        parameter: constant(graph, 0, projectedShape(projection, type.shape)),
        gradient: project(projection, used, gradient),
        decay: false,
      });
      const master = masterOf(type);
      const before = master === undefined ? cast(parameter, "f32") : must(states[master.name], "master");
      const moved = add(before, multiply(projectBack(projection, used, inner.value), scale));
      const decays = args.decay && rule.weightDecay > 0;
      const after = decays ? multiply(moved, subtract(1, multiply(rate, rule.weightDecay))) : moved;
      const kept = { ...inner.states, ...used };
      if (master !== undefined) {
        return { value: cast(after, type.dtype), states: { ...kept, [master.name]: after } };
      }
      const nearest = !rule.rounds(type);
      return {
        value: new Rounder(nearest ? "nearest" : "stochastic", ownStream(random)).store(after, parameter),
        states: kept,
      };
    },
  };
}

function ownStream(random: RandomSource | undefined): RandomSource | undefined {
  if (random === undefined) return undefined;
  const { stream } = random;
  if (typeof stream === "number") return { ...random, stream: stream + innerStreams };
  return { ...random, stream: add(stream, constant(stream.graph, innerStreams, [], "u32")) };
}
