/* A box: a file of fixed size whose two regions hold a state each, and the slots say which of them counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "store/store.h"

#define REGION ((uint64_t)1 << 20)

static uint8_t *box;
static const size_t box_size = PMT_HEADER_SIZE + 2 * REGION;
static size_t state_size; /* of the newer one */
static uint64_t older_t_ns, newer_t_ns;

static uint64_t
last_t_ns(const pmt_reader *reader)
{
    return reader->cuts.len == 0 ? 0 : reader->cuts.data[reader->cuts.len - 1].t_ns;
}

/* Behind so many chunks. */
static size_t
end_of_chunks(const pmt__buffer *file, size_t chunks)
{
    size_t at = PMT_HEADER_SIZE;
    for (; chunks > 0; chunks--) {
        at += pmt__chunk_stored_size(file->data + at);
    }
    return at;
}

static void
slots_put(uint64_t flips)
{
    const pmt__slot slots[2] = {
        {.seq = 2, .status = PMT_STATUS_RECORDING, .data_end = PMT_HEADER_SIZE, .flips = flips - 1},
        {.seq = 3,
         .status = PMT_STATUS_RECORDING,
         .data_end = PMT_HEADER_SIZE + (flips & 1) * REGION + state_size,
         .flips = flips},
    };
    pmt__slot_encode(box + PMT_SLOT_A_OFFSET, &slots[0]);
    pmt__slot_encode(box + PMT_SLOT_B_OFFSET, &slots[1]);
}

/* The newer state in region 1, the one before in region 0; what was there before them behind them, as it would be. */
static void
box_build(void)
{
    static const uint8_t id[16] = {7};
    pmt__buffer file;
    capture_build(&file);
    memset(box, 0x55, box_size);
    memset(box, 0, PMT_HEADER_SIZE);
    pmt__header_encode(box, id, 1, PMT_REQUIRED_BOX, PMT_FEATURE_EPOCHS);
    pmt__header_box_encode(box + PMT_HEADER_BOX_OFFSET, REGION);
    const size_t chunks[2] = {8, 20};
    for (size_t i = 0; i < 2; i++) {
        size_t size = end_of_chunks(&file, chunks[i]) - PMT_HEADER_SIZE;
        uint8_t *region = box + PMT_HEADER_SIZE + i * REGION;
        assert_true(size + PMT_CHUNK_HEADER_SIZE < REGION);
        memcpy(region, file.data + PMT_HEADER_SIZE, size);
        memset(region + size, 0, PMT_CHUNK_HEADER_SIZE);
        state_size = size;
    }
    slots_put(1);
    pmt__buffer_dispose(&file);
}

static pmt_reader *
box_open(size_t size, int *result)
{
    pmt_reader *reader;
    pmt_error err = PMT_ERROR_INIT;
    *result = pmt_reader_open_bytes(&reader, box, size, NULL, &err);
    if (*result < 0) {
        assert_null(reader);
        assert_true(err.message[0] != '\0');
    }
    return reader;
}

static int
setup(void **state)
{
    (void)state;
    box = malloc(box_size);
    box_build();
    int result;
    pmt_reader *reader = box_open(box_size, &result);
    assert_int_equal(result, PMT_OK);
    newer_t_ns = last_t_ns(reader);
    pmt_reader_destroy(reader);
    slots_put(
        2); /* the older region, as if it were the one that counts; its end is not where the slot says */
    reader = box_open(box_size, &result);
    assert_int_equal(result, PMT_OK);
    pmt_reader_destroy(reader);
    box_build();
    memset(box + PMT_HEADER_SIZE + REGION, 0, REGION);
    reader = box_open(box_size, &result);
    assert_int_equal(result, PMT_OK);
    older_t_ns = last_t_ns(reader);
    pmt_reader_destroy(reader);
    return older_t_ns < newer_t_ns ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    free(box);
    return 0;
}

