/* The hot path: what happens at an allocation and at a free, as inline functions.

   A template: the includer says how a frame is read, so that all of it is compiled into the hook for one version of the
   interpreter (src/cpython), or into a unit test with frames of its own:

     PMT_FRAME                    the frame type
     PMT_FRAME_PREVIOUS(f)        the caller's frame or NULL
     PMT_FRAME_INSTR(f)           uint64_t, address of the current instruction
     PMT_FRAME_CODE(f)            const void *, the code object
     PMT_FRAME_LINK(f)            optional: where previous and instr stand side by side
     PMT_FRAME_IS_ENTRY(f)        no code: contributes no node, stays in the chain
     PMT_FRAME_IN_HEAP(f)         in a generator or coroutine: previous changes with each resumption, memory may vanish
     PMT_FRAMES_MARKABLE          0: no; 1: callers only; 2: the top frame too; if not 0:
     PMT_FRAME_MARKED(f), PMT_FRAME_MARK(f)   see below; f is a frame with code that is not in a heap object

   How the stack is known without walking it. The thread keeps its last stack, root first: for every frame its address, its
   `previous`, its instruction, and the node of the stack up to it. At the next event the cached stack is compared with the
   real one from the top: a link is followed only after it was found unchanged, so no freed frame is ever read; where an
   instruction differs, only the nodes above it are looked up again. That is one compare per frame.

   Where the interpreter lets us, frames are marked, and then the cost does not depend on the depth. A mark on a frame must
   mean: since the mark was set, this frame is the same activation, so its callers have not moved (a frame cannot lose its
   callers while it runs, unless it is a generator's: those are not marked). If a marked frame stands in the cache, what the
   cache says of the frames below it is true, and the comparison ends there. How a mark is made is in frames_3XX.c: a byte of
   the frame that each new activation clears (3.14+), a dead slot of the evaluation stack that the frame cannot but overwrite
   when it goes on (3.11; callers only, for which it holds). */
#ifndef PMT_RECORD_TRACK_H
#define PMT_RECORD_TRACK_H

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "record/count.h"
#include "record/gate.h"
#include "record/log.h"
#include "record/shadow.h"
#include "record/tables.h"

/* --- the stack ------------------------------------------------------------------------------------------------------------ */

PMT_INLINE uint32_t
pmt__position(const void *frame)
{
    return (uint32_t)(((uintptr_t)frame * PMT_MIX) >> 54); /* PMT_POSITIONS = 2^10 */
}

/* The place where a frame is. */
PMT_INLINE uint32_t
pmt__place_of(PMT_FRAME *frame, uint64_t instr)
{
    const void *object = PMT_FRAME_CODE(frame);
    const pmt__code_entry *known = pmt__code_slot(object);
    uint32_t unit = (uint32_t)((instr - known->start) >> 1);
    if (PMT_LIKELY(known->object == object && unit - known->begin < known->span)) {
        return known->first + unit;
    }
    return pmt__place_slow_nopy(instr, PMT_FRAME_IS_ENTRY(frame) ? NULL : object,
                                PMT_FRAME_IN_HEAP(frame));
}

PMT_INLINE uint32_t
pmt__node_of(uint32_t parent, uint32_t place)
{
    /* two: recursion that forks takes them in turn */
    uint32_t child = pmt__t.nodes[parent].first;
    if (PMT_LIKELY(pmt__t.nodes[child].place == place)) {
        return child;
    }
    child = pmt__t.nodes[child].next;
    if (PMT_LIKELY(pmt__t.nodes[child].place == place)) {
        return child;
    }
    return pmt__node_slow_nopy(parent, place);
}

PMT_INLINE int
pmt__marked(PMT_FRAME *frame)
{
#if PMT_FRAMES_MARKABLE
    return PMT_FRAME_MARKED(frame);
#else
    (void)frame;
    return 0;
#endif
}

