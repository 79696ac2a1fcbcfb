import { tileRows } from "./contraction-micro.js";
import { planSource, wholeProducts } from "./contraction-plan.js";
import { smallPaths } from "./contraction-small.js";

/** Most segments of one contraction. */
export const mostSegments = 8;

/** What the shared driver knows of a kernel: how to get at its operands, how to multiply and what to do with sums. */
const types = String.raw`
#define THIMBLE_SEGMENTS ${mostSegments}
typedef struct {
  /* across: stored [K, x]; direct: values are units as they lie; pairs: they are if K and strides are even;
     elements values take bytes bytes; plain: bytes of one value, 0 where several are packed or any is computed. */
  int across, direct, pairs, elements, bytes, plain;
  void (*panels)(const char*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, thimble_word_alias*);
  void (*strips)(const char*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, thimble_word_alias*, int64_t);
  void (*rows)(const char*, int64_t, int64_t, int, int64_t, thimble_word_alias*, int64_t);
  void (*values)(const char*, int64_t, int64_t, float*);
} thimble_operand;
typedef struct {
  int segments, unit, granule, depth;
  thimble_micro micro;
  void (*finish)(const float*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const int64_t*);
  const thimble_operand *a[THIMBLE_SEGMENTS], *b[THIMBLE_SEGMENTS];
} thimble_contraction;
`;

const grid = String.raw`
/* How many groups of threads share out N; the threads of a group share out M. Least work for the busiest thread. */
INLINE int64_t thimble_groups(int64_t M, int64_t N, int64_t threads) {
  int64_t best = 1, least = INT64_MAX;
  for (int64_t groups = threads; groups >= 1; groups--) {
    int64_t members = threads / groups, columns = ((N + 15) / 16 + groups - 1) / groups;
    int64_t strips = ((M + ${tileRows - 1}) / ${tileRows} + members - 1) / members;
    int64_t cost = columns * (strips * ${tileRows} + 12) + (members > 1 ? 64 : 0);
    if (cost < least) {
      least = cost;
      best = groups;
    }
  }
  return best;
}
`;

