/* A cut is taken from the tables as always, and encoded as always. Here its definitions are replaced by sites of one stack, [folded], one for
   every size and domain, and the rows of what was defined from here on are written again with the numbers of these sites; many have the
   same one then. Adding them up is what merging does (merge.h): each cut becomes a merged window of its own. So totals, sizes,
   domains, epochs, lifetimes, the peak and the time line stay what they were. Names of threads and marks are lost with the strings. */
#include "record/fold.h"

#include <errno.h>
#include <string.h>

#include "format/decode.h"
#include "record/compact.h"
#include "record/tables.h"

static uint16_t
class_of(uint64_t size, uint64_t domain)
{
    return (uint16_t)(domain * (PMT_SIZE_LARGE + 1) + size);
}

int
pmt__fold_init(pmt__fold *self, uint32_t first, uint64_t epoch)
{
    const pmt_allocator *allocator = pmt__compact_allocator();
    memset(self, 0, sizeof *self);
    pmt__merge_init(&self->merge, allocator);
    self->first = first;
    self->site_count = first - 1;
    self->epoch = epoch;
    pmt__buffer_init(&self->payload);
    pmt__buffer_init(&self->body);
    pmt__buffer_init(&self->rows);
    pmt__merge *merge = &self->merge;
    if (!PMT__VEC_RESERVE(allocator, &self->classes, first)
        || !PMT__VEC_RESERVE(allocator, &merge->sizeless, first / 8 + 1)) {
        return -ENOMEM;
    }
    memset(merge->sizeless.data, 0, first / 8 + 1);
    merge->sizeless.len = first / 8 + 1;
    merge->sites = self->classes.len = first;
    for (uint32_t site = 1; site < first; site++) {
        const pmt__site *it = &pmt__t.sites[site];
        self->classes.data[site] = class_of(it->size, it->thread >> PMT_THREAD_BITS);
        if (it->size == PMT_SIZE_LARGE) {
            merge->sizeless.data[site / 8] |= (uint8_t)(1u << site % 8);
        }
    }
    return 0;
}

void
pmt__fold_dispose(pmt__fold *self)
{
    if (self->merge.allocator != NULL) {
        PMT__VEC_DISPOSE(self->merge.allocator, &self->classes);
        pmt__merge_dispose(&self->merge);
        pmt__buffer_dispose(&self->payload);
        pmt__buffer_dispose(&self->body);
        pmt__buffer_dispose(&self->rows);
    }
    memset(self, 0, sizeof *self);
}

static int
sites_read(pmt__fold *self, pmt__cursor *in)
{
    if (pmt__get_varint(in) != self->classes.len) {
        return -EBADMSG;
    }
    size_t count = pmt__get_count(in, 4);
    if (!PMT__VEC_RESERVE(self->merge.allocator, &self->classes, count)) {
        return -ENOMEM;
    }
    pmt__buffer_clear(&self->rows);
    uint32_t first = self->site_count + 1;
    for (size_t i = 0; i < count; i++) {
        pmt__get_varint(in); /* node */
        uint64_t size = pmt__get_limited(in, PMT_SIZE_LARGE, "a size");
        uint64_t domain = pmt__get_limited(in, PMT_DOMAIN_COUNT - 1, "a domain");
        pmt__get_varint(in); /* thread */
        uint16_t class = class_of(size, domain);
        self->classes.data[self->classes.len++] = class;
        if (self->ids[class] == 0) {
            self->ids[class] = ++self->site_count;
            pmt__buffer_put_zigzag(&self->rows, self->site_count == first ? PMT_NODE_FOLDED : 0);
            pmt__buffer_put_varint(&self->rows, size);
            pmt__buffer_put_varint(&self->rows, domain);
            pmt__buffer_put_varint(&self->rows, 0); /* a thread that is not known */
        }
    }
    if (self->site_count >= first) {
        pmt__buffer_clear(&self->body);
        pmt__buffer_put_varint(&self->body, first);
        pmt__buffer_put_varint(&self->body, self->site_count + 1 - first);
        pmt__buffer_put(&self->body, self->rows.data, self->rows.len);
        pmt__section_put(&self->payload, PMT_SECTION_SITES, &self->body);
    }
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

/* The number in the file of a site of the tables; 0: there is none. */
static uint64_t
site_of(const pmt__fold *self, uint64_t site, int *sizeless)
{
    if (site == 0 || site >= self->classes.len) {
        return 0;
    }
    uint16_t class = self->classes.data[site];
    *sizeless = class % (PMT_SIZE_LARGE + 1) == PMT_SIZE_LARGE;
    return site < self->first ? site : self->ids[class];
}

static void
varints_copy(pmt__cursor *in, pmt__buffer *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pmt__buffer_put_varint(out, pmt__get_varint(in));
    }
}

