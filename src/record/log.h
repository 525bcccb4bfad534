/* The event log (`--events`): every change of the tables, appended to a chain of blocks in page memory that the writer takes
   with each cut and writes as EVTS chunks behind it.

   Whoever holds the tables appends, so the order of the log is the order of the tables. All of this costs nothing
   while pmt__t.log_on is 0: with a log, PMT_ATTENTION_SLOW sends all events through the generic ways, and only those ask. */
#ifndef PMT_RECORD_LOG_H
#define PMT_RECORD_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "format/events.h"
#include "record/tables.h"

#define PMT_LOG_BLOCK_BYTES ((size_t)1 << 20)

typedef struct pmt__log_block {
    struct pmt__log_block *next;
    uint64_t first; /* number of its first event */
    uint64_t count;
    uint64_t begin_ns; /* since the start of the recording */
    uint64_t end_ns;
    size_t size;
    uint8_t bytes[]; /* up to PMT_LOG_BLOCK_BYTES, this head included */
} pmt__log_block;

typedef struct pmt__log_cursor {
    uint8_t *at; /* where the next event goes; NULL: no block */
    uint8_t *end;
    pmt__event_cache cache;
    uint8_t *pair;       /* the control of the pair that is under way, or NULL */
    uint64_t pair_first; /* its first event */
} pmt__log_cursor;

extern pmt__log_cursor pmt__log __attribute__((visibility("hidden"))); /* Protected by the tables */

/* --- start and end: nobody else uses the log --------------------------------------------------------------------------- */

/* Switches the log of the tables on. The tables exist; max_bytes: of all blocks together. */
void pmt__log_create(uint64_t max_bytes);
void pmt__log_dispose(void);

/* --- with the tables held ---------------------------------------------------------------------------------------------- */

/* The events until pair_end are one realloc or one re-attribution (PMT_CONTROL_*), if a free and an allocation come. */
void pmt__log_pair_begin_nopy(unsigned control);
void pmt__log_pair_end_nopy(void);

/* Hands what was logged to the writer. */
void pmt__log_take_nopy(void);

/* A block of this cohort was born or has died. */
void pmt__log_alloc_nopy(const void *block, uint32_t cohort, uint64_t bytes);
void pmt__log_free_nopy(const void *block, uint32_t cohort);

/* --- the writer, holding io -------------------------------------------------------------------------------------------- */

/* The oldest block that was taken and not given back, or NULL. */
pmt__log_block *pmt__log_oldest(void);
/* The payload of its EVTS chunk. */
void pmt__log_encode(const pmt__log_block *block, pmt__buffer *payload);
/* The oldest block is written. */
void pmt__log_written(void);
/* The log ends here for good: what was not written is counted as dropped, and so is all that comes. */
void pmt__log_stop(void);
uint64_t pmt__log_bytes(void); /* of all blocks */

#endif
