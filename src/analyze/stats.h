/* The whole run from other sides than its stacks: sizes, domains, threads, lifetimes, epochs. */
#ifndef PMT_ANALYZE_STATS_H
#define PMT_ANALYZE_STATS_H

#include "analyze/aggregate.h"

#define PMT_SIZE_CLASSES 65 /* 0 | 1 | 2-3 | 4-7 | … | 2^63 and more */
#define PMT_AGE_CLASSES 65  /* in epochs: 0 | 1 | 2-3 | 4-7 | … */

typedef struct pmt__class {
    uint64_t low; /* both inclusive */
    uint64_t high;
    uint64_t blocks;
    uint64_t bytes;
    pmt_spread spread; /* of sizes */
} pmt__class;

typedef struct pmt__stats {
    const pmt_allocator *allocator;     /* borrowed */
    pmt__class sizes[PMT_SIZE_CLASSES]; /* allocations by requested size */
    pmt__class large; /* with a filter: all over 512 B, of which sites do not know the size */
    pmt__class ages[PMT_AGE_CLASSES]; /* freed blocks by their age in epochs */
    pmt__sums domains[PMT_DOMAIN_COUNT];
    pmt__sums *threads; /* owned; by place in the reader's list */
    pmt__sums total;
    uint64_t frees;
    bool is_estimate;  /* a capture is sampled */
    bool filtered;     /* it is not of the whole run */
    uint64_t start_ns; /* the time that it is of */
    uint64_t end_ns;
} pmt__stats;

/* query: its window, thread and patterns count, its view does not. PMT_ERR_ARGUMENT as for
   pmt_aggregate_create. */
int pmt__stats_query(pmt__stats *out, const pmt_reader *reader, const pmt_query *query,
                     pmt_error *err);
/* The same without lifetimes and frees: quick where the capture is followed. */
int pmt__stats_query_threads(pmt__stats *out, const pmt_reader *reader, const pmt_query *query,
                             pmt_error *err);
/* The same without filters. */
int pmt__stats_init(pmt__stats *out, const pmt_reader *reader, pmt_error *err);
void pmt__stats_dispose(pmt__stats *self); /* also after an error */
/* Of several captures, whose own ones go to parts, an array of `count`; out->threads is NULL, as the threads
   are those of the parts, and threads == NULL in a part that the query does not touch. All of them are for the
   caller to dispose of, also after an error. The rest is as in pmt_aggregate_combine. */
int pmt__stats_combine(pmt__stats *out, pmt__stats *parts, const pmt_reader *const *readers,
                       size_t count, const pmt_query *query, bool with_inherited, pmt_error *err);

/* A stretch of time between two marks, or what the recorder made one of its own accord. */
typedef struct pmt__epoch {
    uint64_t epoch;
    uint64_t start_ns;
    uint64_t end_ns;
    uint32_t mark;  /* the mark that ended it, or UINT32_MAX */
    pmt__sums sums; /* of the blocks born in it: total, leak (alive at the end), temp; no peak */
} pmt__epoch;

typedef struct pmt__epochs {
    const pmt_allocator *allocator; /* borrowed */
    PMT__VEC(pmt__epoch) list;      /* owned; rising */
} pmt__epochs;

/* Without sums. */
int pmt__epochs_init(pmt__epochs *out, const pmt_reader *reader, pmt_error *err);
void pmt__epochs_sum(pmt__epochs *self, const pmt_reader *reader);
void pmt__epochs_dispose(pmt__epochs *self); /* also after an error */
/* The place of the first epoch that is not before this one, or the last. The list must not be empty. */
size_t pmt__epochs_find(const pmt__epochs *self, uint64_t epoch);

#endif
