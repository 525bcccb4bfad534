#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"
#include "everything.h"
#include "pymemtrace/reader.h"
#include "store/names.h"
#include "store/store.h"

static pmt__buffer capture;

static int
setup(void **state)
{
    (void)state;
    capture_build(&capture);
    return capture.failed;
}

static int
teardown(void **state)
{
    (void)state;
    pmt__buffer_dispose(&capture);
    return 0;
}

static pmt_reader *
open_capture(const pmt_allocator *allocator)
{
    pmt_reader_options options = {.allocator = allocator};
    pmt_error err = PMT_ERROR_INIT;
    pmt_reader *reader;
    int result = pmt_reader_open_bytes(&reader, capture.data, capture.len, &options, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(result, PMT_OK);
    return reader;
}

static void
assert_text(pmt_string text, const char *expected)
{
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.text, expected, text.len);
}

static void
test_what_is_in_it(void **state)
{
    (void)state;
    pmt_reader *reader = open_capture(NULL);
    pmt_capture facts;
    pmt_reader_capture(reader, &facts);
    assert_int_equal(facts.ended, PMT_ENDED_NORMAL);
    assert_null(facts.torn);
    assert_null(facts.stopped);
    assert_int_equal(facts.pid, 4711);
    assert_int_equal(facts.sampled, 1);
    assert_int_equal(facts.sample_bytes, CAPTURE_MEAN);
    assert_int_equal(facts.sample_bytes_now, 2 * CAPTURE_MEAN);
    assert_int_equal(facts.duration_ns, (CAPTURE_CUTS + 1) * SECOND);
    assert_int_equal(facts.counters[PMT_COUNTER_MEMORY_LIMIT], 5);
    assert_int_equal(pmt_reader_cut_count(reader), CAPTURE_CUTS);
    assert_int_equal(pmt_reader_end_cut(reader), 9);
    assert_int_equal(pmt_reader_thread_count(reader), 2);
    assert_text(pmt_reader_thread(reader, 1).name, "MainThread");
    assert_int_equal(pmt_reader_mark_count(reader), 1);
    assert_text(pmt_reader_mark(reader, 0).label, "batch; \"1\"\n");
    assert_int_equal(pmt_reader_find_fact(reader, "sys_path")->item_count, 2);
    assert_null(pmt_reader_find_fact(reader, "sys"));
    for (uint32_t stack = 1; stack < pmt_reader_stack_count(reader); stack++) {
        assert_true(pmt_reader_stack_parent(reader, stack) < stack);
        assert_true(pmt_reader_stack_frame(reader, stack) < pmt_reader_frame_count(reader));
    }
    pmt_reader_destroy(reader);
}

/* What a hostile section SAMPLES says is refused, or comes to nothing. */
static int
open_samples(const pmt__buffer *body, pmt_error *err)
{
    pmt__buffer file, payload;
    pmt__buffer_init(&payload);
    static const uint8_t id[16];
    capture_begin(&file, id, 0);
    capture_proc(&file);
    capture_names(&payload);
    pmt__section_put(&payload, PMT_SECTION_SAMPLES, body);
    capture_cut(&payload, 7);
    pmt__chunk_put(&file, "DLTA", 0, 2, payload.data, payload.len);
    pmt_reader *reader;
    int result = pmt_reader_open_bytes(&reader, file.data, file.len, NULL, err);
    if (result == PMT_OK) {
        assert_int_equal(everything(reader, err), PMT_OK);
        pmt_reader_destroy(reader);
    }
    pmt__buffer_dispose(&file);
    pmt__buffer_dispose(&payload);
    return result;
}

static void
test_samples_are_checked(void **state)
{
    (void)state;
    static const struct {
        uint64_t mean, moved, count;
        int64_t site;
        const char *message; /* NULL: it is read */
    } cases[] = {
        {0, 0, 1, 1, NULL},
        {UINT64_MAX, 1, 1, CAPTURE_SITES, NULL},
        {1, 0, 1, 0, "samples of site 0"},
        {1, 0, 1, -1, "samples of site 18446744073709551615"},
        {1, 0, 1, CAPTURE_SITES + 1, "samples of site 121"},
        {1, 0, 2, 1, "SAMPLES"},
        {1, 0, UINT64_MAX, 1, "SAMPLES"},
        {1, 2, 1, 1, "whether the peak moved"},
        {1, 1, 1, 1, "SAMPLES"}, /* without the sums at the peak */
        {1, 0, 0, 1, "bytes behind its last entry"},
    };
    static const double wrong[] = {(double)INFINITY, (double)NAN, -1, 1e308, 1e-310};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t n = 0; n < sizeof wrong / sizeof *wrong; n++) {
            pmt__buffer body;
            pmt__buffer_init(&body);
            CAPTURE_PUT(&body, cases[i].mean, cases[i].moved, cases[i].count);
            pmt__buffer_put_zigzag(&body, cases[i].site);
            capture_sums(&body, INT64_MIN, INT64_MAX, wrong[n]);
            capture_sums(&body, INT64_MAX, INT64_MIN, wrong[n]);
            if (cases[i].moved == 1 && cases[i].message == NULL) {
                capture_sums(&body, 1, -1, wrong[n]);
            }
            pmt_error err = PMT_ERROR_INIT;
            int result = open_samples(&body, &err);
            pmt__buffer_dispose(&body);
            if (cases[i].message == NULL) {
                assert_int_equal(result, PMT_OK);
            } else {
                assert_int_equal(result, PMT_ERR_DAMAGED);
                assert_non_null(strstr(err.message, cases[i].message));
            }
        }
    }
}

