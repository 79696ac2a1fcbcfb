import { signalSource } from "./runner-signals.js";
import { systemSource } from "./runner-system.js";
import { transferSource } from "./runner-transfers.js";

/**
 * The native runner: a pool of worker threads that walks a program table, one call a step. It is C, compiled once
 * per machine like a kernel.
 */
export const runnerSource = String.raw`
${systemSource}${signalSource}${transferSource}
/* ---- pool ------------------------------------------------------------------------------------------------------- */
/* 7.. are for host, branch and collective entries. */
enum { kind_kernel = 1, kind_copy = 2, kind_fill = 3, kind_read = 4, kind_write = 5, kind_wait = 6 };
typedef struct { int32_t thread, threads; void* pool; } Context;
typedef void (*Kernel)(const int64_t* arguments, Context* context);

/* What the host and a run tell each other; it stands before the table. */
typedef struct { volatile int32_t cancel; Failure failure; } Control;

typedef struct Pool Pool;
typedef struct { Context context; Pool* pool; Thread handle; Patience patience; } Worker; /* context first */
struct Pool {
  void (*barrier)(Context*); /* first: kernels call it through context->pool */
  int32_t threads;
  int64_t base, mapped;
  Signal start, passed, done;
  _Alignas(64) atomic_int arrived;
  _Alignas(64) Lock running;
  const int64_t* table;
  int64_t entries, completed, stamp;
  int64_t* nanoseconds;
  Control* control;
  int stopped, failed, closing;
  Transfers transfers;
  Worker* workers;
};

static int is_last(Pool* pool) { return atomic_fetch_add(&pool->arrived, 1) == pool->threads - 1; }

static void barrier(Context* context) {
  Pool* pool = context->pool;
  if (pool->threads == 1) return;
  unsigned old = atomic_load(&pool->passed.word);
  if (is_last(pool)) {
    atomic_store(&pool->arrived, 0);
    signal_advance(&pool->passed);
  } else {
    signal_wait(&pool->passed, old, &((Worker*)context)->patience);
  }
}

/* The barrier after an entry: the last to arrive keeps the books, so that all threads take the same decision. */
static void finish_entry(Context* context, int64_t entry, int unknown) {
  Pool* pool = context->pool;
  unsigned old = atomic_load(&pool->passed.word);
  if (!is_last(pool)) {
    signal_wait(&pool->passed, old, &((Worker*)context)->patience);
    return;
  }
  atomic_store(&pool->arrived, 0);
  if (pool->nanoseconds) {
    int64_t now = clock_now();
    pool->nanoseconds[entry] = now - pool->stamp;
    pool->stamp = now;
  }
  pool->completed = unknown ? -1 - entry : pool->failed ? entry : entry + 1;
  if (unknown || pool->failed || pool->control->cancel) pool->stopped = 1;
  signal_advance(&pool->passed);
}

/* This thread's part of a range of bytes, cut at cache lines. */
static void share_of(int64_t bytes, const Context* context, int64_t* from, int64_t* to) {
  const int64_t lines = (bytes + 63) / 64;
  *from = lines * context->thread / context->threads * 64;
  *to = lines * (context->thread + 1) / context->threads * 64;
  if (*to > bytes) *to = bytes;
}

static void copy(char* target, const char* source, int64_t bytes, const Context* context) {
  int64_t from, to;
  share_of(bytes, context, &from, &to);
  if (to > from) memcpy(target + from, source + from, (size_t)(to - from));
}

static void fill(char* target, int64_t bytes, uint32_t pattern, const Context* context) {
  int64_t from, to;
  share_of(bytes, context, &from, &to);
  if (to <= from) return;
  if (pattern == (pattern & 255) * 0x01010101u) {
    memset(target + from, (int)(pattern & 255), (size_t)(to - from));
    return;
  }
  for (; from + 4 <= to; from += 4) memcpy(target + from, &pattern, 4);
  if (from < to) memcpy(target + from, &pattern, (size_t)(to - from));
}

/* Transfers are asked for by one thread; the others meet it after the entry. */
static void post(Pool* pool, Context* context, const int64_t* at) {
  if (context->thread != 0) return;
  const Transfer transfer = {at[0] == kind_write, (char*)(uintptr_t)at[1], (const FilePlace*)(uintptr_t)at[2], at[3]};
  if (!transfers_post(&pool->transfers, transfer)) pool->failed = 1;
}

static void await(Pool* pool, Context* context, unsigned count) {
  if (context->thread != 0) return;
  transfers_wait(&pool->transfers, count);
  if (pool->transfers.failure.error) pool->failed = 1;
}

static void walk(Pool* pool, Context* context) {
  const int64_t* at = pool->table;
  for (int64_t entry = 0; entry < pool->entries && !pool->stopped; entry++) {
    int unknown = 0;
    switch (at[0]) {
      case kind_kernel:
        ((Kernel)(uintptr_t)at[1])(at + 3, context);
        at += 3 + at[2];
        break;
      case kind_copy:
        copy((char*)(uintptr_t)at[1], (const char*)(uintptr_t)at[2], at[3], context);
        at += 4;
        break;
      case kind_fill:
        fill((char*)(uintptr_t)at[1], at[2], (uint32_t)at[3], context);
        at += 4;
        break;
      case kind_read:
      case kind_write:
        post(pool, context, at);
        at += 4;
        break;
      case kind_wait:
        await(pool, context, (unsigned)at[1]);
        at += 2;
        break;
      default:
        unknown = 1;
    }
    finish_entry(context, entry, unknown);
  }
}

static void work(void* raw) {
  Worker* worker = raw;
  Pool* pool = worker->pool;
  unsigned seen = 0;
  for (;;) {
    signal_wait(&pool->start, seen, &worker->patience);
    seen++;
    if (pool->closing) return;
    walk(pool, &worker->context);
    if (worker->context.thread == 0) transfers_wait(&pool->transfers, transfers_posted(&pool->transfers));
    barrier(&worker->context);
    if (worker->context.thread == 0) signal_advance(&pool->done);
  }
}

static void close_workers(Pool* pool, int32_t count) {
  pool->closing = 1;
  signal_advance(&pool->start);
  for (int32_t i = 0; i < count; i++) thread_join(pool->workers[i].handle);
  transfers_close(&pool->transfers);
  free(pool->workers);
  memory_unmap((int64_t)(uintptr_t)pool, pool->base, pool->mapped);
}

/*
 * All workers are threads of the pool's own, with 8 MiB stacks; the caller only waits. A waiting worker looks for
 * spin nanoseconds before it sleeps: 0 where there are more threads than cores. NULL: no memory or no threads left.
 */
EXPORT Pool* thimble_pool_create(int32_t threads, int64_t spin) {
  int64_t mapped, base;
  Pool* pool = memory_map(sizeof *pool, &mapped, &base); /* zeroed, and aligned as Signal wants */
  if (!pool) return NULL;
  pool->base = base;
  pool->mapped = mapped;
  pool->barrier = barrier;
  pool->threads = threads;
  lock_init(&pool->running);
  pool->transfers.patience = (Patience){spin, spin, 0};
  pool->workers = calloc((size_t)threads, sizeof *pool->workers);
  for (int32_t i = 0; pool->workers && i < threads; i++) {
    Worker* worker = &pool->workers[i];
    worker->pool = pool;
    worker->patience = (Patience){spin, spin, 0};
    worker->context = (Context){i, threads, pool};
    if (!thread_create(&worker->handle, work, worker)) {
      close_workers(pool, i);
      return NULL;
    }
  }
  if (pool->workers) return pool;
  close_workers(pool, 0);
  return NULL;
}

EXPORT void thimble_pool_destroy(Pool* pool) {
  lock_take(&pool->running);
  lock_give(&pool->running);
  close_workers(pool, pool->threads);
}

/*
 * How many entries were completed (fewer than asked: cancelled, or a transfer failed, as control tells), or -1 - i when
 * entry i is of no known kind. All transfers that were asked for are finished when it returns.
 */
EXPORT int64_t thimble_run(Pool* pool, const int64_t* table, int64_t entries, int64_t* nanoseconds, Control* control) {
  lock_take(&pool->running);
  pool->table = table;
  pool->entries = entries;
  pool->nanoseconds = nanoseconds;
  pool->control = control;
  pool->completed = 0;
  pool->failed = 0;
  pool->stopped = control->cancel;
  pool->transfers.base = atomic_load(&pool->transfers.posted.word);
  pool->transfers.failure = (Failure){0, NULL, 0};
  pool->stamp = clock_now();
  unsigned old = atomic_load(&pool->done.word);
  signal_advance(&pool->start);
  signal_sleep(&pool->done, old);
  int64_t completed = pool->completed;
  control->failure = pool->transfers.failure;
  lock_give(&pool->running);
  return completed;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */
/* Fills result with {address, base, mapped bytes}; 0 when the system has no room. */
EXPORT int32_t thimble_map(int64_t bytes, int64_t* result) {
  void* address = memory_map(bytes, &result[2], &result[1]);
  result[0] = (int64_t)(uintptr_t)address;
  return address != NULL;
}
EXPORT void thimble_unmap(int64_t address, int64_t base, int64_t mapped) { memory_unmap(address, base, mapped); }
/* Gives the pages back and keeps the addresses, which read as anything but do not fault. */
EXPORT void thimble_vacate(int64_t address, int64_t mapped) { memory_vacate(address, mapped); }

/* A kernel {address, bytes} that makes every page resident, each thread its own part. */
EXPORT void thimble_touch(const int64_t* arguments, Context* context) {
  const int64_t block = 2 << 20;
  const int64_t blocks = (arguments[1] + block - 1) / block;
  const int64_t from = blocks * context->thread / context->threads * block;
  int64_t to = blocks * (context->thread + 1) / context->threads * block;
  if (to > arguments[1]) to = arguments[1];
  char* address = (char*)(uintptr_t)arguments[0];
  if (to <= from || memory_commit(address + from, to - from)) return;
  for (int64_t at = from; at < to; at += 4096) ((volatile char*)address)[at] = 0;
}
`;
