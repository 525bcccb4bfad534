/* What an aggregate of several captures keeps of them. */
#ifndef PMT_ANALYZE_COMBINE_H
#define PMT_ANALYZE_COMBINE_H

#include "analyze/aggregate.h"
#include "analyze/tree.h"

/* One capture in a combination. */
typedef struct pmt__combined_part {
    const pmt_reader *reader; /* borrowed */
    pmt_aggregate *aggregate; /* owned, its rows are gone; NULL: the query finds nothing in it */
    uint64_t offset_ns;       /* its start, counted from that of the capture that started first */
    uint32_t *stacks;         /* owned: from its stacks to those of the combination */
    uint32_t *threads;        /* owned: likewise */
} pmt__combined_part;

/* What one capture has of one stack. */
typedef struct pmt__part_bytes {
    uint32_t stack;
    uint32_t part;
    uint64_t bytes;
} pmt__part_bytes;

typedef struct pmt__combination {
    const pmt_allocator *allocator; /* borrowed */
    pmt_reader *names;         /* owned: strings, frames, stacks, threads, marks of all; no rows */
    pmt__combined_part *parts; /* owned */
    size_t count;
    PMT__VEC(pmt__part_bytes) bytes; /* owned: by stack, then part */
    uint32_t *starts;                /* owned: of each stack in `bytes`, and the end */
    uint64_t duration_ns;            /* from the first start to the last end of any */
    bool with_inherited;
    bool by_process;
    uint32_t folded_frame; /* by process: "[folded]", for what a report takes the detail from */
} pmt__combination;

void pmt__combination_destroy(pmt__combination *self); /* NULL is allowed */

/* PMT_ERR_ARGUMENT if there are none, or more than have numbers. */
int pmt__captures_check(size_t count, pmt_error *err);

/* The captures' starts: the first one, and *offsets_ns, one for each, counted from it. */
uint64_t pmt__captures_start(const pmt_reader *const *readers, size_t count, uint64_t *offsets_ns);

/* A query about several captures as one of them has to answer it. Returns whether the window touches it. */
bool pmt__query_for(pmt_query *out, const pmt_query *query, const pmt_reader *reader,
                    uint64_t offset_ns, bool with_inherited);

/* What of several captures answers a query. If their own windows are not one stretch of time, since flushes of
   processes do not fall together, it is the one that was asked for. */
typedef struct pmt__stretch {
    bool whole;        /* all of all of them */
    uint64_t start_ns; /* counted from the first start */
    uint64_t end_ns;
} pmt__stretch;
int pmt__captures_stretch(pmt__stretch *out, const pmt_reader *const *readers,
                          const uint64_t *offsets_ns, size_t count, const pmt_query *query,
                          pmt_error *err);

/* Sets the error of a query that touches none of the captures, and returns it. */
int pmt__query_is_outside(const pmt_query *query, pmt_error *err);

/* The bytes of a tree's nodes by capture: out has capture_count numbers for each node, which are zero. */
int pmt__tree_by_capture(const pmt__tree *tree, const pmt_aggregate *aggregate, bool inverted,
                         uint64_t *out, pmt_error *err);

#endif
