/* Events without the GIL, as a template on the frames of track.h. See lane.h.

   The frames of a thread that has given up the GIL stand still: it is in a C call, and nobody else runs them. So it may read
   them, and the stack that its pmt__thread keeps. It marks none: a mark needs what only the holder of the GIL may ask. */
#ifndef PMT_RECORD_LANE_TRACK_H
#define PMT_RECORD_LANE_TRACK_H

#include "record/lane.h"
#include "record/track.h"

/* The node of the callers of the top frame, if the cached stack is the real one (but for the instruction of the top frame);
   else UINT32_MAX. Reads only. */
PMT_INLINE uint32_t
pmt__stack_unmoved(const pmt__thread *thread, PMT_FRAME *top)
{
    const int32_t last = __atomic_load_n(&thread->depth, __ATOMIC_RELAXED) - 1;
    if (last < 0 || thread->frame[last] != top) {
        return UINT32_MAX;
    }
    if (pmt__marked_top(top)) {
        return thread->node[last];
    }
    if ((uint64_t)(uintptr_t)PMT_FRAME_PREVIOUS(top) != thread->link[last].previous) {
        return UINT32_MAX;
    }
    for (int32_t at = last - 1; at >= 0; at--) {
        PMT_FRAME *f = thread->frame[at];
        if ((uint64_t)(uintptr_t)PMT_FRAME_PREVIOUS(f) != thread->link[at].previous
            || PMT_FRAME_INSTR(f) != thread->link[at].instr) {
            return UINT32_MAX;
        }
        if (pmt__marked(f)) {
            break;
        }
    }
    return thread->node[last];
}

typedef struct pmt__outside_event {
    void *block;
    uint64_t bytes;
    uint32_t domain;
    const void *state; /* of the thread; NULL: Python does not know it */
    uint64_t state_id;
    uint64_t ident;
    PMT_FRAME *top; /* NULL: no frame */
} pmt__outside_event;

PMT_INLINE uint32_t
pmt__lane_size_key(uint64_t bytes)
{
    return bytes <= PMT_SIZE_EXACT_MAX ? (uint32_t)bytes : PMT_SIZE_LARGE;
}

PMT_INLINE pmt__lane_leaf *
pmt__lane_slot(pmt__lane *lane, uint64_t instr, uint32_t parent, uint32_t size)
{
    return &lane->leaves[((instr ^ (uint64_t)parent << 20 ^ (uint64_t)size << 36) * PMT_MIX)
                         >> (64 - PMT_LANE_LEAF_BITS)];
}

/* The cohort for an allocation now. The caller holds the tables and is not inside. */
static PMT_NOINLINE uint32_t
pmt__lane_cohort_nopy(pmt__lane *lane, pmt__outside_event *e)
{
    if (e->state != NULL && !pmt__state_is_alive(e->state)) {
        e->state = NULL; /* it was, before the tables were ours */
        e->top = NULL;
    }
    pmt__thread *thread = pmt__lane_thread_nopy(lane, e->state, e->state_id, e->ident);
    if (thread != NULL && e->state != NULL && e->top != NULL) {
        uint32_t marking = pmt__t.marking;
        pmt__t.marking = 0;
        uint32_t id = pmt__cohort_now(thread, e->top, e->bytes, e->domain);
        pmt__t.marking = marking;
        return id;
    }
    if (pmt__t.mixed) {
        return pmt__cohort_mixed_nopy(thread, NULL, pmt__lane_size_key(e->bytes), e->domain);
    }
    /* by the lane's own key: Python may have forgotten the thread */
    pmt__t.counters[PMT_COUNTER_NO_STACK]++;
    uint32_t thread_id = thread == NULL ? 0 : PMT_KEY_THREAD(lane->thread_key);
    return pmt__cohort_get_nopy(PMT_NODE_NO_STACK, pmt__lane_size_key(e->bytes), e->domain,
                                thread_id);
}

