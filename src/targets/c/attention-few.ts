import { fewKeys, fewQueries, paddedHead, type AttentionSpec } from "./attention.js";

/**
 * The path for a few queries against many keys (decoding): bound by reading keys and values once. A task is one head
 * of keys, with all its queries, over a split of 512 keys; the splits are combined afterwards, in their order.
 */
export function attentionFew(n: string, spec: AttentionSpec): string {
  const rowFloats = paddedHead(spec) + 16;
  return String.raw`
enum { ${n}_SPLIT = ${fewKeys}, ${n}_RECORD = ${rowFloats} };
typedef struct { float *queries, *out, *scores, *values; int64_t rows; } ${n}_few_scratch;

/* scores[row][key] for keys first..last of the split that starts at base; the rest stays -infinity. */
static void ${n}_few_scores(const ${n}_call* c, const ${n}_few_scratch* s, const ${n}_bounds* bounds, int64_t batch, int64_t key_head, int64_t base, int64_t first, int64_t last) {
  const int64_t rows = c->group * c->queries;
  for (int64_t i = 0; i < s->rows * ${n}_SPLIT; i += 16) store_f32(s->scores + i, splat_f(-__builtin_inff()));
  for (int64_t j = first; j <= last; j++) {
    const int64_t at = ((batch * c->keys + j) * c->key_heads + key_head) * ${n}_D;
    vf key[${n}_DP / 16];
    for (int v = 0; v < ${n}_DP / 16; v++) key[v] = ${n}_operand(${n}_load(c->k, at + 16 * v, ${n}_D - 16 * v));
    for (int64_t row = 0; row < rows; row++) {
      const int64_t query = row % c->queries;
      if ((uint32_t)((int32_t)j - bounds->lower[query]) > (uint32_t)bounds->span[query]) continue;
${spec.segments ? "      if (c->segments[batch * c->keys + j] != bounds->segment[query]) continue;" : ""}
      vf sum = splat_f(0.0f);
      for (int v = 0; v < ${n}_DP / 16; v++) sum = fma_f(key[v], load_f32(s->queries + row * ${n}_DP + 16 * v), sum);
      s->scores[row * ${n}_SPLIT + j - base] = sum_lanes(sum) * c->scale;
    }
  }
}

/* Turns a row of scores into weights; gives the maximum and the sum of exponentials. */
static void ${n}_few_softmax(float* scores, float* record) {
  vf most = splat_f(-__builtin_inff()), total = splat_f(0.0f);
  for (int j = 0; j < ${n}_SPLIT; j += 16) most = max_f(load_f32(scores + j), most);
  const float top = max_lanes(most);
  const vf base = splat_f(top == -__builtin_inff() ? 0.0f : top);
  for (int j = 0; j < ${n}_SPLIT; j += 16) {
    const vf weight = ${n}_exp(load_f32(scores + j) - base);
    total = total + weight;
    store_f32(scores + j, ${n}_operand(weight));
  }
  record[0] = top;
  record[1] = sum_lanes(total);
}

INLINE void ${n}_few_tile(float* out, const float* weights, const float* values, int nv) {
  vf sums[${n}_R][${n}_NV];
  ${n}_core(sums, nv, 0, weights, ${n}_SPLIT, 1, values, ${n}_DP, ${n}_B);
  for (int r = 0; r < ${n}_R; r++)
    for (int v = 0; v < nv; v++) {
      float* at = out + r * ${n}_DP + 16 * v;
      store_f32(at, load_f32(at) + sums[r][v]);
    }
}

static void ${n}_few_task(const ${n}_call* c, const ${n}_few_scratch* s, float* records, int64_t batch, int64_t key_head, int64_t split, int64_t splits) {
  const int64_t rows = c->group * c->queries, base = split * ${n}_SPLIT;
  const int64_t first = larger(${n}_first(c, c->offset), base);
  const int64_t last = smaller(${n}_last(c, c->queries - 1 + c->offset), base + ${n}_SPLIT - 1);
  ${n}_bounds bounds;
  ${n}_bound(c, batch, 0, &bounds);
  for (int64_t row = 0; row < rows; row++) {
    const int64_t head = key_head * c->group + row / c->queries;
    const int64_t at = ((batch * c->queries + row % c->queries) * c->heads + head) * ${n}_D;
    for (int d = 0; d < ${n}_DP; d += 16) store_f32(s->queries + row * ${n}_DP + d, ${n}_operand(${n}_load(c->q, at + d, ${n}_D - d)));
  }
  ${n}_few_scores(c, s, &bounds, batch, key_head, base, first, last);
  float* record = records + ((batch * c->heads + key_head * c->group) * c->queries * splits + split) * ${n}_RECORD;
  for (int64_t row = 0; row < s->rows; row++) {
    float unused[2];
    ${n}_few_softmax(s->scores + row * ${n}_SPLIT, row < rows ? record + row * splits * ${n}_RECORD : unused);
  }
  for (int64_t i = 0; i < s->rows * ${n}_DP; i += 16) store_f32(s->out + i, splat_f(0.0f));
  for (int64_t at = first / ${n}_B * ${n}_B; at <= last; at += ${n}_B) {
    const int64_t source = ((batch * c->keys + at) * c->key_heads + key_head) * ${n}_D;
    for (int j = 0; j < ${n}_B; j++)
      for (int d = 0; d < ${n}_DP; d += 16)
        store_f32(s->values + j * ${n}_DP + d, at + j < c->length ? ${n}_operand(${n}_load(c->v, source + j * c->key_heads * ${n}_D + d, ${n}_D - d)) : splat_f(0.0f));
    for (int64_t row = 0; row < s->rows; row += ${n}_R) {
      const float* weights = s->scores + row * ${n}_SPLIT + at - base;
      float* out = s->out + row * ${n}_DP;
      int d = 0;
      for (; d + ${n}_PANEL <= ${n}_DP; d += ${n}_PANEL) ${n}_few_tile(out + d, weights, s->values + d, ${n}_NV);
      if (d < ${n}_DP) ${n}_few_tile(out + d, weights, s->values + d, 1);
    }
  }
  for (int64_t row = 0; row < rows; row++)
    for (int d = 0; d < ${n}_DP; d += 16) store_f32(record + row * splits * ${n}_RECORD + 16 + d, load_f32(s->out + row * ${n}_DP + d));
}

/* One row of the output from the records of its splits. */
static void ${n}_few_combine(const ${n}_call* c, const float* records, int64_t row, int64_t splits) {
  const float* record = records + row * splits * ${n}_RECORD;
  float top = -__builtin_inff();
  for (int64_t s = 0; s < splits; s++) top = record[s * ${n}_RECORD] > top ? record[s * ${n}_RECORD] : top;
  const vf base = splat_f(top == -__builtin_inff() ? 0.0f : top), zero = splat_f(0.0f);
  vf total = zero, sums[${n}_DP / 16];
  for (int v = 0; v < ${n}_DP / 16; v++) sums[v] = zero;
  for (int64_t s = 0; s < splits; s++) {
    const vf factor = ${n}_exp(splat_f(record[s * ${n}_RECORD]) - base);
    total = fma_f(factor, splat_f(record[s * ${n}_RECORD + 1]), total);
    for (int v = 0; v < ${n}_DP / 16; v++) sums[v] = fma_f(factor, load_f32(record + s * ${n}_RECORD + 16 + 16 * v), sums[v]);
  }
  const vi none = total == zero;
  const vf share_of_total = select_f(none, zero, splat_f(1.0f) / total);
  store_f32_n(c->lse + row, select_f(none, splat_f(-__builtin_inff()), base + log_f(total)), 1);
  const int64_t query = row % c->queries, head = row / c->queries % c->heads, batch = row / c->queries / c->heads;
  const int64_t at = ((batch * c->queries + query) * c->heads + head) * ${n}_D;
  for (int v = 0; v < ${n}_DP / 16; v++) ${n}_store(c->out, at + 16 * v, sums[v] * share_of_total, ${n}_D - 16 * v);
}

static void ${n}_few(const ${n}_call* c, Context* context) {
  const int64_t rows = (c->group * smaller(c->queries, ${fewQueries}) + 7) / 8 * 8, splits = (c->keys + ${n}_SPLIT - 1) / ${n}_SPLIT;
  const int64_t own = rows * (2 * ${n}_DP + ${n}_SPLIT) + ${n}_B * ${n}_DP;
  float* scratch = (float*)(c->workspace + 64) + context->thread * own;
  float* records = (float*)(c->workspace + 64) + context->threads * own;
  const ${n}_few_scratch s = {scratch, scratch + rows * ${n}_DP, scratch + 2 * rows * ${n}_DP, scratch + rows * (2 * ${n}_DP + ${n}_SPLIT), rows};
  const int64_t tasks = c->batch * c->key_heads * splits;
  for (int64_t task = ${n}_next(c); task < tasks; task = ${n}_next(c))
    ${n}_few_task(c, &s, records, task / splits / c->key_heads, task / splits % c->key_heads, task % splits, splits);
  barrier(context);
  int64_t begin, end;
  share(c->batch * c->heads * c->queries, 1, context->thread, context->threads, &begin, &end);
  for (int64_t row = begin; row < end; row++) ${n}_few_combine(c, records, row, splits);
}
`;
}
