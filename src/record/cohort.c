/* Sites, cohorts, epochs and peaks: the ways that the hot path takes only now and then. */
#include "record/tables.h"

#include <string.h>

#include "base/varint.h"
#include "platform/platform.h"

/* --- cohorts --------------------------------------------------------------------------------------------------------------- */

static uint32_t
large_new(void)
{
    uint32_t id = pmt__t.large_free;
    if (id != 0) {
        pmt__t.large_free = (uint32_t)pmt__t.large[id].live_bytes;
    } else if (pmt__t.large_count < pmt__t.large_limit) {
        id = pmt__t.large_count++;
    } else {
        return 0;
    }
    memset(&pmt__t.large[id], 0, sizeof pmt__t.large[id]);
    return id;
}

/* A cohort for a site in the current epoch; 0 when the table is full. */
static uint32_t
cohort_new(uint32_t site, uint32_t size)
{
    uint32_t large = 0;
    if (size == PMT_SIZE_LARGE) {
        large = large_new();
        if (large == 0) {
            return 0;
        }
    }
    uint32_t id = pmt__t.cohort_free;
    if (id != 0) {
        pmt__t.cohort_free = pmt__t.cohorts[id].live;
    } else if (pmt__t.cohort_count < pmt__t.cohort_limit) {
        id = pmt__t.cohort_count++;
    } else {
        if (large != 0) {
            pmt__t.large[large].live_bytes = pmt__t.large_free;
            pmt__t.large_free = large;
        }
        return 0;
    }
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    memset(cohort, 0, sizeof *cohort);
    cohort->site = site;
    cohort->size = large != 0 ? PMT_COHORT_SIZELESS | large : size;
    cohort->epoch = pmt__t.epoch;
    pmt__t.live_at_cut[id] = 0;
    for (int i = 0; i < PMT_PEAKS; i++) {
        pmt__t.peaks[i].notes[id] = (pmt__peak_note){0, 0};
    }
    return id;
}

static uint32_t
site_new(uint32_t node, uint32_t size, uint32_t thread_and_domain)
{
    if (pmt__t.site_count >= pmt__t.site_limit) {
        return 0;
    }
    uint32_t id = pmt__t.site_count++;
    pmt__t.sites[id] = (pmt__site){
        .node = node,
        .next = pmt__t.nodes[node].site,
        .cohort = 0,
        .size = (uint16_t)size,
        .thread = (uint16_t)thread_and_domain,
    };
    pmt__t.nodes[node].site = id;
    return id;
}

/* The site, moved to the front of its node's list; 0 if there is none. */
static uint32_t
site_find(uint32_t node, uint32_t size, uint32_t thread_and_domain)
{
    uint32_t *head = &pmt__t.nodes[node].site;
    for (uint32_t *link = head; *link != 0; link = &pmt__t.sites[*link].next) {
        uint32_t id = *link;
        pmt__site *site = &pmt__t.sites[id];
        if (site->size == size && site->thread == thread_and_domain) {
            *link = site->next;
            site->next = *head;
            *head = id;
            return id;
        }
    }
    return 0;
}

uint32_t
pmt__cohort_get_nopy(uint32_t node, uint32_t size, uint32_t domain, uint32_t thread)
{
    pmt__tables_room_nopy();
    uint32_t thread_and_domain = thread | domain << PMT_THREAD_BITS;
    uint32_t site = site_find(node, size, thread_and_domain);
    if (site == 0
        && (pmt__t.site_count + PMT_FOLD_RESERVE < pmt__t.site_limit || node == PMT_NODE_FOLDED)) {
        site = site_new(node, size, thread_and_domain);
    }
    if (site == 0) {
        /* At the limit: the stack and the thread fold, size and domain stay. A reserve for these was kept. */
        pmt__t.counters[PMT_COUNTER_FOLDED_STACKS]++;
        thread_and_domain = domain << PMT_THREAD_BITS;
        site = site_find(PMT_NODE_FOLDED, size, thread_and_domain);
        if (site == 0) {
            site = site_new(PMT_NODE_FOLDED, size, thread_and_domain);
        }
    }
    uint32_t id = pmt__t.sites[site].cohort;
    const pmt__cohort *newest = &pmt__t.cohorts[id];
    int has_one = id != 0 && PMT_COHORT_SITE(newest) == site;
    if (has_one && newest->epoch == pmt__t.epoch) {
        return id;
    }
    /* The newest cohort of a site is never recycled while the table is nearly full (see cut.c): then it goes on and the
       epochs fold. */
    uint32_t fresh = 0;
    if (!has_one || pmt__t.cohort_count + PMT_FOLD_RESERVE < pmt__t.cohort_limit
        || pmt__t.cohort_free != 0) {
        fresh = cohort_new(site, size);
    }
    if (fresh == 0) {
        pmt__t.counters[PMT_COUNTER_FOLDED_EPOCHS]++;
        return has_one ? id : 0;
    }
    pmt__t.sites[site].cohort = fresh;
    return fresh;
}

void
pmt__epoch_next_nopy(void)
{
    pmt__t.epoch++;
    uint32_t tag = pmt__t.epoch & 0xff;
    pmt__t.epoch_key = tag << PMT_KEY_EPOCH_SHIFT;
    if (tag == 0) {
        memset(pmt__t.leaves, 0, sizeof(pmt__leaf) << PMT_LEAF_BITS);
        __atomic_fetch_add(&pmt__t.lane_generation, 1, __ATOMIC_RELAXED);
    }
}

/* --- peaks ------------------------------------------------------------------------------------------------------------------- */

