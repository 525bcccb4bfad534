/* What several heaps were at one time.

   Each process says what its heap was at its cuts, once a second or so, and, where its peak moved, how high
   it was at one moment between two cuts. The processes' cuts are not simultaneous. So at any instant each
   process counts with its last cut, and at the moment of its own peak with that; right after it, with its
   last cut again: two spikes of one second are not taken for simultaneous. The highest sum is thus one that the
   captures testify to as closely as they can, the sum of peaks is what it cannot exceed, and for one process
   it is its peak.

   Time is that of the cuts' Unix clock: processes of one host have it in common. A process that still ran
   when its capture was read stays at its last cut; one that has ended holds nothing from its end on. */
#include "analyze/totals.h"

#include <stdlib.h>
#include <string.h>

#include "analyze/combine.h"
#include "analyze/spread.h"
#include "analyze/stats.h"
#include "base/error.h"

/* --- of one process ---------------------------------------------------------------------------- */

static void
add_births(pmt__totals *self, const pmt_reader *reader, uint64_t epoch)
{
    for (size_t cut = 0; cut < reader->cuts.len; cut++) {
        pmt__row_walk walk;
        pmt__row row;
        pmt__rows_begin(&walk, reader, cut, NULL);
        while (pmt__rows_next(&walk, &row)) {
            if (row.birth <= epoch) {
                self->inherited_bytes += row.alloc_bytes;
                self->inherited_blocks += row.allocs;
            }
        }
    }
}

static void
take_spreads(pmt__totals *self, const pmt__sums *total)
{
    self->peak_spread = total->peak;
    self->end_spread = total->leak;
    self->allocated_spread = total->total;
}

/* Of the whole run. */
static int
add_spreads(pmt__totals *self, const pmt_reader *reader, pmt_error *err)
{
    if (!self->is_estimate) {
        self->peak_spread = (pmt_spread){0, self->peak_blocks, self->peak_bytes, 0, 0};
        self->end_spread = (pmt_spread){0, self->end_blocks, self->end_bytes, 0, 0};
        self->allocated_spread = (pmt_spread){0, self->allocations, self->allocated_bytes, 0, 0};
        return PMT_OK;
    }
    pmt__stats stats;
    int result = pmt__stats_init(&stats, reader, err);
    if (result == PMT_OK) {
        take_spreads(self, &stats.total);
    }
    pmt__stats_dispose(&stats);
    return result;
}

static int
without_epoch(pmt__totals *self, const pmt_reader *reader, uint64_t exclude_epoch, pmt_error *err)
{
    const pmt_query query = {.view = PMT_VIEW_PEAK, .exclude_epoch = exclude_epoch};
    pmt__stats stats;
    add_births(self, reader, exclude_epoch);
    int result = pmt__stats_query(&stats, reader, &query, err);
    if (result == PMT_OK) {
        take_spreads(self, &stats.total);
        self->peak_bytes = stats.total.peak_bytes;
        self->peak_blocks = stats.total.peak_blocks;
        self->end_bytes = stats.total.leak_bytes;
        self->end_blocks = stats.total.leak_blocks;
        self->allocated_bytes = stats.total.total_bytes;
        self->allocations = stats.total.total_blocks;
        self->frees = stats.frees;
    }
    pmt__stats_dispose(&stats);
    return result;
}

int
pmt__totals_compute(pmt__totals *out, const pmt_reader *reader, uint64_t exclude_epoch,
                    pmt_error *err)
{
    memset(out, 0, sizeof *out);
    if (reader->cuts.len == 0) {
        return PMT_OK;
    }
    const pmt_cut *last = &reader->cuts.data[reader->cuts.len - 1];
    const pmt_cut *end = &reader->cuts.data[pmt_reader_end_cut(reader)];
    *out = (pmt__totals){.peak_bytes = last->peak_bytes,
                         .peak_blocks = last->peak_blocks,
                         .peak_t_ns = last->peak_t_ns,
                         .end_bytes = end->live_bytes,
                         .end_blocks = end->live_blocks,
                         .end_t_ns = end->t_ns,
                         .allocated_bytes = last->allocated_bytes,
                         .allocations = last->allocations,
                         .frees = last->frees,
                         .rss_end_bytes = end->rss_bytes,
                         .gc = {last->gc[0], last->gc[1], last->gc[2]},
                         .own_bytes = last->own_bytes,
                         .is_estimate = pmt__reader_is_sampled(reader)};
    for (size_t i = 0; i < reader->cuts.len; i++) {
        uint64_t rss = reader->cuts.data[i].rss_bytes;
        out->rss_peak_bytes = rss > out->rss_peak_bytes ? rss : out->rss_peak_bytes;
    }
    return exclude_epoch == 0 ? add_spreads(out, reader, err)
                              : without_epoch(out, reader, exclude_epoch, err);
}

