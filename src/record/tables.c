#include "record/tables.h"

#include <stdbool.h>
#include <string.h>

#include "platform/platform.h"
#include "pymemtrace/error.h"
#include "record/gate.h"
#include "record/lane.h"
#include "record/mixed.h"
#include "record/ranges.h"
#include "record/sample.h"
#include "record/shadow.h"

pmt__thread *pmt__threads_spare;
pmt__tables pmt__t
    __attribute__((aligned(64), visibility("hidden"))) = {.attention = PMT_ATTENTION_OFF};

/* --- the shadow's leaves --------------------------------------------------------------------------------------------------- */

static uint32_t *leaf_list; /* [leaf_count]: indices of the directory that have a leaf */
static uint32_t leaf_count; /* atomic: raised by whoever makes a leaf */

uint32_t *
pmt__shadow_leaf_new(uintptr_t address)
{
    uintptr_t index = address >> PMT_SHADOW_LEAF_SHIFT;
    if (index >= PMT_SHADOW_DIRECTORY) {
        return NULL;
    }
    uint32_t *leaf = pmt__pages_map_sparse(PMT_SHADOW_ENTRIES * sizeof(uint32_t));
    if (leaf == NULL) {
        return NULL;
    }
    uint32_t *expected = NULL;
    if (!__atomic_compare_exchange_n(&pmt__t.shadow[index], &expected, leaf, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        pmt__pages_unmap(leaf, PMT_SHADOW_ENTRIES * sizeof(uint32_t));
        return expected;
    }
    uint32_t at = __atomic_fetch_add(&leaf_count, 1, __ATOMIC_ACQ_REL);
    __atomic_store_n(&leaf_list[at], (uint32_t)index, __ATOMIC_RELEASE);
    return leaf;
}

uint64_t
pmt__shadow_bytes(void)
{
    uint64_t bytes = 0;
    uint32_t count = __atomic_load_n(&leaf_count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = __atomic_load_n(&leaf_list[i], __ATOMIC_ACQUIRE);
        const uint32_t *leaf = __atomic_load_n(&pmt__t.shadow[index], __ATOMIC_ACQUIRE);
        if (leaf != NULL) { /* NULL: index 0 of an entry that is being added */
            bytes += pmt__pages_resident(leaf, PMT_SHADOW_ENTRIES * sizeof(uint32_t));
        }
    }
    return bytes;
}

void
pmt__shadow_discard(void)
{
    uint32_t count = __atomic_load_n(&leaf_count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        if (pmt__t.shadow[leaf_list[i]] != NULL) {
            pmt__pages_discard(pmt__t.shadow[leaf_list[i]], PMT_SHADOW_ENTRIES * sizeof(uint32_t));
        }
    }
}

/* Once per process; both stay for ever. */
static int
shadow_create(void)
{
    if (leaf_list == NULL) {
        leaf_list = pmt__pages_map_sparse(PMT_SHADOW_DIRECTORY * sizeof(uint32_t));
    }
    if (pmt__t.shadow == NULL) {
        pmt__t.shadow = pmt__pages_map_sparse(PMT_SHADOW_DIRECTORY * sizeof(uint32_t *));
    }
    return leaf_list == NULL || pmt__t.shadow == NULL ? PMT_ERR_NOMEM : 0;
}

/* --- creation --------------------------------------------------------------------------------------------------------------- */

#define FIRST_HASH 4096u

/* What grows with the program, up to the limits. Not reserved at full size: that would be gone from the address space of a
   program whose address space is limited. */
#define NODE_REGIONS(X) X(nodes, sizeof(pmt__node), node_room)
#define BLOCK_REGIONS(X) X(code_of, sizeof(uint32_t), block_room)
#define SITE_REGIONS(X) X(sites, sizeof(pmt__site), site_room)
#define COHORT_REGIONS(X)                              \
    X(cohorts, sizeof(pmt__cohort), cohort_room)       \
    X(live_at_cut, sizeof(uint32_t), cohort_room)      \
    X(life_notes, sizeof(pmt__life_note), cohort_room) \
    X(dirty, sizeof(uint32_t), cohort_room)            \
    X(peaks[0].notes, sizeof(pmt__peak_note), cohort_room)
#define LARGE_REGIONS(X) X(large, sizeof(pmt__large), large_room)
#define CODE_REGIONS(X) X(codes, sizeof(pmt__code), code_room)
#define REGIONS(X)   \
    NODE_REGIONS(X)  \
    BLOCK_REGIONS(X) \
    SITE_REGIONS(X) COHORT_REGIONS(X) LARGE_REGIONS(X) CODE_REGIONS(X)
_Static_assert(PMT_PEAKS == 1, "one region of notes per peak");

#define FIRST_ROOM 16384u

/* macros that make statements */
/* clang-format off */
static int
regions_map(void)
{
    int rc = 0;
    pmt__t.node_room = pmt__t.block_room = pmt__t.site_room = pmt__t.cohort_room =
        pmt__t.large_room = pmt__t.code_room = FIRST_ROOM;
#define MAP(name, item, room)                                          \
    pmt__t.name = pmt__pages_map_sparse((item) * (size_t)pmt__t.room); \
    rc |= pmt__t.name == NULL;
    REGIONS(MAP)
#undef MAP
    return rc ? PMT_ERR_NOMEM : 0;
}

static void
regions_unmap(void)
{
#define UNMAP(name, item, room)                                  \
    pmt__pages_unmap(pmt__t.name, (item) * (size_t)pmt__t.room); \
    pmt__t.name = NULL;
    REGIONS(UNMAP)
#undef UNMAP
}

/* Doubles the regions of one kind, all or none. Where there is no memory the limit is reached: fold from here on. */
#define RESIZE(name, item, room)                                                                  \
    if (ok) {                                                                                     \
        void *pages = pmt__pages_resize(pmt__t.name, (item) * (size_t)from, (item) * (size_t)to); \
        if (pages != NULL) {                                                                      \
            pmt__t.name = pages;                                                                  \
        }                                                                                         \
        ok = pages != NULL;                                                                       \
        done += ok;                                                                               \
    }
#define UNDO(name, item, room)                                                                    \
    if (done > 0) {                                                                               \
        done--;                                                                                   \
        pmt__t.name = pmt__pages_resize(pmt__t.name, (item) * (size_t)to, (item) * (size_t)from); \
    }
#define GROW(kind, regions, reserve)                                                              \
    if (pmt__t.kind##_count + (reserve) >= pmt__t.kind##_room                                     \
        && pmt__t.kind##_room < pmt__t.kind##_limit) {                                            \
        uint32_t from = pmt__t.kind##_room, done = 0;                                             \
        uint32_t to = pmt__t.kind##_limit / 2 < from ? pmt__t.kind##_limit : from * 2;            \
        bool ok = true;                                                                           \
        regions(RESIZE)                                                                           \
        if (ok) {                                                                                 \
            pmt__t.kind##_room = to;                                                              \
        } else {                                                                                  \
            regions(UNDO)                                                                         \
            pmt__t.kind##_limit = from;                                                           \
        }                                                                                         \
    }

PMT_NOINLINE void
pmt__tables_grow_nopy(void)
{
    GROW(node, NODE_REGIONS, 1)
    GROW(block, BLOCK_REGIONS, pmt__t.blocks_wanted)
    GROW(site, SITE_REGIONS, PMT_FOLD_RESERVE)
    GROW(cohort, COHORT_REGIONS, PMT_FOLD_RESERVE)
    GROW(large, LARGE_REGIONS, 1)
    GROW(code, CODE_REGIONS, 1)
}
/* clang-format on */

static void
limits_set(uint64_t max_memory_bytes)
{
    /* A stack costs about 100 bytes with its site and cohort; the shadow, in proportion to the heap, is not limited. */
    uint64_t stacks = max_memory_bytes / 120;
    if (stacks < 20000) {
        stacks = 20000;
    }
    if (stacks > 32u << 20) {
        stacks = 32u << 20;
    }
    pmt__t.node_limit = (uint32_t)stacks;
    pmt__t.block_limit = (uint32_t)stacks;
    pmt__t.site_limit = (uint32_t)stacks;
    pmt__t.cohort_limit = (uint32_t)stacks;
    pmt__t.large_limit = (uint32_t)(stacks / 2);
    pmt__t.code_limit = (uint32_t)(stacks / 4);
}

static int
hashes_map(void)
{
    pmt__t.node_hash_mask = pmt__t.code_hash_mask = pmt__t.dead_hash_mask =
        pmt__t.string_hash_mask = FIRST_HASH - 1;
    pmt__t.node_hash = pmt__pages_map(FIRST_HASH * sizeof(uint32_t));
    pmt__t.code_hash = pmt__pages_map(FIRST_HASH * sizeof(uint32_t));
    pmt__t.dead_hash = pmt__pages_map(FIRST_HASH * sizeof(uint32_t));
    pmt__t.string_hash = pmt__pages_map(FIRST_HASH * 2 * sizeof(uint64_t));
    pmt__t.leaves = pmt__pages_map(sizeof(pmt__leaf) << PMT_LEAF_BITS);
    pmt__t.children = pmt__pages_map(sizeof(uint32_t) << PMT_CHILD_BITS);
    pmt__t.known = pmt__pages_map(sizeof(pmt__code_entry) << PMT_KNOWN_BITS);
    pmt__t.table_bytes = FIRST_HASH * (3 * sizeof(uint32_t) + 2 * sizeof(uint64_t))
                         + (sizeof(pmt__code_entry) << PMT_KNOWN_BITS)
                         + (sizeof(pmt__leaf) << PMT_LEAF_BITS)
                         + (sizeof(uint32_t) << PMT_CHILD_BITS);
    return pmt__t.node_hash == NULL || pmt__t.code_hash == NULL || pmt__t.dead_hash == NULL
                   || pmt__t.string_hash == NULL || pmt__t.leaves == NULL || pmt__t.children == NULL
                   || pmt__t.known == NULL
               ? PMT_ERR_NOMEM
               : 0;
}

/* The synthetic nodes and their names: string ids 1 and 2 by construction. */
static int
synthetic_define(void)
{
    static const char *const names[] = {"[no Python stack]", "[folded]"};
    for (uint32_t i = 0; i < PMT_NODE_FIRST; i++) {
        pmt__t.nodes[i].place = PMT_PLACE_NONE;
        if (i > 0) {
            pmt__text name = {names[i - 1], strlen(names[i - 1]), 1};
            if (pmt__string_intern_nopy(&name) != i) {
                return PMT_ERR_NOMEM;
            }
        }
    }
    pmt__t.node_count = PMT_NODE_FIRST;
    pmt__t.block_count = pmt__t.site_count = pmt__t.cohort_count = pmt__t.large_count =
        pmt__t.code_count = 1;
    return 0;
}

static void
clear(void)
{
    memset(&pmt__t.live_bytes, 0, sizeof pmt__t - offsetof(pmt__tables, live_bytes));
}

int
pmt__tables_create(const pmt__frame_source *source, uint64_t max_memory_bytes,
                   uint32_t temporaries_n)
{
    if (pmt__t.nodes != NULL) {
        pmt__tables_dispose(); /* those of the parent, after a fork */
    }
    clear();
    limits_set(max_memory_bytes);
    pmt__buffer_init(&pmt__t.new_strings);
    pmt__buffer_init(&pmt__t.new_codes);
    pmt__buffer_init(&pmt__t.new_lifetimes);
    if (shadow_create() < 0 || regions_map() < 0 || hashes_map() < 0) {
        pmt__tables_dispose();
        return PMT_ERR_NOMEM;
    }
    pmt__lanes_begin();
    pmt__ranges_begin();
    pmt__t.source = source;
    pmt__t.temporaries_n = temporaries_n;
    pmt__t.epoch = pmt__t.span_epoch = 1;
    pmt__t.epoch_key = 1u << PMT_KEY_EPOCH_SHIFT;
    pmt__t.cut = 1;
    pmt__t.cuts_per_epoch = 1;
    pmt__t.stamp = 1;
    pmt__t.peaks[0].run = 1;
    if (synthetic_define() < 0) {
        pmt__tables_dispose();
        return PMT_ERR_NOMEM;
    }
    pmt__t.node_flushed = 1; /* the root is not written */
    pmt__t.site_flushed = 1;
    pmt__t.code_flushed = 1;
    pmt__t.start_ns = pmt__clock_mono_ns();
    pmt__t.start_ticks = pmt__ticks();
    return 0;
}

void
pmt__tables_dispose(void)
{
    pmt__natives_dispose();
    pmt__sampling_dispose();
    regions_unmap();
    pmt__pages_unmap(pmt__t.node_hash, ((size_t)pmt__t.node_hash_mask + 1) * sizeof(uint32_t));
    pmt__pages_unmap(pmt__t.known, sizeof(pmt__code_entry) << PMT_KNOWN_BITS);
    pmt__pages_unmap(pmt__t.code_hash, ((size_t)pmt__t.code_hash_mask + 1) * sizeof(uint32_t));
    pmt__pages_unmap(pmt__t.dead_hash, ((size_t)pmt__t.dead_hash_mask + 1) * sizeof(uint32_t));
    pmt__pages_unmap(pmt__t.string_hash,
                     ((size_t)pmt__t.string_hash_mask + 1) * 2 * sizeof(uint64_t));
    pmt__pages_unmap(pmt__t.leaves, sizeof(pmt__leaf) << PMT_LEAF_BITS);
    pmt__pages_unmap(pmt__t.children, sizeof(uint32_t) << PMT_CHILD_BITS);
    pmt__buffer_dispose(&pmt__t.new_strings);
    pmt__buffer_dispose(&pmt__t.new_codes);
    pmt__buffer_dispose(&pmt__t.new_lifetimes);
    pmt__shadow_discard();
    for (pmt__thread *t = pmt__t.threads, *next; t != NULL; t = next) {
        next = t->next;
        size_t n = (size_t)t->capacity;
        pmt__pages_unmap(t->link, n * (sizeof(void *) + sizeof(pmt__link) + sizeof(uint32_t))
                                      + sizeof(uint32_t));
        memset(t, 0, offsetof(pmt__thread, position));
        t->next = pmt__threads_spare;
        pmt__threads_spare = t;
    }
    clear();
}

uint64_t
pmt__tables_bytes(void)
{
    return pmt__t.table_bytes + (uint64_t)pmt__t.node_count * sizeof(pmt__node)
           + (uint64_t)pmt__t.block_count * sizeof(uint32_t) + pmt__ranges_bytes()
           + pmt__natives_bytes() + pmt__sampling_bytes()
           + (uint64_t)pmt__t.site_count * sizeof(pmt__site)
           + (uint64_t)pmt__t.cohort_count
                 * (sizeof(pmt__cohort) + 2 * sizeof(uint32_t) + PMT_PEAKS * sizeof(pmt__peak_note))
           + (uint64_t)pmt__t.large_count * sizeof(pmt__large)
           + (uint64_t)pmt__t.code_count * sizeof(pmt__code) + pmt__t.new_strings.cap
           + pmt__t.new_codes.cap + pmt__t.new_lifetimes.cap;
}
