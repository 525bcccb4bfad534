/* From measured figures to parts that add up to the resident memory.

   The kernel's figures (which area, which pages) are exact and divide the resident memory. Inside a heap two more say how it is
   used: what the C library counts as used and free, and what the recorder knows of requested bytes. These are about addresses,
   not pages: a block can be allocated and never touched, a free one can be resident. So within the resident bytes of a heap, live
   blocks come first, then what else is in use, then what is free, each no larger than what is left: parts never add up to more than
   was measured. */
#include "analyze/where.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "platform/input.h"

#define MIB ((uint64_t)1 << 20)

/* --- texts ------------------------------------------------------------------------------------------------------------------- */

static const char *
size_text(char out[32], uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(out, 32, "%u B", (unsigned)bytes);
        return out;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1023.95 && unit < 5) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 32, "%.1f %s", value, units[unit]);
    return out;
}

static double
percent(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0.0 : 100.0 * (double)part / (double)whole;
}

/* Sizes in `format` are %s of size_text: a buffer each. */
#define SIZE(bytes) size_text((char[32]){0}, (bytes))

__attribute__((format(printf, 4, 5))) static void
part_add(pmt__where *self, const char *name, uint64_t bytes, const char *detail, ...)
{
    if (bytes == 0 || self->part_count == PMT_WHERE_PARTS) {
        return;
    }
    pmt__part *part = &self->parts[self->part_count++];
    part->name = name;
    part->bytes = bytes;
    va_list args;
    va_start(args, detail);
    vsnprintf(part->detail, sizeof part->detail, detail, args);
    va_end(args);
}

__attribute__((format(printf, 2, 3))) static void
advise(pmt__where *self, const char *text, ...)
{
    if (self->advice_count == sizeof self->advice / sizeof *self->advice) {
        return;
    }
    va_list args;
    va_start(args, text);
    vsnprintf(self->advice[self->advice_count++], PMT_WHERE_TEXT, text, args);
    va_end(args);
}

/* --- parts ------------------------------------------------------------------------------------------------------------------- */

