/* A hash index over entries that live elsewhere in an array: it maps a hash to positions in that
   array, and the caller says whether the entry there is the one it means.

   Open addressing with linear probing. Half of each slot is the upper half of the hash, the tag: it
   gives the slot's home, tells most mismatches without a look at the entry, and makes growing
   possible without hashing the entries again. */
#ifndef PMT_BASE_INDEX_H
#define PMT_BASE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"

#define PMT_INDEX_NONE UINT32_MAX

typedef struct pmt__index_slot {
    uint32_t tag;  /* from the hash */
    uint32_t next; /* position + 1; 0 = free */
} pmt__index_slot;

typedef struct pmt__index {
    const pmt_allocator *allocator; /* borrowed */
    pmt__index_slot *slots;         /* owned */
    size_t mask;
    size_t count;
} pmt__index;

/* The walk over the entries whose hash fits: `for (p = first(&w, …); p != NONE; p = next(&w))`. */
typedef struct pmt__index_walk {
    const pmt__index *index;
    size_t at;
    uint32_t tag;
} pmt__index_walk;

void pmt__index_init(pmt__index *self, const pmt_allocator *allocator);
void pmt__index_dispose(pmt__index *self);
void pmt__index_clear(pmt__index *self); /* forgets the entries, keeps the memory */

/* Adds a position (< PMT_INDEX_NONE) without looking for equal ones. False: out of memory. */
bool pmt__index_add(pmt__index *self, uint64_t hash, uint32_t position);

uint32_t pmt__index_next(pmt__index_walk *walk);

static inline uint64_t
pmt__hash_u64(uint64_t value)
{
    /* The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
       generators, OOPSLA 2014). */
    value ^= value >> 30;
    value *= UINT64_C(0xbf58476d1ce4e5b9);
    value ^= value >> 27;
    value *= UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

static inline uint64_t
pmt__hash_pair(uint64_t a, uint64_t b)
{
    return pmt__hash_u64(pmt__hash_u64(a) + b);
}

static inline uint32_t
pmt__index_first(pmt__index_walk *walk, const pmt__index *self, uint64_t hash)
{
    walk->index = self;
    walk->at = (size_t)(hash >> 32);
    walk->tag = (uint32_t)(hash >> 32);
    return pmt__index_next(walk);
}

#endif
