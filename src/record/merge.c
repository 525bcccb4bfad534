/* What is merged how.

   Definitions are copied. Rows are summed per cohort (site, birth epoch) with two exceptions. A block that was born and
   died within the window leaves the row of its cohort for one of its site and the power of two of its age: programs make
   a new cohort per site and second, nearly all of which are dead a second later, and without this a window would be as long as the
   cuts that it is made of. And the peak's corrections are differences to the state after the cut, so they must be moved on:

       live at the peak = live after A + correction in A
                        = live after B − (allocated − freed in B) + correction in A

   when the peak was in A, and those of B alone when it moved again in B: then everything that was known of the older one is forgotten
   at once, by raising `run`. */
#include "record/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/decode.h"

#define DEAD ((uint64_t)1 << 63)
#define CLASS_BITS 6
/* A window ends when it has this much, which bounds memory to some 30 MB (unless a single cut needs more). */
#define SUMS_MAX ((size_t)128 << 10)
#define DEFINITIONS_MAX ((size_t)8 << 20)
#define THREADS_MAX 65536u
#define EPOCH_MAX ((uint64_t)UINT32_MAX)

void
pmt__merge_init(pmt__merge *self, const pmt_allocator *allocator)
{
    memset(self, 0, sizeof *self);
    self->allocator = allocator;
    self->sites = 1;
    pmt__buffer_init(&self->counters);
    pmt__buffer_init(&self->definitions);
    pmt__buffer_init(&self->resident);
    pmt__buffer_init(&self->body);
}

void
pmt__merge_dispose(pmt__merge *self)
{
    pmt__buffer_dispose(&self->counters);
    pmt__buffer_dispose(&self->definitions);
    pmt__buffer_dispose(&self->resident);
    pmt__buffer_dispose(&self->body);
    PMT__VEC_DISPOSE(self->allocator, &self->sizeless);
    PMT__VEC_DISPOSE(self->allocator, &self->threads);
    PMT__VEC_DISPOSE(self->allocator, &self->marks);
    PMT__VEC_DISPOSE(self->allocator, &self->lives);
    PMT__VEC_DISPOSE(self->allocator, &self->samples);
    PMT__VEC_DISPOSE(self->allocator, &self->sums);
    PMT__VEC_DISPOSE(self->allocator, &self->table);
    PMT__VEC_DISPOSE(self->allocator, &self->keys);
    PMT__VEC_DISPOSE(self->allocator, &self->keys_to);
}

/* --- sections ----------------------------------------------------------------------------------------------------------- */

/* The next section; false at the end of the payload. *start is where its kind stands. */
static bool
section_next(pmt__cursor *in, uint8_t *kind, pmt__cursor *body, const uint8_t **start)
{
    if (in->code != PMT_OK || in->at == in->end) {
        return false;
    }
    *start = in->at;
    *kind = pmt__get_u8(in);
    uint64_t size = pmt__get_varint(in);
    pmt__cursor_take(in, body, size, "a section");
    return in->code == PMT_OK;
}

static pmt__cursor
payload_cursor(const uint8_t *payload, size_t size, pmt_error *err)
{
    pmt__cursor in;
    const pmt__chunk chunk = {.payload = payload, .size = size};
    pmt__cursor_init(&in, &chunk, "a cut", err);
    return in;
}

static bool
is_sizeless(const pmt__merge *self, uint64_t site)
{
    return self->sizeless.data[site / 8] >> site % 8 & 1;
}