/** One block of columns and one chunk of k: packs B, multiplies all strips of a thread's rows, finishes tiles. */
const block = String.raw`
typedef struct {
  const thimble_contraction* t;
  const int64_t* w;
  const thimble_plan* plan;
  int64_t batch, top, first, last, column, columns, chunk, height;
  /* Columns of the next block, and how many lines (or rows) of each of its B are on their way. */
  int64_t coming, fetched[THIMBLE_SEGMENTS];
  int64_t from[THIMBLE_SEGMENTS], to[THIMBLE_SEGMENTS], units[THIMBLE_SEGMENTS], pitch[THIMBLE_SEGMENTS];
  thimble_word_alias *panel[THIMBLE_SEGMENTS], *strips[THIMBLE_SEGMENTS], *own;
} thimble_block;

/* Which k of each segment belong to the chunk, and where their panels go. */
static void thimble_set_chunk(thimble_block* x, int64_t chunk, thimble_word_alias* area) {
  x->chunk = chunk;
  for (int s = 0; s < x->t->segments; s++) {
    int64_t K = x->w[4 + 7 * s + 6], length = x->plan->length[s], before = chunk - x->plan->start[s];
    /* The segment's pieces that share a chunk with the one before come first; after them each piece is alone. */
    x->from[s] = before >= 0 ? smaller(K, before * length) : 0;
    x->to[s] = before >= 0 ? smaller(K, (before + 1) * length) : 0;
    x->units[s] = (x->to[s] - x->from[s] + x->t->unit - 1) / x->t->unit;
    x->panel[s] = area;
    area += x->units[s] * ((x->columns + 15) / 16 * 16);
  }
}

static void thimble_pack_block(const thimble_block* x, int64_t member, int64_t members) {
  for (int s = 0; s < x->t->segments; s++) {
    const int64_t* g = x->w + 4 + 7 * s;
    if (x->units[s])
      x->t->b[s]->panels((const char*)g[3], x->batch * g[5], g[4], x->column, x->columns, x->w[1], x->from[s], x->to[s], member, members, x->panel[s]);
  }
}

/* Where the rows of one strip of A are. */
static void thimble_find_strip(const thimble_block* x, int64_t m, int rows, thimble_part* parts) {
  thimble_word_alias* converted = x->own;
  for (int s = 0; s < x->t->segments; s++) {
    const int64_t* g = x->w + 4 + 7 * s;
    const thimble_operand* a = x->t->a[s];
    int64_t element = x->batch * g[2] + m * g[1] + x->from[s];
    if (!x->units[s]) continue;
    thimble_part* part = parts++;
    part->units = x->units[s];
    part->step = 1;
    if (a->across) {
      part->left = x->strips[s] + (m - x->top) / ${tileRows} * x->pitch[s] + x->from[s] / x->t->unit * ${tileRows};
      part->apart = 1;
      part->step = ${tileRows};
    } else if (a->direct) {
      part->left = (const float*)g[0] + element;
      part->apart = g[1];
    } else if (a->pairs && !((g[1] | element | x->to[s]) & 1)) {
      part->left = (const char*)g[0] + element * 2;
      part->apart = g[1] / 2;
    } else {
      part->left = converted;
      part->apart = (x->units[s] + 15) / 16 * 16;
      a->rows((const char*)g[0], element, g[1], rows, x->to[s] - x->from[s], converted, part->apart);
      converted += x->height * part->apart;
    }
  }
}

/*
 * What the kernels fetch ahead while they multiply the panels of the strip at m: with the first panels the next strip
 * of A, two rows a panel; with the others the next block of B, two lines a panel, as far as "fetched" has not come.
 */
static void thimble_look_ahead(thimble_block* x, int64_t m, int64_t panel, thimble_part* part) {
  for (int s = 0; s < x->t->segments; s++) {
    if (!x->units[s]) continue;
    const int64_t* g = x->w + 4 + 7 * s;
    const thimble_operand *a = x->t->a[s], *b = x->t->b[s];
    int64_t next = m + x->height < x->last ? m + x->height : x->first, rows = smaller(x->height, x->last - next), row = 2 * panel;
    part->ahead = 0;
    part->first = part->second = (const char*)part->panel;
    if (a->across) {
      if (panel == 0) {
        part->first = (const char*)(x->strips[s] + (next - x->top) / ${tileRows} * x->pitch[s] + x->from[s] / x->t->unit * ${tileRows});
        part->second = part->first + x->units[s] * ${tileRows * 2};
        part->ahead = ${tileRows * 2};
      }
    } else if (a->plain && x->height > ${tileRows}) {
      part->first = (const char*)g[0] + (x->batch * g[2] + next * g[1] + x->from[s]) * a->plain;
      part->ahead = x->height * a->plain * x->t->unit;
    } else if (a->plain && row < rows) {
      part->ahead = a->plain * x->t->unit;
      part->first = (const char*)g[0] + (x->batch * g[2] + (next + row) * g[1] + x->from[s]) * a->plain;
      part->second = part->first + (row + 1 < rows ? g[1] * a->plain : 0);
    } else {
      row -= rows;
    }
    int64_t lines = x->coming * (b->across ? b->plain : 64) / 64, line = x->fetched[s];
    if (part->ahead == 0 && b->plain && line < lines) {
      const char* base = (const char*)g[3] + (x->batch * g[5] + (b->across ? x->from[s] * g[4] + x->column + x->columns : (x->column + x->columns) * g[4] + x->from[s])) * b->plain;
      int64_t apart = b->across ? 64 : g[4] * b->plain;
      part->ahead = (b->across ? g[4] : 1) * b->plain * x->t->unit;
      part->first = base + line * apart;
      part->second = base + smaller(line + 1, lines - 1) * apart;
      x->fetched[s] = line + 2;
    }
    part++;
  }
}

static __attribute__((noinline)) void thimble_multiply_block(thimble_block* x) {
  const thimble_contraction* t = x->t;
  const thimble_plan* plan = x->plan;
  int64_t padded = (x->columns + 15) / 16 * 16, count = 0;
  float* partial = (float*)x->own + plan->strip;
  thimble_part parts[THIMBLE_SEGMENTS];
  for (int s = 0; s < t->segments; s++) count += x->units[s] > 0;
  x->height = plan->height;
  for (int64_t m = x->first; m < x->last; m += x->height) {
    if (x->last - m < x->height) x->height = ${tileRows};
    int rows = (int)smaller(x->height, x->last - m);
    thimble_find_strip(x, m, rows, parts);
    for (int64_t c = 0; c < padded; c += PANEL) {
      float local[TALL * PANEL] __attribute__((aligned(64)));
      int64_t width = smaller(PANEL, padded - c), length = plan->chunks > 1 ? plan->columns : PANEL;
      float* tile = plan->chunks > 1 ? partial + (m - x->first) * length + c : local;
      for (int s = 0, i = 0; s < t->segments; s++) {
        if (!x->units[s]) continue;
        parts[i].panel = x->panel[s] + c * x->units[s];
        parts[i++].pitch = width;
      }
      thimble_look_ahead(x, m, c / PANEL, parts);
      t->micro((int)width, rows, (int)count, parts, tile, length, x->chunk > 0);
      if (x->chunk == plan->chunks - 1)
        t->finish(tile, length, rows, smaller(PANEL, x->columns - c), x->batch, m, x->column + c, x->w + 4 + 7 * t->segments);
    }
  }
}
`;

