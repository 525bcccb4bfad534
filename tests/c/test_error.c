#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/error.h"

static void
test_set_keeps_code_and_text(void **state)
{
    (void)state;
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt__error_set(&err, PMT_ERR_LIMIT, "%d of %d", 3, 2), PMT_ERR_LIMIT);
    assert_int_equal(err.code, PMT_ERR_LIMIT);
    assert_int_equal(err.sys_errno, 0);
    assert_int_equal(err.offset, -1);
    assert_string_equal(err.message, "3 of 2");
}

static void
test_errno_is_kept_and_named(void **state)
{
    (void)state;
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt__error_set_errno(&err, PMT_ERR_IO, ENOENT, "cannot open x"), PMT_ERR_IO);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.message, "cannot open x"));
    assert_non_null(strstr(err.message, "No such file"));
}

static void
test_offset_is_kept_and_named(void **state)
{
    (void)state;
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt__error_set_at(&err, PMT_ERR_DAMAGED, 4711, "bad length"), PMT_ERR_DAMAGED);
    assert_int_equal(err.offset, 4711);
    assert_non_null(strstr(err.message, "at offset 4711"));
}

static void
test_long_text_is_cut_and_terminated(void **state)
{
    (void)state;
    char text[1024];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    pmt_error err = PMT_ERROR_INIT;
    pmt__error_set_errno(&err, PMT_ERR_IO, EACCES, "%s", text);
    assert_in_range(strlen(err.message), 1, sizeof err.message - 1);
}

static void
test_the_error_may_be_null(void **state)
{
    (void)state;
    assert_int_equal(pmt__error_set(NULL, PMT_ERR_STATE, "x"), PMT_ERR_STATE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_keeps_code_and_text),
        cmocka_unit_test(test_errno_is_kept_and_named),
        cmocka_unit_test(test_offset_is_kept_and_named),
        cmocka_unit_test(test_long_text_is_cut_and_terminated),
        cmocka_unit_test(test_the_error_may_be_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
