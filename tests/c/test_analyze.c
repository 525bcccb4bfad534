#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analyze/spread.h"
#include "base/glob.h"
#include "base/index.h"
#include "capture.h"
#include "everything.h"
#include "render/text.h"

static pmt_reader *reader;

static int
setup(void **state)
{
    (void)state;
    pmt__buffer capture;
    capture_build(&capture);
    int result = pmt_reader_open_bytes(&reader, capture.data, capture.len, NULL, NULL);
    pmt__buffer_dispose(&capture);
    return result;
}

static int
teardown(void **state)
{
    (void)state;
    pmt_reader_destroy(reader);
    return 0;
}

static pmt_aggregate *
aggregate_of(pmt_view view)
{
    const pmt_query query = {.view = view};
    pmt_aggregate *aggregate;
    assert_int_equal(pmt_aggregate_create(&aggregate, reader, &query, NULL), PMT_OK);
    return aggregate;
}

/* What the views must sum up to, straight from the rows. */
static void
test_totals_are_the_sums_of_the_rows(void **state)
{
    (void)state;
    uint64_t allocs = 0;
    uint64_t temps = 0;
    uint64_t live_at_end = 0;
    uint64_t live_at_peak = 0;
    for (size_t cut = 0; cut < CAPTURE_CUTS; cut++) {
        pmt__row_walk walk;
        pmt__row row;
        pmt__rows_begin(&walk, reader, cut, NULL);
        while (pmt__rows_next(&walk, &row)) {
            allocs += row.allocs;
            temps += row.temps;
            live_at_end += cut <= 9 ? row.allocs - row.frees : 0;
            live_at_peak += cut <= 6 ? row.allocs - row.frees : 0;
            live_at_peak += cut == 6 ? row.peak_blocks : 0;
        }
    }
    const uint64_t expected[] = {0, live_at_peak, live_at_end, allocs, temps};
    for (int view = PMT_VIEW_PEAK; view <= PMT_VIEW_TEMPORARY; view++) {
        pmt_aggregate *aggregate = aggregate_of((pmt_view)view);
        pmt_value total;
        pmt_aggregate_total(aggregate, &total);
        assert_int_equal(total.blocks, expected[view]);
        assert_int_equal(total.allocations, allocs);
        pmt_aggregate_destroy(aggregate);
    }
}

/* --- estimates ------------------------------------------------------------------------------- */

static void
check_same_spread(const pmt_spread *a, const pmt_spread *b)
{
    assert_int_equal(a->samples, b->samples);
    assert_int_equal(a->sure_blocks, b->sure_blocks);
    assert_int_equal(a->sure_bytes, b->sure_bytes);
    assert_true(fabs(a->blocks2 - b->blocks2) <= 1e-9 * b->blocks2);
    assert_true(fabs(a->bytes2 - b->bytes2) <= 1e-9 * b->bytes2);
}

static pmt_spread
sum_of_rows(const pmt_row *rows, size_t count)
{
    pmt_spread sum = {0};
    for (size_t i = 0; i < count; i++) {
        pmt_spreads spreads;
        pmt_row_spreads(&rows[i], &spreads);
        pmt__spread_add(&sum, &spreads.view, 1);
    }
    return sum;
}