/* With the tables: any stack, any size, the event log. The caller is not inside. */
static PMT_NOINLINE void
pmt__lane_alloc_slow(pmt__lane *lane, pmt__outside_event *e)
{
    if (pmt__tables_acquire_event() < 0) {
        return;
    }
    if (__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_OFF) {
        pmt__tables_release();
        return;
    }
    pmt__lanes_count_nopy();
    uint32_t id = pmt__lane_cohort_nopy(lane, e);
    const pmt__thread *thread = lane->thread;
    PMT_FRAME *top = e->state != NULL ? e->top : NULL;
    uint32_t size = pmt__lane_size_key(e->bytes);
    uint32_t *entry = pmt__shadow_make(e->block);
    if (entry != NULL && *entry != 0) {
        pmt__missed_free(e->block, *entry);
        *entry = 0;
    }
    if (id == 0 || entry == NULL
        || (e->bytes > PMT_SIZE_EXACT_MAX && pmt__shadow_size_put(e->block, e->bytes) < 0)) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
        pmt__tables_release();
        return;
    }
    __atomic_store_n(entry, id, __ATOMIC_RELEASE);
    pmt__count_add(id, e->bytes);
    pmt__t.counters[PMT_COUNTER_NO_GIL]++;
    if (pmt__t.log_on) {
        pmt__log_alloc_nopy(e->block, id, e->bytes);
    }
    lane->last[1] = lane->last[0];
    lane->last[0] = e->block;
    if (thread != NULL && pmt__t.cohorts[id].epoch == pmt__t.epoch) {
        uint64_t instr = top != NULL ? PMT_FRAME_INSTR(top) : 0;
        uint32_t parent = PMT_NODE_NO_STACK;
        if (pmt__t.mixed) {
            instr = lane->mixed == NULL ? 0 : lane->mixed->hash[lane->mixed->count];
        } else if (top != NULL && thread->depth > 0) {
            parent = thread->node[thread->depth - 1];
        }
        uint32_t key =
            size | e->domain << PMT_KEY_DOMAIN_SHIFT | lane->thread_key | pmt__t.epoch_key;
        if (lane->generation != pmt__t.lane_generation) {
            memset(lane->leaves, 0, sizeof lane->leaves);
            lane->generation = pmt__t.lane_generation;
        }
        *pmt__lane_slot(lane, instr, parent, size) =
            (pmt__lane_leaf){instr, parent, key, id, PMT_LANE_SUMS};
    }
    pmt__tables_release();
}

/* The common case, inside. 0: it is not that case, and nothing is changed. */
PMT_INLINE int
pmt__lane_alloc_fast(pmt__lane *lane, const pmt__outside_event *e)
{
    pmt__thread *thread = lane->thread;
    uint32_t attention = __atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED);
    if (PMT_UNLIKELY(thread == NULL || e->bytes > PMT_LANE_BLOCK_MAX || lane->bytes > PMT_LANE_BYTES
                     || lane->generation
                            != __atomic_load_n(&pmt__t.lane_generation, __ATOMIC_RELAXED)
                     || (attention & PMT_ATTENTION_SLOW))) {
        return 0;
    }
    uint64_t instr = 0;
    uint32_t parent = PMT_NODE_NO_STACK;
    if (PMT_UNLIKELY(e->state != NULL && lane->state != e->state)) {
        return 0; /* the state is alive, so the same address is the same state */
    }
    if (PMT_UNLIKELY(attention & PMT_ATTENTION_MIXED)) {
        pmt__mixed *m = lane->mixed;
        if (m == NULL || pmt__mixed_now_nopy(m, e->state, e->top, 0) < 0) {
            return 0;
        }
        instr = m->hash[m->count];
    } else if (e->state != NULL) {
        if (e->top != NULL) {
            parent = pmt__stack_unmoved(thread, e->top);
            if (PMT_UNLIKELY(parent == UINT32_MAX)) {
                return 0;
            }
            instr = PMT_FRAME_INSTR(e->top);
        }
    }
    uint32_t size = pmt__lane_size_key(e->bytes);
    uint32_t key = size | e->domain << PMT_KEY_DOMAIN_SHIFT | lane->thread_key | pmt__t.epoch_key;
    pmt__lane_leaf *leaf = pmt__lane_slot(lane, instr, parent, size);
    uint32_t *entry = pmt__shadow_find(e->block);
    if (PMT_UNLIKELY(leaf->instr != instr || leaf->parent != parent || leaf->key != key
                     || entry == NULL || __atomic_load_n(entry, __ATOMIC_RELAXED) != 0)) {
        return 0;
    }
    pmt__lane_sum *sum = &lane->sums[leaf->sum];
    if (PMT_UNLIKELY(sum->cohort != leaf->cohort)) {
        sum = pmt__lane_sum_of(lane, leaf->cohort);
        if (sum == NULL) {
            return 0;
        }
        leaf->sum = (uint32_t)(sum - lane->sums);
    }
    lane->touched = 1;
    if (PMT_UNLIKELY(e->bytes > PMT_SIZE_EXACT_MAX)) {
        if (pmt__shadow_size_put(e->block, e->bytes) < 0) {
            return 0;
        }
        sum->alloc_bytes += e->bytes;
        int bucket = 63 - __builtin_clzll(e->bytes);
        lane->size_allocs[bucket]++;
        lane->size_bytes[bucket] += e->bytes;
    }
    __atomic_store_n(entry, leaf->cohort, __ATOMIC_RELEASE);
    sum->exact = e->bytes <= PMT_SIZE_EXACT_MAX;
    sum->allocs++;
    lane->bytes += e->bytes;
    lane->last[1] = lane->last[0];
    lane->last[0] = e->block;
    return 1;
}

