/* A recording that forks, executes and exits past everything: what its capture and those of its children hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "made_up_frames.h"
#include "pymemtrace/reader.h"
#include "recording.h"

enum {
    BLOCKS = 1000,
    SIZE = 100,
    LARGE = 10000,
    OWN_SIZE = 50,
    AGE_US = 30000 /* of a child that is to leave a capture */
};

static _Alignas(
    64) char blocks[4 * BLOCKS][64]; /* with room for the size of a large one in the shadow */
static code code_a = {.name = "a"}, code_b = {.name = "b"};
static test_frame bottom = {.running = &code_a}, top = {.previous = &bottom, .running = &code_b};
static pmt__thread *thread;
static char state_of_thread; /* an address */
static char path[RECORDING_PATH];

static void
alloc(int i, uint64_t size)
{
    assert_int_not_equal(pmt__enter_nopy(), PMT_GATE_CLOSED);
    if (thread == NULL) {
        thread = pmt__thread_get_nopy(&state_of_thread, 1, 1, (uint64_t)getpid());
    }
    pmt__t.thread = thread;
    bottom.instr = (uint64_t)(uintptr_t)code_a.bytecode + 4;
    top.instr = (uint64_t)(uintptr_t)code_b.bytecode + 2 + (size_t)i % 16 * 2;
    pmt__track(blocks[i], size, PMT_DOMAIN_OBJ, thread, &top);
    pmt__leave_nopy();
}

static void
dealloc(int i)
{
    assert_int_not_equal(pmt__enter_nopy(), PMT_GATE_CLOSED);
    uint32_t *entry = pmt__shadow_find(blocks[i]);
    uint32_t id = *entry;
    *entry = 0;
    pmt__untrack_id(blocks[i], id);
    pmt__leave_nopy();
}

/* Starts recording, with BLOCKS blocks of SIZE and as many of LARGE bytes alive. */
static void
start(int follow)
{
    static pmt__buffer facts;
    recording_file(path);
    pmt__record_options options = recording_options(path, &facts);
    options.follow = follow;
    pmt_error err = PMT_ERROR_INIT;
    thread = NULL;
    assert_int_equal(pmt__record_start(&options, &source, &err), 0);
    pmt__record_enable();
    for (int i = 0; i < BLOCKS; i++) {
        alloc(i, SIZE);
        alloc(BLOCKS + i, LARGE);
    }
}

static void
stop(void)
{
    pmt__record_stop(PMT_END_NORMAL);
    unlink(path);
}

static int
wait_for(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static pmt_reader *
capture_open(const char *name)
{
    pmt_reader *reader;
    assert_int_equal(pmt_reader_open(&reader, name, NULL, NULL), 0);
    return reader;
}

/* The capture of a child, or NULL. It is removed. */
static pmt_reader *
child_open(pid_t pid)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%d.pmt", path, (int)pid);
    pmt_reader *reader = NULL;
    if (access(name, F_OK) == 0) {
        reader = capture_open(name);
        unlink(name);
    }
    return reader;
}

/* The same when the child has ended, without complaint. */
static pmt_reader *
child_ended(pid_t pid)
{
    assert_int_equal(wait_for(pid), 0);
    return child_open(pid);
}

static pmt_capture
capture_of(const pmt_reader *reader)
{
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    return capture;
}

static const pmt_cut *
last_cut(const pmt_reader *reader)
{
    size_t count = pmt_reader_cut_count(reader);
    assert_true(count > 0);
    return pmt_reader_cut(reader, count - 1);
}

static uint64_t
number(const pmt_reader *reader, const char *key)
{
    const pmt_fact *fact = pmt_reader_find_fact(reader, key);
    assert_non_null(fact);
    return fact->number;
}

/* Half of what is inherited goes, and something comes. */
static void
work_in_child(void)
{
    for (int i = 0; i < BLOCKS; i += 2) {
        dealloc(i);
        dealloc(BLOCKS + i);
    }
    for (int i = 0; i < BLOCKS; i++) {
        alloc(2 * BLOCKS + i, OWN_SIZE);
    }
}

static void
child_check(const pmt_reader *child, pid_t parent)
{
    assert_int_equal(number(child, "parent_pid"), parent);
    assert_int_equal(pmt_reader_mark_count(child), 1);
    assert_int_equal(pmt_reader_mark(child, 0).epoch, number(child, "fork_epoch"));
    const pmt_cut *cut = last_cut(child);
    assert_int_equal(cut->live_blocks, 2 * BLOCKS);
    assert_int_equal(cut->live_bytes, BLOCKS / 2 * (SIZE + LARGE) + BLOCKS * OWN_SIZE);
    assert_int_equal(cut->peak_bytes, BLOCKS * (SIZE + LARGE));
    assert_int_equal(cut->peak_blocks, 2 * BLOCKS);
    assert_int_equal(cut->allocations, BLOCKS);
    assert_int_equal(cut->allocated_bytes, BLOCKS * OWN_SIZE);
    assert_int_equal(cut->frees, BLOCKS);
}

