/* Counting a block in and out of its cohort: live bytes, peak, sizes. Used by the hot path (track.h) and by the drain of
   events without the GIL (lane.c). The caller holds the tables. */
#ifndef PMT_RECORD_COUNT_H
#define PMT_RECORD_COUNT_H

#include "record/tables.h"

PMT_INLINE void
pmt__cohort_large_add(uint32_t index, uint64_t bytes)
{
    pmt__large *large = &pmt__t.large[index];
    large->live_bytes += bytes;
    large->alloc_bytes += bytes;
    int bucket = 63 - __builtin_clzll(bytes | 1);
    pmt__t.size_allocs[bucket]++;
    pmt__t.size_bytes[bucket] += bytes;
}

/* A block of this cohort is born. */
PMT_INLINE void
pmt__count_add(uint32_t id, uint64_t bytes)
{
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    uint64_t live = pmt__t.live_bytes + bytes;
    pmt__t.live_bytes = live;
    if (PMT_UNLIKELY(live >= pmt__t.peak_floor)) {
        pmt__peak_reached_slow_nopy();
    }
    if (PMT_UNLIKELY(cohort->stamp != pmt__t.stamp)) {
        pmt__cohort_seen_slow_nopy(cohort);
    }
    cohort->live++;
    cohort->allocs++;
    if (PMT_UNLIKELY(bytes > PMT_SIZE_EXACT_MAX)) {
        pmt__cohort_large_add(cohort->size & ~PMT_COHORT_SIZELESS, bytes);
    }
}

/* Before live bytes of this cohort become less. */
PMT_INLINE void
pmt__count_loses(pmt__cohort *cohort)
{
    if (PMT_UNLIKELY(pmt__t.growing)) {
        pmt__peak_passed_slow_nopy();
    }
    if (PMT_UNLIKELY(cohort->stamp != pmt__t.stamp)) {
        pmt__cohort_seen_slow_nopy(cohort);
    }
}

/* A block of this cohort dies. large_bytes: its size if the cohort is sizeless. */
PMT_INLINE void
pmt__count_sub(uint32_t id, uint64_t large_bytes)
{
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    pmt__count_loses(cohort);
    cohort->live--;
    uint64_t bytes = cohort->size;
    if (PMT_UNLIKELY(bytes & PMT_COHORT_SIZELESS)) {
        pmt__t.large[bytes & ~(uint64_t)PMT_COHORT_SIZELESS].live_bytes -= large_bytes;
        bytes = large_bytes;
    }
    pmt__t.live_bytes -= bytes;
}

/* A block of a sizeless cohort has lost some of its bytes (a mapping that was unmapped in part). */
PMT_INLINE void
pmt__count_shrink(uint32_t id, uint64_t bytes)
{
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    pmt__count_loses(cohort);
    pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS].live_bytes -= bytes;
    pmt__t.live_bytes -= bytes;
}

#endif
