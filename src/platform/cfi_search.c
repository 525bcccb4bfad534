/* The search table of .eh_frame_hdr, sorted by the functions' first instructions. */
#include "platform/cfi.h"

#include <stddef.h>
#include <string.h>

#include "platform/cfi_bytes.h"

/* The size of a pointer in the table, 0: not one that can be searched. */
static size_t
fixed_size(uint8_t encoding)
{
    uint8_t relative = encoding & (PMT_CFI_PE_RELATIVE | PMT_CFI_PE_INDIRECT);
    if (relative != 0 && relative != PMT_CFI_PE_PCREL && relative != PMT_CFI_PE_DATAREL) {
        return 0;
    }
    switch (encoding & PMT_CFI_PE_FORMAT) {
    case PMT_CFI_PE_UDATA2:
    case PMT_CFI_PE_SDATA2:
        return 2;
    case PMT_CFI_PE_UDATA4:
    case PMT_CFI_PE_SDATA4:
        return 4;
    case PMT_CFI_PE_ABSPTR:
    case PMT_CFI_PE_SIGNED:
    case PMT_CFI_PE_UDATA8:
    case PMT_CFI_PE_SDATA8:
        return 8;
    default:
        return 0;
    }
}

/* The first entry of a function that begins behind the address. */
static uint64_t
first_behind(pmt__cfi_cursor c, uint8_t encoding, size_t size, uint64_t count, uint64_t address,
             uint64_t data)
{
    const uint8_t *entries = c.at;
    uint64_t low = 0, high = count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        c.at = entries + middle * 2 * size;
        if (pmt__cfi_pointer_get(&c, encoding, data) <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The same for distances of 4 bytes from the header, which is what linkers write: the search is a large part of what a rule costs. */
static uint64_t
first_behind_usual(const uint8_t *entries, uint64_t count, uint64_t address, uint64_t data)
{
    uint64_t low = 0, high = count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int32_t distance;
        memcpy(&distance, entries + middle * 8, sizeof distance);
        if (data + (uint64_t)(int64_t)distance <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

uint64_t
pmt__cfi_search(pmt__cfi_range range, const uint8_t *header, uint64_t address)
{
    pmt__cfi_cursor c = {header, range.end, 0};
    if (header < range.start || header > range.end || pmt__cfi_byte_get(&c) != 1) {
        return 0;
    }
    uint8_t frames_encoding = pmt__cfi_byte_get(&c), count_encoding = pmt__cfi_byte_get(&c),
            encoding = pmt__cfi_byte_get(&c);
    if (count_encoding == PMT_CFI_PE_OMIT || encoding == PMT_CFI_PE_OMIT) {
        return 0;
    }
    uint64_t data = (uintptr_t)header;
    if (frames_encoding != PMT_CFI_PE_OMIT) {
        pmt__cfi_pointer_get(&c, frames_encoding & (uint8_t)~PMT_CFI_PE_INDIRECT, data);
    }
    uint64_t count =
        count_encoding & PMT_CFI_PE_INDIRECT ? 0 : pmt__cfi_pointer_get(&c, count_encoding, data);
    size_t size = fixed_size(encoding);
    if (c.bad || size == 0 || count > (uint64_t)(c.end - c.at) / (2 * size)) {
        return 0;
    }
    const uint8_t *entries = c.at;
    uint64_t behind = encoding == (PMT_CFI_PE_DATAREL | PMT_CFI_PE_SDATA4)
                          ? first_behind_usual(entries, count, address, data)
                          : first_behind(c, encoding, size, count, address, data);
    if (behind == 0) {
        return 0;
    }
    c.at = entries + (behind - 1) * 2 * size + size;
    uint64_t fde = pmt__cfi_pointer_get(&c, encoding, data);
    return c.bad ? 0 : fde;
}
