/* Appending cuts to the file, from a thread of our own.

   The file is guarded against the program: the descriptor lies high, and before every write its identity is compared, because
   programs close descriptors that they do not know (daemons close all) and the number may then be theirs. If it was taken
   away, the file is opened again by its name, if that still is the same file.

   The file does not grow for ever: the thread rewrites it with its old cuts merged (compact.h) when it has doubled, or when it
   comes near --max-size. Cuts go on meanwhile. A flush or the end of the recording that finds the file full does the same
   at once, because what they write must not be lost.

   A forked child goes on with the tables (inherit.h), and when it has lived a little its own thread makes a capture of its own. Until then
   it is *unborn*: most children execute another program or end at once. The fork handler itself does next to nothing.

   What could not be written stays in `out` and is tried again; meanwhile no cut is taken and the changes pile up in the
   tables, which costs no memory: a cut holds changes, however long its span. */
#include "record/writer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "platform/platform.h"
#include "record/compact.h"
#include "record/cut.h"
#include "record/fold.h"
#include "record/gate.h"
#include "record/inherit.h"
#include "record/lane.h"
#include "record/log.h"
#include "record/mixed.h"
#include "record/overhead.h"
#include "record/pressure.h"
#include "record/resident.h"
#include "record/sample.h"
#include "record/shadow.h"

#define DEFAULT_MAX_MEMORY ((uint64_t)1 << 30)
#define SAMPLED_MAX_MEMORY ((uint64_t)6 << 20)
#define MIN_MAX_MEMORY ((uint64_t)16 << 20)
#define BUFFER_KEEP ((size_t)256 << 10)
#define RESTART_DELAY_NS 5000000
#define RETRY_DELAY_NS 100000000u
#define RAMP_NS ((uint64_t)50000000)
/* A forked child that ends before this, and never gained or lost so much, leaves no capture. */
#define BIRTH_NS ((uint64_t)20000000)
#define BIRTH_BYTES ((uint64_t)1 << 20)
/* Of an end that can come in a signal handler: for a write that is under way, for hooks that are. */
#define PATIENCE_NS ((uint64_t)1000000000)
#define HOOK_PATIENCE_NS ((uint64_t)200000000)
#define NAMES_TRIED 1000
#define MAX_LOG_MEMORY ((uint64_t)64 << 20)
/* When the duration of the recording is over: for the interpreter to end it. */
#define END_PATIENCE_NS ((uint64_t)1000000000)

/* A capture is compacted whenever it has doubled, so that each byte is rewritten about once, and not while it is smaller
   than this, which is read and written in a moment anyway. */
#define COMPACT_MIN_BYTES ((uint64_t)8 << 20)
#define COMPACT_RETRY_NS \
    ((uint64_t)30 * 1000000000) /* after an error, such as no space for the copy */
#define COMPACT_RESTART_NS ((uint64_t)1000000000) /* after a fork has interrupted it */
#define COMPACT_TAIL_BYTES ((uint64_t)1 << 20)    /* what is copied while everybody waits */

/* The resident memory is taken apart at cuts, so often that it takes at most a hundredth of the time; rarely where little changes. */
#define MEASURE_SHARE 200u /* the other half is for the ones at the end and for what varies */
#define MEASURE_SHARE_SAMPLED \
    2000u /* in a sampled recording a hundredth is the budget for everything */
#define MEASURE_IDLE_NS ((uint64_t)10 * 1000000000)
/* A cut during which nobody measures, besides PMT_CUT_*: it must be short. */
#define CUT_SHORT 0x80000000u

#define BOX_ALIGN ((uint64_t)4096)
#define END_BYTES 64u /* --max-size leaves room for the END chunk */

static struct {
    int active;   /* recording, in this process */
    uint64_t pid; /* which one: children by vfork and by bare system calls share or copy all this */
    int fd;
    char path[4096];
    char base[4096]; /* of the names of children's captures */
    int follow;
    int unborn;         /* a forked child without a capture yet */
    int refused;        /* it could not have one */
    uint64_t born_ns;   /* when it was forked */
    uint64_t born_live; /* with so many bytes */
    uint64_t generation;
    uint64_t fork_epoch, fork_t_ns, parent_pid;
    uint8_t parent_id[16]; /* of its capture */
    pmt__buffer facts;     /* PROC entries for the captures of children */
    uint32_t fact_count;
    uint64_t features;
    uint64_t end_offset; /* of the END chunk that was written before exec; 0: none */
    uint64_t device, inode;
    uint8_t id[16];        /* of the capture: inode numbers are used again */
    uint64_t region_bytes; /* of a box; 0: it is none */
    uint64_t start;  /* of what counts against max_size_bytes: of the file, or of the region */
    uint64_t offset; /* where the next chunk goes */
    uint64_t sequence;
    uint64_t max_size_bytes;
    pmt__overhead overhead; /* owned by the thread, but for mean_asked */
    pmt__control control;   /* as above */
    uint64_t ramp_ns;       /* as above: to the next cut of a young box */
    void (*before_cut)(void);
    uint64_t unloaded; /* objects, at the last look */
    uint64_t end_ns;   /* when the recording is to end; 0: it is not. Owned by the thread */
    void (*on_end)(void);
    uint32_t end_told; /* atomic: by the thread */
    uint32_t finished; /* atomic: by the thread, see pmt__record_finished */
    pmt__slot slot;
    pmt__cut cut;
    pmt__buffer payload;
    pmt__buffer out; /* encoded chunk that waits to be written; empty: none */
    pmt__measure measure;
    pmt__pressure pressure;
    uint64_t measured_ns, measure_after_ns, measured_rss;
    int measured_end; /* when main had returned */
    uint64_t own_bytes;
    uint64_t log_bytes;               /* of the file */
    uint32_t main_ended, exit_status; /* PMT_MAIN_* */
    int ending;                       /* the END chunk is being written */
    int lost;                         /* a cut was: nothing can follow it */
    uint64_t compacted_size;          /* after the last compaction */
    uint64_t compact_after_ns;
    uint32_t compact_plan; /* the one that --max-size needs */
    int exhausted;         /* compaction cannot keep the file below --max-size any more */
    pmt__fold *fold;       /* page memory, or NULL: --max-size has no room for more stacks */
    int folded;            /* there was one */
    uint64_t folded_t_ns;
    uint64_t
        definition_bytes; /* of the file: names and stacks, which no compaction makes smaller */
    uint64_t last_epoch;  /* of the cut before */
    uintptr_t thread;
    uint64_t thread_native_id; /* atomic: the thread itself */
    int thread_runs;
    uint64_t forked_ns;
} w; /* Protected by io, except: thread… and forked_ns (by `starting`), active (the GIL, or the only thread at exit); what only a
        fork changes (pid, follow, born…, fork…, parent…) */

static uint32_t io; /* atomic lock: 0 free, 1 held. Lock order: io, then the tables */
/* atomic lock: who starts or stops the thread. Held across a fork: forks of threads without the GIL could overlap.
   Lock order: before io. */
static uint32_t starting;
static uint32_t compacting;  /* atomic: the thread rewrites the file; changed with io held */
static pmt__compact compact; /* owned by the thread while `compacting`, else protected by io */
static uint64_t next_cut_ns; /* owned by the thread */
static uint32_t wake;        /* atomic: raised to end a wait of the thread */
static uint32_t stop;        /* atomic: the thread must end */
static uint32_t hurry;       /* atomic: a cut is wanted before its time */
static uint32_t thread_done; /* atomic: the thread has nothing more to do */

static void
lock_take(uint32_t *lock)
{
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0) {
        pmt__wait_word(lock, 1, 1000000);
    }
}

static int
lock_take_within(uint32_t *lock, uint64_t timeout_ns)
{
    const uint64_t until = pmt__clock_mono_ns() + timeout_ns;
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0) {
        if (pmt__clock_mono_ns() >= until) {
            return 0;
        }
        pmt__wait_word(lock, 1, 1000000);
    }
    return 1;
}

