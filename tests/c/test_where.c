/* Where the resident memory is: the texts of /proc that nobody may trust, what memory looks like, the section from the recorder to
   the answer, and a measurement of this very process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "analyze/where.h"
#include "capture.h"
#include "platform/platform.h"
#include "record/merge.h"
#include "record/resident.h"
#include "sanitized.h"

#define MIB ((uint64_t)1 << 20)

/* --- the texts ------------------------------------------------------------------------------------------------------------- */

enum {
    AREAS_MAX = 64
};

typedef struct areas {
    pmt__area area[AREAS_MAX];
    size_t count;
} areas;

/* All areas of a text that comes in pieces of this size. */
static areas
parse(const char *text, size_t size, size_t piece)
{
    areas found = {.count = 0};
    pmt__smaps parser;
    pmt__smaps_init(&parser);
    pmt__area area;
    for (size_t from = 0; from < size; from += piece) {
        size_t n = size - from < piece ? size - from : piece;
        for (size_t at = 0, used = 0; at < n; at += used) {
            if (pmt__smaps_take(&parser, text + from + at, n - at, &used, &area)) {
                assert_in_range(found.count, 0, AREAS_MAX - 1);
                found.area[found.count++] = area;
            }
            assert_in_range(used, 1, n - at);
        }
    }
    while (pmt__smaps_end(&parser, &area)) {
        found.area[found.count++] = area;
    }
    for (size_t i = 0; i < found.count; i++) {
        const pmt__area *a = &found.area[i];
        assert_true(a->start < a->end);
        assert_true(a->rss_bytes <= a->end - a->start);
        assert_true(a->anonymous_bytes <= a->rss_bytes);
        assert_true(a->shared_bytes <= a->rss_bytes);
    }
    return found;
}

static const char smaps_text[] =
    "55d0c7a4e000-55d0c7a50000 rw-p 00002000 fe:00 9978014                    /usr/bin/a b c\n"
    "Size:                  8 kB\n"
    "Rss:                   8 kB\n"
    "Pss:                   4 kB\n"
    "Pss_Dirty:             4 kB\n"
    "Shared_Clean:          4 kB\n"
    "Shared_Dirty:          0 kB\n"
    "Private_Dirty:         4 kB\n"
    "Anonymous:             4 kB\n"
    "Swap:                 12 kB\n"
    "SwapPss:              99 kB\n"
    "VmFlags: rd wr mr mw me ac sd\n"
    "55d0c7a50000-55d0c7b50000 rw-p 00000000 00:00 0                          [heap]\n"
    "Rss:                 512 kB\n"
    "Anonymous:           512 kB\n"
    "7f9493f69000-7f9493f6a000 ---p 00000000 00:00 0 \n"
    "Rss:                   0 kB\n"
    "7f9493f6a000-7f949476a000 rw-p 00000000 00:00 0 \n"
    "Rss:                  16 kB\n"
    "7f949476a000-7f949478a000 rw-p 00000000 00:00 0                          [anon:pymemtrace]\n"
    "Rss:                  64 kB\n"
    "7f949478a000-7f949479a000 rw-s 00000000 00:01 5 /memfd:x (deleted)\n"
    "Rss:                  64 kB\n"
    "7f949479a000-7f94947aa000 rw-p 00000000 00:01 5 /memfd:x (deleted)\n"
    "7ffcda3ba000-7ffcda3db000 rw-p 00000000 00:00 0                          [stack]\n"
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    "Rss:                   0 kB";

