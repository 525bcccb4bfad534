/* Sampling without an interpreter: made-up blocks at made-up addresses, of which everything is known.

   What is random is judged by its standard deviation, six of which are exceeded once in 500 million checks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "record/inherit.h"
#include "record/sample.h"

#define SIGMAS 6.0
#define MIB ((uint64_t)1 << 20)
#define S pmt__sampling_now

enum {
    MEAN = 64 << 10,
    DOMAIN = 1
};

/* The next point of this thread is one of the mean that is now. */
static void
draw_anew(void)
{
    uint64_t mean;
    pmt__sample_left = -1;
    pmt__sample_due(0, &mean);
}

static const pmt__frame_source source = {NULL, NULL}; /* no block has a stack */

static void
begin(uint64_t mean)
{
    assert_int_equal(pmt__tables_create(&source, (uint64_t)64 << 20, 1), 0);
    assert_int_equal(pmt__sampling_create(mean), 0);
    draw_anew();
}

static void
end(void)
{
    pmt__tables_dispose();
    assert_int_equal(S.on, 0);
}

/* --- the program: what the hooks do --------------------------------------------------------------------------------- */

static void *
address_of(uint64_t number)
{
    return (void *)(uintptr_t)(0x10000000u + number * 32); /* NOLINT: never looked at */
}

static void
release(void *block)
{
    int32_t slot = pmt__sample_maybe(block) ? pmt__sample_find(block) : -1;
    if (slot >= 0) {
        pmt__sample sample = pmt__sample_take_nopy(slot);
        pmt__sample_died_nopy(&sample);
    }
}

static int
is_due(uint64_t size, uint64_t *mean)
{
    if (size < __atomic_load_n(&S.always, __ATOMIC_RELAXED)) {
        pmt__sample_left -= (int64_t)size;
        if (pmt__sample_left >= 0) {
            return 0;
        }
    }
    return pmt__sample_due(size, mean);
}

static uint32_t
cohort_of(uint64_t size)
{
    uint32_t node = PMT_NODE_NO_STACK;
    return pmt__cohort_get_nopy(node, size <= PMT_SIZE_EXACT_MAX ? (uint32_t)size : PMT_SIZE_LARGE,
                                DOMAIN, 0);
}

static void
allocate(void *block, uint64_t size)
{
    uint64_t mean;
    if (is_due(size, &mean)) {
        release(block); /* its free was not seen */
        pmt__sample_born_nopy(block, size, cohort_of(size), mean);
    }
}

/* --- judging ---------------------------------------------------------------------------------------------------------- */

/* What theory says of an estimate, and what was seen in many rounds. */
typedef struct series {
    double truth, variance, variance_of_variance; /* of a round */
    double rare;                                  /* blocks that are no samples, or count twice */
    double rounds, errors, squares, said;
} series;

/* A block of the truth. unit: what it counts, its size or 1. */
static void
series_expect(series *self, uint64_t size, double unit, uint64_t mean)
{
    double p = size >= 8 * mean ? 1 : 1 - exp(-(double)size / (double)mean);
    double f = 1 / p - floor(1 / p), v = (1 - p) / (p * p) + f * (1 - f);
    self->truth += unit;
    self->variance += p * v * unit * unit;
    self->variance_of_variance += p * (1 - p) * v * v * unit * unit * unit * unit;
    self->rare += 1 - p;
}

static void
series_add(series *self, double estimate, double said)
{
    double error = estimate - self->truth;
    self->rounds++;
    self->errors += error;
    self->squares += error * error;
    self->said += said;
}

/* On average there is no error, the variance is that of the theory, and what is said of it is right. */
static void
series_check(const series *self, const char *name)
{
    double n = self->rounds, tiny = 1e-9 * self->truth;
    double bias = self->errors / n, bound = SIGMAS * sqrt(self->variance / n) + tiny;
    if (fabs(bias) > bound) {
        fail_msg("%s: %g is estimated %g off, more than %g", name, self->truth, bias, bound);
    }
    double said = self->said / n - self->variance;
    bound = SIGMAS * sqrt(self->variance_of_variance / n) + tiny;
    if (fabs(said) > bound) {
        fail_msg("%s: the variance is said to be %g off of %g, more than %g", name, said,
                 self->variance, bound);
    }
    if (self->rare * n > 1000) { /* else the next bound, of about normal errors, does not hold */
        double seen = self->squares / n - self->variance;
        bound = 2 * SIGMAS * self->variance * sqrt(2 / n);
        if (fabs(seen) > bound) {
            fail_msg("%s: the variance is %g off of %g, more than %g", name, seen, self->variance,
                     bound);
        }
    }
}

