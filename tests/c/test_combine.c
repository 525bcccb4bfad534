/* Several captures as one, against what each of them says alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "analyze/combine.h"
#include "analyze/totals.h"
#include "everything.h"
#include "processes.h"
#include "sanitized.h"

enum {
    FEW = 4
};

static const process few[FEW] = {
    {.pid = 100, .stacks = 60, .own = 5, .thread = "MainThread"},
    {.pid = 101,
     .parent = 100,
     .start_ns = SECOND,
     .stacks = 90,
     .inherited_sites = 40,
     .thread = "worker"},
    {.pid = 102,
     .parent = 100,
     .start_ns = 10 * SECOND,
     .stacks = 30,
     .own = 30,
     .thread = "MainThread"},
    {.pid = 103, .stacks = 60, .inherited_sites = 7, .inherited = "1", .thread = "other"},
};

static pmt_reader *readers[FEW];

static int
setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < FEW; i++) {
        readers[i] = process_open(&few[i], NULL);
        if (readers[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < FEW; i++) {
        pmt_reader_destroy(readers[i]);
    }
    return 0;
}

static const pmt_reader *const *
all(void)
{
    return (const pmt_reader *const *)readers;
}

static pmt_aggregate *
combine(const pmt_query *query, unsigned flags)
{
    pmt_aggregate *aggregate;
    assert_int_equal(pmt_aggregate_combine(&aggregate, all(), FEW, query, flags, NULL), PMT_OK);
    assert_int_equal(pmt_aggregate_capture_count(aggregate), FEW);
    return aggregate;
}

static pmt_aggregate *
combine_view(pmt_view view, unsigned flags)
{
    const pmt_query query = {.view = view};
    return combine(&query, flags);
}

/* --- by content ------------------------------------------------------------------------------ */

static bool
same_text(pmt_string a, pmt_string b)
{
    return a.len == b.len && memcmp(a.text, b.text, a.len) == 0;
}

static bool
same_frame(const pmt_reader *a, uint32_t left, const pmt_reader *b, uint32_t right)
{
    if (left == UINT32_MAX || right == UINT32_MAX) {
        return left == right;
    }
    pmt_frame x = pmt_reader_frame(a, left);
    pmt_frame y = pmt_reader_frame(b, right);
    return x.line == y.line && x.kind == y.kind && same_text(x.function, y.function)
           && same_text(x.file, y.file);
}

static bool
same_stack(const pmt_reader *a, uint32_t left, const pmt_reader *b, uint32_t right)
{
    while (left != 0 && right != 0) {
        if (!same_frame(a, pmt_reader_stack_frame(a, left), b, pmt_reader_stack_frame(b, right))) {
            return false;
        }
        left = pmt_reader_stack_parent(a, left);
        right = pmt_reader_stack_parent(b, right);
    }
    return left == right;
}

/* The value of a stack, or of a location, in the capture alone. */
static pmt_value
value_in(const pmt_aggregate *alone, const pmt_reader *names, const pmt_row *row, bool by_frame)
{
    pmt_value value = {0};
    const pmt_reader *own = pmt_aggregate_names(alone);
    for (size_t i = 0; i < alone->rows.len; i++) {
        const pmt_row *other = &alone->rows.data[i];
        uint32_t blamed = pmt_reader_blamed_frame(own, other->stack);
        bool same = by_frame ? same_frame(names, row->frame, own, blamed)
                             : same_stack(names, row->stack, own, other->stack);
        if (same) {
            pmt__value_add(&value, &other->value);
        }
    }
    return value;
}

static void
check_rows(const pmt_aggregate *together, pmt_aggregate *const *alone, const pmt_row *rows,
           size_t count, bool by_frame)
{
    uint64_t *bytes = calloc(count * FEW, sizeof *bytes);
    assert_non_null(bytes);
    if (by_frame) {
        assert_int_equal(pmt_aggregate_sites_by_capture(together, 0, rows, count, bytes, NULL),
                         PMT_OK);
    } else {
        pmt_aggregate_stacks_by_capture(together, rows, count, bytes);
    }
    pmt_value sum = {0};
    for (size_t i = 0; i < count; i++) {
        pmt_value expected = {0};
        for (size_t n = 0; n < FEW; n++) {
            pmt_value value = value_in(alone[n], pmt_aggregate_names(together), &rows[i], by_frame);
            assert_int_equal(bytes[i * FEW + n], value.bytes);
            pmt__value_add(&expected, &value);
        }
        assert_memory_equal(&rows[i].value, &expected, sizeof expected);
        assert_true(i == 0 || rows[i - 1].value.bytes >= rows[i].value.bytes);
        pmt__value_add(&sum, &rows[i].value);
    }
    assert_int_equal(sum.bytes, together->total.bytes);
    assert_int_equal(sum.blocks, together->total.blocks);
    free(bytes);
}

