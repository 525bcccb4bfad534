#include "analyze/aggregate.h"

#include "base/error.h"

/* The first cut whose time is behind t_ns; `count` if there is none. */
static size_t
find_cut(const pmt_reader *reader, uint64_t t_ns)
{
    size_t low = 0;
    size_t high = reader->cuts.len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (reader->cuts.data[middle].t_ns > t_ns) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* Where a cut begins; for `count`, where the last one ends. */
static uint64_t
start_of(const pmt_reader *reader, size_t cut)
{
    return cut == 0 ? 0 : reader->cuts.data[cut - 1].t_ns;
}

/* The cut that begins nearest to t_ns; `count` if that is the end of the last one. Cuts do not fall on whole
   seconds: with the one that t_ns lies in, a window from 1 s would begin at 0 s because the first cut ended at 1.001 s. */
static size_t
nearest_start(const pmt_reader *reader, uint64_t t_ns)
{
    size_t cut = find_cut(reader, t_ns);
    if (cut == reader->cuts.len) {
        return cut;
    }
    uint64_t end_ns = reader->cuts.data[cut].t_ns;
    return t_ns - start_of(reader, cut) < end_ns - t_ns ? cut : cut + 1;
}

/* first and last, which were set to the whole run. */
static void
choose_cuts(pmt__window *out, const pmt_reader *reader, const pmt_query *query)
{
    size_t count = reader->cuts.len;
    uint64_t end_ns = reader->cuts.data[count - 1].t_ns;
    uint64_t from_ns = query->has_start ? query->start_ns : 0;
    uint64_t to_ns = query->has_end && query->end_ns < end_ns ? query->end_ns : end_ns;
    size_t first = query->has_start ? nearest_start(reader, from_ns) : 0;
    size_t behind = query->has_end ? nearest_start(reader, to_ns) : count;
    if (behind <= first) { /* shorter than the cut that its middle lies in: that one */
        first = find_cut(reader, from_ns + (to_ns - from_ns) / 2);
        first = first == count ? count - 1 : first;
        behind = first + 1;
    }
    out->first = first;
    out->last = behind - 1;
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
pmt__window_check(const pmt_query *query, pmt_error *err)
{
    if (query->has_start && query->has_end && query->end_ns < query->start_ns) {
        return pmt__error_set(err, PMT_ERR_ARGUMENT, "the time window ends before it starts");
    }
    return PMT_OK;
}

int
pmt__window_choose(pmt__window *out, const pmt_reader *reader, const pmt_query *query,
                   pmt_error *err)
{
    *out = (pmt__window){.whole = true, .exclude_epoch = query->exclude_epoch};
    size_t count = reader->cuts.len;
    int result = pmt__window_check(query, err);
    if (result < 0 || count == 0) {
        return result;
    }
    out->last = count - 1;
    out->end = pmt_reader_end_cut(reader);
    if (query->has_start && find_cut(reader, query->start_ns) == count) {
        return pmt__error_set(err, PMT_ERR_ARGUMENT,
                              "the time window starts behind the end of the recording (%.3f s)",
                              (double)reader->cuts.data[count - 1].t_ns / 1e9);
    }
    choose_cuts(out, reader, query);
    if (query->has_end) {
        out->end = out->last;
    }
    if (out->end < out->first) {
        out->end = out->last; /* it starts after main has returned */
    }
    out->whole = out->first == 0 && out->last == count - 1;
    out->start_ns = start_of(reader, out->first);
    out->end_ns = reader->cuts.data[out->last].t_ns;
    choose_peak(out, reader);
    return PMT_OK;
}
