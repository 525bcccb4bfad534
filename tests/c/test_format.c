#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "capture.h"
#include "format/decode.h"
#include "model/location.h"

static const uint64_t numbers[] = {0, 1, 127, 128, 300, UINT32_MAX, INT64_MAX, UINT64_MAX};

static pmt__cursor
cursor_of(const pmt__buffer *buffer, pmt_error *err)
{
    const pmt__chunk chunk = {"TEST", 4096, 0, buffer->data, buffer->len, 1};
    pmt__cursor cursor;
    pmt__cursor_init(&cursor, &chunk, "a test", err);
    return cursor;
}

static void
test_numbers_and_texts_round_trip(void **state)
{
    (void)state;
    pmt__buffer buffer;
    pmt__buffer_init(&buffer);
    const size_t count = sizeof numbers / sizeof *numbers;
    for (size_t i = 0; i < count; i++) {
        pmt__buffer_put_varint(&buffer, numbers[i]);
        pmt__buffer_put_zigzag(&buffer, (int64_t)numbers[i]);
        pmt__buffer_put_zigzag(&buffer, (int64_t)(0 - numbers[i]));
    }
    pmt__buffer_put_text(&buffer, "abc", 3);
    pmt_error err = PMT_ERROR_INIT;
    pmt__cursor in = cursor_of(&buffer, &err);
    for (size_t i = 0; i < count; i++) {
        assert_true(pmt__get_varint(&in) == numbers[i]);
        assert_true(pmt__get_zigzag(&in) == (int64_t)numbers[i]);
        assert_true(pmt__get_zigzag(&in) == (int64_t)(0 - numbers[i]));
    }
    assert_int_equal(pmt__get_varint(&in), 3);
    assert_memory_equal(pmt__get_bytes(&in, 3), "abc", 3);
    assert_ptr_equal(in.at, in.end);
    assert_int_equal(in.code, PMT_OK);
    pmt__buffer_dispose(&buffer);
}

static void
test_what_is_cut_short_fails_once_and_stays_at_the_end(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x80, 0x80};
    pmt__buffer buffer;
    pmt__buffer_init(&buffer);
    pmt__buffer_put(&buffer, bytes, sizeof bytes);
    pmt_error err = PMT_ERROR_INIT;
    pmt__cursor in = cursor_of(&buffer, &err);
    assert_true(pmt__get_varint(&in) == 0);
    assert_int_equal(in.code, PMT_ERR_DAMAGED);
    assert_int_equal(err.offset, 4096);
    assert_non_null(strstr(err.message, "a test"));
    const pmt_error first = err;
    assert_null(pmt__get_bytes(&in, 1));
    assert_int_equal(pmt__get_count(&in, 1), 0);
    assert_memory_equal(&first, &err, sizeof err);
    pmt__buffer_dispose(&buffer);
}

static void
test_numbers_of_more_than_64_bits_are_refused(void **state)
{
    (void)state;
    pmt__buffer buffer;
    pmt__buffer_init(&buffer);
    uint8_t bytes[11];
    memset(bytes, 0xff, sizeof bytes);
    bytes[9] = 2; /* bit 64 */
    pmt__buffer_put(&buffer, bytes, sizeof bytes);
    pmt__cursor in = cursor_of(&buffer, NULL);
    pmt__get_varint(&in);
    assert_int_equal(in.code, PMT_ERR_DAMAGED);
    pmt__buffer_dispose(&buffer);
}

static void
test_a_count_is_no_more_than_can_follow(void **state)
{
    (void)state;
    pmt__buffer buffer;
    pmt__buffer_init(&buffer);
    CAPTURE_PUT(&buffer, 3, 0, 0, 0, 0, 0);
    pmt__cursor in = cursor_of(&buffer, NULL);
    assert_int_equal(pmt__get_count(&in, 1), 3);
    in = cursor_of(&buffer, NULL);
    assert_int_equal(pmt__get_count(&in, 2), 0);
    assert_int_equal(in.code, PMT_ERR_DAMAGED);
    pmt__buffer_dispose(&buffer);
}

