/* Stacks of real native frames and made-up Python ones: what is kept from event to event against a walk that keeps nothing. */
#include <alloca.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "made_up_frames.h"
#include "platform/platform.h"

#define NOINLINE __attribute__((noinline, noclone))

enum {
    CODES = 8,
    POOL = 512,
    DEPTH_MAX = 40,
    EVENTS = 8000,
    CHAIN_MAX = 2048,
    WAITING = 64, /* frames that are suspended */
    OWN_MAX = 4   /* native frames of the test and the recorder at the top, which differ */
};

static pmt__thread *thread;
static code codes[CODES];
static test_frame waiting[WAITING];

/* The program of one thread. */
typedef struct program {
    uint64_t random;
    test_frame *top;
    test_frame pool[POOL]; /* Python frames, as on a data stack */
    int used;
    int events;
    int with_tables; /* 0: what is kept must do, where it can */
    int sort_depth;
    int fast;    /* events without the tables */
    int parents; /* some frames are awaited */
    int compared;
} program;

static uint64_t
next(program *p)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 7;
    p->random ^= p->random << 17;
    return p->random >> 11;
}

static int
chain_of(uint32_t node, uint32_t places[CHAIN_MAX])
{
    int count = 0;
    for (; node > PMT_NODE_FOLDED && count < CHAIN_MAX; node = pmt__t.nodes[node].parent) {
        places[count++] = pmt__t.nodes[node].place;
    }
    return count;
}

static void
assert_same(uint32_t a, uint32_t b)
{
    uint32_t left[CHAIN_MAX], right[CHAIN_MAX];
    int m = chain_of(a, left), n = chain_of(b, right), same = 0;
    while (same < m && same < n && left[m - 1 - same] == right[n - 1 - same]) {
        same++;
    }
    int own = pmt__natives_now.on ? OWN_MAX : 0;
    if (m - same > own || n - same > own) {
        print_error("%d and %d places, the first %d are the same\n", m, n, same);
    }
    assert_true(m - same <= own && n - same <= own);
}

static NOINLINE void
event(program *p)
{
    static uint64_t block[64]; /* what its address stands for */
    p->events++;
    uint32_t kept;
    if (p->parents) {
        uint64_t how = next(p) % 8; /* some events may not ask, with the tables or without */
        may_ask = how > 1;
        if (how == 0) {
            (void)pmt__mixed_now_nopy(pmt__mixed_own(), NULL, p->top, 0);
            return;
        }
    }
    if (!p->with_tables && pmt__mixed_now_nopy(pmt__mixed_own(), NULL, p->top, 0) == 0) {
        p->fast++;
        kept = pmt__mixed_node(pmt__mixed_own());
    } else {
        pmt__track(block, 64, PMT_DOMAIN_OBJ, thread, p->top);
        uint32_t id = *pmt__shadow_find(block);
        kept = pmt__t.sites[PMT_COHORT_SITE(&pmt__t.cohorts[id])].node;
        *pmt__shadow_find(block) = 0;
        pmt__untrack_id(block, id);
    }
    if (may_ask) {
        p->compared++;
        assert_same(kept, pmt__mixed_naive(pmt__mixed_own(), NULL, p->top));
    }
}

static void run(program *p, int depth);

/* Native functions of several kinds. */
static NOINLINE void
plain(program *p, int depth)
{
    run(p, depth - 1);
    __asm__ volatile("" ::: "memory");
}

static NOINLINE void
roomy(program *p, int depth)
{
    volatile char room[300];
    room[next(p) % sizeof room] = 1;
    run(p, depth - 1);
    room[0]++;
}

static NOINLINE void
varying(program *p, int depth)
{
    volatile char *room = alloca(16 + next(p) % 200);
    room[0] = 1;
    run(p, depth - 1);
    room[0]++;
}

static NOINLINE void
aligned(program *p, int depth)
{
    volatile char room[64] __attribute__((aligned(64)));
    room[0] = (char)depth;
    run(p, depth - 1);
    room[1] = room[0];
}

static int
compared(const void *a, const void *b, void *data)
{
    program *p = data;
    if (*(const int *)a == 0 || *(const int *)b == 0) {
        run(p, p->sort_depth);
    }
    return *(const int *)a - *(const int *)b;
}

