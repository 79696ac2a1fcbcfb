import { attentionCommon } from "./attention-common.js";
import { attentionFew } from "./attention-few.js";
import { attentionName, fewQueries, forwardScratch, forwardSlots as slots, type AttentionSpec } from "./attention.js";

/**
 * Blocks of 64 queries, as lanes, against blocks of keys, as rows, with the online softmax of FlashAttention
 * (arXiv 2205.14135): maxima, sums and rescaling are lane-wise, so nothing is reduced across lanes.
 */
function forwardBlocks(n: string, spec: AttentionSpec): string {
  const segmentTest = spec.segments ? " & (splat_i(segments[r]) == load_i32(bounds->segment + lane + 16 * v))" : "";
  return String.raw`
/* scores[r][lane] = log2(e) scale * key r . query lane, -infinity where not visible; most[] keeps each lane's maximum. */
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
/* 2^(score - most) of rows from..to in place, as words, and added to the lanes' totals. */
static void ${n}_exponentials(float* scores, const vf* most, vf* total, int from, int to) {
  for (int r = from; r < to; r += 2)
    for (int v = 0; v < ${n}_NV; v++) {
      const vf low = ${n}_exp2(load_f32(scores + r * ${n}_PANEL + 16 * v) - most[v]);
      const vf high = ${n}_exp2(load_f32(scores + (r + 1) * ${n}_PANEL + 16 * v) - most[v]);
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
  /* The maximum times ln 2, in two parts: the product is as exact as the sum. */
  const vf natural = fma_f(*most, splat_f(0.693145752f), fma_f(*most, splat_f(1.42860677e-6f), log_f(*total)));
  store_f32_n(lse, select_f(none, splat_f(-__builtin_inff()), natural), count);
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

/* One head's block of queries under way. */
typedef struct {
  ${n}_bounds bounds;
  vf most[4], total[4];
  float *queries, *out;
  int64_t head, first, last;
} ${n}_slot;

static void ${n}_begin(const ${n}_call* c, ${n}_slot* slot, float* rows, int64_t batch, int64_t head, int64_t start) {
  ${n}_bounds* bounds = &slot->bounds;
  ${n}_bound(c, batch, start, bounds);
  slot->head = head;
  slot->first = ${n}_first(c, start + c->offset);
  slot->last = ${n}_last(c, start + bounds->rows - 1 + c->offset);
  ${n}_rows(rows, c->q, ((batch * c->queries + start) * c->heads + head) * ${n}_D, c->heads * ${n}_D, bounds->rows);
  ${n}_panels(slot->queries, rows);
  for (int v = 0; v < 4; v++) slot->most[v] = splat_f(-__builtin_inff()), slot->total[v] = splat_f(0.0f);
  for (int i = 0; i < ${n}_B * ${n}_DP; i += 16) store_f32(slot->out + i, splat_f(0.0f));
}

/* A block of queries against the loaded block of keys at "at". */
static void ${n}_meet(const ${n}_call* c, ${n}_slot* slot, const float* keys, const float* values, float* scores, int64_t at, int same, const int32_t* segments) {
  const ${n}_bounds* bounds = &slot->bounds;
  const int64_t start = bounds->start + c->offset;
  for (int panel = 0; panel < ${n}_PANELS; panel++) {
    const int lane = panel * ${n}_PANEL, end = lane + ${n}_PANEL - 1;
    const int64_t lead = start + smaller(lane, bounds->rows - 1), tail = start + smaller(end, bounds->rows - 1);
    const int from = (int)larger(0, ${n}_first(c, lead) - at) / ${n}_R * ${n}_R;
    const int to = (int)smaller(${n}_TILES, (${n}_last(c, tail) - at + ${n}_R) / ${n}_R) * ${n}_R;
    if (lane >= bounds->rows || to <= from) continue;
    const float* queries = slot->queries + panel * ${n}_WORDS * ${n}_PANEL;
    vf *best = slot->most + lane / 16, *sum = slot->total + lane / 16, before[${n}_NV], base[${n}_NV], fade[${n}_NV];
    for (int v = 0; v < ${n}_NV; v++) before[v] = best[v];
    if (same == ${n}_ALL && ${n}_meets(c, bounds, lane, end, at + from, at + to - 1) == ${n}_ALL)
      ${n}_scores_all(keys, queries, scores, best, c->scale2, from, to);
    else
      ${n}_scores_part(keys, queries, scores, best, c->scale2, from, to, bounds, lane, (int32_t)at, segments);
    for (int v = 0; v < ${n}_NV; v++) {
      base[v] = select_f(best[v] == splat_f(-__builtin_inff()), splat_f(0.0f), best[v]);
      fade[v] = ${n}_exp2(before[v] - base[v]);
      sum[v] = sum[v] * fade[v];
    }
    ${n}_exponentials(scores, base, sum, from, to);
    ${n}_weigh(slot->out + panel * ${n}_DP * ${n}_PANEL, fade, values, scores, from, to);
  }
}

/* Blocks of queries from "start" of heads from "head", all with the same head of keys: a block of keys and values is loaded once for all. */
static void ${n}_blocks(const ${n}_call* c, float* scratch, int64_t batch, int64_t head, int64_t heads, int64_t start, int64_t blocks) {
  float *keys = scratch, *values = keys + ${n}_B * ${n}_DP, *scores = values + ${n}_B * ${n}_DP;
  ${n}_slot slots[${slots}];
  int count = 0;
  int64_t first = INT64_MAX, last = -1;
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t h = 0; h < heads; h++) {
      ${n}_slot* slot = &slots[count];
      slot->queries = scores + ${n}_B * 32 + 2 * count++ * ${n}_B * ${n}_DP;
      slot->out = slot->queries + ${n}_B * ${n}_DP;
      ${n}_begin(c, slot, keys, batch, head + h, start + block * ${n}_B);
      first = smaller(first, slot->first);
      last = larger(last, slot->last);
    }
  const int64_t key_head = head / c->group, stride = c->key_heads * ${n}_D;
  for (int64_t at = first / ${n}_B * ${n}_B; at <= last; at += ${n}_B) {
    const int rows = (int)smaller(${n}_B, c->length - at);
    int32_t segments[${n}_B];
    int loaded = 0;
    for (int i = 0; i < count; i++) {
      if (at + ${n}_B <= slots[i].first || at > slots[i].last) continue;
      const int same = ${n}_segments_meet(c, &slots[i].bounds, batch, at, rows);
      if (same == ${n}_NONE) continue;
      if (!loaded) {
        const int64_t source = ((batch * c->keys + at) * c->key_heads + key_head) * ${n}_D;
        ${n}_rows(keys, c->k, source, stride, rows);
        ${n}_summed_rows(values, c->v, source, stride, rows);
        for (int j = 0; j < ${n}_B; j++) segments[j] = ${spec.segments ? "j < rows ? c->segments[batch * c->keys + at + j] : -3" : "0"};
        loaded = 1;
      }
      ${n}_meet(c, &slots[i], keys, values, scores, at, same, segments);
    }
  }
  for (int i = 0; i < count; i++)
    for (int lane = 0; lane < ${n}_B; lane += 16)
      ${n}_finish(c, &slots[i].bounds, slots[i].out, scores, slots[i].most + lane / 16, slots[i].total + lane / 16, batch, slots[i].head, lane);
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
  /* Heads that share keys go together, and blocks of queries where such heads are few, as long as there is work for all threads. */
  const int64_t blocks = (c.queries + ${n}_B - 1) / ${n}_B, many = c.batch * c.key_heads * blocks >= 8 * context->threads;
  const int64_t heads = many ? smaller(c.group, ${slots}) : 1, together = many && heads <= ${slots / 2} ? 2 : 1;
  const int64_t parts = (c.group + heads - 1) / heads, rows = c.batch * c.key_heads * parts, steps = (blocks + together - 1) / together;
  /* The last blocks of queries see most keys: they come first, so that only short tasks are left at the end. */
  for (int64_t task = ${n}_next(&c); task < rows * steps; task = ${n}_next(&c)) {
    const int64_t row = task % rows, part = row % parts * heads, block = (steps - 1 - task / rows) * together;
    const int64_t head = row / parts % c.key_heads * c.group + part;
    ${n}_blocks(&c, scratch, row / parts / c.key_heads, head, smaller(heads, c.group - part), block * ${n}_B, smaller(together, blocks - block));
  }
}
`;
  return { name: n, source: [attentionCommon(n, spec), forwardBlocks(n, spec), attentionFew(n, spec), entry].join("") };
}
