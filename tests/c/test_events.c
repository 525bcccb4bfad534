/* The coding of the event log, both ways. The log of the recorder: test_record.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/encode.h"
#include "format/events_get.h"

enum {
    EVENTS = 20000,
    SITES = 300
};

typedef struct made_up {
    unsigned kind;
    unsigned control;
    uint32_t site;
    uint64_t address;
    uint64_t size;
} made_up;

static made_up events[EVENTS];

static int
is_sizeless(uint32_t site)
{
    return site % 3 == 0;
}

static uint64_t
random_u64(void)
{
    return (uint64_t)rand() << 40 ^ (uint64_t)rand() << 20 ^ (uint64_t)rand();
}

/* Few sites or many, near addresses or any, pairs in between. */
static size_t
make_up(uint8_t *out)
{
    uint8_t *at = out;
    static pmt__event_cache cache;
    memset(&cache, 0, sizeof cache);
    int pair = 0;
    unsigned control = 0;
    for (int i = 0; i < EVENTS; i++) {
        made_up *e = &events[i];
        uint32_t sites = i / 1000 % 2 == 0 ? 20 : SITES;
        *e = (made_up){.kind = (unsigned)rand() % 2, .site = 1 + (uint32_t)rand() % sites};
        e->address = i / 500 % 2 == 0 ? 0x7f0000000000u + (uint64_t)(rand() % 4096) * 16
                                      : random_u64() & ~(uint64_t)15;
        e->size = is_sizeless(e->site) ? (i % 7 == 0 ? random_u64() >> 1 : 4096) : 0;
        if (pair == 0 && i + 1 < EVENTS && rand() % 9 == 0) {
            pair = 2;
            control = 1 + (unsigned)rand() % 2;
            at = pmt__event_put_control(at, control);
        }
        if (pair > 0) {
            e->control = control;
            e->kind = pair == 2 ? PMT_EVENT_FREE : PMT_EVENT_ALLOC;
            pair--;
        }
        at = pmt__event_put(&cache, at, e->kind, e->site, e->address);
        if (e->kind == PMT_EVENT_ALLOC && is_sizeless(e->site)) {
            at = pmt__varint_put(at, e->size);
        }
    }
    return (size_t)(at - out);
}

static pmt__cursor
cursor_of(const uint8_t *bytes, size_t size, pmt_error *err)
{
    const pmt__chunk chunk = {"EVTS", 0, 0, bytes, size, 1};
    pmt__cursor in;
    pmt__cursor_init(&in, &chunk, "a test", err);
    return in;
}

static uint8_t bytes[EVENTS * (PMT_EVENT_BYTES_MAX + PMT_EVENT_CONTROL_BYTES)];

static void
test_events_round_trip(void **state)
{
    (void)state;
    srand(4);
    for (int round = 0; round < 5; round++) {
        size_t size = make_up(bytes);
        pmt_error err = PMT_ERROR_INIT;
        pmt__cursor in = cursor_of(bytes, size, &err);
        static pmt__event_decoder decoder;
        memset(&decoder, 0, sizeof decoder);
        for (int i = 0; i < EVENTS; i++) {
            pmt__raw_event event;
            assert_true(pmt__event_get(&decoder, &in, SITES + 1, &event));
            assert_int_equal(event.kind, events[i].kind);
            assert_int_equal(event.control, events[i].control);
            assert_int_equal(event.site, events[i].site);
            assert_true(event.address == events[i].address);
            if (event.kind == PMT_EVENT_ALLOC && is_sizeless(event.site)) {
                assert_true(pmt__get_varint(&in) == events[i].size);
            }
        }
        assert_int_equal(decoder.pair_at, 0);
        assert_ptr_equal(in.at, in.end);
        assert_int_equal(in.code, PMT_OK);
    }
}

static void
test_addresses_are_known_to_16_bytes(void **state)
{
    (void)state;
    pmt__event_cache cache = {0};
    const uint8_t *end = pmt__event_put(&cache, bytes, PMT_EVENT_ALLOC, 1, 0x1234567);
    pmt__event_decoder decoder = {0};
    pmt__cursor in = cursor_of(bytes, (size_t)(end - bytes), NULL);
    pmt__raw_event event;
    assert_true(pmt__event_get(&decoder, &in, 2, &event));
    assert_true(event.address == 0x1234560);
}

/* What the next event of these bytes is: 1 an event, 0 refused. */
static int
reads(const uint8_t *data, size_t size, int count)
{
    pmt_error err = PMT_ERROR_INIT;
    pmt__cursor in = cursor_of(data, size, &err);
    pmt__event_decoder decoder = {0};
    pmt__raw_event event;
    int all = 1;
    for (int i = 0; i < count && all; i++) {
        all = pmt__event_get(&decoder, &in, 10, &event);
    }
    assert_int_equal(all, in.code == PMT_OK);
    assert_int_equal(all, err.message[0] == '\0');
    return all;
}

#define READS(count, ...) \
    reads((const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]){__VA_ARGS__}, count)

static void
test_what_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_true(READS(1, 0x85, 9, 2));                       /* site 9 */
    assert_false(READS(1, 0x85, 10, 2));                     /* site 10 of 9 */
    assert_false(READS(1, 0x85, 9));                         /* no place */
    assert_false(READS(1, 0x05, 2));                         /* the slot has no site */
    assert_false(READS(1, 0xc1, 0, 2));                      /* a control of kind 3 */
    assert_true(READS(2, 0x81, 0, 0xc5, 9, 2, 0x85, 8, 2));  /* realloc */
    assert_false(READS(2, 0x81, 0, 0x85, 9, 2, 0xc5, 8, 2)); /* the wrong way round */
    assert_false(READS(2, 0x81, 0, 0xc5, 9, 2, 0xc5, 8, 2)); /* two frees */
    assert_false(READS(1, 0x81, 0, 0x82, 0, 0xc5, 9, 2));    /* a control within a control */
    assert_true(READS(1, 0x89, 0, 3, 1, 2, 3, 0x85, 9, 2));  /* one that is not known: passed */
    assert_false(READS(1, 0x89, 0, 200, 1, 2, 3, 0x85, 9, 2));
    assert_false(READS(1, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 2));
}

static int
head_reads(const uint64_t *numbers, size_t rest)
{
    pmt__buffer buffer;
    pmt__buffer_init(&buffer);
    for (int i = 0; i < 4; i++) {
        pmt__buffer_put_varint(&buffer, numbers[i]);
    }
    static const uint8_t zeros[16];
    pmt__buffer_put(&buffer, zeros, rest);
    pmt__cursor in = cursor_of(buffer.data, buffer.len, NULL);
    pmt__event_head head;
    pmt__event_head_get(&in, &head);
    pmt__buffer_dispose(&buffer);
    return in.code == PMT_OK;
}

static void
test_heads_that_cannot_be_are_refused(void **state)
{
    (void)state;
    assert_true(head_reads((const uint64_t[]){7, 3, 100, 5}, 6));
    assert_false(head_reads((const uint64_t[]){7, 4, 100, 5}, 6)); /* two bytes are one event */
    assert_false(head_reads((const uint64_t[]){UINT64_MAX, 1, 0, 0}, 6));
    assert_false(head_reads((const uint64_t[]){0, UINT64_MAX, 0, 0}, 6));
    assert_false(head_reads((const uint64_t[]){0, 1, UINT64_MAX, 0}, 6));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_round_trip),
        cmocka_unit_test(test_addresses_are_known_to_16_bytes),
        cmocka_unit_test(test_what_cannot_be_is_refused),
        cmocka_unit_test(test_heads_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