static void
check_view(pmt_view view, unsigned flags)
{
    pmt_aggregate *together = combine_view(view, flags);
    pmt_aggregate *alone[FEW];
    pmt_value total = {0};
    uint64_t by_capture[FEW];
    pmt_aggregate_bytes_by_capture(together, by_capture);
    for (size_t i = 0; i < FEW; i++) {
        const pmt_query query = {.view = view,
                                 .exclude_epoch = flags & PMT_COMBINE_WITH_INHERITED
                                                      ? 0
                                                      : pmt_reader_inherited_epoch(readers[i])};
        assert_int_equal(pmt_aggregate_create(&alone[i], readers[i], &query, NULL), PMT_OK);
        pmt__value_add(&total, &alone[i]->total);
        assert_int_equal(by_capture[i], alone[i]->total.bytes);
    }
    assert_memory_equal(&together->total, &total, sizeof total);
    const pmt_row *stacks;
    size_t count = pmt_aggregate_stacks(together, &stacks);
    check_rows(together, alone, stacks, count, false);
    pmt_row *sites;
    assert_int_equal(pmt_aggregate_sites(together, 0, &sites, &count, NULL), PMT_OK);
    check_rows(together, alone, sites, count, true);
    pmt_rows_release(together, sites);
    for (size_t i = 0; i < FEW; i++) {
        pmt_aggregate_destroy(alone[i]);
    }
    pmt_aggregate_destroy(together);
}

static void
test_rows_are_the_sums_of_the_captures(void **state)
{
    (void)state;
    for (int view = PMT_VIEW_PEAK; view <= PMT_VIEW_TEMPORARY; view++) {
        check_view((pmt_view)view, 0);
        check_view((pmt_view)view, PMT_COMBINE_WITH_INHERITED);
    }
}

static void
test_one_capture_twice_has_the_rows_of_once(void **state)
{
    (void)state;
    const process again = {.pid = 200, .stacks = 65, .thread = "MainThread"};
    process first = again;
    first.pid = 210; /* other numbers, and the same blocks: they depend on pid % 5 and pid % 2 */
    pmt_reader *two[] = {process_open(&again, NULL), process_open(&first, NULL)};
    const pmt_query query = {.view = PMT_VIEW_PEAK};
    pmt_aggregate *once;
    pmt_aggregate *twice;
    assert_int_equal(pmt_aggregate_create(&once, two[0], &query, NULL), PMT_OK);
    assert_int_equal(
        pmt_aggregate_combine(&twice, (const pmt_reader *const *)two, 2, &query, 0, NULL), PMT_OK);
    const pmt_row *rows;
    const pmt_row *double_rows;
    size_t count = pmt_aggregate_stacks(once, &rows);
    assert_int_equal(pmt_aggregate_stacks(twice, &double_rows), count);
    uint64_t bytes[2];
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(double_rows[i].value.bytes, 2 * rows[i].value.bytes);
        pmt_aggregate_stacks_by_capture(twice, &double_rows[i], 1, bytes);
        assert_int_equal(bytes[0], rows[i].value.bytes);
        assert_int_equal(bytes[1], rows[i].value.bytes);
    }
    pmt_aggregate_destroy(once);
    pmt_aggregate_destroy(twice);
    pmt_reader_destroy(two[0]);
    pmt_reader_destroy(two[1]);
}

/* --- trees ----------------------------------------------------------------------------------- */

