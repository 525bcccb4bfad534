/* One walk over the rows that gives all views per site.

   "Allocated in the window and alive at its end" needs to know which frees are those of blocks that
   were born in the window. Blocks are told apart by birth epoch: those of epochs that began in the
   window are counted exactly. In the one epoch that was under way when the window began, frees may be
   of older blocks or of newer ones; most blocks die young, so they are taken to be of newer ones as
   long as there are any. */
#include "analyze/aggregate.h"
#include "analyze/spread.h"

#include "base/error.h"

void
pmt__sums_add(pmt__sums *to, const pmt__sums *sums)
{
    to->peak_blocks += sums->peak_blocks;
    to->peak_bytes += sums->peak_bytes;
    to->leak_blocks += sums->leak_blocks;
    to->leak_bytes += sums->leak_bytes;
    to->total_blocks += sums->total_blocks;
    to->total_bytes += sums->total_bytes;
    to->temp_blocks += sums->temp_blocks;
    to->temp_bytes += sums->temp_bytes;
    pmt__spread_add(&to->peak, &sums->peak, 1);
    pmt__spread_add(&to->leak, &sums->leak, 1);
    pmt__spread_add(&to->total, &sums->total, 1);
}

pmt_spreads
pmt__sums_spreads(const pmt__sums *sums, pmt_view view)
{
    pmt_spreads out = {sums->peak, sums->total};
    switch (view) {
    case PMT_VIEW_TOTAL:
        out.view = sums->total;
        break;
    case PMT_VIEW_TEMPORARY:
        out.view = pmt__spread_part(&sums->total, sums->temp_blocks, sums->total_blocks,
                                    sums->temp_bytes, sums->total_bytes);
        break;
    case PMT_VIEW_LEAKS:
        out.view = sums->leak;
        break;
    default:
        break;
    }
    return out;
}

/* What the epoch that was under way at the window's start allocated and freed in the window. */
typedef struct straddle {
    uint64_t alloc_blocks;
    uint64_t free_blocks;
    uint64_t alloc_bytes;
    uint64_t free_bytes;
} straddle;

static void
add_cut(pmt__sums *sums, straddle *straddles, const pmt_reader *reader, const pmt__window *window,
        size_t cut, uint64_t epoch_before)
{
    bool in_window = cut >= window->first && cut <= window->last;
    bool before_peak = cut <= window->peak;
    bool is_peak = cut == window->peak && window->exact_peak;
    bool before_end = cut <= window->end;
    pmt__row_walk walk;
    pmt__row row;
    pmt__rows_begin(&walk, reader, cut, NULL);
    while (pmt__rows_next(&walk, &row)) {
        if (row.birth <= window->exclude_epoch) {
            continue; /* never so if it is 0: no blocks are born in epoch 0 */
        }
        pmt__sums *sum = &sums[row.site];
        if (in_window) {
            if (row.birth > reader->fork_epoch) { /* else another process has allocated them */
                sum->total_blocks += row.allocs;
                sum->total_bytes += row.alloc_bytes;
            }
            sum->temp_blocks += row.temps;
            sum->temp_bytes += row.temp_bytes;
        }
        if (before_peak) {
            sum->peak_blocks += row.allocs - row.frees;
            sum->peak_bytes += row.alloc_bytes - row.free_bytes;
            if (is_peak) {
                sum->peak_blocks += row.peak_blocks;
                sum->peak_bytes += row.peak_bytes;
            }
        }
        if (!before_end || cut < window->first || row.birth < epoch_before) {
            continue;
        }
        if (row.birth > epoch_before) {
            sum->leak_blocks += row.allocs - row.frees;
            sum->leak_bytes += row.alloc_bytes - row.free_bytes;
        } else {
            straddles[row.site].alloc_blocks += row.allocs;
            straddles[row.site].free_blocks += row.frees;
            straddles[row.site].alloc_bytes += row.alloc_bytes;
            straddles[row.site].free_bytes += row.free_bytes;
        }
    }
}

