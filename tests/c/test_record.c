/* The recording room without an interpreter: made-up frames and code objects, a naive model beside it. */
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

static pmt__thread *thread;

static int
setup(void **state)
{
    (void)state;
    if (pmt__tables_create(&source, (uint64_t)64 << 20, 1) < 0) {
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

/* --- a program: a stack of frames that calls, returns, moves on --------------------------------------- */

enum {
    DEPTH_MAX = 400,
    CODES = 12
};

static code codes[CODES];
static test_frame frames[DEPTH_MAX];
static int depth;

static void
program_begin(void)
{
    for (int i = 0; i < CODES; i++) {
        snprintf(codes[i].name, sizeof codes[i].name, "function_%d", i);
    }
    depth = 0;
}

static void
program_call(unsigned which)
{
    test_frame *f = &frames[depth];
    *f = (test_frame){.previous = depth > 0 ? &frames[depth - 1] : NULL,
                      .running = &codes[which % CODES]};
    f->instr = (uint64_t)(uintptr_t)f->running->bytecode + 2;
    f->entry = which % CODES == 3; /* as in CPython, an entry frame runs a code object of its own */
    depth++;
}

static void
program_step(unsigned random)
{
    if (depth == 0 || (random % 7 < 3 && depth < DEPTH_MAX)) {
        program_call(random / 7);
    } else if (random % 7 < 5 && depth > 1) {
        depth -= 1 + (int)(random / 7 % 3) % depth;
        if (depth == 0) {
            program_call(random / 7);
        }
    }
    test_frame *top = &frames[depth - 1];
    top->instr = (uint64_t)(uintptr_t)top->running->bytecode + 2 + random / 64 % 5 * 2;
}

static void
cached_stack_equals_plain_walk(void **state)
{
    (void)state;
    srand(1);
    program_begin();
    uint64_t different = 0;
    for (int i = 0; i < 400000; i++) {
        program_step((unsigned)rand());
        if (i % 3 != 0) { /* many steps go by without an event */
            continue;
        }
        test_frame *top = &frames[depth - 1];
        uint32_t parent = pmt__stack_parent(thread, top);
        uint32_t want = pmt__stack_naive(top->previous);
        different += parent != want;
        if (i % 5000 == 0) {
            pmt__threads_drop_caches_nopy();
        }
    }
    assert_int_equal(different, 0);
    assert_true(pmt__t.node_count > 1000);
}

static void
frames_in_heap_objects_move_between_callers(void **state)
{
    (void)state;
    program_begin();
    test_frame generator = {.running = &codes[0], .in_heap = 1};
    test_frame callee = {.running = &codes[1]};
    srand(2);
    for (int i = 0; i < 20000; i++) {
        program_step((unsigned)rand());
        generator.previous = &frames[depth - 1]; /* resumed from wherever we are */
        generator.instr = (uint64_t)(uintptr_t)codes[0].bytecode + 2 + (uint64_t)(rand() % 4) * 2;
        callee = (test_frame){.previous = &generator, .running = &codes[1]};
        callee.instr = (uint64_t)(uintptr_t)codes[1].bytecode + 4;
        uint32_t parent = pmt__stack_parent(thread, &callee);
        assert_int_equal(parent, pmt__stack_naive(&generator));
    }
}

static void
dead_code_leaves_no_trace_and_comes_back(void **state)
{
    (void)state;
    static code a, b;
    snprintf(a.name, sizeof a.name, "equal");
    snprintf(b.name, sizeof b.name, "equal");
    test_frame f = {.running = &a, .instr = (uint64_t)(uintptr_t)a.bytecode + 6};
    uint32_t first = pmt__stack_naive(&f);
    pmt__code_died_nopy(&a);
    uint32_t nodes = pmt__t.node_count;

    /* the same address, another function */
    snprintf(a.name, sizeof a.name, "other");
    uint32_t other = pmt__stack_naive(&f);
    assert_int_not_equal(other, first);

    /* an equal function elsewhere is the old one come back */
    test_frame g = {.running = &b, .instr = (uint64_t)(uintptr_t)b.bytecode + 6};
    assert_int_equal(pmt__stack_naive(&g), first);
    assert_int_equal(pmt__t.node_count, nodes + 1);
}

static void
frames_that_have_not_begun_belong_to_their_caller(void **state)
{
    (void)state;
    program_begin();
    program_call(0);
    program_call(1);
    frames[1].instr =
        (uint64_t)(uintptr_t)codes[1].bytecode; /* before the first traceable instruction */
    uint32_t caller = pmt__stack_naive(&frames[0]);
    assert_int_equal(pmt__stack_naive(&frames[1]), caller);
    /* the same instruction of a generator's own frame counts, whichever was seen first */
    frames[1].in_heap = 1;
    uint32_t own = pmt__stack_naive(&frames[1]);
    assert_int_not_equal(own, caller);
    for (int round = 0; round < 4; round++) {
        frames[1].in_heap = round & 1;
        uint32_t node = pmt__node_of(caller, pmt__place_of(&frames[1], frames[1].instr));
        assert_int_equal(node, frames[1].in_heap ? own : caller);
    }
}

/* --- counters against a naive model --------------------------------------------------------------------- */

enum {
    BLOCKS = 3000
};

typedef struct model_block {
    int live;
    size_t size;
} model_block;

static _Alignas(16) char arena[BLOCKS][64]; /* addresses only */
static model_block model[BLOCKS];

static void
block_alloc(int i, size_t size)
{
    pmt__track(arena[i], size, PMT_DOMAIN_OBJ, thread, &frames[depth - 1]);
    model[i] = (model_block){1, size};
}

static void
block_free(int i)
{
    uint32_t *entry = pmt__shadow_find(arena[i]);
    uint32_t id = *entry;
    *entry = 0;
    pmt__untrack_id(arena[i], id);
    model[i].live = 0;
}

static uint64_t
sum_live(uint64_t *at_peak)
{
    uint64_t live = 0;
    *at_peak = 0;
    const pmt__peak *peak = &pmt__t.peaks[0];
    for (uint32_t id = 1; id < pmt__t.cohort_count; id++) {
        const pmt__cohort *c = &pmt__t.cohorts[id];
        if (PMT_COHORT_SITE(c) == 0) {
            continue;
        }
        int noted = !peak->growing && peak->notes[id].run == peak->run;
        if (c->size & PMT_COHORT_SIZELESS) {
            const pmt__large *large = &pmt__t.large[c->size & ~PMT_COHORT_SIZELESS];
            live += large->live_bytes;
            *at_peak += noted ? large->peak_bytes : large->live_bytes;
        } else {
            live += (uint64_t)c->live * c->size;
            *at_peak += (uint64_t)(noted ? peak->notes[id].live : c->live) * c->size;
        }
    }
    return live;
}

static void
live_and_peak_agree_with_the_model(void **state)
{
    (void)state;
    srand(3);
    program_begin();
    memset(model, 0, sizeof model);
    uint64_t live = 0, peak = 0;
    int waves = 0;
    for (int i = 0; i < 300000; i++) {
        if (i % 11 == 0) {
            program_step((unsigned)rand());
        }
        /* waves: mostly growing, then mostly shrinking */
        int growing = i / 20000 % 2 == 0;
        waves += i % 20000 == 0;
        int b = rand() % BLOCKS;
        if (model[b].live) {
            if (growing && rand() % 3 != 0) {
                continue;
            }
            live -= model[b].size;
            block_free(b);
        } else if (growing || rand() % 4 == 0) {
            size_t size =
                rand() % 50 == 0 ? (size_t)(rand() % 100000) + 513 : (size_t)(rand() % 512) + 1;
            block_alloc(b, size);
            live += size;
        }
        if (live > peak) {
            peak = live;
        }
        if (i % 997 == 0) {
            uint64_t at_peak;
            assert_int_equal(sum_live(&at_peak), live);
            assert_int_equal(pmt__t.live_bytes, live);
            assert_int_equal(at_peak, peak);
            pmt__epoch_next_nopy();
        }
    }
    assert_true(waves >= 10);
    assert_int_equal(pmt__t.counters[PMT_COUNTER_MISSED_FREES], 0);
    assert_int_equal(pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT], 0);
}

static void
the_short_way_counts_like_the_long_one(void **state)
{
    (void)state;
    program_begin();
    program_call(0);
    program_call(1);
    block_alloc(0, 48);
    uint32_t id = *pmt__shadow_find(arena[0]);
    assert_int_equal(pmt__track_fast(arena[1], 48, PMT_DOMAIN_OBJ, thread, &frames[1]), 1);
    assert_int_equal(*pmt__shadow_find(arena[1]), id);
    assert_int_equal(pmt__t.cohorts[id].live, 2);
    assert_int_equal(pmt__t.cohorts[id].allocs, 2);
    assert_int_equal(pmt__t.live_bytes, 96);
    /* another size is another cohort */
    assert_int_equal(pmt__track_fast(arena[2], 49, PMT_DOMAIN_OBJ, thread, &frames[1]), 1);
    uint32_t other = *pmt__shadow_find(arena[2]);
    assert_int_not_equal(other, id);
    assert_int_equal(pmt__t.cohorts[other].live, 1);
    assert_int_equal(PMT_COHORT_SITE(&pmt__t.cohorts[other]),
                     PMT_COHORT_SITE(&pmt__t.cohorts[id]) + 1);
    assert_int_equal(pmt__t.live_bytes, 145);
    /* a block that is known already is the long way's: nothing may have changed */
    assert_int_equal(pmt__track_fast(arena[2], 49, PMT_DOMAIN_OBJ, thread, &frames[1]), 0);
    assert_int_equal(*pmt__shadow_find(arena[2]), other);
    assert_int_equal(pmt__t.live_bytes, 145);
    /* the newest two blocks are candidates for temporaries: not the short way's */
    assert_int_equal(pmt__untrack_fast(arena[1], pmt__shadow_find(arena[1])), 0);
    block_free(1);
    assert_int_equal(pmt__t.cohorts[id].temporaries, 1);
    assert_int_equal(pmt__t.cohorts[id].live, 1);
}

static void
temporaries_are_freed_within_one_allocation(void **state)
{
    (void)state;
    program_begin();
    program_call(0);
    block_alloc(0, 32);
    block_alloc(1, 32);
    block_alloc(2, 32);
    uint32_t id = *pmt__shadow_find(arena[0]);
    block_free(0); /* two allocations since */
    assert_int_equal(pmt__t.cohorts[id].temporaries, 0);
    block_free(1);
    block_free(2);
    assert_int_equal(pmt__t.cohorts[id].temporaries, 2);
}

static void
a_missed_free_is_counted_and_corrected(void **state)
{
    (void)state;
    program_begin();
    program_call(0);
    block_alloc(0, 4096);
    block_alloc(0, 32); /* the address comes again without a free */
    assert_int_equal(pmt__t.counters[PMT_COUNTER_MISSED_FREES], 1);
    assert_int_equal(pmt__t.live_bytes, 32);
}

/* A large block whose free was missed leaves its size inside its old range. Small blocks that come to lie there must not take it
   for a cohort. */
static void
a_size_left_behind_is_no_cohort(void **state)
{
    (void)state;
    program_begin();
    program_call(0);
    block_alloc(20, 100); /* cohort 1 */
    for (int i = 0; i < 4; i++) {
        /* the large block is gone, and nobody told; of the C library's that is to be expected */
        uint32_t domain = i < 2 ? PMT_DOMAIN_OBJ : PMT_DOMAIN_MALLOC;
        char *block = arena[2 * i], *inside = block + (i & 1 ? 32 : 16);
        pmt__track(block, 600, domain, thread, &frames[0]);
        uint32_t left = *pmt__shadow_find(inside);
        assert_true(PMT_SHADOW_IS_SIZE(left));
        assert_false(PMT_SHADOW_IS_PLAIN(left));
        pmt__track(inside, 16, PMT_DOMAIN_OBJ, thread, &frames[0]);
        assert_true(PMT_SHADOW_IS_PLAIN(*pmt__shadow_find(inside)));
        assert_int_equal(*pmt__shadow_find(block), 0);
        assert_int_equal(pmt__t.live_bytes, 100 + 16 * (i + 1));
    }
    assert_int_equal(pmt__t.counters[PMT_COUNTER_MISSED_FREES], 2);
    uint64_t at_peak;
    assert_int_equal(sum_live(&at_peak), pmt__t.live_bytes);
}

static void
sizes_beyond_four_gigabytes(void **state)
{
    (void)state;
    uint64_t sizes[] = {513, (uint64_t)1 << 30, ((uint64_t)1 << 32) + 5,
                        ((uint64_t)1 << 45) + 12345};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(pmt__shadow_size_put(arena[0], sizes[i]), 0);
        assert_int_equal(pmt__shadow_size_get(arena[0]), sizes[i]);
        assert_int_equal(pmt__shadow_size_take(arena[0]), sizes[i]);
        assert_int_equal(pmt__shadow_size_take(arena[0]), 0);
    }
}

