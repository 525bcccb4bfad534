/* A capture that grows: a follower must know at every moment what a reader knows that opens the file just then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"
#include "everything.h"
#include "pymemtrace/reader.h"
#include "store/store.h"

static pmt__buffer capture;
static char path[] = "/tmp/test_follow_XXXXXX";

static void
write_file(const char *name, const uint8_t *bytes, size_t from, size_t to)
{
    FILE *file = fopen(name, from == 0 ? "wb" : "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)from, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes + from, 1, to - from, file), to - from);
    assert_int_equal(fclose(file), 0);
}

static int
setup(void **state)
{
    (void)state;
    capture_build(&capture);
    /* as of a program that is being recorded */
    pmt__slot slot = {.seq = 1, .status = PMT_STATUS_RECORDING, .data_end = PMT_HEADER_SIZE};
    pmt__slot_encode(capture.data + PMT_SLOT_A_OFFSET, &slot);
    int fd = mkstemp(path);
    return capture.failed || fd < 0 || close(fd) < 0;
}

static int
teardown(void **state)
{
    (void)state;
    unlink(path);
    strcpy(path + sizeof path - 7, "XXXXXX");
    pmt__buffer_dispose(&capture);
    return 0;
}

/* Where the chunks end, the first one's first. Returns how many there are. */
static size_t
find_ends(size_t *ends, size_t limit)
{
    size_t count = 0;
    size_t at = PMT_HEADER_SIZE;
    while (at < capture.len) {
        uint32_t stored;
        memcpy(&stored, capture.data + at + 12, sizeof stored);
        at = (at + PMT_CHUNK_HEADER_SIZE + stored + 7) / 8 * 8;
        assert_true(count < limit);
        ends[count++] = at < capture.len ? at : capture.len;
    }
    return count;
}

static void
compare_rows(const pmt_reader *reader, const pmt_reader *expected, const pmt_query *query)
{
    pmt_aggregate *got;
    pmt_aggregate *wanted;
    assert_int_equal(pmt_aggregate_create(&got, reader, query, NULL), PMT_OK);
    assert_int_equal(pmt_aggregate_create(&wanted, expected, query, NULL), PMT_OK);
    assert_int_equal(got->rows.len, wanted->rows.len);
    for (size_t i = 0; i < got->rows.len; i++) {
        const pmt_row *row = &got->rows.data[i];
        const pmt_row *other = &wanted->rows.data[i];
        assert_memory_equal(row, other, offsetof(pmt_row, spreads));
        assert_int_equal(row->spreads != NULL, other->spreads != NULL);
        if (row->spreads != NULL) {
            assert_memory_equal(row->spreads, other->spreads, sizeof *row->spreads);
        }
    }
    assert_memory_equal(&got->total, &wanted->total, sizeof got->total);
    pmt_aggregate_destroy(got);
    pmt_aggregate_destroy(wanted);
}

static void
compare_readers(const pmt_reader *reader, const pmt_reader *expected)
{
    assert_int_equal(reader->cuts.len, expected->cuts.len);
    assert_int_equal(reader->stacks.len, expected->stacks.len);
    assert_int_equal(reader->threads.len, expected->threads.len);
    assert_int_equal(reader->moments.len, expected->moments.len);
    assert_int_equal(reader->sites.len, expected->sites.len);
    assert_int_equal(reader->ended, expected->ended);
    assert_int_equal(reader->damaged, expected->damaged);
    assert_string_equal(reader->torn, expected->torn);
    for (size_t i = 1; i < reader->sites.len; i++) {
        assert_int_equal(reader->sites.data[i].thread, expected->sites.data[i].thread);
    }
    for (int view = PMT_VIEW_PEAK; view <= PMT_VIEW_TEMPORARY; view++) {
        for (uint64_t epoch = 0; epoch < 4; epoch += 3) {
            const pmt_query query = {.view = (pmt_view)view, .exclude_epoch = epoch};
            compare_rows(reader, expected, &query);
        }
        if (reader->cuts.len > 3) {
            const pmt_query query = {
                .view = (pmt_view)view, .has_start = 1, .start_ns = 2 * SECOND};
            compare_rows(reader, expected, &query);
        }
    }
    pmt__stats stats;
    pmt__stats threads;
    const pmt_query all = {.view = PMT_VIEW_PEAK};
    assert_int_equal(pmt__stats_query(&stats, expected, &all, NULL), PMT_OK);
    assert_int_equal(pmt__stats_query_threads(&threads, reader, &all, NULL), PMT_OK);
    assert_memory_equal(stats.threads, threads.threads,
                        reader->threads.len * sizeof *stats.threads);
    pmt__stats_dispose(&stats);
    pmt__stats_dispose(&threads);
}