static void
check_tree(unsigned flags, bool inverted, uint32_t depth, double share)
{
    pmt_aggregate *together = combine_view(PMT_VIEW_PEAK, flags);
    const pmt__tree_limits limits = {inverted, depth, share};
    pmt__tree tree;
    assert_int_equal(pmt__tree_init(&tree, together, &limits, NULL), PMT_OK);
    uint64_t *bytes = calloc(tree.nodes.len * FEW, sizeof *bytes);
    assert_non_null(bytes);
    assert_int_equal(pmt__tree_by_capture(&tree, together, inverted, bytes, NULL), PMT_OK);
    for (size_t i = 0; i < tree.nodes.len; i++) {
        uint64_t sum = 0;
        for (size_t n = 0; n < FEW; n++) {
            sum += bytes[i * FEW + n];
        }
        assert_int_equal(sum, tree.nodes.data[i].bytes);
    }
    uint64_t totals[FEW];
    pmt_aggregate_bytes_by_capture(together, totals);
    assert_memory_equal(bytes, totals, sizeof totals);
    if (flags & PMT_COMBINE_BY_PROCESS && !inverted && share == 0.0) {
        assert_int_equal(tree.nodes.data[0].child_count, FEW);
        const char *const label = "process 100: python3 worker-100.py";
        size_t found = 0;
        for (uint32_t i = 1; i <= FEW; i++) {
            pmt_frame frame =
                pmt_reader_frame(pmt_aggregate_names(together), tree.nodes.data[i].frame);
            found += frame.function.len == strlen(label)
                     && memcmp(frame.function.text, label, frame.function.len) == 0;
        }
        assert_int_equal(found, 1);
    }
    free(bytes);
    pmt__tree_dispose(&tree);
    pmt_aggregate_destroy(together);
}

static void
test_trees_say_who_holds_a_branch(void **state)
{
    (void)state;
    for (int inverted = 0; inverted < 2; inverted++) {
        check_tree(0, inverted, 0, 0.0);
        check_tree(0, inverted, 2, 0.0);
        check_tree(0, inverted, 0, 0.02);
        check_tree(PMT_COMBINE_BY_PROCESS, inverted, 0, 0.0);
    }
}

/* --- inherited blocks ------------------------------------------------------------------------ */

static uint64_t
inherited_blocks(const process *it)
{
    uint64_t blocks = 0;
    for (uint64_t i = 0; i < it->inherited_sites; i++) {
        blocks += process_inherited(i);
    }
    return blocks;
}

static void
test_inherited_blocks_count_once(void **state)
{
    (void)state;
    assert_int_equal(pmt_reader_inherited_epoch(readers[0]), 0);
    assert_int_equal(pmt_reader_inherited_epoch(readers[1]), 1); /* a number */
    assert_int_equal(pmt_reader_inherited_epoch(readers[3]), 1); /* a text */
    assert_int_equal(pmt_reader_parent_pid(readers[1]), 100);
    assert_int_equal(pmt_reader_parent_pid(readers[0]), 0);
    uint64_t inherited = inherited_blocks(&few[1]) + inherited_blocks(&few[3]);
    for (int view = PMT_VIEW_PEAK; view <= PMT_VIEW_TOTAL; view++) {
        pmt_aggregate *without = combine_view((pmt_view)view, 0);
        pmt_aggregate *with = combine_view((pmt_view)view, PMT_COMBINE_WITH_INHERITED);
        assert_int_equal(with->total.blocks - without->total.blocks, inherited);
        assert_int_equal(with->total.bytes - without->total.bytes, inherited * PROCESS_SIZE);
        pmt_aggregate_destroy(without);
        pmt_aggregate_destroy(with);
    }
    for (size_t i = 0; i < FEW; i++) {
        pmt__totals with;
        pmt__totals without;
        assert_int_equal(pmt__totals_compute(&with, readers[i], 0, NULL), PMT_OK);
        assert_int_equal(
            pmt__totals_compute(&without, readers[i], pmt_reader_inherited_epoch(readers[i]), NULL),
            PMT_OK);
        uint64_t blocks = inherited_blocks(&few[i]);
        assert_int_equal(without.inherited_blocks, blocks);
        assert_int_equal(with.peak_blocks - without.peak_blocks, blocks);
        assert_int_equal(with.end_bytes - without.end_bytes, blocks * PROCESS_SIZE);
        assert_int_equal(with.allocations - without.allocations, blocks);
        assert_int_equal(with.frees, without.frees);
        assert_int_equal(with.rss_peak_bytes, without.rss_peak_bytes);
    }
}

/* Without the fact, epoch 1 is an epoch like any other. */
static void
test_a_missing_fact_means_nothing_inherited(void **state)
{
    (void)state;
    process it = few[1];
    it.inherited = "0";
    pmt_reader *reader = process_open(&it, NULL);
    assert_int_equal(pmt_reader_inherited_epoch(reader), 0);
    pmt_reader_destroy(reader);
    const pmt_query query = {.view = PMT_VIEW_TOTAL, .exclude_epoch = 2};
    pmt_aggregate *aggregate;
    assert_int_equal(pmt_aggregate_create(&aggregate, readers[1], &query, NULL), PMT_OK);
    assert_int_equal(aggregate->total.blocks, 0); /* epochs 1 and 2 are all there are */
    pmt_aggregate_destroy(aggregate);
}