static void
test_areas(void **state)
{
    (void)state;
    static const uint8_t kinds[] = {PMT_AREA_FILE,      PMT_AREA_HEAP,       PMT_AREA_ANONYMOUS,
                                    PMT_AREA_ANONYMOUS, PMT_AREA_ANONYMOUS,  PMT_AREA_SHARED,
                                    PMT_AREA_FILE,      PMT_AREA_MAIN_STACK, PMT_AREA_KERNEL};
    for (size_t piece = 1; piece < sizeof smaps_text; piece = piece * 3 + 1) {
        areas found = parse(smaps_text, sizeof smaps_text - 1, piece);
        assert_int_equal(found.count, sizeof kinds);
        for (size_t i = 0; i < sizeof kinds; i++) {
            assert_int_equal(found.area[i].kind, kinds[i]);
        }
        const pmt__area *file = &found.area[0];
        assert_int_equal(file->start, 0x55d0c7a4e000);
        assert_int_equal(file->end, 0x55d0c7a50000);
        assert_int_equal(file->flags, PMT_AREA_READABLE | PMT_AREA_WRITABLE);
        assert_int_equal(file->rss_bytes, 8192);
        assert_int_equal(file->pss_bytes, 4096);
        assert_int_equal(file->anonymous_bytes, 4096);
        assert_int_equal(file->shared_bytes, 4096);
        assert_int_equal(file->swap_bytes, 8192); /* no more than the area has */
        assert_int_equal(found.area[1].rss_bytes, 512 << 10);
        assert_int_equal(found.area[2].flags, 0);
        assert_true(found.area[4].flags & PMT_AREA_IS_OWN);
        assert_true(found.area[5].flags & PMT_AREA_IS_SHARED);
    }
}

static size_t
count_of(const char *text)
{
    size_t count = 0;
    for (size_t piece = 1; piece <= 7; piece++) {
        count = parse(text, strlen(text), piece).count;
    }
    return count;
}

static void
test_hostile_texts(void **state)
{
    (void)state;
    assert_int_equal(count_of("\n\n\n"), 0);
    assert_int_equal(count_of("Rss: 5 kB\n"), 0);
    assert_int_equal(count_of("1000-1000 rw-p 0 0 0\nRss: 5 kB\n"), 0);
    assert_int_equal(count_of("2000-1000 rw-p 0 0 0\nRss: 5 kB\n"), 0);
    assert_int_equal(count_of("10000000000000000-20000000000000000 rw-p 0 0 0\n"), 0);
    assert_int_equal(count_of("1000-"), 0);
    assert_int_equal(count_of("1000-2000"), 0);
    assert_int_equal(count_of("1000-2000 rw\n"), 0);
    assert_int_equal(count_of("1000-2000 rw-p"), 0);
    assert_int_equal(count_of("1000-2000 rw-p 0 0 0"), 1);
    assert_int_equal(count_of("1000-2000 rw-p 0 0 0\nRss:99999999999999999999999999999 kB\n"), 1);
    assert_int_equal(count_of("1000-2000 rw-p 0 0 0\nRss:\nRss\nR\n:\nPss: x\n"), 1);
    /* A name of any length, with anything in it but an end of line. */
    static char text[100000];
    size_t head = (size_t)snprintf(text, sizeof text, "1000-2000 r--p 0 0 1 /");
    memset(text + head, 'x', sizeof text - head);
    static const char tail[] = "\nRss: 4 kB\n3000-4000 rw-p 0 0 0";
    memcpy(text + sizeof text - sizeof tail + 1, tail, sizeof tail - 1);
    areas found = parse(text, sizeof text, 1000);
    assert_int_equal(found.count, 2);
    assert_int_equal(found.area[0].rss_bytes, 4096);
    assert_int_equal(found.area[0].kind, PMT_AREA_FILE);
}

static void
test_random_texts(void **state)
{
    (void)state;
    static const char alphabet[] = "0123456789abcdef- :\nrw-xpsRsPskB[heap]/";
    char text[2000];
    for (int round = 0; round < 3000; round++) {
        size_t size = capture_random(sizeof text);
        if (round % 2) { /* a text of the kernel's with holes in it */
            size = sizeof smaps_text - 1 < size ? sizeof smaps_text - 1 : size;
            memcpy(text, smaps_text, size);
        }
        for (size_t i = 0; i < size; i++) {
            if (round % 2 == 0 || capture_random(40) == 0) {
                text[i] = capture_random(9) == 0 ? (char)capture_random(256)
                                                 : alphabet[capture_random(sizeof alphabet - 1)];
            }
        }
        parse(text, size, 1 + capture_random(300)); /* which asserts what holds for every area */
    }
}

