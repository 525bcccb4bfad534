/* The allocator hooks, compiled once per version of CPython against its frame macros (see recorder.h).

   Rules in here: nothing that runs inside a hook calls into the interpreter, makes or frees a Python object, or waits for
   the GIL (`_nopy`). The order around a free is: clear the shadow, then free, because the next moment another thread can own the
   address. */
#include "cpython/recorder.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "cpython/awaiting.h"
#include "platform/platform.h"
#include "record/lane_track.h"
#include "record/native_table.h"
#include "record/ranges.h"
#include "record/sample.h"
#include "record/writer.h"

#ifndef PMT_CURRENT_STATE
#error "frames_3XX.c must define PMT_CURRENT_STATE, PMT_CURRENT_FRAME and the PMT_FRAME_* macros"
#endif

static PyMemAllocatorEx original[3]; /* by PyMemAllocatorDomain: raw, mem, obj */
static PyMemAllocatorEx over[3];     /* tracemalloc's hooks, where ours are above and below them */
static PyObjectArenaAllocator original_arena;
static PyInterpreterState *main_interpreter;
static size_t nests_above =
    512; /* requests of 0 and of more than this come from obj and mem through raw as well */
static int hooked_once;
static PyObject *name_attribute; /* owned, for ever: "_name" */
static uint64_t checked, different;

/* What a thread knows of itself: in one place, so that one address leads to all of it. */
static __thread struct {
    int nested;      /* > 0: inside the allocator of an outer domain, whose hook counts the block */
    int in_pymalloc; /* inside obj's or mem's allocator for a small request */
    int moving;      /* in a realloc: what holds the block has the address that was freed */
    int probing;     /* asks whether our hooks are still called (see hook_missing) */
    unsigned probed; /* domains that were */
    uint32_t
        passing; /* domain through which a large request is on its way; 0: none (sampled_impl.h) */
    PyThreadState
        *own; /* its thread state, if it has held the GIL and the state was not freed since */
} me __attribute__((tls_model("initial-exec")));

/* --- the thread of an event ---------------------------------------------------------------------------------------------------- */

static PMT_NOINLINE pmt__thread *
thread_select_nopy(PyThreadState *state)
{
    pmt__thread *thread =
        pmt__thread_get_nopy(state, state->id, state->thread_id, pmt__thread_native_id());
    if (thread != NULL) {
        pmt__shadow_watch(state); /* its free must tell us: the address will be another thread's */
        pmt__t.thread = thread;
        me.own = state; /* watched_died_nopy takes it back */
    }
    return thread;
}

static PMT_NOINLINE void
foreign_count_nopy(void)
{
    if (!(__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_OFF)) {
        __atomic_fetch_add(&pmt__t.counters[PMT_COUNTER_FOREIGN], 1, __ATOMIC_RELAXED);
    }
}

/* Other interpreters may have a GIL of their own: their events must not enter. */
PMT_INLINE bool
foreign_nopy(PyThreadState *state)
{
    if (PMT_LIKELY(state == NULL || state->interp == main_interpreter)) {
        return false;
    }
    foreign_count_nopy();
    return true;
}

/* What pthread_self() says, without the call. */
PMT_INLINE unsigned long
own_ident(void)
{
#if defined(__x86_64__) && defined(__GLIBC__)
    return (unsigned long)(uintptr_t)__builtin_thread_pointer();
#else
    return (unsigned long)pthread_self();
#endif
}

/* Does this thread hold the GIL? */
PMT_INLINE bool
have_gil_nopy(void)
{
    PyThreadState *state = PMT_CURRENT_STATE();
#ifdef PMT_STATE_IS_GLOBAL
    /* That of whoever holds it. Asking for our own is a call; what was ours may have died, and another thread's may stand at its
       address. */
    if (PMT_LIKELY(state == me.own) && state != NULL
        && PMT_LIKELY(state->thread_id == own_ident())) {
        return true;
    }
    return state != NULL && state == PMT_OWN_STATE();
#else
    return state != NULL;
#endif
}

PMT_INLINE pmt__thread *
thread_of_nopy(PyThreadState *state)
{
    pmt__thread *thread = __atomic_load_n(&pmt__t.thread, __ATOMIC_RELAXED);
    if (PMT_LIKELY(thread != NULL && __atomic_load_n(&thread->state, __ATOMIC_RELAXED) == state)) {
        return thread;
    }
    return NULL;
}

PMT_INLINE bool
recording_off(void)
{
    return (__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_OFF) != 0;
}

/* Objects may be looked at: with the GIL, and while nothing points to a block that is gone. */
static bool
awaiting_may_ask(void)
{
    return !me.moving && have_gil_nopy();
}

/* --- events with the GIL ------------------------------------------------------------------------------------------------------- */

static PMT_NOINLINE void
check_stack_nopy(const void *block, const void *state, PMT_FRAME *top)
{
    const uint32_t *entry = pmt__shadow_find(block);
    if (entry == NULL || PMT_SHADOW_ID(*entry) == 0 || top == NULL) {
        return;
    }
    uint32_t have = pmt__t.sites[PMT_COHORT_SITE(&pmt__t.cohorts[PMT_SHADOW_ID(*entry)])].node;
    if (pmt__t.parents && !PMT_FRAMES_ASK()) {
        return; /* they may have been found before, or not */
    }
    uint32_t want =
        pmt__t.mixed ? pmt__mixed_naive(pmt__mixed_own(), state, top) : pmt__stack_naive(top);
    checked++;
    different += have != (want == PMT_NODE_ROOT ? PMT_NODE_NO_STACK : want);
}

/* Inside the gate; thread: of the state, or NULL if it was not the one of the last event. */
PMT_INLINE void
track_now_nopy(PyThreadState *state, pmt__thread *thread, int gate, void *block, size_t size,
               uint32_t domain)
{
    PMT_FRAME *top = NULL;
    if (PMT_LIKELY(state != NULL)) {
        if (PMT_UNLIKELY(thread == NULL || thread != pmt__t.thread)) {
            thread = thread_select_nopy(state);
        }
        if (PMT_LIKELY(thread != NULL)) {
            top = PMT_CURRENT_FRAME(state);
        }
    }
    pmt__track(block, size, domain, thread, top);
    if (PMT_UNLIKELY(gate == PMT_GATE_CHECK)) {
        check_stack_nopy(block, state, top);
    }
}

/* The name of a thread of the threading module, from the frame at the bottom of its stack, Thread._bootstrap(self): what waits
   for a flush comes too late for threads that have ended. Outside the gate, with the GIL. Looks at the object and its type and
   calls nothing of the program's. */
