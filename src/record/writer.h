/* The writer: one thread of our own that takes a cut every interval and appends it to the capture.

   States: idle → started → (paused around fork) → stopped. start, stop, flush and mark are called with the GIL or at exit by
   one thread at a time; the hooks call only pmt__writer_restart_nopy. */
#ifndef PMT_RECORD_WRITER_H
#define PMT_RECORD_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "format/encode.h"
#include "pymemtrace/error.h"
#include "record/control.h"
#include "record/tables.h"

#define PMT_BOX_MIN ((uint64_t)1 << 20)
#define PMT_BOX_MAX ((uint64_t)1 << 30)

typedef struct pmt__record_options {
    const char *path; /* absolute */
    int replace;      /* an existing capture may be replaced */
    uint64_t interval_ns;
    uint64_t
        box_bytes; /* size of the file, from the first moment on (docs/design/011); 0: it grows */
    uint64_t max_size_bytes;   /* 0 = no limit */
    uint64_t max_memory_bytes; /* 0 = default */
    uint32_t temporaries_n;    /* 1 … PMT_TEMPORARIES_MAX */
    int events;                /* keep the event log */
    int native_stacks;         /* native frames in the stacks, */
    const void *own_code;      /* but for those of the object with this address; or NULL */
    int async_parents;         /* the frames that await a task, in its stacks */
    uint64_t sample_mean;      /* bytes: a sampled recording; 0: all */
    double max_overhead;       /* of a sampled one: share of the CPU time; 0: no limit */
    void (*before_cut)(void); /* called by the thread before its cuts, with nothing held; or NULL */
    uint64_t duration_ns;     /* 0 = until it is stopped */
    void (*on_end)(void); /* called by the thread when the duration is over, with nothing held */
    int follow;          /* forked children record themselves, into <path without .pmt>.<pid>.pmt */
    uint32_t generation; /* how often this process has executed itself under recording */
    const char *follow_base; /* instead of the path without .pmt, if not NULL */
    const pmt__buffer
        *facts; /* PROC entries (each with pmt__fact_put_*), without the count and the facts of
                                 the host and the process */
    uint32_t fact_count;
} pmt__record_options;

/* Creates the capture and the tables, starts the thread. The hooks may be installed afterwards; they pass through until
   pmt__record_enable. */
int pmt__record_start(const pmt__record_options *options, const pmt__frame_source *source,
                      pmt_error *err);
void pmt__record_enable(void);

/* Orders to a sampled recording: another mean (in bytes, in its limits), off (nothing new is a sample), on again. 0, or PMT_ERR_STATE: nothing
   is sampled here. Any thread that may wait. */
int pmt__record_order(const pmt__order *order);

/* Last cut, END chunk, file closed, tables given back. reason: PMT_END_*. */
void pmt__record_stop(uint32_t reason);
/* How the program's main module ended, for the END chunk: PMT_MAIN_*, and the exit status. */
void pmt__record_main_ended(uint32_t how, uint32_t exit_status);
/* After the end of the recording: what is wrong with the capture, in a sentence for the user, or an empty text. Returns the length. */
size_t pmt__record_complaint(char *out, size_t size);
int pmt__record_active(void);
/* The duration was over and nobody called pmt__record_stop, so the thread has written the last cut and the END chunk. Nothing is
   recorded any more; pmt__record_stop gives the tables back. */
int pmt__record_finished(void);
/* Is the duration over? */
int pmt__record_due(void);

/* A cut now, by the calling thread. flags: PMT_CUT_*. 0, or a negative code if it could not be written. */
int pmt__record_flush(uint32_t flags);
uint64_t pmt__record_mark(const pmt__text *label);
void pmt__record_thread_name(uint64_t ident, const pmt__text *name);

typedef struct pmt__record_status {
    uint64_t cuts, file_bytes, live_bytes, peak_bytes, own_bytes, last_cut_mono_ns;
    uint32_t status, reason;
    int sys_errno;
    const char *path; /* NULL: nothing is being recorded */
} pmt__record_status;
void pmt__record_status_get(pmt__record_status *status);

/* --- ends of the process that pass Python by; any thread, with or without the GIL, also in a signal handler ---------------- */

/* Before _exit(): what pmt__record_stop does, as far as it can be done without waiting for ever. */
void pmt__record_exiting(void);
/* Before exec(): writes what there is and keeps everybody from writing. 1: if exec fails, pmt__record_exec_failed must follow. */
int pmt__record_exec_begin(void);
void pmt__record_exec_failed(void);
/* The process that is recorded here; 0: none. Not the calling process, after a vfork. */
uint64_t pmt__record_process(void);
/* See record/children_table.h. */
void pmt__record_origin(int itself, uint64_t *parent, uint64_t *generation);

/* From a hook: starts the thread again some milliseconds after a fork. */
void pmt__writer_restart_nopy(void);
/* Outside of hooks, after a fork: at once, if that is still to be done. */
void pmt__writer_restart_now(void);
/* From a hook: the next cut should not wait for its time. */
void pmt__writer_hurry_nopy(void);

#endif
