/* Threads that Python does not know: they allocate, hand blocks to one another, and free what they find. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    PLACES = 256,
    THREADS_MAX = 64
};

typedef struct work {
    _Atomic(void *) *places;
    unsigned pairs, seed;
    unsigned long done;
} work;

static void *
run(void *arg)
{
    work *self = arg;
    unsigned random = self->seed;
    for (unsigned i = 0; i < self->pairs; i++) {
        random = random * 1103515245u + 12345u;
        size_t size = (random >> 8) % 1200 + 1;
        char *block = malloc(size);
        memset(block, (int)i, size);
        if (random >> 30 == 0) {
            block = realloc(block, size * 2);
        }
        free(atomic_exchange(&self->places[random >> 16 & (PLACES - 1)], block));
        self->done++;
    }
    return NULL;
}

unsigned long storm(unsigned threads, unsigned pairs);
unsigned long
storm(unsigned threads, unsigned pairs)
{
    static atomic_uint seeds;
    _Atomic(void *) *places = calloc(PLACES, sizeof *places);
    pthread_t ids[THREADS_MAX];
    work works[THREADS_MAX];
    unsigned long done = 0;
    for (unsigned i = 0; i < threads; i++) {
        works[i] = (work){places, pairs, atomic_fetch_add(&seeds, 7919), 0};
        if (pthread_create(&ids[i], NULL, run, &works[i]) != 0) {
            abort();
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        done += works[i].done;
    }
    for (int i = 0; i < PLACES; i++) {
        free(atomic_load(&places[i]));
    }
    free(places);
    return done;
}
