/* A cut: everything that changed since the one before, taken between two events, then encoded at leisure. */
#ifndef PMT_RECORD_CUT_H
#define PMT_RECORD_CUT_H

#include <stdint.h>

#include "format/encode.h"
#include "record/tables.h"

typedef struct pmt__mark {
    uint64_t epoch;
    uint64_t t_ns;
    uint32_t label; /* string id */
} pmt__mark;

#define PMT_MARKS_PER_CUT 4096 /* further marks only end their epoch */

/* The working memory of the writer; reused from cut to cut. Owned by whoever may take cuts (writer.c). */
typedef struct pmt__cut {
    /* A row is taken as it will stand in the file, but for its site, and sorted by site afterwards. */
    pmt__buffer rows;  /* per row: u8 length, then the bytes */
    uint64_t *keys[2]; /* [capacity]: site << 32 | offset in rows; two, for sorting; page memory */
    uint32_t capacity;
    uint32_t row_count;
    int64_t blocks_at_peak; /* sum of the rows' corrections */
    uint32_t peak_moved;
    uint64_t number, t_ns, span_ns, unix_ns, epoch;
    uint64_t live_bytes, peak_bytes, peak_t_ns;
    uint64_t peak_blocks;
    uint64_t counters[PMT_COUNTER_LIMIT];
    uint64_t size_allocs[64], size_bytes[64];
    uint64_t gc[3];
    uint64_t table_bytes;
    pmt__buffer strings, codes, nodes, sites, threads, marks, lifetimes, objects,
        samples; /* bodies of sections */
    uint32_t string_first, code_first, node_first, site_first;
    uint32_t string_count, code_count, node_count, site_count, thread_count, mark_count,
        lifetime_count, object_count, sample_count;
    uint64_t sample_mean; /* bytes; 0: not a sampled recording */
    int nothing_changed;

    /* cumulative, owned by the writer */
    uint64_t live_blocks, allocations, frees, allocated_bytes;
    uint64_t inherited_blocks,
        inherited_bytes; /* by a fork: among the allocations of the rows, but of another process */
    uint64_t last_t_ns;
    uint64_t last_ticks;
    /* Requested bytes that are alive, by domain and whether the blocks are larger than 512 bytes. */
    uint64_t live_by[PMT_DOMAIN_COUNT][2];
    pmt__buffer site_facts; /* u16 per site: size | domain << 10; up to the last cut */
} pmt__cut;

void pmt__cut_init(pmt__cut *cut);
void pmt__cut_dispose(pmt__cut *cut);

/* Copies the changes out of the tables and starts the next interval (and the next epoch). The caller holds the tables. Returns 0, or
   -1 when there was no memory for it: then nothing was taken and the changes wait for the next cut. */
int pmt__cut_take(pmt__cut *cut);

/* Brings live_by to the state of the cut that was taken; once per cut. Without the tables. */
void pmt__cut_live(pmt__cut *cut);

/* Encodes what was taken as the payload of a DLTA chunk, behind what the payload holds. flags: PMT_CUT_*. */
void pmt__cut_encode(pmt__cut *cut, pmt__buffer *payload, uint32_t flags, uint64_t rss_bytes,
                     uint64_t own_bytes);

/* Ends the current epoch under a label. The caller holds the tables. Returns the epoch that ended. */
uint64_t pmt__mark_nopy(const pmt__text *label);
/* In a forked child, before its first cut: this epoch ended with the fork. The caller holds the tables. */
void pmt__mark_fork_nopy(uint64_t epoch);

#endif
