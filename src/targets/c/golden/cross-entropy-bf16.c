#ifndef THIMBLE_ONCE_cross_entropy_aa0a962c950499ea
#define THIMBLE_ONCE_cross_entropy_aa0a962c950499ea
#ifndef THIMBLE_ONCE_thimble_bf16_bf16
#define THIMBLE_ONCE_thimble_bf16_bf16

INLINE void thimble_bf16_bf16_fill(const char* base, int64_t element, int64_t count, float* out) {
  const thimble_half_alias* p = (const thimble_half_alias*)base + element;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store_f32(out + i, (load_bf16(p + i)));
  if (i < count) store_f32_n(out + i, (load_bf16_n(p + i, (int)(count - i))), (int)(count - i));
}
static __attribute__((noinline, unused)) void thimble_bf16_bf16_values(const char* base, int64_t element, int64_t count, float* out) {
  thimble_bf16_bf16_fill(base, element, count, out);
}
INLINE void thimble_bf16_bf16_units(const char* base, int64_t element, int64_t count, thimble_word_alias* out) {
#ifdef HAS_BF16_DOT
  float values[256] __attribute__((aligned(64)));
  thimble_bf16_bf16_fill(base, element, count, values);
  thimble_pairs(values, count, out);
#else
  thimble_bf16_bf16_values(base, element, count, (float*)out);
#endif
}
INLINE void thimble_bf16_bf16_columns(const char* base, int64_t element, int64_t stride, int64_t rows, int64_t count, thimble_word_alias* out) {
#ifdef HAS_BF16_DOT
  float values[2][256] __attribute__((aligned(64)));
  thimble_bf16_bf16_fill(base, element, count, values[0]);
  if (rows > 1) thimble_bf16_bf16_fill(base, element + stride, count, values[1]);
  else __builtin_memset(values[1], 0, sizeof values[1]);
  thimble_interleave(values[0], values[1], count, out);
#else
  (void)stride; (void)rows;
  thimble_bf16_bf16_values(base, element, count, (float*)out);
#endif
}
#endif



typedef struct {
  int64_t padded, tokens, slices, panels, weights, scores, sums, states, partial, private;
} cross_entropy_aa0a962c950499ea_plan;
static cross_entropy_aa0a962c950499ea_plan cross_entropy_aa0a962c950499ea_make_plan(int64_t N, int64_t depth) {
  cross_entropy_aa0a962c950499ea_plan p;
  p.padded = (depth + 15) / 16 * 16;
  p.tokens = larger(64, smaller(256, 600000 / (p.padded * 8) / 64 * 64));
  p.slices = larger(1, smaller(16, (512 + N - 1) / larger(N, 1)));
  p.states = (N * (2 + 2 * p.slices) + 15) / 16 * 16;
  p.partial = 1 && p.slices > 1 ? p.slices * N * p.padded : 0;
  p.panels = p.tokens * p.padded;
  p.weights = 192 * p.padded;
  p.scores = 192 * p.tokens + 16;
  p.sums = 1 * (p.tokens + 6) * p.padded;
  p.private = p.panels + p.weights * 2 + p.scores + p.sums + p.padded;
  return p;
}

typedef struct {
  const char* x; const char* w;
  int64_t sx, sw, depth, padded, V;
} cross_entropy_aa0a962c950499ea_input;

/* x^T of a group as panels of tokens: [panel][units of d][width]. */
static void cross_entropy_aa0a962c950499ea_pack_x(const cross_entropy_aa0a962c950499ea_input* in, const int32_t* list, int64_t valid, int64_t tokens, thimble_word_alias* out) {
  int64_t units = (in->depth + UNIT_bf16 - 1) / UNIT_bf16;
  for (int64_t c = 0; c < tokens; c += 16) {
    int64_t panel = c / PANEL * PANEL, width = smaller(PANEL, tokens - panel);
    for (int64_t k = 0; k < in->depth; k += 256) {
      int64_t count = smaller(256, in->depth - k);
      const thimble_word_alias* rows[16];
      uint32_t words[16][256 / UNIT_bf16] __attribute__((aligned(64)));
      for (int i = 0; i < 16; i++) {
        thimble_bf16_bf16_units(in->x, list[smaller(c + i, valid - 1)] * in->sx + k, count, words[i]);
        rows[i] = words[i];
      }
      thimble_pack_rows(rows, (count + UNIT_bf16 - 1) / UNIT_bf16, out + panel * units + k / UNIT_bf16 * width + (c - panel), width);
    }
  }
}

