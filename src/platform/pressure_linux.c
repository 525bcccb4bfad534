#include "platform/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "platform/figures.h"

static void
forget(pmt__pressure_source *self)
{
    self->stalls = (pmt__psi){PMT_UNKNOWN, PMT_UNKNOWN, PMT_UNKNOWN, PMT_UNKNOWN};
    self->stalls_of = PMT_UNKNOWN;
    self->host_available = self->host_total = self->host_swap_free = PMT_UNKNOWN;
    self->swap = self->peak_rss = PMT_UNKNOWN;
}

void
pmt__pressure_source_init(pmt__pressure_source *self, const char *root, const char *proc)
{
    memset(self, 0, sizeof *self);
    pmt__cgroup_init(&self->cgroup, root, proc);
    forget(self);
}

void
pmt__pressure_source_close(pmt__pressure_source *self)
{
    pmt__cgroup_close(&self->cgroup);
    pmt__kept *files[] = {&self->psi, &self->meminfo, &self->status, &self->oom_score};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        pmt__kept_close(files[i]);
    }
}

static uint64_t
kib(const char *text)
{
    uint64_t value = pmt__figure(text);
    return value > (UINT64_MAX - 2) / 1024 ? PMT_UNKNOWN : value * 1024;
}

/* A line such as "MemTotal:       65843372 kB". 1 if it was the line of this key. */
static int
kib_take(const char *line, const char *key, uint64_t *out)
{
    const char *at = pmt__after_key(line, key);
    if (at != NULL) {
        *out = kib(at);
    }
    return at != NULL;
}

static int
meminfo_line(void *context, char *line)
{
    pmt__pressure_source *self = context;
    kib_take(line, "MemTotal", &self->host_total);
    kib_take(line, "MemAvailable", &self->host_available);
    return kib_take(line, "SwapFree", &self->host_swap_free); /* the last of them */
}

static int
status_line(void *context, char *line)
{
    pmt__pressure_source *self = context;
    kib_take(line, "VmHWM", &self->peak_rss);
    return kib_take(line, "VmSwap", &self->swap);
}

static void
lines_of(pmt__pressure_source *self, pmt__kept *file, const char *name,
         int (*each)(void *context, char *line))
{
    pmt__cgroup *cgroup = &self->cgroup;
    snprintf(cgroup->name, sizeof cgroup->name, "%s/%s", cgroup->proc, name);
    int fd = pmt__kept_fd(file, cgroup->name, O_RDONLY);
    if (fd >= 0) {
        pmt__lines_read(fd, cgroup->text, sizeof cgroup->text, each, self);
    }
}

static int
oom_score_line(void *context, char *line)
{
    pmt__pressure_source *self = context;
    int negative = line[0] == '-';
    uint64_t value = pmt__figure(line + negative);
    if (value <= 1000) {
        self->oom_score_known = 1;
        self->oom_score_adj = negative ? -(int64_t)value : (int64_t)value;
    }
    return 1;
}

void
pmt__pressure_source_read(pmt__pressure_source *self, int thorough)
{
    int saved = errno;
    pmt__cgroup *cgroup = &self->cgroup;
    pmt__cgroup_read(cgroup, thorough);
    forget(self);
    self->stalls = cgroup->now.psi;
    self->stalls_of = PMT_PSI_OF_CGROUP;
    if (self->stalls.some_us == PMT_UNKNOWN) {
        snprintf(cgroup->name, sizeof cgroup->name, "%s/pressure/memory", cgroup->proc);
        pmt__psi_read(&self->stalls, &self->psi, cgroup->name, cgroup->text, sizeof cgroup->text);
        self->stalls_of = self->stalls.some_us == PMT_UNKNOWN ? PMT_UNKNOWN : PMT_PSI_OF_HOST;
    }
    lines_of(self, &self->meminfo, "meminfo", meminfo_line);
    lines_of(self, &self->status, "self/status", status_line);
    if (thorough || !self->oom_score_known) {
        self->oom_score_known = 0;
        lines_of(self, &self->oom_score, "self/oom_score_adj", oom_score_line);
    }
    errno = saved;
}
