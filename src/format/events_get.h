/* Reading the event log (docs/format.md, EVTS), one event at a time. Trusts nothing. */
#ifndef PMT_FORMAT_EVENTS_GET_H
#define PMT_FORMAT_EVENTS_GET_H

#include <stdbool.h>
#include <stdint.h>

#include "format/decode.h"
#include "format/events.h"

typedef struct pmt__event_head {
    uint64_t first;
    uint64_t count;
    uint64_t begin_ns;
    uint64_t span_ns;
} pmt__event_head;

/* Reads the head of a chunk; the cursor fails if it cannot be true. */
void pmt__event_head_get(pmt__cursor *in, pmt__event_head *out);

typedef struct pmt__raw_event {
    unsigned kind;    /* PMT_EVENT_ALLOC or _FREE */
    unsigned control; /* that it belongs to, or 0 */
    uint32_t site;
    uint64_t address;
} pmt__raw_event;

typedef struct pmt__event_decoder {
    pmt__event_cache cache;
    unsigned control; /* of the pair that is under way */
    unsigned pair_at; /* 0: no pair; 1: its free comes; 2: its allocation comes */
} pmt__event_decoder;

/* Fills *out with the next event, whose site is below site_limit; false if the cursor failed. The caller then reads the size if
   it is an allocation of a sizeless site. There must be one: who counts the events knows. */
bool pmt__event_get(pmt__event_decoder *self, pmt__cursor *in, uint64_t site_limit,
                    pmt__raw_event *out);

#endif
