#include "record/lane.h"

#include <string.h>

#include "platform/platform.h"
#include "record/count.h"
#include "record/mixed.h"

pmt__lane *pmt__lanes;
extern __thread pmt__lane *pmt__lane_mine
    __attribute__((tls_model("initial-exec"), visibility("hidden")));
__thread pmt__lane *pmt__lane_mine;
__thread int pmt__lanes_closed;

/* --- whose lane ---------------------------------------------------------------------------------------------------------- */

static void
lane_take_over(pmt__lane *lane, uint64_t native_id)
{
    lane->native_id = native_id;
    lane->state = NULL;
    lane->thread = NULL;
    lane->last[0] = lane->last[1] = NULL;
    if (lane->mixed != NULL) {
        pmt__mixed_clear(lane->mixed);
    }
    pmt__lane_mine = lane;
}

/* Threads end without telling us. A lane is free for others when the system does not know its thread any more, or has given
   its number to the caller. */
PMT_NOINLINE pmt__lane *
pmt__lane_new(void)
{
    uint64_t native_id = pmt__thread_native_id();
    for (pmt__lane *lane = __atomic_load_n(&pmt__lanes, __ATOMIC_ACQUIRE); lane != NULL;
         lane = lane->next) {
        uint32_t expected = 0;
        if (__atomic_load_n(&lane->taken, __ATOMIC_RELAXED) == 0
            && __atomic_compare_exchange_n(&lane->taken, &expected, 1, 0, __ATOMIC_ACQUIRE,
                                           __ATOMIC_RELAXED)) {
            lane_take_over(lane, native_id);
            return lane;
        }
    }
    pmt__lane *lane = pmt__pages_map(sizeof *lane);
    if (lane == NULL) {
        return NULL;
    }
    lane->taken = 1;
    lane_take_over(lane, native_id);
    lane->next = __atomic_load_n(&pmt__lanes, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&pmt__lanes, &lane->next, lane, 0, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
    }
    return lane;
}

void
pmt__lanes_sweep_nopy(void)
{
    for (pmt__lane *lane = __atomic_load_n(&pmt__lanes, __ATOMIC_ACQUIRE); lane != NULL;
         lane = lane->next) {
        if (__atomic_load_n(&lane->taken, __ATOMIC_ACQUIRE) == 0
            || pmt__thread_exists(lane->native_id)) {
            continue;
        }
        if (lane->thread != NULL && lane->state == NULL && lane->thread->state == lane) {
            __atomic_store_n(&lane->thread->state, NULL, __ATOMIC_RELEASE);
            lane->thread->ended = 1;
            pmt__t.threads_changed = 1;
        }
        lane->thread = NULL;
        __atomic_store_n(&lane->taken, 0, __ATOMIC_RELEASE);
    }
}

int
pmt__state_is_alive(const void *state)
{
    for (pmt__thread *t = __atomic_load_n(&pmt__t.threads, __ATOMIC_ACQUIRE); t != NULL;
         t = t->next) {
        if (__atomic_load_n(&t->state, __ATOMIC_ACQUIRE) == state) {
            return 1;
        }
    }
    return 0;
}

pmt__thread *
pmt__lane_thread_nopy(pmt__lane *lane, const void *state, uint64_t state_id, uint64_t ident)
{
    /* What a thread does after Python has forgotten it is still its own. */
    int same = lane->thread != NULL && (state == NULL || lane->state == state)
               && (state == NULL || lane->state_id == state_id);
    if (!same) {
        const void *key = state != NULL ? state : lane;
        pmt__thread *thread =
            pmt__thread_get_nopy(key, state != NULL ? state_id : 0, ident, lane->native_id);
        if (thread == NULL) {
            return NULL;
        }
        if (state == NULL && thread->name == 0) {
            char name[16];
            pmt__thread_get_name(name);
            pmt__text text = {name, strlen(name), 1};
            thread->name = pmt__string_intern_nopy(&text);
        }
        lane->thread = thread;
        lane->state = state;
        lane->state_id = state_id;
        lane->thread_key = thread->key;
    }
    return lane->thread;
}

/* --- inside ---------------------------------------------------------------------------------------------------------------- */

int
pmt__lane_enter_slow_nopy(pmt__lane *lane)
{
    uint64_t since_ns = 0;
    for (;;) {
        __atomic_exchange_n(&lane->busy, 1, __ATOMIC_SEQ_CST); /* a full fence, as in gate.c */
        uint32_t attention = __atomic_load_n(&pmt__t.attention, __ATOMIC_SEQ_CST);
        if (attention & PMT_ATTENTION_OFF) {
            pmt__lane_leave_nopy(lane);
            return 0;
        }
        if (!(attention & PMT_ATTENTION_HELD)) {
            return 1;
        }
        pmt__lane_leave_nopy(lane);
        if (pmt__event_wait(attention, &since_ns) < 0) {
            return 0;
        }
    }
}

void
pmt__lanes_wait(void)
{
    for (pmt__lane *lane = __atomic_load_n(&pmt__lanes, __ATOMIC_ACQUIRE); lane != NULL;
         lane = lane->next) {
        for (unsigned spins = 0; __atomic_load_n(&lane->busy, __ATOMIC_ACQUIRE) != 0; spins++) {
            static const uint32_t never = 0;
            if (spins >= 16) {
                pmt__wait_word(&never, 0, 20000);
            }
        }
    }
}

