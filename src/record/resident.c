/* What the process' resident memory is made up of.

   The kernel tells the areas of the process and how much of each is resident. It does not tell what they are for, and it merges
   neighbours: arenas of pymalloc, large blocks of malloc and a library's own mapping are one area. So an area of anonymous memory is
   divided into extents by what is known of addresses, in this order:

     - what was noted when it was made (platform: our own pages, arenas, memory for frames);
     - the recorder's mappings of the domain mmap;
     - the stacks of the threads that run: each thread's descriptor lies at the upper end of its stack;
     - what the memory itself says: a heap of a glibc arena begins at a multiple of 64 MiB with a header; a block that malloc gave a
       mapping of its own begins a page with its size; a pool of pymalloc begins 16 KiB with a header that fits together. So the
       arenas that were there before the recording, and what others allocate unseen, are found on all versions without their
       internals;
     - what lies directly behind a guard is a stack of a thread that has ended (the C library keeps some), what lies directly behind
       the data of a library is its zero-initialised data.

   The page table says which pages of each extent are resident. The sum is held against what the kernel says of the area, never
   filled up: what nobody knows is counted as unknown.

   The process goes on meanwhile. Nothing is read by a load, because it may be gone; nothing is read that is not resident, because
   that would make it so; and an area that grew after the kernel told its size is scaled down to that. */
#include "record/resident.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "record/shadow.h"

#define WINDOW ((size_t)1 << 18) /* pages whose states are looked at at once */
#define AREAS_MAX ((size_t)1 << 20)
#define THREADS_MAX ((size_t)1 << 14)
#define HEAP_ALIGNMENT ((uintptr_t)64 << 20) /* of glibc's heaps for threads */
#define CHUNK_MIN \
    ((uint64_t)64 << 10) /* less is hardly given a mapping, and may be data that looks so */
#define DESCRIPTOR_BYTES \
    4096u /* from the part of a thread's descriptor that we know to its end, or more */
#define GUARD_MAX ((uint64_t)64 << 10)
#define MISSES_MAX ((size_t)4096)
#define PEEK 64 /* bytes that are looked at where something may begin */
/* An area with so many more pages than resident ones is not looked at page by page. */
#define SPARSE(pages, resident) ((pages) > ((size_t)1 << 24) && (pages) / 64 > (resident))

_Static_assert(PEEK >= PMT_POOL_HEADER, "a pool's header is peeked at");

void
pmt__measure_init(pmt__measure *self)
{
    memset(self, 0, sizeof *self);
}

void
pmt__measure_dispose(pmt__measure *self)
{
    pmt__pages_unmap(self->areas, self->area_room * sizeof *self->areas);
    pmt__pages_unmap(self->ranges, self->range_room * sizeof *self->ranges);
    pmt__pages_unmap(self->stacks, THREADS_MAX * sizeof *self->stacks);
    pmt__pages_unmap(self->states, WINDOW);
    pmt__measure_init(self);
}

uint64_t
pmt__measure_bytes(const pmt__measure *self)
{
    return self->area_room * sizeof *self->areas + self->range_room * sizeof *self->ranges
           + (self->stacks == NULL ? 0 : self->stack_count * sizeof *self->stacks)
           + (self->states == NULL ? 0 : WINDOW);
}

/* Room for `wanted` items; 0 if there is no memory. */
static int
grow(void **items, size_t *room, size_t wanted, size_t item_bytes)
{
    size_t to = *room == 0 ? 512 : *room;
    while (to < wanted) {
        to *= 2;
    }
    if (to == *room) {
        return 1;
    }
    void *more = *room == 0 ? pmt__pages_map(to * item_bytes)
                            : pmt__pages_resize(*items, *room * item_bytes, to * item_bytes);
    if (more == NULL) {
        return 0;
    }
    *items = more;
    *room = to;
    return 1;
}

void
pmt__measure_prepare_nopy(pmt__measure *self)
{
    size_t count = pmt__ranges_copy_nopy(self->ranges, self->range_room);
    if (count > self->range_room) {
        void *ranges = self->ranges;
        if (grow(&ranges, &self->range_room, count, sizeof *self->ranges)) {
            self->ranges = ranges;
            count = pmt__ranges_copy_nopy(self->ranges, self->range_room);
        }
    }
    self->range_count = count < self->range_room ? count : self->range_room;
}