static void
at_the_limit_stacks_fold_and_totals_stay(void **state)
{
    (void)state;
    pmt__t.node_limit = pmt__t.node_count + 5;
    pmt__t.site_limit = pmt__t.site_count + 4 * (PMT_SIZE_LARGE + 1) + 5;
    program_begin();
    uint64_t live = 0;
    for (int i = 0; i < 200; i++) {
        program_call((unsigned)i * 5 + 1);
        block_alloc(i, (size_t)i + 1);
        live += (uint64_t)i + 1;
    }
    assert_int_equal(pmt__t.live_bytes, live);
    assert_true(pmt__t.counters[PMT_COUNTER_FOLDED_STACKS] > 0);
    uint64_t at_peak;
    assert_int_equal(sum_live(&at_peak), live);
}

/* --- the event log --------------------------------------------------------------------------------------------- */

/* Takes what is logged and says how many events there are; they start at *first. */
static uint64_t
log_take(uint64_t *first)
{
    uint64_t count = 0;
    pmt__log_take_nopy();
    for (const pmt__log_block *b = pmt__log_oldest(); b != NULL; b = pmt__log_oldest()) {
        if (count == 0) {
            *first = b->first;
        }
        assert_int_equal(b->first, *first + count);
        assert_true(b->begin_ns <= b->end_ns);
        count += b->count;
        pmt__log_written();
    }
    return count;
}