PMT_INLINE void
pmt__mark(PMT_FRAME *frame)
{
#if PMT_FRAMES_MARKABLE
    if (pmt__t.marking && !PMT_FRAME_IS_ENTRY(frame) && !PMT_FRAME_IN_HEAP(frame)) {
        PMT_FRAME_MARK(frame);
    }
#else
    (void)frame;
#endif
}

PMT_INLINE int
pmt__marked_top(PMT_FRAME *top)
{
    return PMT_FRAMES_MARKABLE == 2 && pmt__marked(top);
}

PMT_INLINE void
pmt__mark_top(PMT_FRAME *top)
{
    if (PMT_FRAMES_MARKABLE == 2) {
        pmt__mark(top);
    }
}

PMT_INLINE void
pmt__stack_set(pmt__thread *thread, int32_t at, PMT_FRAME *frame, uint64_t instr)
{
    thread->frame[at] = frame;
    thread->link[at] = (pmt__link){(uint64_t)(uintptr_t)PMT_FRAME_PREVIOUS(frame), instr};
    thread->position[pmt__position(frame)] = (uint32_t)at;
}

/* Puts `count` frames, from top down to (not including) the cached index base, into the cache. Returns 0 when the stack is
   too deep for the memory there is. */
static PMT_NOINLINE int
pmt__stack_push(pmt__thread *thread, PMT_FRAME *top, int32_t base, int32_t count)
{
    PMT_FRAME *below = base < 0 ? NULL : thread->frame[base];
    int32_t depth = base + 1 + count;
    if (depth > thread->capacity) {
        int32_t capacity = thread->capacity;
        while (capacity < depth) {
            capacity *= 2;
        }
        if (pmt__thread_grow_nopy(thread, capacity) < 0) {
            thread->depth = 0;
            return 0;
        }
    }
    if (thread->heap_top > base) {
        thread->heap_top = base; /* not known exactly below: stay on the safe side */
    }
    int32_t at = depth - 1;
    for (PMT_FRAME *f = top; f != below; f = PMT_FRAME_PREVIOUS(f), at--) {
        pmt__stack_set(thread, at, f, PMT_FRAME_INSTR(f));
        if (f == top) {
            pmt__mark_top(f);
        } else {
            pmt__mark(f);
        }
        if (PMT_FRAME_IN_HEAP(f) && at > thread->heap_top) {
            thread->heap_top = at;
        }
    }
    /* node[i] is the stack below frame i; that of the top frame is looked up together with the size, by the leaf cache. */
    for (at = base + 1; at < depth - 1; at++) {
        PMT_FRAME *f = thread->frame[at];
        thread->node[at + 1] =
            pmt__node_of(thread->node[at], pmt__place_of(f, thread->link[at].instr));
    }
    thread->depth = depth;
    return 1;
}

static PMT_NOINLINE uint32_t
pmt__stack_rebuild(pmt__thread *thread, PMT_FRAME *top)
{
    thread->depth = 0;
    thread->node[0] = PMT_NODE_ROOT;
    int32_t count = 0;
    for (PMT_FRAME *f = top; f != NULL; f = PMT_FRAME_PREVIOUS(f)) {
        count++;
    }
    if (PMT_UNLIKELY(thread->name == 0 && !thread->name_asked)) {
        thread->name_asked = 1;
        pmt__attention_set(PMT_ATTENTION_NAME);
    }
    if (!pmt__stack_push(thread, top, -1, count)) {
        pmt__t.counters[PMT_COUNTER_FOLDED_STACKS]++;
        return PMT_NODE_FOLDED;
    }
    return thread->node[thread->depth - 1];
}

#if !PMT_FRAMES_MARKABLE
/* Are previous and instruction of four frames as they were? */
PMT_INLINE int
pmt__four_unchanged(void *const *frame, const pmt__link *link)
{
#if defined(PMT_FRAME_LINK) && defined(__SSE2__)
    /* the two are neighbours in the frame, as in pmt__link: one 16-byte compare each */
#define PMT_EQUAL(k)                                                                        \
    _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)PMT_FRAME_LINK((PMT_FRAME *)frame[k])), \
                   _mm_load_si128((const __m128i *)&link[k]))
    __m128i equal = _mm_and_si128(_mm_and_si128(PMT_EQUAL(0), PMT_EQUAL(1)),
                                  _mm_and_si128(PMT_EQUAL(2), PMT_EQUAL(3)));
    return _mm_movemask_epi8(equal) == 0xffff;
