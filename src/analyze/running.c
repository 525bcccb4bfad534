/* Sums of a capture that is followed. Live figures, totals and temporaries only ever have the rows of a new cut added to them.
   What was alive at the peak is what was alive when the peak last moved: a copy, made when a cut says so. */
#include <string.h>

#include "analyze/aggregate.h"
#include "base/error.h"

static void
add_cut(pmt__running *self, const pmt_reader *reader, size_t cut)
{
    pmt__row_walk walk;
    pmt__row row;
    pmt__rows_begin(&walk, reader, cut, NULL);
    while (pmt__rows_next(&walk, &row)) {
        if (row.birth <= self->exclude_epoch) {
            continue;
        }
        pmt__running_site *site = &self->sites.data[row.site];
        site->live_blocks += row.allocs - row.frees;
        site->live_bytes += row.alloc_bytes - row.free_bytes;
        if (!self->main_returned) {
            site->end_blocks += row.allocs - row.frees;
            site->end_bytes += row.alloc_bytes - row.free_bytes;
        }
        if (row.birth > reader->fork_epoch) { /* else another process has allocated them */
            site->total_blocks += row.allocs;
            site->total_bytes += row.alloc_bytes;
        }
        site->temp_blocks += row.temps;
        site->temp_bytes += row.temp_bytes;
    }
    if (reader->cuts.data[cut].flags & PMT_CUT_MAIN_RETURNED) {
        self->main_returned = true;
    }
}

/* The cut was added last. */
static void
take_peak(pmt__running *self, const pmt_reader *reader, size_t cut)
{
    for (size_t i = 0; i < self->sites.len; i++) {
        pmt__running_site *site = &self->sites.data[i];
        site->peak_blocks = site->live_blocks;
        site->peak_bytes = site->live_bytes;
    }
    pmt__row_walk walk;
    pmt__row row;
    pmt__rows_begin(&walk, reader, cut, NULL);
    while (pmt__rows_next(&walk, &row)) {
        if (row.birth > self->exclude_epoch) {
            self->sites.data[row.site].peak_blocks += row.peak_blocks;
            self->sites.data[row.site].peak_bytes += row.peak_bytes;
        }
    }
}

/* False: out of memory, and nothing is changed. */
static bool
take_cuts(pmt__running *self, const pmt_reader *reader, const pmt__window *window)
{
    if (!PMT__VEC_RESERVE(reader->allocator, &self->sites, reader->sites.len - self->sites.len)) {
        return false;
    }
    if (self->exclude_epoch != window->exclude_epoch) {
        self->exclude_epoch = window->exclude_epoch;
        self->sites.len = 0;
        self->cuts = 0;
        self->main_returned = false;
    }
    memset(self->sites.data + self->sites.len, 0,
           (reader->sites.len - self->sites.len) * sizeof *self->sites.data);
    self->sites.len = reader->sites.len;
    for (; self->cuts < reader->cuts.len; self->cuts++) {
        add_cut(self, reader, self->cuts);
        if (self->cuts == window->peak) { /* of several that moved it, only the last counts */
            take_peak(self, reader, self->cuts);
        }
    }
    return true;
}

int
pmt__running_sums(pmt__sums **out, const pmt_reader *reader, const pmt__window *window,
                  pmt_error *err)
{
    pmt__running *self = reader->running;
    size_t sites = reader->sites.len;
    pmt__sums *sums = pmt__alloc_zeroed(reader->allocator, sites, sizeof *sums);
    *out = NULL;
    if (sums == NULL || !take_cuts(self, reader, window)) {
        pmt__release(reader->allocator, sums);
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory for %zu sites", sites);
    }
    for (size_t i = 0; i < sites; i++) {
        const pmt__running_site *site = &self->sites.data[i];
        sums[i] = (pmt__sums){
            .peak_blocks = pmt__at_least_0(site->peak_blocks),
            .peak_bytes = pmt__at_least_0(site->peak_bytes),
            .leak_blocks = pmt__at_least_0(site->end_blocks),
            .leak_bytes = pmt__at_least_0(site->end_bytes),
            .total_blocks = site->total_blocks,
            .total_bytes = site->total_bytes,
            .temp_blocks = site->temp_blocks,
            .temp_bytes = site->temp_bytes,
        };
    }
    *out = sums;
    return PMT_OK;
}
