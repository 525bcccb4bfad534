/* Events of threads that allocate without the GIL (domain RAW): the thread notes address, size and its own stack here, and
   whoever holds the tables next counts them. See queue.c. */
#ifndef PMT_RECORD_QUEUE_H
#define PMT_RECORD_QUEUE_H

#include <stddef.h>
#include <stdint.h>

typedef struct pmt__queue_frame {
    const void *code; /* NULL: an entry frame, no node */
    uint64_t instr;
    uint64_t generator;
} pmt__queue_frame;

#define PMT_QUEUE_FRAMES 2048 /* innermost frames that are kept */

/* In a forked child: the threads that were here are gone. */
void pmt__queue_forked(void);

int pmt__queue_create(void); /* 0 or PMT_ERR_NOMEM; once per process */

/* A block of the domain RAW was allocated by a thread without the GIL. frames: innermost first; state NULL: a thread that
   Python does not know. */
void pmt__queue_alloc_nopy(void *block, size_t size, const void *state, uint64_t state_id,
                           uint64_t ident, const pmt__queue_frame *frames, uint32_t count,
                           int complete);
/* A block is about to be freed without the GIL; value: what stood in its shadow entry (already cleared). */
void pmt__queue_free_nopy(void *block, uint32_t value, uint64_t size);

/* Counts what waits. The caller holds the tables. */
void pmt__queue_drain_nopy(void);

#endif