static int
scan_sites(pmt__merge *self, pmt__cursor *in)
{
    uint64_t first = pmt__get_varint(in);
    size_t count = pmt__get_count(in, 4);
    if (first != self->sites || count > UINT32_MAX - self->sites) {
        return -EBADMSG;
    }
    size_t needed = (size_t)(self->sites + count) / 8 + 1;
    size_t had = self->sizeless.len;
    if (needed > had) {
        if (!PMT__VEC_RESERVE(self->allocator, &self->sizeless, needed - had)) {
            return -ENOMEM;
        }
        memset(self->sizeless.data + had, 0, needed - had);
        self->sizeless.len = needed;
    }
    for (size_t i = 0; i < count; i++) {
        pmt__get_varint(in); /* node */
        uint64_t size = pmt__get_varint(in);
        pmt__get_varint(in); /* domain */
        pmt__get_varint(in); /* thread */
        if (size == PMT_SIZE_LARGE) {
            self->sizeless.data[self->sites / 8] |= (uint8_t)(1u << self->sites % 8);
        }
        self->sites++;
    }
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

static void
head_get(pmt__cursor *in, uint64_t head[PMT_CUT_HEAD])
{
    for (size_t i = 0; i < PMT_CUT_HEAD; i++) {
        head[i] = pmt__get_varint(in);
    }
}

int
pmt__merge_scan(pmt__merge *self, const uint8_t *payload, size_t size, uint64_t head[PMT_CUT_HEAD])
{
    pmt_error err = PMT_ERROR_INIT;
    pmt__cursor in = payload_cursor(payload, size, &err), body;
    const uint8_t *start;
    uint8_t kind = 0;
    while (section_next(&in, &kind, &body, &start)) {
        if (kind < PMT_SECTION_STRINGS || kind > PMT_SECTION_SAMPLES) {
            return -EBADMSG;
        }
        if (kind == PMT_SECTION_SITES) {
            int rc = scan_sites(self, &body);
            if (rc < 0) {
                return rc;
            }
        }
        if (kind == PMT_SECTION_CUT) {
            head_get(&body, head);
            if (body.code != PMT_OK) {
                return -EBADMSG;
            }
        }
    }
    if (in.code != PMT_OK || kind != PMT_SECTION_CUT || head[PMT_HEAD_EPOCH] > EPOCH_MAX) {
        return -EBADMSG;
    }
    self->last_epoch = head[PMT_HEAD_EPOCH];
    return 0;
}

/* --- sums -------------------------------------------------------------------------------------------------------------------- */

static size_t
hash_of(uint32_t site, uint64_t birth)
{
    uint64_t h = ((uint64_t)site << 32 ^ birth) * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 29);
}

/* Forgets cohorts of the window that are dead again and say nothing of the peak. */
static void
sums_sweep(pmt__merge *self)
{
    size_t used = 0;
    for (size_t i = 0; i < self->sums.len; i++) {
        const pmt__sum *sum = &self->sums.data[i];
        bool peak = self->peak_moved && sum->run == self->run
                    && (sum->peak_blocks != 0 || sum->peak_bytes != 0);
        if (peak || (sum->birth & DEAD) || sum->birth <= self->epoch_before
            || sum->allocs != sum->frees || sum->alloc_bytes != sum->free_bytes
            || sum->temporaries != 0) {
            self->sums.data[used++] = *sum;
        }
    }
    self->sums.len = used;
}

static int
table_grow(pmt__merge *self)
{
    sums_sweep(self);
    size_t size = self->table.len == 0 ? 8192 : self->table.len;
    if (self->sums.len > size / 4) {
        size *= 2;
    }
    self->table.len = 0;
    if (!PMT__VEC_RESERVE(self->allocator, &self->table, size)) {
        return -ENOMEM;
    }
    memset(self->table.data, 0, size * sizeof *self->table.data);
    self->table.len = size;
    for (size_t i = 0; i < self->sums.len; i++) {
        size_t at = hash_of(self->sums.data[i].site, self->sums.data[i].birth) & (size - 1);
        while (self->table.data[at] != 0) {
            at = (at + 1) & (size - 1);
        }
        self->table.data[at] = (uint32_t)(i + 1);
    }
    return 0;
}

/* The sum with this key, made if there is none; NULL: no memory. Borrowed until the next call. */
static pmt__sum *
sum_get(pmt__merge *self, uint32_t site, uint64_t birth)
{
    if (self->sums.len >= self->table.len / 2 && table_grow(self) < 0) {
        return NULL;
    }
    size_t mask = self->table.len - 1;
    size_t at = hash_of(site, birth) & mask;
    for (; self->table.data[at] != 0; at = (at + 1) & mask) {
        pmt__sum *sum = &self->sums.data[self->table.data[at] - 1];
        if (sum->site == site && sum->birth == birth) {
            return sum;
        }
    }
    const pmt__sum fresh = {.site = site, .birth = birth};
    if (!PMT__VEC_PUSH(self->allocator, &self->sums, fresh)) {
        return NULL;
    }
    self->table.data[at] = (uint32_t)self->sums.len;
    return &self->sums.data[self->sums.len - 1];
}

