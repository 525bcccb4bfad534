/* launch RESULT CPU COMMAND...: runs COMMAND pinned to CPU and writes one line to the file RESULT:
   wall seconds, user seconds, system seconds, peak resident set in KiB, exit status (negative: signal).

   Why not from Python: Linux carries the resident set of the process that forks into the child's ru_maxrss, so a
   Python parent hides every peak below its own size. This program needs about 1 MiB.

   CPU -1 leaves the affinity alone. With LAUNCH_FIXED_ADDRESSES set, addresses are not randomised, where the
   kernel allows that: two runs of the same program then do the same. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double
seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static double
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: launch RESULT CPU COMMAND...\n");
        return 2;
    }
    int cpu = atoi(argv[2]);
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set) != 0) {
            perror("launch: sched_setaffinity");
            return 2;
        }
    }
    if (getenv("LAUNCH_FIXED_ADDRESSES") != NULL) {
        (void)personality(ADDR_NO_RANDOMIZE);
    }
    double start = now();
    pid_t child = fork();
    if (child < 0) {
        perror("launch: fork");
        return 2;
    }
    if (child == 0) {
        execvp(argv[3], argv + 3);
        perror(argv[3]);
        _exit(127);
    }
    int status;
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) < 0) {
        perror("launch: wait4");
        return 2;
    }
    double wall = now() - start;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    FILE *result = fopen(argv[1], "w");
    if (result == NULL) {
        perror(argv[1]);
        return 2;
    }
    fprintf(result, "%.6f %.6f %.6f %ld %d\n", wall, seconds(usage.ru_utime),
            seconds(usage.ru_stime), usage.ru_maxrss, code);
    return fclose(result) == 0 ? 0 : 2;
}