static void
floor_update(void)
{
    uint64_t lowest = UINT64_MAX;
    for (int i = 0; i < PMT_PEAKS; i++) {
        if (!pmt__t.peaks[i].growing && pmt__t.peaks[i].bytes < lowest) {
            lowest = pmt__t.peaks[i].bytes;
        }
    }
    pmt__t.peak_floor = lowest;
}

/* Live bytes have reached a peak that did not grow until now. */
PMT_NOINLINE void
pmt__peak_reached_slow_nopy(void)
{
    for (int i = 0; i < PMT_PEAKS; i++) {
        pmt__peak *peak = &pmt__t.peaks[i];
        if (!peak->growing && pmt__t.live_bytes >= peak->bytes) {
            peak->growing = 1;
            peak->moved = 1;
            peak->run++;
            pmt__t.growing = 1;
        }
    }
    floor_update();
}

/* A free comes while some peak grows: the state before it is the maximum. */
PMT_NOINLINE void
pmt__peak_passed_slow_nopy(void)
{
    for (int i = 0; i < PMT_PEAKS; i++) {
        pmt__peak *peak = &pmt__t.peaks[i];
        if (peak->growing) {
            peak->growing = 0;
            peak->bytes = pmt__t.live_bytes;
            peak->ticks = pmt__ticks();
        }
    }
    pmt__t.growing = 0;
    pmt__t.stamp++;
    floor_update();
}

/* --- lifetimes --------------------------------------------------------------------------------------------------------------- */

#define LIFETIMES_MAX \
    ((size_t)4 << 20) /* bytes; beyond it, the rest counts at the age of the row */

/* So many blocks of the cohort, and so many bytes if it is sizeless, died in this epoch. */
static void
lifetime_put(const pmt__cohort *cohort, uint32_t epoch, uint32_t blocks, uint64_t bytes)
{
    uint32_t site = PMT_COHORT_SITE(cohort);
    uint8_t *at = pmt__t.new_lifetimes.len < LIFETIMES_MAX
                      ? pmt__buffer_reserve(&pmt__t.new_lifetimes, 5 * PMT_VARINT_MAX)
                      : NULL;
    if (at == NULL) {
        return;
    }
    at = pmt__varint_put(at, pmt__zigzag((int64_t)site - pmt__t.lifetime_site));
    at = pmt__varint_put(at, pmt__zigzag((int64_t)cohort->epoch - pmt__t.lifetime_birth));
    at = pmt__varint_put(at, epoch - cohort->epoch);
    at = pmt__varint_put(at, blocks);
    if (cohort->size & PMT_COHORT_SIZELESS) {
        at = pmt__varint_put(at, bytes);
    }
    pmt__t.new_lifetimes.len = (size_t)(at - pmt__t.new_lifetimes.data);
    pmt__t.lifetime_site = site;
    pmt__t.lifetime_birth = cohort->epoch;
    pmt__t.lifetime_count++;
}

PMT_NOINLINE void
pmt__life_note_slow_nopy(uint32_t id)
{
    const pmt__cohort *cohort = &pmt__t.cohorts[id];
    pmt__life_note *note = &pmt__t.life_notes[id];
    if (note->cut != pmt__t.cut) {
        /* What has changed before has done so before the first mark, or it would have come by here. */
        int changed = (cohort->site & PMT_COHORT_DIRTY) != 0;
        uint32_t epoch = changed ? pmt__t.span_epoch : pmt__t.epoch;
        *note = (pmt__life_note){.cut = pmt__t.cut, .epoch = epoch};
        if (cohort->size & PMT_COHORT_SIZELESS) {
            pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS].noted_bytes = 0;
        }
    }
    if (note->epoch == pmt__t.epoch) {
        return;
    }
    uint32_t frees = (uint32_t)(cohort->allocs + pmt__t.live_at_cut[id] - cohort->live);
    uint64_t bytes = 0;
    if (cohort->size & PMT_COHORT_SIZELESS) {
        pmt__large *large = &pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS];
        uint64_t freed = large->alloc_bytes + large->live_bytes_at_cut - large->live_bytes;
        bytes = freed - large->noted_bytes;
        large->noted_bytes = freed;
    }
    int less = (int32_t)(frees - note->frees) < 0 || (int64_t)bytes < 0; /* thinned samples */
    if (!less && (frees != note->frees || bytes != 0)) {
        lifetime_put(cohort, note->epoch, frees - note->frees, bytes);
    }
    note->frees = frees;
    note->epoch = pmt__t.epoch;
}

/* The first change of a cohort since the last cut, mark or peak; called before the change. */
PMT_NOINLINE void
pmt__cohort_seen_slow_nopy(pmt__cohort *cohort)
{
    uint32_t id = (uint32_t)(cohort - pmt__t.cohorts);
    for (int i = 0; i < PMT_PEAKS; i++) {
        pmt__peak *peak = &pmt__t.peaks[i];
        if (!peak->growing && peak->notes[id].run != peak->run) {
            peak->notes[id] = (pmt__peak_note){peak->run, cohort->live};
            if (i == 0 && (cohort->size & PMT_COHORT_SIZELESS)) {
                pmt__large *large = &pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS];
                large->peak_bytes = large->live_bytes;
            }
        }
    }
    if (PMT_UNLIKELY(pmt__t.epoch != pmt__t.span_epoch)) {
        pmt__life_note_slow_nopy(id);
    }
    if (!(cohort->site & PMT_COHORT_DIRTY)) {
        cohort->site |= PMT_COHORT_DIRTY;
        pmt__t.dirty[pmt__t.dirty_count++] = id;
    }
    cohort->stamp = pmt__t.stamp;
}