static PMT_NOINLINE void
thread_name_nopy(PyThreadState *state)
{
    pmt__attention_clear(PMT_ATTENTION_NAME);
    PMT_FRAME *bottom = NULL;
    for (PMT_FRAME *f = PMT_CURRENT_FRAME(state); f != NULL; f = PMT_FRAME_PREVIOUS(f)) {
        bottom = PMT_FRAME_IS_ENTRY(f) ? bottom : f;
    }
    if (bottom == NULL || name_attribute == NULL) {
        return;
    }
    const PyCodeObject *code = PMT_FRAME_CODE(bottom);
    if (code->co_argcount != 1
        || PyUnicode_CompareWithASCIIString(code->co_qualname, "Thread._bootstrap") != 0) {
        return;
    }
    PyObject *thread = PMT_FRAME_FIRST_LOCAL(bottom);
    if (thread == NULL || _PyType_Lookup(Py_TYPE(thread), name_attribute) != NULL) {
        return;
    }
    PyObject *type, *value, *traceback; /* the program may be raising */
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *name = PyObject_GenericGetAttr(thread, name_attribute);
    PyErr_Restore(type, value, traceback);
    if (name == NULL) {
        return;
    }
    if (PyUnicode_Check(name)) {
        pmt__text text = {PyUnicode_DATA(name), (size_t)PyUnicode_GET_LENGTH(name),
                          (uint8_t)PyUnicode_KIND(name)};
        pmt__record_thread_name(state->thread_id, &text);
    }
    Py_DECREF(name);
}

static PMT_NOINLINE void
event_alloc_nopy(void *block, size_t size, uint32_t domain)
{
    PyThreadState *state = PMT_CURRENT_STATE();
    pmt__thread *thread = thread_of_nopy(state);
    if (PMT_UNLIKELY(thread == NULL) && foreign_nopy(state)) {
        return;
    }
    int gate = pmt__enter_nopy();
    if (PMT_UNLIKELY(gate == PMT_GATE_CLOSED)) {
        return;
    }
    track_now_nopy(state, thread, gate, block, size, domain);
    pmt__leave_nopy();
    if (PMT_UNLIKELY(__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_NAME)
        && state != NULL) {
        thread_name_nopy(state);
    }
}

/* A block of 1 to 512 bytes. */
PMT_INLINE void
event_alloc_small_nopy(void *block, uint32_t size, uint32_t domain)
{
    PyThreadState *state = PMT_CURRENT_STATE();
    pmt__thread *thread = thread_of_nopy(state);
    if (PMT_LIKELY(thread != NULL) && PMT_LIKELY(pmt__enter_fast_nopy())) {
        PMT_FRAME *top = PMT_CURRENT_FRAME(state);
        int done = PMT_LIKELY(top != NULL) && pmt__track_fast(block, size, domain, thread, top);
        pmt__leave_nopy();
        if (PMT_LIKELY(done)) {
            return;
        }
    }
    event_alloc_nopy(block, size, domain);
}

/* A block that somebody watches dies: a code object, a thread state. The caller is inside the gate. */
static void
watched_died_nopy(const void *block)
{
    bool own = me.own == block;
    if (own) {
        me.own = NULL;
    }
    if (pmt__code_known(block)) {
        pmt__code_died_nopy(block);
    }
    bool was_a_thread_s = false;
    for (pmt__thread *t = pmt__t.threads; t != NULL; t = t->next) {
        if (__atomic_load_n(&t->state, __ATOMIC_RELAXED) == block) {
            __atomic_store_n(&t->state, NULL, __ATOMIC_RELEASE);
            t->ended = 1;
            pmt__t.threads_changed = 1;
            was_a_thread_s = true;
        }
    }
    if (was_a_thread_s && !own) { /* another thread's, which may be looking at it without the GIL */
        pmt__barrier_all();
        pmt__lanes_wait();
    }
}

/* What stood in the entry is a cohort id or 0 afterwards. Inside the gate. */
static uint32_t
entry_settle_nopy(void *block, uint32_t *entry, bool dies)
{
    if ((*entry & PMT_SHADOW_WATCHED) && dies) {
        watched_died_nopy(block);
        *entry = PMT_SHADOW_ID(*entry);
    }
    return PMT_SHADOW_ID(*entry);
}

static PMT_NOINLINE void
event_free_slow_nopy(void *block, uint32_t *entry)
{
    if (!PMT_SHADOW_IS_BLOCK(*entry)) {
        PyThreadState *state = PMT_CURRENT_STATE();
        /* what others allocate is not known */
        if ((state == NULL || state->interp == main_interpreter) && !me.probing) {
            pmt__t.counters[PMT_COUNTER_UNKNOWN_FREES]++;
        }
        return;
    }
    if (!recording_off() && PMT_UNLIKELY(pmt__lanes_owe(PMT_SHADOW_ID(*entry)))) {
        pmt__lanes_flush();
    }
    if (pmt__enter_nopy() == PMT_GATE_CLOSED) {
        return;
    }
    uint32_t id = entry_settle_nopy(block, entry, true);
    *entry = 0;
    if (id != 0) {
        pmt__untrack_id(block, id);
    }
    pmt__leave_nopy();
}

PMT_INLINE void
event_free_nopy(void *block)
{
    uint32_t *entry = pmt__shadow_find(block);
    if (PMT_UNLIKELY(entry == NULL)) {
        return;
    }
    if (PMT_LIKELY(PMT_SHADOW_IS_PLAIN(*entry)) && PMT_LIKELY(pmt__enter_fast_nopy())) {
        int done = pmt__untrack_fast(block, entry);
        pmt__leave_nopy();
        if (PMT_LIKELY(done)) {
            return;
        }
    }
    event_free_slow_nopy(block, entry);
}

/* A realloc in two steps: the old block leaves the shadow before the allocator may hand its address to others, and comes back
   if the allocator refuses. */
typedef struct taken {
    uint32_t *entry;
    uint32_t value; /* with the watch bit */
    uint64_t bytes; /* of a sizeless cohort */
} taken;

static taken
event_take_nopy(void *block)
{
    taken t = {pmt__shadow_find(block), 0, 0};
    if (t.entry == NULL || !PMT_SHADOW_IS_BLOCK(*t.entry)) {
        return t;
    }
    if (!recording_off() && PMT_UNLIKELY(pmt__lanes_owe(PMT_SHADOW_ID(*t.entry)))) {
        pmt__lanes_flush();
    }
    if (pmt__enter_nopy() == PMT_GATE_CLOSED) {
        return t;
    }
    uint32_t id = entry_settle_nopy(block, t.entry, false);
    t.value = *t.entry;
    if (id != 0 && (pmt__t.cohorts[id].size & PMT_COHORT_SIZELESS)) {
        t.bytes = pmt__shadow_size_take(block);
    }
    *t.entry = 0;
    pmt__leave_nopy();
    return t;
}

static void
event_put_back_nopy(void *block, const taken *t)
{
    if (t->value == 0) {
        return;
    }
    if (t->bytes != 0) {
        pmt__shadow_size_put(block, t->bytes);
    }
    *t->entry = t->value;
}

/* Inside the gate. */
static void
block_moved_nopy(void *old, const taken *t)
{
    uint32_t id = PMT_SHADOW_ID(t->value);
    if (t->value & PMT_SHADOW_WATCHED) {
        watched_died_nopy(old);
    }
    pmt__temporary_take(old); /* it goes on: no temporary */
    if (id != 0) {
        pmt__count_sub(id, t->bytes);
        if (PMT_UNLIKELY(pmt__t.log_on)) {
            pmt__log_free_nopy(old, id);
        }
    }
}