static NOINLINE void
sorting(program *p, int depth)
{
    int values[3] = {2, 0, depth};
    if (depth > DEPTH_MAX / 2) {
        run(p, depth - 1);
    } else {
        p->sort_depth = depth - 1;
        qsort_r(values, 3, sizeof *values, compared, p);
    }
}

/* The evaluation loop: an entry frame of its own, and some Python frames that call each other inside it. */
static NOINLINE void
loop(program *p, int depth)
{
    test_frame entry = {.previous = p->top, .entry = 1};
    int before = p->used, count = 1 + (int)(next(p) % 3);
    p->top = &entry;
    for (int i = 0; i < count && p->used < POOL; i++) {
        test_frame *f = &p->pool[p->used++];
        *f = (test_frame){.previous = p->top, .running = &codes[next(p) % CODES]};
        f->instr = (uint64_t)(uintptr_t)f->running->bytecode + 2 + 2 * (next(p) % 8);
        if (p->parents && next(p) % 3 == 0) {
            f->in_heap = 1;
            f->awaiting = &waiting[next(p) % (WAITING - 8)];
            f->awaiting_count = (int)(next(p) % 8);
        }
        p->top = f;
    }
    for (int i = 0; i < 2 && p->events < EVENTS; i++) {
        run(p, depth - 1);
        if (p->top != &entry && next(p) % 2) { /* it goes on */
            p->top->instr = (uint64_t)(uintptr_t)p->top->running->bytecode + 2 + 2 * (next(p) % 8);
            p->top->mark = 0;
        } else if (p->top != &entry && next(p) % 2) { /* it returns */
            p->top = p->top->previous;
            p->used--;
            if (p->top != &entry) {
                p->top->mark = 0;
            }
        }
    }
    p->used = before;
    p->top = entry.previous;
}

static void
run(program *p, int depth)
{
    static void (*const functions[])(program *, int) = {plain,   roomy, varying, aligned,
                                                        sorting, loop,  loop};
    event(p);
    if (depth <= 0 || p->events >= EVENTS) {
        return;
    }
    functions[next(p) % (sizeof functions / sizeof *functions)](p, depth);
    if (next(p) % 3 == 0) {
        event(p);
    }
}

static void
play(program *p)
{
    while (p->events < EVENTS) {
        run(p, 1 + (int)(next(p) % DEPTH_MAX));
    }
}

static int
setup(void **state)
{
    (void)state;
    for (int i = 0; i < CODES; i++) {
        snprintf(codes[i].name, sizeof codes[i].name, "function_%d", i);
    }
    if (pmt__tables_create(&source, (uint64_t)256 << 20, 1) < 0) {
        return -1;
    }
    pmt__t.marking = 1;
    thread = pmt__thread_get_nopy(&thread, 1, 1, 1);
    pmt__t.thread = thread;
    return thread == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
    (void)state;
    pmt__tables_dispose();
    return 0;
}

static void
native_on(void)
{
    if (!pmt__unwind_supported()) {
        skip(); /* this machine or C library has no native stacks */
    }
    assert_int_equal(pmt__natives_create(NULL), 0);
}

static void
test_kept_against_walked(void **state)
{
    (void)state;
    native_on();
    for (uint64_t seed = 1; seed <= 3; seed++) {
        program *p = calloc(1, sizeof *p);
        *p = (program){.random = seed * 0x9E3779B97F4A7C15u, .with_tables = 1};
        play(p);
        assert_true(p->events >= EVENTS);
        free(p);
    }
}

static void
test_without_the_tables(void **state)
{
    (void)state;
    native_on();
    program *p = calloc(1, sizeof *p);
    *p = (program){.random = 77, .with_tables = 1};
    play(p); /* all rules and places have been met */
    p->with_tables = p->events = 0;
    play(p);
    assert_true(p->fast > p->events * 9 / 10);
    free(p);
}

static void
play_with_parents(void)
{
    for (int i = 0; i < WAITING; i++) {
        code *running = &codes[i % CODES];
        waiting[i] = (test_frame){.running = running, .in_heap = 1};
        waiting[i].instr = (uint64_t)(uintptr_t)running->bytecode + 2 + 2 * ((uint64_t)i % 8);
    }
    for (uint64_t seed = 1; seed <= 3; seed++) {
        program *p = calloc(1, sizeof *p);
        *p = (program){.random = seed * 0x9E3779B97F4A7C15u, .with_tables = 1, .parents = 1};
        play(p);
        assert_true(p->compared > EVENTS / 2);
        free(p);
    }
    may_ask = 1;
}

