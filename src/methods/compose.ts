import { ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { LinearSpec, ModelDefinition, ParameterSpec } from "../models/types.js";
import { checkClaims } from "./claims.js";
import { nearestName } from "./nearest.js";
import { methods as registered } from "./registry.js";
import { parseSettings } from "./settings.js";
import type {
  AdaptContext,
  AdapterTensor,
  ExportContext,
  HostTensors,
  Method,
  PeftForm,
  PrepareContext,
  ResolvedMethod,
} from "./types.js";

export interface MethodSelection {
  readonly id: string;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** Several methods as one: what the step builder, the trainer and the exporters need of them. */
export interface ComposedMethods {
  readonly methods: readonly ResolvedMethod[];
  /** One linear layer: the first method of the selection wraps the base, the next wraps that, and so on. */
  linear(context: AdaptContext, spec: LinearSpec, x: Node, base: (x: Node) => Node): Node;
  /** Whether a base tensor trains. */
  trains(parameter: ParameterSpec): boolean;
  /** Every new trainable tensor. */
  readonly adapters: readonly AdapterTensor[];
  /** Whether `prepare` does anything: if not, base weights need not be read before training. */
  readonly prepares: boolean;
  prepare(context: PrepareContext): Promise<void>;
  /** The lowest of the methods' suggestions. */
  readonly learningRate: number;
  readonly saves: "adapter" | "weights";
  /** The adapter as a PEFT directory; absent where the methods have no such form. */
  readonly peft?: (tensors: HostTensors, context: ExportContext) => Promise<PeftForm>;
  /** A linear layer's weight with every method's change folded in; the weight itself where there is none. */
  merge(spec: LinearSpec, weight: Float32Array, tensors: HostTensors): Float32Array;
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
  const methods = selection.map(({ id, settings }) => {
    const method = findMethod(id, known);
    return method.resolve(parseSettings(id, method.config, settings), model);
  });
  checkClaims(methods);
  const rates = methods.flatMap((method) => method.learningRate ?? []);
  if (rates.length === 0) {
    throw new ThimbleError("methods-none", `Nothing trains with ${methods.map(({ id }) => id).join(", ")} alone`, {
      where: "methods",
      fix: 'Add a method that trains something, such as "lora" or "full".',
    });
  }
  const exporters = methods.flatMap((method) => method.peft ?? []);
  const [peft] = exporters;
  return {
    methods,
    linear: (context, spec, x, base) => wrapped(methods, context, spec, base)(x),
    trains: (parameter) => methods.some((method) => method.slots.select?.(parameter) === true),
    adapters: methods.flatMap((method) => method.adapters),
    prepares: methods.some((method) => method.slots.prepare !== undefined),
    prepare: async (context) => {
      for (const method of methods) await method.slots.prepare?.(context);
    },
    learningRate: Math.min(...rates),
    saves: methods.some((method) => method.saves === "weights") ? "weights" : "adapter",
    // Two adapters in one file would need two configurations.
    ...(peft === undefined || exporters.length > 1 ? {} : { peft }),
    merge: (spec, weight, tensors) =>
      methods.reduce((merged, method) => method.merge?.(spec, merged, tensors) ?? merged, weight),
  };
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