/* --- what memory looks like ------------------------------------------------------------------------------------------------- */

static void
test_pools(void **state)
{
    (void)state;
    struct {
        uint32_t count, padding;
        uint64_t free, next, previous;
        uint32_t arena, class, next_offset, last_offset;
    } pool = {.count = 7, .class = 3, .next_offset = 48 + 64 * 9, .last_offset = 16384 - 64};
    _Static_assert(sizeof pool == PMT_POOL_HEADER, "as pymalloc has it");
    uint32_t class, blocks;
    assert_true(pmt__pool_parse((const uint8_t *)&pool, &class, &blocks));
    assert_int_equal(class, 3);
    assert_int_equal(blocks, 7);
    pool.next_offset++;
    assert_false(pmt__pool_parse((const uint8_t *)&pool, &class, &blocks));
    pool.next_offset--;
    pool.count = 16384 / 64;
    assert_false(pmt__pool_parse((const uint8_t *)&pool, &class, &blocks));
    pool.count = 7;
    pool.class = 0xffffffff;
    assert_false(pmt__pool_parse((const uint8_t *)&pool, &class, &blocks));
    memset(&pool, 0, sizeof pool);
    assert_false(pmt__pool_parse((const uint8_t *)&pool, &class, &blocks));
}

static void
test_chunks(void **state)
{
    (void)state;
    uint64_t page[512] = {0, 1 * MIB | 2};
    size_t block;
    assert_int_equal(pmt__chunk_parse((const uint8_t *)page, 16, &block), 1 * MIB);
    assert_int_equal(block, 16);
    page[1] = (1 * MIB - 16) | 2; /* since 2.43 */
    assert_int_equal(pmt__chunk_parse((const uint8_t *)page, 16, &block), 1 * MIB);
    page[1] = (1 * MIB + 16) | 2; /* not whole pages */
    assert_int_equal(pmt__chunk_parse((const uint8_t *)page, sizeof page, &block), 0);
    page[1] = 1 * MIB | 3; /* a block in a heap */
    assert_int_equal(pmt__chunk_parse((const uint8_t *)page, sizeof page, &block), 0);
    page[1] = 4096 | 2; /* too small to be believed */
    assert_int_equal(pmt__chunk_parse((const uint8_t *)page, sizeof page, &block), 0);
    page[1] = UINT64_MAX - 5;
    assert_int_equal(pmt__chunk_parse((const uint8_t *)page, sizeof page, &block), 0);
    page[1] = 0;
    page[14] = 112; /* an alignment of 128: the header says how far inside the mapping it is */
    page[15] = (1 * MIB - 112) | 2;
    assert_int_equal(pmt__chunk_parse((const uint8_t *)page, sizeof page, &block), 1 * MIB);
    assert_int_equal(block, 128);
}

/* The notes against an array of them. */
static void
test_notes(void **state)
{
    (void)state;
    enum {
        PAGES = 3000
    };
    const uintptr_t base = ((uintptr_t)5 << 40) + ((uintptr_t)1 << 30) - PAGES / 2 * 4096;
    static uint8_t uses[PAGES];
    for (int round = 0; round < 2000; round++) {
        size_t from = capture_random(PAGES), n = 1 + capture_random(round % 10 == 0 ? PAGES : 70);
        n = n < PAGES - from ? n : PAGES - from;
        pmt__pages_use use = (pmt__pages_use)capture_random(4);
        pmt__pages_note((const void *)(base + from * 4096), n * 4096, use);
        memset(uses + from, (int)use, n);
        size_t page = capture_random(PAGES), end = page;
        while (end < PAGES && uses[end] == uses[page]) {
            end++;
        }
        uintptr_t run_end;
        assert_int_equal(pmt__pages_use_at(base + page * 4096, base + PAGES * 4096, &run_end),
                         uses[page]);
        assert_int_equal(run_end, base + end * 4096);
    }
    pmt__pages_note((const void *)base, PAGES * 4096, PMT_PAGES_UNKNOWN);
    pmt__pages_note((const void *)(UINTPTR_MAX - 8191), 4096, PMT_PAGES_OWN); /* beyond all */
}

