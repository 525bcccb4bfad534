/* The gate, the queue and the writer with real threads: one "program" thread that makes events as a hook does, threads "without
   the GIL", and cuts at full speed. Run under the thread sanitizer as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "made_up_frames.h"
#include "platform/platform.h"
#include "recording.h"

enum {
    BLOCKS = 512,
    EVENTS = 200000,
    RAW_THREADS = 3,
    RAW_EVENTS = 20000
};

static _Alignas(16) char blocks[BLOCKS][32];
static _Alignas(16) char raw_blocks[RAW_THREADS][BLOCKS][32];
static code code_a = {.name = "a"}, code_b = {.name = "b"};
static test_frame bottom = {.running = &code_a}, top = {.previous = &bottom, .running = &code_b};
static uint64_t program_allocs, program_live_bytes, raw_allocs[RAW_THREADS], raw_live[RAW_THREADS];

/* As event_alloc_nopy and event_free_nopy in src/cpython/hooks_impl.h. */
static void
program_alloc(pmt__thread *thread, int i, uint64_t size)
{
    if (pmt__enter_nopy() == PMT_GATE_CLOSED) {
        fail_msg("the gate is closed");
    }
    pmt__t.thread = thread;
    pmt__track(blocks[i], size, PMT_DOMAIN_OBJ, thread, &top);
    pmt__leave_nopy();
}

static void
program_free(int i)
{
    if (pmt__enter_nopy() == PMT_GATE_CLOSED) {
        fail_msg("the gate is closed");
    }
    uint32_t *entry = pmt__shadow_find(blocks[i]);
    uint32_t id = *entry;
    *entry = 0;
    pmt__untrack_id(blocks[i], id);
    pmt__leave_nopy();
}

static void *
program(void *unused)
{
    (void)unused;
    static uint64_t sizes[BLOCKS];
    pmt__enter_nopy();
    pmt__thread *thread = pmt__thread_get_nopy(&thread, 1, 1, 1);
    pmt__leave_nopy();
    bottom.instr = (uint64_t)(uintptr_t)code_a.bytecode + 4;
    unsigned random = 1;
    for (int n = 0; n < EVENTS; n++) {
        random = random * 1103515245u + 12345u;
        int i = (int)(random >> 16) % BLOCKS;
        top.instr = (uint64_t)(uintptr_t)code_b.bytecode + 2 + random % 16 * 2;
        if (sizes[i] != 0) {
            program_live_bytes -= sizes[i];
            sizes[i] = 0;
            program_free(i);
        } else {
            sizes[i] = random / 65536 % 512 + 1;
            program_live_bytes += sizes[i];
            program_allocs++;
            program_alloc(thread, i, sizes[i]);
        }
    }
    return NULL;
}

static void *
raw_program(void *arg)
{
    intptr_t which = (intptr_t)arg;
    int live[BLOCKS] = {0};
    test_frame frame = {.running = &code_a, .instr = (uint64_t)(uintptr_t)code_a.bytecode + 8};
    char state_of_thread; /* an address */
    pmt__tables_acquire();
    pmt__thread_get_nopy(&state_of_thread, (uint64_t)which, 0, 100 + (uint64_t)which);
    pmt__tables_release();
    unsigned random = (unsigned)which + 7;
    for (int n = 0; n < RAW_EVENTS; n++) {
        random = random * 1103515245u + 12345u;
        int i = (int)(random >> 16) % BLOCKS;
        void *block = raw_blocks[which][i];
        if (live[i]) {
            live[i] = 0;
            raw_live[which]--;
            pmt__outside_free(block, pmt__shadow_find(block));
        } else {
            live[i] = 1;
            raw_live[which]++;
            raw_allocs[which]++;
            frame.instr = (uint64_t)(uintptr_t)code_a.bytecode + 8 + random % 8 * 2;
            /* every other thread is one that Python does not know */
            const void *own = which & 1 ? NULL : &state_of_thread;
            pmt__outside_event e = {block, 16, PMT_DOMAIN_RAW, own, (uint64_t)which, 0, &frame};
            pmt__lane *lane = pmt__lane_own();
            assert_true(pmt__lane_enter_nopy(lane));
            pmt__outside_alloc(lane, &e);
        }
    }
    return NULL;
}

static void
events_from_all_sides_while_cuts_are_taken(void **state)
{
    (void)state;
    char path[RECORDING_PATH];
    recording_file(path);
    pmt__buffer facts;
    pmt__record_options options = recording_options(path, &facts);
    options.interval_ns = 1000000;
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt__record_start(&options, &source, &err), 0);
    pmt__record_enable();

    uintptr_t threads[1 + RAW_THREADS];
    assert_int_equal(pmt__thread_start(&threads[0], program, NULL), 0);
    for (intptr_t i = 0; i < RAW_THREADS; i++) {
        assert_int_equal(pmt__thread_start(&threads[1 + i], raw_program, (void *)i), 0);
    }
    for (int i = 0; i < 50; i++) {
        assert_int_equal(pmt__record_flush(0), 0);
    }
    for (int i = 0; i < 1 + RAW_THREADS; i++) {
        pmt__thread_join(threads[i], 0);
    }
    uint64_t live = program_live_bytes;
    for (int i = 0; i < RAW_THREADS; i++) {
        live += raw_live[i] * 16;
    }
    assert_int_equal(pmt__record_flush(0), 0);
    assert_int_equal(pmt__t.live_bytes, live);
    assert_int_equal(pmt__t.counters[PMT_COUNTER_MISSED_FREES], 0);
    assert_int_equal(pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT], 0);
    assert_int_equal(pmt__t.counters[PMT_COUNTER_NO_GIL],
                     raw_allocs[0] + raw_allocs[1] + raw_allocs[2]);
    pmt__record_status status;
    pmt__record_status_get(&status);
    assert_true(status.cuts >= 51);
    pmt__record_stop(PMT_END_NORMAL);
    assert_false(pmt__record_active());
    pmt__buffer_dispose(&facts);
    unlink(path);
}

