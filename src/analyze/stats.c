#include "analyze/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/combine.h"
#include "analyze/spread.h"
#include "base/error.h"

/* 0 for 0, else 1 + the integer part of log2. */
static unsigned
log2_class(uint64_t value)
{
    unsigned bits = 0;
    while (value != 0) {
        bits++;
        value >>= 1;
    }
    return bits;
}

static void
name_classes(pmt__class *classes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        classes[i].low = i == 0 ? 0 : (uint64_t)1 << (i - 1);
        classes[i].high = i == 0 ? 0 : classes[i].low - 1 + classes[i].low;
    }
}

/* Nothing is counted yet. */
static void
begin(pmt__stats *out, const pmt_allocator *allocator)
{
    memset(out, 0, sizeof *out);
    out->allocator = allocator;
    name_classes(out->sizes, PMT_SIZE_CLASSES);
    name_classes(out->ages, PMT_AGE_CLASSES);
    out->large.low = 513;
    out->large.high = UINT64_MAX;
}

/* Moves what died before a mark from the age of its row to its own. A capture that lies may say more than the rows do. */
static void
move_ages(pmt__stats *self, const pmt_reader *reader, const pmt__selection *only)
{
    for (size_t i = 0; i < reader->lifetimes.len; i++) {
        const pmt__stored_lifetime *it = &reader->lifetimes.data[i];
        if (it->cut < only->window.first || it->cut > only->window.last
            || it->birth <= only->window.exclude_epoch
            || !pmt__selection_has(only, &reader->sites.data[it->site])) {
            continue;
        }
        pmt__class *from = &self->ages[log2_class(reader->cuts.data[it->cut].epoch - it->birth)];
        pmt__class *to = &self->ages[log2_class(it->age)];
        if (it->blocks <= from->blocks && it->bytes <= from->bytes) {
            from->blocks -= it->blocks;
            from->bytes -= it->bytes;
            to->blocks += it->blocks;
            to->bytes += it->bytes;
        }
    }
}

static void
add_ages(pmt__stats *self, const pmt_reader *reader, const pmt__selection *only)
{
    for (size_t cut = only->window.first; cut < reader->cuts.len && cut <= only->window.last;
         cut++) {
        pmt__row_walk walk;
        pmt__row row;
        pmt__rows_begin(&walk, reader, cut, NULL);
        while (pmt__rows_next(&walk, &row)) {
            if (row.birth <= only->window.exclude_epoch
                || !pmt__selection_has(only, &reader->sites.data[row.site])) {
                continue;
            }
            pmt__class *class = &self->ages[log2_class(row.age)];
            class->blocks += row.frees;
            class->bytes += row.free_bytes;
            self->frees += row.frees;
        }
    }
}

/* A sampled recording's later deaths may take back what thinning has added to earlier ones: none is the least. */
static void
settle_ages(pmt__stats *self)
{
    for (size_t i = 0; i < PMT_AGE_CLASSES; i++) {
        self->ages[i].blocks = pmt__at_least_0(self->ages[i].blocks);
        self->ages[i].bytes = pmt__at_least_0(self->ages[i].bytes);
    }
}

/* A class of large sizes, of which no samples are known: as if its blocks were of one size, and the samples drawn with this mean. */
static pmt_spread
spread_of_class(uint64_t blocks, uint64_t bytes, uint64_t mean)
{
    double size = blocks == 0 ? 0 : (double)bytes / (double)blocks;
    if (mean == 0 || !(size > 0) || size >= PMT_SAMPLE_SURE * (double)mean) {
        return (pmt_spread){.sure_blocks = blocks, .sure_bytes = bytes};
    }
    double p = -expm1(-size / (double)mean);
    double variance = (double)blocks * (1 - p) / p;
    return (pmt_spread){.samples = (uint64_t)((double)blocks * p + 0.5),
                        .blocks2 = variance,
                        .bytes2 = variance * size * size};
}

static void
add_large_sizes(pmt__stats *self, const pmt_reader *reader)
{
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    for (size_t bucket = 0; bucket < 64; bucket++) {
        const pmt__size_class *from = &reader->large_sizes[bucket];
        pmt__class *to = &self->sizes[bucket + 1];
        to->blocks += from->allocations;
        to->bytes += from->bytes;
        const pmt_spread spread =
            spread_of_class(from->allocations, from->bytes, capture.sample_bytes_now);
        pmt__spread_add(&to->spread, &spread, 1);
    }
}