/* What the made-up sections say, by hand: 80 sites have entries, 16 of them certain ones. */
static void
test_spreads_are_those_of_the_samples(void **state)
{
    (void)state;
    enum {
        UNSURE = 64
    };
    static const double blocks2[] = {0, (3 * 7 - 1) * UNSURE, 3 * 10 * UNSURE, 3 * 12 * UNSURE};
    static const uint64_t samples[] = {0, (2 * 7 - 1) * 80, 2 * 10 * 80, 2 * 12 * 80};
    for (int view = PMT_VIEW_PEAK; view <= PMT_VIEW_TOTAL; view++) {
        pmt_aggregate *aggregate = aggregate_of((pmt_view)view);
        pmt_spreads total;
        pmt_value value;
        assert_true(pmt_aggregate_is_estimate(aggregate));
        pmt_aggregate_total(aggregate, &value);
        pmt_aggregate_total_spreads(aggregate, &total);

        assert_true(total.view.blocks2 == blocks2[view]);
        assert_true(total.view.bytes2 == 10000 * blocks2[view]);
        assert_int_equal(total.view.samples, samples[view]);
        assert_true(total.view.sure_bytes > 0 && total.view.sure_bytes < value.bytes);
        assert_int_equal(total.allocated.samples, samples[PMT_VIEW_TOTAL]);
        const pmt_row *stacks;
        pmt_row *sites;
        size_t count = pmt_aggregate_stacks(aggregate, &stacks);
        pmt_spread sum = sum_of_rows(stacks, count);
        check_same_spread(&sum, &total.view);
        for (int native = 0; native < 2; native++) {
            assert_int_equal(pmt_aggregate_sites(aggregate, native, &sites, &count, NULL), PMT_OK);
            sum = sum_of_rows(sites, count);
            check_same_spread(&sum, &total.view);
            pmt_rows_release(aggregate, sites);
        }
        for (int inverted = 0; inverted < 2; inverted++) {
            const pmt__tree_limits limits = {inverted != 0, 1, 0.0};
            pmt__tree tree;
            assert_int_equal(pmt__tree_init(&tree, aggregate, &limits, NULL), PMT_OK);
            pmt_spread below = {0};
            for (size_t i = 1; i < tree.nodes.len; i++) {
                pmt__spread_add(&below, &tree.spreads.data[tree.nodes.data[i].spread], 1);
            }
            const pmt_spread *root = &tree.spreads.data[tree.nodes.data[0].spread];
            check_same_spread(root, &total.view);
            assert_true(below.samples <= root->samples); /* the rest is of the root itself */
            pmt__tree_dispose(&tree);
        }
        pmt_aggregate_destroy(aggregate);
    }
}

/* Twice the same, and once with a full capture, which is all sure. */
static void
test_spreads_of_several_captures_add_up(void **state)
{
    (void)state;
    const pmt_reader *const readers[] = {reader, reader};
    const pmt_query query = {.view = PMT_VIEW_TOTAL};
    pmt_aggregate *one = aggregate_of(PMT_VIEW_TOTAL), *two;
    pmt_spreads single, both;
    assert_int_equal(pmt_aggregate_combine(&two, readers, 2, &query, 0, NULL), PMT_OK);
    pmt_aggregate_total_spreads(one, &single);
    pmt_aggregate_total_spreads(two, &both);
    assert_true(pmt_aggregate_is_estimate(two));
    pmt__spread_add(&single.view, &single.view, 1);
    check_same_spread(&both.view, &single.view);
    pmt_aggregate_destroy(one);
    pmt_aggregate_destroy(two);
}

/* A part of the run has a part of the spread of each site: never more than all of it. */
static void
test_spreads_of_a_window_are_parts(void **state)
{
    (void)state;
    pmt_query query = {.view = PMT_VIEW_LEAKS, .has_start = 1, .start_ns = 4 * SECOND};
    pmt_aggregate *aggregate, *all = aggregate_of(PMT_VIEW_LEAKS);
    assert_int_equal(pmt_aggregate_create(&aggregate, reader, &query, NULL), PMT_OK);
    pmt_spreads part, whole;
    pmt_value value, values;
    pmt_aggregate_total_spreads(aggregate, &part);
    pmt_aggregate_total_spreads(all, &whole);
    pmt_aggregate_total(aggregate, &value);
    pmt_aggregate_total(all, &values);
    double share = (double)value.blocks / (double)values.blocks;
    assert_true(share > 0.1 && share < 0.9);
    double of_variance = part.view.blocks2 / whole.view.blocks2;
    assert_true(of_variance > share / 2 && of_variance < share * 2);
    assert_true(part.allocated.samples == 8 * 2 * 80);
    pmt_aggregate_destroy(aggregate);
    pmt_aggregate_destroy(all);
}