/* The end of the old block and the birth of the new one, between which nobody sees the tables. */
static void
event_moved_known_nopy(void *old, const taken *t, void *block, size_t size, uint32_t domain)
{
    PyThreadState *state = PMT_CURRENT_STATE();
    pmt__thread *thread = thread_of_nopy(state);
    bool foreign = thread == NULL && foreign_nopy(state);
    int gate = pmt__enter_nopy();
    if (gate == PMT_GATE_CLOSED) {
        return;
    }
    if (PMT_UNLIKELY(pmt__t.log_on) && !foreign) {
        pmt__log_pair_begin_nopy(PMT_CONTROL_REALLOC);
    }
    block_moved_nopy(old, t);
    if (!foreign) {
        track_now_nopy(state, thread, gate, block, size, domain);
        if (PMT_UNLIKELY(pmt__t.log_on)) {
            pmt__log_pair_end_nopy();
        }
    }
    pmt__leave_nopy();
}

static void
event_moved_nopy(void *old, const taken *t, void *block, size_t size, uint32_t domain)
{
    me.moving = old != NULL;
    if (t->value == 0) {
        event_alloc_nopy(block, size, domain);
    } else {
        event_moved_known_nopy(old, t, block, size, domain);
    }
    me.moving = 0;
}

/* --- the hooks of obj and mem ---------------------------------------------------------------------------------------------------- */

static PMT_NOINLINE void *
hook_malloc_nested(int python_domain, uint32_t domain, size_t size)
{
    const PyMemAllocatorEx *to = &original[python_domain];
    if (PMT_UNLIKELY(me.probing)) {
        me.probed |= 1u << python_domain;
        return to->malloc(to->ctx, size);
    }
    me.nested++;
    void *block = to->malloc(to->ctx, size);
    me.nested--;
    if (block != NULL) {
        event_alloc_nopy(block, size, domain);
    }
    return block;
}

PMT_INLINE void *
hook_malloc(int python_domain, uint32_t domain, size_t size)
{
    if (PMT_UNLIKELY(size - 1 >= nests_above)) { /* 0 as well */
        return hook_malloc_nested(python_domain, domain, size);
    }
    const PyMemAllocatorEx *to = &original[python_domain];
    me.in_pymalloc = 1;
    void *block = to->malloc(to->ctx, size);
    me.in_pymalloc = 0;
    if (PMT_LIKELY(block != NULL)) {
        event_alloc_small_nopy(block, (uint32_t)size, domain);
    }
    return block;
}

PMT_INLINE void *
hook_calloc(int python_domain, uint32_t domain, size_t count, size_t size)
{
    const PyMemAllocatorEx *to = &original[python_domain];
    me.nested++;
    void *block = to->calloc(to->ctx, count, size);
    me.nested--;
    if (PMT_LIKELY(block != NULL)) {
        event_alloc_nopy(block, count * size, domain);
    }
    return block;
}

static PMT_NOINLINE void *
hook_realloc(const PyMemAllocatorEx *to, uint32_t domain, void *old, size_t size)
{
    taken t = {NULL, 0, 0};
    if (old != NULL) {
        t = event_take_nopy(old);
    }
    me.nested++;
    void *block = to->realloc(to->ctx, old, size);
    me.nested--;
    if (PMT_UNLIKELY(block == NULL)) {
        event_put_back_nopy(old, &t);
        return NULL;
    }
    event_moved_nopy(old, &t, block, size, domain);
    return block;
}

PMT_INLINE void
hook_free(int python_domain, void *block)
{
    const PyMemAllocatorEx *to = &original[python_domain];
    if (PMT_LIKELY(block != NULL)) {
        event_free_nopy(block);
    }
    /* A free nests too (large blocks), but the block has left the shadow: the raw hook finds nothing. */
    to->free(to->ctx, block);
}

#define HOOKS(name, python_domain, domain)                                \
    static void *name##_malloc(void *ctx, size_t size)                    \
    {                                                                     \
        (void)ctx;                                                        \
        return hook_malloc(python_domain, domain, size);                  \
    }                                                                     \
    static void *name##_calloc(void *ctx, size_t count, size_t size)      \
    {                                                                     \
        (void)ctx;                                                        \
        return hook_calloc(python_domain, domain, count, size);           \
    }                                                                     \
    static void *name##_realloc(void *ctx, void *old, size_t size)        \
    {                                                                     \
        (void)ctx;                                                        \
        return hook_realloc(&original[python_domain], domain, old, size); \
    }                                                                     \
    static void name##_free(void *ctx, void *block)                       \
    {                                                                     \
        (void)ctx;                                                        \
        hook_free(python_domain, block);                                  \
    }
HOOKS(obj, PYMEM_DOMAIN_OBJ, PMT_DOMAIN_OBJ)
HOOKS(mem, PYMEM_DOMAIN_MEM, PMT_DOMAIN_MEM)

/* The same where tracemalloc is between two of ours (see "where the hooks go"): the outer one counts, what passes it on the
   way is nested. When tracemalloc stops, the inner one is left, and counts. */
PMT_INLINE bool
guarded_passes(int python_domain)
{
    if (PMT_UNLIKELY(me.probing)) {
        me.probed |= 1u << python_domain;
        return true;
    }
    return me.nested != 0;
}

#define GUARDED_HOOKS(name, table, python_domain, domain)                           \
    static void *name##_malloc(void *ctx, size_t size)                              \
    {                                                                               \
        (void)ctx;                                                                  \
        const PyMemAllocatorEx *to = &table[python_domain];                         \
        if (guarded_passes(python_domain)) {                                        \
            return to->malloc(to->ctx, size);                                       \
        }                                                                           \
        me.nested++;                                                                \
        void *block = to->malloc(to->ctx, size);                                    \
        me.nested--;                                                                \
        if (block != NULL) {                                                        \
            event_alloc_nopy(block, size, domain);                                  \
        }                                                                           \
        return block;                                                               \
    }                                                                               \
    static void *name##_calloc(void *ctx, size_t count, size_t size)                \
    {                                                                               \
        (void)ctx;                                                                  \
        const PyMemAllocatorEx *to = &table[python_domain];                         \
        if (guarded_passes(python_domain)) {                                        \
            return to->calloc(to->ctx, count, size);                                \
        }                                                                           \
        me.nested++;                                                                \
        void *block = to->calloc(to->ctx, count, size);                             \
        me.nested--;                                                                \
        if (block != NULL) {                                                        \
            event_alloc_nopy(block, count *size, domain);                           \
        }                                                                           \
        return block;                                                               \
    }                                                                               \
    static void *name##_realloc(void *ctx, void *old, size_t size)                  \
    {                                                                               \
        (void)ctx;                                                                  \
        const PyMemAllocatorEx *to = &table[python_domain];                         \
        return guarded_passes(python_domain) ? to->realloc(to->ctx, old, size)      \
                                             : hook_realloc(to, domain, old, size); \
    }                                                                               \
    static void name##_free(void *ctx, void *block)                                 \
    {                                                                               \
        (void)ctx;                                                                  \
        const PyMemAllocatorEx *to = &table[python_domain];                         \
        if (block != NULL && !guarded_passes(python_domain)) {                      \
            event_free_nopy(block);                                                 \
        }                                                                           \
        me.nested++;                                                                \
        to->free(to->ctx, block);                                                   \
        me.nested--;                                                                \
    }