/* --- what memory looks like ------------------------------------------------------------------------------------------------- */

static uint64_t
word_at(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static uint32_t
half_at(const uint8_t *bytes)
{
    uint32_t half;
    memcpy(&half, bytes, sizeof half);
    return half;
}

int
pmt__pool_parse(const uint8_t header[PMT_POOL_HEADER], uint32_t *size_class, uint32_t *blocks)
{
    uint32_t count = half_at(header), class = half_at(header + 36);
    uint32_t next = half_at(header + 40), last = half_at(header + 44);
    if (class >= PMT_RESIDENT_CLASSES) {
        return 0;
    }
    uint32_t size = (class + 1) * 16;
    uint32_t capacity = (uint32_t)((PMT_POOL_SIZE - PMT_POOL_HEADER) / size);
    if (last != PMT_POOL_SIZE - size || next < PMT_POOL_HEADER + size || next > PMT_POOL_SIZE
        || (next - PMT_POOL_HEADER) % size != 0 || count > capacity) {
        return 0;
    }
    *size_class = class;
    *blocks = count;
    return 1;
}

uint64_t
pmt__chunk_parse(const uint8_t *page, size_t size, size_t *block)
{
    enum {
        FLAGS = 7,
        HAS_MAPPING = 2
    };
    uint64_t page_bytes = pmt__page_size();
    /* An aligned block lies further inside; its header says how far. */
    for (size_t offset = 0; offset + 16 <= size; offset = 2 * offset + 16) {
        uint64_t before = word_at(page + offset), field = word_at(page + offset + 8);
        uint64_t total = offset + (field & ~(uint64_t)FLAGS);
        if (total % page_bytes == page_bytes - 16) {
            total += 16; /* newer versions leave the header out of the size */
        }
        if (before == offset && (field & FLAGS) == HAS_MAPPING && field < (uint64_t)1 << 47
            && total % page_bytes == 0 && total >= CHUNK_MIN) {
            *block = offset + 16;
            return total;
        }
    }
    return 0;
}

/* The bytes of a heap for threads that can be in use, told by its header; 0: it is none. */
static uint64_t
heap_parse(uintptr_t address, const uint8_t *header, bool *first)
{
    uint64_t arena = word_at(header), previous = word_at(header + 8);
    uint64_t size = word_at(header + 16), writable = word_at(header + 24);
    uint64_t page = pmt__page_size();
    *first = previous == 0;
    if (arena == 0 || size == 0 || size % page != 0 || writable % page != 0 || writable < size
        || writable > HEAP_ALIGNMENT || previous % HEAP_ALIGNMENT != 0) {
        return 0;
    }
    return *first && arena - address >= page ? 0 : writable;
}

/* --- one area ---------------------------------------------------------------------------------------------------------------- */

/* Pages by what they are for: PMT_RESIDENT_* of bytes. */
typedef struct tally {
    uint64_t sure[PMT_RESIDENT_BY_PAGES];
    uint64_t maybe[PMT_RESIDENT_BY_PAGES];
} tally;

typedef struct walk {
    pmt__measure *measure;
    const pmt__area *area;
    tally pages;
    size_t page_bytes;
    uintptr_t window, window_end; /* whose states are known */
    uintptr_t reach;              /* up to where areas like this one follow without a gap */
    /* What a header said that lies before; it may do so in the area before (madvise divides areas). */
    uintptr_t until;
    unsigned until_use;
    unsigned unless; /* the use of what no header explains */
    bool at_border;  /* something else ends here, so that something can begin */
    /* Headers that were read ahead. */
    uint8_t peeked[256][PEEK];
    uintptr_t peeked_at[256];
    size_t peeked_count, peeked_next, ahead;
    size_t misses; /* pages on which nothing began, since something did */
} walk;

static void
value_add(pmt__measure *self, unsigned which, uint64_t value)
{
    self->result.value[which] += value;
}

static uint8_t
state_of(const walk *self, uintptr_t address)
{
    return self->measure->states[(address - self->window) / self->page_bytes];
}

static void
pages_count(walk *self, uintptr_t from, uintptr_t to, unsigned use)
{
    const uint8_t *states = self->measure->states;
    size_t end = (to - self->window) / self->page_bytes;
    uint64_t sure = 0, maybe = 0;
    for (size_t i = (from - self->window) / self->page_bytes; i < end; i++) {
        sure += states[i] == PMT_PAGE_PRESENT;
        maybe += states[i] == PMT_PAGE_MAYBE;
    }
    self->pages.sure[use] += sure;
    self->pages.maybe[use] += maybe;
}

static void
pool_count(pmt__measure *self, const uint8_t *header, uint64_t resident_bytes)
{
    uint32_t class, blocks;
    if (!pmt__pool_parse(header, &class, &blocks) || blocks == 0) {
        value_add(self, PMT_RESIDENT_POOLS_EMPTY, resident_bytes);
        return;
    }
    value_add(self, PMT_RESIDENT_POOLS, 1);
    value_add(self, PMT_RESIDENT_POOLS_USED, (uint64_t)blocks * (class + 1) * 16);
    self->result.classes[class].pools++;
    self->result.classes[class].blocks += blocks;
}

static uint64_t
resident_in(const walk *self, uintptr_t from, size_t size)
{
    uint64_t bytes = 0;
    for (uintptr_t at = from; at < from + size && at < self->window_end; at += self->page_bytes) {
        bytes += state_of(self, at) == PMT_PAGE_PRESENT ? self->page_bytes : 0;
    }
    return bytes;
}

/* The pools of an extent of arenas. */
static void
pools_count(walk *self, uintptr_t from, uintptr_t to)
{
    uintptr_t at = (from + PMT_POOL_SIZE - 1) & ~(uintptr_t)(PMT_POOL_SIZE - 1);
    while (at < to) {
        size_t n = 0;
        for (; at < to && n < 256; at += PMT_POOL_SIZE) {
            if (state_of(self, at) != PMT_PAGE_ABSENT) {
                self->peeked_at[n++] = at;
            }
        }
        pmt__process_peek_each(self->peeked_at, n, self->peeked, PEEK);
        for (size_t i = 0; i < n; i++) {
            pool_count(self->measure, self->peeked[i],
                       resident_in(self, self->peeked_at[i], PMT_POOL_SIZE));
        }
    }
    self->peeked_count = 0;
}

/* What stands at the beginning of a resident page. Reads ahead, the further the longer nothing is found. */
static const uint8_t *
peek(walk *self, uintptr_t address, uintptr_t end)
{
    while (self->peeked_next < self->peeked_count && self->peeked_at[self->peeked_next] < address) {
        self->peeked_next++;
    }
    if (self->peeked_next == self->peeked_count || self->peeked_at[self->peeked_next] != address) {
        self->ahead = self->ahead == 0 ? 2 : self->ahead < 256 ? self->ahead * 2 : 256;
        size_t n = 0;
        for (uintptr_t at = address; at < end && n < self->ahead; at += self->page_bytes) {
            if (state_of(self, at) != PMT_PAGE_ABSENT) {
                self->peeked_at[n++] = at;
            }
        }
        pmt__process_peek_each(self->peeked_at, n, self->peeked, PEEK);
        self->peeked_count = n;
        self->peeked_next = 0;
    }
    return self->peeked[self->peeked_next];
}

/* Requested bytes of the block, if the recorder knows it. Debug allocators give out what lies 16 bytes further inside. */
static uint64_t
requested_at(uintptr_t block)
{
    for (uintptr_t at = block; at <= block + 16; at += 16) {
        const uint32_t *entry = pmt__t.shadow == NULL ? NULL : pmt__shadow_find((const void *)at);
        if (entry != NULL && PMT_SHADOW_IS_BLOCK(__atomic_load_n(entry, __ATOMIC_RELAXED))) {
            return pmt__shadow_size_get((const void *)at);
        }
    }
    return 0;
}

static void
chunk_found(walk *self, uintptr_t address, uint64_t total, size_t block)
{
    uint64_t requested = requested_at(address + block);
    value_add(self->measure, PMT_RESIDENT_CHUNKS_MAPPED, total);
    value_add(self->measure, PMT_RESIDENT_CHUNKS_COUNT, 1);
    value_add(self->measure, PMT_RESIDENT_CHUNKS_REQUESTED, requested < total ? requested : total);
    self->until = address + total;
    self->until_use = PMT_RESIDENT_CHUNKS;
}

/* Does something begin here that explains what follows? Then `until` lies behind it. */
static bool
header_found(walk *self, uintptr_t address, uintptr_t end)
{
    const uint8_t *header = peek(self, address, end);
    uint64_t left = self->reach - address;
    bool first;
    if (address % HEAP_ALIGNMENT == 0) {
        uint64_t size = heap_parse(address, header, &first);
        if (size != 0) {
            size = size < left ? size : left;
            value_add(self->measure, PMT_RESIDENT_HEAPS_MAPPED, size);
            value_add(self->measure, PMT_RESIDENT_HEAPS_ARENAS, first);
            self->until = address + size;
            self->until_use = PMT_RESIDENT_HEAPS;
            return true;
        }
    }
    size_t block;
    uint64_t total = pmt__chunk_parse(header, 16, &block);
    if (total == 0 && self->at_border) {
        uint8_t page[4096];
        total = pmt__process_peek(address, page, sizeof page)
                    ? pmt__chunk_parse(page, sizeof page, &block)
                    : 0;
    }
    if (total != 0 && total <= left) {
        chunk_found(self, address, total, block);
        return true;
    }
    uint32_t class, blocks;
    if (address % PMT_POOL_SIZE == 0 && left >= PMT_POOL_SIZE
        && pmt__pool_parse(header, &class, &blocks)) {
        pool_count(self->measure, header, resident_in(self, address, PMT_POOL_SIZE));
        pmt__pages_note((const void *)address, PMT_POOL_SIZE, PMT_PAGES_ARENA);
        value_add(self->measure, PMT_RESIDENT_ARENAS_MAPPED, PMT_POOL_SIZE);
        self->until = address + PMT_POOL_SIZE;
        self->until_use = PMT_RESIDENT_ARENAS;
        return true;
    }
    return false;
}

/* The stack that this address lies in, or NULL. */
static const pmt__extent *
extent_find(const pmt__extent *list, size_t count, uintptr_t address)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (list[middle].end <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count ? &list[low] : NULL; /* it contains the address or lies behind it */
}

/* An extent that nobody has noted. */
static void
unknown_count(walk *self, uintptr_t from, uintptr_t to)
{
    const pmt__measure *measure = self->measure;
    for (uintptr_t at = from; at < to;) {
        if (at < self->until) {
            uintptr_t end = self->until < to ? self->until : to;
            pages_count(self, at, end, self->until_use);
            self->at_border = true;
            self->unless = PMT_RESIDENT_UNKNOWN;
            self->ahead = 0;
            self->misses = 0;
            at = end;
            continue;
        }
        const pmt__extent *stack = extent_find(measure->stacks, measure->stack_count, at);
        if (stack != NULL && stack->start <= at) {
            self->until = stack->end;
            self->until_use = PMT_RESIDENT_STACKS;
            continue;
        }
        if (state_of(self, at) != PMT_PAGE_ABSENT && header_found(self, at, to)) {
            continue;
        }
        if (state_of(self, at) != PMT_PAGE_ABSENT) {
            self->at_border = false;
            self->misses++;
        }
        /* Where nothing has been found for long, something else hardly begins without a border. */
        uintptr_t step = self->misses > MISSES_MAX ? 16 * self->page_bytes : self->page_bytes;
        uintptr_t end = to - at < step ? to : at + step;
        pages_count(self, at, end, self->unless);
        at = end;
    }
}

static void
window_count(walk *self)
{
    static const unsigned uses[] = {[PMT_PAGES_OWN] = PMT_RESIDENT_OWN,
                                    [PMT_PAGES_ARENA] = PMT_RESIDENT_ARENAS,
                                    [PMT_PAGES_FRAMES] = PMT_RESIDENT_FRAMES};
    pmt__measure *measure = self->measure;
    for (uintptr_t at = self->window, end; at < self->window_end; at = end) {
        pmt__pages_use use = pmt__pages_use_at(at, self->window_end, &end);
        if (use != PMT_PAGES_UNKNOWN) {
            pages_count(self, at, end, uses[use]);
            if (use == PMT_PAGES_ARENA) {
                value_add(measure, PMT_RESIDENT_ARENAS_MAPPED, end - at);
                pools_count(self, at, end);
            }
            self->at_border = true;
            self->unless = PMT_RESIDENT_UNKNOWN;
            continue;
        }
        const pmt__extent *range = extent_find(measure->ranges, measure->range_count, at);
        if (range != NULL && range->start <= at) {
            /* a mapping ends at a byte, its pages end later */
            uintptr_t last =
                (range->end + self->page_bytes - 1) & ~(uintptr_t)(self->page_bytes - 1);
            end = last < end ? last : end;
            pages_count(self, at, end, PMT_RESIDENT_MAPPINGS);
            value_add(measure, PMT_RESIDENT_MAPPINGS_MAPPED, end - at);
            self->at_border = true;
            self->unless = PMT_RESIDENT_UNKNOWN;
            continue;
        }
        if (range != NULL && range->start < end) {
            end = range->start & ~(uintptr_t)(self->page_bytes - 1);
            end = end <= at ? at + self->page_bytes : end;
        }
        unknown_count(self, at, end);
    }
}

/* Makes bytes of pages: of those that may be the page of zeros as many as the kernel has counted. */
static void
tally_settle(walk *self)
{
    uint64_t sure = 0, maybe = 0;
    for (unsigned i = 0; i < PMT_RESIDENT_BY_PAGES; i++) {
        sure += self->pages.sure[i];
        maybe += self->pages.maybe[i];
    }
    uint64_t rss = self->area->rss_bytes / self->page_bytes;
    uint64_t rest = rss > sure ? rss - sure : 0;
    rest = rest < maybe ? rest : maybe;
    for (unsigned i = 0; i < PMT_RESIDENT_BY_PAGES; i++) {
        uint64_t pages = self->pages.sure[i];
        if (sure > rss) {
            pages = (uint64_t)((double)pages * (double)rss / (double)sure);
        }
        if (maybe != 0) {
            pages += (uint64_t)((double)self->pages.maybe[i] * (double)rest / (double)maybe);
        }
        value_add(self->measure, i, pages * self->page_bytes);
    }
}

/* The whole area in one, where the pages cannot be seen. */
static void
area_count_whole(pmt__measure *self, const pmt__area *area)
{
    uintptr_t end;
    pmt__pages_use use = pmt__pages_use_at(area->start, area->end, &end);
    const pmt__extent *range = extent_find(self->ranges, self->range_count, area->start);
    unsigned which = PMT_RESIDENT_UNKNOWN;
    if (end == area->end && use != PMT_PAGES_UNKNOWN) {
        which = use == PMT_PAGES_OWN     ? PMT_RESIDENT_OWN
                : use == PMT_PAGES_ARENA ? PMT_RESIDENT_ARENAS
                                         : PMT_RESIDENT_FRAMES;
    } else if (range != NULL && range->start <= area->start && range->end >= area->end) {
        which = PMT_RESIDENT_MAPPINGS;
    }
    value_add(self, which, area->rss_bytes);
}

static walk the_walk; /* owned by the caller of pmt__measure_run */

static uintptr_t
reach_of(const pmt__measure *self, const pmt__area *area)
{
    const pmt__area *end = self->areas + self->area_count;
    const pmt__area *last = area;
    while (last + 1 < end && last[1].start == last->end && last[1].kind == area->kind
           && (last[1].flags & PMT_AREA_IS_OWN) == 0
           && last[1].end - area->start <= (uint64_t)1 << 40) {
        last++;
    }
    return last->end;
}

static void
area_count_pages(pmt__measure *self, const pmt__area *area, const pmt__area *before)
{
    walk *w = &the_walk;
    memset(&w->pages, 0, sizeof w->pages);
    w->measure = self;
    w->area = area;
    if (area->end > w->reach) {
        w->reach = reach_of(self, area);
    }
    w->page_bytes = pmt__page_size();
    w->unless = PMT_RESIDENT_UNKNOWN;
    w->at_border = true;
    w->misses = 0;
    if (before != NULL && before->end == area->start) {
        if ((before->flags & (PMT_AREA_READABLE | PMT_AREA_WRITABLE)) == 0
            && before->end - before->start <= GUARD_MAX) {
            w->unless = PMT_RESIDENT_STACKS;
        } else if (before->kind == PMT_AREA_FILE && (before->flags & PMT_AREA_WRITABLE)) {
            w->unless = PMT_RESIDENT_FILES_PRIVATE;
        }
    }
    size_t pages = (area->end - area->start) / w->page_bytes;
    if (SPARSE(pages, area->rss_bytes / w->page_bytes)) {
        area_count_whole(self, area);
        return;
    }
    for (uintptr_t at = area->start; at < area->end; at = w->window_end) {
        size_t left = (area->end - at) / w->page_bytes;
        size_t count = left < WINDOW ? left : WINDOW;
        w->window = at;
        w->window_end = at + count * w->page_bytes;
        w->peeked_count = 0;
        if (count == 0) {
            break;
        }
        if (pmt__process_pages(at, count, self->states) < 0) {
            if (at == area->start) {
                self->result.value[PMT_RESIDENT_BY_PAGES] = 0;
                area_count_whole(self, area);
                return;
            }
            break;
        }
        window_count(w);
    }
    tally_settle(w);
}

static void
area_count(pmt__measure *self, const pmt__area *area, const pmt__area *before)
{
    uint64_t rss = area->rss_bytes;
    value_add(self, PMT_RESIDENT_RSS, rss);
    value_add(self, PMT_RESIDENT_SWAP, area->swap_bytes);
    switch (area->kind) {
    case PMT_AREA_HEAP:
        value_add(self, PMT_RESIDENT_HEAP, rss);
        value_add(self, PMT_RESIDENT_HEAP_MAPPED, area->end - area->start);
        return;
    case PMT_AREA_MAIN_STACK:
        value_add(self, PMT_RESIDENT_MAIN_STACK, rss);
        return;
    case PMT_AREA_KERNEL:
        value_add(self, PMT_RESIDENT_KERNEL, rss);
        return;
    case PMT_AREA_SHARED:
        value_add(self, PMT_RESIDENT_SHARED_MEMORY, rss);
        return;
    case PMT_AREA_FILE: {
        uint64_t files = rss - area->anonymous_bytes;
        value_add(self, PMT_RESIDENT_FILES, files);
        value_add(self, PMT_RESIDENT_FILES_SHARED,
                  area->shared_bytes < files ? area->shared_bytes : files);
        value_add(self, PMT_RESIDENT_FILES_PRIVATE, area->anonymous_bytes);
        return;
    }
    default:
        if (area->flags & PMT_AREA_IS_OWN) {
            value_add(self, PMT_RESIDENT_OWN, rss);
        } else if (rss != 0) {
            area_count_pages(self, area, before);
        }
    }
}

/* --- all of them ------------------------------------------------------------------------------------------------------------- */

static bool
is_stopped(const pmt__measure *self)
{
    return self->stop != NULL && __atomic_load_n(self->stop, __ATOMIC_ACQUIRE) != 0;
}

static int
area_keep(void *context, const pmt__area *area)
{
    pmt__measure *self = context;
    void *areas = self->areas;
    if (is_stopped(self) || self->area_count == AREAS_MAX
        || !grow(&areas, &self->area_room, self->area_count + 1, sizeof *area)) {
        return 1;
    }
    self->areas = areas;
    self->areas[self->area_count++] = *area;
    return 0;
}

static const pmt__area *
area_find(const pmt__measure *self, uintptr_t address)
{
    size_t low = 0, high = self->area_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (self->areas[middle].end <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < self->area_count && self->areas[low].start <= address ? &self->areas[low] : NULL;
}

/* A thread's stack reaches from the start of its area, above the guard, to the end of its descriptor. */
static void
stacks_find(pmt__measure *self)
{
    uint64_t *ids = (uint64_t *)(void *)self->stacks; /* read before the place is written to */
    _Static_assert(sizeof(pmt__extent) == 2 * sizeof(uint64_t),
                   "two ids have the place of a stack");
    size_t count = pmt__process_threads(ids + THREADS_MAX, THREADS_MAX); /* the second half */
    uint64_t first = pmt__process_id();
    self->stack_count = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t id = ids[THREADS_MAX + i];
        uintptr_t block = id == first ? 0 : pmt__thread_block(id);
        const pmt__area *area = block == 0 ? NULL : area_find(self, block);
        if (area == NULL || area->kind != PMT_AREA_ANONYMOUS) {
            continue;
        }
        size_t page = pmt__page_size();
        uintptr_t end = (block + DESCRIPTOR_BYTES + page - 1) & ~(uintptr_t)(page - 1);
        pmt__extent stack = {area->start, end < area->end ? end : area->end};
        size_t at = self->stack_count++;
        for (; at > 0 && self->stacks[at - 1].start > stack.start; at--) {
            self->stacks[at] = self->stacks[at - 1];
        }
        self->stacks[at] = stack;
    }
    self->result.value[PMT_RESIDENT_STACKS_COUNT] = self->stack_count;
}

static int
measure_once(pmt__measure *self)
{
    memset(&self->result, 0, sizeof self->result);
    memset(&the_walk, 0, sizeof the_walk);
    self->area_count = 0;
    int rc = pmt__process_areas(area_keep, self);
    if (rc < 0 || self->area_count == 0) {
        return rc < 0 ? rc : is_stopped(self) ? -ECANCELED : -EIO;
    }
    stacks_find(self);
    self->result.value[PMT_RESIDENT_BY_PAGES] = 1;
    for (size_t i = 0; i < self->area_count && !is_stopped(self); i++) {
        area_count(self, &self->areas[i], i == 0 ? NULL : &self->areas[i - 1]);
    }
    return is_stopped(self) ? -ECANCELED : 0;
}

/* What was there when the kernel told the areas and was gone when the pages were looked at. */
static uint64_t
missed(const pmt__resident *self)
{
    static const uint8_t parts[] = {
        PMT_RESIDENT_ARENAS, PMT_RESIDENT_FRAMES,        PMT_RESIDENT_HEAP,
        PMT_RESIDENT_HEAPS,  PMT_RESIDENT_CHUNKS,        PMT_RESIDENT_MAPPINGS,
        PMT_RESIDENT_FILES,  PMT_RESIDENT_FILES_PRIVATE, PMT_RESIDENT_SHARED_MEMORY,
        PMT_RESIDENT_STACKS, PMT_RESIDENT_MAIN_STACK,    PMT_RESIDENT_OWN,
        PMT_RESIDENT_KERNEL, PMT_RESIDENT_UNKNOWN,
    };
    uint64_t found = 0;
    for (size_t i = 0; i < sizeof parts; i++) {
        found += self->value[parts[i]];
    }
    uint64_t rss = self->value[PMT_RESIDENT_RSS];
    return rss > found ? rss - found : 0;
}

int
pmt__measure_run(pmt__measure *self, const uint32_t *stop)
{
    enum {
        TRIES = 3
    };
    self->stop = stop;
    if (self->stacks == NULL) {
        self->stacks = pmt__pages_map(THREADS_MAX * sizeof *self->stacks);
    }
    if (self->states == NULL) {
        self->states = pmt__pages_map(WINDOW);
    }
    if (self->stacks == NULL || self->states == NULL) {
        return -ENOMEM;
    }
    /* A program that maps and unmaps much meanwhile is looked at again. */
    for (int i = 0; i < TRIES; i++) {
        int rc = measure_once(self);
        if (rc < 0) {
            return rc;
        }
        if (missed(&self->result) <= self->result.value[PMT_RESIDENT_RSS] / 128) {
            break;
        }
    }
    pmt__malloc_facts facts;
    if (pmt__malloc_facts_get(&facts) == 0) {
        self->result.value[PMT_RESIDENT_MALLOC_USED] = facts.used_bytes;
        self->result.value[PMT_RESIDENT_MALLOC_FREE] = facts.free_bytes;
        self->result.value[PMT_RESIDENT_MALLOC_TOP] = facts.top_bytes;
    }
    return 0;
}

void
pmt__resident_put(pmt__buffer *out, const pmt__resident *self)
{
    uint64_t figures = 0, classes = 0;
    for (unsigned i = 1; i < PMT_RESIDENT_LIMIT; i++) {
        figures += self->value[i] != 0;
    }
    for (unsigned i = 0; i < PMT_RESIDENT_CLASSES; i++) {
        classes += self->classes[i].pools != 0;
    }
    pmt__buffer_put_varint(out, figures);
    for (unsigned i = 1; i < PMT_RESIDENT_LIMIT; i++) {
        if (self->value[i] != 0) {
            pmt__buffer_put_varint(out, i);
            pmt__buffer_put_varint(out, self->value[i]);
        }
    }
    pmt__buffer_put_varint(out, classes);
    for (unsigned i = 0; i < PMT_RESIDENT_CLASSES; i++) {
        if (self->classes[i].pools != 0) {
            pmt__buffer_put_varint(out, (i + 1) * 16);
            pmt__buffer_put_varint(out, self->classes[i].pools);
            pmt__buffer_put_varint(out, self->classes[i].blocks);
        }
    }
}