static void
a_child_goes_on(void **unused)
{
    (void)unused;
    start(1);
    for (int times = 0; times < 3; times++) { /* epochs go on */
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            work_in_child();
            usleep(AGE_US);
            pmt__record_exiting();
            _exit(pmt__record_active());
        }
        pmt_reader *child = child_ended(pid);
        assert_non_null(child);
        child_check(child, getpid());
        assert_int_equal(capture_of(child).ended, PMT_ENDED_NORMAL);
        pmt_reader_destroy(child);
    }
    stop();
}

static void
a_child_of_a_child_has_what_both_had(void **unused)
{
    (void)unused;
    start(1);
    pid_t pid = fork();
    if (pid == 0) {
        pid_t parent = getpid();
        for (int i = 0; i < 100; i++) { /* before it has a capture */
            alloc(3 * BLOCKS + i, OWN_SIZE);
            dealloc(3 * BLOCKS + i);
        }
        pid = fork();
        if (pid == 0) {
            work_in_child();
            usleep(AGE_US);
            pmt__record_stop(PMT_END_NORMAL);
            _exit(0);
        }
        int status = wait_for(pid);
        pmt_reader *child = child_open(pid);
        assert_non_null(child);
        child_check(child, parent);
        pmt_reader_destroy(child);
        _exit(status);
    }
    pmt_reader_destroy(child_ended(pid));
    stop();
}

static void
a_child_that_does_nothing_leaves_nothing(void **unused)
{
    (void)unused;
    start(1);
    int found = 0;
    for (int i = 0; i < 10; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pmt__record_exiting();
            _exit(0);
        }
        pmt_reader *child = child_ended(pid);
        found += child != NULL;
        pmt_reader_destroy(child);
    }
    assert_true(found < 5); /* some, on a machine that stumbles */
    stop();
}

static void
a_child_that_grows_at_once_leaves_a_capture(void **unused)
{
    (void)unused;
    start(1);
    pid_t pid = fork();
    if (pid == 0) {
        alloc(3 * BLOCKS, 2 << 20);
        pmt__record_exiting();
        _exit(0);
    }
    pmt_reader *child = child_ended(pid);
    assert_non_null(child);
    assert_int_equal(last_cut(child)->allocated_bytes, 2 << 20);
    pmt_reader_destroy(child);
    stop();
}

static void
without_follow_a_child_is_not_recorded(void **unused)
{
    (void)unused;
    start(0);
    pid_t pid = fork();
    if (pid == 0) {
        int closed = pmt__enter_nopy() == PMT_GATE_CLOSED;
        usleep(AGE_US);
        pmt__record_exiting();
        _exit(closed && !pmt__record_active() ? 0 : 1);
    }
    assert_null(child_ended(pid));
    stop();
}

static void
an_exec_that_fails_changes_nothing(void **unused)
{
    (void)unused;
    start(1);
    assert_int_equal(pmt__record_exec_begin(), 1);
    pmt_reader *reader = capture_open(path); /* as it would be left */
    assert_int_equal(capture_of(reader).ended, PMT_ENDED_NORMAL);
    assert_int_equal(last_cut(reader)->live_blocks, 2 * BLOCKS);
    pmt_reader_destroy(reader);

    pmt__record_exec_failed();
    reader = capture_open(path);
    assert_int_equal(capture_of(reader).ended, PMT_ENDED_RUNNING);
    pmt_reader_destroy(reader);
    work_in_child();
    pmt__record_stop(PMT_END_NORMAL);
    reader = capture_open(path);
    assert_int_equal(capture_of(reader).ended, PMT_ENDED_NORMAL);
    assert_null(capture_of(reader).torn);
    assert_int_equal(last_cut(reader)->allocations, 3 * BLOCKS);
    pmt_reader_destroy(reader);
    unlink(path);
}

/* As from a signal handler that comes in the middle of an event: it must end, whatever is lost. */
static void
an_exit_inside_an_event_does_not_wait_for_ever(void **unused)
{
    (void)unused;
    start(1);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        usleep(AGE_US);
        pmt__enter_nopy();
        pmt__record_exiting();
        _exit(0);
    }
    pmt_reader_destroy(child_ended(pid));
    stop();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_goes_on),
        cmocka_unit_test(a_child_of_a_child_has_what_both_had),
        cmocka_unit_test(a_child_that_does_nothing_leaves_nothing),
        cmocka_unit_test(a_child_that_grows_at_once_leaves_a_capture),
        cmocka_unit_test(without_follow_a_child_is_not_recorded),
        cmocka_unit_test(an_exec_that_fails_changes_nothing),
        cmocka_unit_test(an_exit_inside_an_event_does_not_wait_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