GUARDED_HOOKS(inner_obj, original, PYMEM_DOMAIN_OBJ, PMT_DOMAIN_OBJ)
GUARDED_HOOKS(inner_mem, original, PYMEM_DOMAIN_MEM, PMT_DOMAIN_MEM)
GUARDED_HOOKS(outer_obj, over, PYMEM_DOMAIN_OBJ, PMT_DOMAIN_OBJ)
GUARDED_HOOKS(outer_mem, over, PYMEM_DOMAIN_MEM, PMT_DOMAIN_MEM)

/* --- the hooks of raw: with or without the GIL ---------------------------------------------------------------------------------- */

/* What comes through raw on its way from obj or mem is counted there, and what pymalloc takes for its own tables in the middle of an
   allocation is nobody's line (tracemalloc leaves it out as well). A block that stands in the shadow is raw's own in any case. */
PMT_INLINE bool
raw_passes(const void *old)
{
    if (recording_off()) {
        return true;
    }
    if (PMT_LIKELY((me.nested | me.in_pymalloc) == 0)) {
        return false;
    }
    const uint32_t *entry = old == NULL ? NULL : pmt__shadow_find(old);
    return entry == NULL || !PMT_SHADOW_IS_BLOCK(__atomic_load_n(entry, __ATOMIC_RELAXED));
}

/* Where a thread without the GIL stands: its frames do not move, it is in a C call. It is inside its lane, or holds the tables. */
PMT_INLINE void
own_frames_nopy(const pmt__lane *lane, pmt__outside_event *e)
{
    PyThreadState *state = me.own;
    if (state != NULL && pmt__lane_state_is_alive(lane, state)) {
        e->state = state;
        e->top = PMT_CURRENT_FRAME(state);
    }
}

/* What only the tables want to know. As above. */
PMT_INLINE void
own_names_nopy(pmt__outside_event *e)
{
    const PyThreadState *state = e->state;
    if (state != NULL) {
        e->state_id = state->id;
        e->ident = state->thread_id;
    }
}

static PMT_NOINLINE void
raw_alloc_without_gil_nopy(void *block, size_t size, uint32_t domain)
{
    pmt__lane *lane = pmt__lane_own();
    if (lane == NULL || !pmt__lane_enter_nopy(lane)) {
        return;
    }
    pmt__outside_event e = {block, size, domain, NULL, 0, 0, NULL};
    own_frames_nopy(lane, &e);
    int done = pmt__lane_alloc_fast(lane, &e);
    if (PMT_UNLIKELY(!done)) {
        own_names_nopy(&e);
    }
    pmt__lane_leave_nopy(lane);
    if (PMT_UNLIKELY(!done)) {
        pmt__lane_alloc_slow(lane, &e);
    }
}

PMT_INLINE void
raw_event_alloc_nopy(void *block, size_t size, uint32_t domain)
{
    if (!have_gil_nopy()) {
        raw_alloc_without_gil_nopy(block, size, domain);
    } else if (size - 1 < PMT_SIZE_EXACT_MAX) {
        event_alloc_small_nopy(block, (uint32_t)size, domain);
    } else {
        event_alloc_nopy(block, size, domain);
    }
}

static PMT_NOINLINE void
raw_free_without_gil_nopy(void *block, uint32_t *entry)
{
    if (PMT_UNLIKELY(__atomic_load_n(entry, __ATOMIC_RELAXED) & PMT_SHADOW_WATCHED)) {
        if (pmt__tables_acquire_event() < 0) {
            return;
        }
        if (!recording_off()) {
            entry_settle_nopy(block, entry, true);
        }
        pmt__tables_release();
    }
    pmt__outside_free(block, entry);
}

static void
raw_event_free_nopy(void *block)
{
    uint32_t *entry = pmt__shadow_find(block);
    if (entry == NULL || !PMT_SHADOW_IS_BLOCK(__atomic_load_n(entry, __ATOMIC_RELAXED))) {
        return; /* the inside of a block: a debug allocator's header stands before it */
    }
    /* Another interpreter may free what the main one has allocated: with a GIL of its own it is a thread like any other. */
    if (have_gil_nopy() && !foreign_nopy(PMT_CURRENT_STATE())) {
        event_free_nopy(block);
    } else {
        raw_free_without_gil_nopy(block, entry);
    }
}

PMT_INLINE void *
hook_raw_malloc(const PyMemAllocatorEx *to, size_t size)
{
    if (PMT_UNLIKELY(me.probing)) {
        me.probed |= 1u << PYMEM_DOMAIN_RAW;
        return to->malloc(to->ctx, size);
    }
    me.nested++;
    void *block = to->malloc(to->ctx, size);
    me.nested--;
    if (PMT_LIKELY(block != NULL) && !raw_passes(NULL)) {
        raw_event_alloc_nopy(block, size, PMT_DOMAIN_RAW);
    }
    return block;
}

PMT_INLINE void *
hook_raw_calloc(const PyMemAllocatorEx *to, size_t count, size_t size)
{
    me.nested++;
    void *block = to->calloc(to->ctx, count, size);
    me.nested--;
    if (PMT_LIKELY(block != NULL) && !raw_passes(NULL)) {
        raw_event_alloc_nopy(block, count * size, PMT_DOMAIN_RAW);
    }
    return block;
}

PMT_INLINE void *
hook_raw_realloc(const PyMemAllocatorEx *to, uint32_t domain, void *old, size_t size)
{
    if (raw_passes(old)) {
        return to->realloc(to->ctx, old, size);
    }
    if (have_gil_nopy() && !foreign_nopy(PMT_CURRENT_STATE())) {
        return hook_realloc(to, domain, old, size);
    }
    /* Without the GIL: the old block is given up first. If the allocator refuses, it is noted again as new. */
    uint64_t old_size = 0;
    bool known = false;
    if (old != NULL) {
        uint32_t *entry = pmt__shadow_find(old);
        known = entry != NULL && PMT_SHADOW_IS_BLOCK(__atomic_load_n(entry, __ATOMIC_RELAXED));
        if (known) {
            old_size = pmt__shadow_size_get(old);
            raw_event_free_nopy(old);
        }
    }
    me.nested++;
    void *block = to->realloc(to->ctx, old, size);
    me.nested--;
    if (block != NULL) {
        raw_event_alloc_nopy(block, size, domain);
    } else if (known) {
        raw_event_alloc_nopy(old, old_size, domain);
    }
    return block;
}

PMT_INLINE void
hook_raw_free(const PyMemAllocatorEx *to, void *block)
{
    if (PMT_LIKELY(block != NULL)
        && !recording_off()) { /* nested or not: who has an entry is known */
        raw_event_free_nopy(block);
    }
    me.nested++;
    to->free(to->ctx, block);
    me.nested--;
}