/* A block was allocated by a thread without the GIL, which is inside its lane; it is not when this returns. */
PMT_INLINE void
pmt__outside_alloc(pmt__lane *lane, pmt__outside_event *e)
{
    int done = pmt__lane_alloc_fast(lane, e);
    pmt__lane_leave_nopy(lane);
    if (PMT_UNLIKELY(!done)) {
        pmt__lane_alloc_slow(lane, e);
    }
}

/* Was it one of the newest blocks of the thread? Forgets it. */
PMT_INLINE int
pmt__lane_temporary_take(pmt__lane *lane, const void *block)
{
    for (int i = 0; i < 2; i++) {
        if (lane->last[i] == block) {
            lane->last[i] = NULL;
            return 1;
        }
    }
    return 0;
}

/* With the tables. The caller is not inside. */
static PMT_NOINLINE void
pmt__lane_free_slow(pmt__lane *lane, void *block, uint32_t *entry)
{
    if (pmt__tables_acquire_event() < 0) {
        return;
    }
    if (!(__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_OFF)) {
        pmt__lanes_count_nopy();
        uint32_t value = __atomic_exchange_n(entry, 0, __ATOMIC_ACQ_REL);
        uint32_t id = PMT_SHADOW_IS_BLOCK(value) ? PMT_SHADOW_ID(value) : 0;
        if (id != 0) {
            uint64_t bytes = pmt__shadow_size_take(block);
            if (pmt__lane_temporary_take(lane, block)) {
                pmt__temporary_count(id, bytes);
            }
            pmt__count_sub(id, bytes);
            if (pmt__t.log_on) {
                pmt__log_free_nopy(block, id);
            }
        }
    }
    pmt__tables_release();
}

/* A block with this entry, which watches nobody, is about to be freed by a thread without the GIL. */
PMT_INLINE void
pmt__outside_free(void *block, uint32_t *entry)
{
    pmt__lane *lane = pmt__lane_own();
    if (PMT_UNLIKELY(lane == NULL) || !pmt__lane_enter_nopy(lane)) {
        return;
    }
    uint32_t value = __atomic_load_n(entry, __ATOMIC_RELAXED);
    pmt__lane_sum *sum = NULL;
    if (PMT_LIKELY(PMT_SHADOW_IS_PLAIN(value))
        && PMT_LIKELY(
            !(__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_SLOW))) {
        sum = pmt__lane_sum_of(lane, value);
    }
    if (PMT_UNLIKELY(sum == NULL)) {
        pmt__lane_leave_nopy(lane);
        pmt__lane_free_slow(lane, block, entry);
        return;
    }
    __atomic_store_n(entry, 0, __ATOMIC_RELEASE);
    uint64_t bytes = 0;
    if (PMT_UNLIKELY(!sum->exact)) {
        bytes = pmt__shadow_size_take(block);
        sum->free_bytes += bytes;
    }
    lane->touched = 1;
    sum->frees++;
    if (PMT_UNLIKELY(pmt__lane_temporary_take(lane, block))) {
        sum->temporaries++;
        sum->temporary_bytes += bytes;
    }
    pmt__lane_leave_nopy(lane);
}

#endif
