import { ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { BlockPart, LinearSpec, ModelDefinition, ParameterSpec, Place, Tower } from "../models/types.js";
import { checkClaims } from "./claims.js";
import type { Estimator } from "./estimator.js";
import { afterwards } from "./afterwards.js";
import type { HostSide } from "./host.js";
import { hostSide } from "./host.js";
import { nearestName } from "./nearest.js";
import { methods as registered } from "./registry.js";
import { parseSettings } from "./settings.js";
import type { Watching } from "./watch.js";
import { watching } from "./watch.js";
import type {
  AdaptContext,
  AdapterTensor,
  Calibration,
  CollectContext,
  Collected,
  Deferral,
  ExportContext,
  HostIntegers,
  HostTensors,
  Method,
  PeftForm,
  Placement,
  PrepareContext,
  RegulariseContext,
  ResolvedMethod,
  RunFacts,
} from "./types.js";

export interface MethodSelection {
  readonly id: string;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** Several methods as one: what the step builder, the trainer and the exporters need of them. */
export interface ComposedMethods extends HostSide, Watching {
  readonly methods: readonly ResolvedMethod[];
  /** One linear layer: the first method of the selection wraps the base, the next wraps that, and so on. */
  linear(context: AdaptContext, spec: LinearSpec, x: Node, base: (x: Node) => Node): Node;
  /** Rows that stand in front of every row of the batch. */
  readonly prefix: number;
  /** What the first block reads, made of the embedding's rows. */
  embedded(context: AdaptContext, rows: Node, positions: Node): Node;
  /** What a part of a block adds: the first method wraps the model's own body, the next wraps that, and so on. */
  part(context: AdaptContext, part: BlockPart, block: number, x: Node, body: (x: Node) => Node): Node;
  /** A value of a block as what follows computes with it: each method sees what the ones before it made of it. */
  represent(context: AdaptContext, place: Place, x: Node): Node;
  /** How the blocks are chained, where a method says. */
  readonly stack?: (context: AdaptContext, tower: Tower, x: Node) => Node;
  /** `x`, the operand of a layer's product whose other side trains, with what backward reads of it. */
  saved(context: AdaptContext, spec: LinearSpec, x: Node): Node;
  /** Whether a base tensor trains. */
  trains(parameter: ParameterSpec): boolean;
  /** The storage format that a method packs a base tensor into; undefined = what the run gives it. */
  baseFormat(parameter: ParameterSpec): string | undefined;
  /** Kinds of steps beside the ordinary one, "". */
  readonly variants: readonly string[];
  /** What kind of step number `step` (from 0) is, in its first micro-batch and in its update, or in a later one. */
  variant(step: number, microBatch?: number): string;
  /** The methods' numbers of step number `step` (from 0), by the names of their leaves. */
  scalars(step: number): Readonly<Record<string, number>>;
  /** What the methods add to the loss, f32 []; absent = nothing. */
  readonly regularise?: (context: RegulariseContext) => Node;
  /** What comes after the updates; absent = nothing. States and scalars are named as their leaves. */
  readonly collect?: (context: CollectContext) => Collected;
  /** Every new trainable tensor. */
  readonly adapters: readonly AdapterTensor[];
  /** Integers that an adapter must hold beside the trained tensors. */
  readonly integers: readonly string[];
  /** Whether `prepare` does anything: if not, base weights need not be read before training. */
  readonly prepares: boolean;
  prepare(context: PrepareContext): Promise<void>;
  /** Statistics that `prepare` needs at the start of a run. */
  readonly calibrate?: Calibration;
  /** The lowest of the methods' suggestions, or that of the method that makes the gradients. */
  readonly learningRate: number;
  /** The optimizer that suits the methods, where it is not the usual one. */
  readonly optimizer?: string;
  /** How gradients are made; absent = backpropagation. */
  readonly estimate?: Estimator;
  /** Where the base's tensors lie while they are not used; absent = as the run says. */
  readonly place?: Placement;
  /** Updates are left for the next step to apply; absent = every step makes its own. */
  readonly defer?: Deferral;
  readonly saves: "adapter" | "weights";
  /** The adapter as a PEFT directory; absent where the methods have no such form. */
  readonly peft?: (tensors: HostTensors, context: ExportContext) => Promise<PeftForm>;
  /** A linear layer's weight with every method's change folded in; the weight itself where there is none. */
  merge(spec: LinearSpec, weight: Float32Array, tensors: HostTensors, integers?: HostIntegers): Float32Array;
}

/** The registered method of that id, or an error with the nearest name. */
export function findMethod(id: string, known: readonly Method[] = registered): Method {
  const found = known.find((method) => method.id === id);
  if (found !== undefined) return found;
  const ids = known.map((method) => method.id);
  const nearest = nearestName(id, ids);
  throw new ThimbleError("method-unknown", `There is no method "${id}"`, {
    where: "methods",
    expected: ids.join(", "),
    ...(nearest === undefined ? {} : { fix: `Did you mean "${nearest}"?` }),
  });
}

/** A selection with the settings that follow from the run, beneath those that are given. */
export function withRunDefaults(
  { id, settings }: MethodSelection,
  run: RunFacts,
  known: readonly Method[] = registered,
): MethodSelection {
  return { id, settings: { ...findMethod(id, known).defaultsFor?.(run), ...settings } };
}

/**
 * Resolves a selection against a model and merges it by claims. Needs no weights: everything that can be refused is
 * refused here, before any are read.
 */
export function composeMethods(
  selection: readonly MethodSelection[],
  model: ModelDefinition,
  known: readonly Method[] = registered,
): ComposedMethods {
  refuseRepeats(selection);
  const resolve = ({ id, settings }: MethodSelection): ResolvedMethod => {
    const method = findMethod(id, known);
    return method.resolve(parseSettings(id, method.config, settings), model);
  };
  // What stores the base lies beneath what is computed with it, in whatever order they are named.
  const resolved = sortedBy(selection.map(resolve), ({ slots }) => (slots.format === undefined ? 1 : 0));
  const own = resolved.some(trainsSomething) ? resolved : trainingAlone(resolved);
  const brought = own.some(trainsSomething) ? [] : companionsOf(selection, known);
  const companions = oneTrainer(brought.map((id) => resolve({ id, settings: {} })));
  const selected = [...(companions.some(trainsSomething) ? companions : companions.map(alone)), ...own];
  checkClaims(selected);
  for (const method of selected) method.check?.(selected);
  const methods = selected.map((method) => method.beside?.(selected) ?? method);
  const rates = methods.flatMap((method) => method.learningRate ?? []);
  if (rates.length === 0) {
    throw new ThimbleError("methods-none", `Nothing trains with ${methods.map(({ id }) => id).join(", ")} alone`, {
      where: "methods",
      fix: 'Add a method that trains something, such as "lora" or "full".',
    });
  }
  const exporters = methods.flatMap((method) => method.peft ?? []);
  const [peft] = exporters;
  const saves = methods.some((method) => method.saves === "weights") ? "weights" : "adapter";
  const suggestion = methods.flatMap(({ suggests }) => suggests ?? [])[0];
  const estimate = methods.flatMap(({ slots }) => slots.estimate ?? [])[0];
  const place = methods.flatMap(({ slots }) => slots.place ?? [])[0];
  const defer = methods.flatMap(({ slots }) => slots.defer ?? [])[0];
  const kinds = methods.flatMap(({ slots }) => slots.steps ?? []);
  // What belongs to the model's task is new to it, so it trains whatever else does.
  const head = new Set(model.task?.head);
  const stack = methods.flatMap((method) => method.slots.stack ?? [])[0];
  const calibrate = methods.flatMap((method) => method.slots.calibrate ?? [])[0];
  refuseTwoKinds(methods);
  refusePacking(methods, model);
  return {
    methods,
    linear: (context, spec, x, base) => wrapped(methods, context, spec, base)(x),
    prefix: methods.reduce((sum, { slots }) => sum + (slots.prefix ?? 0), 0),
    embedded: (context, rows, positions) =>
      methods.reduce((value, { slots }) => slots.embedded?.(context, value, positions) ?? value, rows),
    part: (context, part, block, x, body) =>
      methods.reduce((next, { slots }) => {
        const wrap = slots.part;
        return wrap === undefined ? next : (own: Node) => wrap(context, part, block, own, next);
      }, body)(x),
    ...(stack === undefined ? {} : { stack }),
    ...(calibrate === undefined ? {} : { calibrate }),
    represent: (context, place, x) =>
      methods.reduce((value, { slots }) => slots.represent?.(context, place, value) ?? value, x),
    saved: (context, spec, x) => methods.reduce((value, { slots }) => slots.saved?.(context, spec, value) ?? value, x),
    trains: (parameter) =>
      head.has(parameter.name) || methods.some((method) => method.slots.select?.(parameter) === true),
    baseFormat: (parameter) => methods.flatMap(({ slots }) => slots.format?.(parameter) ?? [])[0],
    ...watching(methods),
    variants: kinds.flatMap((kind) => kind.variants),
    variant: (step, microBatch = 0) =>
      kinds.map((kind) => kind.variant(step, microBatch)).find((name) => name !== "") ?? "",
    ...afterwards(methods),
    ...hostSide(methods),
    adapters: methods.flatMap((method) => method.adapters),
    integers: methods.flatMap((method) => method.integers ?? []),
    prepares: methods.some((method) => method.slots.prepare !== undefined),
    prepare: async (context) => {
      for (const method of methods) await method.slots.prepare?.(context);
    },
    learningRate: suggestion?.rate[saves] ?? Math.min(...rates),
    ...(suggestion === undefined ? {} : { optimizer: suggestion.optimizer }),
    ...(estimate === undefined ? {} : { estimate }),
    ...(place === undefined ? {} : { place }),
    ...(defer === undefined ? {} : { defer }),
    saves,
    // Two adapters in one file would need two configurations.
    ...(peft === undefined ||
    exporters.length > 1 ||
    methods.some((method) => method.peft === undefined && addsToModel(method))
      ? {}
      : { peft }),
    merge: (spec, weight, tensors, integers = new Map()) =>
      methods.reduce((merged, method) => method.merge?.(spec, merged, tensors, integers) ?? merged, weight),
  };
}

/** What a method is where no other trains anything. */
function alone(method: ResolvedMethod): ResolvedMethod {
  return method.alone ?? method;
}

/** Whether a method adds something to what the model computes, beside how its weights are stored. */
export function addsToModel({ slots: { stack, part, embedded }, adapters }: ResolvedMethod): boolean {
  return adapters.length > 0 || [stack, part, embedded].some((slot) => slot !== undefined);
}

/** Whether a method decides what the trained model computes, and not only how it trains. */
export function computes(method: ResolvedMethod): boolean {
  return addsToModel(method) || method.slots.format !== undefined;
}

function sortedBy(methods: readonly ResolvedMethod[], rank: (method: ResolvedMethod) => number): ResolvedMethod[] {
  return [...methods].sort((a, b) => rank(a) - rank(b));
}

/** Where none trains anything, the first that can by itself does, and the others go along with it. */
function trainingAlone(methods: readonly ResolvedMethod[]): ResolvedMethod[] {
  const all: ResolvedMethod[] = [];
  for (const method of methods) all.push(all.some(trainsSomething) ? method : alone(method));
  return all;
}

function trainsSomething({ slots, adapters }: ResolvedMethod): boolean {
  return slots.select !== undefined || adapters.length > 0;
}

/** What the methods of a selection bring with them; they come first, and the others wrap them. */
function companionsOf(selection: readonly MethodSelection[], known: readonly Method[]): string[] {
  return [...new Set(selection.flatMap(({ id }) => findMethod(id, known).companions ?? []))];
}

/** Companions, of which the first that trains something is enough. */
function oneTrainer(companions: readonly ResolvedMethod[]): ResolvedMethod[] {
  const first = companions.find(trainsSomething);
  return companions.filter((method) => method === first || !trainsSomething(method));
}

function refuseRepeats(selection: readonly MethodSelection[]): void {
  if (selection.length === 0) {
    throw new ThimbleError("methods-none", "No method is selected, so nothing would train", {
      where: "methods",
      fix: 'Select one, such as "lora" or "full".',
    });
  }
  const repeated = selection.find(({ id }, place) => selection.findIndex((other) => other.id === id) !== place);
  if (repeated === undefined) return;
  throw new ThimbleError("methods-repeated", `${repeated.id} is selected twice`, { where: "methods" });
}

/** What is packed cannot train, and must be a matrix. */
function refusePacking(methods: readonly ResolvedMethod[], model: ModelDefinition): void {
  for (const { id, slots } of methods) {
    const packed =
      slots.format === undefined ? [] : model.parameters.filter((one) => slots.format?.(one) !== undefined);
    for (const parameter of packed) {
      if (parameter.shape.length !== 2) {
        throw new ThimbleError("storage-shape", `${id} packs matrices, and ${parameter.name} is none`, {
          where: "methods",
          given: `shape [${parameter.shape.join(", ")}]`,
          fix: `Let ${id} leave this tensor alone.`,
        });
      }
      const trainer = methods.find((method) => method.slots.select?.(parameter) === true);
      if (trainer === undefined) continue;
      throw new ThimbleError("methods-conflict", `${id} and ${trainer.id} do not go together`, {
        where: "methods",
        given: `${id} packs ${parameter.name}, which ${trainer.id} trains: packed weights stay as they are`,
        fix: `Remove ${trainer.id}, or train other tensors with it.`,
      });
    }
  }
}

/** Programs exist for each kind of step alone, not for two kinds at once. */
function refuseTwoKinds(methods: readonly ResolvedMethod[]): void {
  const [first, second] = methods.filter(({ slots }) => slots.steps !== undefined);
  if (first === undefined || second === undefined) return;
  throw new ThimbleError("methods-conflict", `${first.id} and ${second.id} do not go together`, {
    given: "both have steps of a special kind",
    expected: "one of them",
    where: "methods",
    fix: `Remove ${first.id} or ${second.id}.`,
  });
}

function wrapped(
  methods: readonly ResolvedMethod[],
  context: AdaptContext,
  spec: LinearSpec,
  base: (x: Node) => Node,
): (x: Node) => Node {
  return methods.reduce((next, method) => {
    const wrap = method.slots.linear;
    return wrap === undefined ? next : (x) => wrap(context, spec, x, next);
  }, base);
}

/** Whether weight decay applies to a base tensor: to matrices, not to norms and biases. */
export function decays(parameter: ParameterSpec): boolean {
  return parameter.kind !== "norm" && parameter.kind !== "bias";
}
