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
  const { rows, columns, batch, workspace, segments, epilogue, computed = [] } = values;
  const operands = segments.flatMap(({ a, b, depth }) => [
    ...[a.address, a.rowStride, a.batchStride],
    ...[b.address, b.rowStride, b.batchStride],
    depth,
  ]);
  return [rows, columns, batch, workspace, ...operands, ...epilogue, ...computed];
}

/** Applies the epilogue to a finished tile. */
function finishSource(name: string, spec: ContractionSpec): string {
  return String.raw`
static void ${name}_finish(const float* tile, int64_t length, int64_t rows, int64_t columns, int64_t batch, int64_t row, int64_t column, const int64_t* words) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += 16) {
      if (columns - j >= 16) ${spec.epilogue.name}(load_f32(tile + i * length + j), batch, row + i, column + j, 16, words);
      else ${spec.epilogue.name}(load_f32(tile + i * length + j), batch, row + i, column + j, (int)(columns - j), words);
    }
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
  .micro = thimble_micro_${compute}, .finish = ${name}_finish,
  .a = {${addresses(left)}}, .b = {${addresses(right)}},
};
EXPORT void ${name}(const int64_t* w, Context* context) {${ownArguments(spec)} thimble_contract(&${name}_parts, w, context); }
`,
  ].join("\n");
}

/** Arguments with the addresses of computed operands put in: those of their words. */
function ownArguments({ segments, epilogue }: ContractionSpec): string {
  const operands = segments.flatMap(({ a, b }, index) => [
    { place: 4 + 7 * index, words: a.decoder?.words ?? 0 },
    { place: 7 + 7 * index, words: b.decoder?.words ?? 0 },
  ]);
  const fixed = 4 + 7 * segments.length + epilogue.words;
  let next = fixed;
  const addresses = operands.flatMap(({ place, words }) => {
    next += words;
    return words === 0 ? [] : [`own[${place}] = (int64_t)(uintptr_t)(w + ${next - words});`];
  });
  if (addresses.length === 0) return "";
  const lines = [`int64_t own[${fixed}];`, "__builtin_memcpy(own, w, sizeof own);", ...addresses, "w = own;"];
  return `\n${lines.map((line) => `  ${line}`).join("\n")}\n `;
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
