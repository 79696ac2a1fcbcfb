import { readerName } from "./contraction-operand.js";
import type { CrossEntropySpec, WeightGradientSpec } from "./cross-entropy-types.js";

/** Multiplies rows of W where they lie, when they are stored as they are multiplied and d is a multiple of 16. */
function directRows(spec: WeightGradientSpec): string {
  const { dtype, decoder } = spec.weight;
  if (decoder !== undefined || dtype !== spec.compute) return "";
  const direct = String.raw`  if (in->depth % 16 == 0 && in->sw % UNIT_${spec.compute} == 0) {
    *stride = in->sw / UNIT_${spec.compute};
    return (const thimble_word_alias*)in->w + first * *stride;
  }`;
  return dtype === "f32" ? `${direct}\n` : `#if UNIT_${spec.compute} == 2\n${direct}\n#endif\n`;
}

/** The logits of one block of vocabulary rows and one group of tokens. `list` holds the rows of x that count. */
export function logitFunctions(name: string, spec: WeightGradientSpec): string {
  return String.raw`
typedef struct {
  const char* x; const char* w;
  int64_t sx, sw, depth, padded, V;
} ${name}_input;

/* x^T of a group as panels of tokens: [panel][units of d][width]. */
static void ${name}_pack_x(const ${name}_input* in, const int32_t* list, int64_t valid, int64_t tokens, thimble_word_alias* out) {
  int64_t units = (in->depth + UNIT_${spec.compute} - 1) / UNIT_${spec.compute};
  for (int64_t c = 0; c < tokens; c += 16) {
    int64_t panel = c / PANEL * PANEL, width = smaller(PANEL, tokens - panel);
    for (int64_t k = 0; k < in->depth; k += 256) {
      int64_t count = smaller(256, in->depth - k);
      const thimble_word_alias* rows[16];
      uint32_t words[16][256 / UNIT_${spec.compute}] __attribute__((aligned(64)));
      for (int i = 0; i < 16; i++) {
        ${readerName({ dtype: spec.x }, spec.compute)}_units(in->x, list[smaller(c + i, valid - 1)] * in->sx + k, count, words[i]);
        rows[i] = words[i];
      }
      thimble_pack_rows(rows, (count + UNIT_${spec.compute} - 1) / UNIT_${spec.compute}, out + panel * units + k / UNIT_${spec.compute} * width + (c - panel), width);
    }
  }
}

/* Rows first.. of W as left factor of the logits; returns them and their stride in units. */
static const thimble_word_alias* ${name}_weight_rows(const ${name}_input* in, int64_t first, int64_t count, thimble_word_alias* area, int64_t* stride) {
${directRows(spec)}  *stride = in->padded / UNIT_${spec.compute};
  for (int64_t i = 0; i < count; i++) {
    for (int64_t k = 0; k < in->depth; k += 256)
      ${readerName(spec.weight, spec.compute)}_units(in->w, (first + i) * in->sw + k, smaller(256, in->depth - k), area + i * *stride + k / UNIT_${spec.compute});
    for (int64_t k = (in->depth + UNIT_${spec.compute} - 1) / UNIT_${spec.compute}; k < *stride; k++) area[i * *stride + k] = 0;
  }
  return area;
}

/* Logits of count vocabulary rows: scores[v][token]. */
static void ${name}_logits(const ${name}_input* in, const thimble_word_alias* rows, int64_t stride, int64_t count,
                           const thimble_word_alias* panels, int64_t tokens, float* scores) {
  int64_t units = (in->depth + UNIT_${spec.compute} - 1) / UNIT_${spec.compute};
  for (int64_t i = 0; i < count; i += 6) {
    for (int64_t ahead = i + 6; ahead < smaller(i + 12, count); ahead++)
      for (int64_t k = 0; k < units; k += 16) __builtin_prefetch(rows + ahead * stride + k);
    for (int64_t c = 0; c < tokens; c += PANEL) {
      int64_t width = smaller(PANEL, tokens - c);
      thimble_micro_${spec.compute}_row((int)width, units, rows + i * stride, stride, (int)smaller(6, count - i), panels + c * units, width,
                 scores + i * tokens + c, tokens, 0);
    }
  }
}`;
}

