import type { ReversibleLayer, Streams } from "../../autodiff/reversible.js";
import { coupledStreams, reversible } from "../../autodiff/reversible.js";
import { ThimbleError } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import type { Block, ModelDefinition, Tower } from "../../models/types.js";
import { add, cast, multiply } from "../../ops/arithmetic.js";
import { bottleneck } from "../bottleneck.js";
import { defineMethod } from "../define.js";
import type { AdaptContext, Claim, ResolvedMethod } from "../types.js";
import { adapterOf, adapterTensors, placesOf } from "./adapters.js";
import type { Meft } from "./config.js";
import { meftConfig, settledMeft } from "./config.js";
import { segmentLengths } from "./segments.js";

/** MEFT: the model as a reversible network of two streams, whose inputs backward makes again from its outputs. */
export const meft = defineMethod({
  id: "meft",
  title: "MEFT: reversible fine-tuning",
  paper: "2306.00477",
  year: 2023,
  summary: "Chains the layers as two reversible streams with adapters, so that backward makes their inputs again.",
  reduces: ["gradients", "states", "activations"],
  fills: ["stack", "part"],
  config: meftConfig,
  resolve: (config, model): ResolvedMethod => {
    const settled = settledMeft(config, model);
    const places = new Set(placesOf(settled));
    const adapters = adapterTensors(settled, model);
    return {
      id: "meft",
      config,
      claims: claims(settled, model),
      slots: {
        stack: (context, tower, x) => chain(context, settled, tower, x),
        part: (context, part, block, x, next) => {
          if (!places.has(part)) return next(x);
          const own = next(x);
          const adapter = adapterOf(settled, model, block, part);
          // Attention's adapter stands behind it, the MLP's beside it.
          return add(own, bottleneck(context, adapter, part === "attention" ? own : x, x.dtype));
        },
      },
      check: refuseOthers,
      ...(adapters.length === 0 ? {} : { learningRate: 5e-4 }),
      saves: "adapter",
      adapters,
    };
  },
});

function claims({ layers }: Meft, model: ModelDefinition): Claim[] {
  const lowest = model.parameters.filter(({ block }) => block !== undefined && block < layers).map(({ name }) => name);
  const stack: Claim = { resource: "stack", exclusive: true, reason: "chains them as two reversible streams" };
  if (layers === 0) return [stack];
  const reason = "keeps none of the reversible layers' and makes them again";
  return [stack, { resource: "saved-values", exclusive: true, tensors: lowest, reason }];
}

/** [tokens, d] as stored -> what the head reads: both streams start as the embedding's rows, and their mean is the end. */
function chain(context: AdaptContext, meft: Meft, tower: Tower, x: Node): Node {
  const layers = tower.blocks.map((block) => layerOf(context, meft, block, x));
  const start = cast(x, "f32");
  let streams: Streams = [start, start];
  let first = 0;
  for (const length of segmentLengths(meft, x.dtype)) {
    const options = meft.mode === "exact" ? { fraction: meft.fraction } : {};
    streams = reversible(layers.slice(first, first + length), streams, options);
    first += length;
  }
  for (const layer of layers.slice(first)) streams = coupledStreams(layer, streams);
  return tower.norm(cast(multiply(add(...streams), 0.5), x.dtype));
}

function layerOf(context: AdaptContext, meft: Meft, block: Block, { dtype: type }: Node): ReversibleLayer {
  const { graph } = context;
  // Streams are f32; the model reads and gives its own type.
  const within = (part: (x: Node) => Node) => (stream: Node) => cast(part(cast(stream, type)), "f32");
  const whole = within((x) => block.mlp(block.attention(x)));
  const own = adapterOf(meft, context.model, block.index, "reverse");
  const adapter = (stream: Node): Node =>
    graph.inScope(`blocks.${block.index}`, () =>
      graph.inScope("reverse", () => bottleneck(context, own, stream, type)),
    );
  const { factors } = meft;
  switch (meft.variant) {
    case "layer":
      return { first: whole, second: adapter, factors, swap: true };
    case "adapter":
      return { first: adapter, second: whole, factors, swap: true };
    case "attn":
      return { first: within((x) => block.attention(x)), second: within((x) => block.mlp(x)), factors, swap: false };
  }
}

/** Base weights are not saved with an adapter, and layers that are skipped have no inverse. */
function refuseOthers(methods: readonly ResolvedMethod[]): void {
  const wrong = methods.find(({ slots }) => slots.select !== undefined || slots.turns !== undefined);
  if (wrong === undefined) return;
  throw new ThimbleError("methods-conflict", `meft and ${wrong.id} do not go together`, {
    where: "methods",
    given:
      wrong.slots.turns === undefined
        ? `${wrong.id} trains weights of the model, which meft leaves as they are`
        : `${wrong.id} lets layers take turns, and meft makes all of them again`,
    fix: `Remove meft or ${wrong.id}.`,
  });
}