/* --- the section ------------------------------------------------------------------------------------------------------------- */

static pmt__cursor
body_cursor(const uint8_t *bytes, size_t size, pmt_error *err)
{
    const pmt__chunk chunk = {.payload = bytes, .size = size};
    pmt__cursor in;
    pmt__cursor_init(&in, &chunk, "RESIDENT", err);
    return in;
}

static void
test_round_trip(void **state)
{
    (void)state;
    pmt__resident resident = {.value = {0}};
    for (unsigned i = 1; i < PMT_RESIDENT_LIMIT; i++) {
        resident.value[i] = i % 7 == 0 ? 0 : (uint64_t)i << (i % 60);
    }
    resident.classes[0].pools = 3;
    resident.classes[0].blocks = 1000;
    resident.classes[31].pools = UINT32_MAX;
    pmt__buffer body;
    pmt__buffer_init(&body);
    pmt__resident_put(&body, &resident);
    assert_false(body.failed);
    pmt__moment moment;
    pmt_error err = PMT_ERROR_INIT;
    pmt__cursor in = body_cursor(body.data, body.len, &err);
    assert_int_equal(pmt__moment_get(&moment, &in), PMT_OK);
    assert_ptr_equal(in.at, in.end);
    assert_memory_equal(moment.value, resident.value, sizeof moment.value);
    assert_int_equal(moment.class_count, 2);
    assert_int_equal(moment.classes[0].size_bytes, 16);
    assert_int_equal(moment.classes[0].blocks, 1000);
    assert_int_equal(moment.classes[1].size_bytes, 512);
    assert_int_equal(moment.classes[1].pools, UINT32_MAX);
    for (size_t size = 0; size < body.len; size++) { /* cut short anywhere */
        in = body_cursor(body.data, size, &err);
        assert_true(pmt__moment_get(&moment, &in) < 0);
    }
    pmt__buffer_dispose(&body);
}

static void
test_moments_of_a_capture(void **state)
{
    (void)state;
    pmt__buffer file;
    capture_build(&file);
    pmt_reader *reader;
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt_reader_open_bytes(&reader, file.data, file.len, NULL, &err), PMT_OK);
    assert_int_equal(pmt__where_count(reader), CAPTURE_CUTS / 3);
    /* Cut 10 is that of the end: the moment before it counts, the one behind does not. */
    static const struct {
        bool has_at;
        uint64_t at_ns, number;
    } asked[] = {
        {false, 0, 9},         {true, 0, 3},
        {true, 3 * SECOND, 3}, {true, 6 * SECOND - 1, 3},
        {true, 6 * SECOND, 6}, {true, UINT64_MAX, 12},
    };
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        pmt__where where;
        assert_int_equal(pmt__where_at(&where, reader, asked[i].has_at, asked[i].at_ns, &err),
                         PMT_OK);
        assert_int_equal(where.t_ns, asked[i].number * SECOND);
        assert_int_equal(where.rss_bytes, 1000 * asked[i].number + PMT_RESIDENT_RSS);
    }
    pmt_reader_destroy(reader);
    pmt__buffer_dispose(&file);
}

