import type { ModelDefinition } from "../../models/types.js";
import type { Bottleneck } from "../bottleneck.js";
import { bottleneckTensors } from "../bottleneck.js";
import type { AdapterTensor } from "../types.js";
import type { Meft } from "./config.js";

/** `reverse` is the function that is no part of the model; the others stand in its layers. */
export type AdapterPlace = "reverse" | "mlp" | "attention";

/** Which adapters a layer has. */
export function placesOf({ variant, inner }: Meft): AdapterPlace[] {
  if (variant === "attn") return inner ? ["attention", "mlp"] : [];
  return inner ? ["reverse", "mlp"] : ["reverse"];
}

export function adapterOf(meft: Meft, { width }: ModelDefinition, block: number, place: AdapterPlace): Bottleneck {
  const { normalise, activation, dropout } = meft;
  const name = `meft.${block}.${place}`;
  return { name, block, outer: width, inner: meft.width, normalise, activation, dropout };
}

/** Every tensor that trains, layer by layer. */
export function adapterTensors(meft: Meft, model: ModelDefinition): AdapterTensor[] {
  const blocks = Array.from({ length: model.blocks }, (_, block) => block);
  return blocks.flatMap((block) =>
    placesOf(meft).flatMap((place) => bottleneckTensors(adapterOf(meft, model, block, place))),
  );
}
