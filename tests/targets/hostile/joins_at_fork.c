/* A library with a thread of its own that is stopped before the process forks, as OpenBLAS does. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_t thread;
static volatile int stop;

static void *
work(void *unused)
{
    while (!stop) {
        void *volatile block = malloc(100);
        free(block);
        usleep(100);
    }
    return unused;
}

static void
before_fork(void)
{
    stop = 1;
    pthread_join(thread, NULL);
}

int
begin(void)
{
    return pthread_create(&thread, NULL, work, NULL) || pthread_atfork(before_fork, NULL, NULL);
}