static void
test_merging_keeps_the_last(void **state)
{
    (void)state;
    pmt__merge merge;
    pmt__merge_init(&merge, pmt_allocator_default());
    pmt__buffer payload;
    pmt__buffer_init(&payload);
    memset(capture_live, 0, sizeof capture_live);
    uint64_t head[PMT_CUT_HEAD];
    pmt__merge_begin(&merge, 0, false);
    capture_names(&payload);
    for (uint64_t number = 1; number <= 8; number++) { /* 3 and 6 have one */
        capture_resident(&payload, number);
        capture_cut(&payload, number);
        assert_int_equal(pmt__merge_scan(&merge, payload.data, payload.len, head), 0);
        assert_int_equal(pmt__merge_add(&merge, payload.data, payload.len), 0);
        pmt__buffer_clear(&payload);
    }
    assert_int_equal(pmt__merge_finish(&merge, &payload), 0);
    pmt_error err = PMT_ERROR_INIT;
    pmt__cursor in = body_cursor(payload.data, payload.len, &err), body;
    int found = 0;
    while (in.at < in.end) {
        uint8_t kind = pmt__get_u8(&in);
        pmt__cursor_take(&in, &body, pmt__get_varint(&in), "a section");
        if (kind == PMT_SECTION_RESIDENT) {
            pmt__moment moment;
            assert_int_equal(pmt__moment_get(&moment, &body), PMT_OK);
            assert_int_equal(moment.value[PMT_RESIDENT_T], 6 * SECOND);
            found++;
        }
    }
    assert_int_equal(found, 1);
    pmt__buffer_clear(&payload);
    pmt__merge_begin(&merge, 9, false); /* nothing is carried over into a window without one */
    capture_cut(&payload, 9);
    assert_int_equal(pmt__merge_add(&merge, payload.data, payload.len), 0);
    pmt__buffer_clear(&payload);
    assert_int_equal(pmt__merge_finish(&merge, &payload), 0);
    assert_int_not_equal(payload.data[0], PMT_SECTION_RESIDENT);
    pmt__buffer_dispose(&payload);
    pmt__merge_dispose(&merge);
}

/* --- the answer -------------------------------------------------------------------------------------------------------------- */

static uint64_t
part_of(const pmt__where *where, const char *name)
{
    for (size_t i = 0; i < where->part_count; i++) {
        if (strcmp(where->parts[i].name, name) == 0) {
            return where->parts[i].bytes;
        }
    }
    return 0;
}

static void
assert_adds_up(const pmt__where *where)
{
    uint64_t sum = where->unattributed_bytes;
    for (size_t i = 0; i < where->part_count; i++) {
        assert_true(where->parts[i].bytes > 0);
        assert_true(i == 0 || where->parts[i].bytes <= where->parts[i - 1].bytes
                    || where->unattributed_bytes == 0);
        sum += where->parts[i].bytes;
    }
    assert_int_equal(sum, where->rss_bytes);
}

static bool
advises(const pmt__where *where, const char *word)
{
    for (size_t i = 0; i < where->advice_count; i++) {
        if (strstr(where->advice[i], word) != NULL) {
            return true;
        }
    }
    return false;
}

