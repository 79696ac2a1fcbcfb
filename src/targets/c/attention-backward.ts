import { attentionCommon } from "./attention-common.js";
import { attentionName, backwardScratch, writesQueryGradient, type AttentionSpec } from "./attention.js";

/** Scratch memory of a thread, the tensors of the call, and the parts of one block against another. */
function backwardBlocks(n: string, spec: AttentionSpec): string {
  const segmentTest = spec.segments ? " & (load_i32(segments + 16 * v) == splat_i(bounds->segment[row + r]))" : "";
  return String.raw`
typedef struct {
  ${n}_call base;
  const char* dout;
  char *dq, *dk, *dv;
  float* delta; /* [batch, heads, queries]: each row's sum of out * dout, the derivative of the softmax's denominator */
} ${n}_backward;

/* Rows of keys and values as panels (lanes are keys), and what is summed over rows as panels of a head's elements. */
typedef struct {
  float *key_panels, *value_panels, *summed_keys, *dk, *dv;
  float *queries, *douts, *summed_queries, *summed_douts, *dq, *rows;
  float *weights, *slopes, *dq_rows;
  /* The rows' log-sum-exp times log2(e), and delta. */
  float lse[${n}_B], delta[${n}_B];
} ${n}_scratch;

INLINE ${n}_scratch ${n}_scratch_at(float* at) {
  const int64_t block = ${n}_B * ${n}_DP;
  ${n}_scratch s = {
    .key_panels = at, .value_panels = at + block, .summed_keys = at + 2 * block, .dk = at + 3 * block, .dv = at + 4 * block,
    .queries = at + 5 * block, .douts = at + 6 * block, .summed_queries = at + 7 * block, .summed_douts = at + 8 * block,
    .dq = at + 9 * block, .rows = at + 10 * block, .weights = at + 11 * block, .slopes = at + 11 * block + ${n}_B * ${n}_B,
    .dq_rows = at + 11 * block + 2 * ${n}_B * ${n}_B,
  };
  return s;
}

/*
 * One tile of queries (rows) by keys (lanes): the softmax's weights P = exp(scale q.k - lse), and the derivative of
 * the loss by q.k, S = P * (dout.v - delta) * scale. Both go to buffers as operands of sums over queries, and S once
 * more as rows, as operand of the sum over keys.
 */
INLINE void ${n}_tile(const ${n}_call* c, const ${n}_scratch* s, const ${n}_bounds* bounds, int row, int lane, int masked, int32_t key, const int32_t* segments) {
  vf sums[${n}_R][${n}_NV], weights[${n}_R][${n}_NV];
  (void)key, (void)segments, (void)bounds;
  ${n}_core(sums, ${n}_NV, ${n}_PAIRS, s->queries + row * ${n}_WORDS, ${n}_WORDS, 1, s->key_panels + lane * ${n}_WORDS, ${n}_PANEL, ${n}_DW);
  for (int r = 0; r < ${n}_R; r++)
    for (int v = 0; v < ${n}_NV; v++) {
      vf weight = ${n}_exp2(fma_f(sums[r][v], splat_f(c->scale2), splat_f(-s->lse[row + r])));
      if (masked) {
        const vi keys = splat_i(key + 16 * v) + lanes_iota();
        const vi seen = ((vu)(keys - splat_i(bounds->lower[row + r])) <= splat_u((uint32_t)bounds->span[row + r]))${segmentTest};
        weight = select_f(seen, weight, splat_f(0.0f));
      }
      weights[r][v] = weight;
    }
  ${n}_core(sums, ${n}_NV, ${n}_PAIRS, s->douts + row * ${n}_WORDS, ${n}_WORDS, 1, s->value_panels + lane * ${n}_WORDS, ${n}_PANEL, ${n}_DW);
  for (int r = 0; r < ${n}_R; r++)
    for (int v = 0; v < ${n}_NV; v++)
      sums[r][v] = weights[r][v] * (sums[r][v] - splat_f(s->delta[row + r])) * splat_f(c->scale);
  for (int r = 0; r < ${n}_R; r += 2)
    for (int v = 0; v < ${n}_NV; v++) {
      const int at = lane + 16 * v;
      if (${n}_PAIRS) {
        store_f32(s->weights + (row + r) / 2 * ${n}_B + at, ${n}_pair(weights[r][v], weights[r + 1][v]));
        store_f32(s->slopes + (row + r) / 2 * ${n}_B + at, ${n}_pair(sums[r][v], sums[r + 1][v]));
        uint16_t* rows = (uint16_t*)(s->slopes + ${n}_B * ${n}_B / 2) + (row + r) * ${n}_B + at;
        store_bf16(rows, sums[r][v]);
        store_bf16(rows + ${n}_B, sums[r + 1][v]);
      } else {
        for (int i = r; i < r + 2; i++) {
          store_f32(s->weights + (row + i) * ${n}_B + at, ${n}_operand(weights[i][v]));
          store_f32(s->slopes + (row + i) * ${n}_B + at, ${n}_operand(sums[i][v]));
        }
      }
    }
}
static void ${n}_tile_all(const ${n}_call* c, const ${n}_scratch* s, int row, int lane) {
  ${n}_tile(c, s, 0, row, lane, 0, 0, 0);
}
static void ${n}_tile_part(const ${n}_call* c, const ${n}_scratch* s, const ${n}_bounds* bounds, int row, int lane, int32_t key, const int32_t* segments) {
  ${n}_tile(c, s, bounds, row, lane, 1, key, segments);
}

INLINE void ${n}_add_tile(float* out, int64_t stride, const float* a, int64_t rows, int64_t steps, const float* b, int64_t count, int nv) {
  vf sums[${n}_R][${n}_NV];
  ${n}_core(sums, nv, ${n}_PAIRS, a, rows, steps, b, ${n}_DP, count);
  for (int r = 0; r < ${n}_R; r++)
    for (int v = 0; v < nv; v++) {
      float* at = out + r * stride + 16 * v;
      store_f32(at, load_f32(at) + sums[r][v]);
    }
}
/* R rows of out[r][d] += sum over k of a[r * rows + k * steps] * b[k][d]. */
INLINE void ${n}_add(float* out, int64_t stride, const float* a, int64_t rows, int64_t steps, const float* b, int64_t count) {
  int d = 0;
  for (; d + ${n}_PANEL <= ${n}_DP; d += ${n}_PANEL) ${n}_add_tile(out + d, stride, a, rows, steps, b + d, count, ${n}_NV);
  if (${n}_DP % ${n}_PANEL) ${n}_add_tile(out + d, stride, a, rows, steps, b + d, count, 1);
}
/* dk or dv of R keys: a sum over queries. */
static void ${n}_add_over_queries(float* out, const float* a, const float* b, int64_t count) {
  ${n}_add(out, ${n}_DP, a, 1, ${n}_B, b, count);
}
/* dq of R queries, of which "rows" exist: a sum over keys. */
static void ${n}_add_over_keys(float* out, int64_t stride, int rows, const float* a, const float* b, int64_t count) {
  const int64_t step = ${n}_PAIRS ? ${n}_B / 2 : ${n}_B;
  if (rows >= ${n}_R) {
    ${n}_add(out, stride, a, step, 1, b, count);
    return;
  }
  float sums[${n}_R * ${n}_DP];
  for (int i = 0; i < ${n}_R * ${n}_DP; i += 16) store_f32(sums + i, splat_f(0.0f));
  ${n}_add(sums, ${n}_DP, a, step, 1, b, count);
  for (int r = 0; r < rows; r++)
    for (int d = 0; d < ${n}_DP; d += 16) store_f32(out + r * stride + d, load_f32(out + r * stride + d) + load_f32(sums + r * ${n}_DP + d));
}

/* Loads a block of keys and values. */
static void ${n}_load_keys(const ${n}_backward* c, const ${n}_scratch* s, int64_t batch, int64_t key_head, int64_t at) {
  const ${n}_call* call = &c->base;
  const int64_t source = ((batch * call->keys + at) * call->key_heads + key_head) * ${n}_D, stride = call->key_heads * ${n}_D;
  const int count = (int)smaller(${n}_B, call->length - at);
  ${n}_rows(s->rows, call->k, source, stride, count);
  ${n}_panels(s->key_panels, s->rows);
  ${n}_rows(s->rows, call->v, source, stride, count);
  ${n}_panels(s->value_panels, s->rows);
  ${n}_summed_rows(s->summed_keys, call->k, source, stride, count);
}
/* Loads a block of queries and what belongs to them; rows past the end, and rows that see nothing, get weights of 0. */
static void ${n}_load_queries(const ${n}_backward* c, ${n}_scratch* s, int64_t batch, int64_t head, int64_t start) {
  const ${n}_call* call = &c->base;
  const int64_t source = ((batch * call->queries + start) * call->heads + head) * ${n}_D, stride = call->heads * ${n}_D;
  const int count = (int)smaller(${n}_B, call->queries - start);
  ${n}_rows(s->queries, call->q, source, stride, count);
  ${n}_rows(s->douts, c->dout, source, stride, count);
  if (${n}_PAIRS) {
    ${n}_summed_rows(s->summed_queries, call->q, source, stride, count);
    ${n}_summed_rows(s->summed_douts, c->dout, source, stride, count);
  } else {
    s->summed_queries = s->queries;
    s->summed_douts = s->douts;
  }
  const int64_t row = (batch * call->heads + head) * call->queries + start;
  for (int i = 0; i < ${n}_B; i++) {
    const float lse = i < count ? call->lse[row + i] : -__builtin_inff();
    s->lse[i] = lse == -__builtin_inff() ? __builtin_inff() : (float)((double)lse * 1.4426950408889634);
    s->delta[i] = i < count ? c->delta[row + i] : 0.0f;
  }
}

/*
 * The loaded block of queries against the loaded block of keys at "at": adds to dk and dv of the block of keys, and to
 * dq, whose rows are "stride" apart.
 */
static void ${n}_pair_blocks(const ${n}_backward* c, const ${n}_scratch* s, int64_t batch, const ${n}_bounds* bounds, int64_t at, int same, float* dq, int64_t stride) {
  const ${n}_call* call = &c->base;
  const int words = ${n}_PAIRS ? 2 : 1, count = (int)smaller(${n}_B, call->length - at);
  int from[${n}_PANELS], to[${n}_PANELS];
  int32_t segments[${n}_B];
  for (int j = 0; j < ${n}_B; j++) segments[j] = ${spec.segments ? "j < count ? call->segments[batch * call->keys + at + j] : -3" : "0"};
  (void)batch, (void)count;
  for (int panel = 0; panel < ${n}_PANELS; panel++) from[panel] = to[panel] = 0;
  for (int row = 0; row < bounds->rows; row += ${n}_R) {
    int begin = ${n}_B, end = 0;
    for (int panel = 0; panel < ${n}_PANELS; panel++) {
      const int lane = panel * ${n}_PANEL;
      const int meets = ${n}_meets(call, bounds, row, row + ${n}_R - 1, at + lane, at + lane + ${n}_PANEL - 1);
      if (meets == ${n}_NONE) continue;
      if (meets == ${n}_ALL && same == ${n}_ALL) ${n}_tile_all(call, s, row, lane);
      else ${n}_tile_part(call, s, bounds, row, lane, (int32_t)at + lane, segments + lane);
      if (to[panel] == 0) from[panel] = row;
      to[panel] = row + ${n}_R;
      if (begin > lane) begin = lane;
      end = lane + ${n}_PANEL;
    }
    if (end == 0) continue;
    const float* slopes = ${n}_PAIRS ? s->slopes + ${n}_B * ${n}_B / 2 + row * ${n}_B / 2 : s->slopes + row * ${n}_B;
    ${n}_add_over_keys(dq + row * stride, stride, bounds->rows - row, slopes + begin / words, s->summed_keys + begin / words * ${n}_DP, (end - begin) / words);
  }
  for (int panel = 0; panel < ${n}_PANELS; panel++)
    for (int j = panel * ${n}_PANEL; j < (panel + 1) * ${n}_PANEL && to[panel] > 0; j += ${n}_R) {
      const int64_t first = from[panel] / words, sum = (to[panel] - from[panel]) / words;
      ${n}_add_over_queries(s->dv + j * ${n}_DP, s->weights + first * ${n}_B + j, s->summed_douts + first * ${n}_DP, sum);
      ${n}_add_over_queries(s->dk + j * ${n}_DP, s->slopes + first * ${n}_B + j, s->summed_queries + first * ${n}_DP, sum);
    }
}
`;
}

