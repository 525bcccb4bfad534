/* Mixed stacks (mixed.h): Python's frames, and the merging, as a template on the frames of track.h, which includes it. In addition the includer may say
   (the defaults are those of 3.12 and later, where the lowest frame of an activation is an entry frame, which lies on the C stack)

     PMT_FRAME_ENTRY_CURSOR             a type, to look for entries with
     PMT_FRAME_ENTRIES(state)           where the search begins
     PMT_FRAME_ENTRY_AT(f, cursor)      not 0: f is the lowest frame of an activation of the loop, and this is an address of that
                                        activation on the C stack; moves the cursor on

   and, where it knows of frames that await others (PMT_FRAME_IN_HEAP):

     PMT_FRAMES_ASK()                   may it be asked now? The caller holds the tables
     PMT_FRAME_AWAITING(state, f, out, room)   how many frames await f, which a task runs; out: these, the outermost first */
#ifndef PMT_RECORD_MIXED_TRACK_H
#define PMT_RECORD_MIXED_TRACK_H

#include <string.h>

#include "record/lane.h"
#include "record/mixed.h"

#ifndef PMT_FRAME_ENTRIES
#define PMT_FRAME_ENTRY_CURSOR const void *
#define PMT_FRAME_ENTRIES(state) (state)
#define PMT_FRAME_ENTRY_AT(f, cursor) \
    ((void)(cursor), PMT_FRAME_IS_ENTRY(f) ? (uint64_t)(uintptr_t)(f) : 0)
#endif

#ifndef PMT_FRAMES_ASK
#define PMT_FRAMES_ASK() 0
#define PMT_FRAME_AWAITING(state, f, out, room) ((void)(state), (void)(f), 0)
#endif

#define PMT_PLACE_NOWHERE (PMT_PLACE_NONE | PMT_PLACE_NOT_BEGUN)

PMT_INLINE uint32_t
pmt__python_position(const void *frame)
{
    return (uint32_t)(((uintptr_t)frame * PMT_MIX) >> 54); /* PMT_PYTHON_POSITIONS = 2^10 */
}

/* The place of a frame. 0, or -1: not without the tables. */
PMT_INLINE int
pmt__mixed_place(pmt__mixed *m, PMT_FRAME *f, uint64_t instr, int tables, uint32_t *out)
{
    if (PMT_FRAME_IS_ENTRY(f)) {
        *out = PMT_PLACE_NOWHERE;
        return 0;
    }
    /* A generator's own frame has begun where that of the call that makes the generator has not. */
    const uint64_t key = instr | (uint64_t)(PMT_FRAME_IN_HEAP(f) != 0);
    pmt__known_place *known = m->known_places[key * PMT_MIX >> 54]; /* PMT_PYTHON_PLACES = 2^10 */
    if (PMT_LIKELY(known[0].key == key)) {
        *out = known[0].place;
        return 0;
    }
    if (known[1].key == key) {
        *out = known[1].place;
        return 0;
    }
    if (!tables) {
        return -1;
    }
    *out = pmt__place_of(f, instr);
    if (!(*out & PMT_PLACE_NOT_BEGUN) && *out != PMT_PLACE_FOLDED) {
        known[1] = known[0];
        known[0] = (pmt__known_place){key, *out, 0};
    }
    return 0;
}

/* Marks as in track.h: only where they may be believed, and made only by who holds the tables. */
PMT_INLINE int
pmt__mixed_marked(PMT_FRAME *f, int is_top)
{
    return is_top ? pmt__marked_top(f) : pmt__marked(f);
}

PMT_INLINE void
pmt__mixed_mark(PMT_FRAME *f, int is_top, int tables)
{
    if (tables && is_top) {
        pmt__mark_top(f);
    } else if (tables) {
        pmt__mark(f);
    }
}

/* Python's frames from f on are those that are kept at index `at` and below? Brings their instructions up to date; *lowest: the
   lowest index where something changed. -1: not without the tables. */
