import { z } from "zod";
import { ThimbleError } from "../errors.js";
import type { LinearSpec, ModelDefinition } from "../models/types.js";
import { nearestName } from "./nearest.js";
import { fullMatch } from "./pattern.js";

/** The settings by which methods pick linear layers: PEFT's names and rules. */
export const targetSettings = {
  target_modules: z
    .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
    .default("all-linear")
    .describe(
      'Linear layers to adapt: names such as ["q_proj", "v_proj"], a regular expression on whole module paths, ' +
        'or "all-linear" for all of the blocks',
    ),
  exclude_modules: z
    .union([z.string().min(1), z.array(z.string().min(1))])
    .optional()
    .describe("Layers to leave out, by the same rules; wins over target_modules"),
  layers_to_transform: z
    .union([z.int().min(0), z.array(z.int().min(0)).min(1)])
    .optional()
    .describe("Numbers of the blocks to adapt, from 0; not with a regular expression"),
};

export interface TargetSelection {
  readonly target_modules: string | readonly string[];
  readonly exclude_modules?: string | readonly string[] | undefined;
  readonly layers_to_transform?: number | readonly number[] | undefined;
}

/**
 * The linear layers that a selection means, in the model's order (PEFT's rules, tuners_utils.py). A name matches a
 * path that equals it or ends with it after a dot. `owner` is where errors say the setting stands.
 */
export function matchTargets(owner: string, model: ModelDefinition, selection: TargetSelection): LinearSpec[] {
  const { target_modules: targets, exclude_modules: excluded } = selection;
  const wanted = moduleMatcher(targets, `${owner}.target_modules`);
  const unwanted = excluded === undefined ? () => false : moduleMatcher(excluded, `${owner}.exclude_modules`);
  const inLayers = layerFilter(owner, model, selection);
  if (typeof targets !== "string") checkNames(owner, model, targets);
  const matched = model.linears.filter((spec) => wanted(spec) && !unwanted(spec) && inLayers(spec));
  const head = matched.find((spec) => spec.role === "head");
  if (head !== undefined) {
    throw new ThimbleError("targets-head", "The output layer cannot be adapted: its product is part of the loss", {
      given: head.path,
      where: `${owner}.target_modules`,
      fix: `Add "${lastPart(head.path)}" to exclude_modules.`,
    });
  }
  if (matched.length === 0) throw noneMatched(owner, model, targets);
  return matched;
}

/** PEFT's meaning of one list of names, one regular expression, or "all-linear". `where` is for errors. */
export function moduleMatcher(names: string | readonly string[], where: string): (spec: LinearSpec) => boolean {
  if (typeof names !== "string") {
    return ({ path }) => names.some((name) => path === name || path.endsWith(`.${name}`));
  }
  if (names.toLowerCase() === "all-linear") return ({ role }) => role !== "head";
  const matches = fullMatch(names, where);
  return ({ path }) => matches(path);
}

function layerFilter(owner: string, model: ModelDefinition, selection: TargetSelection): (spec: LinearSpec) => boolean {
  const { target_modules: targets, layers_to_transform: layers } = selection;
  if (layers === undefined) return () => true;
  const where = `${owner}.layers_to_transform`;
  if (typeof targets === "string" && targets.toLowerCase() !== "all-linear") {
    throw new ThimbleError("targets-layers", "layers_to_transform does not go with a regular expression", {
      given: targets,
      where,
      fix: "Write the layers into the regular expression, or give target_modules as a list.",
    });
  }
  const listed = typeof layers === "number" ? [layers] : layers;
  const outside = listed.find((layer) => layer >= model.blocks);
  if (outside !== undefined) {
    throw new ThimbleError("targets-layers", `The model has no block ${outside}`, {
      where,
      expected: `0 to ${model.blocks - 1}`,
    });
  }
  const wanted = new Set(listed);
  return ({ block }) => wanted.has(block);
}

/** Every name of a list must mean something: one misspelt among others would silently train less. */
function checkNames(owner: string, model: ModelDefinition, names: readonly string[]): void {
  const lost = names.find((name) => !model.linears.some(({ path }) => path === name || path.endsWith(`.${name}`)));
  if (lost !== undefined) throw noneMatched(owner, model, [lost]);
}

function noneMatched(owner: string, model: ModelDefinition, targets: string | readonly string[]): ThimbleError {
  const names = [...new Set(model.linears.filter(({ role }) => role !== "head").map(({ path }) => lastPart(path)))];
  const nearest = typeof targets === "string" ? undefined : nearestName(targets[0] ?? "", names);
  return new ThimbleError("targets-none", "No linear layer of the model matches", {
    given: JSON.stringify(targets),
    where: `${owner}.target_modules`,
    expected: `${names.join(", ")}, or "all-linear"`,
    ...(nearest === undefined ? {} : { fix: `Did you mean "${nearest}"?` }),
  });
}

export function lastPart(path: string): string {
  return path.slice(path.lastIndexOf(".") + 1);
}

/**
 * The shortest list of names that selects exactly `targets`: last parts of paths where these match no other layer,
 * whole paths otherwise.
 */
export function targetNames(model: ModelDefinition, targets: readonly LinearSpec[]): string[] {
  const paths = new Set(targets.map(({ path }) => path));
  const names = [...new Set(targets.map(({ path }) => lastPart(path)))].sort();
  const exact = model.linears.every(({ path }) => paths.has(path) === names.includes(lastPart(path)));
  return exact ? names : [...paths];
}