/* Rows first.. of W as left factor of the logits; returns them and their stride in units. */
static const thimble_word_alias* cross_entropy_aa0a962c950499ea_weight_rows(const cross_entropy_aa0a962c950499ea_input* in, int64_t first, int64_t count, thimble_word_alias* area, int64_t* stride) {
#if UNIT_bf16 == 2
  if (in->depth % 16 == 0 && in->sw % UNIT_bf16 == 0) {
    *stride = in->sw / UNIT_bf16;
    return (const thimble_word_alias*)in->w + first * *stride;
  }
#endif
  *stride = in->padded / UNIT_bf16;
  for (int64_t i = 0; i < count; i++) {
    for (int64_t k = 0; k < in->depth; k += 256)
      thimble_bf16_bf16_units(in->w, (first + i) * in->sw + k, smaller(256, in->depth - k), area + i * *stride + k / UNIT_bf16);
    for (int64_t k = (in->depth + UNIT_bf16 - 1) / UNIT_bf16; k < *stride; k++) area[i * *stride + k] = 0;
  }
  return area;
}

/* Logits of count vocabulary rows: scores[v][token]. */
static void cross_entropy_aa0a962c950499ea_logits(const cross_entropy_aa0a962c950499ea_input* in, const thimble_word_alias* rows, int64_t stride, int64_t count,
                           const thimble_word_alias* panels, int64_t tokens, float* scores) {
  int64_t units = (in->depth + UNIT_bf16 - 1) / UNIT_bf16;
  for (int64_t i = 0; i < count; i += 6) {
    for (int64_t ahead = i + 6; ahead < smaller(i + 12, count); ahead++)
      for (int64_t k = 0; k < units; k += 16) __builtin_prefetch(rows + ahead * stride + k);
    for (int64_t c = 0; c < tokens; c += PANEL) {
      int64_t width = smaller(PANEL, tokens - c);
      thimble_micro_bf16_row((int)width, units, rows + i * stride, stride, (int)smaller(6, count - i), panels + c * units, width,
                 scores + i * tokens + c, tokens, 0);
    }
  }
}

/* The same rows as right factor of dx: units of vocabulary rows by columns of d. */
static __attribute__((unused)) const thimble_word_alias* cross_entropy_aa0a962c950499ea_weight_columns(const cross_entropy_aa0a962c950499ea_input* in, int64_t first, int64_t count,
    const thimble_word_alias* rows, int64_t* stride, thimble_word_alias* area) {
#if UNIT_bf16 == 1
  (void)in; (void)first; (void)count; (void)area; (void)stride;
  return rows;
#else
  (void)rows;
  *stride = in->padded;
  for (int64_t i = 0; i < count; i += 2)
    for (int64_t k = 0; k < in->padded; k += 256) {
      int64_t present = larger(0, smaller(256, in->depth - k));
      thimble_word_alias* out = area + i / 2 * in->padded + k;
      if (present) thimble_bf16_bf16_columns(in->w, (first + i) * in->sw + k, in->sw, smaller(2, count - i), present, out);
      for (int64_t j = present; j < smaller(256, in->padded - k); j++) out[j] = 0;
    }
  return area;
#endif
}

/* Moves the labels' logits out of the block, leaving minus infinity. */
static void cross_entropy_aa0a962c950499ea_take_labels(const int32_t* list, int64_t valid, int64_t tokens, const int32_t* labels, int64_t first,
                                int64_t count, float* scores, float* label_logits) {
  for (int64_t t = 0; t < tokens; t++) {
    int64_t v = labels[list[smaller(t, valid - 1)]] - first;
    if (v < 0 || v >= count) continue;
    if (t < valid) label_logits[t] = scores[v * tokens + t];
    scores[v * tokens + t] = -__builtin_inff();
  }
}

