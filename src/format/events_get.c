#include "format/events_get.h"

void
pmt__event_head_get(pmt__cursor *in, pmt__event_head *out)
{
    out->first = pmt__get_limited(in, INT64_MAX, "the number of an event");
    out->count = pmt__get_limited(in, PMT_CHUNK_MAX, "the number of events");
    out->begin_ns = pmt__get_limited(in, INT64_MAX, "a time");
    out->span_ns = pmt__get_limited(in, INT64_MAX, "a span of time");
    if (in->code == PMT_OK && out->count > (uint64_t)(in->end - in->at) / 2) {
        pmt__cursor_fail(in, "%llu events should follow and there is no room for them",
                         (unsigned long long)out->count);
    }
}

/* Passes the controls before an event and returns the byte that starts it. */
static uint8_t
get_start(pmt__event_decoder *self, pmt__cursor *in, uint64_t *site)
{
    for (;;) {
        uint8_t start = pmt__get_u8(in);
        *site = start >> 6 & PMT_EVENT_WITH_SITE ? pmt__get_varint(in) : UINT64_MAX;
        if (in->code != PMT_OK || *site != 0) {
            return start;
        }
        unsigned control = start & (PMT_EVENT_SLOTS - 1);
        if (self->pair_at != 0 || start >> 6 != (PMT_EVENT_ALLOC | PMT_EVENT_WITH_SITE)) {
            pmt__cursor_fail(in, "a control where an event should be");
        } else if (control == PMT_CONTROL_REALLOC || control == PMT_CONTROL_REATTRIBUTED) {
            self->control = control;
            self->pair_at = 1;
        } else {
            pmt__get_bytes(in, pmt__get_varint(in));
        }
    }
}

bool
pmt__event_get(pmt__event_decoder *self, pmt__cursor *in, uint64_t site_limit, pmt__raw_event *out)
{
    uint64_t site;
    uint8_t start = get_start(self, in, &site);
    pmt__event_slot *slot = &self->cache.slots[start & (PMT_EVENT_SLOTS - 1)];
    if (site != UINT64_MAX) {
        if (site >= site_limit) {
            pmt__cursor_fail(in, "an event refers to site %llu", (unsigned long long)site);
        }
        slot->site = (uint32_t)site;
    }
    slot->place += (uint64_t)pmt__get_zigzag(in);
    out->kind = start >> 6 & ~(unsigned)PMT_EVENT_WITH_SITE;
    out->control = self->pair_at != 0 ? self->control : 0;
    out->site = slot->site;
    out->address = slot->place << 4;
    if (slot->site == 0) {
        pmt__cursor_fail(in, "an event without a site");
    }
    if (self->pair_at != 0) {
        if (out->kind != (self->pair_at == 1 ? PMT_EVENT_FREE : PMT_EVENT_ALLOC)) {
            pmt__cursor_fail(in, "two events of which the first is no free or the second no "
                                 "allocation are said to be one");
        }
        self->pair_at = self->pair_at == 1 ? 2 : 0;
    }
    return in->code == PMT_OK;
}