static void
test_parts(void **state)
{
    (void)state;
    pmt__moment m = {.value = {0}};
    uint64_t *v = m.value;
    v[PMT_RESIDENT_RSS] = 1000 * MIB;
    v[PMT_RESIDENT_ARENAS] = 400 * MIB;
    v[PMT_RESIDENT_POOLS_USED] = 150 * MIB;
    v[PMT_RESIDENT_LIVE + 2 * PMT_DOMAIN_OBJ] = 100 * MIB;
    v[PMT_RESIDENT_LIVE + 2 * PMT_DOMAIN_MEM] = 20 * MIB;
    v[PMT_RESIDENT_HEAP] = 200 * MIB;
    v[PMT_RESIDENT_HEAPS] = 200 * MIB;
    v[PMT_RESIDENT_HEAPS_ARENAS] = 16;
    v[PMT_RESIDENT_MALLOC_USED] = 260 * MIB;
    v[PMT_RESIDENT_CHUNKS] = 90 * MIB;
    v[PMT_RESIDENT_CHUNKS_REQUESTED] = 80 * MIB;
    v[PMT_RESIDENT_LIVE + 2 * PMT_DOMAIN_OBJ + 1] = 130 * MIB;
    v[PMT_RESIDENT_LIVE + 2 * PMT_DOMAIN_MALLOC] = 50 * MIB;
    v[PMT_RESIDENT_LIVE + 2 * PMT_DOMAIN_MALLOC + 1] = 100 * MIB;
    v[PMT_RESIDENT_LIVE + 2 * PMT_DOMAIN_TRACK + 1] = 70 * MIB; /* counted elsewhere as well */
    v[PMT_RESIDENT_FILES] = 60 * MIB;
    v[PMT_RESIDENT_UNKNOWN] = 50 * MIB;
    v[PMT_RESIDENT_POOLS] = 10000;
    m.classes[0].size_bytes = 64;
    m.classes[0].pools = 10000;
    m.classes[0].blocks = 10;
    m.class_count = 1;
    pmt__where where;
    pmt__where_of(&where, &m, "pymalloc");
    assert_adds_up(&where);
    assert_int_equal(part_of(&where, "python objects"), 100 * MIB);
    assert_int_equal(part_of(&where, "python buffers"), 20 * MIB);
    assert_int_equal(part_of(&where, "pymalloc rounding"), 30 * MIB);
    assert_int_equal(part_of(&where, "pymalloc free"), 250 * MIB);
    assert_int_equal(part_of(&where, "native heap blocks"), 200 * MIB); /* 280 less 80 elsewhere */
    assert_int_equal(part_of(&where, "native heap other"), 60 * MIB);
    assert_int_equal(part_of(&where, "native heap free"), 140 * MIB);
    assert_int_equal(part_of(&where, "large native blocks"), 90 * MIB);
    assert_int_equal(where.unattributed_bytes, 50 * MIB);
    assert_int_equal(where.requested_bytes, 400 * MIB);
    assert_string_equal(where.parts[0].name, "pymalloc free");
    assert_string_equal(where.dominating, "25.0 % of 1000.0 MiB: pymalloc free (250.0 MiB)");
    assert_non_null(strstr(where.parts[0].detail, "for blocks of 64 B"));
    assert_true(advises(&where, "malloc_trim"));
    assert_true(advises(&where, "MALLOC_ARENA_MAX"));
    assert_true(advises(&where, "pymalloc"));
    assert_false(advises(&where, "file pages"));

    pmt__where_of(&where, &m, "malloc"); /* all small blocks are in the heap then */
    assert_adds_up(&where);
    assert_int_equal(part_of(&where, "native heap blocks"), 320 * MIB);
    assert_int_equal(part_of(&where, "native heap other"), 0);
    assert_int_equal(part_of(&where, "native heap free"), 80 * MIB);

    v[PMT_RESIDENT_POOLS] = 0; /* the pools could not be read: what is free is not known */
    v[PMT_RESIDENT_POOLS_USED] = 0;
    pmt__where_of(&where, &m, "pymalloc");
    assert_adds_up(&where);
    assert_int_equal(part_of(&where, "python objects"), 100 * MIB);
    assert_int_equal(part_of(&where, "pymalloc free"), 0);
    assert_int_equal(part_of(&where, "pymalloc rounding"), 280 * MIB);
    assert_false(advises(&where, "pymalloc"));

    v[PMT_RESIDENT_MALLOC_USED] = 0; /* the C library does not tell: nothing is called free */
    pmt__where_of(&where, &m, "pymalloc");
    assert_adds_up(&where);
    assert_int_equal(part_of(&where, "native heap free"), 0);
    assert_int_equal(part_of(&where, "native heap other"), 200 * MIB);
    assert_false(advises(&where, "malloc_trim"));
}

static void
test_no_figures_break_it(void **state)
{
    (void)state;
    pmt__where where;
    pmt__moment m;
    memset(&m, 0, sizeof m);
    pmt__where_of(&where, &m, "");
    assert_int_equal(where.part_count, 0);
    assert_adds_up(&where);
    memset(&m, 0xff, sizeof m);
    m.class_count = PMT_RESIDENT_CLASSES;
    pmt__where_of(&where, &m, "pymalloc");
    assert_adds_up(&where);
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < PMT_RESIDENT_LIMIT; i++) {
            m.value[i] = capture_random(UINT64_MAX) >> capture_random(64);
        }
        for (size_t i = 0; i < PMT_RESIDENT_CLASSES; i++) {
            m.classes[i].size_bytes = capture_random(UINT64_MAX) >> capture_random(64);
            m.classes[i].pools = capture_random(UINT64_MAX) >> capture_random(64);
            m.classes[i].blocks = capture_random(UINT64_MAX) >> capture_random(64);
        }
        m.class_count = capture_random(PMT_RESIDENT_CLASSES + 1);
        pmt__where_of(&where, &m, round % 2 ? "pymalloc" : "malloc");
        assert_adds_up(&where);
    }
}