/* Scores as factors of the second product: f32, or rounded to bf16, or pairs of bf16 of neighbouring v. */
INLINE void cross_entropy_aa0a962c950499ea_put(float* scores, int64_t tokens, int64_t v, int64_t t, vf low, vf high) {
#if UNIT_bf16 == 2
  vu bits = (thimble_round_bf16(low) >> 16) | thimble_round_bf16(high);
  store_u32(scores + v / 2 * tokens + t, bits);
#else
  store_f32(scores + v * tokens + t, round_bf16(low));
  store_f32(scores + (v + 1) * tokens + t, round_bf16(high));
#endif
}

/* One step of the running softmax over the vocabulary, for every token: maximum, sum, and scores become exponentials. */
static void cross_entropy_aa0a962c950499ea_exponentials(float* scores, int64_t count, int64_t tokens, float* maximum, float* sum, float* scale, int keep) {
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
      if (keep) cross_entropy_aa0a962c950499ea_put(scores, tokens, v, t, low, high);
    }
    store_f32(maximum + t, top);
    store_f32(sum + t, load_f32(sum + t) * factor + part);
    store_f32(scale + t, factor);
  }
}

/* sums[token][d] = sums * scale + scores^T W, for a block of count vocabulary rows. */
static __attribute__((unused)) void cross_entropy_aa0a962c950499ea_add_rows(const float* scores, int64_t count, int64_t tokens, const thimble_word_alias* columns,
                             int64_t stride, const float* scale, float* sums, int64_t padded) {
  for (int64_t t = 0; t < tokens; t++) {
    if (scale[t] == 1.0f) continue;
    for (int64_t k = 0; k < padded; k += 16) store_f32(sums + t * padded + k, load_f32(sums + t * padded + k) * splat_f(scale[t]));
  }
  for (int64_t t = 0; t < tokens; t += 6)
    for (int64_t k = 0; k < padded; k += PANEL)
      thimble_micro_bf16_strip((int)smaller(PANEL, padded - k), (count + UNIT_bf16 - 1) / UNIT_bf16, scores + t, tokens, 6, columns + k, stride,
                   sums + t * padded + k, padded, 1);
}


static void cross_entropy_aa0a962c950499ea_group(const cross_entropy_aa0a962c950499ea_input* in, const cross_entropy_aa0a962c950499ea_plan* plan, const int32_t* list, int64_t valid, const int32_t* labels,
                          int64_t begin, int64_t end, float* maximum, float* sum, float* label_logits, thimble_word_alias* own, float* sums) {
  int64_t tokens = (valid + 15) / 16 * 16;
  thimble_word_alias *panels = own, *area = own + plan->panels;
  float* scores = (float*)(area + 2 * plan->weights);
  float tops[256] __attribute__((aligned(64))), totals[256] __attribute__((aligned(64))), scale[256] __attribute__((aligned(64)));
  for (int64_t t = 0; t < tokens; t++) {
    tops[t] = -__FLT_MAX__;
    totals[t] = 0;
  }
  __builtin_memset(sums, 0, (size_t)((tokens + 6) * in->padded) * 4);
  cross_entropy_aa0a962c950499ea_pack_x(in, list, valid, tokens, panels);
  for (int64_t first = begin; first < end; first += 192) {
    int64_t count = smaller(192, end - first), stride;
    const thimble_word_alias* rows = cross_entropy_aa0a962c950499ea_weight_rows(in, first, count, area, &stride);
    cross_entropy_aa0a962c950499ea_logits(in, rows, stride, count, panels, tokens, scores);
    cross_entropy_aa0a962c950499ea_take_labels(list, valid, tokens, labels, first, count, scores, label_logits);
    cross_entropy_aa0a962c950499ea_exponentials(scores, count, tokens, tops, totals, scale, 1);
    const thimble_word_alias* columns = cross_entropy_aa0a962c950499ea_weight_columns(in, first, count, rows, &stride, area + plan->weights);
    cross_entropy_aa0a962c950499ea_add_rows(scores, count, tokens, columns, stride, scale, sums, in->padded);
  }
  for (int64_t t = 0; t < valid; t++) {
    maximum[t] = tops[t];
    sum[t] = totals[t];
  }
}