static void
test_frames_that_await(void **state)
{
    (void)state;
    pmt__t.mixed = pmt__t.parents = 1;
    play_with_parents();
    assert_true(pmt__t.node_count > 1000);
}

static void
test_frames_that_await_among_native_ones(void **state)
{
    (void)state;
    native_on();
    pmt__t.parents = 1;
    play_with_parents();
}

static void
test_more_frames_await_than_there_is_room_for(void **state)
{
    (void)state;
    pmt__t.mixed = pmt__t.parents = 1;
    static test_frame many[PMT_PARENTS_OF_FRAME + 1], frames[8];
    for (int i = 0; i <= PMT_PARENTS_OF_FRAME; i++) {
        many[i] = (test_frame){.running = &codes[0], .in_heap = 1};
        many[i].instr = (uint64_t)(uintptr_t)codes[0].bytecode + 2;
    }
    for (int i = 0; i < 8; i++) {
        frames[i] = (test_frame){.running = &codes[1],
                                 .in_heap = 1,
                                 .awaiting = many,
                                 .awaiting_count = PMT_PARENTS_OF_FRAME + 1,
                                 .previous = i > 0 ? &frames[i - 1] : NULL};
        frames[i].instr = (uint64_t)(uintptr_t)codes[1].bytecode + 2;
    }
    pmt__mixed *m = pmt__mixed_own();
    assert_int_equal(pmt__mixed_now_nopy(m, NULL, &frames[7], 1), 0);
    assert_int_equal(m->count, 8 + PMT_PARENTS_MAX);
    assert_int_equal(m->python[0].parents_end, PMT_PARENTS_OF_FRAME);
    assert_int_equal(pmt__mixed_now_nopy(m, NULL, &frames[0], 1), 0);
    assert_int_equal(m->count, 1 + PMT_PARENTS_OF_FRAME);
}

static void *
play_in_thread(void *data)
{
    play(data);
    return NULL;
}

static void
test_stack_of_a_thread(void **state)
{
    (void)state;
    native_on();
    for (int i = 0; i < 3; i++) { /* the second has the lane of the first, and its stack */
        program *p = calloc(1, sizeof *p);
        *p = (program){.random = 5 + (uint64_t)i, .with_tables = 1};
        pthread_t it;
        assert_int_equal(pthread_create(&it, NULL, play_in_thread, p), 0);
        pthread_join(it, NULL);
        assert_true(p->events >= EVENTS);
        pmt__lanes_sweep_nopy();
        free(p);
    }
}

static void
test_objects_that_were_unloaded_and_new_recordings(void **state)
{
    (void)state;
    native_on();
    program *p = calloc(1, sizeof *p);
    uint32_t places = 0, objects = 0;
    for (volatile int round = 0; round < 2; round++) { /* volatile: one place that calls */
        *p = (program){.random = 9, .with_tables = 1};
        play(p);
        if (round == 0) {
            places = pmt__natives_now.place_count;
            objects = pmt__natives_now.object_count;
            assert_true(places > 20 && objects > 1);
            pmt__natives_forget_nopy();
            assert_int_equal(pmt__natives_now.rule_count, 0);
        }
    }
    /* the same offsets in the same objects are the same places */
    assert_int_equal(pmt__natives_now.place_count, places);
    assert_int_equal(pmt__natives_now.object_count, objects);
    /* code objects have other numbers in the next recording */
    pmt__tables_dispose();
    assert_false(pmt__natives_now.on);
    assert_int_equal(pmt__tables_create(&source, (uint64_t)256 << 20, 1), 0);
    native_on();
    uint32_t place =
        pmt__place_plain_nopy((uint64_t)(uintptr_t)codes[7].bytecode + 2, &codes[7], 0);
    assert_true(place >= PMT_PLACE_BLOCK);
    p->events = 0;
    play(p);
    free(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kept_against_walked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_the_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stack_of_a_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frames_that_await, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frames_that_await_among_native_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_frames_await_than_there_is_room_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_objects_that_were_unloaded_and_new_recordings, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