static uint64_t
least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t
sum(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t
live(const pmt__moment *m, unsigned domain, unsigned large)
{
    return m->value[PMT_RESIDENT_LIVE + 2 * domain + large];
}

/* What the parts are made of, beyond the figures. */
typedef struct split {
    bool pymalloc;
    uint64_t native_free, native_live;
    uint64_t pool_free; /* in arenas */
    uint64_t heaps;     /* resident, all of glibc's */
} split;

/* The size classes that have the most free space, in words. */
static void
classes_text(char *out, size_t size, const pmt__moment *m)
{
    uint64_t free_bytes[PMT_RESIDENT_CLASSES] = {0};
    for (size_t i = 0; i < m->class_count; i++) {
        uint64_t block = m->classes[i].size_bytes;
        if (block == 0 || block > 1024 || m->classes[i].pools > UINT32_MAX) {
            continue;
        }
        uint64_t room = (16384 - 48) / block * m->classes[i].pools;
        free_bytes[i] = room > m->classes[i].blocks ? (room - m->classes[i].blocks) * block : 0;
    }
    size_t len = 0;
    out[0] = '\0';
    for (int n = 0; n < 3; n++) {
        size_t best = 0;
        for (size_t i = 1; i < m->class_count; i++) {
            best = free_bytes[i] > free_bytes[best] ? i : best;
        }
        if (free_bytes[best] < 64 << 10 || len >= size) {
            break;
        }
        int put = snprintf(out + len, size - len, "%s%s for blocks of %u B", n == 0 ? "" : ", ",
                           SIZE(free_bytes[best]), (unsigned)m->classes[best].size_bytes);
        len += put > 0 ? (size_t)put : 0;
        free_bytes[best] = 0;
    }
}

static void
arenas_split(pmt__where *self, const pmt__moment *m, split *s)
{
    uint64_t arenas = m->value[PMT_RESIDENT_ARENAS];
    bool known = m->value[PMT_RESIDENT_POOLS] != 0; /* the pools could be read */
    uint64_t used = known ? least(m->value[PMT_RESIDENT_POOLS_USED], arenas) : arenas;
    uint64_t objects = least(live(m, PMT_DOMAIN_OBJ, 0), used);
    uint64_t buffers = least(live(m, PMT_DOMAIN_MEM, 0), used - objects);
    uint64_t other = used - objects - buffers;
    uint64_t empty = least(m->value[PMT_RESIDENT_POOLS_EMPTY], arenas - used);
    s->pool_free = arenas - used;
    part_add(
        self, "python objects", objects,
        "live blocks of at most 512 bytes of the domain obj, as requested, in pymalloc's arenas");
    part_add(self, "python buffers", buffers,
             "the same of the domain mem: dict tables, lists' items, interpreter data");
    part_add(self, "pymalloc rounding", other, "sizes rounded up to 16 bytes, and %s",
             known ? "blocks from before the recording"
                   : "what is free or not recorded: the system did not let the pools be read");
    char classes[PMT_WHERE_TEXT / 2];
    classes_text(classes, sizeof classes, m);
    part_add(self, "pymalloc free", s->pool_free, "in %s of arenas: %s in empty pools%s%s",
             SIZE(arenas), SIZE(empty), classes[0] == '\0' ? "" : "; ", classes);
}

static void
heaps_split(pmt__where *self, const pmt__moment *m, split *s)
{
    const uint64_t *v = m->value;
    uint64_t requested = 0;
    for (unsigned domain = PMT_DOMAIN_OBJ; domain <= PMT_DOMAIN_MALLOC; domain++) {
        bool in_arenas = s->pymalloc && domain <= PMT_DOMAIN_MEM;
        requested = sum(requested, live(m, domain, 1));
        requested = sum(requested, in_arenas ? 0 : live(m, domain, 0));
    }
    uint64_t elsewhere = v[PMT_RESIDENT_CHUNKS_REQUESTED];
    requested = requested > elsewhere ? requested - elsewhere : 0;
    s->heaps = sum(v[PMT_RESIDENT_HEAP], v[PMT_RESIDENT_HEAPS]);
    bool known = v[PMT_RESIDENT_MALLOC_USED] != 0;
    s->native_live = least(requested, s->heaps);
    uint64_t rest = s->heaps - s->native_live;
    uint64_t used = v[PMT_RESIDENT_MALLOC_USED];
    uint64_t free_bytes = s->heaps > used ? s->heaps - used : 0;
    s->native_free = known ? least(free_bytes, rest) : 0;
    part_add(self, "native heap blocks", s->native_live,
             "live blocks in glibc's heaps: large blocks of Python, raw memory, malloc");
    if (known) {
        part_add(self, "native heap other", rest - s->native_free,
                 "in use in glibc's heaps, not recorded: headers, blocks from before the recording"
                 " or of unseen callers, threads' caches");
    } else {
        part_add(self, "native heap other", rest,
                 "unrecorded or free: this C library does not tell");
    }
    part_add(self, "native heap free", s->native_free,
             "resident but free in glibc's heaps (main heap %s, %u heaps for threads %s)",
             SIZE(v[PMT_RESIDENT_HEAP]), (unsigned)least(v[PMT_RESIDENT_HEAPS_ARENAS], 1u << 30),
             SIZE(v[PMT_RESIDENT_HEAPS]));
    part_add(self, "large native blocks", v[PMT_RESIDENT_CHUNKS],
             "%llu blocks of malloc with a mapping each; %s mapped, %s requested by recorded calls",
             (unsigned long long)v[PMT_RESIDENT_CHUNKS_COUNT], SIZE(v[PMT_RESIDENT_CHUNKS_MAPPED]),
             SIZE(elsewhere));
}

/* What a recording and the kernel alone tell alike. */
typedef struct common {
    uint64_t files, shared_files, copies, shared_memory, main_stack, own, kernel;
} common;

static void
common_parts(pmt__where *self, const common *c)
{
    part_add(self, "file pages", c->files,
             "code, constants, mapped files; %s of it other processes map too",
             SIZE(c->shared_files));
    part_add(self, "library data", c->copies,
             "variables of libraries and written copies of file pages");
    part_add(self, "shared memory", c->shared_memory,
             "shared anonymous mappings, memfd, /dev/shm, System V");
    part_add(self, "main stack", c->main_stack, "of the first thread");
    part_add(self, "recorder", c->own, "PyMemTrace's own tables");
    part_add(self, "kernel pages", c->kernel, "vdso and the like");
}

static void
rest_split(pmt__where *self, const pmt__moment *m)
{
    const uint64_t *v = m->value;
    part_add(self, "frames", v[PMT_RESIDENT_FRAMES], "the interpreter's memory for running frames");
    part_add(self, "mappings", v[PMT_RESIDENT_MAPPINGS], "private anonymous mmap: %s mapped",
             SIZE(v[PMT_RESIDENT_MAPPINGS_MAPPED] != 0 ? v[PMT_RESIDENT_MAPPINGS_MAPPED]
                                                       : live(m, PMT_DOMAIN_MMAP, 1)));
    part_add(self, "thread stacks", v[PMT_RESIDENT_STACKS], "of %llu threads",
             (unsigned long long)v[PMT_RESIDENT_STACKS_COUNT]);
    common_parts(self, &(common){.files = v[PMT_RESIDENT_FILES],
                                 .shared_files = v[PMT_RESIDENT_FILES_SHARED],
                                 .copies = v[PMT_RESIDENT_FILES_PRIVATE],
                                 .shared_memory = v[PMT_RESIDENT_SHARED_MEMORY],
                                 .main_stack = v[PMT_RESIDENT_MAIN_STACK],
                                 .own = v[PMT_RESIDENT_OWN],
                                 .kernel = v[PMT_RESIDENT_KERNEL]});
}

static int
compare_parts(const void *left, const void *right)
{
    const pmt__part *a = left;
    const pmt__part *b = right;
    return a->bytes > b->bytes ? -1 : a->bytes < b->bytes ? 1 : strcmp(a->name, b->name);
}

/* --- what there is to say ---------------------------------------------------------------------------------------------------- */

/* Worth a sentence: a tenth of everything, and not a trifle. */
static bool
matters(const pmt__where *self, uint64_t bytes)
{
    return bytes >= 4 * MIB && bytes >= self->rss_bytes / 10;
}

static void
advice_of_heaps(pmt__where *self, const pmt__moment *m, const split *s)
{
    uint64_t arenas = m->value[PMT_RESIDENT_HEAPS_ARENAS];
    if (matters(self, s->native_free)) {
        advise(
            self,
            "glibc keeps %s that the program has freed: malloc_trim(0) gives whole free pages back"
            " (ctypes.CDLL(None).malloc_trim(0)).",
            SIZE(s->native_free));
    }
    if (arenas >= 8 && matters(self, m->value[PMT_RESIDENT_HEAPS])) {
        advise(
            self,
            "glibc has %llu heaps for threads (%s), each with its own free space: run the program"
            " with MALLOC_ARENA_MAX=2.",
            (unsigned long long)arenas, SIZE(m->value[PMT_RESIDENT_HEAPS]));
    }
}

static void
advice_of(pmt__where *self, const pmt__moment *m, const split *s)
{
    advice_of_heaps(self, m, s);
    if (matters(self, s->pool_free)) {
        advise(self,
               "%s of pymalloc's arenas is free, but an arena of 1 MiB goes back only when its last"
               " block is freed: few blocks can pin many. `pymemtrace table --leaks` names their"
               " lines.",
               SIZE(s->pool_free));
    }
    uint64_t files = m->value[PMT_RESIDENT_FILES];
    if (matters(self, files) && files >= self->rss_bytes / 4) {
        advise(self,
               "file pages are not the program's own: other processes share them, and the kernel"
               " takes them back when memory is short.");
    }
    if (matters(self, m->value[PMT_RESIDENT_SHARED_MEMORY])) {
        advise(self, "shared memory counts in the RSS of every process that maps it.");
    }
    if (matters(self, m->value[PMT_RESIDENT_OWN])) {
        advise(self, "%s are the recorder's tables: without recording they are not there.",
               SIZE(m->value[PMT_RESIDENT_OWN]));
    }
}

static void
dominating_of(pmt__where *self)
{
    if (self->part_count == 0) {
        snprintf(self->dominating, sizeof self->dominating, "nothing is resident");
        return;
    }
    const pmt__part *part = &self->parts[0];
    snprintf(self->dominating, sizeof self->dominating, "%.1f %% of %s: %s (%s)",
             percent(part->bytes, self->rss_bytes), SIZE(self->rss_bytes), part->name,
             SIZE(part->bytes));
}

/* Parts never are more than what is resident, whatever the figures say. */
static void
settle(pmt__where *self)
{
    qsort(self->parts, self->part_count, sizeof *self->parts, compare_parts);
    uint64_t left = self->rss_bytes;
    size_t used = 0;
    for (size_t i = 0; i < self->part_count; i++) {
        self->parts[i].bytes = least(self->parts[i].bytes, left);
        left -= self->parts[i].bytes;
        used += self->parts[i].bytes != 0;
    }
    self->part_count = used;
    self->unattributed_bytes = left;
    dominating_of(self);
}

void
pmt__where_of(pmt__where *out, const pmt__moment *m, const char *allocator)
{
    memset(out, 0, sizeof *out);
    out->t_ns = m->value[PMT_RESIDENT_T];
    out->took_ns = m->value[PMT_RESIDENT_TOOK];
    out->rss_bytes = m->value[PMT_RESIDENT_RSS];
    out->swap_bytes = m->value[PMT_RESIDENT_SWAP];
    for (unsigned domain = 1; domain < PMT_DOMAIN_TRACK; domain++) { /* track: counted twice */
        out->requested_bytes = sum(out->requested_bytes, live(m, domain, 0));
        out->requested_bytes = sum(out->requested_bytes, live(m, domain, 1));
    }
    split s = {.pymalloc = allocator[0] == '\0' ? m->value[PMT_RESIDENT_ARENAS] != 0
                                                : strncmp(allocator, "pymalloc", 8) == 0};
    arenas_split(out, m, &s);
    heaps_split(out, m, &s);
    rest_split(out, m);
    settle(out);
    advice_of(out, m, &s);
}

size_t
pmt__where_count(const pmt_reader *reader)
{
    return pmt__reader_moment_count(reader);
}

void
pmt__where_moment(pmt__where *out, const pmt_reader *reader, size_t at)
{
    char allocator[64] = "";
    const pmt_fact *fact = pmt_reader_find_fact(reader, "allocator");
    if (fact != NULL && fact->type == PMT_FACT_TEXT) {
        snprintf(allocator, sizeof allocator, "%.*s", (int)least(fact->text.len, 63),
                 fact->text.text);
    }
    pmt__moment moment;
    pmt__reader_moment(reader, at, &moment);
    pmt__where_of(out, &moment, allocator);
}

int
pmt__where_at(pmt__where *out, const pmt_reader *reader, bool has_at, uint64_t at_ns,
              pmt_error *err)
{
    size_t count = pmt__reader_moment_count(reader);
    if (count == 0) {
        return pmt__error_set(err, PMT_ERR_STATE,
                              "the capture does not say how the resident memory was made up");
    }
    size_t chosen = has_at ? 0 : pmt__reader_end_moment(reader);
    for (size_t i = 1; has_at && i < count; i++) {
        pmt__moment moment;
        pmt__reader_moment(reader, i, &moment);
        if (moment.value[PMT_RESIDENT_T] <= at_ns) {
            chosen = i;
        }
    }
    pmt__where_moment(out, reader, chosen);
    return PMT_OK;
}

/* --- from outside ------------------------------------------------------------------------------------------------------------- */

typedef struct outside {
    uint64_t rss, pss, swap;
    uint64_t kinds[PMT_AREA_SHARED + 1];
    uint64_t copies, shared_files, own;
    pmt__area before;
} outside;

static int
outside_add(void *context, const pmt__area *area)
{
    outside *self = context;
    self->rss = sum(self->rss, area->rss_bytes);
    self->pss = sum(self->pss, area->pss_bytes);
    self->swap = sum(self->swap, area->swap_bytes);
    const pmt__area before = self->before;
    self->before = *area;
    if (area->kind == PMT_AREA_FILE) {
        uint64_t files = area->rss_bytes - area->anonymous_bytes;
        self->copies += area->anonymous_bytes;
        self->kinds[PMT_AREA_FILE] += files;
        self->shared_files += least(area->shared_bytes, files);
        return 0;
    }
    if (area->kind == PMT_AREA_ANONYMOUS && before.end == area->start
        && before.kind == PMT_AREA_FILE && (before.flags & PMT_AREA_WRITABLE)) {
        self->copies += area->rss_bytes; /* zero-initialised data */
        return 0;
    }
    if (area->flags & PMT_AREA_IS_OWN) {
        self->own += area->rss_bytes;
        return 0;
    }
    self->kinds[area->kind] += area->rss_bytes;
    return 0;
}

int
pmt__where_process(pmt__where *out, uint64_t pid, pmt_error *err)
{
    memset(out, 0, sizeof *out);
    outside o = {0};
    int rc = pmt__input_areas(pid, outside_add, &o);
    if (rc < 0) {
        return pmt__error_set_errno(err, PMT_ERR_IO, -rc, "cannot read the areas of process %llu",
                                    (unsigned long long)pid);
    }
    out->from_outside = true;
    out->rss_bytes = o.rss;
    out->swap_bytes = o.swap;
    part_add(out, "native heap", o.kinds[PMT_AREA_HEAP],
             "glibc's main heap, live and free blocks alike");
    part_add(out, "anonymous memory", o.kinds[PMT_AREA_ANONYMOUS],
             "pymalloc's arenas, large blocks, heaps and stacks of threads, mappings");
    common_parts(out, &(common){.files = o.kinds[PMT_AREA_FILE],
                                .shared_files = o.shared_files,
                                .copies = o.copies,
                                .shared_memory = o.kinds[PMT_AREA_SHARED],
                                .main_stack = o.kinds[PMT_AREA_MAIN_STACK],
                                .own = o.own,
                                .kernel = o.kinds[PMT_AREA_KERNEL]});
    settle(out);
    if (matters(out, o.rss > o.pss ? o.rss - o.pss : 0)) {
        advise(out, "%s of it is shared with other processes: this one's part is %s (PSS).",
               SIZE(o.rss - o.pss), SIZE(o.pss));
    }
    return PMT_OK;
}