static void cross_entropy_aa0a962c950499ea_finish(const int64_t* w, const cross_entropy_aa0a962c950499ea_input* in, const cross_entropy_aa0a962c950499ea_plan* plan, int64_t row, const float* maximum, const float* sum,
                           float label_logit, const float* sums, int64_t pitch, float* buffer) {
  int64_t N = w[0];
  const int32_t* labels = (const int32_t*)w[8];
  float weight = ((const float*)w[9])[row], top = label_logit, others = 0;
  (void)in; (void)sums; (void)pitch; (void)buffer; (void)labels;
  for (int64_t s = 0; s < plan->slices; s++) top = maximum[s * N] > top ? maximum[s * N] : top;
  for (int64_t s = 0; s < plan->slices; s++) others += sum[s * N] * exp_f(splat_f(maximum[s * N] - top))[0];
  float total = others + exp_f(splat_f(label_logit - top))[0], logarithm = log_f(splat_f(total))[0];
  /* 1 - p of the label, without cancellation. */
  float miss = others / total;
  ((float*)w[10])[row] = weight * ((top - label_logit) + logarithm);
  (void)miss;

  float* label_row = buffer;
  for (int64_t k = 0; k < in->depth; k += 256)
    thimble_bf16_bf16_values(in->w, labels[row] * in->sw + k, smaller(256, in->depth - k), label_row + k);
  char* out = (char*)w[11] + row * w[12] * 4;
  for (int64_t k = 0; k < in->depth; k += 16) {
    int n = (int)smaller(16, in->depth - k);
    vf value = splat_f(-miss) * load_f32_n(label_row + k, n);
    for (int64_t s = 0; s < plan->slices; s++) {
      vf factor = splat_f(exp_f(splat_f(maximum[s * N] - top))[0] / total);
      value = fma_f(factor, load_f32_n(sums + s * pitch + k, n), value);
    }
    store_f32_n(out + k * 4, value * splat_f(weight), n);
  }
}

