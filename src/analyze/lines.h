/* Lines of an aggregate: what each allocated itself, and what was allocated below it. */
#ifndef PMT_ANALYZE_LINES_H
#define PMT_ANALYZE_LINES_H

#include "analyze/aggregate.h"

typedef struct pmt__line {
    uint32_t frame;  /* UINT32_MAX: the root stack, which has none */
    pmt_value own;   /* of the stacks that are blamed on it, as pmt_aggregate_sites */
    pmt_value total; /* of the stacks that it is on, each once, however often the line is on it */
    uint64_t key;    /* that it is sorted by */
} pmt__line;

/* *out is for the caller to release with the reader's allocator. Sorted by a number of pmt_value (its offset there) of `own` or
   `total`, the largest first; lines that have none in both are left out. PMT_ERR_NOMEM. */
int pmt__lines_make(pmt__line **out, size_t *count, const pmt_aggregate *aggregate, size_t number,
                    bool by_total, pmt_error *err);

#endif
