/* The chain of the event log. A block goes round: the holder of the tables fills it (current), keeps it when it is full,
   a cut hands it to the writer (taken), who writes it and gives it back (returned).

   When the chain is at its limit, events are dropped: counted, and numbered, so that the capture shows where the log has a
   gap. The tables do not care. */
#include "record/log.h"

#include <string.h>

#include "platform/platform.h"
#include "record/gate.h"
#include "record/writer.h"

#define KEPT_BLOCKS 4 /* further ones go back to the system when they are written */

typedef struct chain {
    pmt__log_block *head;
    pmt__log_block **tail;
} chain;

pmt__log_cursor pmt__log;
static pmt__log_block *current;  /* Protected by the tables */
static chain full;               /* Protected by the tables */
static uint32_t full_count;      /* Protected by the tables */
static int stopped;              /* Protected by the tables */
static uint32_t block_limit;     /* constant while recording */
static chain taken;              /* the writer's, and of who takes a cut: Protected by io */
static pmt__log_block *returned; /* atomic: pushed by the writer, taken as a whole by the holder */
static uint32_t block_count;     /* atomic: all that are mapped */

static void
chain_clear(chain *self)
{
    self->head = NULL;
    self->tail = &self->head;
}

static void
chain_push(chain *self, pmt__log_block *block)
{
    block->next = NULL;
    *self->tail = block;
    self->tail = &block->next;
}

static void
block_unmap(pmt__log_block *block)
{
    pmt__pages_unmap(block, PMT_LOG_BLOCK_BYTES);
    __atomic_fetch_sub(&block_count, 1, __ATOMIC_RELAXED);
}

static void
list_unmap(pmt__log_block *block)
{
    while (block != NULL) {
        pmt__log_block *next = block->next;
        block_unmap(block);
        block = next;
    }
}

/* --- start and end ------------------------------------------------------------------------------------------------------ */

void
pmt__log_create(uint64_t max_bytes)
{
    pmt__log_dispose(); /* in a forked child: the parent's */
    chain_clear(&full);
    chain_clear(&taken);
    full_count = block_count = 0;
    stopped = 0;
    block_limit = (uint32_t)(max_bytes / PMT_LOG_BLOCK_BYTES);
    pmt__t.log_on = 1;
}

void
pmt__log_dispose(void)
{
    pmt__t.log_on = 0;
    if (current != NULL) {
        block_unmap(current);
    }
    list_unmap(full.head);
    list_unmap(taken.head);
    list_unmap(returned);
    current = returned = NULL;
    full.head = taken.head = NULL;
    memset(&pmt__log, 0, sizeof pmt__log);
}

/* --- with the tables held ----------------------------------------------------------------------------------------------- */

/* The current block gets no more events. */
static void
current_close(void)
{
    if (current == NULL) {
        return;
    }
    current->count = pmt__t.counters[PMT_COUNTER_EVENTS] - current->first;
    current->size = (size_t)(pmt__log.at - current->bytes);
    current->end_ns = pmt__clock_mono_ns() - pmt__t.start_ns;
    chain_push(&full, current);
    full_count++;
    current = NULL;
    pmt__log.at = pmt__log.end = NULL;
}

static pmt__log_block *
block_get(void)
{
    pmt__log_block *block = __atomic_exchange_n(&returned, NULL, __ATOMIC_ACQUIRE);
    if (block != NULL) {
        /* the rest of the list stays; nobody else takes from it */
        pmt__log_block *rest = block->next;
        while (rest != NULL) {
            pmt__log_block *next = rest->next;
            rest->next = __atomic_load_n(&returned, __ATOMIC_RELAXED);
            while (!__atomic_compare_exchange_n(&returned, &rest->next, rest, 0, __ATOMIC_RELEASE,
                                                __ATOMIC_RELAXED)) {
            }
            rest = next;
        }
        return block;
    }
    if (__atomic_load_n(&block_count, __ATOMIC_RELAXED) >= block_limit) {
        return NULL;
    }
    block = pmt__pages_map(PMT_LOG_BLOCK_BYTES);
    if (block != NULL) {
        __atomic_fetch_add(&block_count, 1, __ATOMIC_RELAXED);
    }
    return block;
}

/* A new block for the next event, or 0: the event was dropped and counted. */
static PMT_NOINLINE int
room_slow(void)
{
    current_close();
    pmt__log_block *block = stopped ? NULL : block_get();
    if (full_count == block_limit / 4 && block != NULL) {
        pmt__writer_hurry_nopy(); /* a second may be too long for so many events */
    }
    if (block == NULL) {
        pmt__t.counters[PMT_COUNTER_EVENTS]++;
        pmt__t.counters[PMT_COUNTER_LOG_DROPPED]++;
        pmt__log.pair = NULL;
        return 0;
    }
    current = block;
    block->next = NULL;
    block->first = pmt__t.counters[PMT_COUNTER_EVENTS];
    block->begin_ns = pmt__clock_mono_ns() - pmt__t.start_ns;
    pmt__log.at = block->bytes;
    pmt__log.end = (uint8_t *)block + PMT_LOG_BLOCK_BYTES;
    memset(&pmt__log.cache, 0, sizeof pmt__log.cache);
    return 1;
}