static void
start_and_stop_give_everything_back(void **state)
{
    (void)state;
    char path[RECORDING_PATH];
    recording_file(path);
    pmt__buffer facts;
    pmt__record_options options = recording_options(path, &facts);
    options.interval_ns = 1000000;
    options.max_memory_bytes = (uint64_t)16 << 20;
    uint64_t before = 0;
    for (int i = 0; i < 40; i++) {
        pmt_error err = PMT_ERROR_INIT;
        assert_int_equal(pmt__record_start(&options, &source, &err), 0);
        assert_int_equal(pmt__record_start(&options, &source, &err), PMT_ERR_STATE);
        assert_int_equal(pmt__record_flush(0), 0);
        pmt__record_stop(PMT_END_BY_PROGRAM);
        assert_int_equal(pmt__record_flush(0), PMT_ERR_STATE);
        if (i == 4) {
            before = pmt__process_rss_bytes();
        }
    }
    assert_true(pmt__process_rss_bytes() < before + ((uint64_t)4 << 20));
    pmt__buffer_dispose(&facts);
    unlink(path);
}

/* --wrap: what the gate calls to have the writer's thread started again after a fork. */
void __real_pmt__writer_restart_nopy(void);
void __wrap_pmt__writer_restart_nopy(void);
static struct {
    int calls, inside, open;
} restart;

void
__wrap_pmt__writer_restart_nopy(void)
{
    restart.calls++;
    restart.inside += (int)__atomic_load_n(&pmt__t.busy, __ATOMIC_RELAXED);
    restart.open += !pmt__lanes_closed;
    __real_pmt__writer_restart_nopy();
}

/* Starting a thread takes locks of the C library, whose holder may be waiting for the tables. */
static void
writer_is_started_again_by_nobody_inside(void **state)
{
    (void)state;
    char path[RECORDING_PATH];
    recording_file(path);
    pmt__buffer facts;
    pmt__record_options options = recording_options(path, &facts);
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt__record_start(&options, &source, &err), 0);
    pmt__record_enable();
    memset(&restart, 0, sizeof restart);
    pmt__attention_set(PMT_ATTENTION_WRITER);
    assert_int_equal(pmt__enter_nopy(), PMT_GATE_OPEN);
    assert_int_equal(__atomic_load_n(&pmt__t.busy, __ATOMIC_RELAXED), 1);
    assert_int_equal(pmt__lanes_closed, 0);
    pmt__leave_nopy();
    assert_int_equal(restart.calls, 1);
    assert_int_equal(restart.inside, 0);
    assert_int_equal(restart.open, 0);
    pmt__attention_clear(PMT_ATTENTION_WRITER);
    pmt__record_stop(PMT_END_NORMAL);
    pmt__buffer_dispose(&facts);
    unlink(path);
}

/* Events as the holder of the GIL and without it, while somebody holds the tables for ever. */
static void *
waiting(void *unused)
{
    (void)unused;
    assert_int_equal(pmt__enter_nopy(), PMT_GATE_CLOSED);
    assert_int_equal(__atomic_load_n(&pmt__t.busy, __ATOMIC_RELAXED), 0);
    assert_false(pmt__lane_enter_nopy(pmt__lane_own()));
    assert_int_equal(pmt__tables_acquire_event(), -1);
    return NULL;
}

static void
events_do_not_wait_for_ever(void **state)
{
    (void)state;
    char path[RECORDING_PATH];
    recording_file(path);
    pmt__buffer facts;
    pmt__record_options options = recording_options(path, &facts);
    pmt_error err = PMT_ERROR_INIT;
    assert_int_equal(pmt__record_start(&options, &source, &err), 0);
    pmt__record_enable();
    pmt__tables_acquire();
    uintptr_t thread;
    assert_int_equal(pmt__thread_start(&thread, waiting, NULL), 0);
    pmt__thread_join(thread, 0);
    assert_int_equal(pmt__t.counters[PMT_COUNTER_WAITED], 3);
    pmt__tables_release();
    assert_int_equal(pmt__enter_nopy(), PMT_GATE_OPEN);
    pmt__leave_nopy();
    pmt__record_stop(PMT_END_NORMAL);
    pmt__buffer_dispose(&facts);
    unlink(path);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_from_all_sides_while_cuts_are_taken),
        cmocka_unit_test(writer_is_started_again_by_nobody_inside),
        cmocka_unit_test(events_do_not_wait_for_ever),
        cmocka_unit_test(start_and_stop_give_everything_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
