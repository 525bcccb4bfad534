/* Two buffers: producers append to one under a short spin lock (a memcpy, no call that waits); the drain swaps them and
   works on the other. Drains exclude each other by holding the tables. When the buffer is full, the producer takes the tables
   and drains itself: nothing is lost.

   A block whose event waits has a ticket in its shadow entry. If it is freed before the drain, the drain finds another value
   there and keeps the cohort under the ticket until it meets the free, which comes later in the same order.

   Code objects in a waiting stack are alive: the frame runs below a C call. Before its code can die, the program makes an
   event with the GIL, and `attention` makes that event drain the queue first. */
#include "record/queue.h"

#include <string.h>

#include "platform/platform.h"
#include "pymemtrace/error.h"
#include "record/count.h"
#include "record/gate.h"
#include "record/log.h"
#include "record/shadow.h"
#include "record/tables.h"

#define BUFFER_BYTES (512u << 10)
#define ORPHANS 4096

enum {
    EVENT_ALLOC = 1,
    EVENT_FREE = 2
};

typedef struct event {
    uint32_t bytes; /* of this record */
    uint16_t kind;
    uint16_t complete;
    void *block;
    uint64_t size;
    uint32_t value; /* shadow value: ticket, or cohort id */
    uint32_t frames;
    const void *state;
    uint64_t state_id;
    uint64_t ident;
    uint64_t native_id;
} event;

typedef struct orphan {
    uint32_t ticket;
    uint32_t cohort;
} orphan;

static char *buffers[2];
static uint32_t filling;        /* Protected by lock */
static uint32_t used;           /* Protected by lock */
static uint32_t tickets;        /* Protected by lock */
static uint32_t lock;           /* atomic */
static orphan orphans[ORPHANS]; /* Protected by the tables */
static uint32_t orphan_count;   /* Protected by the tables */

int
pmt__queue_create(void)
{
    for (int i = 0; i < 2; i++) {
        if (buffers[i] == NULL) {
            buffers[i] = pmt__pages_map(BUFFER_BYTES);
        }
        if (buffers[i] == NULL) {
            return PMT_ERR_NOMEM;
        }
    }
    used = 0;
    orphan_count = 0;
    return 0;
}

void
pmt__queue_forked(void)
{
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    used = 0;
    pmt__outside_forked();
}

static void
lock_take(void)
{
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE) != 0) {
        static const uint32_t never = 0;
        pmt__wait_word(&never, 0, 5000);
    }
}

