import { attentionCommon } from "./attention-common.js";
import { attentionFew } from "./attention-few.js";
import { attentionName, fewQueries, forwardScratch, type AttentionSpec } from "./attention.js";

/**
 * Blocks of 64 queries, as lanes, against blocks of keys, as rows, with the online softmax of FlashAttention
 * (arXiv 2205.14135): maxima, sums and rescaling are lane-wise, so nothing is reduced across lanes.
 */
function forwardBlocks(n: string, spec: AttentionSpec): string {
  const segmentTest = spec.segments ? " & (splat_i(segments[r]) == load_i32(bounds->segment + lane + 16 * v))" : "";
  return String.raw`
/* scores[r][lane] = scale * key r . query lane, -infinity where not visible; most[] keeps each lane's maximum. */
INLINE void ${n}_scores(const float* keys, const float* queries, float* scores, vf* most, float scale, int masked,
                        const ${n}_bounds* bounds, int lane, int32_t key, const int32_t* segments) {
  vf sums[${n}_R][${n}_NV];
  (void)segments;
  ${n}_core(sums, ${n}_NV, ${n}_PAIRS, keys, ${n}_WORDS, 1, queries, ${n}_PANEL, ${n}_DW);
  for (int r = 0; r < ${n}_R; r++)
    for (int v = 0; v < ${n}_NV; v++) {
      vf score = sums[r][v] * splat_f(scale);
      if (masked) {
        const vi lower = load_i32(bounds->lower + lane + 16 * v);
        const vu span = load_u32(bounds->span + lane + 16 * v);
        score = select_f(((vu)(splat_i(key + r) - lower) <= span)${segmentTest}, score, splat_f(-__builtin_inff()));
      }
      most[v] = max_f(score, most[v]);
      store_f32(scores + r * ${n}_PANEL + 16 * v, score);
    }
}
static void ${n}_scores_all(const float* keys, const float* queries, float* scores, vf* most, float scale, int from, int to) {
  vf best[${n}_NV];
  for (int v = 0; v < ${n}_NV; v++) best[v] = most[v];
  for (int r = from; r < to; r += ${n}_R)
    ${n}_scores(keys + r * ${n}_WORDS, queries, scores + r * ${n}_PANEL, best, scale, 0, 0, 0, 0, 0);
  for (int v = 0; v < ${n}_NV; v++) most[v] = best[v];
}
static void ${n}_scores_part(const float* keys, const float* queries, float* scores, vf* most, float scale, int from, int to,
                             const ${n}_bounds* bounds, int lane, int32_t key, const int32_t* segments) {
  vf best[${n}_NV];
  for (int v = 0; v < ${n}_NV; v++) best[v] = most[v];
  for (int r = from; r < to; r += ${n}_R)
    ${n}_scores(keys + r * ${n}_WORDS, queries, scores + r * ${n}_PANEL, best, scale, 1, bounds, lane, key + r, segments + r);
  for (int v = 0; v < ${n}_NV; v++) most[v] = best[v];
}
/* exp(score - most) of rows from..to in place, as words, and added to the lanes' totals. */
static void ${n}_exponentials(float* scores, const vf* most, vf* total, int from, int to) {
  for (int r = from; r < to; r += 2)
    for (int v = 0; v < ${n}_NV; v++) {
      const vf low = ${n}_exp(load_f32(scores + r * ${n}_PANEL + 16 * v) - most[v]);
      const vf high = ${n}_exp(load_f32(scores + (r + 1) * ${n}_PANEL + 16 * v) - most[v]);
      total[v] = total[v] + low + high;
      if (${n}_PAIRS) {
        store_f32(scores + r / 2 * ${n}_PANEL + 16 * v, ${n}_pair(low, high));
      } else {
        store_f32(scores + r * ${n}_PANEL + 16 * v, ${n}_operand(low));
        store_f32(scores + (r + 1) * ${n}_PANEL + 16 * v, ${n}_operand(high));
      }
    }
}
/* out[d][lane] = out[d][lane] * fade + sum over keys of value[key][d] * weight[key][lane]. */
static void ${n}_weigh(float* out, const vf* fade, const float* values, const float* weights, int from, int to) {
  const int words = ${n}_PAIRS ? 2 : 1;
  for (int d = 0; d < ${n}_D; d += ${n}_R) {
    vf sums[${n}_R][${n}_NV];
    ${n}_core(sums, ${n}_NV, ${n}_PAIRS, values + from / words * ${n}_DP + d, 1, ${n}_DP, weights + from / words * ${n}_PANEL, ${n}_PANEL, (to - from) / words);
    for (int r = 0; r < ${n}_R; r++)
      for (int v = 0; v < ${n}_NV; v++) {
        float* at = out + (d + r) * ${n}_PANEL + 16 * v;
        store_f32(at, fma_f(load_f32(at), fade[v], sums[r][v]));
      }
  }
}
/* Divides by the totals, and writes rows of the output and their log-sum-exp. */
static void ${n}_finish(const ${n}_call* c, const ${n}_bounds* bounds, float* out, float* rows, const vf* most, const vf* total, int64_t batch, int64_t head, int lane) {
  const int count = (int)smaller(16, bounds->rows - lane), panel = lane / ${n}_PANEL, inner = lane % ${n}_PANEL;
  const vf zero = splat_f(0.0f);
  const vi none = *total == zero;
  const vf factor = select_f(none, zero, splat_f(1.0f) / *total);
  if (count <= 0) return;
  float* lse = c->lse + (batch * c->heads + head) * c->queries + bounds->start + lane;
  store_f32_n(lse, select_f(none, splat_f(-__builtin_inff()), *most + log_f(*total)), count);
  for (int d = 0; d < ${n}_DP; d += 16) {
    float* block = out + (panel * ${n}_DP + d) * ${n}_PANEL + inner;
    for (int i = 0; i < 16; i++) store_f32(block + i * ${n}_PANEL, load_f32(block + i * ${n}_PANEL) * factor);
    ${n}_transpose_16(block, ${n}_PANEL, rows, 16);
    for (int i = 0; i < count; i++) {
      const int64_t row = (batch * c->queries + bounds->start + lane + i) * c->heads + head;
      ${n}_store(c->out, row * ${n}_D + d, load_f32(rows + 16 * i), ${n}_D - d);
    }
  }
}

static void ${n}_block(const ${n}_call* c, float* scratch, int64_t batch, int64_t head, int64_t start) {
  float *queries = scratch, *keys = queries + ${n}_B * ${n}_DP, *values = keys + ${n}_B * ${n}_DP;
  float *out = values + ${n}_B * ${n}_DP, *scores = out + ${n}_B * ${n}_DP;
  const int64_t key_head = head / c->group, stride = c->key_heads * ${n}_D;
  ${n}_bounds bounds;
  vf most[4], total[4];
  ${n}_bound(c, batch, start, &bounds);
  ${n}_rows(keys, c->q, ((batch * c->queries + start) * c->heads + head) * ${n}_D, c->heads * ${n}_D, bounds.rows);
  ${n}_panels(queries, keys);
  for (int v = 0; v < 4; v++) most[v] = splat_f(-__builtin_inff()), total[v] = splat_f(0.0f);
  for (int i = 0; i < ${n}_B * ${n}_DP; i += 16) store_f32(out + i, splat_f(0.0f));

  const int64_t first = ${n}_first(c, start + c->offset), last = ${n}_last(c, start + bounds.rows - 1 + c->offset);
  for (int64_t at = first / ${n}_B * ${n}_B; at <= last; at += ${n}_B) {
    const int count = (int)smaller(${n}_B, c->length - at);
    const int same = ${n}_segments_meet(c, &bounds, batch, at, count);
    if (same == ${n}_NONE) continue;
    const int64_t source = ((batch * c->keys + at) * c->key_heads + key_head) * ${n}_D;
    ${n}_rows(keys, c->k, source, stride, count);
    ${n}_summed_rows(values, c->v, source, stride, count);
    int32_t segments[${n}_B];
    for (int j = 0; j < ${n}_B; j++) segments[j] = ${spec.segments ? "j < count ? c->segments[batch * c->keys + at + j] : -3" : "0"};
    for (int panel = 0; panel < ${n}_PANELS; panel++) {
      const int lane = panel * ${n}_PANEL, end = lane + ${n}_PANEL - 1;
      const int64_t lead = start + c->offset + smaller(lane, bounds.rows - 1), tail = start + c->offset + smaller(end, bounds.rows - 1);
      const int from = (int)larger(0, ${n}_first(c, lead) - at) / ${n}_R * ${n}_R;
      const int to = (int)smaller(${n}_TILES, (${n}_last(c, tail) - at + ${n}_R) / ${n}_R) * ${n}_R;
      if (lane >= bounds.rows || to <= from) continue;
      const float* panel_queries = queries + panel * ${n}_WORDS * ${n}_PANEL;
      vf *best = most + lane / 16, *sum = total + lane / 16, before[${n}_NV], base[${n}_NV], fade[${n}_NV];
      for (int v = 0; v < ${n}_NV; v++) before[v] = best[v];
      if (same == ${n}_ALL && ${n}_meets(c, &bounds, lane, end, at + from, at + to - 1) == ${n}_ALL)
        ${n}_scores_all(keys, panel_queries, scores, best, c->scale, from, to);
      else
        ${n}_scores_part(keys, panel_queries, scores, best, c->scale, from, to, &bounds, lane, (int32_t)at, segments);
      for (int v = 0; v < ${n}_NV; v++) {
        base[v] = select_f(best[v] == splat_f(-__builtin_inff()), splat_f(0.0f), best[v]);
        fade[v] = ${n}_exp(before[v] - base[v]);
        sum[v] = sum[v] * fade[v];
      }
      ${n}_exponentials(scores, base, sum, from, to);
      ${n}_weigh(out + panel * ${n}_DP * ${n}_PANEL, fade, values, scores, from, to);
    }
  }
  for (int lane = 0; lane < ${n}_B; lane += 16)
    ${n}_finish(c, &bounds, out, scores, most + lane / 16, total + lane / 16, batch, head, lane);
}
`;
}

/** The forward kernel of a spec. It needs the prelude before it. */
export function renderAttention(spec: AttentionSpec): { name: string; source: string } {
  const n = attentionName("forward", spec);
  const entry = String.raw`
EXPORT void ${n}(const int64_t* words, Context* context) {
  const ${n}_call c = ${n}_arguments(words);
  ${n}_open(&c, context);
  if (c.queries <= ${fewQueries}) {
    ${n}_few(&c, context);
    return;
  }
  float* scratch = (float*)(c.workspace + 64) + (int64_t)context->thread * ${forwardScratch(spec)};
  const int64_t pairs = c.batch * c.heads, blocks = (c.queries + ${n}_B - 1) / ${n}_B;
  /* The last blocks of queries see most keys: they come first, so that only short tasks are left at the end. */
  for (int64_t task = ${n}_next(&c); task < pairs * blocks; task = ${n}_next(&c))
    ${n}_block(&c, scratch, task % pairs / c.heads, task % pairs % c.heads, (blocks - 1 - task / pairs) * ${n}_B);
}
`;
  return { name: n, source: [attentionCommon(n, spec), forwardBlocks(n, spec), attentionFew(n, spec), entry].join("") };
}
