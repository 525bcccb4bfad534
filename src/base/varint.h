/* LEB128 variable-length integers, the coding of nearly every number in a capture (docs/format.md). */
#ifndef PMT_BASE_VARINT_H
#define PMT_BASE_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define PMT_VARINT_MAX 10 /* bytes of the longest encoding of 64 bits */

/* Writes value at out, which has room for PMT_VARINT_MAX bytes; returns the end of what it wrote. */
static inline uint8_t *
pmt__varint_put(uint8_t *out, uint64_t value)
{
    while (value >= 0x80) {
        *out++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *out++ = (uint8_t)value;
    return out;
}

static inline uint64_t
pmt__zigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
}

static inline int64_t
pmt__unzigzag(uint64_t value)
{
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

/* Reads one varint from [in, end). Returns the position behind it, or NULL if the input ends first or the value does
   not fit into 64 bits. */
static inline const uint8_t *
pmt__varint_get(const uint8_t *in, const uint8_t *end, uint64_t *value)
{
    uint64_t result = 0;
    for (unsigned shift = 0; in < end && shift < 64; shift += 7) {
        uint8_t byte = *in++;
        if (shift == 63 && byte > 1) {
            return NULL;
        }
        result |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = result;
            return in;
        }
    }
    return NULL;
}

#endif
