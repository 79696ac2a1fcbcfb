/** Decoders of formats with planes, as C: any stretch of a tensor's elements, with scales and tables made once a group. */
import { must } from "../../errors.js";
import type { Scalar } from "../../ir/scalar.js";
import { scalar as s } from "../../ir/scalar.js";
import { hoistInvariants } from "../../ir/scalar-fold.js";
import { renderSteps } from "../../ir/scalar-graph.js";
import { decoderLoops } from "../../storage/decoder.js";
import type { StorageFormat } from "../../storage/format.js";
import type { Plane } from "../../storage/planes.js";
import { planeUnit, sharedGroup } from "../../storage/planes.js";
import { once } from "./contraction-name.js";
import type { Decoder } from "./contraction-types.js";
import { cSyntax, renderScalar, tableSources } from "./scalar.js";

const byte = (offset: string, plane: number): string => `(uint32_t)plane${plane}[${offset}]`;
const options = { byte, withoutOverflow: true };

/** Shared by all formats of 4-bit codes: elements by permutations of the 16 values that a group's codes have. */
const codes = once(
  "thimble_codes",
  String.raw`
#ifdef HAS_AVX512
/* In halves, because a table that was just stored as halves cannot be loaded whole before it is in the cache. */
INLINE __m512 thimble_code_table(const float* table) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_load_ps(table)), _mm256_load_ps(table + 8), 1);
}
#endif
/* 32 elements, the even ones in the high halves of their bytes. */
INLINE void thimble_codes_32(const uint8_t* restrict bytes, const float* restrict table, float* restrict out) {
#ifdef HAS_AVX512
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)bytes));
  __m512 values = thimble_code_table(table);
  /* Permutations look at the low four bits of an index alone. */
  __m512 even = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), values), odd = _mm512_permutexvar_ps(codes, values);
  _mm512_storeu_ps(out, _mm512_permutex2var_ps(even, low, odd));
  _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(even, high, odd));
#else
  for (int i = 0; i < 16; i++) {
    out[2 * i] = table[bytes[i] >> 4];
    out[2 * i + 1] = table[bytes[i] & 15];
  }
#endif
}
INLINE void thimble_decode_codes(const uint8_t* plane, int64_t element, int64_t count, const float* table, float* out) {
  while (count > 0) {
    int64_t skip = element & 31, take = smaller(32 - skip, count);
    const uint8_t* bytes = plane + (element - skip) / 2;
    if (take == 32) {
      thimble_codes_32(bytes, table, out);
    } else {
      float whole[32] __attribute__((aligned(64)));
      thimble_codes_32(bytes, table, whole);
      for (int64_t i = 0; i < take; i++) out[i] = whole[skip + i];
    }
    element += take; out += take; count -= take;
  }
}
#ifdef HAS_BF16_DOT
/* The same in bf16, from a table rounded once: a permutation of 32 halves looks at five bits, the table stands twice. */
INLINE void thimble_decode_code_halves(const uint8_t* plane, int64_t element, int64_t count, const float* table, thimble_half_alias* out) {
  __m512i values = _mm512_broadcast_i64x4((__m256i)_mm512_cvtneps_pbh(thimble_code_table(table)));
  while (count > 0) {
    int64_t skip = element & 31, take = smaller(32 - skip, count);
    __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(plane + (element - skip) / 2)));
    __m512i index = _mm512_or_si512(_mm512_srli_epi32(codes, 4), _mm512_slli_epi32(codes, 16));
    __m512i halves = _mm512_permutexvar_epi16(index, values);
    if (take == 32) {
      _mm512_storeu_si512(out, halves);
    } else {
      uint16_t whole[32] __attribute__((aligned(64)));
      _mm512_store_si512(whole, halves);
      for (int64_t i = 0; i < take; i++) out[i] = whole[skip + i];
    }
    element += take; out += take; count -= take;
  }
}
#endif`,
);

/** Pointers to the groups that element `element` belongs to. */
export function planePointers(planes: readonly Plane[], base: string, element: string): string[] {
  return planes.map(({ elements, bytes }, plane) => {
    const start = `(const uint8_t*)${base} + (uint64_t)((const uint32_t*)${base})[${plane}] * ${planeUnit}`;
    const group = elements === Infinity ? "" : ` + (uint64_t)(${element}) / ${elements} * ${bytes}`;
    return `const uint8_t* plane${plane} = ${start}${group};`;
  });
}