/** What the loss and dx do with a block of logits. */
export function softmaxFunctions(name: string, spec: CrossEntropySpec): string {
  return String.raw`
/* The same rows as right factor of dx: units of vocabulary rows by columns of d. */
static __attribute__((unused)) const thimble_word_alias* ${name}_weight_columns(const ${name}_input* in, int64_t first, int64_t count,
    const thimble_word_alias* rows, int64_t* stride, thimble_word_alias* area) {
#if UNIT_${spec.compute} == 1
  (void)in; (void)first; (void)count; (void)area; (void)stride;
  return rows;
#else
  (void)rows;
  *stride = in->padded;
  for (int64_t i = 0; i < count; i += 2)
    for (int64_t k = 0; k < in->padded; k += 256) {
      int64_t present = larger(0, smaller(256, in->depth - k));
      thimble_word_alias* out = area + i / 2 * in->padded + k;
      if (present) ${readerName(spec.weight, spec.compute)}_columns(in->w, (first + i) * in->sw + k, in->sw, smaller(2, count - i), present, out);
      for (int64_t j = present; j < smaller(256, in->padded - k); j++) out[j] = 0;
    }
  return area;
#endif
}

/* Moves the labels' logits out of the block, leaving minus infinity. */
static void ${name}_take_labels(const int32_t* list, int64_t valid, int64_t tokens, const int32_t* labels, int64_t first,
                                int64_t count, float* scores, float* label_logits) {
  for (int64_t t = 0; t < tokens; t++) {
    int64_t v = labels[list[smaller(t, valid - 1)]] - first;
    if (v < 0 || v >= count) continue;
    if (t < valid) label_logits[t] = scores[v * tokens + t];
    scores[v * tokens + t] = -__builtin_inff();
  }
}

/* Scores as factors of the second product: f32, or rounded to bf16, or pairs of bf16 of neighbouring v. */
INLINE void ${name}_put(float* scores, int64_t tokens, int64_t v, int64_t t, vf low, vf high) {
${
  spec.compute === "f32"
    ? `  store_f32(scores + v * tokens + t, low);
  store_f32(scores + (v + 1) * tokens + t, high);`
    : `#if UNIT_${spec.compute} == 2
  vu bits = (thimble_round_bf16(low) >> 16) | thimble_round_bf16(high);
  store_u32(scores + v / 2 * tokens + t, bits);
#else
  store_f32(scores + v * tokens + t, round_bf16(low));
  store_f32(scores + (v + 1) * tokens + t, round_bf16(high));
#endif`
}
}

/* One step of the running softmax over the vocabulary, for every token: maximum, sum, and scores become exponentials. */
static void ${name}_exponentials(float* scores, int64_t count, int64_t tokens, float* maximum, float* sum, float* scale, int keep) {
  vf none = splat_f(-__builtin_inff()), zero = splat_f(0.0f);
  for (int64_t t = 0; t < tokens; t += 16) {
    vf before = load_f32(maximum + t), top = before;
    for (int64_t v = 0; v < count; v++) top = max_f(top, load_f32(scores + v * tokens + t));
    /* max_f(top, NaN) may drop a NaN; the exponentials below bring it back. */
    top = select_f(top == top, top, zero);
    /* A block is summed by itself: added one by one to a sum of thousands, small terms would vanish. */
    vf factor = exp_f(before - top), part = zero;
    for (int64_t v = 0; v < count; v += 2) {
      vf low = exp_f(load_f32(scores + v * tokens + t) - top);
      vf high = exp_f((v + 1 < count ? load_f32(scores + (v + 1) * tokens + t) : none) - top);
      part += low + high;
      if (keep) ${name}_put(scores, tokens, v, t, low, high);
    }
    store_f32(maximum + t, top);
    store_f32(sum + t, load_f32(sum + t) * factor + part);
    store_f32(scale + t, factor);
  }
}

/* sums[token][d] = sums * scale + scores^T W, for a block of count vocabulary rows. */
static __attribute__((unused)) void ${name}_add_rows(const float* scores, int64_t count, int64_t tokens, const thimble_word_alias* columns,
                             int64_t stride, const float* scale, float* sums, int64_t padded) {
  for (int64_t t = 0; t < tokens; t++) {
    if (scale[t] == 1.0f) continue;
    for (int64_t k = 0; k < padded; k += 16) store_f32(sums + t * padded + k, load_f32(sums + t * padded + k) * splat_f(scale[t]));
  }
  for (int64_t t = 0; t < tokens; t += 6)
    for (int64_t k = 0; k < padded; k += PANEL)
      thimble_micro_${spec.compute}_strip((int)smaller(PANEL, padded - k), (count + UNIT_${spec.compute} - 1) / UNIT_${spec.compute}, scores + t, tokens, 6, columns + k, stride,
                   sums + t * padded + k, padded, 1);
}
`;
}
