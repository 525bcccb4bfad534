#include "record/inherit.h"

#include <string.h>

#include "platform/platform.h"
#include "record/mixed.h"
#include "record/sample.h"
#include "record/tables.h"

/* What happened since the last cut happened in the parent. */
static void
changes_forget(void)
{
    for (uint32_t i = 0; i < pmt__t.dirty_count; i++) {
        uint32_t id = pmt__t.dirty[i];
        pmt__cohort *cohort = &pmt__t.cohorts[id];
        cohort->site &= ~PMT_COHORT_DIRTY;
        cohort->allocs = 0;
        cohort->temporaries = 0;
        pmt__t.live_at_cut[id] = cohort->live;
        if (cohort->size & PMT_COHORT_SIZELESS) {
            pmt__large *large = &pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS];
            large->alloc_bytes = 0;
            large->temporary_bytes = 0;
            large->live_bytes_at_cut = large->live_bytes;
        }
        pmt__cohort_recycle_nopy(id);
    }
    pmt__t.dirty_count = 0;
    memset(pmt__t.size_allocs, 0, sizeof pmt__t.size_allocs);
    memset(pmt__t.size_bytes, 0, sizeof pmt__t.size_bytes);
    memset(pmt__t.counters, 0, sizeof pmt__t.counters);
    pmt__buffer_clear(&pmt__t.new_lifetimes);
    pmt__t.lifetime_count = pmt__t.lifetime_site = pmt__t.lifetime_birth = 0;
    pmt__t.span_epoch = pmt__t.epoch;
}

/* The state now is the maximum so far. */
static void
peaks_begin(void)
{
    for (int i = 0; i < PMT_PEAKS; i++) {
        pmt__peak *peak = &pmt__t.peaks[i];
        peak->bytes = pmt__t.live_bytes;
        peak->growing = peak->moved = 1;
        peak->run++;
    }
    pmt__t.growing = 1;
    pmt__t.peak_floor = UINT64_MAX;
    pmt__t.stamp++;
}

/* One thread is left, under a new native id. The others are named in the capture as ended: their blocks are still there. */
static void
threads_leave(uint64_t native_id)
{
    for (pmt__thread *t = pmt__t.threads; t != NULL; t = t->next) {
        if (t->native_id == native_id && !t->ended) {
            t->native_id = pmt__thread_native_id();
        } else {
            __atomic_store_n(&t->state, NULL, __ATOMIC_RELEASE);
            t->ended = 1;
        }
    }
    pmt__t.thread = NULL;
    pmt__t.threads_changed = 1;
}

uint64_t
pmt__tables_forked_nopy(uint64_t native_id)
{
    uint64_t fork_epoch = pmt__t.epoch;
    pmt__epoch_next_nopy();
    changes_forget();
    peaks_begin();
    threads_leave(native_id);
    pmt__t.cut = 1;
    pmt__t.node_flushed = pmt__t.site_flushed = pmt__t.code_flushed = 1;
    pmt__t.string_flushed = 0;
    pmt__t.string_bytes_flushed = pmt__t.code_bytes_flushed = 0;
    pmt__t.log_on = 0;
    pmt__natives_forked_nopy();
    pmt__sampling_forked_nopy();
    pmt__t.start_ns = pmt__clock_mono_ns();
    pmt__t.start_ticks = pmt__ticks();
    return fork_epoch;
}

void
pmt__tables_inherit_nopy(uint64_t fork_epoch, uint64_t *blocks, uint64_t *bytes)
{
    *blocks = *bytes = 0;
    for (uint32_t id = 1; id < pmt__t.cohort_count; id++) {
        pmt__cohort *cohort = &pmt__t.cohorts[id];
        uint32_t alive = pmt__t.live_at_cut[id];
        if (PMT_COHORT_SITE(cohort) == 0 || cohort->epoch > fork_epoch || alive == 0) {
            continue;
        }
        *blocks += alive;
        cohort->allocs += alive;
        pmt__t.live_at_cut[id] = 0;
        if (cohort->size & PMT_COHORT_SIZELESS) {
            pmt__large *large = &pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS];
            *bytes += large->live_bytes_at_cut;
            large->alloc_bytes += large->live_bytes_at_cut;
            large->live_bytes_at_cut = 0;
        } else {
            *bytes += (uint64_t)alive * cohort->size;
        }
        if (!(cohort->site & PMT_COHORT_DIRTY)) {
            cohort->site |= PMT_COHORT_DIRTY;
            pmt__t.dirty[pmt__t.dirty_count++] = id;
        }
    }
}