static void
check_chunks(const uint8_t *payload, size_t size)
{
    pmt__buffer file;
    pmt__buffer_init(&file);
    pmt__chunk_put(&file, "ABCD", 0, 1, payload, size);
    pmt__chunk_put(&file, "EFGH", 0, 2, payload, size);
    assert_false(file.failed);
    const pmt__source source = {.bytes = file.data, .fd = -1, .size = file.len};
    pmt__chunk_reader reader;
    pmt__chunk_reader_init(&reader, &source, 0, pmt_allocator_default());
    for (int i = 0; i < 2; i++) {
        pmt__chunk chunk;
        assert_int_equal(pmt__chunk_next(&reader, &chunk, NULL), 1);
        assert_string_equal(chunk.kind, i == 0 ? "ABCD" : "EFGH");
        assert_int_equal(chunk.size, size);
        assert_memory_equal(chunk.payload, payload, size);
        assert_int_equal(chunk.end % 8, 0);
    }
    pmt__chunk chunk;
    assert_int_equal(pmt__chunk_next(&reader, &chunk, NULL), 0);
    assert_string_equal(reader.stop, "");
    pmt__chunk_reader_dispose(&reader);
    pmt__buffer_dispose(&file);
}

static void
test_chunks_of_all_sizes_round_trip(void **state)
{
    (void)state;
    enum {
        LARGEST = 3000000
    };
    uint8_t *bytes = malloc(LARGEST);
    assert_non_null(bytes);
    for (size_t size = 0; size < LARGEST; size = size * 7 / 3 + 1) {
        memset(bytes, 'x', size);
        check_chunks(bytes, size);
        for (size_t i = 0; i < size; i++) {
            bytes[i] = (uint8_t)(i * i >> 9);
        }
        check_chunks(bytes, size);
        for (size_t i = 0; i < size; i++) {
            bytes[i] = (uint8_t)capture_random(256); /* cannot be compressed */
        }
        check_chunks(bytes, size);
    }
    free(bytes);
}

static void
test_payloads_are_compressed(void **state)
{
    (void)state;
    static const uint8_t zeros[100000];
    pmt__buffer file;
    pmt__buffer_init(&file);
    pmt__chunk_put(&file, "DLTA", PMT_CHUNK_REQUIRED, 1, zeros, sizeof zeros);
    assert_true(file.len < 200);
    assert_int_equal(file.data[8], PMT_CHUNK_COMPRESSED | PMT_CHUNK_REQUIRED);
    pmt__buffer_dispose(&file);
}

static void
test_a_frame_that_expands_to_more_than_it_says(void **state)
{
    (void)state;
    static const uint8_t zeros[100000];
    pmt__buffer file;
    pmt__buffer again;
    pmt__buffer_init(&file);
    pmt__buffer_init(&again);
    pmt__chunk_put(&file, "DLTA", 0, 1, zeros, sizeof zeros);
    uint32_t stored;
    memcpy(&stored, file.data + 12, 4);
    /* The same frame in a chunk whose raw size is a lie, with a right checksum. */
    pmt__chunk_put(&again, "DLTA", 0, 1, file.data + PMT_CHUNK_HEADER_SIZE, stored);
    again.data[8] |= PMT_CHUNK_COMPRESSED;
    pmt__source source = {.bytes = again.data, .fd = -1, .size = again.len};
    pmt__chunk_reader reader;
    pmt__chunk chunk;
    pmt__chunk_reader_init(&reader, &source, 0, pmt_allocator_default());
    assert_int_equal(pmt__chunk_next(&reader, &chunk, NULL), 0);
    assert_non_null(strstr(reader.stop, "checksum"));
    pmt__chunk_reader_dispose(&reader);
    pmt__buffer_dispose(&file);
    pmt__buffer_dispose(&again);
}