static void
lock_give(uint32_t *lock)
{
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
    pmt__wake_word(lock);
}

static void
io_take(void)
{
    lock_take(&io);
}

static void
io_give(void)
{
    lock_give(&io);
}

/* --- the file --------------------------------------------------------------------------------------------------------------- */

/* Is the descriptor still the one of the capture? */
static int
file_is_ours(void)
{
    uint64_t device, inode;
    return w.fd >= 0 && pmt__file_identity(w.fd, &device, &inode) == 0 && device == w.device
           && inode == w.inode;
}

static uint64_t
box_bytes(void)
{
    return PMT_HEADER_SIZE + 2 * w.region_bytes;
}

/* Somebody may have cut it off: what was written must still be there, the rest can be had again. */
static int
box_check(void)
{
    uint64_t size;
    int rc = pmt__file_size(w.fd, &size);
    if (rc < 0 || size >= box_bytes()) {
        return rc;
    }
    return size < w.offset + PMT_CHUNK_HEADER_SIZE && w.sequence > 1
               ? -ENODATA
               : pmt__file_allocate(w.fd, box_bytes());
}

static int
file_check(void)
{
    if (file_is_ours()) {
        return w.region_bytes == 0 ? 0 : box_check();
    }
    w.fd = pmt__file_reopen(w.path, w.device, w.inode);
    if (w.fd >= 0) {
        uint8_t id[sizeof w.id];
        if (pmt__file_read_at(w.fd, id, sizeof id, PMT_HEADER_ID_OFFSET) == 0
            && memcmp(id, w.id, sizeof id) == 0) {
            return 0;
        }
        pmt__file_close(w.fd);
        w.fd = -1;
        return -ESTALE;
    }
    return w.fd;
}

static void
slot_write(void)
{
    uint8_t bytes[PMT_SLOT_SIZE];
    w.slot.seq++;
    w.slot.data_end = w.offset;
    pmt__slot_encode(bytes, &w.slot);
    if (file_check() == 0) {
        pmt__file_write_at(w.fd, bytes, sizeof bytes,
                           w.slot.seq & 1 ? PMT_SLOT_A_OFFSET : PMT_SLOT_B_OFFSET);
    }
}

static void
slot_stopped(uint32_t reason, int sys_errno)
{
    int new = w.slot.status != PMT_STATUS_STOPPED || w.slot.reason != reason;
    w.slot.status = PMT_STATUS_STOPPED;
    w.slot.reason = reason;
    w.slot.sys_errno = sys_errno;
    if (new) {
        slot_write();
    }
}

/* The end of a region's chunks: behind them may be what was there before. It is written ahead of the last of them. */
static int
terminator_write(uint64_t offset)
{
    static const uint8_t zeros[PMT_CHUNK_HEADER_SIZE];
    return pmt__file_write_at(w.fd, zeros, sizeof zeros, offset);
}

/* What counts against max_size_bytes. */
static uint64_t
used(void)
{
    return w.offset - w.start;
}

/* Writes what waits in `out`. 0, or a negative errno: it goes on waiting. */
static int
out_write(void)
{
    if (w.out.len == 0) {
        return 0;
    }
    uint64_t more = w.out.len + (w.ending ? 0 : END_BYTES);
    if (w.max_size_bytes != 0 && used() + more > w.max_size_bytes) {
        slot_stopped(PMT_REASON_MAX_SIZE, 0);
        return -EFBIG;
    }
    int rc = file_check();
    if (rc < 0) {
        w.slot.status = PMT_STATUS_STOPPED;
        w.slot.reason = PMT_REASON_FILE_GONE;
        return rc;
    }
    if (w.region_bytes != 0) {
        rc = terminator_write(w.offset + w.out.len);
    }
    rc = rc < 0 ? rc : pmt__file_write_at(w.fd, w.out.data, w.out.len, w.offset);
    if (rc < 0) {
        int full = rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG;
        slot_stopped(full ? PMT_REASON_NO_SPACE : PMT_REASON_WRITE_ERROR, -rc);
        return rc;
    }
    w.offset += w.out.len;
    if (w.out.cap > BUFFER_KEEP) { /* the first cuts are the large ones */
        pmt__buffer_dispose(&w.out);
        pmt__buffer_dispose(&w.payload);
        pmt__buffer_init(&w.payload);
        pmt__buffer_init(&w.out);
    }
    pmt__buffer_clear(&w.out);
    w.slot.status = PMT_STATUS_RECORDING;
    w.slot.reason = PMT_REASON_NONE;
    w.slot.sys_errno = 0;
    return 0;
}

static uint64_t
own_bytes(void)
{
    return (w.cut.table_bytes != 0 ? w.cut.table_bytes : pmt__tables_bytes()) + pmt__log_bytes()
           + pmt__shadow_bytes() + pmt__compact_bytes() + w.payload.cap + w.out.cap + w.cut.rows.cap
           + w.cut.capacity * 2 * sizeof(uint64_t) + w.cut.site_facts.cap
           + pmt__measure_bytes(&w.measure);
}

/* --- where the resident memory is ------------------------------------------------------------------------------------------- */

static int
measure_is_due(uint32_t flags, uint64_t rss_bytes)
{
    uint64_t now_ns = pmt__clock_mono_ns();
    if (flags & (PMT_CUT_MAIN_RETURNED | PMT_CUT_FINAL)) {
        int had = w.measured_end;
        w.measured_end = 1;
        return !had; /* what is left when the interpreter is gone says nothing of the program */
    }
    /* At once where it has grown by half: such measurements take together at most three times as long as the last of them, and the
       pause that each has earned comes on top of what was left of the one before. */
    if ((flags & CUT_SHORT)
        || (now_ns < w.measure_after_ns && rss_bytes - rss_bytes / 3 <= w.measured_rss)) {
        return 0;
    }
    uint64_t moved =
        rss_bytes > w.measured_rss ? rss_bytes - w.measured_rss : w.measured_rss - rss_bytes;
    return w.measured_ns == 0 || now_ns - w.measured_ns >= MEASURE_IDLE_NS
           || moved > rss_bytes / 64;
}

/* Puts a section RESIDENT into the payload, if the measurement succeeds. */
static void
measure_write(uint32_t flags, uint64_t rss_bytes)
{
    /* The thread must end at once where it is told to: somebody waits who forks. */
    int may_last = (flags & (PMT_CUT_MAIN_RETURNED | PMT_CUT_FINAL)) != 0;
    uint64_t from_ns = pmt__clock_mono_ns();
    int rc = pmt__measure_run(&w.measure, may_last ? NULL : &stop);
    uint64_t now_ns = pmt__clock_mono_ns();
    w.measured_ns = now_ns;
    w.measured_rss = rss_bytes;
    uint64_t left_ns = w.measure_after_ns > now_ns ? w.measure_after_ns - now_ns : 0;
    w.measure_after_ns =
        now_ns + left_ns
        + (now_ns - from_ns) * (pmt__sampling_now.on ? MEASURE_SHARE_SAMPLED : MEASURE_SHARE);
    if (rc == -ECANCELED) {
        return;
    }
    if (rc < 0) {
        w.measure_after_ns = now_ns + MEASURE_IDLE_NS; /* no /proc, or no right to read it */
        return;
    }
    pmt__resident *result = &w.measure.result;
    result->value[PMT_RESIDENT_T] = from_ns - pmt__t.start_ns;
    result->value[PMT_RESIDENT_TOOK] = now_ns - from_ns;
    for (unsigned domain = 1; domain < PMT_DOMAIN_COUNT; domain++) {
        result->value[PMT_RESIDENT_LIVE + 2 * domain] = w.cut.live_by[domain][0];
        result->value[PMT_RESIDENT_LIVE + 2 * domain + 1] = w.cut.live_by[domain][1];
    }
    pmt__buffer body;
    pmt__buffer_init(&body);
    pmt__resident_put(&body, result);
    w.payload.failed |= body.failed;
    pmt__section_put(&w.payload, PMT_SECTION_RESIDENT, &body);
    pmt__buffer_dispose(&body);
}

