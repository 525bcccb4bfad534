/* Births and deaths on a time axis of equal buckets: what the flame graph report needs to show any time
   window without the capture. */
#ifndef PMT_ANALYZE_LIVES_H
#define PMT_ANALYZE_LIVES_H

#include "analyze/aggregate.h"

#define PMT_LIFE_ALIVE 0xFFFF

typedef struct pmt__life {
    uint32_t stack;
    uint32_t thread; /* place in the reader's list */
    uint16_t birth;  /* bucket */
    uint16_t death;  /* bucket, or PMT_LIFE_ALIVE: alive at the end */
    uint64_t bytes;
    uint64_t blocks;
} pmt__life;

typedef struct pmt__lives {
    const pmt_allocator *allocator; /* borrowed */
    PMT__VEC(pmt__life) list;       /* owned; no two with equal stack, thread, birth and death */
    uint32_t bucket_count;
    uint64_t width_ns; /* of a bucket: a power of two of seconds */
} pmt__lives;

/* Of the stacks and threads that the aggregate's filters let through; its window does not matter.
   Buckets are made wider until there are at most max_rows rows. */
int pmt__lives_init(pmt__lives *out, const pmt_aggregate *aggregate, size_t max_rows,
                    pmt_error *err);
/* The same on an axis of this length that several captures have in common and that starts offset_ns before this
   one. stacks: what to call its stacks, or NULL; equal ones become one. */
int pmt__lives_init_at(pmt__lives *out, const pmt_aggregate *aggregate, size_t max_rows,
                       const uint32_t *stacks, uint64_t offset_ns, uint64_t duration_ns,
                       pmt_error *err);
void pmt__lives_dispose(pmt__lives *self); /* also after an error */

#endif