/* Two code objects with one name: their instructions on one line are one location, and what differs
   in instructions only is one stack. */
static void
test_equal_stacks_are_one(void **state)
{
    (void)state;
    pmt_reader *reader = open_capture(NULL);
    size_t count = pmt_reader_stack_count(reader);
    assert_true(count < CAPTURE_STACKS + 1);
    for (uint32_t a = 1; a < count; a++) {
        for (uint32_t b = a + 1; b < count; b++) {
            assert_false(pmt_reader_stack_parent(reader, a) == pmt_reader_stack_parent(reader, b)
                         && pmt_reader_stack_frame(reader, a) == pmt_reader_stack_frame(reader, b));
        }
    }
    for (uint32_t a = 0; a < pmt_reader_frame_count(reader); a++) {
        pmt_frame frame = pmt_reader_frame(reader, a);
        if (frame.kind == PMT_FRAME_PYTHON) {
            assert_in_range(frame.line, 10, 12);
            assert_text(frame.module, "shop.cache");
        }
    }
    pmt_reader_destroy(reader);
}

static void
test_a_file_and_its_bytes_are_the_same(void **state)
{
    (void)state;
    char path[] = "/tmp/test_store_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, capture.data, capture.len), capture.len);
    close(fd);
    pmt_reader *reader;
    assert_int_equal(pmt_reader_open(&reader, path, NULL, NULL), PMT_OK);
    assert_int_equal(pmt_reader_cut_count(reader), CAPTURE_CUTS);
    pmt_reader_destroy(reader);
    unlink(path);
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt_reader_open(&reader, path, NULL, &err), PMT_ERR_IO);
    assert_null(reader);
    assert_non_null(strstr(err.message, path));
}

static void
test_a_capture_can_be_cut_anywhere(void **state)
{
    (void)state;
    uint64_t end; /* of END, behind which there are symbols */
    memcpy(&end, capture.data + PMT_SLOT_A_OFFSET + 16, sizeof end);
    /* at most 7 bytes at its end are padding */
    for (size_t size = 0; size + 8 <= capture.len; size += size < 4096 ? 61 : 7) {
        uint8_t *bytes = malloc(size + 1);
        assert_non_null(bytes);
        memcpy(bytes, capture.data, size);
        pmt_error err = PMT_ERROR_INIT;
        pmt_reader *reader;
        int result = pmt_reader_open_bytes(&reader, bytes, size, NULL, &err);
        free(bytes);
        if (result == PMT_OK) {
            pmt_capture facts;
            pmt_reader_capture(reader, &facts);
            if (size >= end || size + 8 <= end) {
                assert_int_equal(facts.damaged, size < end); /* its slot says that it had ended */
                assert_int_equal(facts.torn != NULL, size < end);
            }
            assert_int_equal(everything(reader, &err), PMT_OK);
            pmt_reader_destroy(reader);
        } else {
            assert_null(reader);
            assert_true(err.message[0] != '\0');
            assert_null(strchr(err.message, '\n'));
        }
    }
}

/* --- out of memory --------------------------------------------------------------------------- */

/* Fails the n-th request, and knows what was not given back. */
typedef struct {
    size_t requests;
    size_t fail_at; /* from 1; 0 = never */
    size_t blocks;
} scarce;

static void *
scarce_resize(void *context, void *block, size_t size)
{
    scarce *self = context;
    if (++self->requests == self->fail_at) {
        return NULL;
    }
    self->blocks += block == NULL;
    void *result = realloc(block, size);
    assert_non_null(result);
    return result;
}

static void
scarce_release(void *context, void *block)
{
    scarce *self = context;
    self->blocks -= block != NULL;
    free(block);
}

#define TEXT(literal) ((pmt_string){literal, sizeof literal - 1})

/* What is found of a place that the capture has no symbols of. */
static int
make_symbols(pmt_symbols **out, pmt_reader_options *options, pmt_error *err)
{
    int result = pmt_symbols_create(out, options->allocator, err);
    if (result < 0) {
        return result;
    }
    pmt_symbols_put_place(*out, TEXT("/usr/lib/libx.so"), 0x150);
    pmt_symbols_put_frame(*out, TEXT("inlined"), TEXT("/src/x.h"), 12);
    pmt_symbols_put_frame(*out, TEXT("outer"), TEXT("/src/x.cc"), 34);
    return pmt_symbols_bytes(*out, &options->symbols, &options->symbols_size, err);
}