/* Of all sites. */
static pmt__sample_sums
sums_of(int alive)
{
    pmt__sample_sums sums = {0};
    for (uint32_t site = 1; site < pmt__t.site_count; site++) {
        pmt__sample_sums_add(&sums, &S.sites[site].allocs, 1);
        if (alive) {
            pmt__sample_sums_add(&sums, &S.sites[site].frees, -1);
        }
    }
    return sums;
}

static double
allocated_bytes(void)
{
    double bytes = 0;
    for (uint32_t id = 1; id < pmt__t.cohort_count; id++) {
        const pmt__cohort *cohort = &pmt__t.cohorts[id];
        uint32_t large = cohort->size & ~PMT_COHORT_SIZELESS;
        bytes += cohort->size & PMT_COHORT_SIZELESS ? (double)pmt__t.large[large].alloc_bytes
                                                    : (double)cohort->allocs * cohort->size;
    }
    return bytes;
}

static double
live_blocks(void)
{
    double blocks = 0;
    for (uint32_t id = 1; id < pmt__t.cohort_count; id++) {
        blocks += pmt__t.cohorts[id].live;
    }
    return blocks;
}

/* --- estimates ---------------------------------------------------------------------------------------------------------- */

static void
one_size_is_unbiased(void **state)
{
    (void)state;
    enum {
        ROUNDS = 300
    };
    static const uint64_t sizes[] = {
        1, 16, 100, 512, 513, 4000, MEAN, 3 * MEAN, 8 * MEAN - 1, 8 * MEAN, 8 * MEAN + 1, 100 * MIB,
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t size = sizes[i], blocks = size >= MEAN ? 24 : 12 * MEAN / size;
        series allocated = {0}, alive = {0}, blocks_alive = {0};
        for (uint64_t n = 0; n < blocks; n++) {
            series_expect(&allocated, size, (double)size, MEAN);
            if (n % 3 != 0) {
                series_expect(&alive, size, (double)size, MEAN);
                series_expect(&blocks_alive, size, 1, MEAN);
            }
        }
        for (int round = 0; round < ROUNDS; round++) {
            begin(MEAN);
            for (uint64_t n = 0; n < blocks; n++) {
                allocate(address_of(n), size);
            }
            for (uint64_t n = 0; n < blocks; n += 3) {
                release(address_of(n));
            }
            const pmt__sample_sums live = sums_of(1);
            series_add(&allocated, allocated_bytes(), sums_of(0).bytes2);
            series_add(&alive, (double)pmt__t.live_bytes, live.bytes2);
            series_add(&blocks_alive, live_blocks(), live.blocks2);
            assert_int_equal(live.samples, S.live);
            assert_int_equal(live.sure_bytes, size >= 8 * MEAN ? pmt__t.live_bytes : 0);
            assert_int_equal(live.sure_blocks, size >= 8 * MEAN ? S.live : 0);
            end();
        }
        series_check(&allocated, "allocated");
        series_check(&alive, "alive");
        series_check(&blocks_alive, "blocks alive");
    }
}

/* As lists grow: some in their place, most of them elsewhere. */
static void
blocks_that_grow_are_unbiased(void **state)
{
    (void)state;
    enum {
        ROUNDS = 1000,
        LISTS = 5,
        SIZE_MAX_ = 200000
    };
    series allocated = {0}, alive = {0};
    uint64_t last = 0;
    for (uint64_t size = 64; size < SIZE_MAX_; size += size / 8) {
        for (int list = 0; list < LISTS; list++) {
            series_expect(&allocated, size, (double)size, MEAN);
        }
        last = size;
    }
    for (int list = 0; list < LISTS; list++) {
        series_expect(&alive, last, (double)last, MEAN);
    }
    for (int round = 0; round < ROUNDS; round++) {
        begin(MEAN);
        for (uint64_t list = 0; list < LISTS; list++) {
            void *block = NULL;
            for (uint64_t size = 64; size < SIZE_MAX_; size += size / 8) {
                void *to = block != NULL && size % 3 == 0 ? block : address_of(list << 20 | size);
                if (block != NULL) {
                    release(block);
                }
                allocate(to, size);
                block = to;
            }
        }
        series_add(&allocated, allocated_bytes(), sums_of(0).bytes2);
        series_add(&alive, (double)pmt__t.live_bytes, sums_of(1).bytes2);
        end();
    }
    series_check(&allocated, "allocated");
    series_check(&alive, "alive");
}