#define RAW_HOOKS(name, table)                                                        \
    static void *name##_malloc(void *ctx, size_t size)                                \
    {                                                                                 \
        (void)ctx;                                                                    \
        return hook_raw_malloc(&table[PYMEM_DOMAIN_RAW], size);                       \
    }                                                                                 \
    static void *name##_calloc(void *ctx, size_t count, size_t size)                  \
    {                                                                                 \
        (void)ctx;                                                                    \
        return hook_raw_calloc(&table[PYMEM_DOMAIN_RAW], count, size);                \
    }                                                                                 \
    static void *name##_realloc(void *ctx, void *old, size_t size)                    \
    {                                                                                 \
        (void)ctx;                                                                    \
        return hook_raw_realloc(&table[PYMEM_DOMAIN_RAW], PMT_DOMAIN_RAW, old, size); \
    }                                                                                 \
    static void name##_free(void *ctx, void *block)                                   \
    {                                                                                 \
        (void)ctx;                                                                    \
        hook_raw_free(&table[PYMEM_DOMAIN_RAW], block);                               \
    }
RAW_HOOKS(raw, original)
RAW_HOOKS(outer_raw, over)

/* Below tracemalloc: while it traces, what comes here without our outer hook is its own bookkeeping. */
static void *
inner_raw_malloc(void *ctx, size_t size)
{
    int quiet = PMT_TRACEMALLOC_TRACES();
    me.nested += quiet;
    void *block = raw_malloc(ctx, size);
    me.nested -= quiet;
    return block;
}

static void *
inner_raw_calloc(void *ctx, size_t count, size_t size)
{
    int quiet = PMT_TRACEMALLOC_TRACES();
    me.nested += quiet;
    void *block = raw_calloc(ctx, count, size);
    me.nested -= quiet;
    return block;
}

static void *
inner_raw_realloc(void *ctx, void *old, size_t size)
{
    int quiet = PMT_TRACEMALLOC_TRACES();
    me.nested += quiet;
    void *block = raw_realloc(ctx, old, size);
    me.nested -= quiet;
    return block;
}

/* --- the C library's allocator (native_table.h) -------------------------------------------------------------------------------------

   What comes from one of Python's allocators is counted there. What passes while this thread is inside the recorder (starting a
   thread allocates) or forks (other libraries' handlers allocate) is not counted. */

PMT_INLINE bool
native_passes(void)
{
    return recording_off() || (me.nested | me.in_pymalloc) != 0 || pmt__lanes_closed;
}

/* With the GIL and inside the gate: an allocation in the middle of another event. */
PMT_INLINE bool
native_recurses(void)
{
    return __atomic_load_n(&pmt__t.busy, __ATOMIC_RELAXED) && have_gil_nopy();
}

static void
native_allocated(void *block, size_t size)
{
    if (!native_passes() && !native_recurses()) {
        raw_event_alloc_nopy(block, size, PMT_DOMAIN_MALLOC);
    }
}

static void
native_freeing(void *block)
{
    if (recording_off()) { /* there may be no shadow yet */
        return;
    }
    const uint32_t *entry = pmt__shadow_find(block);
    if (entry != NULL && PMT_SHADOW_IS_BLOCK(__atomic_load_n(entry, __ATOMIC_RELAXED))
        && !pmt__lanes_closed && !native_recurses()) {
        raw_event_free_nopy(block);
    }
}

static void *
native_call(void *real, void *old, size_t size)
{
    void *(*function)(void *, size_t);
    memcpy(&function, &real, sizeof function);
    return function(old, size);
}

static void *
native_reallocate(void *(*real)(void *, size_t), void *old, size_t size)
{
    PyMemAllocatorEx to = {.realloc = native_call};
    memcpy(&to.ctx, &real, sizeof real);
    if (pmt__lanes_closed || native_recurses()) {
        return real(old, size);
    }
    return hook_raw_realloc(&to, PMT_DOMAIN_MALLOC, old, size);
}

/* The cohort for a mapping, with the tables held by the GIL's holder (inside the gate) or by a lane's thread. */
static void
native_mapped(void *start, size_t size)
{
    if (native_passes() || native_recurses()) {
        return;
    }
    if (have_gil_nopy()) {
        PyThreadState *state = PMT_CURRENT_STATE();
        pmt__thread *thread = thread_of_nopy(state);
        if ((thread == NULL && foreign_nopy(state)) || pmt__enter_nopy() == PMT_GATE_CLOSED) {
            return;
        }
        if (thread == NULL) {
            thread = thread_select_nopy(state);
        }
        PMT_FRAME *top = thread == NULL ? NULL : PMT_CURRENT_FRAME(state);
        if (pmt__sampling_now.on) { /* mappings are few: all of them */
            pmt__threads_drop_caches_nopy();
        }
        pmt__range_map(start, size, pmt__cohort_now(thread, top, size, PMT_DOMAIN_MMAP));
        pmt__leave_nopy();
        return;
    }
    pmt__lane *lane = pmt__lane_own();
    if (lane == NULL) {
        return;
    }
    if (pmt__tables_acquire_event() < 0) {
        return;
    }
    if (!recording_off()) {
        pmt__outside_event e = {start, size, PMT_DOMAIN_MMAP, NULL, 0, 0, NULL};
        own_frames_nopy(lane, &e);
        own_names_nopy(&e);
        if (pmt__sampling_now.on) {
            pmt__threads_drop_caches_nopy();
        }
        pmt__range_map(start, size, pmt__lane_cohort_nopy(lane, &e));
    }
    pmt__tables_release();
}

static void
native_unmapping(void *start, size_t size)
{
    if (recording_off() || pmt__lanes_closed || native_recurses()) {
        return;
    }
    uint32_t cohort;
    if (have_gil_nopy()) {
        if (pmt__enter_nopy() != PMT_GATE_CLOSED) {
            pmt__ranges_remove_nopy((uintptr_t)start, size, &cohort);
            pmt__leave_nopy();
        }
        return;
    }
    if (pmt__tables_acquire_event() < 0) {
        return;
    }
    if (!recording_off()) {
        pmt__ranges_remove_nopy((uintptr_t)start, size, &cohort);
    }
    pmt__tables_release();
}

/* The end of the old mapping and the birth of a new one, if the old one was known. */
static void
native_remapped(void *old, size_t old_size, void *start, size_t size)
{
    if (recording_off() || pmt__lanes_closed || native_recurses()) {
        return;
    }
    uint32_t cohort;
    if (pmt__tables_acquire_event() < 0) {
        return;
    }
    uint64_t known =
        recording_off() ? 0 : pmt__ranges_remove_nopy((uintptr_t)old, old_size, &cohort);
    pmt__tables_release();
    if (known != 0) {
        me.moving = 1;
        native_mapped(start, size);
        me.moving = 0;
    }
}

static void
native_unloaded(void)
{
    if (recording_off() || !pmt__natives_now.on || native_recurses()
        || pmt__tables_acquire_event() < 0) {
        return;
    }
    pmt__natives_forget_nopy();
    pmt__tables_release();
}