static void
lock_give(void)
{
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

/* Room for a record; takes the lock, the caller gives it back. */
static event *
event_begin(uint32_t bytes)
{
    lock_take();
    while (used + bytes > BUFFER_BYTES) {
        lock_give();
        pmt__tables_acquire();
        pmt__queue_drain_nopy();
        pmt__tables_release();
        lock_take();
    }
    event *e = (event *)(void *)(buffers[filling] + used);
    used += bytes;
    memset(e, 0, sizeof *e);
    e->bytes = bytes;
    return e;
}

static void
event_end(void)
{
    lock_give();
    if (!(__atomic_load_n(&pmt__t.attention, __ATOMIC_RELAXED) & PMT_ATTENTION_QUEUE)) {
        pmt__attention_set(PMT_ATTENTION_QUEUE);
    }
}

void
pmt__queue_alloc_nopy(void *block, size_t size, const void *state, uint64_t state_id,
                      uint64_t ident, const pmt__queue_frame *frames, uint32_t count, int complete)
{
    uint32_t *entry = pmt__shadow_make(block);
    if (entry == NULL || (size > PMT_SIZE_EXACT_MAX && pmt__shadow_size_put(block, size) < 0)) {
        return;
    }
    uint64_t native_id = pmt__thread_native_id();
    uint32_t bytes = (uint32_t)(sizeof(event) + count * sizeof *frames);
    event *e = event_begin(bytes);
    e->kind = EVENT_ALLOC;
    e->complete = (uint16_t)complete;
    e->block = block;
    e->size = size;
    e->value = PMT_SHADOW_PENDING | (++tickets & 0x3fffffffu);
    e->frames = count;
    e->state = state;
    e->state_id = state_id;
    e->ident = ident;
    e->native_id = native_id;
    memcpy(e + 1, frames, count * sizeof *frames);
    __atomic_store_n(entry, e->value, __ATOMIC_RELEASE);
    event_end();
}

void
pmt__queue_free_nopy(void *block, uint32_t value, uint64_t size)
{
    event *e = event_begin((uint32_t)sizeof(event));
    e->kind = EVENT_FREE;
    e->block = block;
    e->size = size;
    e->value = value;
    event_end();
}

/* --- the drain ------------------------------------------------------------------------------------------------------------ */

static uint32_t
event_node(const event *e)
{
    const pmt__queue_frame *frames = (const pmt__queue_frame *)(const void *)(e + 1);
    uint32_t node = e->complete ? PMT_NODE_ROOT : PMT_NODE_FOLDED;
    for (uint32_t i = e->frames; i-- > 0 && node != PMT_NODE_FOLDED;) {
        if (frames[i].code != NULL) {
            node = pmt__node_slow_nopy(node, pmt__place_slow_nopy(frames[i].instr, frames[i].code,
                                                                  (int)frames[i].generator));
        }
    }
    return node == PMT_NODE_ROOT ? PMT_NODE_NO_STACK : node;
}

static void
cohort_add(const void *block, uint32_t id, uint64_t bytes)
{
    pmt__count_add(id, bytes);
    if (pmt__t.log_on) {
        pmt__log_alloc_nopy(block, id, bytes);
    }
}

static void
cohort_sub(const void *block, uint32_t id, uint64_t bytes)
{
    pmt__count_sub(id, bytes);
    if (pmt__t.log_on) {
        pmt__log_free_nopy(block, id);
    }
}

static void
drain_alloc(const event *e)
{
    uint32_t thread_id = 0;
    if (e->state != NULL) {
        pmt__thread *thread = pmt__thread_get_nopy(e->state, e->state_id, e->ident, e->native_id);
        thread_id = thread == NULL ? 0 : thread->id;
    }
    uint32_t size = e->size <= PMT_SIZE_EXACT_MAX ? (uint32_t)e->size : PMT_SIZE_LARGE;
    uint32_t id = pmt__cohort_get_nopy(event_node(e), size, PMT_DOMAIN_RAW, thread_id);
    pmt__t.counters[PMT_COUNTER_NO_GIL]++;
    uint32_t *entry = pmt__shadow_find(e->block);
    uint32_t expected = e->value;
    int here =
        entry != NULL
        && __atomic_compare_exchange_n(entry, &expected, id, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    if (id == 0) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
        return;
    }
    if (!here) {
        if (orphan_count == ORPHANS) {
            pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
            return;
        }
        orphans[orphan_count++] = (orphan){e->value, id};
    }
    cohort_add(e->block, id, e->size);
}

static void
drain_free(const event *e)
{
    if (!PMT_SHADOW_IS_PENDING(e->value)) {
        cohort_sub(e->block, PMT_SHADOW_ID(e->value), e->size);
        return;
    }
    for (uint32_t i = orphan_count; i-- > 0;) {
        if (orphans[i].ticket == e->value) {
            cohort_sub(e->block, orphans[i].cohort, e->size);
            orphans[i] = orphans[--orphan_count];
            return;
        }
    }
}

void
pmt__queue_drain_nopy(void)
{
    if (buffers[0] == NULL || pmt__t.nodes == NULL) {
        used = 0; /* nobody records: a straggler's event */
        return;
    }
    pmt__attention_clear(PMT_ATTENTION_QUEUE);
    lock_take();
    const char *at = buffers[filling];
    const char *end = at + used;
    filling ^= 1;
    used = 0;
    lock_give();
    while (at < end) {
        const event *e = (const event *)(const void *)at;
        if (e->kind == EVENT_ALLOC) {
            drain_alloc(e);
        } else {
            drain_free(e);
        }
        at += e->bytes;
    }
}