static const uint64_t mixed_sizes[] = {24, 56, 400, 3000, 20000, 150000, 900000};

static uint64_t
mixed_size(uint64_t n)
{
    return n % 1000 == 0  ? mixed_sizes[6]
           : n % 100 == 0 ? mixed_sizes[3 + n / 100 % 3]
                          : mixed_sizes[n % 3];
}

/* More and more live samples: the mean is doubled many times, and what lives stays unbiased; what was allocated is not counted
   again. As if everything had been drawn with the last mean. */
static void
thinning_is_unbiased(void **state)
{
    (void)state;
    enum {
        ROUNDS = 40,
        BLOCKS = 400000,
        FIRST = 1024
    };
    for (int round_of = 0; round_of < 2; round_of++) { /* with frees, and without */
        series alive = {0}, blocks_alive = {0};
        uint64_t mean = 0;
        double errors_allocated = 0, truth_allocated = 0, variance_allocated = 0;
        for (int round = 0; round < ROUNDS; round++) {
            begin(FIRST);
            truth_allocated = 0;
            for (uint64_t n = 0; n < BLOCKS; n++) {
                allocate(address_of(n), mixed_size(n));
                truth_allocated += (double)mixed_size(n);
                assert_true(S.live <= PMT_SAMPLE_LIVE_MAX);
                if (round_of == 1 && n % 4 == 3) {
                    release(address_of(n - 2));
                }
            }
            assert_true(S.doubled >= 3);
            assert_int_equal(S.mean, (uint64_t)FIRST << S.doubled);
            if (S.mean != mean) { /* the last step can come in some rounds only */
                assert_true(mean == 0 || S.mean == 2 * mean || mean == 2 * S.mean);
                mean = S.mean > mean ? S.mean : mean;
                series fresh = {0}, fresh_blocks = {0};
                for (uint64_t n = 0; n < BLOCKS; n++) {
                    if (round_of == 0 || n % 4 != 1) {
                        series_expect(&fresh, mixed_size(n), (double)mixed_size(n), mean);
                        series_expect(&fresh_blocks, mixed_size(n), 1, mean);
                    }
                }
                alive.truth = fresh.truth, alive.variance = fresh.variance;
                blocks_alive.truth = fresh_blocks.truth;
                blocks_alive.variance = fresh_blocks.variance;
            }
            const pmt__sample_sums live = sums_of(1);
            series_add(&alive, (double)pmt__t.live_bytes, live.bytes2);
            series_add(&blocks_alive, live_blocks(), live.blocks2);
            assert_int_equal(live.samples, S.live);
            errors_allocated += allocated_bytes() - truth_allocated;
            variance_allocated = sums_of(0).bytes2;
            end();
        }
        double n = ROUNDS;
        /* the variance is at most that of the largest mean */
        assert_true(fabs(alive.errors / n) < SIGMAS * sqrt(alive.variance / n));
        assert_true(fabs(blocks_alive.errors / n) < SIGMAS * sqrt(blocks_alive.variance / n));
        assert_true(alive.said / n < alive.variance * 1.2);
        assert_true(alive.said / n > alive.variance * 0.3);
        assert_true(alive.squares / n < alive.variance * (1 + 2 * SIGMAS * sqrt(2 / n)));
        assert_true(fabs(errors_allocated / n) < SIGMAS * sqrt(alive.variance / n));
        assert_true(variance_allocated < alive.variance * 1.2);
    }
}

static void
the_heap_never_looks_higher_while_it_is_thinned(void **state)
{
    (void)state;
    begin(4096);
    for (uint64_t n = 0; n < 60000; n++) {
        allocate(address_of(n), 300);
    }
    release(address_of(0));
    for (uint64_t n = 0; n < 30000; n++) { /* far below the peak */
        release(address_of(2 * n));
    }
    allocate(address_of(100000), 100000);
    uint64_t peak = pmt__t.peaks[0].bytes;
    uint64_t before = pmt__t.live_bytes;
    assert_true(before < peak * 3 / 4);
    pmt__sampling_mean_set_nopy(8192);
    pmt__sampling_mean_set_nopy(1 << 20);
    assert_int_equal(pmt__t.peaks[0].bytes, peak);
    assert_false(pmt__t.peaks[0].growing);
    end();
}

