import { cast, multiply, add } from "../../ops/arithmetic.js";
import { gatherColumns } from "../../ops/columns.js";
import { dot } from "../../ops/dot.js";
import { weightOf } from "../../models/parameters.js";
import { defineMethod } from "../define.js";
import { matchTargets } from "../targets.js";
import { chooseColumns, mergeColumns, selectorForm } from "./columns.js";
import { pacaConfig, targetOf } from "./config.js";

/** PaCA: some randomly chosen columns of each frozen weight train, as a gathered overlay. */
export const paca = defineMethod({
  id: "paca",
  title: "PaCA: partial connection adaptation",
  paper: "2503.01905",
  year: 2025,
  summary: "Trains randomly chosen input columns of each linear layer; of its input only these are kept for backward.",
  reduces: ["gradients", "states", "activations"],
  fills: ["prepare", "linear", "export"],
  config: pacaConfig,
  resolve: (settings, model) => {
    const targets = matchTargets("paca", model, settings).map((spec) => targetOf(settings, spec));
    const byPath = new Map(targets.map((target) => [target.spec.path, target]));
    const tensors = targets.map(({ spec }) => weightOf(spec).name);
    return {
      id: "paca",
      config: settings,
      claims: [
        {
          resource: "base-weights",
          exclusive: true,
          tensors,
          reason: "trains a change of weights that stay as they are",
        },
        { resource: "weight-delta", exclusive: false, tensors, reason: "adds to some of its columns" },
      ],
      slots: {
        prepare: (context) => {
          for (const target of targets) {
            const columns = chooseColumns(settings.seed, target);
            const places = new Float32Array(target.spec.inputs).fill(settings.r);
            columns.forEach((column, place) => (places[column] = place));
            context.set(target.columns.name, Float32Array.from(columns));
            context.set(target.places.name, places);
          }
          return Promise.resolve();
        },
        linear: (context, spec, x, next) => {
          const target = byPath.get(spec.path);
          if (target === undefined) return next(x);
          const taken = gatherColumns(x, context.fixed(target.columns), context.fixed(target.places));
          const scaled = cast(multiply(cast(taken, "f32"), target.scale), x.dtype);
          return add(
            next(x),
            dot(context.operand(spec, scaled), cast(context.scaled(spec, context.trainable(target.delta)), x.dtype), {
              transposeB: true,
            }),
          );
        },
      },
      learningRate: 1e-4,
      saves: "adapter",
      scales: true,
      adapters: targets.map(({ delta }) => delta),
      peft: (values) => Promise.resolve(selectorForm(settings, model, targets, values)),
      merge: (spec, weight, values) => {
        const target = byPath.get(spec.path);
        return target === undefined ? undefined : mergeColumns(settings, target, weight, values);
      },
    };
  },
});