/* The part of the window, between two marks, that the epoch lies in: 0, 1, … */
static uint64_t
part_of(const pmt__merge *self, uint64_t epoch)
{
    size_t low = 0, high = self->keeps_epochs ? self->marks.len : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (self->marks.data[middle] < epoch) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint64_t
age_class(uint64_t age)
{
    return age == 0 ? 0 : 64 - (uint64_t)__builtin_clzll(age);
}

/* Blocks that were born and died in the window. */
static int
dead_add(pmt__merge *self, const pmt__sum *row, uint64_t age)
{
    uint64_t key = DEAD | part_of(self, row->birth) << CLASS_BITS | age_class(age);
    pmt__sum *sum = sum_get(self, row->site, key);
    if (sum == NULL) {
        return -ENOMEM;
    }
    sum->allocs += row->frees;
    sum->frees += row->frees;
    sum->temporaries += row->temporaries;
    sum->alloc_bytes += row->free_bytes;
    sum->free_bytes += row->free_bytes;
    sum->temporary_bytes += row->temporary_bytes;
    return 0;
}

static int
row_add(pmt__merge *self, const pmt__sum *row, uint64_t age, bool moved)
{
    bool born_here = row->birth > self->epoch_before;
    if (born_here && row->frees != 0) {
        int rc = dead_add(self, row, age);
        if (rc < 0) {
            return rc;
        }
        if (row->allocs == row->frees && row->alloc_bytes == row->free_bytes
            && row->peak_blocks == 0 && row->peak_bytes == 0) {
            return 0; /* nothing changed for the cohort */
        }
    }
    pmt__sum *sum = sum_get(self, row->site, row->birth);
    if (sum == NULL) {
        return -ENOMEM;
    }
    sum->allocs += row->allocs;
    sum->frees += row->frees;
    sum->alloc_bytes += row->alloc_bytes;
    sum->free_bytes += row->free_bytes;
    if (!born_here || row->frees == 0) {
        sum->temporaries += row->temporaries;
        sum->temporary_bytes += row->temporary_bytes;
    }
    if (!self->peak_moved) {
        return 0;
    }
    if (sum->run != self->run) {
        sum->run = self->run;
        sum->peak_blocks = sum->peak_bytes = 0;
    }
    if (moved) {
        sum->peak_blocks +=
            row->peak_blocks; /* a cut that fold.c makes has several rows of a cohort */
        sum->peak_bytes += row->peak_bytes;
    } else {
        sum->peak_blocks += (int64_t)(row->frees - row->allocs);
        sum->peak_bytes += (int64_t)(row->free_bytes - row->alloc_bytes);
    }
    return 0;
}

static int
rows_add(pmt__merge *self, pmt__cursor *in, const uint64_t head[PMT_CUT_HEAD])
{
    bool moved = (head[PMT_HEAD_FLAGS] & PMT_CUT_PEAK_MOVED) != 0;
    uint64_t epoch = head[PMT_HEAD_EPOCH];
    if (moved) {
        self->peak_moved = true;
        self->run++;
    }
    uint64_t site = 0;
    for (size_t left = pmt__get_count(in, 5); left > 0; left--) {
        site += pmt__get_varint(in);
        uint64_t age = pmt__get_varint(in);
        if (site == 0 || site >= self->sites || age >= epoch) {
            return -EBADMSG;
        }
        pmt__sum row = {.site = (uint32_t)site, .birth = epoch - age};
        row.allocs = pmt__get_varint(in);
        row.frees = pmt__get_varint(in);
        row.temporaries = pmt__get_varint(in);
        bool sizeless = is_sizeless(self, site);
        if (sizeless) {
            row.alloc_bytes = pmt__get_varint(in);
            row.free_bytes = pmt__get_varint(in);
            row.temporary_bytes = pmt__get_varint(in);
        }
        if (moved) {
            row.peak_blocks = pmt__get_zigzag(in);
            row.peak_bytes = sizeless ? pmt__get_zigzag(in) : 0;
        }
        if (in->code != PMT_OK) {
            return -EBADMSG;
        }
        int rc = row_add(self, &row, age, moved);
        if (rc < 0) {
            return rc;
        }
    }
    return in->code == PMT_OK && in->at == in->end ? 0 : -EBADMSG;
}

static int
lives_add(pmt__merge *self, pmt__cursor *in)
{
    uint64_t site = 0, birth = 0;
    for (size_t left = pmt__get_count(in, 4); left > 0; left--) {
        site += (uint64_t)pmt__get_zigzag(in);
        birth += (uint64_t)pmt__get_zigzag(in);
        if (in->code != PMT_OK || site == 0 || site >= self->sites || birth == 0) {
            return -EBADMSG;
        }
        pmt__merge_life life = {.site = site, .birth = birth};
        life.age = pmt__get_varint(in);
        life.blocks = pmt__get_varint(in);
        life.bytes = is_sizeless(self, site) ? pmt__get_varint(in) : 0;
        if (!PMT__VEC_PUSH(self->allocator, &self->lives, life)) {
            return -ENOMEM;
        }
    }
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

/* Moves the dead of the window that died before a mark from the age of their row to their own. */
static int
lives_settle(pmt__merge *self)
{
    for (size_t i = 0; i < self->lives.len; i++) {
        const pmt__merge_life *life = &self->lives.data[i];
        uint64_t epoch = self->head[PMT_HEAD_EPOCH];
        if (life->birth <= self->epoch_before || life->birth > epoch) {
            continue; /* the cohort's row tells of its dead */
        }
        uint64_t part = DEAD | part_of(self, life->birth) << CLASS_BITS;
        pmt__sum *from = sum_get(self, (uint32_t)life->site, part | age_class(epoch - life->birth));
        if (from == NULL) {
            return -ENOMEM;
        }
        if (life->blocks > from->frees || life->bytes > from->free_bytes
            || age_class(life->age) == age_class(epoch - life->birth)) {
            continue;
        }
        from->allocs = from->frees -= life->blocks;
        from->alloc_bytes = from->free_bytes -= life->bytes;
        pmt__sum temporaries = {0};
        if (from->frees == 0) { /* they are some of those that go */
            temporaries = *from;
            from->temporaries = from->temporary_bytes = 0;
        }
        pmt__sum *to = sum_get(self, (uint32_t)life->site, part | age_class(life->age));
        if (to == NULL) {
            return -ENOMEM;
        }
        to->allocs = to->frees += life->blocks;
        to->alloc_bytes = to->free_bytes += life->bytes;
        to->temporaries += temporaries.temporaries;
        to->temporary_bytes += temporaries.temporary_bytes;
    }
    self->lives.len = 0;
    return 0;
}

/* --- adding ------------------------------------------------------------------------------------------------------------------ */

void
pmt__merge_begin(pmt__merge *self, uint64_t epoch_before, bool keeps_epochs)
{
    self->deltas = 0;
    self->keeps_epochs = keeps_epochs;
    self->epoch_before = epoch_before;
    self->span_ns = 0;
    self->peak_moved = false;
    self->run = 0;
    memset(self->size_allocs, 0, sizeof self->size_allocs);
    memset(self->size_bytes, 0, sizeof self->size_bytes);
    pmt__buffer_clear(&self->definitions);
    pmt__buffer_clear(&self->resident);
    self->threads.len = 0;
    self->marks.len = 0;
    self->lives.len = 0;
    self->samples.len = 0;
    self->sample_mean = 0;
    self->sample_peak = 0;
    self->sums.len = 0;
    if (self->table.len != 0) {
        memset(self->table.data, 0, self->table.len * sizeof *self->table.data);
    }
}

static int
threads_add(pmt__merge *self, pmt__cursor *in)
{
    for (size_t left = pmt__get_count(in, 7); left > 0; left--) {
        pmt__merge_thread thread = {.known = true};
        for (size_t i = 0; i < 7; i++) {
            thread.fields[i] = pmt__get_varint(in);
        }
        uint64_t id = thread.fields[0];
        if (in->code != PMT_OK || id >= THREADS_MAX) {
            return -EBADMSG;
        }
        if (id >= self->threads.len) {
            size_t more = (size_t)id + 1 - self->threads.len;
            if (!PMT__VEC_RESERVE(self->allocator, &self->threads, more)) {
                return -ENOMEM;
            }
            memset(self->threads.data + self->threads.len, 0, more * sizeof thread);
            self->threads.len = (size_t)id + 1;
        }
        self->threads.data[id] = thread;
    }
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

static int
marks_add(pmt__merge *self, pmt__cursor *in)
{
    for (size_t left = pmt__get_count(in, 3); left > 0; left--) {
        uint64_t epoch = pmt__get_varint(in);
        pmt__get_varint(in); /* time */
        pmt__get_varint(in); /* label */
        if (in->code != PMT_OK
            || (self->marks.len != 0 && epoch < self->marks.data[self->marks.len - 1])) {
            return -EBADMSG;
        }
        if (!PMT__VEC_PUSH(self->allocator, &self->marks, epoch)) {
            return -ENOMEM;
        }
    }
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

static int
sizes_add(pmt__merge *self, pmt__cursor *in)
{
    for (size_t left = pmt__get_count(in, 3); left > 0; left--) {
        uint64_t bucket = pmt__get_limited(in, 63, "a size class");
        self->size_allocs[bucket] += pmt__get_varint(in);
        self->size_bytes[bucket] += pmt__get_varint(in);
    }
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

static int
cut_add(pmt__merge *self, pmt__cursor *in)
{
    head_get(in, self->head);
    self->span_ns += self->head[PMT_HEAD_SPAN];
    const uint8_t *counters = in->at;
    for (size_t left = pmt__get_count(in, 2); left > 0; left--) {
        pmt__get_varint(in);
        pmt__get_varint(in);
    }
    if (in->code != PMT_OK) {
        return -EBADMSG;
    }
    pmt__buffer_clear(&self->counters);
    pmt__buffer_put(&self->counters, counters, (size_t)(in->at - counters));
    return rows_add(self, in, self->head);
}

void
pmt__merge_sums_get(pmt__cursor *in, pmt__sample_sums *out)
{
    out->samples = (uint64_t)pmt__get_zigzag(in);
    out->sure_blocks = (uint64_t)pmt__get_zigzag(in);
    out->sure_bytes = (uint64_t)pmt__get_zigzag(in);
    out->blocks2 = pmt__get_f64(in);
    out->bytes2 = pmt__get_f64(in);
}

static int
samples_add(pmt__merge *self, pmt__cursor *in)
{
    self->sample_mean = pmt__get_varint(in);
    uint64_t has_peak = pmt__get_varint(in);
    uint64_t site = 0;
    self->sample_peak = has_peak != 0 ? self->deltas + 1 : self->sample_peak;
    for (size_t left = pmt__get_count(in, PMT_SAMPLES_ENTRY_MIN); left > 0; left--) {
        site += (uint64_t)pmt__get_zigzag(in);
        pmt__merge_sample sample = {.site = site, .delta = self->deltas + 1};
        pmt__merge_sums_get(in, &sample.allocs);
        pmt__merge_sums_get(in, &sample.frees);
        if (has_peak != 0) {
            pmt__merge_sums_get(in, &sample.peak);
        }
        if (in->code != PMT_OK || site == 0 || site >= self->sites) {
            return -EBADMSG;
        }
        if (!PMT__VEC_PUSH(self->allocator, &self->samples, sample)) {
            return -ENOMEM;
        }
    }
    return in->code == PMT_OK ? 0 : -EBADMSG;
}

int
pmt__merge_add(pmt__merge *self, const uint8_t *payload, size_t size)
{
    pmt_error err = PMT_ERROR_INIT;
    pmt__cursor in = payload_cursor(payload, size, &err), body;
    const uint8_t *start;
    uint8_t kind;
    int rc = 0;
    while (rc == 0 && section_next(&in, &kind, &body, &start)) {
        switch (kind) {
        case PMT_SECTION_THREADS:
            rc = threads_add(self, &body);
            break;
        case PMT_SECTION_SIZES:
            rc = sizes_add(self, &body);
            break;
        case PMT_SECTION_CUT:
            rc = cut_add(self, &body);
            rc = rc == 0 ? lives_settle(self) : rc;
            break;
        case PMT_SECTION_LIFETIMES:
            rc = lives_add(self, &body);
            break;
        case PMT_SECTION_SAMPLES:
            rc = samples_add(self, &body);
            break;
        case PMT_SECTION_RESIDENT: /* the last one stays */
            pmt__buffer_clear(&self->resident);
            pmt__buffer_put(&self->resident, start, (size_t)(in.at - start));
            break;
        case PMT_SECTION_MARKS:
            rc = marks_add(self, &body);
            /* fall through */
        default:
            pmt__buffer_put(&self->definitions, start, (size_t)(in.at - start));
        }
    }
    self->deltas++;
    return rc < 0 ? rc : in.code == PMT_OK ? 0 : -EBADMSG;
}

bool
pmt__merge_is_large(const pmt__merge *self)
{
    return self->sums.len > SUMS_MAX || self->samples.len > SUMS_MAX / 2
           || self->definitions.len > DEFINITIONS_MAX;
}

/* --- finishing --------------------------------------------------------------------------------------------------------------- */

static uint64_t
class_age(uint64_t key)
{
    uint64_t class = key & ((1u << CLASS_BITS) - 1);
    return class == 0 ? 0 : (uint64_t)1 << (class - 1);
}

/* The birth epoch that stands for blocks of this age class which died in this part of the window: as many epochs
   before the window's end as they were old, unless that is in another part. */
static uint64_t
dead_birth(const pmt__merge *self, uint64_t key)
{
    uint64_t part = (key & ~DEAD) >> CLASS_BITS;
    uint64_t end = self->head[PMT_HEAD_EPOCH];
    uint64_t first = part == 0 ? self->epoch_before + 1 : self->marks.data[part - 1] + 1;
    uint64_t last = self->keeps_epochs && part < self->marks.len ? self->marks.data[part] : end;
    uint64_t age = class_age(key);
    uint64_t birth = end > age ? end - age : 1;
    return birth < first ? first : birth > last ? last : birth;
}

/* Makes a row of the sum; false if it says nothing. */
static bool
sum_settle(const pmt__merge *self, pmt__sum *sum)
{
    if (!self->peak_moved || sum->run != self->run) {
        sum->peak_blocks = sum->peak_bytes = 0;
    }
    if (sum->birth & DEAD) {
        sum->birth = dead_birth(self, sum->birth);
        return (sum->frees | sum->free_bytes | sum->temporaries) != 0;
    }
    if (sum->birth > self->epoch_before) { /* its dead are elsewhere */
        sum->allocs -= sum->frees;
        sum->alloc_bytes -= sum->free_bytes;
        sum->frees = sum->free_bytes = 0;
    }
    return (sum->allocs | sum->frees | sum->temporaries | sum->alloc_bytes | sum->free_bytes
            | (uint64_t)sum->peak_blocks | (uint64_t)sum->peak_bytes)
           != 0;
}

/* By site and birth: least significant digit first, leaving out digits that all keys share. */
static int
keys_sort(pmt__merge *self)
{
    enum {
        DIGIT = 11,
        BUCKETS = 1 << DIGIT
    };
    size_t count = self->keys.len;
    if (!PMT__VEC_RESERVE(self->allocator, &self->keys_to, count)) {
        return -ENOMEM;
    }
    uint64_t differ = 0;
    for (size_t i = 1; i < count; i++) {
        differ |= self->keys.data[i].key ^ self->keys.data[0].key;
    }
    pmt__merge_key *from = self->keys.data, *to = self->keys_to.data;
    uint32_t starts[BUCKETS];
    for (int shift = 0; shift < 64; shift += DIGIT) {
        if ((differ >> shift & (BUCKETS - 1)) == 0) {
            continue;
        }
        memset(starts, 0, sizeof starts);
        for (size_t i = 0; i < count; i++) {
            starts[from[i].key >> shift & (BUCKETS - 1)]++;
        }
        uint32_t total = 0;
        for (int b = 0; b < BUCKETS; b++) {
            uint32_t n = starts[b];
            starts[b] = total;
            total += n;
        }
        for (size_t i = 0; i < count; i++) {
            to[starts[from[i].key >> shift & (BUCKETS - 1)]++] = from[i];
        }
        pmt__merge_key *swap = from;
        from = to;
        to = swap;
    }
    if (from != self->keys.data) {
        memcpy(self->keys.data, from, count * sizeof *from);
    }
    return 0;
}

/* Sums with the same key become one, at the place of the first. */
static void
keys_unite(pmt__merge *self)
{
    size_t used = 0;
    for (size_t i = 0; i < self->keys.len; i++) {
        const pmt__merge_key key = self->keys.data[i];
        if (used == 0 || self->keys.data[used - 1].key != key.key) {
            self->keys.data[used++] = key;
            continue;
        }
        pmt__sum *to = &self->sums.data[self->keys.data[used - 1].sum];
        const pmt__sum *sum = &self->sums.data[key.sum];
        to->allocs += sum->allocs;
        to->frees += sum->frees;
        to->temporaries += sum->temporaries;
        to->alloc_bytes += sum->alloc_bytes;
        to->free_bytes += sum->free_bytes;
        to->temporary_bytes += sum->temporary_bytes;
        to->peak_blocks += sum->peak_blocks;
        to->peak_bytes += sum->peak_bytes;
    }
    self->keys.len = used;
}

/* Where a mark has kept dead blocks from a birth epoch that gives their row their age. */
static int
life_keep(pmt__merge *self, const pmt__sum *sum, uint64_t age)
{
    if (self->head[PMT_HEAD_EPOCH] - sum->birth == age || (sum->frees | sum->free_bytes) == 0) {
        return 0;
    }
    const pmt__merge_life life = {sum->site, sum->birth, age, sum->frees, sum->free_bytes};
    return PMT__VEC_PUSH(self->allocator, &self->lives, life) ? 0 : -ENOMEM;
}

static int
rows_settle(pmt__merge *self)
{
    self->lives.len = 0;
    self->keys.len = 0;
    if (!PMT__VEC_RESERVE(self->allocator, &self->keys, self->sums.len)) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < self->sums.len; i++) {
        pmt__sum *sum = &self->sums.data[i];
        if (sum->birth > self->epoch_before
            && ((sum->allocs - sum->frees) >> 63 || (sum->alloc_bytes - sum->free_bytes) >> 63)) {
            return -EBADMSG; /* more were freed than there were; less than none may be: thinned samples weigh more */
        }
        uint64_t key = sum->birth;
        if (sum_settle(self, sum)) {
            if ((key & DEAD) && life_keep(self, sum, class_age(key)) < 0) {
                return -ENOMEM;
            }
            self->keys.data[self->keys.len++] =
                (pmt__merge_key){(uint64_t)sum->site << 32 | sum->birth, (uint32_t)i};
        }
    }
    int rc = keys_sort(self);
    keys_unite(self);
    return rc;
}

static void
row_put(const pmt__merge *self, pmt__buffer *out, const pmt__sum *sum, uint32_t site_before)
{
    uint8_t *start = pmt__buffer_reserve(out, 12 * PMT_VARINT_MAX);
    if (start == NULL) {
        return;
    }
    bool sizeless = is_sizeless(self, sum->site);
    uint8_t *at = pmt__varint_put(start, sum->site - site_before);
    at = pmt__varint_put(at, self->head[PMT_HEAD_EPOCH] - sum->birth);
    at = pmt__varint_put(at, sum->allocs);
    at = pmt__varint_put(at, sum->frees);
    at = pmt__varint_put(at, sum->temporaries);
    if (sizeless) {
        at = pmt__varint_put(at, sum->alloc_bytes);
        at = pmt__varint_put(at, sum->free_bytes);
        at = pmt__varint_put(at, sum->temporary_bytes);
    }
    if (self->peak_moved) {
        at = pmt__varint_put(at, pmt__zigzag(sum->peak_blocks));
        if (sizeless) {
            at = pmt__varint_put(at, pmt__zigzag(sum->peak_bytes));
        }
    }
    out->len += (size_t)(at - start);
}

static void
threads_put(pmt__merge *self, pmt__buffer *payload)
{
    uint64_t count = 0;
    for (size_t id = 0; id < self->threads.len; id++) {
        count += self->threads.data[id].known;
    }
    if (count == 0) {
        return;
    }
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, count);
    for (size_t id = 0; id < self->threads.len; id++) {
        for (size_t i = 0; i < 7 && self->threads.data[id].known; i++) {
            pmt__buffer_put_varint(&self->body, self->threads.data[id].fields[i]);
        }
    }
    pmt__section_put(payload, PMT_SECTION_THREADS, &self->body);
}

static void
sizes_put(pmt__merge *self, pmt__buffer *payload)
{
    uint64_t count = 0;
    for (size_t b = 0; b < 64; b++) {
        count += self->size_allocs[b] != 0;
    }
    if (count == 0) {
        return;
    }
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, count);
    for (size_t b = 0; b < 64; b++) {
        if (self->size_allocs[b] != 0) {
            pmt__buffer_put_varint(&self->body, b);
            pmt__buffer_put_varint(&self->body, self->size_allocs[b]);
            pmt__buffer_put_varint(&self->body, self->size_bytes[b]);
        }
    }
    pmt__section_put(payload, PMT_SECTION_SIZES, &self->body);
}

static void
lives_put(pmt__merge *self, pmt__buffer *payload)
{
    if (self->lives.len == 0) {
        return;
    }
    pmt__merge_life before = {0};
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, self->lives.len);
    for (size_t i = 0; i < self->lives.len; i++) {
        const pmt__merge_life life = self->lives.data[i];
        pmt__buffer_put_zigzag(&self->body, (int64_t)(life.site - before.site));
        pmt__buffer_put_zigzag(&self->body, (int64_t)(life.birth - before.birth));
        pmt__buffer_put_varint(&self->body, life.age);
        pmt__buffer_put_varint(&self->body, life.blocks);
        if (is_sizeless(self, life.site)) {
            pmt__buffer_put_varint(&self->body, life.bytes);
        }
        before = life;
    }
    pmt__section_put(payload, PMT_SECTION_LIFETIMES, &self->body);
}

static int
samples_compare(const void *left, const void *right)
{
    const pmt__merge_sample *a = left, *b = right;
    return a->site < b->site ? -1 : a->site > b->site;
}

/* Turns the correction of an entry's own delta into its part of that of the window: what the entry changed behind the peak is not
   yet so at the peak. */
static void
sample_correct(const pmt__merge *self, pmt__merge_sample *sample)
{
    if (sample->delta < self->sample_peak) {
        sample->peak = (pmt__sample_sums){0};
    } else if (sample->delta > self->sample_peak) {
        sample->peak = sample->frees;
        pmt__sample_sums_add(&sample->peak, &sample->allocs, -1);
    }
}

/* One entry per site. */
static void
samples_put(pmt__merge *self, pmt__buffer *payload)
{
    if (self->sample_mean == 0) {
        return;
    }
    size_t count = 0;
    if (self->samples.len > 1) {
        qsort(self->samples.data, self->samples.len, sizeof *self->samples.data, samples_compare);
    }
    for (size_t i = 0; i < self->samples.len; i++) {
        pmt__merge_sample from = self->samples.data[i];
        pmt__merge_sample *to = count > 0 ? &self->samples.data[count - 1] : NULL;
        sample_correct(self, &from);
        if (to == NULL || to->site != from.site) {
            self->samples.data[count++] = from;
            continue;
        }
        pmt__sample_sums_add(&to->allocs, &from.allocs, 1);
        pmt__sample_sums_add(&to->frees, &from.frees, 1);
        pmt__sample_sums_add(&to->peak, &from.peak, 1);
    }
    self->samples.len = count;
    pmt__buffer_clear(&self->body);
    pmt__buffer_put_varint(&self->body, self->sample_mean);
    pmt__buffer_put_varint(&self->body, self->sample_peak != 0);
    pmt__buffer_put_varint(&self->body, count);
    uint64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        const pmt__merge_sample *sample = &self->samples.data[i];
        pmt__buffer_put_zigzag(&self->body, (int64_t)(sample->site - before));
        pmt__sample_sums_put(&self->body, &sample->allocs);
        pmt__sample_sums_put(&self->body, &sample->frees);
        if (self->sample_peak != 0) {
            pmt__sample_sums_put(&self->body, &sample->peak);
        }
        before = sample->site;
    }
    pmt__section_put(payload, PMT_SECTION_SAMPLES, &self->body);
}