PMT_INLINE int
pmt__python_same(pmt__mixed *m, PMT_FRAME *f, int32_t at, PMT_FRAME_ENTRY_CURSOR cursor, int is_top,
                 int tables, int32_t *lowest)
{
    for (; f != NULL; f = PMT_FRAME_PREVIOUS(f), at--) {
        if (at < 0 || m->python[at].frame != f) {
            return 0;
        }
        pmt__python_frame *known = &m->python[at];
        uint64_t instr = PMT_FRAME_IS_ENTRY(f) ? 0 : PMT_FRAME_INSTR(f);
        uint64_t entry = PMT_FRAME_ENTRY_AT(f, cursor);
        if (PMT_UNLIKELY(known->instr != instr)) {
            if (pmt__mixed_place(m, f, instr, tables, &known->place) < 0) {
                return -1;
            }
            known->instr = instr;
            *lowest = at < *lowest ? at : *lowest;
        }
        if (PMT_UNLIKELY(known->entry != entry)) {
            known->entry = entry;
            *lowest = at < *lowest ? at : *lowest;
        }
        if (pmt__mixed_marked(f, is_top)
            && PMT_FRAME_PREVIOUS(f) == (at > 0 ? m->python[at - 1].frame : NULL)) {
            return 1; /* what is below it has not moved */
        }
        pmt__mixed_mark(f, is_top, tables);
        is_top = 0;
    }
    return at == -1;
}

/* Finds the parents of the frames that were not asked yet. With the tables. */
static PMT_NOINLINE void
pmt__mixed_ask_nopy(pmt__mixed *m, const void *state)
{
    static PMT_FRAME *awaiting[PMT_PARENTS_OF_FRAME]; /* protected by the tables */
    uint32_t end = m->asked > 0 ? m->python[m->asked - 1].parents_end : 0;
    (void)state;
    for (int32_t at = m->asked; at < m->python_count; at++) {
        PMT_FRAME *f = (PMT_FRAME *)(uintptr_t)m->python[at].frame;
        int room = PMT_PARENTS_MAX - end < PMT_PARENTS_OF_FRAME ? (int)(PMT_PARENTS_MAX - end)
                                                                : PMT_PARENTS_OF_FRAME;
        int count = PMT_FRAME_IN_HEAP(f) ? PMT_FRAME_AWAITING(state, f, awaiting, room) : 0;
        for (int i = 0; i < count; i++) {
            m->parents[end++] = pmt__place_of(awaiting[i], PMT_FRAME_INSTR(awaiting[i]));
        }
        if (count > 0 && at < m->python_kept) {
            m->python_kept = at;
        }
        m->python[at].parents_end = end;
    }
    m->asked = m->python_count;
}

/* Brings the kept Python frames to the real ones. 0, or -1: not without the tables, or deeper than there is room for. */
PMT_INLINE int
pmt__mixed_python(pmt__mixed *m, const void *state, PMT_FRAME *top, int tables)
{
    uint32_t generation = __atomic_load_n(&pmt__t.lane_generation, __ATOMIC_RELAXED);
    if (PMT_UNLIKELY(m->python_generation != generation)) {
        m->python_generation = generation; /* the instructions of a dead code object tell nothing */
        m->python_count = 0;
        memset(m->known_places, 0, sizeof m->known_places);
    }
    int32_t above = 0, base = -1, lowest = m->python_count;
    PMT_FRAME_ENTRY_CURSOR cursor = PMT_FRAME_ENTRIES(state);
    PMT_FRAME_ENTRY_CURSOR begin = cursor;
    for (PMT_FRAME *f = top; f != NULL; f = PMT_FRAME_PREVIOUS(f)) {
        uint32_t position = m->position[pmt__python_position(f)];
        if ((int32_t)position < m->python_count && m->python[position].frame == f) {
            int same = pmt__python_same(m, f, (int32_t)position, cursor, f == top, tables, &lowest);
            if (same < 0) {
                return -1;
            }
            if (same) {
                base = (int32_t)position;
                break;
            }
        }
        if (PMT_UNLIKELY(above == PMT_PYTHON_DEPTH)) {
            return -1;
        }
        m->chain[above++] = f;
        (void)PMT_FRAME_ENTRY_AT(f, cursor);
    }
    int32_t count = base + 1 + above;
    if (PMT_UNLIKELY(count > PMT_PYTHON_DEPTH)) {
        return -1;
    }
    cursor = begin;
    const uint32_t parents_end = base >= 0 ? m->python[base].parents_end : 0;
    for (int32_t i = 0; i < above; i++) {
        PMT_FRAME *f = (PMT_FRAME *)(uintptr_t)m->chain[i];
        int32_t at = count - 1 - i;
        pmt__python_frame *frame = &m->python[at];
        frame->frame = f;
        frame->instr = PMT_FRAME_IS_ENTRY(f) ? 0 : PMT_FRAME_INSTR(f);
        if (pmt__mixed_place(m, f, frame->instr, tables, &frame->place) < 0) {
            return -1;
        }
        frame->entry = PMT_FRAME_ENTRY_AT(f, cursor);
        frame->parents_end = parents_end;
        pmt__mixed_mark(f, f == top, tables);
        m->position[pmt__python_position(f)] = (uint32_t)at;
    }
    m->python_count = count;
    m->python_kept = lowest < base + 1 ? lowest : base + 1;
    if (pmt__t.parents) {
        m->asked = m->asked < base + 1 ? m->asked : base + 1;
        if (tables && m->asked < count && PMT_FRAMES_ASK()) {
            pmt__mixed_ask_nopy(m, state);
        }
    }
    return 0;
}