static void
add_sites(pmt__stats *self, const pmt_reader *reader, const pmt__selection *only,
          const pmt__sums *sums)
{
    for (size_t i = 1; i < reader->sites.len; i++) {
        const pmt__stored_site *site = &reader->sites.data[i];
        if (!pmt__selection_has(only, site)) {
            continue;
        }
        pmt__sums_add(&self->domains[site->domain], &sums[i]);
        pmt__sums_add(&self->threads[site->thread], &sums[i]);
        pmt__sums_add(&self->total, &sums[i]);
        bool is_large = site->size == PMT_SIZE_LARGE;
        if (is_large && !self->filtered) {
            continue; /* the capture has a histogram of them */
        }
        pmt__class *class = is_large ? &self->large : &self->sizes[log2_class(site->size)];
        class->blocks += sums[i].total_blocks;
        class->bytes += sums[i].total_bytes;
        pmt__spread_add(&class->spread, &sums[i].total, 1);
    }
    if (!self->filtered) {
        add_large_sizes(self, reader);
    }
}

/* filtered: sizes that the capture knows for the whole run only are not to be used. ages: lifetimes and frees as well,
   for which alone every row has to be looked at. */
static int
stats_of(pmt__stats *out, const pmt_reader *reader, const pmt_query *query, bool filtered,
         bool ages, pmt_error *err)
{
    begin(out, reader->allocator);
    out->is_estimate = pmt__reader_is_sampled(reader);
    out->threads = pmt__alloc_zeroed(reader->allocator, reader->threads.len, sizeof *out->threads);
    if (out->threads == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    pmt__selection only;
    pmt__sums *sums = NULL;
    int result = pmt__selection_init(&only, reader, query, err);
    if (result == PMT_OK) {
        result = pmt__sums_compute(&sums, reader, &only.window, err);
    }
    if (result == PMT_OK) {
        out->filtered = filtered || !only.window.whole || only.stacks != NULL
                        || only.threads != NULL || query->exclude_epoch != 0;
        out->start_ns = only.window.start_ns;
        out->end_ns = only.window.end_ns;
        add_sites(out, reader, &only, sums);
        if (ages) {
            add_ages(out, reader, &only);
            move_ages(out, reader, &only);
            settle_ages(out);
        }
    }
    pmt__release(reader->allocator, sums);
    pmt__selection_dispose(&only, reader->allocator);
    return result;
}

int
pmt__stats_query(pmt__stats *out, const pmt_reader *reader, const pmt_query *query, pmt_error *err)
{
    return stats_of(out, reader, query, false, true, err);
}

int
pmt__stats_query_threads(pmt__stats *out, const pmt_reader *reader, const pmt_query *query,
                         pmt_error *err)
{
    return stats_of(out, reader, query, false, false, err);
}

int
pmt__stats_init(pmt__stats *out, const pmt_reader *reader, pmt_error *err)
{
    const pmt_query query = {.view = PMT_VIEW_PEAK};
    return pmt__stats_query(out, reader, &query, err);
}

void
pmt__stats_dispose(pmt__stats *self)
{
    pmt__release(self->allocator, self->threads);
    self->threads = NULL;
}

/* --- several captures ------------------------------------------------------------------------ */

static void
add_classes(pmt__class *to, const pmt__class *classes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i].blocks += classes[i].blocks;
        to[i].bytes += classes[i].bytes;
        pmt__spread_add(&to[i].spread, &classes[i].spread, 1);
    }
}

static void
add_stats(pmt__stats *to, const pmt__stats *stats)
{
    add_classes(to->sizes, stats->sizes, PMT_SIZE_CLASSES);
    add_classes(&to->large, &stats->large, 1);
    add_classes(to->ages, stats->ages, PMT_AGE_CLASSES);
    for (size_t i = 0; i < PMT_DOMAIN_COUNT; i++) {
        pmt__sums_add(&to->domains[i], &stats->domains[i]);
    }
    pmt__sums_add(&to->total, &stats->total);
    to->frees += stats->frees;
    to->filtered = to->filtered || stats->filtered;
    to->is_estimate = to->is_estimate || stats->is_estimate;
}

/* Whether any of the captures can answer for a part of itself only: then all do, so that the classes of
   sizes are those of all. */
static bool
any_filtered(const pmt_reader *const *readers, size_t count, const pmt_query *query,
             bool with_inherited)
{
    bool filtered = query->has_start || query->has_end || query->thread != NULL
                    || (query->include_count | query->exclude_count) != 0;
    for (size_t i = 0; i < count && !with_inherited; i++) {
        filtered = filtered || pmt_reader_inherited_epoch(readers[i]) != 0;
    }
    return filtered;
}

