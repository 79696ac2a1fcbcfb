import { readerName } from "./contraction-operand.js";
import { vocabularyBlock } from "./cross-entropy-plan.js";
import type { CrossEntropySpec } from "./cross-entropy-types.js";

/**
 * dW, one block of vocabulary rows at a time: its logits again, now normalised, times the rows of x in order. Threads
 * share out the vocabulary.
 */
export function weightGradientSource(name: string, spec: CrossEntropySpec): string {
  return String.raw`
/* Probabilities times row weights, with the label's entry replaced: left factor [v][units of tokens], in place. */
static void ${name}_probabilities(float* scores, int64_t count, int64_t tokens, const int32_t* list, int64_t valid,
                                  const int32_t* labels, const float* weights, const float* norms, const float* misses, int64_t first) {
  for (int64_t t = 0; t < tokens; t += 16) {
    thimble_lanes norm, weight;
    for (int i = 0; i < 16; i++) {
      norm.lane_f[i] = t + i < valid ? norms[t + i] : 0.0f;
      weight.lane_f[i] = t + i < valid ? weights[list[t + i]] : 0.0f;
    }
    vi present = first_lanes((int)smaller(16, valid - t));
    for (int64_t v = 0; v < count; v++) {
      float* p = scores + v * tokens + t;
      store_f32(p, select_f(present, exp_f(load_f32(p) - norm.f) * weight.f, splat_f(0.0f)));
    }
  }
  for (int64_t t = 0; t < valid; t++) {
    int64_t v = labels[list[t]] - first;
    if (v >= 0 && v < count) scores[v * tokens + t] = -misses[t] * weights[list[t]];
  }
${
  spec.compute === "f32"
    ? ""
    : String.raw`#if UNIT_${spec.compute} == 2
  for (int64_t v = 0; v < count; v++) thimble_pairs(scores + v * tokens, tokens, (thimble_word_alias*)scores + v * tokens);
#else
  thimble_round_all(scores, count * tokens);
#endif
`
}}

/* Rows of x as right factor: units of tokens by columns of d. */
static void ${name}_x_rows(const ${name}_input* in, const int32_t* list, int64_t valid, int64_t tokens, thimble_word_alias* out) {
  for (int64_t t = 0; t < tokens; t += UNIT_${spec.compute})
    for (int64_t k = 0; k < in->padded; k += 256) {
      int64_t present = t < valid ? larger(0, smaller(256, in->depth - k)) : 0;
      thimble_word_alias* words = out + t / UNIT_${spec.compute} * in->padded + k;
      if (present) {
        int64_t row = list[t] * in->sx, other = t + 1 < valid ? list[t + 1] * in->sx : row;
        ${readerName({ dtype: spec.x }, spec.compute)}_columns(in->x, row + k, other - row, smaller(UNIT_${spec.compute}, valid - t), present, words);
      }
      for (int64_t j = present; j < smaller(256, in->padded - k); j++) words[j] = 0;
    }
}

static void ${name}_weight_gradient(const int64_t* w, const ${name}_input* in, const ${name}_plan* plan, const int32_t* list,
                                    int64_t active, const float* norms, const float* misses, thimble_word_alias* own,
                                    int64_t thread, int64_t threads) {
  const int32_t* labels = (const int32_t*)w[8];
  const float* weights = (const float*)w[9];
  thimble_word_alias *panels = own, *right = own + plan->panels, *area = right + plan->panels;
  float *scores = (float*)(area + 2 * plan->weights), *sums = scores + plan->scores;
  int64_t begin, end;
  share(in->V, 6, thread, threads, &begin, &end);
  for (int64_t first = begin; first < end; first += ${vocabularyBlock}) {
    int64_t count = smaller(${vocabularyBlock}, end - first), stride;
    const thimble_word_alias* rows = ${name}_weight_rows(in, first, count, area, &stride);
    __builtin_memset(sums, 0, (size_t)(${vocabularyBlock} * in->padded) * 4);
    for (int64_t t = 0; t < active; t += plan->tokens) {
      int64_t valid = smaller(plan->tokens, active - t), tokens = (valid + 15) / 16 * 16;
      ${name}_pack_x(in, list + t, valid, tokens, panels);
      ${name}_x_rows(in, list + t, valid, tokens, right);
      ${name}_logits(in, rows, stride, count, panels, tokens, scores);
      ${name}_probabilities(scores, count, tokens, list + t, valid, labels, weights, norms + t, misses + t, first);
      for (int64_t v = 0; v < count; v += 6)
        for (int64_t k = 0; k < in->padded; k += PANEL)
          thimble_micro_${spec.compute}_row((int)smaller(PANEL, in->padded - k), tokens / UNIT_${spec.compute}, scores + v * tokens, tokens, (int)smaller(6, count - v),
                     right + k, in->padded, sums + v * in->padded + k, in->padded, 1);
    }
    for (int64_t v = 0; v < count; v++)
      for (int64_t k = 0; k < in->depth; k += 16)
        store_f32_n((float*)w[13] + (first + v) * w[14] + k, load_f32(sums + v * in->padded + k), (int)smaller(16, in->depth - k));
  }
}`;
}