static void
a_smaller_mean_keeps_the_weights_of_what_lives(void **state)
{
    (void)state;
    enum {
        ROUNDS = 600,
        BLOCKS = 2000,
        SIZE = 1000
    };
    series alive = {0}, rest = {0};
    for (uint64_t n = 0; n < BLOCKS; n++) {
        series_expect(&alive, SIZE, SIZE, MEAN);
        series_expect(&alive, SIZE, SIZE, MEAN / 16);
    }
    for (uint64_t n = 0; n < BLOCKS / 2; n++) {
        series_expect(&rest, SIZE, SIZE, MEAN);
    }
    for (int round = 0; round < ROUNDS; round++) {
        begin(MEAN);
        for (uint64_t n = 0; n < BLOCKS; n++) {
            allocate(address_of(n), SIZE);
        }
        pmt__sampling_mean_set_nopy(MEAN / 16);
        assert_int_equal(S.always, MEAN / 2);
        draw_anew(); /* else a point of the old mean comes first */
        for (uint64_t n = 0; n < BLOCKS; n++) {
            allocate(address_of(BLOCKS + n), SIZE);
        }
        series_add(&alive, (double)pmt__t.live_bytes, sums_of(1).bytes2);
        for (uint64_t n = 0; n < BLOCKS; n++) {
            release(address_of(BLOCKS + n));
        }
        for (uint64_t n = 0; n < BLOCKS; n += 2) {
            release(address_of(n));
        }
        series_add(&rest, (double)pmt__t.live_bytes, sums_of(1).bytes2);
        for (uint64_t n = 1; n < BLOCKS; n += 2) {
            release(address_of(n));
        }
        assert_int_equal(pmt__t.live_bytes, 0);
        const pmt__sample_sums none = sums_of(1);
        assert_int_equal(none.samples, 0);
        assert_true(fabs(none.bytes2) < 1e-6 * sums_of(0).bytes2);
        end();
    }
    series_check(&alive, "alive");
    series_check(&rest, "what is left of the first");
}

/* A point that was drawn with one mean and hit with another. */
static void
a_point_from_before_is_worth_what_it_was(void **state)
{
    (void)state;
    enum {
        ROUNDS = 4000,
        BLOCKS = 40,
        SIZE = 700
    };
    static const uint64_t means[][2] = {{2048, 8192}, {8192, 2048}};
    for (size_t i = 0; i < 2; i++) {
        series allocated = {0};
        uint64_t larger = 8192;
        for (uint64_t n = 0; n < BLOCKS; n++) {
            series_expect(&allocated, SIZE, SIZE, larger);
        }
        for (int round = 0; round < ROUNDS; round++) {
            begin(means[i][0]);
            pmt__sampling_mean_set_nopy(means[i][1]);
            for (uint64_t n = 0; n < BLOCKS; n++) {
                allocate(address_of(n), SIZE);
            }
            series_add(&allocated, allocated_bytes(), 0);
            end();
        }
        double n = ROUNDS;
        assert_true(fabs(allocated.errors / n) < SIGMAS * sqrt(allocated.variance / n));
    }
}

/* --- what lived at the peak ------------------------------------------------------------------------------------------------- */

static void
sums_at_the_peak_are_kept(void **state)
{
    (void)state;
    begin(MEAN);
    for (uint64_t n = 0; n < 5000; n++) {
        allocate(address_of(n), 100 + n % 2 * 8 * MEAN);
    }
    const pmt__sample_sums peak = sums_of(1);
    assert_int_equal(peak.sure_blocks, 2500);
    assert_true(peak.blocks2 > 0);
    for (uint64_t n = 0; n < 5000; n++) {
        release(address_of(n));
    }
    for (uint64_t n = 0; n < 100; n++) {
        allocate(address_of(n), 100 + n % 2 * 8 * MEAN);
    }
    pmt__sample_sums noted = {0};
    for (uint32_t site = 1; site < pmt__t.site_count; site++) {
        assert_int_equal(S.sites[site].run, pmt__t.peaks[0].run);
        pmt__sample_sums_add(&noted, &S.sites[site].at_peak, 1);
    }
    assert_memory_equal(&noted, &peak, sizeof peak);
    end();
}