#undef PMT_EQUAL
#else
#define PMT_DIFFERS(k)                                                                   \
    (((uint64_t)(uintptr_t)PMT_FRAME_PREVIOUS((PMT_FRAME *)frame[k]) ^ link[k].previous) \
     | (PMT_FRAME_INSTR((PMT_FRAME *)frame[k]) ^ link[k].instr))
    return (PMT_DIFFERS(0) | PMT_DIFFERS(1) | PMT_DIFFERS(2) | PMT_DIFFERS(3)) == 0;
#undef PMT_DIFFERS
#endif
}
#endif

/* Compares frames at … 0 of the cache with the real stack, knowing that frame[at] is on it and that its link was or need not
   be compared. Returns the lowest index whose instruction differs (at + 1 if none), or -1 if a link differs. */
PMT_INLINE int32_t
pmt__stack_verify(pmt__thread *thread, int32_t at)
{
    void *const *frame = thread->frame;
    const pmt__link *link = thread->link;
    int32_t lowest = at + 1;
#if !PMT_FRAMES_MARKABLE
    /* Four frames per branch. This reads up to three frames before their links are compared: allowed while all frames of the
       cache lie in memory that stays mapped (data stack chunks: the arena hook drops the caches before one goes away). */
    if (PMT_LIKELY(thread->heap_top < 0)) {
        while (at >= 3 && PMT_LIKELY(pmt__four_unchanged(&frame[at - 3], &link[at - 3]))) {
            at -= 4;
        }
    }
#endif
    for (; at >= 0; at--) {
        PMT_FRAME *f = frame[at];
        if (PMT_UNLIKELY((uint64_t)(uintptr_t)PMT_FRAME_PREVIOUS(f) != link[at].previous)) {
            return -1;
        }
        if (PMT_UNLIKELY(PMT_FRAME_INSTR(f) != link[at].instr)) {
            lowest = at;
        }
        if (pmt__marked(f)) {
            break;
        }
        pmt__mark(f);
    }
    return lowest;
}

/* Looks the nodes of frames lowest … last up again. */
PMT_INLINE void
pmt__stack_renew(pmt__thread *thread, int32_t lowest, int32_t last)
{
    for (int32_t at = lowest; at <= last; at++) {
        PMT_FRAME *f = thread->frame[at];
        uint64_t instr = PMT_FRAME_INSTR(f);
        thread->link[at].instr = instr;
        thread->node[at + 1] = pmt__node_of(thread->node[at], pmt__place_of(f, instr));
    }
}

/* The top frame is not where it was: find the nearest frame that is cached, verify it and what is below, push the rest. */
static PMT_NOINLINE uint32_t
pmt__stack_moved(pmt__thread *thread, PMT_FRAME *top)
{
    int32_t at = -1, above = 0;
    for (PMT_FRAME *f = top; f != NULL; f = PMT_FRAME_PREVIOUS(f), above++) {
        uint32_t position = thread->position[pmt__position(f)];
        if ((int32_t)position < thread->depth && thread->frame[position] == f) {
            at = (int32_t)position;
            break;
        }
    }
    if (at < 0) {
        return pmt__stack_rebuild(thread, top);
    }
    int32_t lowest;
    if (above
        == 0) { /* frames were popped: this one's own instruction is the leaf cache's business */
        if (!pmt__marked_top(top)) {
            if ((uint64_t)(uintptr_t)PMT_FRAME_PREVIOUS(top) != thread->link[at].previous
                || (lowest = pmt__stack_verify(thread, at - 1)) < 0) {
                return pmt__stack_rebuild(thread, top);
            }
            pmt__stack_renew(thread, lowest, at - 1);
            pmt__mark_top(top);
        }
        thread->depth = at + 1;
        return thread->node[at];
    }
    lowest = pmt__stack_verify(thread, at);
    if (lowest < 0) {
        return pmt__stack_rebuild(thread, top);
    }
    /* node[at + 1] may never have been looked up: the frame was on top until now */
    pmt__stack_renew(thread, lowest <= at ? lowest : at, at);
    if (!pmt__stack_push(thread, top, at, above)) {
        pmt__t.counters[PMT_COUNTER_FOLDED_STACKS]++;
        return PMT_NODE_FOLDED;
    }
    return thread->node[thread->depth - 1];
}

