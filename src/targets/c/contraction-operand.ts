import { once } from "./contraction-name.js";
import type { ContractionDType, ContractionSpec, Decoder } from "./contraction-types.js";

type Storage = { readonly dtype: ContractionDType; readonly decoder?: Decoder };
type Compute = ContractionSpec["compute"];

const elementTypes = { f32: "thimble_float_alias", bf16: "thimble_half_alias", f16: "thimble_half_alias" } as const;

/** Names the functions that read this storage for this kind of multiplication. */
export function readerName({ dtype, decoder }: Storage, compute: Compute): string {
  return `thimble_${compute}_${decoder === undefined ? dtype : decoder.name}`;
}

/** True when stored values are multiplied as they are, whatever the machine. */
export function isDirect({ dtype, decoder }: Storage, compute: Compute): boolean {
  return decoder === undefined && dtype === "f32" && compute === "f32";
}

function fillDirect(name: string, dtype: ContractionDType, round: string): string {
  return String.raw`
INLINE void ${name}(const char* base, int64_t element, int64_t count, float* out) {
  const ${elementTypes[dtype]}* p = (const ${elementTypes[dtype]}*)base + element;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store_f32(out + i, ${round}(load_${dtype}(p + i)));
  if (i < count) store_f32_n(out + i, ${round}(load_${dtype}_n(p + i, (int)(count - i))), (int)(count - i));
}`;
}

function fillDecoded(name: string, decoder: Decoder): string {
  const { elements, bytes } = decoder;
  if (decoder.planes !== undefined) {
    return String.raw`
${once(decoder.name, decoder.source)}
INLINE void ${name}_fill(const char* base, int64_t element, int64_t count, float* out) {
  ${decoder.name}_fill(base, element, count, out);
}`;
  }
  return String.raw`
${once(decoder.name, decoder.source)}
static __attribute__((noinline, unused)) void ${name}_fill(const char* base, int64_t element, int64_t count, float* out) {
  const uint8_t* block = (const uint8_t*)base + (uint64_t)element / ${elements} * ${bytes};
  int64_t skip = (int64_t)((uint64_t)element % ${elements});
  for (; count > 0; block += ${bytes}, skip = 0) {
    int64_t take = smaller(${elements} - skip, count);
    if (take == ${elements}) {
      ${decoder.name}(block, out);
    } else {
      float whole[${elements}] __attribute__((aligned(64)));
      ${decoder.name}(block, whole);
      for (int64_t i = 0; i < take; i++) out[i] = whole[skip + i];
    }
    out += take;
    count -= take;
  }
}`;
}

const valuesBy = (name: string, statements: string): string => String.raw`
static __attribute__((noinline, unused)) void ${name}_values(const char* base, int64_t element, int64_t count, float* out) {
  ${statements}
}`;

const f32Readers = (name: string): string => String.raw`${valuesBy(name, `${name}_fill(base, element, count, out);`)}
INLINE void ${name}_units(const char* base, int64_t element, int64_t count, thimble_word_alias* out) {
  ${name}_fill(base, element, count, (float*)out);
}
INLINE void ${name}_columns(const char* base, int64_t element, int64_t stride, int64_t rows, int64_t count, thimble_word_alias* out) {
  (void)stride; (void)rows;
  ${name}_fill(base, element, count, (float*)out);
}`;

/** Values rounded to bf16, in f32; stored bf16 is so already. */
function roundedValues(name: string, { dtype, decoder }: Storage): string {
  if (decoder === undefined && dtype !== "bf16") {
    return (
      fillDirect(`${name}_rounded`, dtype, "round_bf16") + valuesBy(name, `${name}_rounded(base, element, count, out);`)
    );
  }
  const round = decoder === undefined ? "" : "\n  thimble_round_all(out, count);";
  return valuesBy(name, `${name}_fill(base, element, count, out);${round}`);
}

/** bf16 straight from the decoder: in order they are units already. */
const halfReaders = (name: string, decoder: string): string => String.raw`
#ifdef HAS_BF16_DOT
${once(
  "thimble_interleave_halves",
  String.raw`
/* Pairs of one value from each of two rows of bf16 (256 long). */
INLINE void thimble_interleave_halves(const uint16_t* first, const uint16_t* second, int64_t count, thimble_word_alias* out) {
  for (int64_t i = 0; i < count; i += 16) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(first + i)));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(second + i)));
    store_u32_n(out + i, (vu)_mm512_or_si512(low, _mm512_slli_epi32(high, 16)), (int)smaller(16, count - i));
  }
}`,
)}
INLINE void ${name}_units(const char* base, int64_t element, int64_t count, thimble_word_alias* out) {
  ${decoder}_halves(base, element, count, (thimble_half_alias*)out);
  if (count & 1) ((thimble_half_alias*)out)[count] = 0;
}
INLINE void ${name}_columns(const char* base, int64_t element, int64_t stride, int64_t rows, int64_t count, thimble_word_alias* out) {
  uint16_t halves[2][256] __attribute__((aligned(64)));
  ${decoder}_halves(base, element, count, halves[0]);
  if (rows > 1) ${decoder}_halves(base, element + stride, count, halves[1]);
  else __builtin_memset(halves[1], 0, sizeof halves[1]);
  thimble_interleave_halves(halves[0], halves[1], count, out);
}
#else
INLINE void ${name}_units(const char* base, int64_t element, int64_t count, thimble_word_alias* out) {
  ${name}_values(base, element, count, (float*)out);
}
INLINE void ${name}_columns(const char* base, int64_t element, int64_t stride, int64_t rows, int64_t count, thimble_word_alias* out) {
  (void)stride; (void)rows;
  ${name}_values(base, element, count, (float*)out);
}
#endif`;

const bf16Readers = (name: string): string => String.raw`
INLINE void ${name}_units(const char* base, int64_t element, int64_t count, thimble_word_alias* out) {
#ifdef HAS_BF16_DOT
  float values[256] __attribute__((aligned(64)));
  ${name}_fill(base, element, count, values);
  thimble_pairs(values, count, out);
#else
  ${name}_values(base, element, count, (float*)out);
#endif
}
INLINE void ${name}_columns(const char* base, int64_t element, int64_t stride, int64_t rows, int64_t count, thimble_word_alias* out) {
#ifdef HAS_BF16_DOT
  float values[2][256] __attribute__((aligned(64)));
  ${name}_fill(base, element, count, values[0]);
  if (rows > 1) ${name}_fill(base, element + stride, count, values[1]);
  else __builtin_memset(values[1], 0, sizeof values[1]);
  thimble_interleave(values[0], values[1], count, out);
#else
  (void)stride; (void)rows;
  ${name}_values(base, element, count, (float*)out);
#endif
}`;

/**
 * Functions that read a storage, each defined once in a translation unit; NAME is {@link readerName}. `NAME_fill`
 * gives f32 values of a stretch of one row; `NAME_values` the same as the multiplication sees them (rounded, with
 * bf16); `NAME_units` gives packed words along a row; `NAME_columns` packed words of one k (a row, or two rows as
 * pairs). Stretches are at most 256 long.
 */
export function readers(storage: Storage, compute: Compute): string {
  const name = readerName(storage, compute);
  const fill =
    storage.decoder === undefined ? fillDirect(`${name}_fill`, storage.dtype, "") : fillDecoded(name, storage.decoder);
  if (compute === "f32") return once(name, fill + f32Readers(name));
  const packed = storage.decoder?.planes?.halves === true ? halfReaders(name, storage.decoder.name) : bf16Readers(name);
  return once(name, fill + roundedValues(name, storage) + packed);
}