static void
test_intervals(void **state)
{
    (void)state;
    static const struct {
        uint64_t estimate, sure;
        double variance;
        uint64_t low, high;
    } cases[] = {
        {0, 0, 0, 0, 0},
        {0, 0, 100, 0, 0},
        {100, 100, 50, 100, 100},
        {100, 200, 50, 100, 100},
        {100, 0, 0, 100, 100},
        {100, 0, -1, 100, 100},
        {100, 0, (double)NAN, 100, 100},
        /* Gamma(10.5) is 5.141 at 2.5 % and 17.739 at 97.5 % */
        {10000, 0, 10 * 1e6, 5134, 17740},
        {1010000, 1000000, 10 * 1e6, 1005134, 1017740},
        /* Gamma(100.5): 81.815, 121.079 */
        {100000, 0, 100 * 1e6, 81814, 121079},
        {UINT64_MAX, 0, 1e300, 0, UINT64_MAX},
        {UINT64_MAX, UINT64_MAX - 1, 1e300, UINT64_MAX - 1, UINT64_MAX},
        {1, 0, 1e-300, 1, 1},
        {UINT64_MAX, 0, 1e-300, UINT64_MAX, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t low, high;
        pmt_interval(cases[i].estimate, cases[i].sure, cases[i].variance, &low, &high);
        if (low != cases[i].low || high != cases[i].high) {
            fail_msg("case %zu: %llu to %llu", i, (unsigned long long)low,
                     (unsigned long long)high);
        }
    }
    for (uint64_t estimate = 1; estimate < 1000; estimate += 7) {
        for (double variance = 1e-3; variance < 1e9; variance *= 3) {
            uint64_t low, high;
            pmt_interval(estimate, estimate / 3, variance, &low, &high);
            assert_true(low <= estimate && low >= estimate / 3 && high >= estimate);
        }
    }
}

/* --- trees ----------------------------------------------------------------------------------- */

static void
check_tree(const pmt_aggregate *aggregate, bool inverted)
{
    const pmt__tree_limits limits = {inverted, 0, 0.0};
    pmt__tree tree;
    assert_int_equal(pmt__tree_init(&tree, aggregate, &limits, NULL), PMT_OK);
    pmt_value total;
    pmt_aggregate_total(aggregate, &total);
    assert_int_equal(tree.nodes.data[0].bytes, total.bytes);
    size_t children = 0;
    for (size_t i = 0; i < tree.nodes.len; i++) {
        const pmt__tree_node *node = &tree.nodes.data[i];
        uint64_t below = 0;
        for (uint32_t n = 0; n < node->child_count; n++) {
            const pmt__tree_node *child = &tree.nodes.data[node->first_child + n];
            assert_int_equal(child->parent, i);
            assert_true(node->first_child + n > i);
            below += child->bytes;
            if (n != 0) {
                assert_true(child[-1].bytes >= child->bytes);
                assert_true(child[-1].frame != child->frame);
            }
        }
        assert_true(below <= node->bytes);
        children += node->child_count;
    }
    assert_int_equal(children, tree.nodes.len - 1);
    pmt__tree_dispose(&tree);
}

static void
test_trees_hold_together(void **state)
{
    (void)state;
    pmt_aggregate *aggregate = aggregate_of(PMT_VIEW_TOTAL);
    check_tree(aggregate, false);
    check_tree(aggregate, true);
    pmt_aggregate_destroy(aggregate);
}

/* A line's total is that of all stacks that it is on. */
static void
check_lines(const pmt_aggregate *aggregate, size_t number, bool by_total)
{
    pmt__line *lines;
    size_t count;
    assert_int_equal(pmt__lines_make(&lines, &count, aggregate, number, by_total, NULL), PMT_OK);
    assert_true(count > 5);
    uint64_t own = 0;
    for (size_t i = 0; i < count; i++) {
        pmt_value expected = {0};
        for (size_t n = 0; n < aggregate->rows.len; n++) {
            const pmt_row *row = &aggregate->rows.data[n];
            uint32_t stack = row->stack;
            while (stack != 0 && pmt_reader_stack_frame(reader, stack) != lines[i].frame) {
                stack = pmt_reader_stack_parent(reader, stack);
            }
            if (stack != 0 || row->frame == lines[i].frame) {
                pmt__value_add(&expected, &row->value);
            }
        }
        assert_memory_equal(&lines[i].total, &expected, sizeof expected);
        own += lines[i].own.bytes;
        assert_true(i == 0 || lines[i - 1].key >= lines[i].key);
    }
    assert_int_equal(own, aggregate->total.bytes);
    pmt__release(reader->allocator, lines);
}

static void
test_lines_have_what_is_below_them(void **state)
{
    (void)state;
    for (int view = PMT_VIEW_PEAK; view <= PMT_VIEW_TEMPORARY; view++) {
        pmt_aggregate *aggregate = aggregate_of((pmt_view)view);
        check_lines(aggregate, offsetof(pmt_value, bytes), true);
        check_lines(aggregate, offsetof(pmt_value, temporaries), false);
        pmt_aggregate_destroy(aggregate);
    }
}

/* --- lives ----------------------------------------------------------------------------------- */

static const pmt__life *
find_life(const pmt__lives *lives, const pmt__life *key)
{
    const pmt__life *found = NULL;
    for (size_t i = 0; i < lives->list.len; i++) {
        const pmt__life *life = &lives->list.data[i];
        if (life->stack == key->stack && life->thread == key->thread && life->birth == key->birth
            && life->death == key->death) {
            assert_null(found); /* rows are unique */
            found = life;
        }
    }
    return found;
}

/* Fewer rows must be the same lives in wider buckets. */
static void
check_coarser(const pmt_aggregate *aggregate, const pmt__lives *fine, size_t max_rows)
{
    pmt__lives coarse;
    assert_int_equal(pmt__lives_init(&coarse, aggregate, max_rows, NULL), PMT_OK);
    assert_true(coarse.list.len <= max_rows);
    uint64_t factor = coarse.width_ns / fine->width_ns;
    assert_int_equal(coarse.width_ns, factor * fine->width_ns);
    uint64_t blocks = 0;
    for (size_t i = 0; i < fine->list.len; i++) {
        pmt__life key = fine->list.data[i];
        key.birth = (uint16_t)(key.birth / factor);
        if (key.death != PMT_LIFE_ALIVE) {
            key.death = (uint16_t)(key.death / factor);
        }
        assert_true(key.birth < coarse.bucket_count);
        const pmt__life *life = find_life(&coarse, &key);
        assert_non_null(life);
        assert_true(life->blocks >= key.blocks);
        blocks += key.blocks;
    }
    for (size_t i = 0; i < coarse.list.len; i++) {
        blocks -= coarse.list.data[i].blocks;
    }
    assert_int_equal(blocks, 0);
    pmt__lives_dispose(&coarse);
}

static void
test_lives_become_coarser_to_fit(void **state)
{
    (void)state;
    pmt_aggregate *aggregate = aggregate_of(PMT_VIEW_TOTAL);
    pmt__lives fine;
    assert_int_equal(pmt__lives_init(&fine, aggregate, 1000000, NULL), PMT_OK);
    assert_int_equal(fine.width_ns, SECOND);
    assert_int_equal(fine.bucket_count, CAPTURE_CUTS + 1);
    pmt__lives one;
    size_t least = 1;
    for (;; least++) { /* the rows that one bucket needs */
        assert_int_equal(pmt__lives_init(&one, aggregate, least, NULL), PMT_OK);
        size_t rows = one.list.len;
        assert_true(rows == 0 || one.bucket_count == 1);
        pmt__lives_dispose(&one);
        if (rows != 0) {
            break;
        }
    }
    check_coarser(aggregate, &fine, fine.list.len);
    for (size_t max_rows = least; max_rows < fine.list.len; max_rows += 1 + max_rows / 8) {
        check_coarser(aggregate, &fine, max_rows);
    }
    pmt__lives_dispose(&fine);
    pmt_aggregate_destroy(aggregate);
}

/* --- base ------------------------------------------------------------------------------------ */

static void
test_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        const char *text;
        bool matches;
    } cases[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "a/b", true},
        {"a*c", "abc", true},
        {"a*c", "abcd", false},
        {"*.py", "/x/y.py", true},
        {"*a*b", "xaxxbxab", true},
        {"*a*b", "xaxxbxa", false},
        {"a?c", "abc", true},
        {"a?c", "ac", false},
        {"[abc]", "b", true},
        {"[!abc]", "b", false},
        {"[!abc]", "d", true},
        {"[a-c]x", "bx", true},
        {"[a-c]", "d", false},
        {"[]]", "]", true},
        {"[", "[", true},
        {"[ab", "[ab", true},
        {"[a-]", "-", true},
        {"a", "A", false},
        {"**", "abc", true},
        {"?*", "", false},
        {"[!]]", "x", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (pmt__glob_match(cases[i].pattern, cases[i].text, strlen(cases[i].text))
            != cases[i].matches) {
            fail_msg("%s on %s", cases[i].pattern, cases[i].text);
        }
    }
}

