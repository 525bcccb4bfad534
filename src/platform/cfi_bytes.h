/* Between the files that read call frame information: bytes that are not trusted, numbers and pointers as they are written there. */
#ifndef PMT_PLATFORM_CFI_BYTES_H
#define PMT_PLATFORM_CFI_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* Reading past the end gives zeros and is remembered, so that it is enough to look at `bad` now and then. */
typedef struct pmt__cfi_cursor {
    const uint8_t *at, *end;
    int bad;
} pmt__cfi_cursor;

static inline uint64_t
pmt__cfi_fixed_get(pmt__cfi_cursor *c, size_t size)
{
    uint64_t value = 0;
    if ((size_t)(c->end - c->at) < size) {
        c->at = c->end;
        c->bad = 1;
        return 0;
    }
    for (size_t i = 0; i < size; i++) { /* a load, as size is a constant */
        value |= (uint64_t)c->at[i] << (8 * i);
    }
    c->at += size;
    return value;
}

static inline uint8_t
pmt__cfi_byte_get(pmt__cfi_cursor *c)
{
    return (uint8_t)pmt__cfi_fixed_get(c, 1);
}

static inline uint64_t
pmt__cfi_uleb_get(pmt__cfi_cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = pmt__cfi_byte_get(c);
        uint64_t bits = byte & 0x7f;
        if (shift > 63 || bits << shift >> shift != bits) {
            c->bad = 1; /* more than 64 bits */
            return 0;
        }
        value |= bits << shift;
        if (!(byte & 0x80)) {
            return value;
        }
    }
}

static inline int64_t
pmt__cfi_sleb_get(pmt__cfi_cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = pmt__cfi_byte_get(c);
        if (shift > 63) {
            c->bad = 1;
            return 0;
        }
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (byte & 0x40 && shift + 7 < 64) {
                value |= ~(uint64_t)0 << (shift + 7);
            }
            return (int64_t)value;
        }
    }
}

/* The next `size` bytes by themselves. */
static inline pmt__cfi_cursor
pmt__cfi_part_get(pmt__cfi_cursor *c, uint64_t size)
{
    pmt__cfi_cursor part = {c->at, c->at, 0};
    if ((uint64_t)(c->end - c->at) < size) {
        c->at = c->end;
        c->bad = part.bad = 1;
        return part;
    }
    part.end = c->at += size;
    return part;
}

/* --- encoded pointers -------------------------------------------------------------------------------------------------- */

enum { /* the format, what it is relative to, and that it is the address of the pointer */
    PMT_CFI_PE_FORMAT = 0x0f,
    PMT_CFI_PE_ABSPTR = 0x00,
    PMT_CFI_PE_ULEB128 = 0x01,
    PMT_CFI_PE_UDATA2 = 0x02,
    PMT_CFI_PE_UDATA4 = 0x03,
    PMT_CFI_PE_UDATA8 = 0x04,
    PMT_CFI_PE_SIGNED = 0x08,
    PMT_CFI_PE_SLEB128 = 0x09,
    PMT_CFI_PE_SDATA2 = 0x0a,
    PMT_CFI_PE_SDATA4 = 0x0b,
    PMT_CFI_PE_SDATA8 = 0x0c,
    PMT_CFI_PE_RELATIVE = 0x70,
    PMT_CFI_PE_PCREL = 0x10,
    PMT_CFI_PE_DATAREL = 0x30,
    PMT_CFI_PE_ALIGNED = 0x50,
    PMT_CFI_PE_INDIRECT = 0x80,
    PMT_CFI_PE_OMIT = 0xff
};

static inline uint64_t
pmt__cfi_format_get(pmt__cfi_cursor *c, uint8_t encoding)
{
    switch (encoding & PMT_CFI_PE_FORMAT) {
    case PMT_CFI_PE_ABSPTR:
    case PMT_CFI_PE_SIGNED:
    case PMT_CFI_PE_UDATA8:
    case PMT_CFI_PE_SDATA8:
        return pmt__cfi_fixed_get(c, 8);
    case PMT_CFI_PE_ULEB128:
        return pmt__cfi_uleb_get(c);
    case PMT_CFI_PE_SLEB128:
        return (uint64_t)pmt__cfi_sleb_get(c);
    case PMT_CFI_PE_UDATA2:
        return pmt__cfi_fixed_get(c, 2);
    case PMT_CFI_PE_SDATA2:
        return (uint64_t)(int64_t)(int16_t)pmt__cfi_fixed_get(c, 2);
    case PMT_CFI_PE_UDATA4:
        return pmt__cfi_fixed_get(c, 4);
    case PMT_CFI_PE_SDATA4:
        return (uint64_t)(int64_t)(int32_t)pmt__cfi_fixed_get(c, 4);
    default:
        c->bad = 1;
        return 0;
    }
}

/* data: what PMT_CFI_PE_DATAREL is relative to, 0 if there is no such thing. Of an indirect pointer this is where the pointer is. */
static inline uint64_t
pmt__cfi_pointer_get(pmt__cfi_cursor *c, uint8_t encoding, uint64_t data)
{
    if (encoding == PMT_CFI_PE_ALIGNED) {
        pmt__cfi_part_get(c, -(uintptr_t)c->at & 7);
        return pmt__cfi_fixed_get(c, 8);
    }
    uint64_t here = (uintptr_t)c->at;
    uint64_t value = pmt__cfi_format_get(c, encoding);
    switch (encoding & PMT_CFI_PE_RELATIVE) {
    case 0:
        return value;
    case PMT_CFI_PE_PCREL:
        return value + here;
    case PMT_CFI_PE_DATAREL:
        if (data != 0) {
            return value + data;
        }
        break;
    }
    c->bad = 1;
    return 0;
}

#endif