typedef struct pmt__merging {
    int32_t length;
    int32_t python;
    int changed;
} pmt__merging;

PMT_INLINE void
pmt__merge_put(pmt__mixed *m, pmt__merging *to, uint32_t place)
{
    int32_t at = to->length++;
    if (PMT_LIKELY(!to->changed && at < m->count && m->place[at] == place)) {
        return;
    }
    if (!to->changed) {
        to->changed = 1;
        m->known = m->known < at ? m->known : at;
    }
    m->place[at] = place;
    uint64_t h = (m->hash[at] ^ place) * PMT_MIX;
    m->hash[at + 1] = h ^ h >> 29;
}

/* The next Python frame, above those that await it. */
PMT_INLINE void
pmt__merge_python(pmt__mixed *m, pmt__merging *to)
{
    const pmt__python_frame *frame = &m->python[to->python];
    uint32_t parent = to->python > 0 ? frame[-1].parents_end : 0;
    for (; PMT_UNLIKELY(parent < frame->parents_end); parent++) {
        pmt__merge_put(m, to, m->parents[parent]);
    }
    if (!(frame->place & PMT_PLACE_NOT_BEGUN)) {
        pmt__merge_put(m, to, frame->place);
    }
    to->python++;
}

/* The frames of the next activation of the loop. */
PMT_INLINE void
pmt__merge_activation(pmt__mixed *m, pmt__merging *to)
{
    do {
        pmt__merge_python(m, to);
    } while (to->python < m->python_count && m->python[to->python].entry == 0);
}

/* Is an entry's activation further up than this native frame? */
PMT_INLINE int
pmt__entry_is_above(uint64_t entry, const pmt__native_frame *native, uint64_t low, uint64_t high)
{
    return entry >= low && entry < high && entry < native->sp;
}

/* Would a native frame that stayed be merged as it was? So many Python frames came before its end, and the next activation, if any,
   is one that it has to wait for. */
PMT_INLINE int
pmt__merge_stands(const pmt__mixed *m, const pmt__native_frame *native, uint64_t low, uint64_t high)
{
    return native->python < m->python_kept
           || (native->python == m->python_kept
               && (m->python_kept == m->python_count
                   || pmt__entry_is_above(m->python[m->python_kept].entry, native, low, high)));
}

/* The sequence, from the first frame on that changed. */
PMT_INLINE void
pmt__mixed_merge(pmt__mixed *m, uint64_t stack_low, uint64_t stack_high)
{
    int32_t i = m->native_kept;
    uint32_t has_python = m->python_count > 0;
    pmt__merging to = {0, 0, 0};
    if (PMT_UNLIKELY(has_python != m->had_python || m->broken)) {
        i = 0;
    }
    m->had_python = has_python;
    while (i > 0 && !pmt__merge_stands(m, &m->native[i - 1], stack_low, stack_high)) {
        i--;
    }
    if (i > 0) {
        to.length = m->native[i - 1].length;
        to.python = m->native[i - 1].python;
    }
    int lost = m->broken != 0 && m->native_count > 0 && m->native[0].place != PMT_PLACE_LOST;
    const int32_t trim = has_python && !m->broken ? m->trim : 0;
    for (; i < m->native_count; i++) {
        pmt__native_frame *native = &m->native[i];
        int is_loop = 0;
        while (!is_loop && to.python < m->python_count) {
            uint64_t entry = m->python[to.python].entry;
            if (pmt__entry_is_above(entry, native, stack_low, stack_high)) {
                break;
            }
            is_loop = entry >= native->sp && entry < native->cfa;
            if (is_loop && lost) {
                lost = 0;
                pmt__merge_put(m, &to, PMT_PLACE_LOST);
            }
            pmt__merge_activation(m, &to);
        }
        if (lost) {
            lost = 0;
            pmt__merge_put(m, &to, PMT_PLACE_LOST);
        }
        if (!is_loop && native->place != 0 && !(to.python == 0 && i < trim)) {
            pmt__merge_put(m, &to, native->place);
        }
        native->length = to.length;
        native->python = to.python;
    }
    while (to.python < m->python_count) {
        pmt__merge_activation(m, &to);
    }
    m->count = to.length;
    m->known = m->known < m->count ? m->known : m->count;
}

