/* Mappings of the program: ranges of addresses and the cohort of each. The shadow models points; a mapping can be unmapped in
   parts, split by a hole, moved. What is left of it stays one block, until its last piece is gone.

   A sorted array: programs have some thousand mappings at most, and change them seldom. All functions: the caller holds the
   tables. Sizes in bytes. */
#ifndef PMT_RECORD_RANGES_H
#define PMT_RECORD_RANGES_H

#include <stddef.h>
#include <stdint.h>

#include "record/tables.h"

void pmt__ranges_begin(void); /* forgets an earlier recording */

/* A mapping was made, where none is known. 0, or -1: no memory (nothing is noted). */
int pmt__ranges_add_nopy(uintptr_t start, uint64_t size, uint32_t cohort);

/* What lies in this range is gone, and counted so. Returns the bytes that were known there; *cohort: that of the first piece, or 0. */
uint64_t pmt__ranges_remove_nopy(uintptr_t start, uint64_t size, uint32_t *cohort);

uint64_t pmt__ranges_bytes(void); /* of the table itself */

/* Copies where they are, sorted, at most `room` of them; returns how many there are. */
typedef struct pmt__extent {
    uintptr_t start, end;
} pmt__extent;
size_t pmt__ranges_copy_nopy(pmt__extent *out, size_t room);

/* A mapping of this cohort (0: there was no memory for one). */
static inline void
pmt__range_map(const void *start, uint64_t size, uint32_t cohort)
{
    uint32_t before;
    pmt__ranges_remove_nopy((uintptr_t)start, size, &before); /* an unmapping that nobody told */
    if (cohort == 0 || pmt__ranges_add_nopy((uintptr_t)start, size, cohort) < 0) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
    }
}

#endif