static void
the_log_has_every_event_or_says_how_many_are_missing(void **state)
{
    (void)state;
    pmt__log_create(3 * PMT_LOG_BLOCK_BYTES);
    program_begin();
    program_call(0);
    uint64_t first = 0, before = 0, missing = 0;
    for (int round = 0; round < 6; round++) {
        uint64_t rounds = round % 2 == 0 ? 50000 : 1500000; /* every other time too many */
        uint64_t events = pmt__t.counters[PMT_COUNTER_EVENTS];
        for (uint64_t i = 0; i < rounds; i++) {
            block_alloc((int)(i % BLOCKS), i % 5 == 0 ? 10000 : 64);
            block_free((int)(i % BLOCKS));
        }
        events = pmt__t.counters[PMT_COUNTER_EVENTS] - events;
        assert_int_equal(events, 2 * rounds); /* the missing ones have numbers, too */
        uint64_t logged = log_take(&first);
        assert_int_equal(first, before);
        before += events;
        missing += events - logged;
        assert_int_equal(pmt__t.counters[PMT_COUNTER_LOG_DROPPED], missing);
        assert_int_equal(missing != 0, round > 0);
    }
    assert_int_equal(pmt__t.live_bytes, 0);
    assert_true(pmt__log_bytes() <= 3 * PMT_LOG_BLOCK_BYTES);

    block_alloc(0, 64);
    pmt__log_stop();
    block_free(0);
    assert_int_equal(log_take(&first), 0);
    assert_int_equal(pmt__t.counters[PMT_COUNTER_LOG_DROPPED], missing + 2);
    pmt__log_dispose();
    assert_int_equal(pmt__log_bytes(), 0);
}

