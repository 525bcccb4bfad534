/* The shadow: which cohort a live block belongs to, in address order.

   Two levels: a directory of 2^21 pointers for 47 bits of address, each to a leaf of one u32 per 16 bytes for 64 MiB of
   addresses (16 MiB of table, committed by pages of 4 KiB = 16 KiB of addresses). A free is two loads and a store, without
   hashing. Values:

     0                       no block that we know starts here
     0 0 | cohort id         (the two highest bits, then 30) the block's cohort, 1 ...
     0 1 | 30 bits of a size the inside of a large block, see below
     1 0 | cohort id or 0    somebody must be told when the block is freed (a code object, a thread state)

   A block of more than 512 bytes keeps its size in the two entries behind its first one: no other block can start there. They are
   cleared when it dies. If its free was missed, they stay: that is why they cannot be taken for an id. */
#ifndef PMT_RECORD_SHADOW_H
#define PMT_RECORD_SHADOW_H

#include "record/tables.h"

#define PMT_SHADOW_LEAF_SHIFT 26
#define PMT_SHADOW_DIRECTORY ((size_t)1 << (47 - PMT_SHADOW_LEAF_SHIFT))
#define PMT_SHADOW_ENTRIES ((size_t)1 << (PMT_SHADOW_LEAF_SHIFT - 4))

#define PMT_SHADOW_WATCHED 0x80000000u
#define PMT_SHADOW_SIZE 0x40000000u
#define PMT_SHADOW_ID(value) ((value) & 0x3fffffffu)
#define PMT_SHADOW_IS_SIZE(value) \
    (((value) & (PMT_SHADOW_WATCHED | PMT_SHADOW_SIZE)) == PMT_SHADOW_SIZE)
#define PMT_SHADOW_IS_PLAIN(value) \
    ((value) - 1u < PMT_SHADOW_SIZE - 1u) /* a cohort id and nothing else */
/* Is a block known to start here, in whatever state? */
#define PMT_SHADOW_IS_BLOCK(value) ((value) != 0 && !PMT_SHADOW_IS_SIZE(value))

/* Makes the leaf for an address; NULL if memory ran out or the address is beyond 47 bits. May race with itself. */
uint32_t *pmt__shadow_leaf_new(uintptr_t address);

PMT_INLINE uint32_t *
pmt__shadow_leaf(uintptr_t index)
{
    return PMT_LIKELY(index < PMT_SHADOW_DIRECTORY)
               ? __atomic_load_n(&pmt__t.shadow[index], __ATOMIC_ACQUIRE)
               : NULL;
}

/* The entry of an address for writing; NULL if there can be none. */
PMT_INLINE uint32_t *
pmt__shadow_make(const void *block)
{
    uintptr_t address = (uintptr_t)block;
    uintptr_t index = address >> PMT_SHADOW_LEAF_SHIFT;
    uint32_t *leaf = pmt__shadow_leaf(index);
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
    uint32_t *leaf = pmt__shadow_leaf(index);
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
    *low = PMT_SHADOW_SIZE | (uint32_t)(size & 0x3fffffffu);
    *high = PMT_SHADOW_SIZE | (uint32_t)(size >> 30 & 0x3fffffffu);
    return 0;
}

/* The size of a large block, which stays there; 0 if there is none. */
static inline uint64_t
pmt__shadow_size_get(const void *block)
{
    const uint32_t *low = pmt__shadow_find((const char *)block + 16);
    const uint32_t *high = pmt__shadow_find((const char *)block + 32);
    if (low == NULL || high == NULL || !PMT_SHADOW_IS_SIZE(*low) || !PMT_SHADOW_IS_SIZE(*high)) {
        return 0;
    }
    return PMT_SHADOW_ID(*low) | (uint64_t)PMT_SHADOW_ID(*high) << 30;
}

static inline uint64_t
pmt__shadow_size_take(const void *block)
{
    uint64_t size = pmt__shadow_size_get(block);
    if (size != 0) {
        *pmt__shadow_find((const char *)block + 16) = 0;
        *pmt__shadow_find((const char *)block + 32) = 0;
    }
    return size;
}

/* Marks a block so that its free comes by the slow way and can be told to those who watch. */
static inline void
pmt__shadow_watch(const void *block)
{
    uint32_t *entry = pmt__shadow_make(block);
    if (entry == NULL) {
        return;
    }
    *entry = PMT_SHADOW_WATCHED | (PMT_SHADOW_IS_SIZE(*entry) ? 0 : PMT_SHADOW_ID(*entry));
}

/* Resident bytes of all leaves (asks the system; not for hooks). */
uint64_t pmt__shadow_bytes(void);
void pmt__shadow_discard(void);

#endif