static void
test_patterns_take_linear_time(void **state)
{
    (void)state;
    static char text[20000];
    memset(text, 'a', sizeof text);
    /* Backtracking over each star would take 20000^6 steps. */
    assert_false(pmt__glob_match("*a*a*a*a*a*b", text, sizeof text));
}

static void
test_the_index_finds_what_was_added(void **state)
{
    (void)state;
    enum {
        COUNT = 5000
    };
    pmt__index index;
    pmt__index_init(&index, pmt_allocator_default());
    pmt__index_walk walk;
    assert_int_equal(pmt__index_first(&walk, &index, 1), PMT_INDEX_NONE);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(pmt__index_add(&index, pmt__hash_u64(i / 2), i)); /* two of each hash */
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        bool found = false;
        uint32_t at = pmt__index_first(&walk, &index, pmt__hash_u64(i / 2));
        for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
            found = found || at == i;
        }
        assert_true(found);
    }
    assert_int_equal(pmt__index_first(&walk, &index, pmt__hash_u64(COUNT)), PMT_INDEX_NONE);
    pmt__index_dispose(&index);
}

static void
test_json_and_utf8_are_valid_whatever_the_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *json;
        const char *utf8;
    } cases[] = {
        {"a\"\\\n\x7f", "\"a\\\"\\\\\\u000a\\u007f\"", "a\"\\\n\x7f"},
        {"\xc3\xa4\xf0\x9f\x98\x80", "\"\xc3\xa4\xf0\x9f\x98\x80\"", "\xc3\xa4\xf0\x9f\x98\x80"},
        {"\xed\xb2\x80", "\"\\udc80\"", "\xef\xbf\xbd"},                /* a surrogate */
        {"\xc3", "\"\\ufffd\"", "\xef\xbf\xbd"},                        /* cut short */
        {"\xc0\xaf", "\"\\ufffd\\ufffd\"", "\xef\xbf\xbd\xef\xbf\xbd"}, /* overlong */
        {"\xff", "\"\\ufffd\"", "\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\"",
         "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* behind U+10FFFF */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const pmt_string text = {cases[i].text, strlen(cases[i].text)};
        pmt__text_buffer out;
        pmt__text_init(&out, pmt_allocator_default());
        pmt__put_json(&out, text);
        assert_int_equal(out.len, strlen(cases[i].json));
        assert_memory_equal(out.data, cases[i].json, out.len);
        out.len = 0;
        pmt__put_utf8(&out, text);
        assert_int_equal(out.len, strlen(cases[i].utf8));
        assert_memory_equal(out.data, cases[i].utf8, out.len);
        pmt__text_dispose(&out);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_totals_are_the_sums_of_the_rows),
        cmocka_unit_test(test_spreads_are_those_of_the_samples),
        cmocka_unit_test(test_spreads_of_several_captures_add_up),
        cmocka_unit_test(test_spreads_of_a_window_are_parts),
        cmocka_unit_test(test_intervals),
        cmocka_unit_test(test_trees_hold_together),
        cmocka_unit_test(test_lines_have_what_is_below_them),
        cmocka_unit_test(test_lives_become_coarser_to_fit),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_patterns_take_linear_time),
        cmocka_unit_test(test_the_index_finds_what_was_added),
        cmocka_unit_test(test_json_and_utf8_are_valid_whatever_the_text),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
