#include "base/index.h"

#include <string.h>

void
pmt__index_init(pmt__index *self, const pmt_allocator *allocator)
{
    memset(self, 0, sizeof *self);
    self->allocator = allocator;
}

void
pmt__index_dispose(pmt__index *self)
{
    pmt__release(self->allocator, self->slots);
    self->slots = NULL;
    self->mask = self->count = 0;
}

void
pmt__index_clear(pmt__index *self)
{
    if (self->slots != NULL) {
        memset(self->slots, 0, (self->mask + 1) * sizeof *self->slots);
    }
    self->count = 0;
}

static void
place(pmt__index_slot *slots, size_t mask, size_t at, pmt__index_slot slot)
{
    while (slots[at & mask].next != 0) {
        at++;
    }
    slots[at & mask] = slot;
}

bool
pmt__index_add(pmt__index *self, uint64_t hash, uint32_t position)
{
    if (self->slots == NULL || self->count + 1 > (self->mask + 1) / 4 * 3) {
        size_t size = self->slots == NULL ? 64 : (self->mask + 1) * 2;
        pmt__index_slot *slots = pmt__alloc_zeroed(self->allocator, size, sizeof *slots);
        if (slots == NULL) {
            return false;
        }
        for (size_t i = 0; self->slots != NULL && i <= self->mask; i++) {
            if (self->slots[i].next != 0) {
                place(slots, size - 1, self->slots[i].tag, self->slots[i]);
            }
        }
        pmt__release(self->allocator, self->slots);
        self->slots = slots;
        self->mask = size - 1;
    }
    uint32_t tag = (uint32_t)(hash >> 32);
    place(self->slots, self->mask, tag, (pmt__index_slot){tag, position + 1});
    self->count++;
    return true;
}

uint32_t
pmt__index_next(pmt__index_walk *walk)
{
    const pmt__index *self = walk->index;
    if (self->slots == NULL) {
        return PMT_INDEX_NONE;
    }
    for (;;) {
        pmt__index_slot slot = self->slots[walk->at++ & self->mask];
        if (slot.next == 0) {
            return PMT_INDEX_NONE;
        }
        if (slot.tag == walk->tag) {
            return slot.next - 1;
        }
    }
}
