/* Where the resident memory is: the figures of a section RESIDENT as parts that add up, and what there is to say about them. */
#ifndef PMT_ANALYZE_WHERE_H
#define PMT_ANALYZE_WHERE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pymemtrace/error.h"
#include "store/resident.h"

#define PMT_WHERE_PARTS 20
#define PMT_WHERE_TEXT 320

typedef struct pmt__part {
    const char *name;            /* static; docs/user/where.md */
    uint64_t bytes;              /* resident */
    char detail[PMT_WHERE_TEXT]; /* may be empty */
} pmt__part;

typedef struct pmt__where {
    bool from_outside; /* only what /proc/PID/smaps tells */
    uint64_t t_ns;     /* since the start of the recording; 0 from outside */
    uint64_t took_ns;
    uint64_t rss_bytes;
    uint64_t swap_bytes;
    uint64_t requested_bytes;    /* live blocks of all domains; not all of it need be resident */
    uint64_t unattributed_bytes; /* rss_bytes less the parts */
    pmt__part parts[PMT_WHERE_PARTS]; /* the largest first; none is empty */
    size_t part_count;
    char dominating[PMT_WHERE_TEXT]; /* one sentence */
    char advice[4][PMT_WHERE_TEXT];  /* what could give memory back, the most first */
    size_t advice_count;
} pmt__where;

/* allocator: the fact of that name, or "" if unknown. */
void pmt__where_of(pmt__where *out, const pmt__moment *moment, const char *allocator);

/* The last moment of a capture that is not behind at_ns, or its first. Without a time: the one of
   "alive at the end". PMT_ERR_STATE: it has none. */
int pmt__where_at(pmt__where *out, const pmt_reader *reader, bool has_at, uint64_t at_ns,
                  pmt_error *err);

/* All moments, in order. */
size_t pmt__where_count(const pmt_reader *reader);
void pmt__where_moment(pmt__where *out, const pmt_reader *reader, size_t at);

/* A process, now, as far as it can be told from outside. PMT_ERR_IO with the errno. */
int pmt__where_process(pmt__where *out, uint64_t pid, pmt_error *err);

#endif
