/* The whole run in a few numbers, of one process or of several. */
#ifndef PMT_ANALYZE_TOTALS_H
#define PMT_ANALYZE_TOTALS_H

#include "analyze/aggregate.h"

typedef struct pmt__totals {
    uint64_t peak_bytes; /* of several: the sum of each one's own */
    uint64_t peak_blocks;
    uint64_t peak_t_ns; /* of one */
    uint64_t end_bytes;
    uint64_t end_blocks;
    uint64_t end_t_ns; /* of one */
    uint64_t allocated_bytes;
    uint64_t allocations;
    uint64_t frees;
    uint64_t rss_peak_bytes; /* of several: likewise the sum; pages that they share count in each */
    uint64_t rss_end_bytes;
    uint64_t gc[3];
    uint64_t own_bytes;
    uint64_t inherited_bytes; /* left out: births of the excluded epoch */
    uint64_t inherited_blocks;
    bool is_estimate; /* the capture, or one of several, is sampled */
    pmt_spread peak_spread;
    pmt_spread end_spread;
    pmt_spread allocated_spread;
} pmt__totals;

/* exclude_epoch as in pmt_query. What is not about blocks stays as it is. */
int pmt__totals_compute(pmt__totals *out, const pmt_reader *reader, uint64_t exclude_epoch,
                        pmt_error *err);
void pmt__totals_add(pmt__totals *to, const pmt__totals *totals);

/* Garbage collections up to a cut. */
static inline uint64_t
pmt__cut_gc_runs(const pmt_cut *cut)
{
    return cut->gc[0] + cut->gc[1] + cut->gc[2];
}

/* Does a cut tell of a highest point between it and the one before? */
bool pmt__cut_has_inner_peak(const pmt_reader *reader, size_t at);

/* The heaps of several processes at one instant. */
typedef struct pmt__moment {
    uint64_t t_ns; /* since the start of the process that started first */
    uint64_t heap_bytes;
    uint32_t processes; /* that have started and not ended */
    uint32_t gc_runs;   /* since the moment before */
} pmt__moment;

typedef struct pmt__together {
    const pmt_allocator *allocator; /* borrowed */
    PMT__VEC(pmt__moment) list;     /* owned; time never goes back */
    size_t highest;                 /* the first moment with the most bytes; SIZE_MAX without one */
    uint64_t start_unix_ns;         /* the instant of t_ns 0 */
} pmt__together;

/* with_inherited: else blocks that a fork handed down do not count in the child. */
int pmt__together_init(pmt__together *out, const pmt_reader *const *readers, size_t count,
                       bool with_inherited, pmt_error *err);
void pmt__together_dispose(pmt__together *self); /* also after an error */

#endif
