/* When the recorder does less, and when more again; and what counts as an order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record/control.h"
#include "record/overhead.h"
#include "record/sample.h"

#define MS ((uint64_t)1000000)
#define S (1000 * MS)
#define MEAN ((uint64_t)512 << 10)

static pmt__overhead overhead;
static uint64_t mean;

static void
begin(double limit)
{
    pmt__overhead_begin(&overhead, limit, S, MEAN);
    mean = MEAN;
}

/* A window of ten seconds with a core in use. */
static void
window(uint64_t own_ns, uint64_t sample_ns)
{
    pmt__overhead_decide(&overhead, own_ns, sample_ns, 10 * S, 10 * S, &mean);
}

static void
test_without_a_limit_nothing_changes(void **state)
{
    (void)state;
    begin(0);
    window(5 * S, 5 * S);
    assert_int_equal(mean, MEAN);
    assert_int_equal(overhead.interval_ns, S);
}

static void
test_the_larger_part_is_halved(void **state)
{
    (void)state;
    begin(0.01);
    window(20 * MS, 90 * MS);
    assert_int_equal(mean, 2 * MEAN);
    assert_int_equal(overhead.interval_ns, S);
    window(90 * MS, 20 * MS);
    assert_int_equal(mean, 2 * MEAN);
    assert_int_equal(overhead.interval_ns, 2 * S);
    assert_int_equal(overhead.backed_off, 2);
    window(50 * MS, 49 * MS);
    assert_int_equal(overhead.backed_off, 2);
}

static void
test_a_state_is_never_older_than_four_seconds(void **state)
{
    (void)state;
    begin(0.01);
    for (int i = 0; i < 5; i++) {
        window(900 * MS, 1 * MS);
    }
    assert_int_equal(overhead.interval_ns, PMT_INTERVAL_MAX_NS);
    assert_int_equal(mean, 8 * MEAN); /* what is left to be done less often */
}

static void
test_it_ends_at_the_largest_mean(void **state)
{
    (void)state;
    begin(0.01);
    for (int i = 0; i < 100; i++) {
        window(10 * MS, 900 * MS);
    }
    assert_in_range(mean, PMT_SAMPLE_MEAN_MAX / 2 + 1, PMT_SAMPLE_MEAN_MAX);
}

static void
test_it_comes_back_to_what_was_asked(void **state)
{
    (void)state;
    begin(0.01);
    window(20 * MS, 90 * MS);
    window(90 * MS, 20 * MS);
    for (int i = 0; i < 5; i++) {
        window(10 * MS, 10 * MS);
    }
    assert_int_equal(overhead.interval_ns, 2 * S);
    window(10 * MS, 30 * MS); /* in between: not quiet */
    for (int i = 0; i < 12; i++) {
        window(10 * MS, 10 * MS);
    }
    assert_int_equal(overhead.interval_ns, S);
    assert_int_equal(mean, MEAN);
    for (int i = 0; i < 50; i++) {
        window(0, 0);
    }
    assert_int_equal(mean, MEAN);
}

/* A cut a second is much of nothing. */
static void
test_a_process_that_sleeps_is_left_alone(void **state)
{
    (void)state;
    begin(0.01);
    pmt__overhead_decide(&overhead, 3 * MS, 0, 4 * MS, 10 * S, &mean);
    assert_int_equal(overhead.backed_off, 0);
}

static void
test_orders(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",          "sample",        "sample=",          "sample=0",     "sample=1023",
        "sample=-1", "sample=64K",    "sample=1e6",       "sample= 4096", "sample=99999999999999",
        "sample=of", "sample=offset", "sample=off\nmore", "x=4096",       "sample=4096\0\n",
    };
    for (size_t i = 0; i + 1 < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(pmt__order_parse(wrong[i]).kind, PMT_ORDER_NONE);
    }
    assert_int_equal(pmt__order_parse("sample=off\n").kind, PMT_ORDER_OFF);
    assert_int_equal(pmt__order_parse("sample=on").kind, PMT_ORDER_ON);
    pmt__order order = pmt__order_parse("sample=65536\n");
    assert_int_equal(order.kind, PMT_ORDER_MEAN);
    assert_int_equal(order.mean, 65536);
}

static void
put(const char *name, const char *text, mode_t mode)
{
    unlink(name);
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(name, mode), 0);
}

static void
test_whose_orders_count(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_overhead_XXXXXX", path[64], name[80], other[80];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/x.pmt", folder);
    snprintf(name, sizeof name, "%s.control", path);
    snprintf(other, sizeof other, "%s/other", folder);
    pmt__control control = {.seen = ""};
    assert_int_equal(pmt__control_look(&control, path).kind, PMT_ORDER_NONE);
    put(name, "sample=off\n", 0600);
    assert_int_equal(pmt__control_look(&control, path).kind, PMT_ORDER_OFF);
    assert_int_equal(pmt__control_look(&control, path).kind, PMT_ORDER_NONE); /* once */
    put(name, "sample=4096\n", 0644);
    assert_int_equal(pmt__control_look(&control, path).mean, 4096);
    put(name, "sample=8192\n", 0622); /* anybody may have written it */
    assert_int_equal(pmt__control_look(&control, path).kind, PMT_ORDER_NONE);
    put(other, "sample=8192\n", 0600);
    unlink(name);
    assert_int_equal(symlink(other, name), 0);
    assert_int_equal(pmt__control_look(&control, path).kind, PMT_ORDER_NONE);
    unlink(name);
    assert_int_equal(mkfifo(name, 0600), 0); /* nobody writes to it: not to be waited for */
    assert_int_equal(pmt__control_look(&control, path).kind, PMT_ORDER_NONE);
    if (geteuid() == 0) {
        put(name, "sample=8192\n", 0600);
        assert_int_equal(chown(name, 12345, 12345), 0);
        assert_int_equal(pmt__control_look(&control, path).kind, PMT_ORDER_NONE);
    }
    unlink(name);
    unlink(other);
    rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_limit_nothing_changes),
        cmocka_unit_test(test_the_larger_part_is_halved),
        cmocka_unit_test(test_a_state_is_never_older_than_four_seconds),
        cmocka_unit_test(test_it_ends_at_the_largest_mean),
        cmocka_unit_test(test_it_comes_back_to_what_was_asked),
        cmocka_unit_test(test_a_process_that_sleeps_is_left_alone),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_whose_orders_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