/* Room for a chunk of the event log that waits in `out`: it may take a quarter of --max-size. */
static int
log_fits(void)
{
    return w.max_size_bytes == 0
           || (w.log_bytes + w.out.len <= w.max_size_bytes / 4
               && used() + w.out.len + END_BYTES <= w.max_size_bytes);
}

/* The events up to the cut whose DLTA chunk, with the definitions of their sites, has been written. The log is the first to
   give way: where the file cannot take it, it ends, so that the tables can be written on. */
static void
events_write(void)
{
    const pmt__log_block *block;
    while ((block = pmt__log_oldest()) != NULL) {
        pmt__buffer_clear(&w.payload);
        pmt__log_encode(block, &w.payload);
        if (!w.payload.failed) {
            pmt__chunk_put(&w.out, "EVTS", 0, w.sequence + 1, w.payload.data, w.payload.len);
        }
        uint64_t size = w.out.len;
        if (w.payload.failed || w.out.failed || !log_fits() || out_write() < 0) {
            pmt__buffer_clear(&w.out);
            pmt__log_stop();
            return;
        }
        w.log_bytes += size;
        w.sequence++;
        pmt__log_written();
    }
}

/* Without the stacks: what is left fits where they do not. */
static int
payload_fold(void)
{
    pmt__buffer folded;
    pmt__buffer_init(&folded);
    int rc = pmt__fold_cut(w.fold, w.payload.data, w.payload.len, &folded);
    pmt__buffer_dispose(&w.payload);
    w.payload = folded;
    return rc;
}

static void
chunk_encode(void)
{
    if (!w.payload.failed) {
        pmt__chunk_put(&w.out, "DLTA", 0, w.sequence + 1, w.payload.data, w.payload.len);
    }
}

/* From the cut on that waits in `out`. 0, or -ENOMEM: it may not fit then, and the file says so. */
static int
fold_begin(void)
{
    pmt__fold *fold = pmt__pages_map(sizeof *fold);
    if (fold == NULL) {
        return -ENOMEM;
    }
    pmt__tables_acquire(); /* which have not changed what the cut has defined */
    int rc = pmt__fold_init(fold, w.cut.site_first, w.last_epoch);
    pmt__tables_release();
    if (rc < 0) {
        pmt__fold_dispose(fold);
        pmt__pages_unmap(fold, sizeof *fold);
        return rc;
    }
    w.fold = fold;
    w.folded = 1;
    w.folded_t_ns = w.cut.t_ns - w.cut.span_ns;
    pmt__buffer_clear(&w.out);
    pmt__log_stop();
    return 0;
}

/* Names and stacks get five eighths of --max-size, so that compaction has room for what happens; without them there is hardly
   anything that would not fit. In a sampled recording each site has sums besides, which hardly become smaller by compression. */
static uint64_t
definition_room(void)
{
    return w.max_size_bytes / 8 * (w.cut.sample_mean != 0 ? 2 : 5);
}

/* The cut that was taken, as a chunk in `out`. */
static void
cut_encode(uint32_t flags, uint64_t rss_bytes, int measure)
{
    uint64_t definitions = w.cut.strings.len + w.cut.codes.len + w.cut.nodes.len + w.cut.sites.len;
    pmt__cut_live(&w.cut);
    pmt__buffer_clear(&w.payload);
    if (measure) {
        measure_write(flags, rss_bytes);
    }
    if ((flags & CUT_SHORT) == 0) {
        pmt__pressure_put(&w.pressure, &w.payload, (flags & ~CUT_SHORT) != 0);
    }
    w.own_bytes = own_bytes();
    pmt__cut_encode(&w.cut, &w.payload, flags & ~CUT_SHORT, rss_bytes, w.own_bytes);
    if (w.fold == NULL) {
        chunk_encode();
        definitions = w.payload.len == 0       ? 0
                      : w.cut.sample_mean != 0 ? definitions / 2 /* its sums compress much better */
                                               : w.out.len * definitions / w.payload.len;
        if (w.max_size_bytes == 0 || w.payload.failed || w.out.failed
            || w.definition_bytes + definitions <= definition_room() || fold_begin() < 0) {
            w.definition_bytes += definitions;
            if (w.max_size_bytes != 0 && w.definition_bytes > definition_room() / 4 * 3) {
                __atomic_store_n(&pmt__t.lean, 1, __ATOMIC_RELAXED);
            }
            return;
        }
    }
    if (payload_fold() < 0) {
        w.payload.failed = 1;
    }
    chunk_encode();
}

static void
fold_dispose(void)
{
    if (w.fold != NULL) {
        pmt__fold_dispose(w.fold);
        pmt__pages_unmap(w.fold, sizeof *w.fold);
        w.fold = NULL;
    }
}

/* A cut, encoded and written. The caller holds io. */
static int
cut_write(uint32_t flags)
{
    if (w.lost || w.unborn) {
        return PMT_ERR_NOMEM;
    }
    int rc = out_write();
    if (rc < 0) {
        return PMT_ERR_IO;
    }
    uint64_t rss_bytes = pmt__process_rss_bytes();
    int measure = measure_is_due(flags, rss_bytes);
    pmt__tables_acquire();
    rc = pmt__cut_take(&w.cut);
    if (rc == 0) {
        pmt__log_take_nopy();
        if (measure) {
            pmt__measure_prepare_nopy(&w.measure);
        }
    }
    pmt__tables_release();
    if (rc < 0) {
        return PMT_ERR_NOMEM;
    }
    cut_encode(flags, rss_bytes, measure);
    if (w.payload.failed || w.out.failed) {
        /* No memory for a cut that was taken. Later ones would refer to what it defined: the recording ends, and the file says so. */
        pmt__buffer_clear(&w.out);
        w.lost = 1;
        pmt__attention_set(PMT_ATTENTION_OFF);
        slot_stopped(PMT_REASON_WRITE_ERROR, ENOMEM);
        return PMT_ERR_NOMEM;
    }
    w.sequence++;
    w.last_epoch = w.cut.epoch;
    w.slot.cut_t_ns = w.cut.t_ns;
    w.slot.cut_unix_ns = w.cut.unix_ns;
    w.slot.cuts = w.cut.number;
    w.slot.live_bytes = w.cut.live_bytes;
    w.slot.rss_bytes = rss_bytes;
    w.slot.peak_bytes = w.cut.peak_bytes;
    rc = out_write();
    if (rc < 0) {
        return PMT_ERR_IO;
    }
    events_write();
    slot_write();
    return 0;
}

/* --- compaction -------------------------------------------------------------------------------------------------------------- */

static int
is_full(void)
{
    return w.slot.status == PMT_STATUS_STOPPED && w.slot.reason == PMT_REASON_MAX_SIZE;
}

static int
is_nearly_full(void)
{
    return w.max_size_bytes != 0 && !w.exhausted
           && (is_full() || used() + w.out.len > w.max_size_bytes - w.max_size_bytes / 8);
}

static uint64_t
region_start(uint64_t flips)
{
    return PMT_HEADER_SIZE + (flips & 1) * w.region_bytes;
}

/* The caller holds io. */
static pmt__compact_input
compact_input(int (*pause)(void))
{
    return (pmt__compact_input){
        .path = w.path,
        .device = w.device,
        .inode = w.inode,
        .id = w.id,
        .start = w.region_bytes == 0 ? PMT_HEADER_SIZE : w.start,
        .end = w.offset,
        .sequence = w.sequence - (w.out.len != 0), /* one cut may be waiting */
        .t_ns = w.cut.t_ns,
        .limit = used() - used() / 8, /* less is not worth it */
        .region_start = w.region_bytes == 0 ? 0 : region_start(w.slot.flips + 1),
        .region_bytes = w.region_bytes,
        .pause = pause,
    };
}

