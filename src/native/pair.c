#include "native/pair.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum {
    BATCH = 64,
    REPEAT = 20,
    THREADS_MAX = 256
};

typedef struct work {
    size_t size;
    unsigned rounds;
    clockid_t clock;
    double best_ns, sum_ns; /* of a pair; of all pairs */
} work;

static double
now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *
do_work(void *arg)
{
    work *self = arg;
    void *volatile blocks
        [BATCH]; /* volatile: the compiler may leave out a pair that nobody looks at */
    for (unsigned round = 0; round < self->rounds; round++) {
        double start = now_ns(self->clock);
        for (int k = 0; k < REPEAT; k++) {
            for (int i = 0; i < BATCH; i++) {
                blocks[i] = malloc(self->size);
            }
            for (int i = BATCH - 1; i >= 0; i--) {
                free(blocks[i]);
            }
        }
        double ns = now_ns(self->clock) - start;
        self->sum_ns += ns;
        if (round == 0 || ns / (BATCH * REPEAT) < self->best_ns) {
            self->best_ns = ns / (BATCH * REPEAT);
        }
    }
    return NULL;
}

double
pmt__native_pair_ns(size_t size, unsigned rounds, unsigned threads)
{
    work works[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    if (threads == 1) {
        work one = {size, rounds, CLOCK_MONOTONIC, 0, 0};
        do_work(&one);
        return one.best_ns;
    }
    threads = threads > THREADS_MAX ? THREADS_MAX : threads;
    unsigned started = 0;
    for (; started < threads; started++) {
        works[started] = (work){size, rounds, CLOCK_THREAD_CPUTIME_ID, 0, 0};
        if (pthread_create(&ids[started], NULL, do_work, &works[started]) != 0) {
            break;
        }
    }
    double sum = 0;
    for (unsigned i = 0; i < started; i++) {
        pthread_join(ids[i], NULL);
        sum += works[i].sum_ns;
    }
    return started < threads ? -1 : sum / ((double)threads * rounds * BATCH * REPEAT);
}