int
pmt__lanes_busy(void)
{
    for (pmt__lane *lane = __atomic_load_n(&pmt__lanes, __ATOMIC_ACQUIRE); lane != NULL;
         lane = lane->next) {
        if (__atomic_load_n(&lane->busy, __ATOMIC_ACQUIRE) != 0) {
            return 1;
        }
    }
    return 0;
}

/* --- counting -------------------------------------------------------------------------------------------------------------- */

/* The net effect on live blocks and bytes; what was born and died meanwhile counts in the totals. */
static void
sum_count(const pmt__lane_sum *sum, uint32_t size)
{
    pmt__cohort *cohort = &pmt__t.cohorts[sum->cohort];
    int sizeless = (cohort->size & PMT_COHORT_SIZELESS) != 0;
    uint64_t born = sizeless ? sum->alloc_bytes : (uint64_t)sum->allocs * size;
    uint64_t dead = sizeless ? sum->free_bytes : (uint64_t)sum->frees * size;
    if (born < dead && pmt__t.growing) {
        pmt__peak_passed_slow_nopy();
    }
    pmt__t.live_bytes += born - dead;
    if (born > dead && pmt__t.live_bytes >= pmt__t.peak_floor) {
        pmt__peak_reached_slow_nopy();
    }
    if (cohort->stamp != pmt__t.stamp) {
        pmt__cohort_seen_slow_nopy(cohort);
    }
    cohort->live += sum->allocs - sum->frees;
    cohort->allocs += sum->allocs;
    cohort->temporaries += sum->temporaries;
    if (sizeless) {
        pmt__large *large = &pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS];
        large->live_bytes += born - dead;
        large->alloc_bytes += born;
        large->temporary_bytes += sum->temporary_bytes;
    }
    pmt__t.counters[PMT_COUNTER_NO_GIL] += sum->allocs;
}

/* gains: the sums by which live bytes do not fall, or the others. */
static void
lane_count(pmt__lane *lane, int gains)
{
    for (uint32_t i = 0; i < PMT_LANE_SUMS + PMT_LANE_PROBES; i++) {
        pmt__lane_sum *sum = &lane->sums[i];
        if (sum->cohort == 0) {
            continue;
        }
        uint32_t size = pmt__t.cohorts[sum->cohort].size;
        int is_gain = size & PMT_COHORT_SIZELESS ? sum->alloc_bytes >= sum->free_bytes
                                                 : sum->allocs >= sum->frees;
        if (is_gain == gains) {
            sum_count(sum, size);
            memset(sum, 0, sizeof *sum);
        }
    }
}

static void
lane_sizes_count(pmt__lane *lane)
{
    for (int b = 0; b < PMT_LOG2_SIZES; b++) {
        pmt__t.size_allocs[b] += lane->size_allocs[b];
        pmt__t.size_bytes[b] += lane->size_bytes[b];
    }
    memset(lane->size_allocs, 0, sizeof lane->size_allocs);
    memset(lane->size_bytes, 0, sizeof lane->size_bytes);
}

void
pmt__lanes_count_nopy(void)
{
    /* Gains before losses: a block may have come from one lane and gone by another. */
    pmt__lane *first = __atomic_load_n(&pmt__lanes, __ATOMIC_ACQUIRE);
    for (pmt__lane *lane = first; lane != NULL; lane = lane->next) {
        if (lane->touched) {
            lane_count(lane, 1);
        }
    }
    for (pmt__lane *lane = first; lane != NULL; lane = lane->next) {
        if (lane->touched) {
            lane_count(lane, 0);
            lane_sizes_count(lane);
            lane->bytes = 0;
            lane->touched = 0;
        }
    }
}

static void
lane_forget(pmt__lane *lane)
{
    memset(lane->sums, 0, sizeof lane->sums);
    memset(lane->size_allocs, 0, sizeof lane->size_allocs);
    memset(lane->size_bytes, 0, sizeof lane->size_bytes);
    lane->bytes = 0;
    lane->touched = 0;
    lane->thread = NULL;
}

void
pmt__lanes_begin(void)
{
    for (pmt__lane *lane = __atomic_load_n(&pmt__lanes, __ATOMIC_ACQUIRE); lane != NULL;
         lane = lane->next) {
        lane_forget(lane);
        lane->state = NULL;
        lane->last[0] = lane->last[1] = NULL;
        if (lane->mixed != NULL) {
            pmt__mixed_clear(lane->mixed);
        }
        lane->generation = 0;
    }
    pmt__t.lane_generation = 1;
}

void
pmt__lanes_flush(void)
{
    if (pmt__tables_acquire_event() < 0) {
        return;
    }
    if (!(__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_OFF)) {
        pmt__lanes_count_nopy();
    }
    pmt__tables_release();
}

void
pmt__lanes_forked(void)
{
    for (pmt__lane *lane = pmt__lanes; lane != NULL; lane = lane->next) {
        lane->busy = 0;
        lane_forget(lane);
        lane->taken = lane == pmt__lane_mine;
    }
    if (pmt__lane_mine != NULL) {
        lane_take_over(pmt__lane_mine, pmt__thread_native_id());
    }
}