/* Half of --max-size, so that it does not run again at once; the last plan may leave more. */
static int
compact_to_max_size(pmt__compact_input *input, uint32_t *plan)
{
    int rc = -EFBIG;
    for (; *plan < PMT_COMPACT_PLANS; ++*plan) {
        int last = *plan + 1 == PMT_COMPACT_PLANS;
        input->limit = last ? w.max_size_bytes - w.max_size_bytes / 8 : w.max_size_bytes / 2;
        rc = pmt__compact_run(&compact, input, &pmt__compact_plans[*plan]);
        if (rc != -EFBIG) {
            break;
        }
    }
    return rc;
}

/* Puts the new file in the place of the capture. The caller holds io. */
static int
compact_adopt(pmt__compact_input *input)
{
    input->end = w.offset;
    int rc = pmt__compact_finish(&compact, input, &w.slot);
    if (rc < 0) {
        return rc;
    }
    if (file_is_ours()) {
        pmt__file_close(w.fd);
    }
    w.fd = compact.fd;
    w.device = compact.device;
    w.inode = compact.inode;
    w.start = compact.start;
    w.offset = compact.offset;
    w.sequence = compact.sequence;
    if (w.out.len != 0) {
        pmt__chunk_renumber(w.out.data, w.out.len, ++w.sequence);
    }
    return 0;
}

/* Learns from how it went. The caller holds io. */
static void
compact_note(int rc, int hard, uint32_t plan)
{
    if (rc == 0 || rc == -EFBIG) {
        w.compacted_size = used();
    }
    if (rc < 0 && rc != -EFBIG) {
        w.compact_after_ns =
            pmt__clock_mono_ns() + (rc == -ECANCELED ? COMPACT_RESTART_NS : COMPACT_RETRY_NS);
    }
    if (hard && rc == -EFBIG) {
        w.exhausted = 1;
    }
    if (rc == -EBADMSG) { /* it holds what cannot be merged, now and later */
        w.exhausted = 1;
        w.compact_after_ns = UINT64_MAX;
    }
    if (hard && rc == 0) {
        w.compact_plan = plan > 0 && used() < w.max_size_bytes / 4 ? plan - 1 : plan;
    }
}

/* At once. The caller holds io, and the thread is not at it. */
static int
compact_now(void)
{
    if (w.exhausted) {
        return -EFBIG;
    }
    pmt__compact_input input = compact_input(NULL);
    uint32_t plan = w.compact_plan;
    int rc = compact_to_max_size(&input, &plan);
    if (rc == 0) {
        rc = compact_adopt(&input);
    }
    compact_note(rc, 1, plan);
    return rc;
}

/* A cut that must be in the file, at the price of compacting it first. The caller holds io. */
static int
cut_write_surely(uint32_t flags)
{
    uint64_t number = w.cut.number;
    int rc = cut_write(flags);
    for (int tries = 0; tries < 2 && rc < 0 && is_full(); tries++) {
        while (__atomic_load_n(&compacting, __ATOMIC_ACQUIRE)) {
            io_give();
            pmt__wait_word(&compacting, 1, 10000000);
            io_take();
        }
        if (w.out.len != 0 && out_write() < 0 && compact_now() < 0) {
            break;
        }
        if (w.cut.number == number) {
            rc = cut_write(flags);
        } else if ((rc = out_write() < 0 ? PMT_ERR_IO : 0) == 0) {
            events_write();
            slot_write();
        }
    }
    return rc;
}

/* What was unloaded since the last look leaves its addresses to others. Takes the loader's lock: for the thread alone. */
static void
unloaded_forget(void)
{
    if (!pmt__natives_now.on) {
        return;
    }
    uint64_t unloaded = pmt__objects_unloaded();
    if (unloaded != w.unloaded) {
        w.unloaded = unloaded;
        pmt__tables_acquire();
        pmt__natives_forget_nopy();
        pmt__tables_release();
    }
}

int
pmt__record_order(const pmt__order *order)
{
    if (!w.active || !pmt__sampling_now.on) {
        return PMT_ERR_STATE;
    }
    static const pmt__text off = {"sampling off", 12, 1}, on = {"sampling on", 11, 1};
    const pmt__text *label = NULL;
    pmt__tables_acquire();
    if (order->kind == PMT_ORDER_MEAN) {
        pmt__sampling_mean_set_nopy(order->mean);
        __atomic_store_n(&w.overhead.mean_asked, order->mean, __ATOMIC_RELAXED);
    } else if (order->kind == PMT_ORDER_OFF && !pmt__sampling_now.paused) {
        label = &off;
    } else if (order->kind == PMT_ORDER_ON && pmt__sampling_now.paused) {
        label = &on;
    }
    if (label != NULL) {
        pmt__sampling_pause_nopy(order->kind == PMT_ORDER_OFF);
        pmt__mark_nopy(label);
    }
    pmt__tables_release();
    return 0;
}

static void
orders_follow(void)
{
    if (pmt__sampling_now.on) {
        pmt__order order = pmt__control_look(&w.control, w.path);
        if (order.kind != PMT_ORDER_NONE) {
            pmt__record_order(&order);
        }
    }
}

/* What the recorder costs, and that it costs less where that is too much. */
static void
overhead_look(void)
{
    uint64_t before = pmt__sampling_now.on ? pmt__sampling_now.mean : 0, mean = before;
    pmt__overhead_look(&w.overhead, &mean);
    if (mean != before) {
        pmt__tables_acquire();
        if (pmt__sampling_now.mean == before) {
            pmt__sampling_mean_set_nopy(mean);
        }
        pmt__tables_release();
    }
}

/* The first states of a box follow fast: a process can die in its first second. */
static uint64_t
interval_next(void)
{
    uint64_t interval_ns = w.overhead.interval_ns;
    if (w.region_bytes != 0 && w.ramp_ns < interval_ns) {
        interval_ns = w.ramp_ns;
        w.ramp_ns *= 2;
    }
    return interval_ns;
}

static void
cut_due(void)
{
    unloaded_forget();
    orders_follow();
    if (w.before_cut != NULL) {
        w.before_cut();
    }
    io_take();
    cut_write(0);
    io_give();
    if (pmt__clock_mono_ns() >= next_cut_ns) { /* else it was in a hurry */
        next_cut_ns += interval_next();
    }
    if (next_cut_ns < pmt__clock_mono_ns()) {
        next_cut_ns = pmt__clock_mono_ns() + w.overhead.interval_ns;
    }
    overhead_look();
}

/* Between two steps of the thread's compaction. */
static int
compact_pause(void)
{
    if (__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        return -1;
    }
    if (pmt__clock_mono_ns() >= next_cut_ns || __atomic_exchange_n(&hurry, 0, __ATOMIC_ACQUIRE)) {
        cut_due();
    }
    return 0;
}

/* Takes over what was appended meanwhile, until little is left. Returns with io held. */
static int
compact_catch_up(void)
{
    for (;;) {
        io_take();
        uint64_t end = w.offset;
        if (end - compact.in_offset <= COMPACT_TAIL_BYTES) {
            return 0;
        }
        io_give();
        int rc = pmt__compact_follow(&compact, end);
        if (rc < 0) {
            io_take();
            return rc;
        }
    }
}

/* By the thread, beside its cuts. */
static void
compact_if_due(void)
{
    io_take();
    int hard = is_nearly_full();
    int grown = used() >= COMPACT_MIN_BYTES && used() >= 2 * w.compacted_size;
    int healthy = w.slot.status == PMT_STATUS_RECORDING || is_full();
    if (!(hard || grown) || !healthy || pmt__clock_mono_ns() < w.compact_after_ns) {
        io_give();
        return;
    }
    __atomic_store_n(&compacting, 1, __ATOMIC_RELEASE);
    pmt__compact_input input = compact_input(compact_pause);
    uint32_t plan = w.compact_plan;
    io_give();

    int rc = hard ? compact_to_max_size(&input, &plan)
                  : pmt__compact_run(&compact, &input, &pmt__compact_plans[0]);
    if (rc == 0) {
        rc = compact_catch_up();
        if (rc < 0) {
            pmt__compact_abandon(&compact, &input);
        } else {
            rc = compact_adopt(&input);
        }
    } else {
        io_take();
    }
    compact_note(rc, hard, plan);
    if (rc == 0 && w.out.len != 0 && out_write() == 0) {
        slot_write();
    }
    __atomic_store_n(&compacting, 0, __ATOMIC_RELEASE);
    io_give();
    pmt__wake_word(&compacting);
}