static int
lifetimes_read(pmt__fold *self, pmt__cursor *in)
{
    uint64_t site = 0, before = 0;
    size_t count = pmt__get_count(in, 4);
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, count);
    for (size_t i = 0; i < count; i++) {
        site += (uint64_t)pmt__get_zigzag(in);
        int sizeless = 0;
        uint64_t id = site_of(self, site, &sizeless);
        if (id == 0) {
            return -EBADMSG;
        }
        pmt__buffer_put_zigzag(&self->body, (int64_t)(id - before));
        before = id;
        varints_copy(in, &self->body, sizeless ? 4 : 3); /* birth, age, blocks, bytes */
    }
    pmt__section_put(&self->payload, PMT_SECTION_LIFETIMES, &self->body);
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

static int
samples_read(pmt__fold *self, pmt__cursor *in)
{
    uint64_t site = 0, before = 0;
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, pmt__get_varint(in)); /* the mean */
    uint64_t has_peak = pmt__get_varint(in);
    pmt__buffer_put_varint(&self->body, has_peak);
    size_t count = pmt__get_count(in, PMT_SAMPLES_ENTRY_MIN);
    pmt__buffer_put_varint(&self->body, count);
    for (size_t i = 0; i < count; i++) {
        site += (uint64_t)pmt__get_zigzag(in);
        int sizeless = 0;
        uint64_t id = site_of(self, site, &sizeless);
        if (id == 0) {
            return -EBADMSG;
        }
        pmt__buffer_put_zigzag(&self->body, (int64_t)(id - before));
        before = id;
        for (int k = 0; k < (has_peak != 0 ? 3 : 2); k++) { /* allocated, freed, at the peak */
            pmt__sample_sums sums;
            pmt__merge_sums_get(in, &sums);
            pmt__sample_sums_put(&self->body, &sums);
        }
    }
    pmt__section_put(&self->payload, PMT_SECTION_SAMPLES, &self->body);
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

/* Marks without their labels. */
static int
marks_read(pmt__fold *self, pmt__cursor *in)
{
    size_t count = pmt__get_count(in, 3);
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, count);
    for (size_t i = 0; i < count; i++) {
        varints_copy(in, &self->body, 2);
        pmt__get_varint(in);
        pmt__buffer_put_varint(&self->body, 0);
    }
    pmt__section_put(&self->payload, PMT_SECTION_MARKS, &self->body);
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

/* The counters, with those that tell of folding. */
static void
counters_read(const pmt__fold *self, pmt__cursor *in, pmt__buffer *out)
{
    uint64_t counters[PMT_COUNTER_LIMIT] = {0};
    for (size_t left = pmt__get_count(in, 2); left > 0; left--) {
        uint64_t which = pmt__get_varint(in);
        uint64_t value = pmt__get_varint(in);
        if (which < PMT_COUNTER_LIMIT) {
            counters[which] = value;
        }
    }
    counters[PMT_COUNTER_FOLDED_STACKS] += self->classes.len - self->first;
    counters[PMT_COUNTER_FOLDED_CUTS] = self->cuts;
    uint64_t used = 0;
    for (uint64_t i = 1; i < PMT_COUNTER_LIMIT; i++) {
        used += counters[i] != 0;
    }
    pmt__buffer_put_varint(out, used);
    for (uint64_t i = 1; i < PMT_COUNTER_LIMIT; i++) {
        if (counters[i] != 0) {
            pmt__buffer_put_varint(out, i);
            pmt__buffer_put_varint(out, counters[i]);
        }
    }
}

