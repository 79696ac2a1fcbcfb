/** How threads of the native runner wait for each other. */
export const signalSource = String.raw`
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
`;
