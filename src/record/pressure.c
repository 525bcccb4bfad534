/* A section has only what changed, but always what has a highest value in merged windows: there, a figure that did not change would
   be one of which the window does not know. */
#include "record/pressure.h"

#include <string.h>

#include "platform/platform.h"

#define THOROUGH_NS ((uint64_t)5 * 1000000000)

_Static_assert(PMT_UNKNOWN == PMT_PRESSURE_UNKNOWN && PMT_NO_LIMIT == PMT_PRESSURE_NONE,
               "the platform and the format mean the same");

static void
forget(uint64_t figures[PMT_PRESSURE_COUNT])
{
    for (size_t i = 0; i < PMT_PRESSURE_COUNT; i++) {
        figures[i] = PMT_PRESSURE_UNKNOWN;
    }
}

void
pmt__pressure_init(pmt__pressure *self)
{
    pmt__pressure_source_init(&self->source, "/sys/fs/cgroup", "/proc");
    pmt__pressure_begin(self);
}

void
pmt__pressure_begin(pmt__pressure *self)
{
    forget(self->told);
    self->thorough_after_ns = 0;
    pmt__pressure_source_read(&self->source, 1);
    /* A process that ends before its first cut has no descriptors of ours. */
    pmt__pressure_close(self);
}

void
pmt__pressure_close(pmt__pressure *self)
{
    pmt__pressure_source_close(&self->source);
}

void
pmt__pressure_facts_put(const pmt__pressure *self, pmt__buffer *out, uint32_t *count)
{
    const pmt__cgroup *group = &self->source.cgroup;
    uint64_t limit = group->now.limit;
    pmt__fact_put_number(out, "memory_limit_bytes", limit >= PMT_NO_LIMIT ? 0 : limit);
    *count += 1;
    if (group->version != 0) {
        pmt__fact_put_number(out, "cgroup_version", (uint64_t)group->version);
        pmt__fact_put_text(out, "cgroup_path", group->path);
        *count += 2;
    }
}

/* --- the section ------------------------------------------------------------------------------------------------------- */

static uint8_t *
figure_put(uint8_t *at, uint64_t which, uint64_t value)
{
    at = pmt__varint_put(at, which);
    return pmt__varint_put(at, value + 1); /* unknown: 0 */
}

static void
section_put(pmt__buffer *payload, uint64_t count, const uint8_t *pairs, size_t size)
{
    uint8_t head[1 + 2 * PMT_VARINT_MAX], number[PMT_VARINT_MAX];
    size_t number_size = (size_t)(pmt__varint_put(number, count) - number);
    head[0] = PMT_SECTION_PRESSURE;
    uint8_t *at = pmt__varint_put(head + 1, number_size + size);
    pmt__buffer_put(payload, head, (size_t)(at - head));
    pmt__buffer_put(payload, number, number_size);
    pmt__buffer_put(payload, pairs, size);
}

static int
has_highest(size_t which)
{
    return which == PMT_PRESSURE_USAGE || which == PMT_PRESSURE_SOME_AVG10;
}

void
pmt__pressure_put_changes(uint64_t told[PMT_PRESSURE_COUNT], const uint64_t now[PMT_PRESSURE_COUNT],
                          pmt__buffer *payload)
{
    uint8_t pairs[PMT_PRESSURE_COUNT * 2 * PMT_VARINT_MAX], *at = pairs;
    uint64_t count = 0;
    for (size_t i = 1; i < PMT_PRESSURE_MAX_USAGE; i++) {
        if (now[i] != told[i] || (has_highest(i) && now[i] != PMT_PRESSURE_UNKNOWN)) {
            at = figure_put(at, i, now[i]);
            count++;
        }
        told[i] = now[i];
    }
    section_put(payload, count, pairs, (size_t)(at - pairs));
}