/* --- the birth of a child's capture --------------------------------------------------------------------------------------------- */

static int first_chunks_write(pmt_error *err);

/* <base>.<pid>.pmt, or with -1, -2 … behind the pid where that exists: this process executes itself again and again, or has the
   number of one that was. */
static int
child_file_create(void)
{
    for (int i = 0; i < NAMES_TRIED; i++) {
        char more[16] = "";
        if (i > 0) {
            snprintf(more, sizeof more, "-%d", i);
        }
        int n = snprintf(w.path, sizeof w.path, "%s.%llu%s.pmt", w.base, (unsigned long long)w.pid,
                         more);
        if (n < 0 || (size_t)n >= sizeof w.path) {
            return -ENAMETOOLONG;
        }
        w.fd = pmt__file_create(w.path, 0);
        if (w.fd != -EEXIST) {
            break;
        }
    }
    return w.fd < 0 ? w.fd : pmt__file_identity(w.fd, &w.device, &w.inode);
}

/* Was there anything worth a file? */
static int
child_did_something(void)
{
    uint64_t live = pmt__t.live_bytes;
    uint64_t change = live > w.born_live ? live - w.born_live : w.born_live - live;
    return change >= BIRTH_BYTES || pmt__clock_mono_ns() - w.born_ns >= BIRTH_NS;
}

/* The caller holds io. 0, or a negative code: then this process is not recorded. */
static int
birth(void)
{
    if (!w.unborn || w.refused) {
        return w.refused ? PMT_ERR_STATE : 0;
    }
    pmt__buffer *mine[] = {&w.payload, &w.out};
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++) {
        pmt__buffer_dispose(mine[i]);
        pmt__buffer_init(mine[i]);
    }
    pmt__cut_dispose(&w.cut);
    pmt__cut_init(&w.cut);
    pmt__pressure_begin(&w.pressure);
    w.sequence = 0;
    pmt_error err = PMT_ERROR_INIT;
    if (child_file_create() < 0 || first_chunks_write(&err) < 0) {
        pmt__attention_set(PMT_ATTENTION_OFF);
        if (w.fd >= 0) {
            pmt__file_remove(w.path, w.device, w.inode);
            pmt__file_close(w.fd);
        }
        w.fd = -1;
        w.refused = 1;
        return PMT_ERR_IO;
    }
    pmt__tables_acquire();
    pmt__log_dispose(); /* it is the parent's, and a child has none */
    pmt__tables_inherit_nopy(w.fork_epoch, &w.cut.inherited_blocks, &w.cut.inherited_bytes);
    pmt__mark_fork_nopy(w.fork_epoch);
    pmt__tables_release();
    w.unborn = 0;
    return 0;
}

/* By the thread: the file comes when the child is old enough to be no passing one. */
static void
birth_wait(void)
{
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        uint64_t age_ns = pmt__clock_mono_ns() - w.born_ns;
        if (age_ns >= BIRTH_NS) {
            io_take();
            birth();
            io_give();
            return;
        }
        uint32_t seen = __atomic_load_n(&wake, __ATOMIC_ACQUIRE);
        if (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
            pmt__wait_word(&wake, seen, BIRTH_NS - age_ns);
        }
    }
}

/* --- an end that was set at the start ---------------------------------------------------------------------------------------------- */

static void capture_finish(uint32_t reason);

/* By the thread. The interpreter is told first, which can name its threads and take the hooks off. Where it does not get to that,
   because its main thread waits for something, the capture is finished from here. */
static void
end_if_due(void)
{
    const uint64_t now_ns = pmt__clock_mono_ns();
    if (w.end_ns == 0 || now_ns < w.end_ns) {
        return;
    }
    if (!w.end_told) {
        __atomic_store_n(&w.end_told, 1, __ATOMIC_RELEASE);
        w.end_ns = now_ns + END_PATIENCE_NS;
        w.on_end();
        return;
    }
    io_take();
    capture_finish(PMT_END_BY_PROGRAM);
    w.lost = 1;
    __atomic_store_n(&w.finished, 1, __ATOMIC_RELEASE);
    io_give();
}

static uint64_t
next_wake_ns(void)
{
    return w.end_ns != 0 && w.end_ns < next_cut_ns ? w.end_ns : next_cut_ns;
}

/* --- the thread ---------------------------------------------------------------------------------------------------------------- */

static void *
writer_main(void *unused)
{
    (void)unused;
    __atomic_store_n(&w.thread_native_id, pmt__thread_native_id(), __ATOMIC_RELEASE);
    pmt__thread_set_name("pymemtrace");
    pmt__lanes_closed = 1;
    next_cut_ns = pmt__clock_mono_ns() + interval_next();
    pmt__overhead_thread_begins(&w.overhead);
    if (w.unborn) {
        birth_wait();
        next_cut_ns = pmt__clock_mono_ns();
    }
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE) && !w.refused && !pmt__record_finished()) {
        end_if_due();
        uint64_t now_ns = pmt__clock_mono_ns();
        uint32_t seen = __atomic_load_n(&wake, __ATOMIC_ACQUIRE);
        if (now_ns < next_cut_ns && !__atomic_exchange_n(&hurry, 0, __ATOMIC_ACQUIRE)) {
            if (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
                const uint64_t until_ns = next_wake_ns();
                pmt__wait_word(&wake, seen, until_ns > now_ns ? until_ns - now_ns : 1);
            }
            continue;
        }
        cut_due();
        compact_if_due();
    }
    __atomic_store_n(&thread_done, 1, __ATOMIC_RELEASE);
    pmt__wake_word(&thread_done);
    return NULL;
}

static int
thread_start(void)
{
    __atomic_store_n(&stop, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&thread_done, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&w.thread_native_id, 0, __ATOMIC_RELEASE);
    int rc = pmt__thread_start(&w.thread, writer_main, NULL);
    w.thread_runs = rc == 0;
    return rc;
}

