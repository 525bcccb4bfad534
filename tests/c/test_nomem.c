/* Memory that is refused to the recorder: for every n, the n-th request of a whole recording fails, and all after it in a second
   series. The program must go on, and what stands in the capture must add up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "made_up_frames.h"
#include "platform/platform.h"
#include "pymemtrace/reader.h"
#include "record/resident.h"
#include "recording.h"
#include "store/store.h"

enum {
    CODES = 12,
    DEPTH = 10,
    BLOCKS = 4096,
    FLUSHES = 6,
    EVENTS = 12000 /* between two flushes */
};

/* --- the requests (linked with --wrap) -------------------------------------------------------------------- */

static int left; /* atomic: requests that are granted; the next one fails */
static int refused, for_ever;

static int
granted(void)
{
    int now = __atomic_sub_fetch(&left, 1, __ATOMIC_RELAXED);
    int grant = for_ever ? now >= 0 : now != -1;
    if (!grant) {
        __atomic_store_n(&refused, 1, __ATOMIC_RELAXED);
    }
    return grant;
}

void *__real_pmt__pages_map(size_t size_bytes);
void *__wrap_pmt__pages_map(size_t size_bytes);
void *
__wrap_pmt__pages_map(size_t size_bytes)
{
    return granted() ? __real_pmt__pages_map(size_bytes) : NULL;
}

void *__real_pmt__pages_map_sparse(size_t size_bytes);
void *__wrap_pmt__pages_map_sparse(size_t size_bytes);
void *
__wrap_pmt__pages_map_sparse(size_t size_bytes)
{
    return granted() ? __real_pmt__pages_map_sparse(size_bytes) : NULL;
}

void *__real_pmt__pages_resize(void *pages, size_t from_bytes, size_t to_bytes);
void *__wrap_pmt__pages_resize(void *pages, size_t from_bytes, size_t to_bytes);
void *
__wrap_pmt__pages_resize(void *pages, size_t from_bytes, size_t to_bytes)
{
    /* giving back always works */
    return to_bytes < from_bytes || granted()
               ? __real_pmt__pages_resize(pages, from_bytes, to_bytes)
               : NULL;
}

/* Under ThreadSanitizer, whose shadow is gigabytes of mappings, taking the resident memory apart takes a second, and here it would be done
   hundreds of times: test_where.c does it there. */
#if defined(__SANITIZE_THREAD__)
#define MEASURES 0
#elif defined(__has_feature)
#define MEASURES !__has_feature(thread_sanitizer)
#else
#define MEASURES 1
#endif
int __real_pmt__measure_run(pmt__measure *self, const uint32_t *stop);
int __wrap_pmt__measure_run(pmt__measure *self, const uint32_t *stop);
int
__wrap_pmt__measure_run(pmt__measure *self, const uint32_t *stop)
{
    return MEASURES ? __real_pmt__measure_run(self, stop) : -ECANCELED;
}

/* --- the program -------------------------------------------------------------------------------------------- */

static code codes[CODES];
static test_frame frames[DEPTH];
static _Alignas(16) char arena[BLOCKS][64]; /* addresses only */

/* As event_alloc_nopy and event_free_nopy in src/cpython/hooks_impl.h. */
static void
toggle(pmt__thread *thread, int i, uint64_t size, test_frame *top)
{
    if (pmt__enter_nopy() == PMT_GATE_CLOSED) {
        return;
    }
    uint32_t *entry = pmt__shadow_find(arena[i]);
    uint32_t id = entry == NULL ? 0 : *entry;
    if (id != 0) {
        *entry = 0;
        pmt__untrack_id(arena[i], id);
    } else {
        pmt__t.thread = thread;
        pmt__track(arena[i], size, PMT_DOMAIN_OBJ, thread, top);
    }
    pmt__leave_nopy();
}

