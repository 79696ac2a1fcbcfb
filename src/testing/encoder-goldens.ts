/** Tiny encoders with a head and what transformers computes from them (made by scripts/fixtures/encoders.py). */
import { fileURLToPath } from "node:url";
import { must } from "../errors.js";
import { gradients } from "../autodiff/gradients.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { openModel } from "../io/model.js";
import { openSafetensors } from "../io/safetensors.js";
import { plainContext } from "../models/context.js";
import { modelLoss } from "../models/loss.js";
import type { ModelDefinition } from "../models/types.js";
import { leaf } from "../ops/leaves.js";
import type { SessionBatch } from "../session/types.js";
import type { GoldenGraph, GoldenValues } from "./goldens.js";

export const encoderFixtures = ["bert", "bert-regression", "roberta", "roberta-regression"] as const;
export type EncoderFixture = (typeof encoderFixtures)[number];

export interface EncoderGolden extends GoldenValues {
  readonly definition: ModelDefinition;
  readonly batch: number;
  readonly length: number;
  /** The inputs of a step, by the names of their leaves. */
  readonly inputs: ReadonlyMap<"ids" | "positions" | "types" | "segments" | "labels" | "targets" | "weights", Tensor>;
  /** f32, by name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** f32 [B, labels]. */
  readonly logits: Tensor;
}

/** The folder of an encoder's fixture: config.json, model.safetensors, expected.safetensors. */
export function encoderFolder(fixture: EncoderFixture): string {
  return fileURLToPath(new URL(`../models/fixtures/${fixture}`, import.meta.url));
}

export async function loadEncoderGolden(fixture: EncoderFixture): Promise<EncoderGolden> {
  const folder = encoderFolder(fixture);
  const { definition, weights } = await openModel(folder);
  const expected = await openSafetensors(`${folder}/expected.safetensors`);
  const read = async (name: string): Promise<Tensor> => {
    const { type, shape } = expected.info(name);
    const dtype = type === "i32" ? "i32" : "f32";
    return { shape, dtype, data: await expected.readAs(name, dtype) };
  };
  const values = { gradients: new Map<string, Tensor>(), trained: new Map<string, Tensor>() };
  const parameters = new Map<string, Tensor>();
  for (const { name, shape } of definition.parameters) {
    const data = new Float32Array(must(weights.tensor(name).bytes, "bytes") / 4);
    await weights.readInto(name, new Uint8Array(data.buffer), "f32");
    parameters.set(name, { shape, dtype: "f32", data });
    values.gradients.set(name, await read(`gradient.${name}`));
    values.trained.set(name, await read(`trained.${name}`));
  }
  const labels = await read("labels");
  const [batch = 0] = labels.shape;
  const ids = await read("ids");
  const inputs: EncoderGolden["inputs"] = new Map([
    ["ids", ids],
    ["positions", await read("positions")],
    ["types", await read("types")],
    ["segments", await read("segments")],
    ["weights", tensor([batch], Array<number>(batch).fill(1 / batch))],
    [labels.dtype === "i32" ? "labels" : "targets", labels],
    ...(labels.dtype === "i32" ? [] : ([["labels", tensor([batch], [], "i32")]] as const)),
  ]);
  const [logits, losses] = [await read("logits"), Array.from((await read("losses")).data)];
  await Promise.all([weights.close(), expected.close()]);
  return { definition, batch, length: ids.data.length / batch, inputs, parameters, logits, losses, ...values };
}

/** The whole step of a golden as a graph, with the values of its leaves. */
export function encoderGraph(golden: EncoderGolden, activation: "f32" | "bf16" = "f32"): GoldenGraph {
  const { definition, batch, length } = golden;
  const graph = new Graph();
  const bindings = new Map<Node, Tensor>();
  const input = (name: Parameters<EncoderGolden["inputs"]["get"]>[0]): Node | undefined => {
    const value = golden.inputs.get(name);
    if (value === undefined) return undefined;
    const node = leaf(graph, { name, role: "input", shape: value.shape, dtype: value.dtype });
    bindings.set(node, value);
    return node;
  };
  const segments = must(input("segments"), "segments");
  const types = definition.tokenTypes === 2 ? input("types") : undefined;
  const context = plainContext({ graph, batch, length, activation, segments });
  const tokens = { ids: must(input("ids"), "ids"), positions: must(input("positions"), "positions"), types };
  const result = definition.forward(context, tokens);
  const targets = { labels: must(input("labels"), "labels"), weights: must(input("weights"), "weights") };
  const loss = modelLoss(definition, result, { ...targets, targets: input("targets") });
  // A regression reads no classes.
  if (golden.inputs.has("targets")) bindings.delete(targets.labels);
  const names = definition.parameters.map(({ name }) => name);
  const leaves = names.map((name) => must(context.leaves.get(name), name));
  const made = gradients(loss, leaves);
  leaves.forEach((node, index) => {
    const { shape, data } = must(golden.parameters.get(must(names[index], "name")), "value");
    bindings.set(node, tensor(shape, data, activation));
  });
  const byName = (nodes: readonly Node[]): Map<string, Node> =>
    new Map(names.map((name, index) => [name, must(nodes[index], name)]));
  const logits = must(result.logits, "logits");
  return { graph, logits, loss, parameters: byName(leaves), gradients: byName(made), bindings };
}

/** The golden's batch as a session takes it. */
export function encoderBatch({ inputs }: EncoderGolden): SessionBatch {
  const integers = (name: Parameters<typeof inputs.get>[0]): Int32Array =>
    Int32Array.from(must(inputs.get(name), name).data);
  const targets = inputs.get("targets");
  return {
    ids: integers("ids"),
    positions: integers("positions"),
    types: integers("types"),
    segments: integers("segments"),
    labels: integers("labels"),
    weights: Float32Array.from(must(inputs.get("weights"), "weights").data).fill(1),
    ...(targets === undefined ? {} : { targets: Float32Array.from(targets.data) }),
  };
}