/* The same without native frames. */
PMT_INLINE void
pmt__mixed_merge_python(pmt__mixed *m)
{
    int32_t kept = m->python_kept;
    pmt__merging to = {kept > 0 ? m->python_length[kept - 1] : 0, kept, 0};
    while (to.python < m->python_count) {
        pmt__merge_python(m, &to);
        m->python_length[to.python - 1] = to.length;
    }
    m->count = to.length;
    m->known = m->known < m->count ? m->known : m->count;
}

/* The stack of the calling thread, in m; top: NULL, no Python frame. 0, or -1: not without the tables, or too deep. The caller is
   inside, and nobody else looks at m. */
PMT_INLINE int
pmt__mixed_now_nopy(pmt__mixed *m, const void *state, PMT_FRAME *top, int tables)
{
    const int natives = pmt__natives_now.on != 0;
    if (natives) {
        pmt__unwind_regs regs;
        pmt__unwind_regs_here(&regs);
        if (pmt__mixed_walk_nopy(m, &regs, tables) < 0) {
            return -1;
        }
    }
    if (top != NULL) {
        if (pmt__mixed_python(m, state, top, tables) < 0) {
            m->native_count = m->python_count = 0; /* what they have now is not merged */
            return -1;
        }
    } else {
        m->python_kept = m->python_count = 0;
    }
    if (natives) {
        const pmt__stack_range *range = &m->ranges[m->range];
        pmt__mixed_merge(m, range->low, range->high);
    } else {
        pmt__mixed_merge_python(m);
    }
    return 0;
}

/* The node of the sequence, with the tables. */
PMT_INLINE uint32_t
pmt__mixed_node(pmt__mixed *m)
{
    for (int32_t at = m->known; at < m->count; at++) {
        m->node[at + 1] = pmt__node_of(m->node[at], m->place[at]);
    }
    m->known = m->count;
    return m->node[m->count];
}

PMT_INLINE pmt__mixed *
pmt__mixed_own(void)
{
    pmt__lane *lane = pmt__lane_own();
    if (PMT_UNLIKELY(lane == NULL)) {
        return NULL;
    }
    if (PMT_UNLIKELY(lane->mixed == NULL)) {
        lane->mixed = pmt__mixed_new();
    }
    return lane->mixed;
}

/* What pmt__cohort_now says, for a mixed stack. */
static PMT_NOINLINE uint32_t
pmt__cohort_mixed_nopy(pmt__thread *thread, PMT_FRAME *top, uint32_t size, uint32_t domain)
{
    uint32_t thread_id = thread != NULL ? thread->id : 0;
    pmt__mixed *m = pmt__mixed_own();
    if (m == NULL || pmt__mixed_now_nopy(m, thread != NULL ? thread->state : NULL, top, 1) < 0) {
        pmt__t.counters[PMT_COUNTER_FOLDED_STACKS]++;
        return pmt__cohort_get_nopy(PMT_NODE_FOLDED, size, domain, thread_id);
    }
    if (PMT_UNLIKELY(m->missing != 0)) {
        pmt__mixed_missing_nopy(m);
    }
    if (PMT_UNLIKELY(thread != NULL && thread->name == 0 && !thread->name_asked)) {
        thread->name_asked = 1;
        pmt__attention_set(PMT_ATTENTION_NAME);
    }
    uint64_t hash = m->hash[m->count];
    uint32_t key = size | domain << PMT_KEY_DOMAIN_SHIFT | (thread != NULL ? thread->key : 0)
                   | pmt__t.epoch_key;
    uint32_t low = (uint32_t)hash, high = (uint32_t)(hash >> 32);
    pmt__leaf *leaf = &pmt__t.leaves[pmt__leaf_index(low, high, size)];
    if (PMT_LIKELY(leaf->parent == low && leaf->place == high && leaf->key == key)) {
        return leaf->cohort;
    }
    uint32_t node = pmt__mixed_node(m);
    if (top == NULL) {
        pmt__t.counters[PMT_COUNTER_NO_STACK]++;
    }
    uint32_t id = pmt__cohort_get_nopy(node == PMT_NODE_ROOT ? PMT_NODE_NO_STACK : node, size,
                                       domain, thread_id);
    if (id != 0 && pmt__t.cohorts[id].epoch == pmt__t.epoch) {
        *leaf = (pmt__leaf){low, high, key, id};
    }
    return id;
}