/** The work on one block of keys: a loop over blocks of queries. */
function backwardTasks(n: string, spec: AttentionSpec): string {
  const direct = writesQueryGradient(spec);
  return String.raw`
INLINE void ${n}_clear(float* at, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) store_f32(at + i, splat_f(0.0f));
}
static void ${n}_write(char* tensor, int64_t at, int64_t stride, const float* rows, int64_t count) {
  for (int64_t r = 0; r < count; r++)
    for (int d = 0; d < ${n}_DP; d += 16) ${n}_store(tensor, at + r * stride + d, load_f32(rows + r * ${n}_DP + d), ${n}_D - d);
}
/* Whether any query of a block sees any key of a block, and whether their segments are all one. */
INLINE int ${n}_visible(const ${n}_call* c, const ${n}_bounds* bounds, int64_t batch, int64_t at) {
  const int count = (int)smaller(${n}_B, c->length - at);
  if (count <= 0 || ${n}_meets(c, bounds, 0, ${n}_B - 1, at, at + count - 1) == ${n}_NONE) return ${n}_NONE;
  return ${n}_segments_meet(c, bounds, batch, at, count);
}

/* The gradient of one head of keys' group of queries while it is summed up: [group][queries], rows "stride" apart. */
typedef struct {
  float* at;
  int64_t stride, head_stride;
  /* How many blocks of keys have been added to each block of queries, where threads take turns; else 0. */
  int32_t* turns;
} ${n}_sum;

/* Looks for a while, then gives way: where threads have to share a core, the one waited for may need it. */
INLINE void ${n}_pause(int64_t looks) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
#if !defined(_WIN32)
  extern int sched_yield(void);
  if (looks > 256) sched_yield();
#else
  (void)looks;
#endif
}
INLINE void ${n}_await(const int32_t* word, int64_t value) {
  for (int64_t looks = 0; __atomic_load_n(word, __ATOMIC_ACQUIRE) != value; looks++) ${n}_pause(looks);
}

/* The blocks of keys first..last that a block of queries meets by order and window; none where first > last. */
INLINE void ${n}_range(const ${n}_call* c, const ${n}_bounds* bounds, int64_t* first, int64_t* last) {
  const int64_t end = ${n}_last(c, bounds->start + bounds->rows - 1 + c->offset);
  *first = ${n}_first(c, bounds->start + c->offset) / ${n}_B;
  *last = end < 0 ? -1 : end / ${n}_B;
}
static void ${n}_clear_queries(const ${n}_call* c, const ${n}_sum* dq, const ${n}_bounds* bounds) {
  for (int64_t g = 0; g < c->group; g++)
    for (int r = 0; r < bounds->rows; r++) ${n}_clear(dq->at + g * dq->head_stride + (bounds->start + r) * dq->stride, ${n}_DP);
}
static void ${n}_write_queries(const ${n}_backward* c, const ${n}_sum* dq, int64_t batch, int64_t key_head, const ${n}_bounds* bounds) {
  const ${n}_call* call = &c->base;
  const int64_t row = call->heads * ${n}_D, first = (batch * call->queries + bounds->start) * row + key_head * call->group * ${n}_D;
  for (int64_t g = 0; g < call->group && ${direct ? "0" : "1"}; g++)
    ${n}_write(c->dq, first + g * ${n}_D, row, dq->at + g * dq->head_stride + bounds->start * dq->stride, bounds->rows);
}

/*
 * dk and dv of one block of keys, and its part of dq: all three from five products. A block of queries gets its parts
 * in the order of keys; where other threads work on other blocks of keys, this one waits for its turn.
 */
static void ${n}_keys_task(const ${n}_backward* c, ${n}_scratch* s, int64_t batch, int64_t key_head, int64_t at, const ${n}_sum* dq) {
  const ${n}_call* call = &c->base;
  const int64_t block = at / ${n}_B;
  int loaded = 0;
  ${n}_clear(s->dk, ${n}_B * ${n}_DP);
  ${n}_clear(s->dv, ${n}_B * ${n}_DP);
  for (int64_t start = 0; start < call->queries; start += ${n}_B) {
    ${n}_bounds bounds;
    int64_t first, last;
    bounds.start = start;
    bounds.rows = (int)smaller(${n}_B, call->queries - start);
    ${n}_range(call, &bounds, &first, &last);
    if (block == 0 && first > last) {
      ${n}_clear_queries(call, dq, &bounds);
      ${n}_write_queries(c, dq, batch, key_head, &bounds);
    }
    if (block < first || block > last) continue;
    ${n}_bound(call, batch, start, &bounds);
    const int same = ${n}_visible(call, &bounds, batch, at);
    if (same != ${n}_NONE && !loaded) ${n}_load_keys(c, s, batch, key_head, at), loaded = 1;
    int32_t* turn = dq->turns ? dq->turns + start / ${n}_B : 0;
    if (turn) ${n}_await(turn, block - first);
    if (block == first) ${n}_clear_queries(call, dq, &bounds);
    for (int64_t g = 0; g < call->group && same != ${n}_NONE; g++) {
      ${n}_load_queries(c, s, batch, key_head * call->group + g, start);
      ${n}_pair_blocks(c, s, batch, &bounds, at, same, dq->at + g * dq->head_stride + start * dq->stride, dq->stride);
    }
    if (block == last) ${n}_write_queries(c, dq, batch, key_head, &bounds);
    if (turn) __atomic_store_n(turn, (int32_t)(block - first + 1), __ATOMIC_RELEASE);
  }
  const int64_t source = ((batch * call->keys + at) * call->key_heads + key_head) * ${n}_D, rows = smaller(${n}_B, call->keys - at);
  ${n}_write(c->dk, source, call->key_heads * ${n}_D, s->dk, rows);
  ${n}_write(c->dv, source, call->key_heads * ${n}_D, s->dv, rows);
}

/* Where dq of a head of keys is summed up: in place, or in the memory "rows" of a thread. */
static ${n}_sum ${n}_sum_at(const ${n}_backward* c, float* rows, int64_t batch, int64_t key_head, int32_t* turns) {
  const ${n}_call* call = &c->base;
${
  direct
    ? `  (void)rows;
  float* at = (float*)c->dq + (batch * call->queries * call->heads + key_head * call->group) * ${n}_D;
  return (${n}_sum){at, call->heads * ${n}_D, ${n}_D, turns};`
    : `  (void)batch, (void)key_head;
  return (${n}_sum){rows, ${n}_DP, (call->queries + ${n}_B - 1) / ${n}_B * ${n}_B * ${n}_DP, turns};`
}
}
`;
}