/* --- time, threads --------------------------------------------------------------------------- */

static void
test_a_window_is_one_for_all(void **state)
{
    (void)state;
    /* 10 s to 12 s after the first start: the third process' first two seconds and nothing else */
    const pmt_query window = {.view = PMT_VIEW_TOTAL,
                              .has_start = 1,
                              .has_end = 1,
                              .start_ns = 10 * SECOND,
                              .end_ns = 12 * SECOND};
    pmt_aggregate *together = combine(&window, 0);
    uint64_t bytes[FEW];
    pmt_aggregate_bytes_by_capture(together, bytes);
    uint64_t allocs = 0;
    for (uint64_t i = 0; i < few[2].stacks + few[2].own; i++) {
        allocs += process_allocs(&few[2], i);
    }
    const uint64_t expected[FEW] = {0, 0, allocs * PROCESS_SIZE, 0};
    assert_memory_equal(bytes, expected, sizeof bytes);
    pmt_aggregate_destroy(together);

    pmt_error err = PMT_ERROR_INIT;
    const pmt_query between = {.view = PMT_VIEW_TOTAL,
                               .has_start = 1,
                               .has_end = 1,
                               .start_ns = 6 * SECOND,
                               .end_ns = 7 * SECOND};
    assert_int_equal(pmt_aggregate_combine(&together, all(), FEW, &between, 0, &err),
                     PMT_ERR_ARGUMENT);
    assert_null(together);
    const pmt_query backwards = {
        .view = PMT_VIEW_TOTAL, .has_start = 1, .has_end = 1, .start_ns = 2, .end_ns = 1};
    assert_int_equal(pmt_aggregate_combine(&together, all(), FEW, &backwards, 0, &err),
                     PMT_ERR_ARGUMENT);
    assert_int_equal(pmt_aggregate_combine(&together, all(), 0, &window, 0, &err),
                     PMT_ERR_ARGUMENT);
}

static void
test_a_thread_of_some(void **state)
{
    (void)state;
    const pmt_query query = {.view = PMT_VIEW_PEAK, .thread = "MainThread"};
    pmt_aggregate *together = combine(&query, 0);
    uint64_t bytes[FEW];
    pmt_aggregate_bytes_by_capture(together, bytes);
    assert_true(bytes[0] != 0 && bytes[1] == 0 && bytes[2] != 0 && bytes[3] == 0);
    pmt_aggregate_destroy(together);
    pmt_error err = PMT_ERROR_INIT;
    const pmt_query nobody = {.view = PMT_VIEW_PEAK, .thread = "nobody"};
    assert_int_equal(pmt_aggregate_combine(&together, all(), FEW, &nobody, 0, &err),
                     PMT_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "nobody"));
}

static uint64_t
heap_at(const pmt__together *together, uint64_t t_ns)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < together->list.len && together->list.data[i].t_ns <= t_ns; i++) {
        bytes = together->list.data[i].heap_bytes;
    }
    return bytes;
}

static void
test_heaps_at_one_time(void **state)
{
    (void)state;
    pmt__together together;
    assert_int_equal(pmt__together_init(&together, all(), FEW, false, NULL), PMT_OK);
    assert_int_equal(together.start_unix_ns, PROCESS_EPOCH_NS);
    pmt__totals own[FEW];
    uint64_t peaks = 0;
    for (size_t i = 0; i < FEW; i++) {
        pmt__totals_compute(&own[i], readers[i], pmt_reader_inherited_epoch(readers[i]), NULL);
        peaks += own[i].peak_bytes;
    }
    /* 0 and 3 reach their peak at 2 s, 1 at 3 s, when the others have freed some; 2 runs alone later. */
    uint64_t highest = own[0].end_bytes + own[1].peak_bytes + own[3].end_bytes;
    uint64_t before = own[0].peak_bytes + own[3].peak_bytes;
    highest = before > highest ? before : highest;
    assert_int_equal(together.list.data[together.highest].heap_bytes, highest);
    assert_true(highest < peaks);
    assert_int_equal(heap_at(&together, 2 * SECOND), before);
    assert_int_equal(heap_at(&together, 9 * SECOND), 0);
    assert_int_equal(heap_at(&together, 12 * SECOND), own[2].peak_bytes);
    assert_int_equal(heap_at(&together, 100 * SECOND), 0);
    for (size_t i = 1; i < together.list.len; i++) {
        assert_true(together.list.data[i - 1].t_ns <= together.list.data[i].t_ns);
    }
    assert_int_equal(together.list.data[together.list.len - 1].processes, 0);
    pmt__together_dispose(&together);
    for (size_t i = 0; i < FEW; i++) { /* of one process, the highest is its peak */
        assert_int_equal(pmt__together_init(&together, all() + i, 1, false, NULL), PMT_OK);
        assert_int_equal(together.list.data[together.highest].heap_bytes, own[i].peak_bytes);
        pmt__together_dispose(&together);
    }
}