static int
open_and_ask(scarce *memory, size_t fail_at, pmt_error *err)
{
    *memory = (scarce){0, fail_at, 0};
    const pmt_allocator allocator = {scarce_resize, scarce_release, memory};
    pmt_reader_options options = {.allocator = &allocator};
    pmt_symbols *symbols;
    pmt_reader *reader;
    int result = make_symbols(&symbols, &options, err);
    if (result == PMT_OK) {
        result = pmt_reader_open_bytes(&reader, capture.data, capture.len, &options, err);
    }
    if (result == PMT_OK) {
        result = everything(reader, err);
        pmt_reader_destroy(reader);
    }
    pmt_symbols_destroy(symbols);
    return result;
}

static bool
has_function(const pmt_reader *reader, const char *name, int kind)
{
    for (size_t i = 0; i < pmt_reader_frame_count(reader); i++) {
        pmt_frame frame = pmt_reader_frame(reader, (uint32_t)i);
        if (frame.kind == kind && frame.function.len == strlen(name)
            && memcmp(frame.function.text, name, frame.function.len) == 0) {
            return true;
        }
    }
    return false;
}

static void
test_native_places_become_functions(void **state)
{
    (void)state;
    pmt_reader_options options = {.allocator = NULL};
    pmt_symbols *symbols;
    pmt_reader *reader;
    assert_int_equal(make_symbols(&symbols, &options, NULL), PMT_OK);
    assert_int_equal(pmt_reader_open_bytes(&reader, capture.data, capture.len, &options, NULL),
                     PMT_OK);
    assert_true(has_function(reader, "x::load(int)", PMT_FRAME_INLINED));
    assert_true(has_function(reader, "x::load(int)", PMT_FRAME_NATIVE));
    assert_true(has_function(reader, "libx.so+0xd0", PMT_FRAME_NATIVE));
    assert_true(has_function(reader, "inlined", PMT_FRAME_INLINED));
    assert_true(has_function(reader, "outer", PMT_FRAME_NATIVE));
    assert_int_equal(pmt_reader_unresolved_count(reader), 2); /* 0x1d0, 0x250 */
    pmt_place place = pmt_reader_unresolved(reader, 0);
    assert_int_equal(place.offset, 0x1d0);
    assert_memory_equal(place.build_id, "build id", 8);
    pmt_reader_destroy(reader);
    pmt_symbols_destroy(symbols);
}

static void
test_any_request_for_memory_may_fail(void **state)
{
    (void)state;
    scarce memory;
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(open_and_ask(&memory, 0, &err), PMT_OK);
    assert_int_equal(memory.blocks, 0);
    size_t requests = memory.requests;
    assert_true(requests > 100);
    for (size_t fail_at = 1; fail_at <= requests; fail_at++) {
        err = (pmt_error)PMT_ERROR_INIT;
        int result = open_and_ask(&memory, fail_at, &err);
        if (memory.blocks != 0 || result != PMT_ERR_NOMEM) {
            print_error("request %zu of %zu: result %d, %zu blocks left\n", fail_at, requests,
                        result, memory.blocks);
        }
        assert_int_equal(memory.blocks, 0);
        assert_int_equal(result, PMT_ERR_NOMEM);
        assert_non_null(strstr(err.message, "out of memory"));
    }
}

/* --- progress -------------------------------------------------------------------------------- */

static int
stop_at_once(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    assert_true(done_bytes <= total_bytes);
    ++*(int *)context;
    return 1;
}

static void
test_progress_can_stop_it(void **state)
{
    (void)state;
    pmt__buffer file;
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    pmt__buffer_init(&file);
    uint8_t start[PMT_HEADER_SIZE] = {0};
    static const uint8_t id[16];
    pmt__header_encode(start, id, 0, 0, 0);
    pmt__buffer_put(&file, start, sizeof start);
    capture_proc(&file);
    for (size_t i = 0; i < 2000000; i++) {
        uint8_t byte = (uint8_t)capture_random(256);
        pmt__buffer_put(&payload, &byte, 1);
    }
    pmt__chunk_put(&file, "XXXX", 0, 2, payload.data, payload.len);
    int calls = 0;
    const pmt_reader_options options = {.progress = stop_at_once, .context = &calls};
    pmt_reader *reader;
    int result = pmt_reader_open_bytes(&reader, file.data, file.len, &options, NULL);
    assert_int_equal(result, PMT_ERR_STATE);
    assert_int_equal(calls, 1);
    pmt__buffer_dispose(&file);
    pmt__buffer_dispose(&payload);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_in_it),
        cmocka_unit_test(test_samples_are_checked),
        cmocka_unit_test(test_equal_stacks_are_one),
        cmocka_unit_test(test_a_file_and_its_bytes_are_the_same),
        cmocka_unit_test(test_a_capture_can_be_cut_anywhere),
        cmocka_unit_test(test_native_places_become_functions),
        cmocka_unit_test(test_any_request_for_memory_may_fail),
        cmocka_unit_test(test_progress_can_stop_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
