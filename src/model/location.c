/* The table is described in CPython's InternalDocs/code_objects.md, "Format of the locations table"
   (before 3.13: Objects/locations.md). In short: a sequence of entries, each for the next run of
   code units (2 bytes each). The first byte of an entry has bit 7 set, in bits 3-6 a code that says
   how the location follows, and in bits 0-2 the number of code units less one. Lines are deltas to
   the line of the entry before. The other bytes of an entry have bit 7 clear.

     code    line delta                 then
     0-9     0                          1 byte of columns
     10-12   code - 10                  2 bytes of columns
     13      signed varint              nothing
     14      signed varint              3 varints: end line delta, columns
     15      this run has no location   nothing

   A varint is six bits per byte, lowest first, bit 6 = there is more; a signed one has its sign in
   its lowest bit. */
#include "model/location.h"

#include <stdbool.h>

#define CODE_UNIT_SIZE 2

enum {
    ONE_LINE_FIRST = 10,
    NO_COLUMNS = 13,
    LONG_FORM = 14,
    NO_LOCATION = 15
};

/* Returns false if the table ends or the number does not fit into 32 bits. */
static bool
get_varint(const uint8_t **at, const uint8_t *end, uint32_t *value)
{
    uint32_t result = 0;
    for (unsigned shift = 0; *at < end && shift < 32; shift += 6) {
        uint8_t byte = *(*at)++;
        result |= (uint32_t)(byte & 0x3f) << shift;
        if (!(byte & 0x40)) {
            *value = result;
            return true;
        }
    }
    return false;
}

static int64_t
to_signed(uint32_t value)
{
    int64_t magnitude = (int64_t)(value >> 1);
    return value & 1 ? -magnitude : magnitude;
}

int64_t
pmt__location_line(const uint8_t *table, size_t size, int64_t first_line, uint64_t offset)
{
    const uint8_t *at = table;
    const uint8_t *end = table + size;
    /* Kept small enough that deltas cannot overflow it: there is one delta per byte at most. */
    if (first_line < -INT32_MAX || first_line > INT32_MAX) {
        return 0;
    }
    int64_t line = first_line;
    uint64_t start = 0;
    while (at < end) {
        uint8_t head = *at++;
        if (!(head & 0x80)) {
            return 0;
        }
        unsigned code = (head >> 3) & 15;
        uint64_t stop = start + ((uint64_t)(head & 7) + 1) * CODE_UNIT_SIZE;
        if (code == NO_COLUMNS || code == LONG_FORM) {
            uint32_t delta;
            if (!get_varint(&at, end, &delta)) {
                return 0;
            }
            line += to_signed(delta);
        } else if (code >= ONE_LINE_FIRST && code < NO_COLUMNS) {
            line += (int64_t)code - ONE_LINE_FIRST;
        }
        if (offset < stop) {
            return code == NO_LOCATION || line < 0 ? 0 : line;
        }
        start = stop;
        while (at < end && !(*at & 0x80)) {
            at++;
        }
    }
    return 0;
}