/* --- the table ------------------------------------------------------------------------------------------------------------- */

static void
the_filter_knows_what_the_table_has(void **state)
{
    (void)state;
    enum {
        BLOCKS = 4000
    };
    begin(1024);
    for (uint64_t n = 0; n < BLOCKS; n++) {
        allocate(address_of(n), 8192);
    }
    assert_int_equal(S.live, BLOCKS);
    int found = 0;
    for (uint64_t n = 0; n < BLOCKS; n++) {
        assert_true(pmt__sample_maybe(address_of(n)));
        assert_true(pmt__sample_find(address_of(n)) >= 0);
        found += pmt__sample_maybe(address_of(BLOCKS + n));
        assert_int_equal(pmt__sample_find(address_of(BLOCKS + n)), -1);
    }
    assert_true(found < BLOCKS / 8); /* false alarms: 4000 of 131072 cells */
    for (uint64_t n = 0; n < BLOCKS; n++) {
        release(address_of(n));
    }
    for (size_t i = 0; i < sizeof pmt__sample_filter; i++) {
        assert_int_equal(pmt__sample_filter[i], 0);
    }
    assert_int_equal(S.live, 0);
    end();
}

/* Blocks whose places are all taken are counted as lost, and nothing else changes; a cell of the filter that is full stays so. */
static void
a_full_bucket_loses_a_sample(void **state)
{
    (void)state;
    enum {
        PLACES = PMT_SAMPLE_BUCKET * PMT_SAMPLE_BUCKETS_LOOKED
    };
    begin(1024);
    uint32_t slots = 1u << PMT_SAMPLE_BITS, first = 0;
    uint64_t taken = 0, number = 0;
    for (; taken < PLACES + 20; number++) {
        uint32_t place = pmt__sample_hash(address_of(number)) * PMT_SAMPLE_BUCKET & (slots - 1);
        if (number == 0) {
            first = place;
        }
        if (place == first) {
            allocate(address_of(number), 8192);
            taken++;
        }
    }
    assert_int_equal(S.live, PLACES);
    assert_int_equal(pmt__t.live_bytes, PLACES * 8192);
    assert_int_equal(pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT], 20);
    assert_int_equal(sums_of(1).samples, PLACES);
    while (number-- > 0) {
        release(address_of(number));
    }
    assert_int_equal(S.live, 0);
    assert_int_equal(pmt__t.live_bytes, 0);
    end();
}

static void
watched_blocks_are_no_samples(void **state)
{
    (void)state;
    begin(1024);
    void *watched = address_of(7);
    pmt__sample_watch_nopy(watched);
    pmt__sample_watch_nopy(watched);
    assert_int_equal(S.live, 1);
    assert_true(pmt__sample_maybe(watched));
    pmt__sampling_mean_set_nopy(1 << 20);
    int32_t slot = pmt__sample_find(watched);
    assert_true(slot >= 0);
    pmt__sample sample = pmt__sample_take_nopy(slot);
    assert_int_equal(sample.cohort, 0);
    pmt__sample_died_nopy(&sample);
    assert_int_equal(pmt__t.live_bytes, 0);
    assert_int_equal(sums_of(0).samples, 0);
    assert_int_equal(S.live, 0);
    end();
}

static void
a_block_that_could_not_move_is_what_it_was(void **state)
{
    (void)state;
    begin(1024);
    for (uint64_t n = 0; n < 1000; n++) {
        allocate(address_of(n), 600);
    }
    uint64_t bytes = pmt__t.live_bytes;
    const pmt__sample_sums live = sums_of(1);
    for (uint64_t n = 0; n < 1000; n++) {
        int32_t slot = pmt__sample_find(address_of(n));
        if (slot >= 0) {
            const pmt__sample sample = pmt__sample_take_nopy(slot);
            assert_int_equal(pmt__sample_find(address_of(n)), -1);
            pmt__sample_put_nopy(address_of(n), &sample);
        }
    }
    const pmt__sample_sums again = sums_of(1);
    assert_int_equal(pmt__t.live_bytes, bytes);
    assert_memory_equal(&again, &live, sizeof live);
    end();
}

