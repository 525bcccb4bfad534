/* The threads of the program and their cached stacks. */
#include <string.h>

#include "platform/platform.h"
#include "record/tables.h"

#define FIRST_CAPACITY 512

int
pmt__thread_grow_nopy(pmt__thread *thread, int32_t capacity)
{
    size_t n = (size_t)capacity;
    size_t bytes = n * (sizeof(void *) + sizeof(pmt__link) + sizeof(uint32_t)) + sizeof(uint32_t);
    char *pages = pmt__pages_map(bytes);
    if (pages == NULL) {
        return -1;
    }
    pmt__link *link = (pmt__link *)(void *)pages;
    void **frame = (void **)(void *)(pages + n * sizeof(pmt__link));
    uint32_t *node = (uint32_t *)(void *)(pages + n * (sizeof(pmt__link) + sizeof(void *)));
    if (thread->link != NULL) {
        size_t old = (size_t)thread->capacity;
        memcpy(link, thread->link, old * sizeof *link);
        memcpy(frame, thread->frame, old * sizeof *frame);
        memcpy(node, thread->node, (old + 1) * sizeof *node);
        size_t old_bytes =
            old * (sizeof(void *) + sizeof(pmt__link) + sizeof(uint32_t)) + sizeof(uint32_t);
        pmt__pages_unmap(thread->link, old_bytes);
        pmt__t.table_bytes -= old_bytes;
    }
    pmt__t.table_bytes += bytes;
    thread->link = link;
    thread->frame = frame;
    thread->node = node;
    thread->capacity = capacity;
    return 0;
}

static pmt__thread *
thread_new(void)
{
    /* A thread that ended leaves its memory, not its identity. */
    pmt__thread *thread = NULL;
    for (pmt__thread *t = pmt__t.threads; t != NULL; t = t->next) {
        if (t->ended == 2 || (t->ended && t->id == PMT_THREAD_FOLDED)) {
            thread = t;
            break;
        }
    }
    if (thread == NULL) {
        thread = pmt__threads_spare;
        if (thread != NULL) {
            pmt__threads_spare = thread->next;
        } else {
            thread = pmt__pages_map(sizeof *thread);
        }
        if (thread == NULL) {
            return NULL;
        }
        if (pmt__thread_grow_nopy(thread, FIRST_CAPACITY) < 0) {
            thread->next = pmt__threads_spare;
            pmt__threads_spare = thread;
            return NULL;
        }
        pmt__t.table_bytes += sizeof *thread;
        thread->next = pmt__t.threads;
        pmt__t.threads = thread;
    }
    thread->ended = 0;
    thread->name = 0;
    thread->name_asked = 0;
    thread->depth = 0;
    thread->top = NULL;
    thread->heap_top = -1;
    thread->fresh = NULL;
    memset(thread->last, 0, sizeof thread->last);
    return thread;
}

pmt__thread *
pmt__thread_get_nopy(const void *state, uint64_t state_id, uint64_t ident, uint64_t native_id)
{
    for (pmt__thread *t = pmt__t.threads; t != NULL; t = t->next) {
        if (__atomic_load_n(&t->state, __ATOMIC_ACQUIRE) == state && t->state_id == state_id) {
            return t;
        }
    }
    pmt__thread *thread = thread_new();
    if (thread == NULL) {
        return NULL;
    }
    if (pmt__t.thread_count < PMT_THREAD_MAX) {
        thread->id = ++pmt__t.thread_count;
    } else {
        thread->id = PMT_THREAD_FOLDED;
        pmt__t.counters[PMT_COUNTER_FOLDED_THREADS]++;
    }
    thread->key = thread->id << PMT_KEY_THREAD_SHIFT;
    thread->state_id = state_id;
    thread->ident = ident;
    thread->native_id = native_id;
    thread->birth_ns = pmt__clock_mono_ns();
    if (native_id == pmt__process_id()) {
        static const pmt__text main_thread = {"MainThread", 10, 1};
        thread->name = pmt__string_intern_nopy(&main_thread);
    }
    pmt__t.threads_changed = 1;
    __atomic_store_n(&thread->state, state, __ATOMIC_RELEASE);
    return thread;
}

void
pmt__threads_drop_caches_nopy(void)
{
    for (pmt__thread *t = pmt__t.threads; t != NULL; t = t->next) {
        t->depth = 0;
        t->top = NULL;
    }
    pmt__t.counters[PMT_COUNTER_CACHE_DROPS]++;
}
