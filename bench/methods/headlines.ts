/**
 * The headline of each paper in a scaled form that a plan can show, on SmolLM2-135M's shapes (1 x 256 tokens, f32):
 * `npx tsx bench/methods/headlines.ts`. Results go into bench/results/headlines.json.
 */
import { fileURLToPath } from "node:url";
import { must } from "../../src/errors.js";
import { writeJsonAtomically } from "../../src/io/atomic.js";
import { elements } from "../../src/ir/shape.js";
import { exampleConfig, exampleModel } from "../../src/methods/share.js";
import type { ModelDefinition } from "../../src/models/types.js";
import { fromHuggingFaceConfig } from "../../src/models/registry.js";
import type { SessionPlan } from "../../src/session/plan.js";
import { describeMachine } from "../machine.js";
import type { Shape } from "./plans.js";
import { bytesOfRole, mostAlive, planOf } from "./plans.js";

interface Headline {
  readonly method: string;
  /** What the paper says, in the form that is measured here. */
  readonly claim: string;
  /** All numbers are bytes, or ratios of bytes where the name says so. */
  readonly measured: Readonly<Record<string, number>>;
  readonly holds: boolean;
}

const model = exampleModel();
const method = (id: string, settings: Readonly<Record<string, unknown>> = {}) => ({ id, settings });
const plan = (id: string, settings: Readonly<Record<string, unknown>> = {}, shape: Shape = {}): SessionPlan =>
  planOf([method(id, settings)], shape);
const sizeOfAll = (keep: (parameter: ModelDefinition["parameters"][number]) => boolean): number =>
  model.parameters.filter(keep).reduce((sum, { shape }) => sum + elements(shape), 0);

/** A Llama of SmolLM2's widths with so many blocks. */
function deep(blocks: number): ModelDefinition {
  return fromHuggingFaceConfig({ ...exampleConfig, num_hidden_layers: blocks });
}

/** Memory of the forward pass alone, with the loss. */
const inference = planOf([method("full")], { session: { train: false, evaluate: true } }).report.planBytes;
const sgd = { optimizer: { id: "sgd" } };

function mezo(): Headline {
  const own = plan("mezo", {}, sgd).report.planBytes;
  const ratio = own / inference;
  return {
    method: "mezo",
    claim: "peak within 5 % of inference",
    measured: { plan: own, inference, ratio },
    holds: ratio < 1.05,
  };
}

function zo2(): Headline {
  const peak = (blocks: number): number => plan("zo2", {}, { ...sgd, model: deep(blocks) }).report.planBytes;
  const [few, many] = [peak(6), peak(30)];
  const threeBlocks = planOf([method("full")], {
    model: deep(3),
    session: { train: false, evaluate: true },
  }).report.planBytes;
  return {
    method: "zo2",
    claim: "peak within 5 % of inference with three blocks, and the same at any depth",
    measured: { plan6: few, plan30: many, inference3: threeBlocks, ratio: many / threeBlocks },
    holds: many / threeBlocks < 1.05 && many < 1.02 * few,
  };
}

function galore(): Headline {
  const rank = 128;
  const states = bytesOfRole(plan("galore", { rank }), "state");
  // Of each projected matrix [m, n], m <= n: two moments [r, n] and the projector [m, r]; two moments of all others.
  const expected = model.parameters.reduce((sum, { shape, linear, kind }) => {
    const [rows = 1, columns = 1] = shape;
    const [short, long] = [Math.min(rows, columns), Math.max(rows, columns)];
    const projected = linear !== undefined && kind === "weight" && short > rank;
    return sum + 4 * (projected ? 2 * rank * long + rank * short : 2 * elements(shape));
  }, 0);
  const adamw = bytesOfRole(plan("full"), "state");
  return {
    method: "galore",
    claim: "optimizer states by the paper's formula (rank 128)",
    measured: { states, formula: expected, adamw, ratio: states / adamw },
    holds: Math.abs(states / expected - 1) < 0.02,
  };
}

function lisa(): Headline {
  const own = plan("lisa");
  const [states, gradients] = [bytesOfRole(own, "state"), mostAlive(own, "gradients")];
  const block = sizeOfAll((parameter) => parameter.block === 0);
  const trained = sizeOfAll(({ block: at }) => at === undefined) + 2 * block;
  return {
    method: "lisa",
    claim: "states and gradients of embeddings, head and the two active blocks at most",
    measured: { states, gradients, trained: 4 * trained },
    holds: states <= 8 * trained * 1.001 && gradients <= 4 * trained,
  };
}