static void
a_pair_without_both_of_its_events_is_none(void **state)
{
    (void)state;
    pmt__log_create(2 * PMT_LOG_BLOCK_BYTES);
    program_begin();
    program_call(0);
    block_alloc(0, 64);
    for (int i = 0; i < 3; i++) {
        block_alloc(1, 64);
        const uint8_t *at = pmt__log.at;
        pmt__log_pair_begin_nopy(PMT_CONTROL_REALLOC);
        block_free(1);
        if (i == 0) {
            block_alloc(1, 64);
        } else if (i == 1) {
            block_alloc(0, 64); /* a missed free comes between */
        }
        pmt__log_pair_end_nopy();
        int is_control = at[0] == (PMT_EVENT_WITH_SITE << 6 | PMT_CONTROL_REALLOC) && at[1] == 0;
        assert_int_equal(is_control, i == 0);
        if (i == 0) {
            block_free(1);
        }
    }
    pmt__log_dispose();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(cached_stack_equals_plain_walk, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_in_heap_objects_move_between_callers, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(dead_code_leaves_no_trace_and_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_that_have_not_begun_belong_to_their_caller, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(live_and_peak_agree_with_the_model, setup, teardown),
        cmocka_unit_test_setup_teardown(the_short_way_counts_like_the_long_one, setup, teardown),
        cmocka_unit_test_setup_teardown(temporaries_are_freed_within_one_allocation, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_missed_free_is_counted_and_corrected, setup, teardown),
        cmocka_unit_test_setup_teardown(a_size_left_behind_is_no_cohort, setup, teardown),
        cmocka_unit_test_setup_teardown(sizes_beyond_four_gigabytes, setup, teardown),
        cmocka_unit_test_setup_teardown(at_the_limit_stacks_fold_and_totals_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(the_log_has_every_event_or_says_how_many_are_missing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_pair_without_both_of_its_events_is_none, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