static void
test_every_bit_of_a_chunk_counts(void **state)
{
    (void)state;
    pmt__buffer file;
    pmt__buffer_init(&file);
    pmt__chunk_put(&file, "DLTA", 0, 1, (const uint8_t *)"0123456789abcdef", 16);
    assert_int_equal(file.len, PMT_CHUNK_HEADER_SIZE + 16);
    for (size_t bit = 0; bit < file.len * 8; bit++) {
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        pmt__source source = {.bytes = file.data, .fd = -1, .size = file.len};
        pmt__chunk_reader reader;
        pmt__chunk chunk;
        pmt__chunk_reader_init(&reader, &source, 0, pmt_allocator_default());
        assert_int_equal(pmt__chunk_next(&reader, &chunk, NULL), 0);
        assert_non_null(strstr(reader.stop, "at offset 0"));
        pmt__chunk_reader_dispose(&reader);
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    pmt__buffer_dispose(&file);
}

static void
test_header_round_trip(void **state)
{
    (void)state;
    uint8_t bytes[PMT_HEADER_SIZE] = {0};
    uint8_t id[16] = {9, 8, 7};
    pmt__header_encode(bytes, id, 123456789, 0, PMT_FEATURE_EPOCHS);
    pmt__source source = {.bytes = bytes, .fd = -1, .size = sizeof bytes};
    pmt__header header;
    assert_int_equal(pmt__header_read(&header, &source, NULL), PMT_OK);
    assert_int_equal(header.major, PMT_FORMAT_MAJOR);
    assert_int_equal(header.size, PMT_HEADER_SIZE);
    assert_int_equal(header.optional, PMT_FEATURE_EPOCHS);
    assert_memory_equal(header.id, id, 16);
    assert_int_equal(header.created_unix_ns, 123456789);
}

static void
test_the_valid_slot_with_the_higher_seq_counts(void **state)
{
    (void)state;
    uint8_t bytes[PMT_HEADER_SIZE] = {0};
    pmt__source source = {.bytes = bytes, .fd = -1, .size = sizeof bytes};
    pmt__slot slot = {0};
    bool found;
    assert_int_equal(pmt__slot_read(&slot, &found, &source, NULL), PMT_OK);
    assert_false(found);
    const pmt__slot a = {4, 1, 2, 3, 5, 6, 7, 8, 9, -10, 91, 92};
    const pmt__slot b = {5, PMT_STATUS_STOPPED, 20, 30, 50, 60, 70, 80, 90, 28, 91, 92};
    pmt__slot_encode(bytes + PMT_SLOT_A_OFFSET, &a);
    pmt__slot_encode(bytes + PMT_SLOT_B_OFFSET, &b);
    assert_int_equal(pmt__slot_read(&slot, &found, &source, NULL), PMT_OK);
    assert_true(found);
    assert_int_equal(slot.seq, 5);
    assert_int_equal(slot.status, PMT_STATUS_STOPPED);
    assert_int_equal(slot.peak_bytes, 90);
    assert_int_equal(slot.sys_errno, 28);
    assert_int_equal(slot.flips, 91);
    assert_int_equal(slot.rss_bytes, 92);
    bytes[PMT_SLOT_B_OFFSET + 17] ^= 1; /* half written */
    assert_int_equal(pmt__slot_read(&slot, &found, &source, NULL), PMT_OK);
    assert_int_equal(slot.seq, 4);
    assert_int_equal(slot.sys_errno, -10);
}

static void
test_location_table_forms(void **state)
{
    (void)state;
    static const uint8_t table[] = {
        0x80 | 15 << 3 | 0,                       /* no location */
        0x80 | 0 << 3 | 1,  0x11,                 /* short form: line 10 */
        0x80 | 11 << 3 | 0, 1,        2,          /* one line form: 11 */
        0x80 | 13 << 3 | 0, 5,                    /* no columns: -2 -> 9 */
        0x80 | 14 << 3 | 0, 0x40 | 0, 4, 0, 1, 1, /* long form: +128 -> 137 */
    };
    static const int64_t lines[] = {0, 10, 10, 11, 9, 137, 0};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        assert_int_equal(pmt__location_line(table, sizeof table, 10, 2 * i), lines[i]);
        assert_int_equal(pmt__location_line(table, sizeof table, 10, 2 * i + 1), lines[i]);
    }
    /* Cut short anywhere, it gives a line or none and reads nothing beyond. */
    for (size_t size = 0; size < sizeof table; size++) {
        uint8_t *copy = malloc(size + 1);
        assert_non_null(copy);
        memcpy(copy, table, size);
        int64_t line = pmt__location_line(copy, size, 10, 1000);
        assert_int_equal(line, 0);
        free(copy);
    }
    assert_int_equal(pmt__location_line(table, sizeof table, INT64_MAX, 0), 0);
    assert_int_equal(pmt__location_line(table + 2, 1, 10, 0), 0); /* no start of an entry */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_and_texts_round_trip),
        cmocka_unit_test(test_what_is_cut_short_fails_once_and_stays_at_the_end),
        cmocka_unit_test(test_numbers_of_more_than_64_bits_are_refused),
        cmocka_unit_test(test_a_count_is_no_more_than_can_follow),
        cmocka_unit_test(test_chunks_of_all_sizes_round_trip),
        cmocka_unit_test(test_payloads_are_compressed),
        cmocka_unit_test(test_a_frame_that_expands_to_more_than_it_says),
        cmocka_unit_test(test_every_bit_of_a_chunk_counts),
        cmocka_unit_test(test_header_round_trip),
        cmocka_unit_test(test_the_valid_slot_with_the_higher_seq_counts),
        cmocka_unit_test(test_location_table_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