const product = String.raw`
/* Packs the rows top.. of all A stored [K, M], by all threads. */
static void thimble_pack_left(thimble_block* x, thimble_word_alias* area, int64_t thread, int64_t threads, Context* context) {
  int any = 0;
  for (int s = 0; s < x->t->segments; s++) any |= x->t->a[s]->across;
  if (!any) return;
  if (context) barrier(context);
  for (int s = 0; s < x->t->segments; s++) {
    const int64_t* g = x->w + 4 + 7 * s;
    if (!x->t->a[s]->across) continue;
    int64_t rows = smaller(x->plan->rows, x->w[0] - x->top);
    x->strips[s] = area;
    x->pitch[s] = (g[6] + x->t->unit - 1) / x->t->unit * ${tileRows} + 16;
    area += x->pitch[s] * ((rows + ${tileRows - 1}) / ${tileRows});
    x->t->a[s]->strips((const char*)g[0], x->batch * g[2], g[1], x->top, rows, g[6], thread, threads, x->strips[s], x->pitch[s]);
  }
  if (context) barrier(context);
}

/* One product by all threads of a team, or by one thread alone (context null). */
static __attribute__((noinline)) void thimble_product(const thimble_contraction* t, const int64_t* w, const thimble_plan* plan, int64_t batch,
                                                      float* workspace, int64_t thread, int64_t threads, Context* context) {
  if (plan->path == thimble_path_few) {
    thimble_few(t, w, batch, workspace + thread * plan->private, thread, threads);
    return;
  }
  if (plan->path != thimble_path_blocks) {
    thimble_word_alias* area = (thimble_word_alias*)workspace + thread * plan->private;
    thimble_thin(t, w, batch, area, thread, threads, plan->path == thimble_path_thin_columns);
    return;
  }
  int64_t M = w[0], N = w[1], most = 0, begin, end;
  int64_t groups = thimble_groups(M, N, threads), members = threads / groups, group = thread / members, member = thread % members;
  thimble_word_alias* area = (thimble_word_alias*)workspace + plan->packed + group * plan->block;
  thimble_block x = {.t = t, .w = w, .plan = plan, .batch = batch};
  x.own = (thimble_word_alias*)workspace + plan->packed + threads * plan->block + thread * plan->private;
  for (int64_t i = 0; i < groups; i++) {
    share(N, 16, i, groups, &begin, &end);
    most = larger(most, end - begin);
  }
  share(N, 16, group, groups, &begin, &end);
  if (group >= groups) begin = end = 0;
  for (x.top = 0; x.top < M; x.top += plan->rows) {
    thimble_pack_left(&x, (thimble_word_alias*)workspace, thread, threads, context);
    share(smaller(plan->rows, M - x.top), ${tileRows}, member, members, &x.first, &x.last);
    x.first += x.top;
    x.last += x.top;
    for (int64_t done = 0; done < most; done += plan->columns) {
      x.column = begin + done;
      x.columns = larger(0, smaller(plan->columns, end - x.column));
      x.coming = plan->chunks > 1 ? 0 : larger(0, smaller(plan->columns, end - x.column - x.columns));
      for (int s = 0; s < t->segments; s++) x.fetched[s] = 0;
      for (int64_t chunk = 0; chunk < plan->chunks; chunk++) {
        thimble_set_chunk(&x, chunk, area);
        if (x.columns) thimble_pack_block(&x, member, members);
        if (context && members > 1) barrier(context);
        if (x.columns) thimble_multiply_block(&x);
        if (context && members > 1) barrier(context);
      }
    }
  }
}

static __attribute__((noinline, unused)) void thimble_contract(const thimble_contraction* t, const int64_t* w, Context* context) {
  float* workspace = (float*)((w[3] + 63) / 64 * 64);
  int64_t batches = w[2], thread = context->thread, threads = context->threads;
  int alone = batches >= ${wholeProducts} * threads;
  thimble_plan plan = thimble_make_plan(t, w, alone ? 1 : threads);
  if (alone) {
    int64_t begin, end;
    share(batches, 1, thread, threads, &begin, &end);
    for (int64_t batch = begin; batch < end; batch++) thimble_product(t, w, &plan, batch, workspace + thread * plan.team, 0, 1, 0);
  } else {
    for (int64_t batch = 0; batch < batches; batch++) thimble_product(t, w, &plan, batch, workspace, thread, threads, context);
  }
}
`;

/** Types of the driver, before operands; and the driver itself, shared by all contractions of a translation unit. */
export const driverTypes = types;
export const driver = [planSource, grid, smallPaths, block, product].join("\n");
