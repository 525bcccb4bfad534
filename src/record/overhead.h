/* What the recorder costs, and what is done where that is too much: CPU time of its own thread and of the samples in the program's
   threads, against that of the process.

   A window is ten seconds. Where the share is over the limit, the larger part is halved: the mean distance of the samples doubled, or the
   interval of the cuts. After six windows below a quarter of the limit it is taken back a step, down to what was asked for. */
#ifndef PMT_RECORD_OVERHEAD_H
#define PMT_RECORD_OVERHEAD_H

#include <stdint.h>

#define PMT_INTERVAL_MAX_NS \
    ((uint64_t)4000000000) /* what a window may make of the interval: a state is not older than 5 s */

typedef struct pmt__overhead {
    double limit; /* share of the CPU time; 0: none */
    uint64_t interval_asked_ns, interval_ns;
    uint64_t mean_asked; /* bytes */
    uint64_t process_start_ns;
    uint64_t thread_seen_ns;        /* CPU time of the thread at the last look */
    uint64_t ticks_seen, ticks_now; /* of samples; of pmt__ticks */
    uint64_t mono_ns;               /* at the last look */
    uint64_t own_ns, sample_ns;     /* so far */
    uint64_t from_ns, from_own_ns, from_sample_ns, from_process_ns; /* of the window */
    uint32_t quiet;                                                 /* windows in a row */
    uint32_t backed_off;
} pmt__overhead;

/* mean: 0 where nothing is sampled. */
void pmt__overhead_begin(pmt__overhead *self, double limit, uint64_t interval_ns, uint64_t mean);
/* By a thread that begins to write: another one did before it. */
void pmt__overhead_thread_begins(pmt__overhead *self);
/* By the thread, behind each cut: counts, and decides. *mean: what it is now, and is to be from now on; 0: nothing is sampled. */
void pmt__overhead_look(pmt__overhead *self, uint64_t *mean);
/* The decision of a window, by itself: what the three have cost in it, and how long it was. */
void pmt__overhead_decide(pmt__overhead *self, uint64_t own_ns, uint64_t sample_ns,
                          uint64_t process_ns, uint64_t wall_ns, uint64_t *mean);

#endif