/* --- this process ------------------------------------------------------------------------------------------------------------- */

static pmt__measure measure;

static const uint64_t *
measured(void)
{
    assert_int_equal(pmt__measure_run(&measure, NULL), 0);
    return measure.result.value;
}

static void
measure_begin(uint64_t before[PMT_RESIDENT_LIMIT])
{
    if (SANITIZED) {
        skip();
    }
    pmt__measure_init(&measure);
    memcpy(before, measured(), PMT_RESIDENT_LIMIT * sizeof *before);
}

static void
measure_end(void)
{
    pmt__measure_dispose(&measure);
    pmt__process_files_close();
}

static void
assert_grew(uint64_t before, uint64_t after, uint64_t by)
{
    assert_in_range(after, before + by - by / 30, before + by + by / 30);
}

/* Not memset: a compiler may leave out what nobody reads. */
static void *
touch(void *memory, size_t size)
{
    for (size_t i = 0; i < size; i += 512) {
        ((volatile char *)memory)[i] = 1;
    }
    return memory;
}

static void *
thread_with_a_stack(void *arg)
{
    char stack[MIB];
    touch(stack, sizeof stack);
    void *block = touch(malloc(100000), 100000); /* in a heap of its own */
    pthread_barrier_wait(arg);
    pthread_barrier_wait(arg);
    free(block);
    return NULL;
}

static void
test_measuring(void **state)
{
    (void)state;
    static uint64_t before[PMT_RESIDENT_LIMIT];
    measure_begin(before);
    assert_in_range(before[PMT_RESIDENT_RSS], MIB, 1000 * MIB);
    assert_true(before[PMT_RESIDENT_FILES] > 0);
    assert_true(before[PMT_RESIDENT_MAIN_STACK] > 0);
    assert_int_equal(before[PMT_RESIDENT_BY_PAGES], 1);

    char *large = malloc(40 * MIB), *aligned = aligned_alloc(4096, 10 * MIB);
    char *touched_in_part = calloc(1, 30 * MIB), *own = pmt__pages_map(20 * MIB);
    char *other = mmap(NULL, 16 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *shared = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    touch(large, 40 * MIB);
    touch(aligned, 10 * MIB);
    madvise(aligned + MIB, MIB, MADV_HUGEPAGE); /* which makes three areas of it */
    touch(touched_in_part, 5 * MIB);
    touch(own, 20 * MIB);
    touch(other, 16 * MIB);
    touch(shared, 8 * MIB);
    enum {
        SMALL = 10000
    };
    static void *small[SMALL];
    for (int i = 0; i < SMALL; i++) {
        small[i] = touch(malloc(1000), 1000);
    }
    pthread_t thread;
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&thread, NULL, thread_with_a_stack, &barrier);
    pthread_barrier_wait(&barrier);

    static uint64_t after[PMT_RESIDENT_LIMIT];
    memcpy(after, measured(), sizeof after);
    assert_grew(before[PMT_RESIDENT_CHUNKS], after[PMT_RESIDENT_CHUNKS], 55 * MIB);
    assert_grew(before[PMT_RESIDENT_CHUNKS_MAPPED], after[PMT_RESIDENT_CHUNKS_MAPPED], 80 * MIB);
    assert_int_equal(before[PMT_RESIDENT_CHUNKS_COUNT] + 3, after[PMT_RESIDENT_CHUNKS_COUNT]);
    assert_grew(before[PMT_RESIDENT_OWN], after[PMT_RESIDENT_OWN], 20 * MIB);
    assert_grew(before[PMT_RESIDENT_UNKNOWN], after[PMT_RESIDENT_UNKNOWN], 16 * MIB);
    assert_grew(before[PMT_RESIDENT_SHARED_MEMORY], after[PMT_RESIDENT_SHARED_MEMORY], 8 * MIB);
    assert_grew(before[PMT_RESIDENT_HEAP], after[PMT_RESIDENT_HEAP], SMALL * 1008);
    assert_int_equal(after[PMT_RESIDENT_STACKS_COUNT], 1);
    assert_in_range(after[PMT_RESIDENT_STACKS], MIB, MIB + MIB / 8);
    assert_int_equal(after[PMT_RESIDENT_HEAPS_ARENAS], 1);
    assert_in_range(after[PMT_RESIDENT_HEAPS], 100000, 400000);
    /* Mappings that the recorder knows are no longer unknown. */
    pmt__extent range = {(uintptr_t)other, (uintptr_t)other + 16 * MIB};
    measure.ranges = &range;
    measure.range_count = 1;
    const uint64_t *ranged = measured();
    assert_int_equal(ranged[PMT_RESIDENT_MAPPINGS], 16 * MIB);
    assert_in_range(ranged[PMT_RESIDENT_UNKNOWN], 0, before[PMT_RESIDENT_UNKNOWN] + MIB);
    measure.ranges = NULL;
    measure.range_count = 0;

    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    for (int i = 0; i < SMALL; i += 2) { /* holes, which the C library counts as free */
        free(small[i]);
    }
    assert_grew(0, measured()[PMT_RESIDENT_MALLOC_FREE] - after[PMT_RESIDENT_MALLOC_FREE],
                SMALL / 2 * 1008);
    for (int i = 1; i < SMALL; i += 2) {
        free(small[i]);
    }
    free(large);
    free(aligned);
    free(touched_in_part);
    pmt__pages_unmap(own, 20 * MIB);
    munmap(other, 16 * MIB);
    munmap(shared, 8 * MIB);
    assert_in_range(measured()[PMT_RESIDENT_OWN], 0, before[PMT_RESIDENT_OWN] + MIB);
    measure_end();
}

