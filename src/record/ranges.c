#include "record/ranges.h"

#include <string.h>

#include "platform/platform.h"
#include "record/count.h"

typedef struct range {
    uintptr_t start;
    uint64_t size;
    uint32_t cohort;
    uint32_t block; /* in pieces_of: ranges of one mapping share it */
} range;

/* All: Protected by the tables */
static range *ranges;       /* [room], sorted by start */
static uint32_t *pieces_of; /* [room]: how many ranges a block has; 0 = free */
static uint32_t count, room, first_free;

void
pmt__ranges_begin(void)
{
    count = 0;
    first_free = 0;
    if (pieces_of != NULL) {
        memset(pieces_of, 0, room * sizeof *pieces_of);
    }
}

uint64_t
pmt__ranges_bytes(void)
{
    return room * (uint64_t)(sizeof *ranges + sizeof *pieces_of);
}

size_t
pmt__ranges_copy_nopy(pmt__extent *out, size_t to_room)
{
    for (size_t i = 0; i < count && i < to_room; i++) {
        out[i] = (pmt__extent){ranges[i].start, ranges[i].start + ranges[i].size};
    }
    return count;
}

static int
grow(void)
{
    uint32_t to = room == 0 ? 1024 : room * 2;
    range *more = room == 0 ? pmt__pages_map(to * sizeof *more)
                            : pmt__pages_resize(ranges, room * sizeof *more, to * sizeof *more);
    if (more == NULL) {
        return -1;
    }
    ranges = more;
    uint32_t *pieces =
        room == 0 ? pmt__pages_map(to * sizeof *pieces)
                  : pmt__pages_resize(pieces_of, room * sizeof *pieces, to * sizeof *pieces);
    if (pieces == NULL) {
        if (room == 0) {
            pmt__pages_unmap(ranges, to * sizeof *more);
            ranges = NULL;
        } else {
            pmt__pages_resize(ranges, to * sizeof *more, room * sizeof *more);
        }
        return -1;
    }
    pieces_of = pieces;
    room = to;
    return 0;
}

/* The first range that ends behind this address. */
static uint32_t
find(uintptr_t address)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ranges[middle].start + ranges[middle].size <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void
insert(uint32_t at, range r)
{
    memmove(&ranges[at + 1], &ranges[at], (count - at) * sizeof *ranges);
    ranges[at] = r;
    count++;
}

/* There is one for every range, so one is free. */
static uint32_t
block_new(void)
{
    while (pieces_of[first_free] != 0) {
        first_free = first_free + 1 == room ? 0 : first_free + 1;
    }
    pieces_of[first_free] = 1;
    return first_free;
}

int
pmt__ranges_add_nopy(uintptr_t start, uint64_t size, uint32_t cohort)
{
    if (size == 0) {
        return 0;
    }
    if (count + 2 >= room && grow() < 0) { /* + 2: a hole needs one more */
        return -1;
    }
    insert(find(start), (range){start, size, cohort, block_new()});
    pmt__count_add(cohort, size);
    return 0;
}

/* `bytes` of a mapping are gone; last: nothing is left of it. */
static void
gone(uint32_t cohort, uint64_t bytes, int last)
{
    if (last) {
        pmt__count_sub(cohort, bytes);
    } else {
        pmt__count_shrink(cohort, bytes);
    }
}

uint64_t
pmt__ranges_remove_nopy(uintptr_t start, uint64_t size, uint32_t *cohort)
{
    uint64_t known = 0;
    uintptr_t end = start + size < start ? UINTPTR_MAX : start + size;
    *cohort = 0;
    for (uint32_t at = find(start); at < count && ranges[at].start < end;) {
        range *r = &ranges[at];
        uintptr_t r_end = r->start + r->size;
        uintptr_t from = r->start > start ? r->start : start, to = r_end < end ? r_end : end;
        uint64_t bytes = to - from;
        if (known == 0) {
            *cohort = r->cohort;
        }
        known += bytes;
        if (bytes == r->size) {
            uint32_t left = --pieces_of[r->block];
            gone(r->cohort, bytes, left == 0);
            count--;
            memmove(r, r + 1, (count - at) * sizeof *r);
            continue;
        }
        gone(r->cohort, bytes, 0);
        if (from == r->start) {
            r->start = to;
            r->size = r_end - to;
        } else {
            r->size = from - r->start;
            if (to < r_end) { /* a hole */
                pieces_of[r->block]++;
                insert(at + 1, (range){to, r_end - to, r->cohort, r->block});
                if (count + 2 >= room) {
                    grow(); /* for the next one; if not, the next mapping is not noted */
                }
            }
        }
        at++;
    }
    return known;
}