/**
 * The backward kernel of a spec (FlashAttention-2's, arXiv 2307.08691, without atomics). It needs the prelude before
 * it. As long as every thread gets one, a task is a head of keys with its group of queries. The heads that are left are
 * shared: tasks are blocks of keys, and take turns to add to a block of queries, so that sums have one order.
 */
export function renderAttentionBackward(spec: AttentionSpec): { name: string; source: string } {
  const n = attentionName("backward", spec);
  const sizes = { batch: 1, heads: 1, keyHeads: 1, keys: 1, queries: 0 };
  const direct = writesQueryGradient(spec);
  const entry = String.raw`
static void ${n}_deltas(const ${n}_backward* c, Context* context) {
  const ${n}_call* call = &c->base;
  int64_t begin, end;
  share(call->batch * call->heads * call->queries, 16, context->thread, context->threads, &begin, &end);
  for (int64_t row = begin; row < end; row++) {
    const int64_t query = row % call->queries, head = row / call->queries % call->heads, batch = row / call->queries / call->heads;
    const int64_t at = ((batch * call->queries + query) * call->heads + head) * ${n}_D;
    vf sum = splat_f(0.0f);
    for (int d = 0; d < ${n}_D; d += 16) sum = fma_f(${n}_load(call->out, at + d, ${n}_D - d), ${n}_load(c->dout, at + d, ${n}_D - d), sum);
    c->delta[row] = sum_lanes(sum);
  }
}
EXPORT void ${n}(const int64_t* words, Context* context) {
  const ${n}_backward c = {
    .base = ${n}_arguments(words), .dout = (const char*)words[15], .dq = (char*)words[16], .dk = (char*)words[17],
    .dv = (char*)words[18], .delta = (float*)(words[7] + 64),
  };
  const ${n}_call* call = &c.base;
  const int64_t rows = (call->batch * call->heads * call->queries + 15) / 16 * 16, threads = context->threads;
  const int64_t own = ${backwardScratch(spec, sizes)}${direct ? "" : ` + (call->queries + ${n}_B - 1) / ${n}_B * ${n}_B * call->group * ${n}_DP`};
  const int64_t heads = call->batch * call->key_heads, shared = heads % threads, wholes = heads - shared;
  const int64_t key_blocks = (call->keys + ${n}_B - 1) / ${n}_B, query_blocks = (call->queries + ${n}_B - 1) / ${n}_B;
  /* Shared heads sum up dq in the memory of the threads that are first to have no whole head left. */
  int32_t *owners = (int32_t*)(c.delta + rows), *came = owners + threads, *turns = came + 1;
  float* scratch = c.delta + rows + (threads + 1 + shared * query_blocks + 15) / 16 * 16;
  ${n}_scratch s = ${n}_scratch_at(scratch + context->thread * own);
  ${n}_deltas(&c, context);
  if (context->thread == 0)
    for (int64_t i = 0; i < threads + 1 + shared * query_blocks; i++) owners[i] = i < threads ? -1 : 0;
  ${n}_open(call, context);

  int64_t task = ${n}_next(call);
  for (; task < wholes; task = ${n}_next(call)) {
    const int64_t batch = task / call->key_heads, key_head = task % call->key_heads;
    const ${n}_sum dq = ${n}_sum_at(&c, s.dq_rows, batch, key_head, 0);
    for (int64_t at = 0; at < call->keys; at += ${n}_B) ${n}_keys_task(&c, &s, batch, key_head, at, &dq);
  }
  __atomic_store_n(owners + __atomic_fetch_add(came, 1, __ATOMIC_RELAXED), context->thread, __ATOMIC_RELEASE);
  for (; task < wholes + shared * key_blocks; task = ${n}_next(call)) {
    const int64_t which = (task - wholes) / key_blocks, head = wholes + which, at = (task - wholes) % key_blocks * ${n}_B;
    const int64_t batch = head / call->key_heads, key_head = head % call->key_heads;
    for (int64_t looks = 0; __atomic_load_n(owners + which, __ATOMIC_ACQUIRE) < 0; looks++) ${n}_pause(looks);
    float* memory = ${n}_scratch_at(scratch + owners[which] * own).dq_rows;
    const ${n}_sum dq = ${n}_sum_at(&c, memory, batch, key_head, turns + which * query_blocks);
    ${n}_keys_task(&c, &s, batch, key_head, at, &dq);
  }
}
`;
  const source = [attentionCommon(n, spec), backwardBlocks(n, spec), backwardTasks(n, spec), entry].join("");
  return { name: n, source };
}
