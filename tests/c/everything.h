/* Everything that can be asked of a capture, in one call: for the tests that run it with too little
   memory, and for the fuzzer. */
#ifndef PMT_TESTS_EVERYTHING_H
#define PMT_TESTS_EVERYTHING_H

#include "analyze/aggregate.h"
#include "analyze/combine.h"
#include "analyze/lines.h"
#include "analyze/lives.h"
#include "analyze/stats.h"
#include "analyze/tree.h"
#include "base/error.h"
#include "render/render.h"

/* Each of these returns PMT_OK or the first error. */

static inline int
everything_flame(pmt__text_buffer *out, const pmt_aggregate *aggregate, pmt_error *err)
{
    static const char head[] = "{\"title\":\"\"}";
    return pmt__render_flame(out, aggregate, (pmt_string){head, sizeof head - 1}, err);
}

static inline int
everything_rendered(const pmt_aggregate *aggregate, pmt_error *err)
{
    int result = PMT_OK;
    for (int kind = 0; kind < 5 && result == PMT_OK; kind++) {
        pmt__text_buffer text;
        pmt__text_init(&text, aggregate->reader->allocator);
        switch (kind) {
        case 0:
            result = pmt__render_collapsed(&text, aggregate, false, err);
            break;
        case 1:
            result = pmt__render_speedscope(&text, aggregate, true, err);
            break;
        case 2:
            result = pmt__render_pprof(&text, aggregate, err);
            break;
        case 3:
            result = pmt__render_csv(&text, aggregate, false, err);
            break;
        default:
            result = everything_flame(&text, aggregate, err);
        }
        pmt__text_dispose(&text);
    }
    return result;
}

static inline int
everything_of_aggregate(const pmt_aggregate *aggregate, pmt_error *err)
{
    pmt_row *rows;
    size_t count;
    int result = pmt_aggregate_sites(aggregate, 0, &rows, &count, err);
    if (result < 0) {
        return result;
    }
    pmt_rows_release(aggregate, rows);
    result = pmt_aggregate_sites(aggregate, 1, &rows, &count, err);
    if (result < 0) {
        return result;
    }
    pmt_rows_release(aggregate, rows);
    pmt__line *lines;
    result = pmt__lines_make(&lines, &count, aggregate, offsetof(pmt_value, bytes), true, err);
    pmt__release(aggregate->reader->allocator, lines);
    for (int inverted = 0; inverted < 2 && result == PMT_OK; inverted++) {
        /* A depth, because stacks of a hostile capture can have millions of callers each. */
        const pmt__tree_limits limits = {inverted != 0, 64, 0.0};
        pmt__tree tree;
        result = pmt__tree_init(&tree, aggregate, &limits, err);
        pmt__tree_dispose(&tree);
    }
    return result == PMT_OK ? everything_rendered(aggregate, err) : result;
}

/* A capture with itself: also one that lies must come through. */
static inline int
everything_combined(const pmt_reader *reader, unsigned flags, pmt_error *err)
{
    const pmt_reader *const twice[] = {reader, reader};
    const pmt_query query = {.view = PMT_VIEW_LEAKS};
    pmt_aggregate *aggregate;
    int result = pmt_aggregate_combine(&aggregate, twice, 2, &query, flags, err);
    if (result < 0) {
        return result;
    }
    pmt__text_buffer text;
    pmt__text_init(&text, reader->allocator);
    result = everything_flame(&text, aggregate, err);
    pmt__text_dispose(&text);
    for (int inverted = 0; inverted < 2 && result == PMT_OK; inverted++) {
        const pmt__tree_limits limits = {inverted != 0, 64, 0.0};
        pmt__tree tree;
        uint64_t *bytes = NULL;
        result = pmt__tree_init(&tree, aggregate, &limits, err);
        if (result == PMT_OK) {
            bytes = pmt__alloc_zeroed(reader->allocator, 2 * tree.nodes.len, sizeof *bytes);
            result = bytes == NULL
                         ? pmt__error_set(err, PMT_ERR_NOMEM, "out of memory")
                         : pmt__tree_by_capture(&tree, aggregate, inverted != 0, bytes, err);
        }
        pmt__release(reader->allocator, bytes);
        pmt__tree_dispose(&tree);
    }
    pmt_aggregate_destroy(aggregate);
    return result;
}

static inline int
everything(const pmt_reader *reader, pmt_error *err)
{
    static const char *const include[] = {"*", "app.*"};
    static const char *const exclude[] = {"[folded]", "/usr/*"};
    int result = PMT_OK;
    for (int view = PMT_VIEW_PEAK; view <= PMT_VIEW_TEMPORARY && result == PMT_OK; view++) {
        pmt_query query = {.view = (pmt_view)view};
        if (view % 2 == 0) {
            query.include = include;
            query.exclude = exclude;
            query.include_count = query.exclude_count = 2;
            query.has_start = query.has_end = 1;
            query.start_ns = 2500000000u;
            query.end_ns = 7500000000u;
        }
        pmt_aggregate *aggregate;
        result = pmt_aggregate_create(&aggregate, reader, &query, err);
        if (result == PMT_OK) {
            result = everything_of_aggregate(aggregate, err);
            pmt_aggregate_destroy(aggregate);
        } else if (result == PMT_ERR_ARGUMENT) {
            result = PMT_OK; /* the window lies behind the capture's end */
            *err = (pmt_error)PMT_ERROR_INIT;
        }
    }
    if (result < 0) {
        return result;
    }
    pmt__stats stats;
    result = pmt__stats_init(&stats, reader, err);
    pmt__stats_dispose(&stats);
    if (result < 0) {
        return result;
    }
    pmt__epochs epochs;
    result = pmt__epochs_init(&epochs, reader, err);
    if (result == PMT_OK) {
        pmt__epochs_sum(&epochs, reader);
    }
    pmt__epochs_dispose(&epochs);
    for (unsigned flags = 0; flags <= PMT_COMBINE_BY_PROCESS && result == PMT_OK;
         flags += PMT_COMBINE_BY_PROCESS) {
        result = everything_combined(reader, flags, err);
    }
    return result;
}

#endif
