/* How short memory is around this process: its cgroup, the host, the process itself. */
#ifndef PMT_PLATFORM_PRESSURE_H
#define PMT_PLATFORM_PRESSURE_H

#include <stdint.h>

#include "platform/cgroup.h"
#include "platform/kept.h"
#include "platform/psi.h"

enum {
    PMT_PSI_OF_CGROUP = 1,
    PMT_PSI_OF_HOST = 2
};

typedef struct pmt__pressure_source {
    pmt__cgroup cgroup;
    pmt__kept psi, meminfo, status, oom_score;
    /* As they were read last; PMT_UNKNOWN where it is not known. */
    pmt__psi stalls; /* the cgroup's if it has any, else the host's */
    uint64_t stalls_of;
    uint64_t host_available, host_total, host_swap_free;
    uint64_t swap, peak_rss; /* of the process */
    int oom_score_known;
    int64_t oom_score_adj;
} pmt__pressure_source;

/* root, proc: borrowed; "/sys/fs/cgroup", "/proc". */
void pmt__pressure_source_init(pmt__pressure_source *self, const char *root, const char *proc);
/* As pmt__cgroup_read. */
void pmt__pressure_source_read(pmt__pressure_source *self, int thorough);
/* Closes the files: in a forked child they speak of its parent. */
void pmt__pressure_source_close(pmt__pressure_source *self);

#endif