/* An address is allocated again whose free was not seen. */
static void
an_address_lives_once(void **state)
{
    (void)state;
    begin(1024);
    for (uint64_t n = 0; n < 3000; n++) {
        allocate(address_of(n % 3), 8192);
    }
    assert_int_equal(S.live, 3);
    assert_int_equal(pmt__t.live_bytes, 3 * 8192);
    assert_int_equal(sums_of(0).samples, 3000);
    assert_int_equal(sums_of(1).samples, 3);
    end();
}

/* --- threads, forks --------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t tables = PTHREAD_MUTEX_INITIALIZER;

enum {
    THREADS = 4,
    THREAD_BLOCKS = 20000,
    THREAD_SIZE = 300
};

static void *
allocate_in_a_thread(void *argument)
{
    uint64_t which = (uint64_t)(uintptr_t)argument;
    for (uint64_t n = 0; n < THREAD_BLOCKS; n++) {
        uint64_t mean;
        if (is_due(THREAD_SIZE, &mean)) {
            pthread_mutex_lock(&tables);
            pmt__sample_born_nopy(address_of(which << 20 | n), THREAD_SIZE, cohort_of(THREAD_SIZE),
                                  mean);
            pthread_mutex_unlock(&tables);
        }
    }
    return NULL;
}

static void
threads_draw_on_their_own(void **state)
{
    (void)state;
    enum {
        ROUNDS = 60
    };
    series alive = {0};
    for (int n = 0; n < THREADS * THREAD_BLOCKS; n++) {
        series_expect(&alive, THREAD_SIZE, THREAD_SIZE, MEAN);
    }
    for (int round = 0; round < ROUNDS; round++) {
        begin(MEAN);
        pthread_t threads[THREADS];
        for (uintptr_t i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, allocate_in_a_thread, (void *)i), 0);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        series_add(&alive, (double)pmt__t.live_bytes, sums_of(1).bytes2);
        end();
    }
    series_check(&alive, "alive");
}

/* The next distances of this thread. */
static void
draw(int64_t distances[8])
{
    for (int i = 0; i < 8; i++) {
        distances[i] = pmt__sample_left;
        draw_anew();
    }
}

static void
draw_in_a_child(int64_t distances[8], uint64_t *inherited)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct {
            int64_t distances[8];
            uint64_t inherited;
        } found;
        pmt__tables_forked_nopy(0);
        draw(found.distances);
        found.inherited = sums_of(0).samples;
        _exit(write(ends[1], &found, sizeof found) == (ssize_t)sizeof found ? 0 : 1);
    }
    assert_int_equal(read(ends[0], distances, 8 * sizeof *distances), 8 * sizeof *distances);
    assert_int_equal(read(ends[0], inherited, sizeof *inherited), sizeof *inherited);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(ends[0]);
    close(ends[1]);
}

static void
children_draw_other_points(void **state)
{
    (void)state;
    begin(MEAN);
    for (uint64_t n = 0; n < 5000; n++) {
        allocate(address_of(n), 1000);
    }
    int64_t of[3][8];
    uint64_t inherited[2];
    draw_in_a_child(of[0], &inherited[0]);
    draw_in_a_child(of[1], &inherited[1]);
    draw(of[2]);
    for (int i = 0; i < 8; i++) {
        assert_true(of[0][i] >= 0);
        assert_int_not_equal(of[0][i], of[1][i]);
        assert_int_not_equal(of[0][i], of[2][i]);
        assert_int_not_equal(of[1][i], of[2][i]);
    }
    assert_int_equal(inherited[0], S.live);
    assert_int_equal(inherited[1], S.live);
    end();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_size_is_unbiased),
        cmocka_unit_test(blocks_that_grow_are_unbiased),
        cmocka_unit_test(thinning_is_unbiased),
        cmocka_unit_test(the_heap_never_looks_higher_while_it_is_thinned),
        cmocka_unit_test(a_smaller_mean_keeps_the_weights_of_what_lives),
        cmocka_unit_test(a_point_from_before_is_worth_what_it_was),
        cmocka_unit_test(sums_at_the_peak_are_kept),
        cmocka_unit_test(the_filter_knows_what_the_table_has),
        cmocka_unit_test(a_full_bucket_loses_a_sample),
        cmocka_unit_test(watched_blocks_are_no_samples),
        cmocka_unit_test(a_block_that_could_not_move_is_what_it_was),
        cmocka_unit_test(an_address_lives_once),
        cmocka_unit_test(threads_draw_on_their_own),
        cmocka_unit_test(children_draw_other_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
