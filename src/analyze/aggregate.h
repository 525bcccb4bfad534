/* What the analysis keeps of a query. */
#ifndef PMT_ANALYZE_AGGREGATE_H
#define PMT_ANALYZE_AGGREGATE_H

#include <stdbool.h>

#include "base/memory.h"
#include "pymemtrace/reader.h"
#include "store/store.h"

/* Which cuts count, as places in the reader's list. */
typedef struct pmt__window {
    bool whole;   /* the whole run */
    size_t first; /* first <= last, both inside the list; without a cut both are 0 */
    size_t last;
    size_t end;             /* the cut of "alive at the end" */
    size_t peak;            /* the cut of "at the peak" */
    bool exact_peak;        /* the corrections of that cut lead to the peak */
    uint64_t exclude_epoch; /* births up to this one do not count; 0 = all do */
    uint64_t start_ns;      /* the stretch that these cuts cover */
    uint64_t end_ns;
} pmt__window;

/* PMT_ERR_ARGUMENT if the query's window ends before it starts. */
int pmt__window_check(const pmt_query *query, pmt_error *err);
/* The same, and if the window holds no cut of a capture that has cuts. */
int pmt__window_choose(pmt__window *out, const pmt_reader *reader, const pmt_query *query,
                       pmt_error *err);

/* Per site. Blocks and bytes of each view. */
typedef struct pmt__sums {
    uint64_t peak_blocks;
    uint64_t peak_bytes;
    uint64_t leak_blocks;
    uint64_t leak_bytes;
    uint64_t total_blocks;
    uint64_t total_bytes;
    uint64_t temp_blocks;
    uint64_t temp_bytes;
    pmt_spread peak; /* how sure these are (spread.h) */
    pmt_spread leak;
    pmt_spread total;
} pmt__sums;

void pmt__sums_add(pmt__sums *to, const pmt__sums *sums);

/* *out: one element per site of the reader, for the caller to release. */
int pmt__sums_compute(pmt__sums **out, const pmt_reader *reader, const pmt__window *window,
                      pmt_error *err);

/* The same of a capture that is followed, for the whole run with an exact peak: walks over the cuts that came since the last
   time. */
int pmt__running_sums(pmt__sums **out, const pmt_reader *reader, const pmt__window *window,
                      pmt_error *err);

/* What of a capture a query asks for. */
typedef struct pmt__selection {
    pmt__window window;
    uint8_t *stacks;  /* owned: one byte per stack of the reader, or NULL: all */
    uint8_t *threads; /* owned: one byte per thread of the reader, or NULL: all */
} pmt__selection;

/* PMT_ERR_ARGUMENT as for the window, and if the capture has no such thread. */
int pmt__selection_init(pmt__selection *out, const pmt_reader *reader, const pmt_query *query,
                        pmt_error *err);
/* Also after an error. */
void pmt__selection_dispose(pmt__selection *self, const pmt_allocator *allocator);

/* Do the stack and the thread of the site count? */
static inline bool
pmt__selection_has(const pmt__selection *self, const pmt__stored_site *site)
{
    return (self->stacks == NULL || self->stacks[site->stack])
           && (self->threads == NULL || self->threads[site->thread]);
}

struct pmt__combination; /* combine.h */

struct pmt_aggregate {
    const pmt_reader
        *reader; /* borrowed; of several captures, their names, borrowed from the next */
    struct pmt__combination *combination; /* owned, or NULL: of one capture */
    pmt_view view;
    bool is_estimate;         /* a capture is sampled */
    pmt__selection selection; /* of several captures, of its window only what it covers */
    PMT__VEC(pmt_row) rows;   /* by stack, the heaviest first */
    PMT__VEC(pmt_spreads)
    spreads; /* theirs, in the order in which they were made; empty if it is no estimate */
    pmt_value total;
    pmt_spreads total_spreads;
};

/* Live figures are differences. Where events were lost, or a capture lies, they can come out below
   zero: that is none. */
static inline uint64_t
pmt__at_least_0(uint64_t difference)
{
    return difference >> 63 ? 0 : difference;
}

/* Where a frame is among all frames + 1: the last place is for the root stack, which has no frame. */
static inline size_t
pmt__frame_place(const pmt_reader *reader, uint32_t frame)
{
    return frame == UINT32_MAX ? reader->frames.len : frame;
}

/* Of the view. */
pmt_spreads pmt__sums_spreads(const pmt__sums *sums, pmt_view view);
void pmt__spreads_add(pmt_spreads *to, const pmt_spreads *spreads);
/* A new row, without the values; its spreads, if it is an estimate, have the same place until the rows are sorted. */
bool pmt__rows_push(pmt_aggregate *self, const pmt_row *row);
/* Sorts the heaviest first, and gives them their spreads. */
void pmt__rows_finish(pmt_aggregate *self);
/* Are there estimates among its figures? */
static inline bool
pmt__reader_is_sampled(const pmt_reader *reader)
{
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    return capture.sampled != 0;
}

void pmt__value_add(pmt_value *to, const pmt_value *value);
/* Sorts the heaviest first; what is equal, by frame and stack, so that the order is always the same. */
void pmt__rows_sort(pmt_row *rows, size_t count);

#endif
