import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import type { LinearSpec } from "../../models/types.js";
import { reshape, slice } from "../../ops/layout.js";
import { sum } from "../../plan/sum.js";
import { drawWeighted } from "../initial.js";
import type { EventContext, ExampleBatch, MethodEvent, MethodProgram } from "../programs.js";
import type { Sampling } from "./config.js";

/** One score a layer, u: the larger, the LESS important is the layer (the sign of the reference's code). */
export const scoresName = "scores";

/** 1 / (1 + exp(-u)). */
export function sigmoid(value: number): number {
  return 1 / (1 + Math.exp(-value));
}

/** Losses of the rows with the adapters of each block times its entry of the input `scales`. */
export function probe(blocks: number): MethodProgram {
  return {
    name: "probe",
    build: ({ input, rowLosses }) => {
      const scales = input("scales", [blocks]);
      const scale = ({ block }: LinearSpec): Node | undefined =>
        block < blocks ? reshape(slice(scales, [block], [1]), []) : undefined;
      return { rows: { losses: rowLosses({ scale }) } };
    },
  };
}

/**
 * Moves the scores by what probes have shown: u_l += A_k q_l (1 - q_l) eta for each layer l that probe k dimmed, with
 * q = sigmoid(u) as it was before, and the advantage A_k of exp(-loss_k) over their mean. Returns the advantages.
 */
export function moveScores(
  scores: Float32Array,
  sets: readonly (readonly number[])[],
  losses: readonly number[],
  rate: number,
): number[] {
  const rewards = losses.map((loss) => Math.exp(-loss));
  const mean = sum(rewards, (reward) => reward) / rewards.length;
  const slopes = Array.from(scores, (score) => sigmoid(score) * (1 - sigmoid(score)));
  const advantages = rewards.map((reward) => reward - mean);
  sets.forEach((layers, probeNumber) => {
    for (const layer of layers) {
      scores[layer] = (scores[layer] ?? 0) + must(advantages[probeNumber], "advantage") * (slopes[layer] ?? 0) * rate;
    }
  });
  return advantages;
}

/** Draws of one set before any set is taken, so that scores at their limits cannot hold up a run. */
const attempts = 64;

/** A set of layers for each probe, all different, drawn by the layers' unimportance; each ascending. */
export function drawSets(
  { suppressed, probes }: Pick<Sampling, "suppressed" | "probes">,
  scores: Float32Array,
  uniform: EventContext["uniform"],
): number[][] {
  const sets: number[][] = [];
  const isNew = (layers: readonly number[]): boolean => sets.every((other) => other.join() !== layers.join());
  for (let attempt = 0; sets.length < probes; attempt++) {
    const weights = Array.from(scores, attempt < attempts * probes ? sigmoid : () => 1);
    const layers = drawWeighted(weights, uniform(`suppressed.${attempt}`, suppressed)).sort((a, b) => a - b);
    if (isNew(layers)) sets.push(layers);
  }
  return sets;
}

/** The look at the layers' importance every so many steps: forward passes in which some layers are dimmed. */
export function importanceEvent(sampling: Sampling, blocksOfModel: number): MethodEvent {
  const { blocks, update_importance_interval_steps: interval, response_suppression_factor: factor } = sampling;
  return {
    due: (step) => step > 0 && step % interval === 0,
    run: async (context) => {
      const scores = context.state(scoresName);
      const sets = drawSets(sampling, scores, context.uniform);
      const scales = sets.map((layers) => {
        const values = new Float32Array(blocksOfModel).fill(1);
        for (const layer of layers) values[must(blocks[layer], "block")] = factor;
        return values;
      });
      const losses = await probeLosses(context, scales, sampling);
      const advantages = moveScores(context.state(scoresName), sets, losses, sampling.rl_lr);
      context.log("loss", sum(losses, (loss) => loss) / losses.length);
      context.log("advantage", sum(advantages, Math.abs) / advantages.length);
    },
  };
}

/** The mean loss of a token with each vector of scales, on the same examples of a pass over the training data. */
async function probeLosses(
  { batch, run, step }: EventContext,
  scales: readonly Float32Array[],
  { importance_batch: wanted, update_importance_interval_steps: interval }: Sampling,
): Promise<number[]> {
  const sums = scales.map(() => 0);
  let [examples, weights] = [0, 0];
  // So many micro-batches at most: each look starts where no other comes to.
  const first = (step / interval) * wanted;
  for (let number = 0; examples < wanted; number++) {
    const micro: ExampleBatch = batch(first + number);
    let rows = 1;
    for (const [place, values] of scales.entries()) {
      const { losses } = await run("probe", micro, { scales: values });
      sums[place] = must(sums[place], "loss") + sum(must(losses, "losses"), (loss) => loss);
      rows = must(losses, "losses").length;
    }
    examples += rows;
    weights += sum(micro.weights, (weight) => weight);
  }
  return sums.map((total) => total / weights);
}