static void
compare_with_file(const pmt_follower *follower)
{
    pmt_reader *expected;
    pmt_error err = PMT_ERROR_INIT;
    pmt_reader_open(&expected, path, NULL, &err);
    assert_string_equal(err.message, "");
    compare_readers(pmt_follower_reader(follower), expected);
    pmt_reader_destroy(expected);
}

static pmt_follower *
follow_from(size_t size)
{
    write_file(path, capture.data, 0, size);
    pmt_follower *follower;
    pmt_error err = PMT_ERROR_INIT;
    pmt_follower_open(&follower, path, NULL, &err);
    assert_string_equal(err.message, "");
    return follower;
}

static int
refresh(pmt_follower *follower)
{
    pmt_error err = PMT_ERROR_INIT;
    int result = pmt_follower_refresh(follower, &err);
    assert_string_equal(err.message, "");
    return result;
}

static void
assert_broken(pmt_follower *follower, int code, const char *message)
{
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt_follower_refresh(follower, &err), code);
    assert_non_null(strstr(err.message, message));
    err = (pmt_error)PMT_ERROR_INIT;
    assert_int_equal(pmt_follower_refresh(follower, &err), PMT_ERR_STATE);
    pmt_follower_destroy(follower);
}

/* `step` chunks at a time, up to END; in between the file ends within a chunk. */
static void
grow(size_t step)
{
    size_t ends[64];
    size_t count = find_ends(ends, 64) - 1; /* symbols come last */
    size_t size = ends[0];
    pmt_follower *follower = follow_from(size);
    compare_with_file(follower);
    assert_int_equal(refresh(follower), 0);
    for (size_t i = step; i < count + step; i += step) {
        size_t next = ends[i < count ? i : count - 1];
        if (next == size) {
            break;
        }
        write_file(path, capture.data, size, size + 45);
        if (step == 1) {
            assert_int_equal(refresh(follower), 0);
            compare_with_file(follower);
        }
        write_file(path, capture.data, size, next);
        assert_int_equal(refresh(follower), 1);
        compare_with_file(follower);
        assert_int_equal(refresh(follower), 0);
        size = next;
    }
    assert_int_equal(size, ends[count - 1]);
    assert_int_equal(pmt_follower_reader(follower)->ended, PMT_ENDED_NORMAL);
    write_file(path, capture.data, size, capture.len);
    assert_broken(follower, PMT_ERR_STATE, "names have been added");
    follower = follow_from(capture.len);
    compare_with_file(follower);
    assert_int_equal(refresh(follower), 0);
    pmt_follower_destroy(follower);
}

static void
test_a_follower_knows_what_a_reader_knows(void **state)
{
    (void)state;
    grow(1);
    grow(3);
    grow(100);
}

/* The record of thread 2, which sites name from the first cut on, comes with the last. */
static void
test_a_thread_may_be_named_late(void **state)
{
    (void)state;
    size_t ends[64];
    size_t count = find_ends(ends, 64);
    pmt_follower *follower = follow_from(ends[count - 3]);
    assert_int_equal(pmt_follower_reader(follower)->sites.data[2].thread, 0);
    pmt__buffer file;
    pmt__buffer payload;
    pmt__buffer body;
    pmt__buffer_init(&file);
    pmt__buffer_init(&payload);
    pmt__buffer_init(&body);
    pmt__buffer_put(&file, capture.data, ends[count - 3]);
    CAPTURE_PUT(&body, 1, 2, 1002, 98, 0, 5, 0, 0);
    capture_section(&payload, PMT_SECTION_THREADS, &body);
    capture_cut(&payload, CAPTURE_CUTS);
    pmt__chunk_put(&file, "DLTA", 0, count - 1, payload.data, payload.len);
    write_file(path, file.data, ends[count - 3], file.len);
    assert_int_equal(refresh(follower), 1);
    assert_int_equal(pmt_follower_reader(follower)->sites.data[2].thread, 2);
    compare_with_file(follower);
    pmt_follower_destroy(follower);
    pmt__buffer_dispose(&file);
    pmt__buffer_dispose(&payload);
    pmt__buffer_dispose(&body);
}