/* The node of the callers of the top frame, by comparing the whole cached stack. */
static PMT_NOINLINE uint32_t
pmt__stack_compare(pmt__thread *thread, PMT_FRAME *top)
{
    int32_t at = thread->depth - 1;
    if (PMT_UNLIKELY(at < 0 || thread->frame[at] != top)) {
        return pmt__stack_moved(thread, top);
    }
    if (pmt__marked_top(top)) {
        return thread->node[at];
    }
    if (PMT_UNLIKELY((uint64_t)(uintptr_t)PMT_FRAME_PREVIOUS(top) != thread->link[at].previous)) {
        return pmt__stack_rebuild(thread, top);
    }
    int32_t lowest = pmt__stack_verify(thread, at - 1);
    if (PMT_UNLIKELY(lowest != at)) {
        if (lowest < 0) {
            return pmt__stack_rebuild(thread, top);
        }
        pmt__stack_renew(thread, lowest, at - 1);
    }
    pmt__mark_top(top);
    return thread->node[at];
}

/* The same, and keeps what the next event under the same top frame needs to be done with it at once. */
static PMT_NOINLINE uint32_t
pmt__stack_parent_slow(pmt__thread *thread, PMT_FRAME *top)
{
    uint32_t parent = pmt__stack_compare(thread, top);
    PMT_FRAME *caller = PMT_FRAME_PREVIOUS(top);
    thread->top = NULL;
    if (caller != NULL && thread->depth > 0 && !PMT_FRAME_IS_ENTRY(top)) {
        thread->top = top;
        thread->top_caller = caller;
        thread->top_caller_instr = PMT_FRAME_INSTR(caller);
        thread->top_parent = parent;
    }
    return parent;
}

/* The node of the callers of the top frame. */
PMT_INLINE uint32_t
pmt__stack_parent(pmt__thread *thread, PMT_FRAME *top)
{
    if (PMT_LIKELY(thread->top == top)) {
#if PMT_FRAMES_MARKABLE == 2
        if (PMT_LIKELY(pmt__marked(top))) {
            return thread->top_parent;
        }
#elif PMT_FRAMES_MARKABLE == 1
        PMT_FRAME *caller = PMT_FRAME_PREVIOUS(top);
        if (PMT_LIKELY(caller == thread->top_caller
                       && PMT_FRAME_INSTR(caller) == thread->top_caller_instr
                       && pmt__marked(caller))) {
            return thread->top_parent;
        }
#endif
    }
    return pmt__stack_parent_slow(thread, top);
}

/* The plain way, for self-checks: every frame looked up from the root. */
__attribute__((unused)) static PMT_NOINLINE uint32_t
pmt__stack_naive(PMT_FRAME *top)
{
    enum {
        NAIVE_MAX = 1 << 16
    };
    static PMT_FRAME *frames[NAIVE_MAX]; /* protected by the tables */
    int count = 0;
    for (PMT_FRAME *f = top; f != NULL && count < NAIVE_MAX; f = PMT_FRAME_PREVIOUS(f)) {
        frames[count++] = f;
    }
    uint32_t node = PMT_NODE_ROOT;
    while (count > 0 && node != PMT_NODE_FOLDED) {
        PMT_FRAME *f = frames[--count];
        if (!PMT_FRAME_IS_ENTRY(f)) {
            uint32_t place =
                pmt__place_plain_nopy(PMT_FRAME_INSTR(f), PMT_FRAME_CODE(f), PMT_FRAME_IN_HEAP(f));
            node = pmt__node_plain_nopy(node, place);
        }
    }
    return node;
}