/* --- statistics ------------------------------------------------------------------------------ */

static void
test_statistics_add_up(void **state)
{
    (void)state;
    const pmt_query query = {.view = PMT_VIEW_PEAK};
    pmt__stats sum;
    pmt__stats parts[FEW];
    assert_int_equal(pmt__stats_combine(&sum, parts, all(), FEW, &query, false, NULL), PMT_OK);
    pmt__totals totals = {0};
    for (size_t i = 0; i < FEW; i++) {
        pmt__totals own;
        pmt__totals_compute(&own, readers[i], pmt_reader_inherited_epoch(readers[i]), NULL);
        pmt__totals_add(&totals, &own);
        assert_non_null(parts[i].threads);
        assert_int_equal(parts[i].total.total_bytes, own.allocated_bytes);
        pmt__stats_dispose(&parts[i]);
    }
    assert_int_equal(sum.total.total_bytes, totals.allocated_bytes);
    assert_int_equal(sum.total.peak_bytes, totals.peak_bytes);
    assert_int_equal(sum.total.leak_bytes, totals.end_bytes);
    assert_int_equal(sum.frees, totals.frees);
    assert_int_equal(sum.sizes[7].blocks, totals.allocations); /* 64 to 127 bytes */
    assert_true(sum.filtered);
    pmt__stats_dispose(&sum);
}

/* --- little memory --------------------------------------------------------------------------- */

typedef struct memory {
    size_t left; /* requests that are granted */
    size_t blocks;
    size_t bytes;
    size_t highest;
} memory;

/* Each block has its size in front. */
static void *
counted_resize(void *context, void *block, size_t size)
{
    memory *self = context;
    if (self->left == 0) {
        return NULL;
    }
    self->left--;
    size_t *old = block == NULL ? NULL : (size_t *)block - 2;
    size_t before = old == NULL ? 0 : *old;
    size_t *now = realloc(old, size + 2 * sizeof *now);
    if (now == NULL) {
        return NULL;
    }
    *now = size;
    self->blocks += block == NULL;
    self->bytes += size - before;
    self->highest = self->bytes > self->highest ? self->bytes : self->highest;
    return now + 2;
}

static void
counted_release(void *context, void *block)
{
    memory *self = context;
    if (block != NULL) {
        size_t *old = (size_t *)block - 2;
        self->blocks--;
        self->bytes -= *old;
        free(old);
    }
}

static int
everything_of_several(const pmt_reader *const *several, size_t count, unsigned flags,
                      pmt_error *err)
{
    const pmt_query query = {.view = PMT_VIEW_PEAK};
    pmt_aggregate *aggregate;
    int result = pmt_aggregate_combine(&aggregate, several, count, &query, flags, err);
    if (result < 0) {
        return result;
    }
    result = everything_of_aggregate(aggregate, err);
    pmt_aggregate_destroy(aggregate);
    pmt__together together;
    if (result == PMT_OK) {
        result = pmt__together_init(&together, several, count, false, err);
        pmt__together_dispose(&together);
    }
    pmt__stats sum;
    pmt__stats parts[8];
    if (result == PMT_OK) {
        result = pmt__stats_combine(&sum, parts, several, count, &query, false, err);
        for (size_t i = 0; i < count; i++) {
            pmt__stats_dispose(&parts[i]);
        }
        pmt__stats_dispose(&sum);
    }
    return result;
}