/* Puts down the place of a frame, and those of its parents if they may be asked for, top first. */
__attribute__((unused)) static int
pmt__naive_put(uint32_t *places, int count, const void *state, PMT_FRAME *f)
{
    static PMT_FRAME *awaiting[PMT_PARENTS_OF_FRAME]; /* protected by the tables */
    int parents = 0;
    (void)state;
    if (pmt__t.parents && PMT_FRAME_IN_HEAP(f) && PMT_FRAMES_ASK()) {
        parents = PMT_FRAME_AWAITING(state, f, awaiting, PMT_PARENTS_OF_FRAME);
    }
    if (count + 1 + parents > PMT_MIXED_DEPTH) {
        return count;
    }
    if (!PMT_FRAME_IS_ENTRY(f)) {
        places[count++] =
            pmt__place_plain_nopy(PMT_FRAME_INSTR(f), PMT_FRAME_CODE(f), PMT_FRAME_IN_HEAP(f));
    }
    while (parents > 0) {
        PMT_FRAME *parent = awaiting[--parents];
        places[count++] = pmt__place_plain_nopy(PMT_FRAME_INSTR(parent), PMT_FRAME_CODE(parent),
                                                PMT_FRAME_IN_HEAP(parent));
    }
    return count;
}

__attribute__((unused)) static uint32_t
pmt__naive_node(const uint32_t *places, int count)
{
    uint32_t node = PMT_NODE_ROOT;
    while (count > 0) {
        node = pmt__node_plain_nopy(node, places[--count]);
    }
    return node;
}

/* The plain way, for self-checks: every rule looked up, every frame put down, from the top; nothing of what a pmt__mixed keeps but
   the bounds of its stack. Without the tables' help it is a chain of places, so its node is found from the root. */
__attribute__((unused, no_sanitize_address, no_sanitize_thread)) static PMT_NOINLINE uint32_t
pmt__mixed_naive(const pmt__mixed *m, const void *state, PMT_FRAME *top)
{
    static uint32_t places[PMT_MIXED_DEPTH]; /* top first; protected by the tables */
    if (!pmt__natives_now.on) {
        int depth = 0;
        for (PMT_FRAME *f = top; f != NULL; f = PMT_FRAME_PREVIOUS(f)) {
            depth = pmt__naive_put(places, depth, state, f);
        }
        return pmt__naive_node(places, depth);
    }
    const pmt__stack_range *range = &m->ranges[m->range];
    int count = 0, system = 0; /* of the newest, so many natives in a row are the system's */
    int has_python = top != NULL, lost = 1;
    PMT_FRAME *f = top;
    PMT_FRAME_ENTRY_CURSOR cursor = PMT_FRAME_ENTRIES(state);
    pmt__unwind_regs regs;
    pmt__unwind_regs_here(&regs);
    const uint64_t low = regs.sp; /* this frame may reach below what was read so far */
    pmt__unwind_rule rule;
    for (int is_return = 0, went = 1; went && count < PMT_NATIVE_DEPTH; is_return = !rule.signal) {
        uint64_t pc = regs.pc, sp = regs.sp;
        pmt__native_rule_plain_nopy(pc, is_return, &rule);
        int rc = pmt__unwind_step(&rule, &regs, low, range->high);
        lost = rc < 0;
        went = rc > 0;
        uint64_t cfa = went ? regs.sp : sp;
        uint64_t entry = 0;
        PMT_FRAME_ENTRY_CURSOR ahead = cursor;
        for (PMT_FRAME *g = f; g != NULL && entry == 0; g = PMT_FRAME_PREVIOUS(g)) {
            entry = PMT_FRAME_ENTRY_AT(g, ahead);
        }
        if (entry >= sp && entry < cfa) {
            for (entry = 0; f != NULL && entry == 0 && count < PMT_MIXED_DEPTH;
                 f = PMT_FRAME_PREVIOUS(f)) {
                entry = PMT_FRAME_ENTRY_AT(f, cursor);
                count = pmt__naive_put(places, count, state, f);
            }
            system = 0;
            continue;
        }
        int is_system;
        uint32_t place = pmt__native_place_plain_nopy(pc, &is_system);
        if (place != 0) {
            places[count++] = place;
        }
        system = !is_system ? 0 : system + (place != 0);
    }
    if (lost) {
        if (count == 0 || places[count - 1] != PMT_PLACE_LOST) {
            places[count++] = PMT_PLACE_LOST;
        }
    } else if (has_python && f == NULL) {
        count -= system;
    }
    for (; f != NULL && count < PMT_MIXED_DEPTH; f = PMT_FRAME_PREVIOUS(f)) {
        count = pmt__naive_put(places, count, state, f);
    }
    return pmt__naive_node(places, count);
}

#endif