#include "record/mixed_track.h"

/* --- counters ---------------------------------------------------------------------------------------------------------------- */

PMT_INLINE void
pmt__temporary_count(uint32_t id, uint64_t large_bytes)
{
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    if (PMT_UNLIKELY(cohort->stamp != pmt__t.stamp)) {
        pmt__cohort_seen_slow_nopy(cohort);
    }
    cohort->temporaries++;
    if (cohort->size & PMT_COHORT_SIZELESS) {
        pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS].temporary_bytes += large_bytes;
    }
}

/* Was the block one of the newest of the thread that had the last event? Forgets it. */
PMT_INLINE int
pmt__temporary_take(const void *block)
{
    pmt__thread *thread = pmt__t.thread;
    if (PMT_UNLIKELY(thread == NULL)) {
        return 0;
    }
    if (PMT_UNLIKELY(block == thread->last[0])) {
        thread->last[0] = NULL;
        return 1;
    }
    if (block == thread->last[1]) {
        thread->last[1] = NULL;
        return 1;
    }
    for (uint32_t i = 2; i <= pmt__t.temporaries_n; i++) {
        if (block == thread->last[i]) {
            thread->last[i] = NULL;
            return 1;
        }
    }
    return 0;
}

PMT_INLINE void
pmt__temporary_put(pmt__thread *thread, void *block)
{
    for (uint32_t i = pmt__t.temporaries_n; PMT_UNLIKELY(i > 1); i--) {
        thread->last[i] = thread->last[i - 1];
    }
    thread->last[1] = thread->last[0];
    thread->last[0] = block;
    thread->fresh = block;
}

/* --- events: the caller is inside the gate --------------------------------------------------------------------------------------- */

static PMT_NOINLINE uint32_t
pmt__leaf_miss(pmt__leaf *leaf, uint32_t parent, uint32_t place, uint32_t key, uint32_t size,
               uint32_t domain, pmt__thread *thread, PMT_FRAME *top)
{
    uint32_t node = PMT_NODE_NO_STACK;
    if (top != NULL) {
        node = pmt__node_of(parent, place);
    } else {
        pmt__t.counters[PMT_COUNTER_NO_STACK]++;
    }
    if (node == PMT_NODE_ROOT) {
        node = PMT_NODE_NO_STACK;
    }
    uint32_t id = pmt__cohort_get_nopy(node, size, domain, thread != NULL ? thread->id : 0);
    if (top != NULL && thread != NULL && id != 0 && pmt__t.cohorts[id].epoch == pmt__t.epoch) {
        *leaf = (pmt__leaf){parent, place, key, id};
    }
    return id;
}

/* The cohort for an allocation now; thread may be NULL (no Python thread state), top may be NULL (no frame). */
PMT_INLINE uint32_t
pmt__cohort_now(pmt__thread *thread, PMT_FRAME *top, uint64_t bytes, uint32_t domain)
{
    uint32_t parent = PMT_NODE_ROOT;
    uint32_t place = PMT_PLACE_NONE;
    uint32_t size = PMT_LIKELY(bytes <= PMT_SIZE_EXACT_MAX) ? (uint32_t)bytes : PMT_SIZE_LARGE;
    if (PMT_UNLIKELY(pmt__t.mixed)) {
        return pmt__cohort_mixed_nopy(thread, top, size, domain);
    }
    if (PMT_LIKELY(top != NULL)) {
        parent = pmt__stack_parent(thread, top);
        place = pmt__place_of(top, PMT_FRAME_INSTR(top));
    }
    uint32_t key = size | domain << PMT_KEY_DOMAIN_SHIFT | (thread != NULL ? thread->key : 0)
                   | pmt__t.epoch_key;
    pmt__leaf *leaf = &pmt__t.leaves[pmt__leaf_index(parent, place, size)];
    if (PMT_LIKELY(leaf->place == place && leaf->parent == parent && leaf->key == key)) {
        return leaf->cohort;
    }
    return pmt__leaf_miss(leaf, parent, place, key, size, domain, thread, top);
}