/* What looks like the beginning of something must not mislead: a size that reaches beyond the area, a header in unreadable memory. */
static void
test_misleading_memory(void **state)
{
    (void)state;
    static uint64_t before[PMT_RESIDENT_LIMIT];
    measure_begin(before);
    char *memory = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; at < 4 * MIB; at += 4096) {
        const uint64_t header[] = {0, ((uint64_t)1 << 46) | 2, UINT64_MAX, UINT64_MAX};
        memcpy(memory + at, header, sizeof header);
    }
    mprotect(memory + 2 * MIB, MIB, PROT_NONE);
    const uint64_t *after = measured();
    assert_int_equal(before[PMT_RESIDENT_CHUNKS_COUNT], after[PMT_RESIDENT_CHUNKS_COUNT]);
    assert_grew(before[PMT_RESIDENT_UNKNOWN], after[PMT_RESIDENT_UNKNOWN], 4 * MIB);
    munmap(memory, 4 * MIB);
    measure_end();
}

static void
test_a_measurement_can_be_stopped(void **state)
{
    (void)state;
    const uint32_t stop = 1;
    pmt__measure_init(&measure);
    assert_int_equal(pmt__measure_run(&measure, &stop), -ECANCELED);
    measure_end();
}

static void
test_from_outside(void **state)
{
    (void)state;
    pmt__where where;
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt__where_process(&where, pmt__process_id(), &err), PMT_OK);
    assert_true(where.from_outside);
    assert_int_equal(where.unattributed_bytes, 0);
    assert_true(part_of(&where, "file pages") > 0);
    assert_int_equal(pmt__where_process(&where, 0x7fffffff, &err), PMT_ERR_IO);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_areas),
        cmocka_unit_test(test_hostile_texts),
        cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_notes),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_moments_of_a_capture),
        cmocka_unit_test(test_merging_keeps_the_last),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_no_figures_break_it),
        cmocka_unit_test(test_measuring),
        cmocka_unit_test(test_misleading_memory),
        cmocka_unit_test(test_a_measurement_can_be_stopped),
        cmocka_unit_test(test_from_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
