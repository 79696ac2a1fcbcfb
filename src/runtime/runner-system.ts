/** All of the native runner that depends on the operating system: threads, waiting, the clock, memory, files. */
export const systemSource = String.raw`
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
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
/* Files are Node's descriptors; only the process's own copy of libuv knows their handles. */
static HANDLE file_handle(int64_t file) {
  typedef HANDLE (*Lookup)(int);
  Lookup lookup = (Lookup)(void*)GetProcAddress(GetModuleHandleA(NULL), "uv_get_osfhandle");
  return lookup ? lookup((int)file) : INVALID_HANDLE_VALUE;
}
static int64_t file_move(int64_t file, char* memory, int64_t bytes, int64_t offset, int writes, int64_t* error) {
  OVERLAPPED at = {0};
  DWORD count = 0;
  at.Offset = (DWORD)offset;
  at.OffsetHigh = (DWORD)(offset >> 32);
  HANDLE handle = file_handle(file);
  BOOL moved = writes ? WriteFile(handle, memory, (DWORD)bytes, &count, &at) : ReadFile(handle, memory, (DWORD)bytes, &count, &at);
  if (moved) return count;
  if (GetLastError() == ERROR_HANDLE_EOF) return 0;
  *error = GetLastError();
  return -1;
}
static void file_forget(int64_t file, int64_t offset, int64_t bytes) {}
#else
#include <errno.h>
#include <fcntl.h>
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
/* Bytes moved; 0 at the end of the file; -1 with the system's error number. */
static int64_t file_move(int64_t file, char* memory, int64_t bytes, int64_t offset, int writes, int64_t* error) {
  for (;;) {
    const ssize_t count = writes ? pwrite((int)file, memory, (size_t)bytes, (off_t)offset)
                                 : pread((int)file, memory, (size_t)bytes, (off_t)offset);
    if (count >= 0) return count;
    if (errno == EINTR) continue;
    *error = errno;
    return -1;
  }
}
static void file_forget(int64_t file, int64_t offset, int64_t bytes) {
#if defined(POSIX_FADV_DONTNEED)
  posix_fadvise((int)file, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
#endif
}
#endif

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}
`;
