/* The coding of the event log (docs/format.md, EVTS): one event at a time. This is the writing side
   and what both share; events_get.h reads.

   Inline, because it runs inside the program's allocations. */
#ifndef PMT_FORMAT_EVENTS_H
#define PMT_FORMAT_EVENTS_H

#include <stdint.h>

#include "base/varint.h"
#include "format/spec.h"

#define PMT_EVENT_SLOTS 64u
#define PMT_EVENT_BYTES_MAX (1 + 3 * PMT_VARINT_MAX) /* of one event */
#define PMT_EVENT_CONTROL_BYTES 2

typedef struct pmt__event_slot {
    uint32_t site; /* 0 = none yet */
    uint32_t unused_;
    uint64_t place; /* address / 16 */
} pmt__event_slot;

/* What both sides remember within a chunk; zero at its start. */
typedef struct pmt__event_cache {
    pmt__event_slot slots[PMT_EVENT_SLOTS];
} pmt__event_cache;

/* Writes an event (PMT_EVENT_ALLOC or _FREE) at `at`; returns its end. The size of a sizeless allocation comes behind it. */
static inline uint8_t *
pmt__event_put(pmt__event_cache *cache, uint8_t *at, unsigned kind, uint32_t site, uint64_t address)
{
    unsigned index = site % PMT_EVENT_SLOTS; /* sites that are new together lie side by side */
    pmt__event_slot *slot = &cache->slots[index];
    uint64_t place = address >> 4;
    if (slot->site == site) {
        *at++ = (uint8_t)(kind << 6 | index);
    } else {
        *at++ = (uint8_t)((kind | PMT_EVENT_WITH_SITE) << 6 | index);
        at = pmt__varint_put(at, site);
        slot->site = site;
    }
    at = pmt__varint_put(at, pmt__zigzag((int64_t)(place - slot->place)));
    slot->place = place;
    return at;
}

/* Writes a control without content. */
static inline uint8_t *
pmt__event_put_control(uint8_t *at, unsigned control)
{
    *at++ = (uint8_t)((PMT_EVENT_ALLOC | PMT_EVENT_WITH_SITE) << 6 | control);
    *at++ = 0;
    return at;
}

#endif