void
pmt__totals_add(pmt__totals *to, const pmt__totals *totals)
{
    to->peak_bytes += totals->peak_bytes;
    to->peak_blocks += totals->peak_blocks;
    to->end_bytes += totals->end_bytes;
    to->end_blocks += totals->end_blocks;
    to->allocated_bytes += totals->allocated_bytes;
    to->allocations += totals->allocations;
    to->frees += totals->frees;
    to->rss_peak_bytes += totals->rss_peak_bytes;
    to->rss_end_bytes += totals->rss_end_bytes;
    for (size_t i = 0; i < 3; i++) {
        to->gc[i] += totals->gc[i];
    }
    to->own_bytes += totals->own_bytes;
    to->inherited_bytes += totals->inherited_bytes;
    to->inherited_blocks += totals->inherited_blocks;
    to->is_estimate = to->is_estimate || totals->is_estimate;
    pmt__spread_add(&to->peak_spread, &totals->peak_spread, 1);
    pmt__spread_add(&to->end_spread, &totals->end_spread, 1);
    pmt__spread_add(&to->allocated_spread, &totals->allocated_spread, 1);
}

/* --- of several -------------------------------------------------------------------------------- */

typedef enum change_kind {
    LEVEL, /* from now on the heap is this */
    SPIKE, /* it was this at this instant */
    END,
} change_kind;

typedef struct change {
    uint64_t unix_ns;
    uint64_t bytes;
    uint32_t process;
    uint32_t gc_runs;
    change_kind kind;
    uint32_t order; /* within the process */
} change;

typedef struct gatherer {
    const pmt_allocator *allocator;
    PMT__VEC(change) changes;
    pmt_error *err;
} gatherer;

static int
no_memory(pmt_error *err)
{
    return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
}

static int
compare_changes(const void *left, const void *right)
{
    const change *a = left;
    const change *b = right;
    if (a->unix_ns != b->unix_ns) {
        return a->unix_ns < b->unix_ns ? -1 : 1;
    }
    if ((a->kind == END) != (b->kind == END)) {
        return a->kind == END ? 1 : -1;
    }
    if (a->process != b->process) {
        return a->process < b->process ? -1 : 1;
    }
    return a->order < b->order ? -1 : a->order > b->order;
}

bool
pmt__cut_has_inner_peak(const pmt_reader *reader, size_t at)
{
    const pmt_cut *cut = &reader->cuts.data[at];
    uint64_t before = at == 0 ? 0 : reader->cuts.data[at - 1].t_ns;
    return (cut->flags & PMT_CUT_PEAK_MOVED) != 0 && cut->peak_t_ns > before
           && cut->peak_t_ns < cut->t_ns;
}

/* What blocks that were born up to an epoch hold: after a cut, and at the peak that it tells of. */
typedef struct held {
    uint64_t bytes;
    uint64_t peak_bytes;
} held;

static void
walk_epoch(held *self, const pmt_reader *reader, size_t cut, uint64_t epoch)
{
    if (epoch == 0) {
        return;
    }
    pmt__row_walk walk;
    pmt__row row;
    uint64_t correction = 0;
    pmt__rows_begin(&walk, reader, cut, NULL);
    while (pmt__rows_next(&walk, &row)) {
        if (row.birth <= epoch) {
            self->bytes += row.alloc_bytes - row.free_bytes;
            correction += row.peak_bytes;
        }
    }
    self->peak_bytes = self->bytes + correction;
}

static int
push(gatherer *self, change it)
{
    it.order = (uint32_t)self->changes.len;
    return PMT__VEC_PUSH(self->allocator, &self->changes, it) ? PMT_OK : no_memory(self->err);
}