static void
test_every_allocation_may_fail(void **state)
{
    (void)state;
    memory it = {.left = SIZE_MAX};
    const pmt_allocator allocator = {counted_resize, counted_release, &it};
    pmt_reader *own[FEW];
    for (size_t i = 0; i < FEW; i++) {
        own[i] = process_open(&few[i], &allocator);
    }
    size_t blocks = it.blocks;
    int result = PMT_ERR_NOMEM;
    for (size_t granted = 0; result != PMT_OK; granted++) {
        pmt_error err = PMT_ERROR_INIT;
        it.left = granted;
        result = everything_of_several((const pmt_reader *const *)own, FEW, PMT_COMBINE_BY_PROCESS,
                                       &err);
        assert_true(result == PMT_OK || result == PMT_ERR_NOMEM);
        assert_int_equal(err.code, result);
        assert_int_equal(it.blocks, blocks);
        assert_true(granted < 100000);
    }
    for (size_t i = 0; i < FEW; i++) {
        pmt_reader_destroy(own[i]);
    }
    assert_int_equal(it.blocks, 0);
}

/* --- many ------------------------------------------------------------------------------------ */

static double
cpu_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

/* 50 captures of 20,000 stacks; `own` of them are like no other's. */
static void
combine_many(uint64_t own, bool by_process)
{
    enum {
        MANY = 50,
        STACKS = 20000
    };
    memory it = {.left = SIZE_MAX};
    const pmt_allocator allocator = {counted_resize, counted_release, &it};
    pmt_reader *many[MANY];
    uint64_t expected = 0;
    double opening = 0.0;
    for (uint64_t i = 0; i < MANY; i++) {
        const process one = {.pid = 1000 + i,
                             .start_ns = i * SECOND / 10,
                             .stacks = STACKS - own,
                             .own = own,
                             .thread = "MainThread"};
        pmt__buffer capture;
        process_build(&capture, &one);
        const pmt_reader_options options = {.allocator = &allocator};
        double start = cpu_seconds();
        assert_int_equal(pmt_reader_open_bytes(&many[i], capture.data, capture.len, &options, NULL),
                         PMT_OK);
        opening += cpu_seconds() - start;
        pmt__buffer_dispose(&capture);
        for (uint64_t stack = 0; stack < STACKS; stack++) {
            expected += process_allocs(&one, stack) * PROCESS_SIZE;
        }
    }
    const pmt_query query = {.view = PMT_VIEW_PEAK};
    pmt_aggregate *aggregate;
    double start = cpu_seconds();
    assert_int_equal(pmt_aggregate_combine(&aggregate, (const pmt_reader *const *)many, MANY,
                                           &query, by_process ? PMT_COMBINE_BY_PROCESS : 0, NULL),
                     PMT_OK);
    double combining = cpu_seconds() - start;
    size_t highest = it.highest;
    const pmt_row *rows;
    size_t count = pmt_aggregate_stacks(aggregate, &rows);
    assert_int_equal(aggregate->total.bytes, expected);
    assert_int_equal(count, by_process ? MANY * STACKS : STACKS - own + MANY * own);
    start = cpu_seconds();
    if (by_process) {
        pmt__text_buffer text;
        pmt__text_init(&text, &allocator);
        assert_int_equal(everything_flame(&text, aggregate, NULL), PMT_OK);
        print_message("flame data: %.2f s, %zu KiB\n", cpu_seconds() - start, text.len >> 10);
        assert_true(text.len < (size_t)32 << 20);
        pmt__text_dispose(&text);
    }
    print_message("%d captures, %d stacks each, %zu distinct: opening %.2f s, combining %.2f s, "
                  "%zu MiB at the highest\n",
                  (int)MANY, (int)STACKS, count, opening, combining, highest >> 20);
    assert_true(highest < (size_t)300 << 20);
    if (!SANITIZED) {
        assert_true(opening + combining < 3.0);
    }
    pmt_aggregate_destroy(aggregate);
    for (size_t i = 0; i < MANY; i++) {
        pmt_reader_destroy(many[i]);
    }
    assert_int_equal(it.blocks, 0);
}

static void
test_many_captures_are_fast_and_small(void **state)
{
    (void)state;
    combine_many(2000, false);
    combine_many(19000, false);
    combine_many(2000, true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_the_sums_of_the_captures),
        cmocka_unit_test(test_one_capture_twice_has_the_rows_of_once),
        cmocka_unit_test(test_trees_say_who_holds_a_branch),
        cmocka_unit_test(test_inherited_blocks_count_once),
        cmocka_unit_test(test_a_missing_fact_means_nothing_inherited),
        cmocka_unit_test(test_a_window_is_one_for_all),
        cmocka_unit_test(test_a_thread_of_some),
        cmocka_unit_test(test_heaps_at_one_time),
        cmocka_unit_test(test_statistics_add_up),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_many_captures_are_fast_and_small),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
