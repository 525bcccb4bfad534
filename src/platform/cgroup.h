/* The memory of this process' cgroup, of version 1 or 2: how much it uses, how much it may, what happened at the limit. */
#ifndef PMT_PLATFORM_CGROUP_H
#define PMT_PLATFORM_CGROUP_H

#include <stdint.h>

#include "platform/figures.h"
#include "platform/kept.h"
#include "platform/psi.h"

#define PMT_NO_LIMIT (UINT64_MAX - 1)
#define PMT_CGROUP_PATH 1024
#define PMT_CGROUP_LIMITS 8 /* groups whose limits are looked at again and again */

typedef struct pmt__cgroup_figures { /* bytes; PMT_UNKNOWN where it is not known */
    uint64_t usage;
    uint64_t limit, high; /* the smallest ones up to the root, or PMT_NO_LIMIT */
    uint64_t ooms, oom_kills, limit_hits, high_hits; /* counted since the group was made */
    uint64_t anon, file, inactive_file, kernel, shmem;
    pmt__psi psi;
} pmt__cgroup_figures;

typedef struct pmt__cgroup {
    const char *root, *proc; /* borrowed: "/sys/fs/cgroup", "/proc" */
    int version; /* of the hierarchy that has the memory controller: 1, 2; 0: there is none, or it is not known */
    int known;                  /* which group it is was asked */
    int found;                  /* `folder` is there */
    char path[PMT_CGROUP_PATH]; /* as /proc/self/cgroup has it */
    char folder[2 * PMT_CGROUP_PATH];
    size_t folder_length, mount_length; /* of it: the part that is the mount point */
    pmt__kept membership, usage, events, oom_control, pressure, stat;
    struct {
        size_t length; /* of `folder`: the group */
        pmt__kept limit, high;
    } limits[PMT_CGROUP_LIMITS]; /* the group itself, and those above it that have a limit */
    size_t limit_count;
    uint64_t limit_above, high_above; /* of further ones, as they were once */
    uint64_t hierarchical;            /* version 1: the limit in force */
    pmt__cgroup_figures now;
    /* Not on the stack: the last cut of a program can be taken in a signal handler. */
    struct {
        int version;
        char path[PMT_CGROUP_PATH];
    } asked;
    char name[2 * PMT_CGROUP_PATH + 64]; /* of the file that is being opened */
    char text[4096];                     /* of the file that is being read */
} pmt__cgroup;

void pmt__cgroup_init(pmt__cgroup *self, const char *root, const char *proc);

/* Reads into self->now. thorough: also what changes rarely or costs more (limits, memory.stat, which group it is); the first time
   this is always so. Allocates nothing. One caller at a time. */
void pmt__cgroup_read(pmt__cgroup *self, int thorough);

/* Closes the files; what is read next is read anew. */
void pmt__cgroup_close(pmt__cgroup *self);

#endif
