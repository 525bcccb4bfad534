#include "analyze/aggregate.h"

#include "base/error.h"

/* The first cut whose time is at least t_ns, or behind it; `count` if there is none. */
static size_t
find_cut(const pmt_reader *reader, uint64_t t_ns, bool behind)
{
    size_t low = 0;
    size_t high = reader->cuts.len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint64_t t = reader->cuts.data[middle].t_ns;
        if (t > t_ns || (t == t_ns && !behind)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void
choose_peak(pmt__window *out, const pmt_reader *reader)
{
    const pmt_cut *cuts = reader->cuts.data;
    size_t moved = SIZE_MAX;
    for (size_t i = 0; i < reader->cuts.len; i++) {
        if (cuts[i].flags & PMT_CUT_PEAK_MOVED) {
            moved = i;
        }
    }
    out->exact_peak = moved != SIZE_MAX && moved >= out->first && moved <= out->last;
    out->peak = moved;
    if (!out->exact_peak) {
        out->peak = out->first;
        for (size_t i = out->first; i <= out->last; i++) {
            if (cuts[i].live_bytes > cuts[out->peak].live_bytes) {
                out->peak = i;
            }
        }
    }
}

int
pmt__window_choose(pmt__window *out, const pmt_reader *reader, const pmt_query *query,
                   pmt_error *err)
{
    *out = (pmt__window){.whole = true, .exclude_epoch = query->exclude_epoch};
    size_t count = reader->cuts.len;
    if (query->has_start && query->has_end && query->end_ns < query->start_ns) {
        return pmt__error_set(err, PMT_ERR_ARGUMENT, "the time window ends before it starts");
    }
    if (count == 0) {
        return PMT_OK;
    }
    out->last = count - 1;
    out->end = pmt_reader_end_cut(reader);
    if (query->has_start) {
        out->first = find_cut(reader, query->start_ns, true);
        if (out->first == count) {
            return pmt__error_set(err, PMT_ERR_ARGUMENT,
                                  "the time window starts behind the end of the recording (%.3f s)",
                                  (double)reader->cuts.data[count - 1].t_ns / 1e9);
        }
    }
    if (query->has_end) {
        size_t last = find_cut(reader, query->end_ns, false);
        out->last = last == count ? count - 1 : last;
        if (out->last < out->first) {
            out->last = out->first; /* a window of no length: the cut that it lies in */
        }
        out->end = out->last;
    }
    if (out->end < out->first) {
        out->end = out->last; /* it starts after main has returned */
    }
    out->whole = out->first == 0 && out->last == count - 1;
    choose_peak(out, reader);
    return PMT_OK;
}
