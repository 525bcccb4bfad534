/* The heap after any event, by replaying the event log: what the tables had counted by then. */
#ifndef PMT_ANALYZE_REPLAY_H
#define PMT_ANALYZE_REPLAY_H

#include <stddef.h>
#include <stdint.h>

#include "pymemtrace/reader.h"

typedef struct pmt__replay_block {
    uint64_t address;
    uint64_t size;
    uint32_t site; /* 0 = a free place of the table */
} pmt__replay_block;

typedef struct pmt__replay_site {
    uint64_t blocks;
    uint64_t bytes;
} pmt__replay_site;

typedef struct pmt__replay {
    const pmt_allocator *allocator; /* borrowed */
    pmt_event_walk *walk;           /* borrowed */
    pmt__replay_site *sites;        /* owned; by site id */
    size_t site_count;
    pmt__replay_block *blocks; /* owned: what is alive; open addressing by address */
    size_t mask;
    uint64_t stop;   /* events with a number from here on are not replayed */
    uint64_t events; /* that were replayed */
    uint64_t allocations;
    uint64_t frees;
    uint64_t allocated_bytes;
    uint64_t live_blocks;
    uint64_t live_bytes;
    uint64_t peak_bytes;
    uint64_t peak_stop; /* replayed up to there, the heap is as it was at its highest point */
    uint64_t peak_t_ns;
    uint64_t unmatched; /* frees of blocks that are not alive: none in a complete log */
    int growing;        /* the heap is at its highest point */
} pmt__replay;

/* The log up to (not including) event `stop`, or as far as it has no gap. Dispose it in any case. */
int pmt__replay_init(pmt__replay *self, const pmt_reader *reader, pmt_event_walk *walk,
                     uint64_t stop, pmt_error *err);
/* At most `count` further events. 1: there are more; 0: done; else an error. */
int pmt__replay_run(pmt__replay *self, uint64_t count, pmt_error *err);
void pmt__replay_dispose(pmt__replay *self);

#endif