/* The large block whose size stands in this entry: it starts one or two entries before. NULL: it is not known any more. */
static inline void *
pmt__size_owner(void *inside)
{
    for (int back = 16; back <= 32; back += 16) {
        char *block = (char *)inside - back;
        const uint32_t *entry = pmt__shadow_find(block);
        if (entry != NULL && PMT_SHADOW_IS_BLOCK(*entry) && PMT_SHADOW_ID(*entry) != 0
            && pmt__shadow_size_get(block) > (uint64_t)back) {
            return block;
        }
    }
    return NULL;
}

/* Frees whatever the shadow says of this block, because the allocator gave the address out again. That happens to blocks of the C
   library: some of its functions free or move what the program has allocated (getline). Elsewhere it is counted: it should not. */
static PMT_NOINLINE void
pmt__missed_free(void *block, uint32_t value)
{
    if (PMT_SHADOW_IS_SIZE(value)) {
        void *owner = pmt__size_owner(block);
        if (owner != NULL) {
            uint32_t *entry = pmt__shadow_find(owner);
            value = *entry;
            *entry = 0;
            block = owner;
        }
    }
    uint32_t id = PMT_SHADOW_IS_BLOCK(value) ? PMT_SHADOW_ID(value) : 0;
    uint32_t domain =
        id == 0 ? 0 : pmt__t.sites[PMT_COHORT_SITE(&pmt__t.cohorts[id])].thread >> PMT_THREAD_BITS;
    pmt__t.counters[PMT_COUNTER_MISSED_FREES] += domain != PMT_DOMAIN_MALLOC;
    if (id == 0) {
        return;
    }
    uint64_t bytes = 0;
    if (pmt__t.cohorts[id].size & PMT_COHORT_SIZELESS) {
        bytes = pmt__shadow_size_take(block);
    }
    pmt__count_sub(id, bytes);
    if (PMT_UNLIKELY(pmt__t.log_on)) {
        pmt__log_free_nopy(block, id);
    }
}

static PMT_NOINLINE void
pmt__track(void *block, uint64_t bytes, uint32_t domain, pmt__thread *thread, PMT_FRAME *top)
{
    uint32_t id = pmt__cohort_now(thread, top, bytes, domain);
    uint32_t *entry = pmt__shadow_make(block);
    if (PMT_UNLIKELY(id == 0 || entry == NULL)) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
        return;
    }
    if (PMT_UNLIKELY(*entry != 0)) {
        pmt__missed_free(block, *entry);
        *entry = 0;
    }
    if (PMT_UNLIKELY(bytes > PMT_SIZE_EXACT_MAX) && pmt__shadow_size_put(block, bytes) < 0) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
        return;
    }
    *entry = id;
    pmt__count_add(id, bytes);
    if (PMT_UNLIKELY(pmt__t.log_on)) {
        pmt__log_alloc_nopy(block, id, bytes);
    }
    if (PMT_LIKELY(thread != NULL)) {
        pmt__temporary_put(thread, block);
    }
}

/* The common case of pmt__track, inline: 1 to 512 bytes, one allocation back for temporaries. Returns 0 if it is not that
   case; nothing is counted then. */
