/* The shadow: which cohort a live block belongs to, in address order.

   Two levels: a directory of 2^21 pointers for 47 bits of address, each to a leaf of one u32 per 16 bytes for 64 MiB of
   addresses (16 MiB of table, committed by pages of 4 KiB = 16 KiB of addresses). A free is two loads and a store, without
   hashing. Values:

     0                       no block that we know starts here
     1 … 2^30 − 1            cohort id
     2^31 | cohort id        the same, and somebody must be told when it is freed (a code object, a thread state)
     2^31 | 2^30 | ticket    allocated without the GIL, its event still waits in the queue

   A block of more than 512 bytes keeps its size in the two entries behind its first one: no other block can start there.
   They are cleared when it dies. */
#ifndef PMT_RECORD_SHADOW_H
#define PMT_RECORD_SHADOW_H

#include "record/tables.h"

#define PMT_SHADOW_LEAF_SHIFT 26
#define PMT_SHADOW_DIRECTORY ((size_t)1 << (47 - PMT_SHADOW_LEAF_SHIFT))
#define PMT_SHADOW_ENTRIES ((size_t)1 << (PMT_SHADOW_LEAF_SHIFT - 4))

#define PMT_SHADOW_WATCHED 0x80000000u
#define PMT_SHADOW_PENDING 0xC0000000u
#define PMT_SHADOW_ID(value) ((value) & 0x3fffffffu)
#define PMT_SHADOW_IS_PENDING(value) ((value) >= PMT_SHADOW_PENDING)

/* Makes the leaf for an address; NULL if memory ran out or the address is beyond 47 bits. May race with itself. */
uint32_t *pmt__shadow_leaf_new(uintptr_t address);

/* The entry of an address for writing; NULL if there can be none. */
PMT_INLINE uint32_t *
pmt__shadow_make(const void *block)
{
    uintptr_t address = (uintptr_t)block;
    uintptr_t index = address >> PMT_SHADOW_LEAF_SHIFT;
    uint32_t *leaf = PMT_LIKELY(index < PMT_SHADOW_DIRECTORY) ? pmt__t.shadow[index] : NULL;
    if (PMT_UNLIKELY(leaf == NULL)) {
        leaf = pmt__shadow_leaf_new(address);
        if (leaf == NULL) {
            return NULL;
        }
    }
    return &leaf[(address >> 4) & (PMT_SHADOW_ENTRIES - 1)];
}

/* The entry of an address if it has one, else NULL. */
PMT_INLINE uint32_t *
pmt__shadow_find(const void *block)
{
    uintptr_t address = (uintptr_t)block;
    uintptr_t index = address >> PMT_SHADOW_LEAF_SHIFT;
    uint32_t *leaf = PMT_LIKELY(index < PMT_SHADOW_DIRECTORY) ? pmt__t.shadow[index] : NULL;
    return PMT_LIKELY(leaf != NULL) ? &leaf[(address >> 4) & (PMT_SHADOW_ENTRIES - 1)] : NULL;
}

/* A large block can reach over the end of its leaf, so each entry is looked up by its own address. 0, or -1: no memory. */
static inline int
pmt__shadow_size_put(const void *block, uint64_t size)
{
    uint32_t *low = pmt__shadow_make((const char *)block + 16);
    uint32_t *high = pmt__shadow_make((const char *)block + 32);
    if (low == NULL || high == NULL) {
        return -1;
    }
    *low = (uint32_t)size;
    *high = (uint32_t)(size >> 32);
    return 0;
}

static inline uint64_t
pmt__shadow_size_take(const void *block)
{
    uint32_t *low = pmt__shadow_find((const char *)block + 16);
    uint32_t *high = pmt__shadow_find((const char *)block + 32);
    if (low == NULL || high == NULL) {
        return 0;
    }
    uint64_t size = *low | (uint64_t)*high << 32;
    *low = *high = 0;
    return size;
}

/* Resident bytes of all leaves (asks the system; not for hooks). */
uint64_t pmt__shadow_bytes(void);
void pmt__shadow_discard(void);

#endif
