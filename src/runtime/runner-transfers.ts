/**
 * Transfers between memory and files, made by a thread of their own while the program goes on. Requests are carried
 * out one after another in the order in which they were posted, so that a count says which are finished, and a read
 * of what was written before it finds it.
 */
export const transferSource = String.raw`
/* ---- transfers -------------------------------------------------------------------------------------------------- */
/* Where bytes lie on disk; the host may change it between two runs. uncached: do not keep the file's pages in memory. */
typedef struct { int64_t file, offset, uncached; } FilePlace;
typedef struct { int32_t writes; char* memory; const FilePlace* place; int64_t bytes; } Transfer;
/* What went wrong first: a system's error number, or one of these; the place, and the byte in its range. */
typedef struct { int64_t error; const FilePlace* place; int64_t position; } Failure;
enum { failure_end_of_file = -1, failure_no_file = -2, failure_no_thread = -3 };

enum { ring_length = 256, transfer_chunk = 4 << 20 };
typedef struct {
  Signal posted, finished; /* their words count requests */
  Patience patience; /* of the worker that posts and waits */
  unsigned base; /* requests posted before this run */
  int started, closing;
  Thread thread;
  Failure failure;
  Transfer ring[ring_length];
} Transfers;

static void transfer_make(Transfers* transfers, const Transfer* transfer) {
  const FilePlace place = *transfer->place;
  if (place.file < 0) {
    transfers->failure = (Failure){failure_no_file, transfer->place, 0};
    return;
  }
  for (int64_t done = 0; done < transfer->bytes;) {
    const int64_t left = transfer->bytes - done, bytes = left < transfer_chunk ? left : transfer_chunk;
    int64_t error = failure_end_of_file;
    const int64_t count = file_move(place.file, transfer->memory + done, bytes, place.offset + done, transfer->writes, &error);
    if (count <= 0) {
      transfers->failure = (Failure){error, transfer->place, done};
      return;
    }
    if (place.uncached) file_forget(place.file, place.offset + done, count);
    done += count;
  }
}

/* After a failure nothing is moved any more, but requests are still counted, so that nobody waits for ever. */
static void transfer_work(void* raw) {
  Transfers* transfers = raw;
  unsigned seen = 0;
  for (;;) {
    if (atomic_load(&transfers->posted.word) == seen) signal_sleep(&transfers->posted, seen);
    if (transfers->closing) return;
    if (!transfers->failure.error) transfer_make(transfers, &transfers->ring[seen % ring_length]);
    seen++;
    signal_advance(&transfers->finished);
  }
}

/* Waits until the first count requests of this run are finished. */
static void transfers_wait(Transfers* transfers, unsigned count) {
  const unsigned target = transfers->base + count;
  for (;;) {
    unsigned finished = atomic_load(&transfers->finished.word);
    if ((int)(finished - target) >= 0) return;
    signal_wait(&transfers->finished, finished, &transfers->patience);
  }
}

static unsigned transfers_posted(Transfers* transfers) { return atomic_load(&transfers->posted.word) - transfers->base; }

/* 0: there is no thread to make transfers. */
static int transfers_post(Transfers* transfers, Transfer transfer) {
  if (!transfers->started && !(transfers->started = thread_create(&transfers->thread, transfer_work, transfers))) {
    transfers->failure = (Failure){failure_no_thread, transfer.place, 0};
    return 0;
  }
  const unsigned posted = atomic_load(&transfers->posted.word);
  if (posted - atomic_load(&transfers->finished.word) >= ring_length) {
    transfers_wait(transfers, transfers_posted(transfers) - ring_length + 1);
  }
  transfers->ring[posted % ring_length] = transfer;
  signal_advance(&transfers->posted);
  return 1;
}

static void transfers_close(Transfers* transfers) {
  if (!transfers->started) return;
  transfers->closing = 1;
  signal_advance(&transfers->posted);
  thread_join(transfers->thread);
}
`;