PMT_INLINE int
pmt__track_fast(void *block, uint32_t size, uint32_t domain, pmt__thread *thread, PMT_FRAME *top)
{
    uint32_t parent = pmt__stack_parent(thread, top);
    uint32_t place = pmt__place_of(top, PMT_FRAME_INSTR(top));
    uint32_t key = size | domain << PMT_KEY_DOMAIN_SHIFT | thread->key | pmt__t.epoch_key;
    pmt__leaf *leaf = &pmt__t.leaves[pmt__leaf_index(parent, place, size)];
    uintptr_t index = (uintptr_t)block >> PMT_SHADOW_LEAF_SHIFT;
    uint32_t *shadow = pmt__shadow_leaf(index);
    if (PMT_UNLIKELY(shadow == NULL)) {
        return 0;
    }
    uint32_t id = leaf->cohort;
    if (PMT_UNLIKELY(leaf->place != place || leaf->parent != parent || leaf->key != key)) {
        id = pmt__leaf_miss(leaf, parent, place, key, size, domain, thread, top);
    }
    uint32_t *entry = &shadow[((uintptr_t)block >> 4) & (PMT_SHADOW_ENTRIES - 1)];
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    if (PMT_UNLIKELY(*entry != 0 || id == 0)) {
        return 0;
    }
    *entry = id;
    uint64_t live = pmt__t.live_bytes + size;
    pmt__t.live_bytes = live;
    if (PMT_UNLIKELY(live >= pmt__t.peak_floor)) {
        pmt__peak_reached_slow_nopy();
    }
    if (PMT_UNLIKELY(cohort->stamp != pmt__t.stamp)) {
        pmt__cohort_seen_slow_nopy(cohort);
    }
    cohort->live++;
    cohort->allocs++;
    thread->last[1] = thread->last[0];
    thread->last[0] = block;
    thread->fresh = block;
    return 1;
}

/* The block goes on under another cohort of the same size and domain: no byte is born or dies (an object taken from a free
   list of the interpreter belongs to the line that makes it now). */
PMT_INLINE void
pmt__count_move(uint32_t from_id, uint32_t to_id, uint64_t large_bytes)
{
    pmt__cohort *from = &pmt__t.cohorts[from_id];
    pmt__cohort *to = &pmt__t.cohorts[to_id];
    if (PMT_UNLIKELY(from->stamp != pmt__t.stamp)) {
        pmt__cohort_seen_slow_nopy(from);
    }
    if (PMT_UNLIKELY(to->stamp != pmt__t.stamp)) {
        pmt__cohort_seen_slow_nopy(to);
    }
    from->live--;
    to->live++;
    to->allocs++;
    if (PMT_UNLIKELY(from->size & PMT_COHORT_SIZELESS)) {
        pmt__t.large[from->size & ~PMT_COHORT_SIZELESS].live_bytes -= large_bytes;
        pmt__t.large[to->size & ~PMT_COHORT_SIZELESS].live_bytes += large_bytes;
        pmt__t.large[to->size & ~PMT_COHORT_SIZELESS].alloc_bytes += large_bytes;
    }
}

/* The common case of a free, inline: a small block under a plain id. Returns 0 if it is not that case. */
PMT_INLINE int
pmt__untrack_fast(void *block, uint32_t *entry)
{
    uint32_t id = *entry;
    pmt__cohort *cohort = &pmt__t.cohorts[id];
    const pmt__thread *thread = pmt__t.thread;
    uint32_t size = cohort->size;
    if (PMT_UNLIKELY((int32_t)size < 0 || thread == NULL || pmt__t.growing || cohort->live == 0)) {
        return 0;
    }
    if (PMT_UNLIKELY(block == thread->last[0] || block == thread->last[1])) {
        return 0;
    }
    *entry = 0;
    if (PMT_UNLIKELY(cohort->stamp != pmt__t.stamp)) {
        pmt__cohort_seen_slow_nopy(cohort);
    }
    cohort->live--;
    pmt__t.live_bytes -= size;
    return 1;
}

/* The rest of a free when the entry's value has been taken out and is a plain cohort id. */
static PMT_NOINLINE void
pmt__untrack_id(void *block, uint32_t id)
{
    uint64_t bytes = 0;
    if (PMT_UNLIKELY(pmt__t.cohorts[id].size & PMT_COHORT_SIZELESS)) {
        bytes = pmt__shadow_size_take(block);
    }
    if (PMT_UNLIKELY(pmt__temporary_take(block))) {
        pmt__temporary_count(id, bytes);
    }
    pmt__count_sub(id, bytes);
    if (PMT_UNLIKELY(pmt__t.log_on)) {
        pmt__log_free_nopy(block, id);
    }
}

#endif