static void
test_the_state_that_counts(void **state)
{
    (void)state;
    box_build();
    int result;
    pmt_reader *reader = box_open(box_size, &result);
    assert_int_equal(result, PMT_OK);
    assert_int_equal(last_t_ns(reader), newer_t_ns);
    assert_false(reader->damaged);
    assert_string_equal(reader->torn, "");
    pmt_reader_destroy(reader);
}

static void
test_a_torn_chunk_ends_it(void **state)
{
    (void)state;
    box_build();
    uint8_t *end = box + PMT_HEADER_SIZE + REGION + state_size;
    memcpy(end, "CHNK", 4); /* begun, and not complete */
    int result;
    pmt_reader *reader = box_open(box_size, &result);
    assert_int_equal(result, PMT_OK);
    assert_int_equal(last_t_ns(reader), newer_t_ns);
    assert_false(reader->damaged);
    pmt_reader_destroy(reader);
}

static void
test_the_older_state_where_the_newer_is_gone(void **state)
{
    (void)state;
    box_build();
    box[PMT_HEADER_SIZE + REGION + 20] ^= 1; /* in its first chunk */
    int result;
    pmt_reader *reader = box_open(box_size, &result);
    assert_int_equal(result, PMT_OK);
    assert_int_equal(last_t_ns(reader), older_t_ns);
    assert_true(reader->damaged);
    assert_non_null(strstr(reader->torn, "the one before"));
    pmt_reader_destroy(reader);
}

/* Cut off anywhere: what is left of the newer one, or the older one, or what there is of it; never less than that. */
static void
test_cut_off_anywhere(void **state)
{
    (void)state;
    box_build();
    for (size_t size = box_size; size > PMT_HEADER_SIZE + 64; size -= 1 + size / 97) {
        int result;
        pmt_reader *reader = box_open(size, &result);
        if (size > PMT_HEADER_SIZE + REGION) {
            assert_int_equal(result, PMT_OK);
            assert_true(last_t_ns(reader) >= older_t_ns);
        }
        if (size < PMT_HEADER_SIZE + REGION + state_size && result == PMT_OK) {
            assert_true(reader->damaged);
        }
        pmt_reader_destroy(reader);
    }
}

static void
test_without_slots(void **state)
{
    (void)state;
    box_build();
    memset(box + PMT_SLOT_A_OFFSET, 0, 2 * PMT_SLOT_B_OFFSET - PMT_SLOT_A_OFFSET);
    int result;
    pmt_reader *reader = box_open(box_size, &result);
    assert_int_equal(result, PMT_OK);
    assert_int_equal(last_t_ns(reader), older_t_ns);
    pmt_reader_destroy(reader);
}

static void
test_a_wrong_size_of_its_regions(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 8, 4097, (uint64_t)1 << 41, UINT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        box_build();
        pmt__header_box_encode(box + PMT_HEADER_BOX_OFFSET, sizes[i]);
        int result;
        assert_null(box_open(box_size, &result));
        assert_int_equal(result, PMT_ERR_DAMAGED);
    }
    box_build();
    box[PMT_HEADER_BOX_OFFSET + 9] ^= 1;
    int result;
    assert_null(box_open(box_size, &result));
    assert_int_equal(result, PMT_ERR_DAMAGED);
}

static void
test_bytes_that_are_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < 300; i++) {
        box_build();
        for (size_t k = 0; k < 1 + i % 20; k++) {
            size_t at = i % 2 ? capture_random(PMT_HEADER_SIZE) : capture_random(box_size);
            box[at] = (uint8_t)capture_random(256);
        }
        int result;
        pmt_reader *reader = box_open(box_size, &result);
        if (result == PMT_OK) {
            assert_true(last_t_ns(reader) <= newer_t_ns);
        }
        pmt_reader_destroy(reader);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_state_that_counts),
        cmocka_unit_test(test_a_torn_chunk_ends_it),
        cmocka_unit_test(test_the_older_state_where_the_newer_is_gone),
        cmocka_unit_test(test_cut_off_anywhere),
        cmocka_unit_test(test_without_slots),
        cmocka_unit_test(test_a_wrong_size_of_its_regions),
        cmocka_unit_test(test_bytes_that_are_wrong),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
