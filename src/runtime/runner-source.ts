/**
 * The native runner: a pool of worker threads that walks a program table, one call a step. It is C, compiled once
 * per machine like a kernel. All that depends on the operating system stands in its first section.
 */
export const runnerSource = String.raw`
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- operating system ------------------------------------------------------------------------------------------ */
#if defined(_WIN32)
#include <windows.h>
#define EXPORT __declspec(dllexport)
typedef HANDLE Thread;
typedef SRWLOCK Lock;
static void lock_init(Lock* lock) { InitializeSRWLock(lock); }
static void lock_take(Lock* lock) { AcquireSRWLockExclusive(lock); }
static void lock_give(Lock* lock) { ReleaseSRWLockExclusive(lock); }
static void word_wait(atomic_uint* word, unsigned old) { WaitOnAddress((volatile void*)word, &old, 4, INFINITE); }
static void word_wake(atomic_uint* word) { WakeByAddressAll((void*)word); }
typedef struct { void (*body)(void*); void* argument; } Start;
static DWORD WINAPI thread_start(void* raw) {
  Start start = *(Start*)raw;
  free(raw);
  start.body(start.argument);
  return 0;
}
static int thread_create(Thread* thread, void (*body)(void*), void* argument) {
  Start* start = malloc(sizeof *start);
  if (!start) return 0;
  *start = (Start){body, argument};
  *thread = CreateThread(NULL, 8 << 20, thread_start, start, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
  if (!*thread) free(start);
  return *thread != NULL;
}
static void thread_join(Thread thread) { WaitForSingleObject(thread, INFINITE); CloseHandle(thread); }
static int64_t clock_now(void) {
  LARGE_INTEGER count, frequency;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&frequency);
  return (int64_t)((double)count.QuadPart * 1e9 / (double)frequency.QuadPart);
}
static void* memory_map(int64_t bytes, int64_t* mapped, int64_t* base) {
  const int64_t align = 2 << 20, page = 4096;
  *mapped = (bytes + page - 1) & ~(page - 1);
  char* start = VirtualAlloc(NULL, (SIZE_T)(*mapped + align), MEM_RESERVE, PAGE_READWRITE);
  if (!start) return NULL;
  char* aligned = (char*)(((uintptr_t)start + align - 1) & ~(uintptr_t)(align - 1));
  *base = (int64_t)(uintptr_t)start;
  if (VirtualAlloc(aligned, (SIZE_T)*mapped, MEM_COMMIT, PAGE_READWRITE)) return aligned;
  VirtualFree(start, 0, MEM_RELEASE);
  return NULL;
}
static int memory_commit(char* address, int64_t bytes) { return 0; }
static void memory_unmap(int64_t address, int64_t base, int64_t mapped) { VirtualFree((void*)(uintptr_t)base, 0, MEM_RELEASE); }
static void memory_vacate(int64_t address, int64_t mapped) { DiscardVirtualMemory((void*)(uintptr_t)address, (SIZE_T)mapped); }
#else
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#define EXPORT __attribute__((visibility("default")))
typedef pthread_t Thread;
typedef pthread_mutex_t Lock;
static void lock_init(Lock* lock) { pthread_mutex_init(lock, NULL); }
static void lock_take(Lock* lock) { pthread_mutex_lock(lock); }
static void lock_give(Lock* lock) { pthread_mutex_unlock(lock); }
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
static void word_wait(atomic_uint* word, unsigned old) { syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0); }
static void word_wake(atomic_uint* word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0); }
#else
static pthread_mutex_t word_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t word_changed = PTHREAD_COND_INITIALIZER;
static void word_wait(atomic_uint* word, unsigned old) {
  pthread_mutex_lock(&word_mutex);
  while (atomic_load(word) == old) pthread_cond_wait(&word_changed, &word_mutex);
  pthread_mutex_unlock(&word_mutex);
}
static void word_wake(atomic_uint* word) {
  pthread_mutex_lock(&word_mutex);
  pthread_cond_broadcast(&word_changed);
  pthread_mutex_unlock(&word_mutex);
}
#endif
typedef struct { void (*body)(void*); void* argument; } Start;
static void* thread_start(void* raw) {
  Start start = *(Start*)raw;
  free(raw);
  start.body(start.argument);
  return NULL;
}
static int thread_create(Thread* thread, void (*body)(void*), void* argument) {
  pthread_attr_t attributes;
  Start* start = malloc(sizeof *start);
  if (!start) return 0;
  *start = (Start){body, argument};
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 8 << 20);
  int failed = pthread_create(thread, &attributes, thread_start, start);
  pthread_attr_destroy(&attributes);
  if (failed) free(start);
  return !failed;
}
static void thread_join(Thread thread) { pthread_join(thread, NULL); }
static int64_t clock_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
/* Aligned to 2 MiB so that huge pages fit; the tail stays in small pages, so what is resident is what was asked for. */
static void* memory_map(int64_t bytes, int64_t* mapped, int64_t* base) {
  const int64_t align = 2 << 20, page = sysconf(_SC_PAGESIZE);
  *mapped = (bytes + page - 1) / page * page;
  char* start = mmap(NULL, (size_t)(*mapped + align), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return NULL;
  char* aligned = (char*)(((uintptr_t)start + align - 1) & ~(uintptr_t)(align - 1));
  if (aligned > start) munmap(start, (size_t)(aligned - start));
  char *end = aligned + *mapped, *limit = start + *mapped + align;
  if (limit > end) munmap(end, (size_t)(limit - end));
  *base = (int64_t)(uintptr_t)aligned;
#if defined(MADV_HUGEPAGE)
  madvise(aligned, (size_t)*mapped, MADV_HUGEPAGE);
#endif
  return aligned;
}
/* 1: committed; 0: not supported here, touch it instead. */
static int memory_commit(char* address, int64_t bytes) {
#if defined(__linux__)
  if (madvise(address, (size_t)bytes, 23 /* MADV_POPULATE_WRITE, Linux 5.14 */) == 0) return 1;
#endif
  return 0;
}
static void memory_unmap(int64_t address, int64_t base, int64_t mapped) { munmap((void*)(uintptr_t)address, (size_t)mapped); }
static void memory_vacate(int64_t address, int64_t mapped) {
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  mmap((void*)(uintptr_t)address, (size_t)mapped, protection, flags, -1, 0);
}
#endif

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

/* ---- pool ------------------------------------------------------------------------------------------------------- */
enum { kind_kernel = 1, kind_copy = 2, kind_fill = 3 }; /* 4.. are for wait, host, branch and collective entries */
typedef struct { int32_t thread, threads; void* pool; } Context;
typedef void (*Kernel)(const int64_t* arguments, Context* context);

/* A word that threads wait on: they look at it for a while, then sleep, so that an idle pool costs nothing. */
typedef struct { _Alignas(64) atomic_uint word; atomic_int sleepers; } Signal;

/*
 * How long a thread looks before it sleeps. Looking in vain halves it and success doubles it, for where threads have
 * to share a core the one that looks keeps the other from arriving; now and then the whole time is tried again.
 */
typedef struct { int64_t most, now; int32_t failures; } Patience;

static void signal_sleep(Signal* signal, unsigned old) {
  atomic_fetch_add(&signal->sleepers, 1);
  while (atomic_load(&signal->word) == old) word_wait(&signal->word, old);
  atomic_fetch_sub(&signal->sleepers, 1);
}
static void signal_wait(Signal* signal, unsigned old, Patience* patience) {
  const int64_t deadline = clock_now() + patience->now;
  while (patience->most > 0) {
    for (int i = 0; i < 32; i++) {
      if (atomic_load_explicit(&signal->word, memory_order_acquire) != old) {
        patience->now = patience->now * 2 < patience->most ? patience->now * 2 : patience->most;
        return;
      }
      pause_briefly();
    }
    if (clock_now() >= deadline) break;
  }
  patience->now = ++patience->failures % 64 == 0 ? patience->most : patience->now / 2;
  signal_sleep(signal, old);
}
static void signal_advance(Signal* signal) {
  atomic_fetch_add(&signal->word, 1);
  if (atomic_load(&signal->sleepers) > 0) word_wake(&signal->word);
}

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
  volatile int32_t* cancel;
  int stopped, closing;
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
  pool->completed = unknown ? -1 - entry : entry + 1;
  if (unknown || (pool->cancel && *pool->cancel)) pool->stopped = 1;
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
    barrier(&worker->context);
    if (worker->context.thread == 0) signal_advance(&pool->done);
  }
}

static void close_workers(Pool* pool, int32_t count) {
  pool->closing = 1;
  signal_advance(&pool->start);
  for (int32_t i = 0; i < count; i++) thread_join(pool->workers[i].handle);
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

/* How many entries were completed (fewer than asked: cancelled), or -1 - i when entry i is of no known kind. */
EXPORT int64_t thimble_run(Pool* pool, const int64_t* table, int64_t entries, int64_t* nanoseconds, volatile int32_t* cancel) {
  lock_take(&pool->running);
  pool->table = table;
  pool->entries = entries;
  pool->nanoseconds = nanoseconds;
  pool->cancel = cancel;
  pool->completed = 0;
  pool->stopped = cancel && *cancel;
  pool->stamp = clock_now();
  unsigned old = atomic_load(&pool->done.word);
  signal_advance(&pool->start);
  signal_sleep(&pool->done, old);
  int64_t completed = pool->completed;
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