static const pmt__native_table native_table = {
    .version = PMT_NATIVE_TABLE_VERSION,
    .allocated = native_allocated,
    .freeing = native_freeing,
    .reallocate = native_reallocate,
    .mapped = native_mapped,
    .unmapping = native_unmapping,
    .remapped = native_remapped,
    .unloaded = native_unloaded,
};

const pmt__native_table *
pmt__cpython_native_table(void)
{
    return &native_table;
}

#include "cpython/sampled_impl.h"

/* --- memory of frames --------------------------------------------------------------------------------------------------------------- */

/* Data stack chunks come from here; cached frames in one must not be looked at once it is gone. */
static void
arena_free(void *ctx, void *arena, size_t size)
{
    (void)ctx;
    PyThreadState *state = PMT_CURRENT_STATE();
    bool foreign =
        state != NULL && state->interp != main_interpreter; /* its frames are not cached */
    for (pmt__thread *t = pmt__t.threads; t != NULL && !foreign; t = t->next) {
        t->depth = 0;
        t->top = NULL;
    }
    pmt__pages_note(arena, size, PMT_PAGES_UNKNOWN);
    original_arena.free(original_arena.ctx, arena, size);
}

/* --- objects from free lists: the reference tracer (3.13+) -------------------------------------------------------------------------- */

#if PY_VERSION_HEX >= 0x030D0000
static PyRefTracer previous_tracer;
static void *previous_tracer_data;

/* The block starts before the object: gc header, dict and weakref slots. */
PMT_INLINE void *
block_of(PyObject *object)
{
    unsigned long flags = Py_TYPE(object)->tp_flags;
    char *block = (char *)object;
    if (flags & Py_TPFLAGS_HAVE_GC) {
        block -= 2 * sizeof(uintptr_t);
    }
    if (flags & Py_TPFLAGS_PREHEADER) {
        block -= 2 * sizeof(PyObject *);
    }
    return block;
}

static PMT_NOINLINE void
object_created_nopy(void *block)
{
    PyThreadState *state = PMT_CURRENT_STATE();
    if (state == NULL || foreign_nopy(state)) {
        return;
    }
    uint32_t *entry = pmt__shadow_find(block);
    if (entry == NULL || !PMT_SHADOW_IS_PLAIN(*entry) || pmt__enter_nopy() == PMT_GATE_CLOSED) {
        return;
    }
    pmt__thread *thread = thread_of_nopy(state);
    if (thread == NULL) {
        thread = thread_select_nopy(state);
    }
    uint32_t id = *entry;
    PMT_FRAME *top = PMT_CURRENT_FRAME(state);
    if (thread != NULL && top != NULL) {
        const pmt__cohort *cohort = &pmt__t.cohorts[id];
        uint32_t domain = pmt__t.sites[PMT_COHORT_SITE(cohort)].thread >> PMT_THREAD_BITS;
        uint64_t large = 0;
        uint64_t bytes = cohort->size;
        if (cohort->size & PMT_COHORT_SIZELESS) {
            large = pmt__shadow_size_get(block);
            bytes = large;
        }
        uint32_t now = pmt__cohort_now(thread, top, bytes, domain);
        if (now != id && now != 0) {
            *entry = now;
            pmt__count_move(id, now, large);
            if (PMT_UNLIKELY(pmt__t.log_on)) {
                pmt__log_pair_begin_nopy(PMT_CONTROL_REATTRIBUTED);
                pmt__log_free_nopy(block, id);
                pmt__log_alloc_nopy(block, now, bytes);
                pmt__log_pair_end_nopy();
            }
            pmt__t.counters[PMT_COUNTER_REATTRIBUTED]++;
        }
        pmt__temporary_put(thread, block);
        thread->fresh = NULL;
    }
    pmt__leave_nopy();
}

static int
ref_tracer(PyObject *object, PyRefTracerEvent event, void *data)
{
    (void)data;
    if (event == PyRefTracer_CREATE) {
        pmt__thread *thread = pmt__t.thread;
        void *block = block_of(object);
        if (PMT_LIKELY(thread != NULL && block == thread->fresh)) {
            thread->fresh = NULL; /* its block was made for it */
        } else {
            object_created_nopy(block); /* from a free list, or resized */
        }
    }
    return PMT_UNLIKELY(previous_tracer != NULL)
               ? previous_tracer(object, event, previous_tracer_data)
               : 0;
}

static void
tracer_install(void)
{
    void *data;
    PyRefTracer now = PyRefTracer_GetTracer(&data);
    if (now != ref_tracer) {
        previous_tracer = now;
        previous_tracer_data = data;
        PyRefTracer_SetTracer(ref_tracer, NULL);
    }
}

static void
tracer_uninstall(void)
{
    void *data;
    if (PyRefTracer_GetTracer(&data) == ref_tracer) {
        PyRefTracer_SetTracer(previous_tracer, previous_tracer_data);
        previous_tracer = NULL;
    }
}
#else
static void
tracer_install(void)
{
}

static void
tracer_uninstall(void)
{
}
#endif

/* --- the frame source ---------------------------------------------------------------------------------------------------------------- */

static pmt__text
text_of_nopy(PyObject *unicode)
{
    if (unicode == NULL || !PyUnicode_Check(unicode)) {
        return (pmt__text){"?", 1, 1};
    }
    return (pmt__text){PyUnicode_DATA(unicode), (size_t)PyUnicode_GET_LENGTH(unicode),
                       (uint8_t)PyUnicode_KIND(unicode)};
}

static void
code_describe_nopy(const void *object, pmt__code_facts *facts)
{
    const PyCodeObject *code = object;
    facts->start = (uint64_t)(uintptr_t)code->co_code_adaptive;
    facts->size = (uint32_t)((size_t)Py_SIZE(code) * sizeof(_Py_CODEUNIT));
    facts->traceable = (uint32_t)((size_t)code->_co_firsttraceable * sizeof(_Py_CODEUNIT));
    facts->first_line = code->co_firstlineno;
    facts->file = text_of_nopy(code->co_filename);
    facts->name = text_of_nopy(code->co_qualname);
    facts->line_table = (const uint8_t *)PyBytes_AS_STRING(code->co_linetable);
    facts->line_table_size = (size_t)PyBytes_GET_SIZE(code->co_linetable);
}

static void
gc_counts_nopy(uint64_t counts[3])
{
    for (int generation = 0; generation < 3; generation++) {
        counts[generation] = (uint64_t)PMT_GC_COLLECTIONS(main_interpreter, generation);
    }
}

static const pmt__frame_source frame_source = {code_describe_nopy, gc_counts_nopy};

const pmt__frame_source *
pmt__cpython_source(void)
{
    return &frame_source;
}

/* --- self-test, installation ------------------------------------------------------------------------------------------------------------ */

/* This thread's state; where it runs no code in Python, that of one that does, if there is any. */
static PyThreadState *
state_with_frames(PyThreadState *state)
{
    PyThreadState *it = PyInterpreterState_ThreadHead(PyThreadState_GetInterpreter(state));
    PyFrameObject *frame = PyThreadState_GetFrame(state);
    while (frame == NULL && it != NULL) {
        state = it;
        frame = PyThreadState_GetFrame(state);
        it = PyThreadState_Next(it);
    }
    Py_XDECREF(frame);
    return state;
}