EXPORT void cross_entropy_aa0a962c950499ea(const int64_t* w, Context* context) {
  int64_t N = w[0], thread = context->thread, threads = context->threads, V = w[2];
  cross_entropy_aa0a962c950499ea_plan plan = cross_entropy_aa0a962c950499ea_make_plan(N, w[1]);
  cross_entropy_aa0a962c950499ea_input in = {(const char*)w[4], (const char*)w[6], w[5], w[7], w[1], plan.padded, V};
  const int32_t* labels = (const int32_t*)w[8];
  const float* weights = (const float*)w[9];
  float* workspace = (float*)((w[3] + 63) / 64 * 64);
  int32_t* list = (int32_t*)workspace;
  float *label_logits = workspace + N, *maximum = label_logits + N, *sum = maximum + plan.slices * N, *partial = workspace + plan.states;
  thimble_word_alias* own = (thimble_word_alias*)(partial + plan.partial + thread * plan.private);
  float* sums = (float*)own + plan.private - plan.padded - plan.sums;
  float* buffer = (float*)own + plan.private - plan.padded;
  int64_t active = 0, begin, end;
  /* Every thread makes the same list: counting is cheaper than waiting. Only thread 0's is kept. */
  for (int64_t row = 0; row < N; row++) {
    if (weights[row] == 0.0f || labels[row] < 0 || labels[row] >= V) continue;
    if (thread == 0) list[active] = (int32_t)row;
    active++;
  }
  share(N, 1, thread, threads, &begin, &end);
  for (int64_t row = begin; row < end; row++) {
    if (!(weights[row] == 0.0f || labels[row] < 0 || labels[row] >= V)) continue;
    ((float*)w[10])[row] = 0;
    __builtin_memset((char*)w[11] + row * w[12] * 4, 0, (size_t)in.depth * 4);
  }
  barrier(context);
  int64_t units = (active + 15) / 16;
  share(units * plan.slices, 1, thread, threads, &begin, &end);
  for (int64_t slice = 0; slice < plan.slices; slice++) {
    int64_t from = larger(begin - slice * units, 0) * 16, to = smaller(smaller(end - slice * units, units) * 16, active);
    if (to <= from) continue;
    int64_t low, high, groups = (to - from + plan.tokens - 1) / plan.tokens;
    int64_t size = ((to - from + groups - 1) / groups + 15) / 16 * 16;
    share(V, 192, slice, plan.slices, &low, &high);
    for (int64_t t = from; t < to; t += size) {
      int64_t valid = smaller(size, to - t);
      cross_entropy_aa0a962c950499ea_group(&in, &plan, list + t, valid, labels, low, high, maximum + slice * N + t, sum + slice * N + t, label_logits + t, own, sums);
      for (int64_t i = 0; i < valid; i++) {
        if (plan.slices == 1)
          cross_entropy_aa0a962c950499ea_finish(w, &in, &plan, list[t + i], maximum + t + i, sum + t + i, label_logits[t + i], sums + i * in.padded, 0, buffer);
        else if (plan.partial)
          __builtin_memcpy(partial + (slice * N + t + i) * in.padded, sums + i * in.padded, (size_t)in.padded * 4);
      }
    }
  }
  if (plan.slices > 1) {
    barrier(context);
    share(active, 1, thread, threads, &begin, &end);
    for (int64_t t = begin; t < end; t++)
      cross_entropy_aa0a962c950499ea_finish(w, &in, &plan, list[t], maximum + t, sum + t, label_logits[t], partial + t * in.padded, N * in.padded, buffer);
  }
}

#endif

EXPORT void loops_9268f184be81a9d6(const int64_t* arguments, Context* context) {
  const char* in0 = (const char*)(uintptr_t)arguments[0]; (void)in0;
  char* out0 = (char*)(uintptr_t)arguments[1]; (void)out0;
  const int64_t s0 = arguments[2];
  if (context->thread == 0) {
    vf v0_sum0 = splat_f(0.0f), v0_sum1 = splat_f(0.0f), v0_sum2 = splat_f(0.0f), v0_sum3 = splat_f(0.0f);
    {
      int64_t i0 = 0;
      const int64_t i0_end = s0;
      for (; i0 + 64 <= i0_end; i0 += 16) {
        {
          const vf v1 = load_f32(in0 + (i0) * 4);
          v0_sum0 = v0_sum0 + v1;
        }
        i0 += 16;
        {
          const vf v1 = load_f32(in0 + (i0) * 4);
          v0_sum1 = v0_sum1 + v1;
        }
        i0 += 16;
        {
          const vf v1 = load_f32(in0 + (i0) * 4);
          v0_sum2 = v0_sum2 + v1;
        }
        i0 += 16;
        {
          const vf v1 = load_f32(in0 + (i0) * 4);
          v0_sum3 = v0_sum3 + v1;
        }
      }
      for (; i0 + 16 <= i0_end; i0 += 16) {
        const vf v1 = load_f32(in0 + (i0) * 4);
        v0_sum0 = v0_sum0 + v1;
      }
      if (i0 < i0_end) {
        const int n = (int)(i0_end - i0); (void)n;
        const vf v1 = load_f32_n(in0 + (i0) * 4, n);
        v0_sum0 = v0_sum0 + select_f(first_lanes(n), v1, splat_f(0.0f));
      }
    }
    const vf v0 = splat_f(sum_lanes(((v0_sum0 + v0_sum1) + (v0_sum2 + v0_sum3))));
    store_f32_n(out0 + (0) * 4, v0, 1);
  }
}

// cross_entropy_aa0a962c950499ea(48, 96, 320, @71040, @0, 96, @9216, 96, @70656, @70848, @1383744, @1365312, 96, 0, 0)
// loops_9268f184be81a9d6(@1383744, @71040, 48)