void
pmt__pressure_put(pmt__pressure *self, pmt__buffer *payload, int thorough)
{
    uint64_t now_ns = pmt__clock_mono_ns();
    if (now_ns >= self->thorough_after_ns) {
        thorough = 1;
        self->thorough_after_ns = now_ns + THOROUGH_NS;
    }
    pmt__pressure_source *source = &self->source;
    pmt__pressure_source_read(source, thorough);
    const pmt__cgroup_figures *group = &source->cgroup.now;
    uint64_t now[PMT_PRESSURE_COUNT];
    forget(now);
    now[PMT_PRESSURE_USAGE] = group->usage;
    now[PMT_PRESSURE_LIMIT] = group->limit;
    now[PMT_PRESSURE_HIGH] = group->high;
    now[PMT_PRESSURE_OOMS] = group->ooms;
    now[PMT_PRESSURE_OOM_KILLS] = group->oom_kills;
    now[PMT_PRESSURE_LIMIT_HITS] = group->limit_hits;
    now[PMT_PRESSURE_HIGH_HITS] = group->high_hits;
    now[PMT_PRESSURE_ANON] = group->anon;
    now[PMT_PRESSURE_FILE] = group->file;
    now[PMT_PRESSURE_INACTIVE_FILE] = group->inactive_file;
    now[PMT_PRESSURE_KERNEL] = group->kernel;
    now[PMT_PRESSURE_SHMEM] = group->shmem;
    now[PMT_PRESSURE_SOME_US] = source->stalls.some_us;
    now[PMT_PRESSURE_FULL_US] = source->stalls.full_us;
    now[PMT_PRESSURE_SOME_AVG10] = source->stalls.some_avg10;
    now[PMT_PRESSURE_FULL_AVG10] = source->stalls.full_avg10;
    now[PMT_PRESSURE_STALLS_OF] = source->stalls_of;
    now[PMT_PRESSURE_HOST_AVAILABLE] = source->host_available;
    now[PMT_PRESSURE_HOST] = source->host_total;
    now[PMT_PRESSURE_HOST_SWAP_FREE] = source->host_swap_free;
    if (source->oom_score_known) {
        now[PMT_PRESSURE_OOM_SCORE_ADJ] = pmt__zigzag(source->oom_score_adj);
    }
    now[PMT_PRESSURE_SWAP] = source->swap;
    /* The kernel's own figure falls now and then: it is made of counters that are not exact. */
    uint64_t told_peak = self->told[PMT_PRESSURE_PEAK_RSS];
    now[PMT_PRESSURE_PEAK_RSS] =
        told_peak != PMT_PRESSURE_UNKNOWN
                && (source->peak_rss == PMT_UNKNOWN || source->peak_rss < told_peak)
            ? told_peak
            : source->peak_rss;
    pmt__pressure_put_changes(self->told, now, payload);
}

/* --- merging ----------------------------------------------------------------------------------------------------------- */

void
pmt__pressure_merge_begin(pmt__pressure_merge *self)
{
    self->any = false;
    self->has = 0;
}

static bool
has(const pmt__pressure_merge *self, size_t which)
{
    return (self->has >> which & 1) != 0;
}

static void
highest_note(pmt__pressure_merge *self, size_t which, uint64_t value)
{
    if (value != PMT_PRESSURE_UNKNOWN && (!has(self, which) || value > self->value[which])) {
        self->value[which] = value;
        self->has |= 1u << which;
    }
}

bool
pmt__pressure_merge_add(pmt__pressure_merge *self, pmt__cursor *in)
{
    self->any = true;
    for (size_t left = pmt__get_count(in, 2); left > 0; left--) {
        uint64_t which = pmt__get_varint(in);
        uint64_t value = pmt__get_varint(in) - 1;
        if (which == 0 || which >= PMT_PRESSURE_COUNT) {
            continue;
        }
        if (which == PMT_PRESSURE_MAX_USAGE || which == PMT_PRESSURE_MAX_SOME_AVG10) {
            highest_note(self, which, value);
            continue;
        }
        if (which == PMT_PRESSURE_USAGE) {
            highest_note(self, PMT_PRESSURE_MAX_USAGE, value);
        } else if (which == PMT_PRESSURE_SOME_AVG10) {
            highest_note(self, PMT_PRESSURE_MAX_SOME_AVG10, value);
        }
        self->value[which] = value;
        self->has |= 1u << which;
    }
    return in->code == PMT_OK && in->at == in->end;
}

void
pmt__pressure_merge_put(const pmt__pressure_merge *self, pmt__buffer *payload)
{
    if (!self->any) {
        return;
    }
    uint8_t pairs[PMT_PRESSURE_COUNT * 2 * PMT_VARINT_MAX], *at = pairs;
    uint64_t count = 0;
    for (size_t i = 1; i < PMT_PRESSURE_COUNT; i++) {
        size_t last = i == PMT_PRESSURE_MAX_USAGE        ? PMT_PRESSURE_USAGE
                      : i == PMT_PRESSURE_MAX_SOME_AVG10 ? PMT_PRESSURE_SOME_AVG10
                                                         : i;
        bool says_more = last == i || self->value[last] != self->value[i];
        if (has(self, i) && says_more) {
            at = figure_put(at, i, self->value[i]);
            count++;
        }
    }
    section_put(payload, count, pairs, (size_t)(at - pairs));
}