/* One that has not come to its first instruction that may be traced: the public interface passes over it. */
static int
frame_is_new(const PMT_FRAME *f)
{
    const PyCodeObject *code = PMT_FRAME_CODE(f);
    const uint64_t first = (uint64_t)(uintptr_t)code->co_code_adaptive
                           + (uint64_t)code->_co_firsttraceable * sizeof(_Py_CODEUNIT);
    return !PMT_FRAME_IN_HEAP(f) && PMT_FRAME_INSTR(f) < first;
}

/* The running frame, read by our macros, must be what the interpreter says through its public interface. */
static int
layout_test(pmt_error *err)
{
    PyThreadState *state = PyThreadState_Get();
    if (PMT_STATE_PREPARE(state) < 0) {
        return pmt__error_set(err, PMT_ERR_UNSUPPORTED,
                              "the current thread state cannot be found on this build of Python");
    }
    if (PMT_CURRENT_STATE() != state) {
        return pmt__error_set(
            err, PMT_ERR_UNSUPPORTED,
            "the current thread state is not where this build of Python keeps it");
    }
    state = state_with_frames(state);
    PyFrameObject *public = PyThreadState_GetFrame(state);
    PMT_FRAME *f = PMT_CURRENT_FRAME(state);
    int rc = 0;
    for (int depth = 0; public != NULL && rc == 0; depth++) {
        while (f != NULL && (PMT_FRAME_IS_ENTRY(f) || frame_is_new(f))) {
            f = PMT_FRAME_PREVIOUS(f);
        }
        PyCodeObject *code = PyFrame_GetCode(public);
        int lasti = PyFrame_GetLasti(public);
        const int same = f != NULL && PMT_FRAME_CODE(f) == (const void *)code;
        if (!same
            || (depth > 0
                && (int64_t)(PMT_FRAME_INSTR(f) - (uint64_t)(uintptr_t)code->co_code_adaptive)
                       != lasti)) {
            rc = pmt__error_set(err, PMT_ERR_UNSUPPORTED,
                                "frame %d of the running stack (its %s) does not look as in the "
                                "Python this was built for",
                                depth, same ? "instruction" : "code");
        }
        Py_DECREF(code);
        PyFrameObject *back = PyFrame_GetBack(public);
        Py_DECREF(public);
        public = back;
        f = f == NULL ? NULL : PMT_FRAME_PREVIOUS(f);
    }
    Py_XDECREF(public);
    return rc;
}

int
pmt__cpython_check(pmt_error *err)
{
    unsigned long running = Py_Version;
    if ((running >> 16) != (PY_VERSION_HEX >> 16)) {
        return pmt__error_set(
            err, PMT_ERR_UNSUPPORTED,
            "built for Python %d.%d, running in %lu.%lu: reinstall for this Python",
            PY_MAJOR_VERSION, PY_MINOR_VERSION, running >> 24 & 0xff, running >> 16 & 0xff);
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        return pmt__error_set(err, PMT_ERR_UNSUPPORTED,
                              "recording starts from the main interpreter only");
    }
    return layout_test(err);
}

const char *
pmt__cpython_allocator_name(void)
{
    return _PyMem_GetCurrentAllocatorName() != NULL ? _PyMem_GetCurrentAllocatorName() : "unknown";
}

/* --- where the hooks go ------------------------------------------------------------------------

   On top of the allocators that are there. With one addition: when tracemalloc stops, it puts back what it found when it
   started, and hooks that were put on top of it meanwhile vanish. What it found stands in a struct that its hooks have as
   context: a second set of ours goes in there, below it, and is quiet until then.

   Hooks keep the context of what they replace, which they do not need: a thread without the GIL may be between reading a
   function and its context. */

static bool
in_interpreter(const void *address)
{
    Dl_info here, interpreter;
    return dladdr(address, &here) != 0
           && dladdr((const void *)(uintptr_t)&PyMem_RawMalloc, &interpreter) != 0
           && here.dli_fbase == interpreter.dli_fbase;
}

/* What tracemalloc's hook calls, or NULL if that is not the hook. Of the interpreter's own hooks, two have a context: this one and the
   debug hooks, whose context starts with a letter. */
static PyMemAllocatorEx *
below_tracemalloc(const PyMemAllocatorEx *hook)
{
    PyMemAllocatorEx *inner = hook->ctx;
    if (inner == NULL || ((uintptr_t)inner & (sizeof(void *) - 1)) != 0 || !in_interpreter(inner)
        || !in_interpreter((const void *)(uintptr_t)hook->malloc)) {
        return NULL;
    }
    bool letter = inner->ctx != NULL && (uintptr_t)inner->ctx < 4096;
    bool whole = inner->malloc != NULL && inner->calloc != NULL && inner->realloc != NULL
                 && inner->free != NULL;
    return letter || !whole ? NULL : inner;
}

enum {
    PLAIN, /* on top */
    INNER, /* below tracemalloc */
    OUTER, /* above tracemalloc */
    KINDS
};

#define FUNCTIONS(name) {NULL, name##_malloc, name##_calloc, name##_realloc, name##_free}
static const PyMemAllocatorEx hooks[KINDS][3] = {
    [PLAIN] = {[PYMEM_DOMAIN_RAW] = FUNCTIONS(raw),
               [PYMEM_DOMAIN_MEM] = FUNCTIONS(mem),
               [PYMEM_DOMAIN_OBJ] = FUNCTIONS(obj)},
    [INNER] = {[PYMEM_DOMAIN_RAW] = {NULL, inner_raw_malloc, inner_raw_calloc, inner_raw_realloc,
                                     raw_free},
               [PYMEM_DOMAIN_MEM] = FUNCTIONS(inner_mem),
               [PYMEM_DOMAIN_OBJ] = FUNCTIONS(inner_obj)},
    [OUTER] = {[PYMEM_DOMAIN_RAW] = FUNCTIONS(outer_raw),
               [PYMEM_DOMAIN_MEM] = FUNCTIONS(outer_mem),
               [PYMEM_DOMAIN_OBJ] = FUNCTIONS(outer_obj)},
};

static void
functions_set(PyMemAllocatorEx *place, const PyMemAllocatorEx *functions)
{
    __atomic_store_n(&place->free, functions->free, __ATOMIC_RELEASE);
    __atomic_store_n(&place->realloc, functions->realloc, __ATOMIC_RELEASE);
    __atomic_store_n(&place->calloc, functions->calloc, __ATOMIC_RELEASE);
    __atomic_store_n(&place->malloc, functions->malloc, __ATOMIC_RELEASE);
}

static void
hook(PyMemAllocatorDomain domain)
{
    PyMemAllocatorEx top;
    PyMem_GetAllocator(domain, &top);
    PyMemAllocatorEx *below = below_tracemalloc(&top);
    int kind = below == NULL ? PLAIN : OUTER;
    if (below == NULL) {
        original[domain] = top;
    } else {
        over[domain] = top;
        original[domain] = *below;
        functions_set(below, &hooks[INNER][domain]);
    }
    PyMemAllocatorEx ours = hooks[kind][domain];
    ours.ctx = top.ctx;
    PyMem_SetAllocator(domain, &ours);
}