PMT_INLINE int
room(size_t bytes)
{
    return PMT_LIKELY((size_t)(pmt__log.end - pmt__log.at) >= bytes) || room_slow();
}

void
pmt__log_alloc_nopy(const void *block, uint32_t cohort, uint64_t bytes)
{
    if (!room(PMT_EVENT_BYTES_MAX)) {
        return;
    }
    uint8_t *at = pmt__event_put(&pmt__log.cache, pmt__log.at, PMT_EVENT_ALLOC,
                                 PMT_COHORT_SITE(&pmt__t.cohorts[cohort]), (uintptr_t)block);
    if (pmt__t.cohorts[cohort].size & PMT_COHORT_SIZELESS) {
        at = pmt__varint_put(at, bytes);
    }
    pmt__log.at = at;
    pmt__t.counters[PMT_COUNTER_EVENTS]++;
}

void
pmt__log_free_nopy(const void *block, uint32_t cohort)
{
    if (!room(PMT_EVENT_BYTES_MAX)) {
        return;
    }
    pmt__log.at = pmt__event_put(&pmt__log.cache, pmt__log.at, PMT_EVENT_FREE,
                                 PMT_COHORT_SITE(&pmt__t.cohorts[cohort]), (uintptr_t)block);
    pmt__t.counters[PMT_COUNTER_EVENTS]++;
}

void
pmt__log_pair_begin_nopy(unsigned control)
{
    /* Room for both, and for the free of a block whose end was missed, so that no block ends in between. */
    const size_t room = PMT_EVENT_CONTROL_BYTES + 3 * PMT_EVENT_BYTES_MAX;
    pmt__log.pair = NULL;
    if ((size_t)(pmt__log.end - pmt__log.at) < room) {
        current_close();
        uint64_t dropped = pmt__t.counters[PMT_COUNTER_LOG_DROPPED];
        if (!room_slow()) { /* that was no event */
            pmt__t.counters[PMT_COUNTER_EVENTS]--;
            pmt__t.counters[PMT_COUNTER_LOG_DROPPED] = dropped;
            return;
        }
    }
    pmt__log.pair = pmt__log.at;
    pmt__log.pair_first = pmt__t.counters[PMT_COUNTER_EVENTS];
    pmt__log.at = pmt__event_put_control(pmt__log.at, control);
}

void
pmt__log_pair_end_nopy(void)
{
    if (pmt__log.pair == NULL) {
        return;
    }
    if (pmt__t.counters[PMT_COUNTER_EVENTS] - pmt__log.pair_first != 2) {
        /* one of the two did not happen: it is no pair */
        const uint8_t *behind = pmt__log.pair + PMT_EVENT_CONTROL_BYTES;
        memmove(pmt__log.pair, behind, (size_t)(pmt__log.at - behind));
        pmt__log.at -= PMT_EVENT_CONTROL_BYTES;
    }
    pmt__log.pair = NULL;
}

void
pmt__log_take_nopy(void)
{
    if (!pmt__t.log_on) {
        return;
    }
    if (current != NULL && pmt__t.counters[PMT_COUNTER_EVENTS] != current->first) {
        current_close();
    }
    if (full.head != NULL) {
        *taken.tail = full.head;
        taken.tail = full.tail;
        chain_clear(&full);
        full_count = 0;
    }
}

/* --- the writer --------------------------------------------------------------------------------------------------------- */

pmt__log_block *
pmt__log_oldest(void)
{
    return taken.head;
}

void
pmt__log_encode(const pmt__log_block *block, pmt__buffer *payload)
{
    pmt__buffer_put_varint(payload, block->first);
    pmt__buffer_put_varint(payload, block->count);
    pmt__buffer_put_varint(payload, block->begin_ns);
    pmt__buffer_put_varint(payload, block->end_ns - block->begin_ns);
    pmt__buffer_put(payload, block->bytes, block->size);
}

static pmt__log_block *
taken_pop(void)
{
    pmt__log_block *block = taken.head;
    taken.head = block->next;
    if (taken.head == NULL) {
        chain_clear(&taken);
    }
    return block;
}

void
pmt__log_written(void)
{
    pmt__log_block *block = taken_pop();
    if (__atomic_load_n(&block_count, __ATOMIC_RELAXED) > KEPT_BLOCKS) {
        block_unmap(block);
        return;
    }
    block->next = __atomic_load_n(&returned, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&returned, &block->next, block, 0, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
    }
}

void
pmt__log_stop(void)
{
    pmt__tables_acquire();
    stopped = 1;
    current_close();
    pmt__log_take_nopy();
    while (taken.head != NULL) {
        pmt__log_block *block = taken_pop();
        pmt__t.counters[PMT_COUNTER_LOG_DROPPED] += block->count;
        block_unmap(block);
    }
    pmt__tables_release();
}

uint64_t
pmt__log_bytes(void)
{
    return __atomic_load_n(&block_count, __ATOMIC_RELAXED) * (uint64_t)PMT_LOG_BLOCK_BYTES;
}
