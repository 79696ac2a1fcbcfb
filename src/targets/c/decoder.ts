/** A storage format's decoder as C, derived from its one expression. */
import { must } from "../../errors.js";
import type { Scalar } from "../../ir/scalar.js";
import { scalar as s } from "../../ir/scalar.js";
import { matchScalar, rewriteScalar } from "../../ir/scalar-fold.js";
import { renderSteps } from "../../ir/scalar-graph.js";
import { halfToFloat } from "../../storage/bits.js";
import { decoderLoops } from "../../storage/decoder.js";
import type { StorageFormat } from "../../storage/format.js";
import { cSyntax, renderScalar } from "./scalar.js";

export interface RenderedDecoder {
  readonly name: string;
  /** `static inline void NAME(const uint8_t* restrict block, float* restrict out)`, for one block. */
  readonly source: string;
  readonly elements: number;
  readonly bytes: number;
}

const options = { byte: (offset: string) => `(uint32_t)block[${offset}]`, withoutOverflow: true };
const halfTemplate = halfToFloat(s.argument(0, "u32"));

/** The conversion of one f16 scale: the machine's instruction where there is one, else the expression. */
function halfFunction(): string {
  const { statements, result } = renderScalar(halfTemplate, ["bits"], "scalar");
  return `#ifndef THIMBLE_HALF_TO_FLOAT
#define THIMBLE_HALF_TO_FLOAT
#ifdef __F16C__
#include <immintrin.h>
#endif
static inline float half_to_float(uint32_t bits) {
#if defined(__F16C__) && !defined(THIMBLE_GENERIC)
  return _cvtsh_ss((unsigned short)bits);
#else
${statements.map((text) => `  ${text}`).join("\n")}
  return ${result};
#endif
}
#endif
`;
}

/** Statements that compute the invariants of a block, f16 scales by `half_to_float`, and the names of the results. */
function renderInvariants(
  invariants: readonly Scalar[],
  template: Scalar | undefined,
): { statements: string[]; names: string[] } {
  const halves: Scalar[] = [];
  const rest = invariants.map((invariant) =>
    rewriteScalar(invariant, (part) => {
      const bits = template === undefined ? undefined : matchScalar(template, part);
      return bits === undefined ? undefined : s.argument(halves.push(bits) - 1, "f32");
    }),
  );
  const bits = renderSteps(halves, cSyntax([], "scalar", options), "b");
  const unique = [...new Set(bits.results)];
  const scales = unique.map((name, index) => `const float s${index} = half_to_float(${name});`);
  const scaleNames = bits.results.map((name) => `s${unique.indexOf(name)}`);
  const others = renderSteps(rest, cSyntax(scaleNames, "scalar", options), "h");
  const text = (statement: { text: string }): string => statement.text;
  return {
    statements: [...bits.statements.map(text), ...scales, ...others.statements.map(text)],
    names: others.results,
  };
}

/**
 * Scales are decoded once a block; each run of elements is a loop of constant trip count over consecutive bytes, which
 * compilers turn into vector code. Needs only `stdint.h`.
 */
export function renderDecoderC(format: StorageFormat): RenderedDecoder {
  const { invariants, bodies } = decoderLoops(format);
  // Where every block is one element, the loop over blocks is made vector code, which the instruction would prevent.
  const hoisted = renderInvariants(invariants, format.block.elements === 1 ? undefined : halfTemplate);
  const { length } = format.runs;
  const loops = bodies.flatMap((body, run) => {
    const { statements, results } = renderSteps([body], cSyntax(["lane", ...hoisted.names], "scalar", options), "t");
    const store = `out[${run * length} + lane] = ${must(results[0], "value")};`;
    return loop(length, [...statements.map((statement) => statement.text), store]);
  });
  const name = `decode_${format.id}`;
  const body = [...hoisted.statements, ...loops].map((line) => (line.startsWith("#") ? line : `  ${line}`)).join("\n");
  return {
    name,
    source: `${halfFunction()}static inline void ${name}(const uint8_t* restrict block, float* restrict out) {\n${body}\n}\n`,
    elements: format.block.elements,
    bytes: format.block.bytes,
  };
}

/** A loop that is left whole for the vectoriser: unrolled early, its lanes would have to be found again one by one. */
function loop(length: number, statements: readonly string[]): string[] {
  if (length === 1) return ["const int32_t lane = 0;", ...statements];
  const inner = statements.map((text) => `  ${text}`);
  return ["#pragma GCC unroll 1", `for (int32_t lane = 0; lane < ${length}; lane++) {`, ...inner, "}"];
}