static bool
is_ours(PyMemAllocatorDomain domain, const PyMemAllocatorEx *allocator)
{
    return allocator->malloc == hooks[PLAIN][domain].malloc
           || allocator->malloc == hooks[INNER][domain].malloc;
}

/* What somebody else has wrapped stays and passes everything on. */
static void
unhook(PyMemAllocatorDomain domain)
{
    PyMemAllocatorEx top;
    PyMem_GetAllocator(domain, &top);
    if (top.malloc == hooks[OUTER][domain].malloc) {
        top = over[domain];
        PyMem_SetAllocator(domain, &top);
    }
    PyMemAllocatorEx *below = below_tracemalloc(&top);
    if (below != NULL && is_ours(domain, below)) {
        functions_set(below, &original[domain]);
    } else if (is_ours(domain, &top)) {
        PyMem_SetAllocator(domain, &original[domain]);
    }
}

/* Do requests still come to our hook, whoever may stand above it? */
static bool
hook_missing(PyMemAllocatorDomain domain)
{
    enum {
        SIZE = 1 << 16 /* the way of large requests looks whether somebody asks */
    };
    me.probing = 1;
    me.probed = 0;
    me.nested++; /* nor is it a malloc of the program's */
    switch (domain) {
    case PYMEM_DOMAIN_RAW:
        PyMem_RawFree(PyMem_RawMalloc(SIZE));
        break;
    case PYMEM_DOMAIN_MEM:
        PyMem_Free(PyMem_Malloc(SIZE));
        break;
    default:
        PyObject_Free(PyObject_Malloc(SIZE));
        break;
    }
    me.nested--;
    me.probing = 0;
    return !(me.probed & 1u << domain);
}

static volatile size_t probe_seen;
static PyMemAllocatorEx probe_below;

static void *
probe_malloc(void *ctx, size_t size)
{
    probe_seen++;
    return probe_below.malloc(ctx, size);
}

/* From which size on does obj come through raw? 512 in release builds; less with debug hooks, which add to the request. */
static void
probe_nesting(void)
{
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &probe_below);
    PyMemAllocatorEx probe = probe_below;
    probe.malloc = probe_malloc;
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &probe);
    nests_above = 0;
    for (size_t size = 512; size > 0; size /= 2) {
        size_t before = probe_seen;
        PyObject_Free(PyObject_Malloc(size));
        if (probe_seen == before) {
            nests_above = size;
            break;
        }
    }
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &probe_below);
}

static void *
arena_alloc(void *ctx, size_t size)
{
    (void)ctx;
    me.nested++; /* an arena of pymalloc, or frames: no mapping of the program's */
    void *arena = original_arena.alloc(original_arena.ctx, size);
    me.nested--;
    if (arena != NULL) { /* arenas have 1 MiB, or more of them where pages are huge */
        pmt__pages_note(arena, size,
                        size % ((size_t)1 << 20) == 0 ? PMT_PAGES_ARENA : PMT_PAGES_FRAMES);
    }
    return arena;
}

static void
arena_hook(void)
{
    PyObject_GetArenaAllocator(&original_arena);
    PyObjectArenaAllocator arena = original_arena;
    arena.alloc = arena_alloc;
    arena.free = arena_free;
    PyObject_SetArenaAllocator(&arena);
}

int
pmt__cpython_install(int native, pmt_error *err)
{
    int rc = pmt__cpython_check(err);
    if (rc < 0) {
        return rc;
    }
    main_interpreter = PyInterpreterState_Main();
    pmt__t.marking = PMT_FRAMES_MARKING();
    if (!hooked_once) {
        name_attribute = PyUnicode_InternFromString("_name");
        PyErr_Clear();
        awaiting_prepare();
        probe_nesting();
        arena_hook();
        hooked_once = 1;
    }
    if (pmt__sampling_now.on) {
        sampled_install(native, hooks[PLAIN][PYMEM_DOMAIN_RAW].malloc);
        return 0;
    }
    for (int domain = 0; domain < 3; domain++) {
        if (hook_missing((PyMemAllocatorDomain)domain)) {
            hook((PyMemAllocatorDomain)domain);
        }
    }
    tracer_install();
    return 0;
}

static PMT_FRAME *
frame_or_caller(PMT_FRAME *f)
{
    while (f != NULL && PMT_FRAME_IS_ENTRY(f)) {
        f = PMT_FRAME_PREVIOUS(f);
    }
    return f;
}

const void *
pmt__cpython_frame_now(void)
{
    PyThreadState *state = PMT_CURRENT_STATE();
    return state == NULL ? NULL : frame_or_caller(PMT_CURRENT_FRAME(state));
}

int
pmt__cpython_is_called_by(const void *frame)
{
    PyThreadState *state = PMT_CURRENT_STATE();
    PMT_FRAME *f = state == NULL ? NULL : frame_or_caller(PMT_CURRENT_FRAME(state));
    if (f == NULL || f == frame) {
        return 0;
    }
    while (f != NULL && f != frame) {
        f = PMT_FRAME_PREVIOUS(f);
    }
    return f != NULL;
}

void
pmt__cpython_check_hooks(void)
{
    if (pmt__sampling_now.on) {
        sampled_check(hooks[PLAIN][PYMEM_DOMAIN_RAW].malloc);
        return;
    }
    for (int domain = 0; domain < 3; domain++) {
        if (hook_missing((PyMemAllocatorDomain)domain)) {
            hook((PyMemAllocatorDomain)domain);
            __atomic_fetch_add(&pmt__t.counters[PMT_COUNTER_HOOKS_LOST], 1, __ATOMIC_RELAXED);
        }
    }
}

void
pmt__cpython_uninstall(void)
{
    sampled_uninstall(&hooks[PLAIN][PYMEM_DOMAIN_RAW]);
    tracer_uninstall();
    unhook(PYMEM_DOMAIN_OBJ);
    unhook(PYMEM_DOMAIN_MEM);
}

void
pmt__cpython_checking(int on)
{
    if (on) {
        checked = different = 0;
        pmt__attention_set(PMT_ATTENTION_CHECK);
    } else {
        pmt__attention_clear(PMT_ATTENTION_CHECK);
    }
}

void
pmt__cpython_check_counts(uint64_t *compared, uint64_t *unequal)
{
    *compared = checked;
    *unequal = different;
}

double
pmt__cpython_pair_ns(size_t size, unsigned rounds)
{
    enum {
        BATCH = 64,
        REPEAT = 20
    };
    void *blocks[BATCH];
    double best = 1e18;
    for (unsigned round = 0; round < rounds; round++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int k = 0; k < REPEAT; k++) {
            for (int i = 0; i < BATCH; i++) {
                blocks[i] = PyObject_Malloc(size);
            }
            for (int i = BATCH - 1; i >= 0; i--) {
                PyObject_Free(blocks[i]);
            }
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        double ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
        if (ns / (BATCH * REPEAT) < best) {
            best = ns / (BATCH * REPEAT);
        }
    }
    return best;
}
