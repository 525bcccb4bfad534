/* What pages of the address space are for: two bits per page, in a table of two levels.

   Ranges are noted where they are made (our own mappings, pymalloc's arenas, memory for frames) by threads that hold different
   locks or none, in the middle of allocations, and across forks. So there is no list and no lock here: a range sets the bits of
   its pages, with atomic instructions because neighbours share a word. Whoever measures asks page by page, or for runs.

   A leaf covers 1 GiB of addresses with 64 KiB, of which only what is used becomes resident: 64 KiB of table per GiB of arenas. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/platform.h"

#define PAGE_SHIFT 12 /* finer than the system's pages, if those are larger */
#define LEAF_SHIFT 30
#define LEAVES ((size_t)1 << (47 - LEAF_SHIFT))
#define PER_WORD 32u
#define LEAF_WORDS ((size_t)1 << (LEAF_SHIFT - PAGE_SHIFT - 5))
#define EVERY_PAGE UINT64_C(0x5555555555555555)

static uint64_t *leaves[LEAVES]; /* atomic: whoever makes one; they stay for ever */

static uint64_t *
leaf_find(uintptr_t address)
{
    size_t index = address >> LEAF_SHIFT;
    return index < LEAVES ? __atomic_load_n(&leaves[index], __ATOMIC_ACQUIRE) : NULL;
}

static uint64_t *
leaf_make(uintptr_t address)
{
    uint64_t *leaf = leaf_find(address);
    if (leaf != NULL || address >> LEAF_SHIFT >= LEAVES) {
        return leaf;
    }
    size_t size = LEAF_WORDS * sizeof(uint64_t);
    long pages = syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == -1) {
        return NULL;
    }
    uint64_t *made = (uint64_t *)pages;
    if (!__atomic_compare_exchange_n(&leaves[address >> LEAF_SHIFT], &leaf, made, 0,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        syscall(SYS_munmap, made, size);
        return leaf;
    }
    pmt__pages_note(made, size, PMT_PAGES_OWN);
    return made;
}

void
pmt__pages_note(const void *start, size_t size_bytes, pmt__pages_use use)
{
    int saved = errno;
    uintptr_t page = (uintptr_t)start >> PAGE_SHIFT;
    uintptr_t end = ((uintptr_t)start + size_bytes + ((1u << PAGE_SHIFT) - 1)) >> PAGE_SHIFT;
    while (page < end) {
        uintptr_t next = (page | (PER_WORD - 1)) + 1;
        uintptr_t to = next < end ? next : end;
        uint64_t *leaf = use == PMT_PAGES_UNKNOWN ? leaf_find(page << PAGE_SHIFT)
                                                  : leaf_make(page << PAGE_SHIFT);
        if (leaf != NULL) {
            unsigned from_bit = (unsigned)(page % PER_WORD) * 2;
            unsigned bits = (unsigned)(to - page) * 2;
            uint64_t mask = (bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1) << from_bit;
            uint64_t *word = &leaf[page / PER_WORD % LEAF_WORDS];
            __atomic_fetch_and(word, ~mask, __ATOMIC_RELAXED);
            __atomic_fetch_or(word, mask & EVERY_PAGE * (uint64_t)use, __ATOMIC_RELAXED);
        }
        page = to;
    }
    errno = saved;
}

pmt__pages_use
pmt__pages_use_at(uintptr_t address, uintptr_t end, uintptr_t *run_end)
{
    uintptr_t page = address >> PAGE_SHIFT;
    uintptr_t last = (end + ((1u << PAGE_SHIFT) - 1)) >> PAGE_SHIFT;
    pmt__pages_use use = PMT_PAGES_UNKNOWN;
    for (int first = 1; page < last; first = 0) {
        const uint64_t *leaf = leaf_find(page << PAGE_SHIFT);
        if (leaf == NULL) {
            if (!first && use != PMT_PAGES_UNKNOWN) {
                break;
            }
            page = (page | ((UINT64_C(1) << (LEAF_SHIFT - PAGE_SHIFT)) - 1)) + 1;
            continue;
        }
        uint64_t word = __atomic_load_n(&leaf[page / PER_WORD % LEAF_WORDS], __ATOMIC_RELAXED);
        unsigned at = (unsigned)(page % PER_WORD);
        if (first) {
            use = (pmt__pages_use)(word >> at * 2 & 3);
        }
        uint64_t differs = (word ^ EVERY_PAGE * (uint64_t)use) >> at * 2;
        if (differs != 0) {
            page += (unsigned)__builtin_ctzll(differs) / 2;
            break;
        }
        page = (page | (PER_WORD - 1)) + 1;
    }
    uintptr_t found = page << PAGE_SHIFT;
    *run_end = found < end ? found : end;
    return use;
}