/* The views with nothing left out. */
static void
add_whole(pmt__sums *sums, const pmt_reader *reader, const pmt__window *window, size_t cut)
{
    pmt__row_walk walk;
    pmt__row row;
    pmt__rows_begin(&walk, reader, cut, NULL);
    while (pmt__rows_next(&walk, &row)) {
        pmt__sums *sum = &sums[row.site];
        if (cut >= window->first && cut <= window->last) {
            sum->total_blocks += row.allocs;
            sum->total_bytes += row.alloc_bytes;
        }
        if (cut <= window->peak) {
            bool is_peak = cut == window->peak && window->exact_peak;
            sum->peak_blocks += row.allocs - row.frees + (is_peak ? row.peak_blocks : 0);
            sum->peak_bytes += row.alloc_bytes - row.free_bytes + (is_peak ? row.peak_bytes : 0);
        }
        if (cut <= window->end) {
            sum->leak_blocks += row.allocs - row.frees;
            sum->leak_bytes += row.alloc_bytes - row.free_bytes;
        }
    }
}

static int
compute_spreads(pmt__sums *sums, const pmt_reader *reader, const pmt__window *window,
                pmt_error *err)
{
    size_t sites = reader->sites.len;
    bool leaves_out = window->first > 0 || (window->exclude_epoch | reader->fork_epoch) != 0;
    if (reader->samples.len == 0 || !leaves_out) {
        return pmt__spreads_compute(sums, reader, window, NULL, err);
    }
    pmt__sums *whole = pmt__alloc_zeroed(reader->allocator, sites, sizeof *whole);
    if (whole == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory for %zu sites", sites);
    }
    for (size_t cut = 0; cut <= window->last && cut < reader->cuts.len; cut++) {
        add_whole(whole, reader, window, cut);
    }
    int result = pmt__spreads_compute(sums, reader, window, whole, err);
    pmt__release(reader->allocator, whole);
    return result;
}

int
pmt__sums_compute(pmt__sums **out, const pmt_reader *reader, const pmt__window *window,
                  pmt_error *err)
{
    if (reader->running != NULL && window->whole && window->exact_peak
        && !pmt__reader_is_sampled(reader)) { /* the spreads of samples are with the cuts */
        return pmt__running_sums(out, reader, window, err);
    }
    size_t sites = reader->sites.len;
    pmt__sums *sums = pmt__alloc_zeroed(reader->allocator, sites, sizeof *sums);
    straddle *straddles = NULL;
    uint64_t epoch_before = 0; /* no blocks are born in epoch 0 */
    if (window->first > 0) {
        epoch_before = reader->cuts.data[window->first - 1].epoch;
        straddles = pmt__alloc_zeroed(reader->allocator, sites, sizeof *straddles);
    }
    if (sums == NULL || (window->first > 0 && straddles == NULL)) {
        pmt__release(reader->allocator, sums);
        pmt__release(reader->allocator, straddles);
        *out = NULL;
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory for %zu sites", sites);
    }
    size_t last = reader->cuts.len == 0 ? 0 : window->last + 1;
    for (size_t cut = 0; cut < last; cut++) {
        add_cut(sums, straddles, reader, window, cut, epoch_before);
    }
    for (size_t i = 0; i < sites; i++) {
        pmt__sums *sum = &sums[i];
        if (straddles != NULL) {
            sum->leak_blocks +=
                pmt__at_least_0(straddles[i].alloc_blocks - straddles[i].free_blocks);
            sum->leak_bytes += pmt__at_least_0(straddles[i].alloc_bytes - straddles[i].free_bytes);
        }
        sum->peak_blocks = pmt__at_least_0(sum->peak_blocks);
        sum->peak_bytes = pmt__at_least_0(sum->peak_bytes);
        sum->leak_blocks = pmt__at_least_0(sum->leak_blocks);
        sum->leak_bytes = pmt__at_least_0(sum->leak_bytes);
    }
    pmt__release(reader->allocator, straddles);
    int result = compute_spreads(sums, reader, window, err);
    if (result < 0) {
        pmt__release(reader->allocator, sums);
        sums = NULL;
    }
    *out = sums;
    return result;
}
