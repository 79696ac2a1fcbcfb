import { must, ThimbleError } from "../../errors.js";
import { sum } from "../../plan/sum.js";
import { medoidsByClass } from "../coreset/by-class.js";
import type { RowDescription } from "../coreset/describe.js";
import { describeRows } from "../coreset/describe.js";
import { advanceMoments } from "../coreset/gradients.js";
import type { ChoiceContext, ChosenExamples, SourceTable } from "../examples.js";
import type { ColmConfig } from "./config.js";

/** Coordinates that are compared if the settings do not say: the paper's. */
const usualDimension = 2560;

/** Numbers of the sources of which every row is kept. Throws `colm-keep` where one is not in the data. */
export function keptSources({ keep_sources: kept }: ColmConfig, { names, counts }: SourceTable): Set<number> {
  if (kept === "auto") {
    const mean = sum(counts, (count) => count) / counts.length;
    return new Set(counts.flatMap((count, source) => (count < mean ? [source] : [])));
  }
  const found = kept.map((source) => (typeof source === "number" ? source : names.indexOf(source)));
  const unknown = found.findIndex((source) => source < 0 || source >= names.length);
  if (unknown < 0) return new Set(found);
  throw new ThimbleError("colm-keep", "A source that is to be kept is not in the data", {
    where: "colm.keep_sources",
    given: String(kept[unknown]),
    expected: names.map((name, source) => `${source} (${name})`).join(", "),
  });
}

/** The refusal of a choice source by source where the data has one alone. */
export function noSources(given: string): ThimbleError {
  return new ThimbleError("colm-sources", "CoLM is to choose source by source, and the data does not name several", {
    where: "colm.source_wise_selection",
    given,
    expected: 'a file for each source, or records that say theirs: {"source": "maths", "prompt": ..., ...}',
    fix: "Give several files, as --data maths.jsonl --data code.jsonl, or set colm.source_wise_selection to none.",
  });
}

/** Chooses the rows of a step: all of the small sources, and medoids of the others, source by source. */
export async function chooseRows(
  context: ChoiceContext,
  config: ColmConfig,
  description: RowDescription,
): Promise<ChosenExamples> {
  const { draw, count } = context;
  const { sources, table = { names: [], counts: [] } } = draw;
  const division = config.source_wise_selection ?? (sources === undefined ? "none" : "proportional");
  if (division !== "none" && sources === undefined) throw noSources(division);
  const all = Array.from({ length: draw.rows }, (_, row) => row);
  if (count >= draw.rows) return { rows: all };
  const small = keptSources(config, table);
  const isKept = (row: number): boolean => small.has(sources?.[row] ?? -1);
  const kept = all.filter(isKept).slice(0, count);
  context.log("kept", kept.length);
  if (kept.length === count) return finished(config, kept, []);
  const others = all.filter((row) => !isKept(row));
  const { rows, gradients, features, moments } = await describeRows(context, description, others);
  context.log("dropped", others.length - rows.length);
  // With nothing to tell rows apart by, such as losses that all stay the same, the step is an ordinary one.
  if (rows.length + kept.length === 0) return finished(config, all.slice(0, count), []);
  const medoids = medoidsByClass(features, (place) => (division === "none" ? 0 : (sources?.[rows[place] ?? 0] ?? 0)), {
    budget: count - kept.length,
    division: division === "balanced" ? "balanced" : "proportional",
    coordinates: description.unit === "rep" ? features.size : (config.zo_dim ?? usualDimension),
    ranking: config.mezo_topk,
    metric: config.facility_similarity,
    uniform: (name, length) => context.uniform(name, length),
  });
  if (moments !== undefined) {
    const chosen = medoids.map(({ place }) => place);
    advanceMoments(gradients, chosen, moments);
  }
  const picked = medoids.map(({ place, weight }) => ({ row: must(rows[place], "row"), weight }));
  return finished(config, kept, picked);
}

function finished(
  { weighted, small_batch_ratio: ratio }: ColmConfig,
  kept: readonly number[],
  picked: readonly { readonly row: number; readonly weight: number }[],
): ChosenExamples {
  const rows = [...kept, ...picked.map(({ row }) => row)];
  const weights = [...kept.map(() => 1), ...picked.map(({ weight }) => weight)];
  return weighted ? { rows, factors: weights.map((weight) => weight * ratio) } : { rows };
}
