#include "record/overhead.h"

#include <string.h>

#include "platform/platform.h"
#include "record/sample.h"
#include "record/tables.h"

#define WINDOW_NS ((uint64_t)10000000000)
#define QUIET_WINDOWS 6u
#define IDLE_SHARE \
    20 /* a process that uses less than a 20th of a core is taken as if it used that */

void
pmt__overhead_begin(pmt__overhead *self, double limit, uint64_t interval_ns, uint64_t mean)
{
    memset(self, 0, sizeof *self);
    self->limit = limit;
    self->interval_asked_ns = self->interval_ns = interval_ns;
    self->mean_asked = mean;
    self->process_start_ns = self->from_process_ns = pmt__process_cpu_ns();
    self->mono_ns = self->from_ns = pmt__clock_mono_ns();
    self->ticks_now = pmt__ticks();
}

void
pmt__overhead_thread_begins(pmt__overhead *self)
{
    self->thread_seen_ns = pmt__thread_cpu_ns();
}

void
pmt__overhead_decide(pmt__overhead *self, uint64_t own_ns, uint64_t sample_ns, uint64_t process_ns,
                     uint64_t wall_ns, uint64_t *mean)
{
    uint64_t base = process_ns > wall_ns / IDLE_SHARE ? process_ns : wall_ns / IDLE_SHARE;
    double share = base == 0 ? 0 : (double)(own_ns + sample_ns) / (double)base;
    int can_sample_less = *mean != 0 && *mean <= PMT_SAMPLE_MEAN_MAX / 2;
    if (self->limit == 0) {
        return;
    }
    if (share > self->limit) {
        self->quiet = 0;
        if (can_sample_less && (sample_ns >= own_ns || self->interval_ns >= PMT_INTERVAL_MAX_NS)) {
            *mean *= 2;
            self->backed_off++;
        } else if (self->interval_ns < PMT_INTERVAL_MAX_NS) {
            self->interval_ns = self->interval_ns * 2 < PMT_INTERVAL_MAX_NS ? self->interval_ns * 2
                                                                            : PMT_INTERVAL_MAX_NS;
            self->backed_off++;
        }
        return;
    }
    self->quiet = share < self->limit / 4 ? self->quiet + 1 : 0;
    if (self->quiet < QUIET_WINDOWS) {
        return;
    }
    self->quiet = 0;
    if (self->interval_ns > self->interval_asked_ns) {
        self->interval_ns /= 2;
        if (self->interval_ns < self->interval_asked_ns) {
            self->interval_ns = self->interval_asked_ns;
        }
    } else if (self->mean_asked != 0 && *mean / 2 >= self->mean_asked
               && pmt__sampling_now.live < PMT_SAMPLE_LIVE_MAX / 4) {
        *mean /= 2;
    }
}

static void
count(const pmt__overhead *self, uint64_t process_ns)
{
    const uint64_t values[][2] = {
        {PMT_COUNTER_OWN_CPU, self->own_ns / 1000},
        {PMT_COUNTER_SAMPLE_CPU, self->sample_ns / 1000},
        {PMT_COUNTER_PROCESS_CPU, (process_ns - self->process_start_ns) / 1000},
        {PMT_COUNTER_BACKED_OFF, self->backed_off},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        __atomic_store_n(&pmt__t.counters[values[i][0]], values[i][1], __ATOMIC_RELAXED);
    }
}

void
pmt__overhead_look(pmt__overhead *self, uint64_t *mean)
{
    uint64_t thread_ns = pmt__thread_cpu_ns(), process_ns = pmt__process_cpu_ns();
    uint64_t ticks = __atomic_load_n(&pmt__sampling_now.ticks, __ATOMIC_RELAXED);
    uint64_t mono_ns = pmt__clock_mono_ns(), ticks_now = pmt__ticks();
    self->own_ns += thread_ns - self->thread_seen_ns;
    if (ticks_now > self->ticks_now && ticks > self->ticks_seen) {
        double ns_per_tick =
            (double)(mono_ns - self->mono_ns) / (double)(ticks_now - self->ticks_now);
        self->sample_ns += (uint64_t)((double)(ticks - self->ticks_seen) * ns_per_tick);
    }
    self->thread_seen_ns = thread_ns;
    self->ticks_seen = ticks;
    self->ticks_now = ticks_now;
    self->mono_ns = mono_ns;
    count(self, process_ns);
    if (mono_ns - self->from_ns >= WINDOW_NS) {
        pmt__overhead_decide(self, self->own_ns - self->from_own_ns,
                             self->sample_ns - self->from_sample_ns,
                             process_ns - self->from_process_ns, mono_ns - self->from_ns, mean);
        self->from_ns = mono_ns;
        self->from_own_ns = self->own_ns;
        self->from_sample_ns = self->sample_ns;
        self->from_process_ns = process_ns;
    }
}