static void
thread_stop(void)
{
    if (!w.thread_runs) {
        return;
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    __atomic_fetch_add(&wake, 1, __ATOMIC_RELEASE);
    pmt__wake_word(&wake);
    while (__atomic_load_n(&w.thread_native_id, __ATOMIC_ACQUIRE) == 0) {
        pmt__wait_word(
            &stop, 1,
            20000); /* it has hardly begun: without its id, who forks would still count it */
    }
    pmt__thread_join(w.thread, __atomic_load_n(&w.thread_native_id, __ATOMIC_ACQUIRE));
    w.thread_runs = 0;
}

void
pmt__writer_hurry_nopy(void)
{
    __atomic_store_n(&hurry, 1, __ATOMIC_RELEASE);
    __atomic_fetch_add(&wake, 1, __ATOMIC_RELEASE);
    pmt__wake_word(&wake);
}

void
pmt__writer_restart_nopy(void)
{
    if (((int64_t)(pmt__clock_mono_ns() - w.forked_ns) < RESTART_DELAY_NS
         && !(w.unborn && w.forked_ns == w.born_ns && child_did_something()))
        || __atomic_exchange_n(&starting, 1, __ATOMIC_ACQUIRE) != 0) {
        return;
    }
    if (!w.active || w.pid != pmt__process_id() || w.refused || w.thread_runs
        || thread_start() == 0) {
        pmt__attention_clear(PMT_ATTENTION_WRITER);
    } else {
        w.forked_ns = pmt__clock_mono_ns() + RETRY_DELAY_NS; /* too many threads or processes now */
    }
    lock_give(&starting);
}

void
pmt__writer_restart_now(void)
{
    if (!(__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_WRITER)) {
        return;
    }
    w.forked_ns = pmt__clock_mono_ns() - RESTART_DELAY_NS;
    int closed = pmt__lanes_closed;
    pmt__lanes_closed = 1; /* what starting it allocates is not the program's */
    pmt__writer_restart_nopy();
    pmt__lanes_closed = closed;
}

/* --- fork: the parent's thread must not exist while the process forks (from CPython 3.12 on, os.fork warns of threads) --- */

static int forking; /* Protected by starting: prepare has run, and parent or child must follow */
static uint64_t forker; /* Protected by starting: native id of the thread that forks */

static void
fork_prepare(void)
{
    if (!w.active || w.pid != pmt__process_id()) {
        return;
    }
    lock_take(&starting);
    io_take();
    cut_write(CUT_SHORT);
    io_give();
    thread_stop();
    io_take();
    pmt__lanes_closed = 1; /* handlers of others allocate, and the tables are held from here on */
    pmt__tables_acquire();
    pmt__lanes_count_nopy(); /* the child has no lanes but its own */
    forker = pmt__thread_native_id();
    forking = 1;
}

static void
fork_parent(void)
{
    if (!forking) {
        return;
    }
    forking = 0;
    pmt__tables_release();
    pmt__lanes_closed = 0;
    io_give();
    w.forked_ns = pmt__clock_mono_ns();
    pmt__attention_set(PMT_ATTENTION_WRITER);
    lock_give(&starting);
}

/* Recording, without a capture for now. Only what must be at once: the child may execute another program next. */
static void
child_goes_on(void)
{
    if (pmt__barrier_all_prepare() < 0) {
        pmt__attention_set(PMT_ATTENTION_FENCE);
    }
    w.parent_pid = w.pid;
    w.pid = pmt__process_id();
    if (!w.unborn) { /* else it is the grandparent's, the last that has one */
        memcpy(w.parent_id, w.id, sizeof w.parent_id);
    }
    w.unborn = 1;
    w.generation = 0;
    w.fork_t_ns = pmt__clock_mono_ns() - pmt__t.start_ns;
    w.fork_epoch = pmt__tables_forked_nopy(forker);
    w.forked_ns = w.born_ns = pmt__t.start_ns;
    w.born_live = pmt__t.live_bytes;
    w.log_bytes = w.compacted_size = w.compact_after_ns = w.compact_plan = 0;
    w.exhausted = w.folded = 0;
    pmt__overhead_begin(&w.overhead, w.overhead.limit, w.overhead.interval_asked_ns,
                        w.overhead.mean_asked);
    w.overhead.ticks_seen = pmt__sampling_now.ticks;
    w.definition_bytes = w.last_epoch = 0;
    w.main_ended = PMT_MAIN_UNKNOWN;
    pmt__attention_set(PMT_ATTENTION_WRITER);
}

static void
fork_child(void)
{
    pmt__process_files_close(); /* it speaks of the parent */
    pmt__pressure_close(&w.pressure);
    if (!forking) {
        return;
    }
    forking = 0;
    if (file_is_ours()) {
        pmt__file_close(w.fd);
    }
    w.fd = -1;
    if (w.follow && !w.lost && !w.refused) {
        child_goes_on();
    } else {
        /* The tables stay as they are, shared with the parent; a start in this process gives them back. */
        w.active = 0;
        pmt__attention_set(PMT_ATTENTION_OFF);
        pmt__attention_clear(PMT_ATTENTION_WRITER);
    }
    pmt__lanes_forked();
    pmt__tables_release();
    pmt__lanes_closed = 0;
    io_give();
    lock_give(&starting);
}

/* --- start and stop ---------------------------------------------------------------------------------------------------------------- */

static void
host_facts_put(pmt__buffer *out, uint32_t *count)
{
    pmt__host_facts host;
    pmt__host_facts_get(&host);
    pmt__fact_put_text(out, "hostname", host.hostname);
    pmt__fact_put_text(out, "kernel", host.kernel);
    pmt__fact_put_text(out, "machine", host.machine);
    pmt__fact_put_text(out, "boot_id", host.boot_id);
    pmt__fact_put_text(out, "cgroup", host.cgroup);
    pmt__fact_put_number(out, "cpus", host.cpus);
    pmt__fact_put_number(out, "memory_bytes", host.memory_bytes);
    pmt__pressure_facts_put(&w.pressure, out, count);
    pmt__fact_put_number(out, "pid", w.pid);
    pmt__fact_put_number(out, "ppid", pmt__process_parent_id());
    pmt__fact_put_number(out, "exec_generation", w.generation);
    pmt__fact_put_number(out, "start_ticks", pmt__process_start_ticks());
    pmt__fact_put_number(out, "started_unix_ns", pmt__clock_unix_ns());
    pmt__fact_put_number(out, "started_mono_ns", pmt__clock_mono_ns());
    *count += 13;
}

/* Where a forked child comes from. */
static void
fork_facts_put(pmt__buffer *out, uint32_t *count)
{
    char id[2 * sizeof w.parent_id + 1];
    for (size_t i = 0; i < sizeof w.parent_id; i++) {
        snprintf(id + 2 * i, 3, "%02x", w.parent_id[i]);
    }
    pmt__fact_put_text(out, "parent_capture", id);
    pmt__fact_put_number(out, "parent_pid", w.parent_pid);
    pmt__fact_put_number(out, "fork_epoch", w.fork_epoch);
    pmt__fact_put_number(out, "fork_t_ns", w.fork_t_ns);
    *count += 4;
}

static int
first_chunks_write(pmt_error *err)
{
    uint8_t id[16];
    static uint8_t page[PMT_HEADER_SIZE];
    memset(page, 0, sizeof page);
    if (pmt__random_bytes(id, sizeof id) < 0) {
        uint64_t t = pmt__clock_unix_ns();
        memcpy(id, &t, sizeof t);
    }
    memcpy(w.id, id, sizeof id);
    pmt__header_encode(page, id, pmt__clock_unix_ns(), w.region_bytes == 0 ? 0 : PMT_REQUIRED_BOX,
                       w.unborn ? w.features & ~(uint64_t)PMT_FEATURE_EVENTS : w.features);
    w.slot =
        (pmt__slot){.seq = 1, .status = PMT_STATUS_RECORDING, .cut_unix_ns = pmt__clock_unix_ns()};
    w.offset = PMT_HEADER_SIZE;
    if (w.region_bytes != 0) {
        w.start = PMT_HEADER_SIZE;
        pmt__header_box_encode(page + PMT_HEADER_BOX_OFFSET, w.region_bytes);
    }
    w.ramp_ns = RAMP_NS;
    w.slot.data_end = w.offset;
    pmt__slot_encode(page + PMT_SLOT_A_OFFSET, &w.slot);

    uint32_t count = w.fact_count;
    pmt__buffer host, payload;
    pmt__buffer_init(&host);
    pmt__buffer_init(&payload);
    host_facts_put(&host, &count);
    if (w.unborn) {
        fork_facts_put(&host, &count);
    }
    pmt__buffer_put_varint(&payload, count);
    pmt__buffer_put(&payload, w.facts.data, w.facts.len);
    pmt__buffer_put(&payload, host.data, host.len);
    pmt__chunk_put(&w.out, "PROC", 0, ++w.sequence, payload.data, payload.len);
    int rc = payload.failed || host.failed || w.out.failed ? -ENOMEM : 0;
    pmt__buffer_dispose(&host);
    pmt__buffer_dispose(&payload);
    if (rc == 0 && w.region_bytes != 0) {
        rc = pmt__file_allocate(w.fd, box_bytes());
    }
    if (rc == 0) {
        rc = pmt__file_write_at(w.fd, page, sizeof page, 0);
    }
    if (rc == 0) {
        rc = out_write();
    }
    if (rc < 0) {
        return pmt__error_set_errno(err, rc == -ENOMEM ? PMT_ERR_NOMEM : PMT_ERR_IO, -rc,
                                    "cannot write the capture %s", w.path);
    }
    return 0;
}

/* Where children's captures go: beside ours. */
static void
base_set(const pmt__record_options *options)
{
    const char *base = options->follow_base != NULL ? options->follow_base : options->path;
    size_t length = strlen(base);
    if (options->follow_base == NULL && length > 4 && strcmp(base + length - 4, ".pmt") == 0) {
        length -= 4;
    }
    w.follow = options->follow && length < sizeof w.base;
    if (w.follow) {
        memcpy(w.base, base, length);
        w.base[length] = '\0';
    }
}

static int
file_open(const pmt__record_options *options, pmt_error *err)
{
    if (strlen(options->path) >= sizeof w.path) {
        return pmt__error_set(err, PMT_ERR_ARGUMENT,
                              "the path of the capture is longer than %zu bytes",
                              sizeof w.path - 1);
    }
    strcpy(w.path, options->path);
    w.fd = pmt__file_create(w.path, options->replace);
    if (w.fd == -EEXIST) {
        return pmt__error_set(err, PMT_ERR_EXISTS, "%s exists: %s", w.path,
                              options->replace
                                  ? "it is not a regular file; choose another name"
                                  : "choose another name, or overwrite it with force=True");
    }
    if (w.fd < 0) {
        return pmt__error_set_errno(err, PMT_ERR_IO, -w.fd, "cannot create the capture %s", w.path);
    }
    return pmt__file_identity(w.fd, &w.device, &w.inode) < 0
               ? pmt__error_set(err, PMT_ERR_IO, "cannot stat the capture %s", w.path)
               : 0;
}

static void
buffers_dispose(void)
{
    fold_dispose();
    pmt__cut_dispose(&w.cut);
    pmt__measure_dispose(&w.measure);
    pmt__buffer_dispose(&w.payload);
    pmt__buffer_dispose(&w.out);
    pmt__buffer_dispose(&w.facts);
}

static int
facts_keep(const pmt__record_options *options)
{
    pmt__buffer_put(&w.facts, options->facts->data, options->facts->len);
    w.fact_count = options->fact_count;
    return w.facts.failed ? -1 : 0;
}

/* Under an address space limit the default reservation may not fit: take less, the tables fold earlier. */
static int
tables_create(const pmt__record_options *options, const pmt__frame_source *source)
{
    uint64_t memory = options->max_memory_bytes != 0 ? options->max_memory_bytes
                      : options->sample_mean != 0    ? SAMPLED_MAX_MEMORY
                                                     : DEFAULT_MAX_MEMORY;
    uint64_t log_memory = memory / 4 < MAX_LOG_MEMORY ? memory / 4 : MAX_LOG_MEMORY;
    int rc;
    if (options->events) {
        memory -= log_memory;
    }
    while ((rc = pmt__tables_create(source, memory, options->temporaries_n)) < 0
           && options->max_memory_bytes == 0 && memory > MIN_MAX_MEMORY) {
        memory /= 2;
    }
    if (rc == 0 && options->events) {
        pmt__log_create(log_memory);
    }
    return rc;
}

static int
natives_create(const void *own_code, pmt_error *err)
{
    int rc = pmt__natives_create(own_code);
    return rc == PMT_ERR_UNSUPPORTED
               ? pmt__error_set(err, rc,
                                "native stacks need x86-64 and the GNU C library 2.35 or newer: "
                                "record without --native")
           : rc < 0 ? pmt__error_set(err, rc, "cannot reserve the tables of native stacks")
                    : 0;
}

int
pmt__record_start(const pmt__record_options *options, const pmt__frame_source *source,
                  pmt_error *err)
{
    static int forks_handled;
    if (w.active && (w.refused || w.finished)) {
        pmt__record_stop(PMT_END_BY_PROGRAM);
    }
    if (w.active) {
        return pmt__error_set(err, PMT_ERR_STATE, "this process is already being recorded to %s",
                              w.path);
    }
    memset(&w, 0, sizeof w);
    w.pid = pmt__process_id();
    pmt__overhead_begin(&w.overhead, options->max_overhead, options->interval_ns,
                        options->sample_mean);
    w.before_cut = options->before_cut;
    w.on_end = options->on_end;
    w.end_ns = options->duration_ns == 0 ? 0 : pmt__clock_mono_ns() + options->duration_ns;
    w.generation = options->generation;
    w.max_size_bytes = options->max_size_bytes;
    if (options->box_bytes != 0) {
        w.region_bytes = (options->box_bytes - PMT_HEADER_SIZE) / 2 / BOX_ALIGN * BOX_ALIGN;
        w.max_size_bytes = w.region_bytes - PMT_CHUNK_HEADER_SIZE;
    }
    w.features = PMT_FEATURE_EPOCHS | (options->events ? PMT_FEATURE_EVENTS : 0);
    pmt__buffer_init(&w.facts);
    pmt__cut_init(&w.cut);
    pmt__measure_init(&w.measure);
    pmt__pressure_init(&w.pressure);
    pmt__buffer_init(&w.payload);
    pmt__buffer_init(&w.out);
    int rc = file_open(options, err);
    if (rc < 0) {
        buffers_dispose();
        return rc;
    }
    base_set(options);
    pmt__control_look(&w.control,
                      w.path); /* an order to an earlier recording is none to this one */
    if (tables_create(options, source) < 0 || facts_keep(options) < 0) {
        rc = pmt__error_set(err, PMT_ERR_NOMEM,
                            "cannot reserve the recording tables (address space limit?): try a "
                            "smaller --max-memory");
    } else {
        pmt__t.names_kept = options->follow != 0;
        rc = options->native_stacks ? natives_create(options->own_code, err) : 0;
        if (rc == 0 && options->sample_mean != 0
            && pmt__sampling_create(options->sample_mean) < 0) {
            rc = pmt__error_set(err, PMT_ERR_NOMEM, "cannot reserve the table of samples");
        }
        rc = rc < 0 ? rc : first_chunks_write(err);
        pmt__t.parents = options->async_parents != 0;
        pmt__t.mixed |= pmt__t.parents;
    }
    pmt__attention_clear(PMT_ATTENTION_SLOW | PMT_ATTENTION_MIXED);
    pmt__attention_set((options->temporaries_n > 1 || options->events ? PMT_ATTENTION_SLOW : 0)
                       | (pmt__t.mixed ? PMT_ATTENTION_MIXED : 0));
    if (rc == 0 && pmt__barrier_all_prepare() < 0) {
        pmt__attention_set(PMT_ATTENTION_FENCE);
    }
    if (rc == 0 && !forks_handled) {
        forks_handled = pmt__atfork(fork_prepare, fork_parent, fork_child) == 0;
    }
    if (rc == 0 && thread_start() != 0) {
        rc = pmt__error_set(err, PMT_ERR_NOMEM, "cannot start the writer thread");
    }
    if (rc < 0) {
        pmt__file_remove(w.path, w.device, w.inode);
        pmt__file_close(w.fd);
        pmt__log_dispose();
        pmt__tables_dispose();
        buffers_dispose();
        return rc;
    }
    w.active = 1;
    return 0;
}

void
pmt__record_enable(void)
{
    pmt__attention_clear(PMT_ATTENTION_OFF);
}

int
pmt__record_active(void)
{
    return w.active && !w.refused && !pmt__record_finished();
}

int
pmt__record_finished(void)
{
    return (int)__atomic_load_n(&w.finished, __ATOMIC_ACQUIRE);
}

int
pmt__record_flush(uint32_t flags)
{
    if (!w.active || w.pid != pmt__process_id()) {
        return PMT_ERR_STATE;
    }
    io_take();
    int rc = 0;
    if (!w.unborn || child_did_something()) { /* else there is nothing to be written */
        rc = birth();
        rc = rc < 0 ? rc : cut_write_surely(flags);
    }
    io_give();
    return rc;
}

int
pmt__record_due(void)
{
    return w.active && __atomic_load_n(&w.end_told, __ATOMIC_ACQUIRE);
}

uint64_t
pmt__record_mark(const pmt__text *label)
{
    pmt__tables_acquire();
    uint64_t ended = pmt__mark_nopy(label);
    pmt__tables_release();
    return ended;
}

void
pmt__record_thread_name(uint64_t ident, const pmt__text *name)
{
    pmt__tables_acquire();
    for (pmt__thread *t = pmt__t.threads; t != NULL; t = t->next) {
        if (t->ident == ident && !t->ended) {
            uint32_t id = pmt__string_intern_nopy(name);
            if (t->name != id) {
                t->name = id;
                pmt__t.threads_changed = 1;
            }
        }
    }
    pmt__tables_release();
}

/* Behind the last cut. The caller holds io. */
static void
end_write(uint32_t reason)
{
    w.ending = 1;
    pmt__buffer_clear(&w.payload);
    pmt__buffer_put_varint(&w.payload, reason);
    pmt__buffer_put_varint(&w.payload, pmt__clock_mono_ns() - pmt__t.start_ns);
    if (w.main_ended != PMT_MAIN_UNKNOWN) {
        pmt__buffer_put_varint(&w.payload, w.main_ended);
        pmt__buffer_put_varint(&w.payload, w.exit_status);
    }
    pmt__chunk_put(&w.out, "END ", 0, ++w.sequence, w.payload.data, w.payload.len);
    if (out_write() == 0) {
        w.slot.status = PMT_STATUS_ENDED;
    }
    slot_write();
}

/* The last cut and the END chunk. The caller holds io, and the thread has ended or will not write again. */
static void
capture_finish(uint32_t reason)
{
    if (w.unborn && (!child_did_something() || birth() < 0)) {
        pmt__attention_set(PMT_ATTENTION_OFF);
        return;
    }
    int rc = cut_write_surely(PMT_CUT_FINAL);
    pmt__attention_set(PMT_ATTENTION_OFF);
    pmt__tables_acquire(); /* the last hook has left, and so have threads without the GIL */
    pmt__tables_release();
    if (rc == 0) {
        end_write(reason);
    } else {
        slot_write();
    }
    if (file_is_ours()) {
        pmt__file_close(w.fd);
    }
    w.fd = -1;
}

void
pmt__record_stop(uint32_t reason)
{
    if (!w.active || w.pid != pmt__process_id()) {
        return;
    }
    lock_take(&starting);
    thread_stop();
    lock_give(&starting);
    io_take();
    if (!w.finished) {
        capture_finish(reason);
    }
    w.finished = 0;
    pmt__process_files_close();
    pmt__pressure_close(&w.pressure);
    w.active = 0;
    pmt__log_dispose();
    pmt__tables_dispose();
    buffers_dispose();
    io_give();
}

/* --- ends that pass Python by --------------------------------------------------------------------------------------------------- */

/* The locks, without waiting for what the calling thread itself may hold: it can be in a signal handler. */
static int
calm_down(void)
{
    if (!pmt__record_active() || w.pid != pmt__process_id() || forking
        || !lock_take_within(&io, PATIENCE_NS)) {
        return 0;
    }
    if (!w.active || !pmt__tables_free_within(HOOK_PATIENCE_NS)) {
        io_give();
        return 0;
    }
    return 1;
}

void
pmt__record_exiting(void)
{
    if (!calm_down()) {
        return;
    }
    if (__atomic_load_n(&compacting, __ATOMIC_ACQUIRE)) { /* it would leave its half of a file */
        __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
        io_give();
        uint64_t until = pmt__clock_mono_ns() + PATIENCE_NS;
        while (!__atomic_load_n(&thread_done, __ATOMIC_ACQUIRE) && pmt__clock_mono_ns() < until) {
            pmt__wait_word(&thread_done, 0, 10000000);
        }
        if (!calm_down()) {
            return;
        }
    }
    capture_finish(PMT_END_NORMAL);
    w.lost = 1; /* the thread is still there */
    w.active = 0;
    io_give();
}

int
pmt__record_exec_begin(void)
{
    if (!calm_down()) {
        return 0;
    }
    w.end_offset = 0;
    if ((!w.unborn || (child_did_something() && birth() == 0)) && cut_write_surely(0) == 0) {
        w.end_offset = w.offset;
        end_write(PMT_END_EXEC);
    }
    return 1;
}

void
pmt__record_exec_failed(void)
{
    if (w.end_offset != 0) { /* the next chunk goes where the end was */
        w.ending = 0;
        if (w.offset != w.end_offset) {
            w.offset = w.end_offset;
            w.sequence--;
        } else { /* it was not written */
            pmt__buffer_clear(&w.out);
            w.sequence--;
        }
        if (file_check() < 0) {
            /* nothing of it can be taken back */
        } else if (w.region_bytes != 0) {
            terminator_write(w.offset);
        } else {
            pmt__file_truncate(w.fd, w.offset);
        }
        w.slot.status = PMT_STATUS_RECORDING;
        slot_write();
    }
    io_give();
}

uint64_t
pmt__record_process(void)
{
    return w.active ? w.pid : 0;
}

void
pmt__record_origin(int itself, uint64_t *parent, uint64_t *generation)
{
    int goes_on = itself && w.unborn; /* it was forked for the sake of the program */
    *parent = goes_on ? w.parent_pid : w.pid;
    *generation = itself && !goes_on ? w.generation + 1 : 0;
}

void
pmt__record_main_ended(uint32_t how, uint32_t exit_status)
{
    w.main_ended = how;
    w.exit_status = exit_status;
}

static const char *
stop_reason(void)
{
    switch (w.slot.reason) {
    case PMT_REASON_MAX_SIZE:
        return "it reached --max-size";
    case PMT_REASON_NO_SPACE:
        return "no space left on the device";
    case PMT_REASON_FILE_GONE:
        return "it was removed or replaced";
    default:
        return w.slot.sys_errno != 0 ? strerror(w.slot.sys_errno) : "it could not be written";
    }
}

size_t
pmt__record_complaint(char *out, size_t size)
{
    int n = 0;
    *out = '\0';
    if (w.slot.status == PMT_STATUS_STOPPED) {
        n = snprintf(out, size, "the capture is cut (%s): %s: it ends %.1f s after the start; %s",
                     stop_reason(), w.path, (double)w.slot.cut_t_ns / 1e9,
                     w.slot.reason == PMT_REASON_MAX_SIZE
                         ? "record again with a larger --max-size"
                         : "record again into another file, with -o");
    } else if (w.slot.status == PMT_STATUS_ENDED && w.folded) {
        n = snprintf(out, size,
                     "--max-size has no room for all stacks: %s: what is new from %.1f s on has "
                     "totals only, as "
                     "[folded]; record again with a larger --max-size",
                     w.path, (double)w.folded_t_ns / 1e9);
    }
    return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}

void
pmt__record_status_get(pmt__record_status *status)
{
    memset(status, 0, sizeof *status);
    if (!pmt__record_active()) {
        return;
    }
    pmt__lanes_flush();
    io_take();
    status->path = w.path;
    status->cuts = w.slot.cuts;
    status->file_bytes = w.region_bytes == 0 ? w.offset : box_bytes();
    status->live_bytes = pmt__t.live_bytes;
    status->peak_bytes =
        pmt__t.peaks[0].bytes > pmt__t.live_bytes ? pmt__t.peaks[0].bytes : pmt__t.live_bytes;
    status->own_bytes = w.own_bytes != 0 ? w.own_bytes : own_bytes();
    status->last_cut_mono_ns = pmt__t.start_ns + w.slot.cut_t_ns;
    status->status = w.slot.status;
    status->reason = w.slot.reason;
    status->sys_errno = w.slot.sys_errno;
    io_give();
}