int
pmt__merge_finish(pmt__merge *self, pmt__buffer *payload)
{
    int rc = rows_settle(self);
    if (rc < 0) {
        return rc;
    }
    pmt__buffer_put(payload, self->definitions.data, self->definitions.len);
    threads_put(self, payload);
    sizes_put(self, payload);
    pmt__buffer_put(payload, self->resident.data, self->resident.len);
    lives_put(self, payload);
    samples_put(self, payload);

    /* The end of the run and its last cut end a window, so these flags are those of the last. */
    self->head[PMT_HEAD_FLAGS] &= PMT_CUT_MAIN_RETURNED | PMT_CUT_FINAL;
    self->head[PMT_HEAD_FLAGS] |= PMT_CUT_MERGED | (self->peak_moved ? PMT_CUT_PEAK_MOVED : 0u);
    self->head[PMT_HEAD_SPAN] = self->span_ns;
    pmt__buffer *body = &self->body;
    pmt__buffer_clear(body);
    for (size_t i = 0; i < PMT_CUT_HEAD; i++) {
        pmt__buffer_put_varint(body, self->head[i]);
    }
    pmt__buffer_put(body, self->counters.data, self->counters.len);
    pmt__buffer_put_varint(body, self->keys.len);
    uint32_t before = 0;
    for (size_t i = 0; i < self->keys.len; i++) {
        const pmt__sum *sum = &self->sums.data[self->keys.data[i].sum];
        row_put(self, body, sum, before);
        before = sum->site;
    }
    pmt__section_put(payload, PMT_SECTION_CUT, body);
    return payload->failed || self->definitions.failed || self->counters.failed
                   || self->resident.failed
               ? -ENOMEM
               : 0;
}
