import { microKernels } from "./contraction-micro.js";
import { contentHash, once } from "./contraction-name.js";
import { readerName, readers } from "./contraction-operand.js";
import { packing } from "./contraction-shared.js";
import type { KernelSource } from "./contraction-types.js";
import { logitFunctions } from "./cross-entropy-blocks.js";
import { vocabularyBlock, weightGradientPlan } from "./cross-entropy-plan.js";
import type { WeightGradientArguments, WeightGradientSpec } from "./cross-entropy-types.js";

/** The kernel's arguments in their order. */
export function weightGradientArguments<Word>(values: WeightGradientArguments<Word>): Word[] {
  const { rows, depth, vocabulary, workspace, x, weight, labels, rowWeights } = values;
  const { normalizer, miss, weightGradient } = values;
  return [
    ...[rows, depth, vocabulary, workspace],
    ...[x.address, x.rowStride, weight.address, weight.rowStride],
    ...[labels, rowWeights, normalizer, miss],
    ...[weightGradient.address, weightGradient.rowStride],
  ];
}

/** The C of the gradient by the weight. Equal specs give equal names; sizes and addresses are arguments. */
export function renderWeightGradient({ x, weight, compute }: WeightGradientSpec): KernelSource {
  const spec = { x, weight, compute };
  const name = `cross_entropy_weight_${contentHash(JSON.stringify(spec))}`;
  const source = [
    microKernels,
    packing,
    readers({ dtype: spec.x }, spec.compute),
    readers(spec.weight, spec.compute),
    weightGradientPlan(name, spec),
    logitFunctions(name, spec),
    weightGradientSource(name, spec),
  ].join("\n");
  return { name, source: once(name, source) };
}

/**
 * dW, one block of vocabulary rows at a time: its logits again, now normalised, times the rows of x in order. Threads
 * share out the vocabulary.
 */
function weightGradientSource(name: string, spec: WeightGradientSpec): string {
  return String.raw`
/* Probabilities times row weights, with the label's entry replaced: left factor [v][units of tokens], in place. */
static void ${name}_probabilities(float* scores, int64_t count, int64_t tokens, const int32_t* list, int64_t valid,
                                  const int32_t* labels, const float* weights, const float* norms, const float* misses, int64_t first) {
  for (int64_t t = 0; t < tokens; t += 16) {
    thimble_lanes norm, weight;
    for (int i = 0; i < 16; i++) {
      norm.lane_f[i] = t + i < valid ? norms[list[t + i]] : 0.0f;
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
    if (v >= 0 && v < count) scores[v * tokens + t] = -misses[list[t]] * weights[list[t]];
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

EXPORT void ${name}(const int64_t* w, Context* context) {
  int64_t N = w[0], thread = context->thread, threads = context->threads;
  ${name}_plan shape = ${name}_make_plan(N, w[1]), *plan = &shape;
  ${name}_input source = {(const char*)w[4], (const char*)w[6], w[5], w[7], w[1], shape.padded, w[2]}, *in = &source;
  const int32_t* labels = (const int32_t*)w[8];
  const float *weights = (const float*)w[9], *norms = (const float*)w[10], *misses = (const float*)w[11];
  float* workspace = (float*)((w[3] + 63) / 64 * 64);
  int32_t* list = (int32_t*)workspace;
  int64_t active = 0;
  /* Every thread makes the same list: counting is cheaper than waiting. Only thread 0's is kept. */
  for (int64_t row = 0; row < N; row++) {
    if (weights[row] == 0.0f || labels[row] < 0 || labels[row] >= in->V) continue;
    if (thread == 0) list[active] = (int32_t)row;
    active++;
  }
  barrier(context);
  thimble_word_alias *panels = (thimble_word_alias*)(workspace + plan->list + thread * plan->private);
  thimble_word_alias *right = panels + plan->panels, *area = right + plan->panels;
  float *scores = (float*)(area + plan->weights), *sums = scores + plan->scores;
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
      ${name}_probabilities(scores, count, tokens, list + t, valid, labels, weights, norms, misses, first);
      for (int64_t v = 0; v < count; v += 6)
        for (int64_t k = 0; k < in->padded; k += PANEL)
          thimble_micro_${spec.compute}_row((int)smaller(PANEL, in->padded - k), tokens / UNIT_${spec.compute}, scores + v * tokens, tokens, (int)smaller(6, count - v),
                     right + k, in->padded, sums + v * in->padded + k, in->padded, 1);
    }
    for (int64_t v = 0; v < count; v++)
      for (int64_t k = 0; k < in->depth; k += 16)
        store_f32_n((float*)w[12] + (first + v) * w[13] + k, load_f32(sums + v * in->padded + k), (int)smaller(16, in->depth - k));
  }
}`;
}