static void
program(unsigned *seed, pmt__thread *thread)
{
    for (int n = 0; n < EVENTS; n++) {
        *seed = *seed * 1103515245u + 12345u;
        unsigned random = *seed >> 8;
        int depth = 1 + (int)(random % DEPTH);
        for (int d = depth - 1 - (int)(random / 64 % 3); d < depth; d++) {
            if (d >= 0) {
                code *running = &codes[(random >> d) % CODES];
                frames[d] = (test_frame){.previous = d > 0 ? &frames[d - 1] : NULL,
                                         .running = running,
                                         .instr = (uint64_t)(uintptr_t)running->bytecode + 2
                                                  + random / 4096 % 100 * 2};
            }
        }
        for (int d = 0; d < depth; d++) { /* what has not been called yet */
            if (frames[d].running == NULL) {
                frames[d] = (test_frame){.previous = d > 0 ? &frames[d - 1] : NULL,
                                         .running = &codes[0],
                                         .instr = (uint64_t)(uintptr_t)codes[0].bytecode + 2};
            }
        }
        toggle(thread, (int)(random % BLOCKS), 1 + random % 700, &frames[depth - 1]);
    }
}

static pmt__thread *
thread_of_program(void)
{
    if (pmt__enter_nopy() == PMT_GATE_CLOSED) {
        return NULL;
    }
    pmt__thread *thread = pmt__thread_get_nopy(codes, 1, 1, 1);
    pmt__leave_nopy();
    return thread;
}

/* Records it all; n: requests that are granted. Returns whether a recording began. */
static int
recorded(const char *path, int n)
{
    pmt__buffer facts;
    pmt__record_options options = recording_options(path, &facts);
    pmt_error err = PMT_ERROR_INIT;
    memset(frames, 0, sizeof frames);
    refused = 0;
    left = n;
    int rc = pmt__record_start(&options, &source, &err);
    if (rc == 0) {
        pmt__record_enable();
        pmt__thread *thread = thread_of_program();
        unsigned seed = 1;
        for (int i = 0; i < FLUSHES && thread != NULL; i++) {
            program(&seed, thread);
            rc = pmt__record_flush(0);
            assert_true(rc == 0 || rc == PMT_ERR_NOMEM);
        }
        pmt__record_stop(PMT_END_NORMAL);
    } else {
        assert_true(refused);
        assert_int_equal(rc, PMT_ERR_NOMEM);
    }
    assert_false(pmt__record_active());
    pmt__buffer_dispose(&facts);
    return rc == 0;
}

/* Every cut is the sum of the rows up to it. */
static void
check(const char *path)
{
    pmt_reader *reader = NULL;
    pmt_error err = PMT_ERROR_INIT;
    if (pmt_reader_open(&reader, path, NULL, &err) < 0) {
        fail_msg("%s", err.message);
    }
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    if (capture.damaged) {
        fail_msg("damaged: %s", capture.torn);
    }
    if (!refused) {
        assert_int_equal(capture.ended, PMT_ENDED_NORMAL);
        assert_int_equal(pmt_reader_cut_count(reader), FLUSHES + 1);
    }
    uint64_t allocs = 0, frees = 0;
    for (size_t i = 0; i < pmt_reader_cut_count(reader); i++) {
        pmt__row_walk walk;
        pmt__row row;
        pmt__rows_begin(&walk, reader, i, NULL);
        while (pmt__rows_next(&walk, &row)) {
            allocs += row.allocs;
            frees += row.frees;
        }
        const pmt_cut *cut = pmt_reader_cut(reader, i);
        assert_int_equal(cut->allocations, allocs);
        assert_int_equal(cut->frees, frees);
        assert_int_equal(cut->live_blocks, allocs - frees);
    }
    pmt_reader_destroy(reader);
}

static void
series(int until_the_end)
{
    char path[RECORDING_PATH];
    recording_file(path);
    for (int i = 0; i < CODES; i++) {
        snprintf(codes[i].name, sizeof codes[i].name, "function_%d", i);
    }
    for_ever = until_the_end;
    int n = 0, begun = 0;
    do {
        if (recorded(path, n)) {
            begun++;
            check(path);
        }
        n++;
    } while (refused);
    assert_true(begun >= 5); /* else all requests came before the start, and nothing was tested */
    unlink(path);
}

static void
one_request_fails(void **state)
{
    (void)state;
    series(0);
}

static void
all_requests_from_one_on_fail(void **state)
{
    (void)state;
    series(1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request_fails),
        cmocka_unit_test(all_requests_from_one_on_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