static int
add_parts(pmt__stats *out, pmt__stats *parts, const pmt_reader *const *readers, size_t count,
          const pmt_query *query, bool with_inherited, pmt_error *err)
{
    uint64_t *offsets_ns = pmt__alloc_zeroed(out->allocator, count, sizeof *offsets_ns);
    if (offsets_ns == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    bool filtered = any_filtered(readers, count, query, with_inherited);
    int result = PMT_OK;
    size_t found = 0;
    pmt__captures_start(readers, count, offsets_ns);
    for (size_t i = 0; i < count && result == PMT_OK; i++) {
        pmt_query own;
        if (!pmt__query_for(&own, query, readers[i], offsets_ns[i], with_inherited)) {
            continue;
        }
        result = stats_of(&parts[i], readers[i], &own, filtered, true, err);
        if (result == PMT_ERR_ARGUMENT && own.thread != NULL) {
            pmt__stats_dispose(&parts[i]); /* it has no such thread */
            result = PMT_OK;
            continue;
        }
        found++;
        add_stats(out, &parts[i]);
    }
    if (result == PMT_OK && found == 0) {
        result = pmt__query_is_outside(query, err);
    }
    if (result == PMT_OK) {
        pmt__stretch stretch;
        result = pmt__captures_stretch(&stretch, readers, offsets_ns, count, query, err);
        if (result == PMT_OK) {
            out->start_ns = stretch.start_ns;
            out->end_ns = stretch.end_ns;
        }
    }
    pmt__release(out->allocator, offsets_ns);
    return result;
}

int
pmt__stats_combine(pmt__stats *out, pmt__stats *parts, const pmt_reader *const *readers,
                   size_t count, const pmt_query *query, bool with_inherited, pmt_error *err)
{
    begin(out, readers[0]->allocator);
    memset(parts, 0, count * sizeof *parts);
    for (size_t i = 0; i < count; i++) {
        parts[i].allocator = readers[i]->allocator;
    }
    int result = pmt__window_check(query, err);
    return result < 0 ? result : add_parts(out, parts, readers, count, query, with_inherited, err);
}

/* --- epochs ---------------------------------------------------------------------------------- */

static int
compare_epochs(const void *left, const void *right)
{
    const pmt__epoch *a = left;
    const pmt__epoch *b = right;
    if (a->epoch != b->epoch) {
        return a->epoch < b->epoch ? -1 : 1;
    }
    /* A mark knows the end exactly and comes first; of cuts, the last one. */
    if ((a->mark == UINT32_MAX) != (b->mark == UINT32_MAX)) {
        return a->mark == UINT32_MAX ? 1 : -1;
    }
    return a->end_ns > b->end_ns ? -1 : a->end_ns < b->end_ns;
}

int
pmt__epochs_init(pmt__epochs *out, const pmt_reader *reader, pmt_error *err)
{
    *out = (pmt__epochs){.allocator = reader->allocator};
    if (!PMT__VEC_RESERVE(out->allocator, &out->list, reader->marks.len + reader->cuts.len)) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < reader->marks.len; i++) {
        const pmt__stored_mark *mark = &reader->marks.data[i];
        out->list.data[out->list.len++] =
            (pmt__epoch){.epoch = mark->epoch, .end_ns = mark->t_ns, .mark = (uint32_t)i};
    }
    for (size_t i = 0; i < reader->cuts.len; i++) {
        const pmt_cut *cut = &reader->cuts.data[i];
        out->list.data[out->list.len++] =
            (pmt__epoch){.epoch = cut->epoch, .end_ns = cut->t_ns, .mark = UINT32_MAX};
    }
    if (out->list.len > 1) {
        qsort(out->list.data, out->list.len, sizeof *out->list.data, compare_epochs);
    }
    size_t used = 0;
    for (size_t i = 0; i < out->list.len; i++) {
        if (used != 0 && out->list.data[used - 1].epoch == out->list.data[i].epoch) {
            continue;
        }
        pmt__epoch epoch = out->list.data[i];
        epoch.start_ns = used == 0 ? 0 : out->list.data[used - 1].end_ns;
        if (epoch.end_ns < epoch.start_ns) {
            epoch.end_ns = epoch.start_ns;
        }
        out->list.data[used++] = epoch;
    }
    out->list.len = used;
    return PMT_OK;
}

size_t
pmt__epochs_find(const pmt__epochs *self, uint64_t epoch)
{
    /* The first that is not older: a merged window shows only the last of its epochs. */
    size_t low = 0;
    size_t high = self->list.len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (self->list.data[middle].epoch < epoch) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == self->list.len && low != 0 ? low - 1 : low;
}

void
pmt__epochs_sum(pmt__epochs *self, const pmt_reader *reader)
{
    size_t end = pmt_reader_end_cut(reader);
    for (size_t cut = 0; cut < reader->cuts.len; cut++) {
        pmt__row_walk walk;
        pmt__row row;
        pmt__rows_begin(&walk, reader, cut, NULL);
        while (pmt__rows_next(&walk, &row)) {
            pmt__sums *sums = &self->list.data[pmt__epochs_find(self, row.birth)].sums;
            sums->total_blocks += row.allocs;
            sums->total_bytes += row.alloc_bytes;
            sums->temp_blocks += row.temps;
            sums->temp_bytes += row.temp_bytes;
            if (cut <= end) {
                sums->leak_blocks += row.allocs - row.frees;
                sums->leak_bytes += row.alloc_bytes - row.free_bytes;
            }
        }
    }
}

void
pmt__epochs_dispose(pmt__epochs *self)
{
    PMT__VEC_DISPOSE(self->allocator, &self->list);
}
