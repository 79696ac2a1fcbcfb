import { ThimbleError } from "../../errors.js";
import { driver, driverTypes, mostSegments } from "./contraction-driver.js";
import { microKernels } from "./contraction-micro.js";
import { contentHash, once } from "./contraction-name.js";
import { layoutOf, operandName, operandSource } from "./contraction-pack.js";
import { blockGranule, depthLimit } from "./contraction-plan.js";
import { packing } from "./contraction-shared.js";
import type { ContractionArguments, ContractionSpec, KernelSource } from "./contraction-types.js";

export { contractionWorkspace } from "./contraction-plan.js";
export * from "./contraction-types.js";

/** The kernel's arguments in their order: M, N, batch, workspace, then per segment A, B and K, then the epilogue's. */
export function contractionArguments<Word>(values: ContractionArguments<Word>): Word[] {
  const { rows, columns, batch, workspace, segments, epilogue } = values;
  const operands = segments.flatMap(({ a, b, depth }) => [
    ...[a.address, a.rowStride, a.batchStride],
    ...[b.address, b.rowStride, b.batchStride],
    depth,
  ]);
  return [rows, columns, batch, workspace, ...operands, ...epilogue];
}

/** Applies the epilogue to a finished tile. */
function finishSource(name: string, spec: ContractionSpec): string {
  return String.raw`
static void ${name}_finish(const float* tile, int64_t length, int64_t rows, int64_t columns, int64_t batch, int64_t row, int64_t column, const int64_t* words) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += 16)
      ${spec.epilogue.name}(load_f32(tile + i * length + j), batch, row + i, column + j, (int)smaller(16, columns - j), words);
}`;
}

function body(name: string, spec: ContractionSpec): string {
  const { segments, compute, epilogue } = spec;
  const left = segments.map(({ a }) => [a, layoutOf("a", a)] as const);
  const right = segments.map(({ b }) => [b, layoutOf("b", b)] as const);
  const addresses = (side: typeof left): string =>
    side.map(([operand, layout]) => `&${operandName(operand, layout, compute)}`).join(", ");
  return [
    microKernels,
    packing,
    once("contraction_types", driverTypes),
    once("contraction_driver", driver),
    ...[...left, ...right].map(([operand, layout]) => operandSource(operand, layout, compute)),
    once(epilogue.name, epilogue.source),
    finishSource(name, spec),
    String.raw`
static const thimble_contraction ${name}_parts = {
  .segments = ${segments.length}, .unit = UNIT_${compute}, .granule = ${blockGranule(spec)}, .depth = ${depthLimit(spec)},
  .row = thimble_micro_${compute}_row, .strip = thimble_micro_${compute}_strip, .finish = ${name}_finish,
  .a = {${addresses(left)}}, .b = {${addresses(right)}},
};
EXPORT void ${name}(const int64_t* w, Context* context) { thimble_contract(&${name}_parts, w, context); }
`,
  ].join("\n");
}

/** The C of one contraction. Equal specs give equal names; sizes and addresses are arguments. */
export function renderContraction(spec: ContractionSpec): KernelSource {
  if (spec.segments.length < 1 || spec.segments.length > mostSegments) {
    throw new ThimbleError("contraction-segments", "A contraction has too few or too many products", {
      given: String(spec.segments.length),
      expected: `1 to ${mostSegments}`,
    });
  }
  const name = `contraction_${contentHash(JSON.stringify(spec))}`;
  return { name, source: once(name, body(name, spec)) };
}