static void
test_another_file_is_noticed(void **state)
{
    (void)state;
    size_t ends[64];
    size_t count = find_ends(ends, 64);
    char other[sizeof path + 8];
    snprintf(other, sizeof other, "%s.compact", path);

    pmt_follower *follower = follow_from(ends[count / 2]);
    write_file(other, capture.data, 0, capture.len);
    assert_int_equal(rename(other, path), 0);
    assert_broken(follower, PMT_ERR_STATE, "another file");

    follower = follow_from(ends[count / 2]);
    assert_int_equal(truncate(path, (off_t)ends[1]), 0);
    assert_broken(follower, PMT_ERR_STATE, "not what it was");

    follower = follow_from(ends[count / 2]);
    uint8_t start[PMT_HEADER_SIZE] = {0};
    static const uint8_t id[16] = {7};
    pmt__header_encode(start, id, 0, 0, 0);
    write_file(path, start, 0, 64);
    assert_int_equal(truncate(path, (off_t)capture.len), 0);
    assert_broken(follower, PMT_ERR_STATE, "not what it was");

    follower = follow_from(ends[count / 2]);
    unlink(path); /* nobody has taken its place */
    assert_int_equal(refresh(follower), 0);
    pmt_follower_destroy(follower);
    assert_int_equal(pmt_follower_open(&follower, path, NULL, NULL), PMT_ERR_IO);
    assert_null(follower);
}

static void
test_what_is_wrong_breaks_it(void **state)
{
    (void)state;
    size_t ends[64];
    size_t count = find_ends(ends, 64);
    pmt_follower *follower = follow_from(ends[count - 3]);
    pmt__buffer file;
    pmt__buffer_init(&file);
    pmt__buffer_put(&file, capture.data, ends[count - 3]);
    pmt__chunk_put(&file, "DLTA", 0, count - 1, (const uint8_t *)"\x01\x7f", 2);
    write_file(path, file.data, ends[count - 3], file.len);
    assert_broken(follower, PMT_ERR_DAMAGED, "DLTA");
    pmt__buffer_dispose(&file);
}

/* --- out of memory --------------------------------------------------------------------------- */

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

static int
follow_and_ask(scarce *memory, size_t fail_at, pmt_error *err)
{
    size_t ends[64];
    size_t count = find_ends(ends, 64);
    write_file(path, capture.data, 0, ends[count / 2]);
    *memory = (scarce){0, fail_at, 0};
    const pmt_allocator allocator = {scarce_resize, scarce_release, memory};
    const pmt_reader_options options = {.allocator = &allocator};
    pmt_follower *follower;
    int result = pmt_follower_open(&follower, path, &options, err);
    if (result < 0) {
        return result;
    }
    result = everything(pmt_follower_reader(follower), err);
    if (result == PMT_OK) {
        write_file(path, capture.data, ends[count / 2], ends[count - 2]);
        result = pmt_follower_refresh(follower, err);
        if (result == 1) {
            result = everything(pmt_follower_reader(follower), err);
        }
    }
    pmt_follower_destroy(follower);
    return result;
}

static void
test_any_request_for_memory_may_fail(void **state)
{
    (void)state;
    scarce memory;
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(follow_and_ask(&memory, 0, &err), PMT_OK);
    assert_int_equal(memory.blocks, 0);
    size_t requests = memory.requests;
    for (size_t fail_at = 1; fail_at <= requests; fail_at += 3) { /* files take their time */
        err = (pmt_error)PMT_ERROR_INIT;
        int result = follow_and_ask(&memory, fail_at, &err);
        assert_int_equal(memory.blocks, 0);
        assert_int_equal(result, PMT_ERR_NOMEM);
        assert_non_null(strstr(err.message, "out of memory"));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_follower_knows_what_a_reader_knows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_thread_may_be_named_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_file_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_wrong_breaks_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_request_for_memory_may_fail, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