/* The rows keep their order: site numbers that fall are what a difference modulo 2^64 can say, and merge.c puts them in order. */
static int
cut_read(pmt__fold *self, pmt__cursor *in)
{
    pmt__buffer *out = &self->body;
    pmt__buffer_clear(out);
    uint64_t flags = 0;
    for (size_t i = 0; i < PMT_CUT_HEAD; i++) {
        uint64_t value = pmt__get_varint(in);
        flags = i == PMT_HEAD_FLAGS ? value : flags;
        pmt__buffer_put_varint(out, value);
    }
    counters_read(self, in, out);
    int moved = (flags & PMT_CUT_PEAK_MOVED) != 0;
    uint64_t site = 0, before = 0;
    size_t count = pmt__get_count(in, 5);
    pmt__buffer_put_varint(out, count);
    for (size_t i = 0; i < count; i++) {
        site += pmt__get_varint(in);
        int sizeless = 0;
        uint64_t id = site_of(self, site, &sizeless);
        if (id == 0) {
            return -EBADMSG;
        }
        pmt__buffer_put_varint(out, id - before);
        before = id;
        /* age, allocated, freed, temporary, and their bytes; the corrections are zigzag, which is a varint too */
        varints_copy(in, out, (size_t)(4 + (sizeless ? 3 : 0) + (moved ? 1 + sizeless : 0)));
    }
    pmt__section_put(&self->payload, PMT_SECTION_CUT, out);
    return in->code == PMT_OK && in->at == in->end ? 0 : -EBADMSG;
}

/* STRINGS and NODES of a capture that has none: the synthetic ones, numbered as in the tables. */
static void
stacks_define(pmt__fold *self)
{
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, 1); /* the first id */
    pmt__buffer_put_varint(&self->body, 2);
    pmt__buffer_put_text(&self->body, "[no Python stack]", 17);
    pmt__buffer_put_text(&self->body, "[folded]", 8);
    pmt__section_put(&self->payload, PMT_SECTION_STRINGS, &self->body);
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, 1);
    pmt__buffer_put_varint(&self->body, 2);
    for (uint64_t id = PMT_NODE_NO_STACK; id <= PMT_NODE_FOLDED; id++) {
        pmt__buffer_put_varint(&self->body, PMT_NODE_SYNTHETIC);
        pmt__buffer_put_varint(&self->body, id); /* below the root */
        pmt__buffer_put_varint(&self->body, id); /* its name */
    }
    pmt__section_put(&self->payload, PMT_SECTION_NODES, &self->body);
}

static int
section_read(pmt__fold *self, uint8_t kind, pmt__cursor *body, const uint8_t *start)
{
    switch (kind) {
    case PMT_SECTION_SITES:
        return sites_read(self, body);
    case PMT_SECTION_MARKS:
        return marks_read(self, body);
    case PMT_SECTION_LIFETIMES:
        return lifetimes_read(self, body);
    case PMT_SECTION_SAMPLES:
        return samples_read(self, body);
    case PMT_SECTION_CUT:
        return cut_read(self, body);
    case PMT_SECTION_SIZES:
    case PMT_SECTION_RESIDENT:
        pmt__buffer_put(&self->payload, start, (size_t)(body->end - start));
        return 0;
    default:
        return 0; /* names and stacks */
    }
}

int
pmt__fold_cut(pmt__fold *self, const uint8_t *payload, size_t size, pmt__buffer *out)
{
    pmt_error err = PMT_ERROR_INIT;
    pmt__cursor in;
    const pmt__chunk chunk = {.payload = payload, .size = size};
    pmt__cursor_init(&in, &chunk, "a cut", &err);
    pmt__buffer_clear(&self->payload);
    if (self->cuts++ == 0 && self->first == 1) {
        stacks_define(self);
    }
    int rc = 0;
    while (rc == 0 && in.code == PMT_OK && in.at < in.end) {
        const uint8_t *start = in.at;
        uint8_t kind = pmt__get_u8(&in);
        uint64_t length = pmt__get_varint(&in);
        pmt__cursor body;
        pmt__cursor_take(&in, &body, length, "a section");
        rc = in.code == PMT_OK ? section_read(self, kind, &body, start) : -EBADMSG;
    }
    if (rc == 0 && (self->payload.failed || self->body.failed || self->rows.failed)) {
        rc = -ENOMEM;
    }
    uint64_t head[PMT_CUT_HEAD];
    if (rc == 0) {
        rc = pmt__merge_scan(&self->merge, self->payload.data, self->payload.len, head);
    }
    if (rc == 0) {
        pmt__merge_begin(&self->merge, self->epoch, true);
        rc = pmt__merge_add(&self->merge, self->payload.data, self->payload.len);
    }
    if (rc == 0) {
        self->epoch = head[PMT_HEAD_EPOCH];
        rc = pmt__merge_finish(&self->merge, out);
    }
    return rc;
}