function paca(): Headline {
  const all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const [own, lora] = [plan("paca", { r: 16, target_modules: all }), plan("lora", { r: 16, target_modules: all })];
  const [saved, loraSaved] = [mostAlive(own, "saved"), mostAlive(lora, "saved")];
  return {
    method: "paca",
    claim: "less kept for backward than LoRA of the same rank",
    measured: { saved, lora: loraSaved, ratio: saved / loraSaved },
    holds: saved < loraSaved,
  };
}

function lst(): Headline {
  const saved = (blocks: number): number => mostAlive(plan("lst", { r: 8 }, { model: deep(blocks) }), "saved");
  const lora = mostAlive(plan("lora", {}, { model: deep(12) }), "saved");
  const own = saved(12);
  // The ladders read one [tokens, d] of each block; all else is of the side network, an eighth as wide.
  const ladders = 13 * 256 * 576 * 4;
  return {
    method: "lst",
    claim: "nothing of the backbone is kept but what the ladders read",
    measured: { saved: own, ladders, lora, ratio: own / lora },
    holds: own < 0.32 * lora,
  };
}

function meft(): Headline {
  const saved = (blocks: number, mode: string): number =>
    mostAlive(plan("meft", { mode }, { model: deep(blocks) }), "saved");
  const checkpoints = (blocks: number): number =>
    mostAlive(plan("lora", {}, { model: deep(blocks), session: { saved: "block" } }), "saved");
  const faithful = [saved(4, "faithful"), saved(12, "faithful")] as const;
  const segmented = [saved(4, "segmented"), saved(12, "segmented")] as const;
  const blocks = [checkpoints(4), checkpoints(12)] as const;
  const each = ([few, many]: readonly [number, number]): number => (many - few) / 8;
  return {
    method: "meft",
    claim: "faithful: kept bytes do not grow with depth; segmented: by less than checkpoints do",
    measured: { faithfulEach: each(faithful), segmentedEach: each(segmented), checkpointEach: each(blocks) },
    holds: each(faithful) < 0.05 * 256 * 576 * 4,
  };
}

function coat(): Headline {
  const [own, adamw] = [plan("coat"), plan("full")];
  const trained = sizeOfAll(() => true);
  const states = bytesOfRole(own, "state");
  return {
    method: "coat",
    claim: "2.1875 bytes of optimizer states a weight; fewer bytes kept for backward",
    measured: {
      states,
      each: states / trained,
      saved: mostAlive(own, "saved"),
      full: mostAlive(adamw, "saved"),
    },
    holds: Math.abs(states / trained - 2.1875) < 0.01 && mostAlive(own, "saved") < mostAlive(adamw, "saved"),
  };
}

function spiel(): Headline {
  const own = plan("spiel", { density: 0.01 });
  const count = must(own.training, "training").trainables.reduce((sum, { node }) => sum + elements(node.shape), 0);
  const states = bytesOfRole(own, "state");
  return {
    method: "spiel",
    claim: "per trained value 12 bytes of Adam's states and 16 of the open window beside value, index and gradient",
    measured: { values: count, states, each: states / count },
    holds: states / count <= 32.01,
  };
}

function wtaCrs(): Headline {
  const own = mostAlive(planOf([method("lora"), method("wta-crs")]), "saved");
  const lora = mostAlive(plan("lora"), "saved");
  return {
    method: "wta-crs",
    claim: "less kept for backward under LoRA",
    measured: { saved: own, lora, ratio: own / lora },
    holds: own < lora,
  };
}

const all = [mezo, zo2, galore, lisa, paca, lst, meft, coat, spiel, wtaCrs];
const headlines: Headline[] = [];
for (const one of all) {
  const headline = one();
  headlines.push(headline);
  const numbers = Object.entries(headline.measured).map(([name, value]) => `${name} ${value}`);
  process.stdout.write(
    `${headline.holds ? "holds" : "FAILS"}  ${headline.method}: ${headline.claim}\n       ${numbers.join(", ")}\n`,
  );
}
const path = fileURLToPath(new URL("../results/headlines.json", import.meta.url));
await writeJsonAtomically(path, { machine: describeMachine(), headlines });
