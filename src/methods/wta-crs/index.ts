import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { weightOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import { savedRows } from "../../ops/saved.js";
import { defineMethod } from "../define.js";
import { matchTargets, targetSettings } from "../targets.js";
import type { ResolvedMethod } from "../types.js";
import { sampleRows } from "./sample.js";

const config = z.strictObject({
  sampling_ratio: z.number().positive().max(1).default(0.3).describe("Part of a layer's input rows kept for backward"),
  minimal_k: z.int().min(1).default(10).describe("Rows that are kept at least"),
  deter_adaptive: z
    .boolean()
    .default(true)
    .describe("Take as many rows for certain as gives the least variance; otherwise deter_ratio of those kept"),
  deter_ratio: z.number().min(0).lt(1).default(0.5).describe("Part of the kept rows that is taken for certain"),
  uniform_share: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .describe("Part of the probability that all rows share alike, so that none has a huge scale"),
  gradient_cache: z.boolean().default(false).describe("Weigh rows by the gradient norms of their last visit as well"),
  ...targetSettings,
});

export type WtaConfig = z.infer<typeof config>;

/** WTA-CRS: the gradient of a weight from a sample of the rows of its layer's input. */
export const wtaCrs = defineMethod({
  id: "wta-crs",
  title: "WTA-CRS: winner-take-all column row sampling",
  paper: "2305.15265",
  year: 2023,
  summary: "Keeps a sample of each layer's input rows for backward: unbiased weight gradients from fewer saved values.",
  reduces: ["activations"],
  fills: ["saved"],
  companions: ["lora"],
  config,
  resolve: (settings, model): ResolvedMethod => {
    if (settings.gradient_cache) throw cacheError();
    const named = settings.target_modules !== "all-linear";
    // Backward of attention reads its output anyway: a sample of it would only be kept beside it.
    const targets = matchTargets("wta-crs", model, settings).filter(({ role }) => named || role !== "output");
    const paths = new Set(targets.map(({ path }) => path));
    return {
      id: "wta-crs",
      config: settings,
      claims: [
        {
          resource: "saved-values",
          exclusive: true,
          tensors: targets.map((spec) => weightOf(spec).name),
          reason: "keeps a sample of the rows of the layers' inputs",
        },
      ],
      slots: {
        saved: (context, { path }, x) => {
          const rows = x.shape[0] ?? 0;
          const count = keptRows(settings, rows);
          if (!paths.has(path) || count === rows) return x;
          // Layers that share an input share its sample: bits go by the input.
          const sample = sampleRows(x, context.uniform([count], `rows.${x.id}`), {
            count,
            uniformShare: settings.uniform_share,
            winners: settings.deter_adaptive ? undefined : Math.floor(settings.deter_ratio * count),
          });
          return savedRows(x, sample.rows, sample.ids);
        },
      },
      check: (methods) => {
        checkTrained(methods, targets, named);
      },
      adapters: [],
    };
  },
});

/** Rows kept of `rows`: min(max(floor(rho N), k_min), N). */
export function keptRows({ sampling_ratio, minimal_k }: WtaConfig, rows: number): number {
  return Math.min(Math.max(Math.floor(sampling_ratio * rows), minimal_k), rows);
}

/** Layers that were named must train by gradients of their input; of "all-linear" it is enough that some do. */
function checkTrained(methods: readonly ResolvedMethod[], targets: readonly LinearSpec[], named: boolean): void {
  const maker = methods.find(({ slots }) => slots.estimate !== undefined);
  if (maker !== undefined) {
    throw new ThimbleError("methods-conflict", `wta-crs and ${maker.id} do not go together`, {
      where: "methods",
      given: `${maker.id} makes gradients without a backward pass, for which wta-crs would keep rows`,
      fix: `Remove wta-crs or ${maker.id}.`,
    });
  }
  const trains = (spec: LinearSpec): boolean =>
    methods.some(
      ({ slots, adapters }) =>
        slots.select?.(weightOf(spec)) === true || adapters.some(({ name }) => name.startsWith(`${spec.path}.`)),
    );
  const frozen = targets.filter((spec) => !trains(spec));
  const [first] = frozen;
  if (first === undefined || (!named && frozen.length < targets.length)) return;
  throw new ThimbleError(
    "wta-crs-frozen",
    "Rows are kept for the gradient of a weight, and nothing trains in a layer",
    {
      where: "wta-crs.target_modules",
      given: first.path,
      fix: "Name layers that train, or leave target_modules out.",
    },
  );
}

function cacheError(): ThimbleError {
  return new ThimbleError("wta-crs-cache", "Gradient norms of earlier visits need examples with stable identities", {
    where: "wta-crs.gradient_cache",
    given: "true, but batches carry no identities of examples",
    expected: "false: rows are weighed by their own norms, which is as unbiased",
    fix: "Leave gradient_cache out.",
  });
}
