/** Epilogues of contractions: element-wise expressions of finished sums, generated like loops. */
import { invariant, must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { sameShape } from "../../ir/shape.js";
import type { LoopVariable } from "../loops/linear.js";
import { linearKey } from "../loops/linear.js";
import { NodeLowering } from "../loops/lower-node.js";
import { flatten } from "../loops/movement.js";
import type { Store } from "../loops/nest.js";
import { Refinement } from "../loops/refinement.js";
import type { Value } from "../loops/value.js";
import { ValueGraph, valuesBelow } from "../loops/value.js";
import { contentHash, Names } from "./loops-names.js";
import { loopsSupport } from "./loops-support.js";
import { roundedByStores, ValueRenderer } from "./loops-values.js";

/** A word of an epilogue: the address of one of its inputs or outputs, or a size. */
export type EpilogueWord = number | { readonly input: number } | { readonly output: number };

export interface RenderedEpilogue {
  /** `static inline void NAME(vf sums, int64_t batch, int64_t row, int64_t column, int n, const int64_t* words)`. */
  readonly name: string;
  readonly source: string;
  /** How many words the epilogue takes. */
  readonly words: number;
  /** What they are; `input` counts the `inputs` that were passed, `output` the `roots`. */
  readonly layout: readonly EpilogueWord[];
}

interface Lowered {
  readonly stores: readonly Store[];
  readonly sums: Value;
  readonly lane: LoopVariable | undefined;
  readonly names: ReadonlyMap<LoopVariable, string>;
}

const axisNames = ["batch", "row", "column"];

/**
 * C that computes `roots` from 16 or fewer (`n`) neighbouring elements of the accumulator, [M, N] or [batch, M, N], and
 * from `inputs` of the same shape or broadcast to it, and stores them. Fails with an internal error for other shapes.
 */
export function epilogueC(roots: readonly Node[], accumulator: Node, inputs: readonly Node[]): RenderedEpilogue {
  const { stores, sums, lane, names: axes } = lowerEpilogue(roots, accumulator, inputs);
  const names = new Names(axes, new Map([[sums, "sums"]]));
  const values = new ValueRenderer(names);
  const skipped = roundedByStores(stores);
  const needed = valuesBelow(stores.map((store) => store.value)).filter(
    (value) => value !== sums && !skipped.has(value),
  );
  const body = (partial: boolean): string[] => {
    const lanes = lane === undefined ? undefined : { variable: lane, partial };
    const lines = needed.flatMap((value) => values.compute(value, lanes));
    return [...lines, ...stores.map((store) => values.store(store, lanes))];
  };
  const whole = body(false);
  const rest = body(true);
  const addresses = [
    ...inputs.map((_, index) => `const char* in${index} = (const char*)(uintptr_t)words[${index}]; (void)in${index};`),
    ...roots.map((_, index) => `char* out${index} = (char*)(uintptr_t)words[${inputs.length + index}];`),
  ];
  const sizes = names.sizes.map((_, index) => `const int64_t s${index} = words[${addresses.length + index}];`);
  const lines = [
    "(void)sums; (void)batch; (void)row; (void)column; (void)n;",
    ...[...addresses, ...sizes, ...names.locals],
    ...(lane === undefined ? whole : ["if (n == 16) {", ...whole.map(indent), "} else {", ...rest.map(indent), "}"]),
  ];
  const parameters = "vf sums, int64_t batch, int64_t row, int64_t column, int n, const int64_t* words";
  const text = `(${parameters}) {\n${lines.map(indent).join("\n")}\n}\n`;
  const helpers = [loopsSupport, ...names.functions.values()].join("");
  const name = `epilogue_${contentHash(helpers + text)}`;
  const layout: EpilogueWord[] = [
    ...inputs.map((_, input) => ({ input })),
    ...roots.map((_, output) => ({ output })),
    ...names.sizes,
  ];
  return { name, source: `${helpers}INLINE void ${name}${text}`, words: layout.length, layout };
}

function lowerEpilogue(roots: readonly Node[], accumulator: Node, inputs: readonly Node[]): Lowered {
  const { shape } = accumulator;
  invariant(shape.length === 2 || shape.length === 3, "an epilogue works on matrices");
  const refinement = new Refinement();
  const { parts } = refinement.combinations("a", shape, 0);
  const { indices, variables } = must(parts[0], "part");
  const lowering = new NodeLowering(
    new ValueGraph(),
    new Map([...inputs, accumulator].map((node, index) => [node, index])),
    refinement,
  );
  const position = flatten(indices, shape);
  const sums = lowering.value(accumulator, indices, []);
  const stores = roots.map((root, index): Store => {
    invariant(sameShape(root.shape, shape), "an epilogue keeps the shape of its sums");
    const value = lowering.value(root, indices, []);
    return { target: { kind: "output", index }, memory: root.dtype, offset: position, value };
  });
  invariant(!refinement.changed, "an epilogue reads its operands element by element or broadcast");
  for (const value of valuesBelow(stores.map((store) => store.value))) {
    invariant(value.kind !== "reduce", "an epilogue reduces nothing");
    if (value.kind !== "load" || value.source.kind !== "input" || value.source.index !== inputs.length) continue;
    invariant(linearKey(value.offset) === linearKey(position), "an epilogue reads its sums where they are made");
  }
  const names = new Map(variables.map((variable) => [variable, must(nameOf(variable, shape.length), "axis")]));
  return { stores, sums, lane: variables.find((variable) => names.get(variable) === "column"), names };
}

function nameOf(variable: LoopVariable, rank: number): string | undefined {
  return axisNames[Number(variable.axis.slice(1)) + axisNames.length - rank];
}

function indent(line: string): string {
  return `  ${line}`;
}