static uint64_t
later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static int
gather(gatherer *self, const pmt_reader *reader, uint32_t process, uint64_t epoch)
{
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    change it = {.unix_ns = capture.started_unix_ns, .process = process, .kind = LEVEL};
    int result = push(self, it);
    held inherited = {0, 0};
    uint64_t gc_before = 0;
    uint64_t end_ns = capture.started_unix_ns + capture.duration_ns;
    uint64_t now_ns =
        it.unix_ns; /* clocks are set back now and then: time stands still meanwhile */
    for (size_t i = 0; i < reader->cuts.len && result == PMT_OK; i++) {
        const pmt_cut *cut = &reader->cuts.data[i];
        uint64_t unix_ns = cut->unix_ns != 0 ? cut->unix_ns : capture.started_unix_ns + cut->t_ns;
        walk_epoch(&inherited, reader, i, epoch);
        if (pmt__cut_has_inner_peak(reader, i)) {
            it.kind = SPIKE;
            uint64_t since_ns = cut->t_ns - cut->peak_t_ns;
            it.unix_ns = later(now_ns, unix_ns < since_ns ? 0 : unix_ns - since_ns);
            now_ns = it.unix_ns;
            it.bytes = pmt__at_least_0(cut->peak_bytes - inherited.peak_bytes);
            it.gc_runs = 0;
            result = push(self, it);
        }
        uint64_t gc = pmt__cut_gc_runs(cut);
        it.kind = LEVEL;
        it.unix_ns = now_ns = later(now_ns, unix_ns);
        it.bytes = pmt__at_least_0(cut->live_bytes - inherited.bytes);
        it.gc_runs = (uint32_t)(gc - gc_before);
        gc_before = gc;
        end_ns = now_ns + (capture.duration_ns - cut->t_ns);
        result = result < 0 ? result : push(self, it);
    }
    if (capture.ended != PMT_ENDED_RUNNING && result == PMT_OK) {
        result =
            push(self, (change){.unix_ns = later(now_ns, end_ns), .process = process, .kind = END});
    }
    return result;
}

/* The changes of one instant, up to the first that is an end or later. Returns how many they are.
   heaps: of each process; *sum: of all. */
static size_t
add_instant(pmt__moment *moment, const change *changes, size_t count, uint64_t *heaps,
            uint64_t *sum)
{
    size_t n = 0;
    uint64_t above = 0; /* spikes over the last cut */
    while (n < count && changes[n].unix_ns == changes[0].unix_ns
           && (changes[n].kind == END) == (changes[0].kind == END)) {
        const change *it = &changes[n++];
        uint64_t *heap = &heaps[it->process];
        if (it->kind == SPIKE) {
            above += pmt__at_least_0(it->bytes - *heap);
            continue;
        }
        *sum += it->bytes - *heap;
        *heap = it->bytes;
        moment->gc_runs += it->gc_runs;
    }
    moment->heap_bytes = *sum + above;
    return n;
}

static int
sum_up(pmt__together *self, const gatherer *from, size_t processes, pmt_error *err)
{
    uint64_t *heaps = pmt__alloc_zeroed(self->allocator, processes, sizeof *heaps);
    uint8_t *started = pmt__alloc_zeroed(self->allocator, processes, 1);
    int result = heaps == NULL || started == NULL
                         || !PMT__VEC_RESERVE(self->allocator, &self->list, from->changes.len)
                     ? no_memory(err)
                     : PMT_OK;
    uint32_t running = 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < from->changes.len && result == PMT_OK;) {
        const change *first = &from->changes.data[i];
        pmt__moment moment = {.t_ns = first->unix_ns - self->start_unix_ns};
        size_t n = add_instant(&moment, first, from->changes.len - i, heaps, &sum);
        for (size_t k = 0; k < n; k++) {
            if (first[k].kind == END) {
                running--;
            } else if (!started[first[k].process]) {
                started[first[k].process] = 1;
                running++;
            }
        }
        moment.processes = running;
        if (self->highest == SIZE_MAX
            || moment.heap_bytes > self->list.data[self->highest].heap_bytes) {
            self->highest = self->list.len;
        }
        self->list.data[self->list.len++] = moment;
        i += n;
    }
    pmt__release(self->allocator, heaps);
    pmt__release(self->allocator, started);
    return result;
}

int
pmt__together_init(pmt__together *out, const pmt_reader *const *readers, size_t count,
                   bool with_inherited, pmt_error *err)
{
    *out = (pmt__together){.highest = SIZE_MAX};
    int result = pmt__captures_check(count, err);
    if (result < 0) {
        return result;
    }
    out->allocator = readers[0]->allocator;
    gatherer it = {.allocator = out->allocator, .err = err};
    for (size_t i = 0; i < count && result == PMT_OK; i++) {
        uint64_t epoch = with_inherited ? 0 : pmt_reader_inherited_epoch(readers[i]);
        result = gather(&it, readers[i], (uint32_t)i, epoch);
    }
    if (result == PMT_OK) {
        qsort(it.changes.data, it.changes.len, sizeof *it.changes.data, compare_changes);
        out->start_unix_ns = it.changes.data[0].unix_ns;
        result = sum_up(out, &it, count, err);
    }
    PMT__VEC_DISPOSE(out->allocator, &it.changes);
    return result;
}

void
pmt__together_dispose(pmt__together *self)
{
    if (self->allocator != NULL) {
        PMT__VEC_DISPOSE(self->allocator, &self->list);
    }
}