/** One function that walks the groups of a stretch; `body` decodes `take` elements of one group from `element` on. */
function walker(name: string, planes: readonly Plane[], type: string, body: readonly string[]): string {
  const group = sharedGroup(planes);
  const take = group === Infinity ? "count" : `smaller(${group} - (int64_t)((uint64_t)element % ${group}), count)`;
  const pointers = planePointers(planes, "base", "element").slice(1);
  return `static __attribute__((noinline, unused)) void ${name}(const char* base, int64_t element, int64_t count, ${type}* out) {
  const uint8_t* codes = (const uint8_t*)base + (uint64_t)((const uint32_t*)base)[0] * ${planeUnit};
  while (count > 0) {
    int64_t take = ${take};
${[...pointers, ...body].map((line) => (line.startsWith("#") ? line : `    ${line}`)).join("\n")}
    element += take; out += take; count -= take;
  }
}
`;
}

/** Fills `table` with the value of each of the 16 codes of a group. */
function tableStatements(value: (code: Scalar) => Scalar): string[] {
  const { invariants, bodies } = hoistInvariants([value(s.argument(0, "i32"))], 0, 1);
  const hoisted = renderSteps(invariants, cSyntax([], "scalar", options), "h");
  const { statements, results } = renderSteps(bodies, cSyntax(["code", ...hoisted.results], "scalar", options), "t");
  return [
    ...hoisted.statements.map(({ text }) => text),
    "float table[16] __attribute__((aligned(64)));",
    // Unrolled early, the 16 values would be found one by one.
    "#pragma GCC unroll 1",
    "for (int32_t code = 0; code < 16; code++) {",
    ...statements.map(({ text }) => `  ${text}`),
    `  table[code] = ${must(results[0], "value")};`,
    "}",
  ];
}

/** Blocks of elements by the expression as it stands, made vector code by the compiler where it can. */
function blockStatements(format: StorageFormat): string[] {
  const { elements, bytes } = format.block;
  const { invariants, bodies } = decoderLoops(format);
  const hoisted = renderSteps(invariants, cSyntax([], "scalar", options), "h");
  const { statements, results } = renderSteps(bodies, cSyntax(["lane", ...hoisted.results], "scalar", options), "t");
  return [
    "for (int64_t done = 0; done < take;) {",
    `  int64_t skip = (int64_t)((uint64_t)(element + done) % ${elements}), n = smaller(${elements} - skip, take - done);`,
    `  const uint8_t* restrict plane0 = codes + (uint64_t)(element + done) / ${elements} * ${bytes};`,
    ...hoisted.statements.map(({ text }) => `  ${text}`),
    `  float whole[${elements}] __attribute__((aligned(64)));`,
    `  for (int32_t lane = 0; lane < ${elements}; lane++) {`,
    ...statements.map(({ text }) => `    ${text}`),
    `    whole[lane] = ${must(results[0], "value")};`,
    "  }",
    "  for (int64_t i = 0; i < n; i++) out[done + i] = whole[skip + i];",
    "  done += n;",
    "}",
  ];
}

/** The decoder of a format with planes; its source needs the prelude. */
export function renderPlaneDecoderC(format: StorageFormat, planes: readonly Plane[]): Decoder {
  const name = `decode_${format.id.replaceAll("-", "_")}`;
  const { elements, bytes } = format.block;
  const common = { name, elements, bytes };
  const { invariants, bodies } = decoderLoops(format);
  if (format.codes === undefined) {
    const source =
      tableSources([...invariants, ...bodies]) + walker(`${name}_fill`, planes, "float", blockStatements(format));
    return { ...common, source, planes: { halves: false } };
  }
  const table = tableStatements(format.codes);
  const call = (decode: string): string => `${decode}(codes, element, take, table, out);`;
  const source = [
    codes,
    tableSources([format.codes(s.argument(0, "i32"))]),
    walker(`${name}_fill`, planes, "float", [...table, call("thimble_decode_codes")]),
    "#ifdef HAS_BF16_DOT\n",
    walker(`${name}_halves`, planes, "thimble_half_alias", [...table, call("thimble_decode_code_halves")]),
    "#endif\n",
  ].join("");
  return { ...common, source, planes: { halves: true } };
}

/** The body of a function of `const uint8_t* packed, int64_t at` that gives one element, of formats of every kind. */
export function elementDecoderC(format: StorageFormat): { tables: string; body: string[] } {
  const { elements, bytes } = format.block;
  const expression = format.decode(s.argument(0, "i32"));
  const { statements, result } = renderScalar(expression, ["index"], "scalar", { byte });
  const pointers =
    format.planes === undefined
      ? [`const uint8_t* plane0 = packed + at / ${elements} * ${bytes};`]
      : planePointers(format.planes, "packed", "at");
  const index = [`const int32_t index = (int32_t)(at % ${elements});`, "(void)index;"];
  return { tables: tableSources([expression]), body: [...pointers, ...index, ...statements, `return ${result};`] };
}
