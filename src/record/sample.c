#include "record/sample.h"

#include <math.h>
#include <string.h>

#include "platform/platform.h"
#include "pymemtrace/error.h"
#include "record/count.h"

pmt__sampling pmt__sampling_now = {.always = UINT64_MAX};
uint8_t pmt__sample_filter[1 << PMT_SAMPLE_FILTER_BITS];
__thread int64_t pmt__sample_left;

#define S pmt__sampling_now

/* What a thread has drawn, and with what. A point stays good from one recording to the next: the distance that is left of it has the
   distribution that it had when it was drawn. */
static __thread struct {
    uint64_t random; /* 0: no seed yet */
    uint64_t mean;   /* of pmt__sample_left; 0: there is no point */
} mine __attribute__((tls_model("initial-exec")));

#define PARKED \
    4096 /* bytes between two looks whether a recording has begun, where hooks have stayed on */

/* --- chance --------------------------------------------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t
random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* In (0, 1]. */
static double
uniform(uint64_t *state)
{
    return (double)((random_next(state) >> 11) + 1) * 0x1p-53;
}

static uint64_t
seed(void)
{
    uint64_t random = 0;
    if (pmt__random_bytes(&random, sizeof random) < 0) {
        random = pmt__ticks();
    }
    return random ^ pmt__thread_native_id() << 32 ^ pmt__clock_mono_ns();
}

static int64_t
distance(uint64_t *state, uint64_t mean)
{
    return (int64_t)(-log(uniform(state)) * (double)mean);
}

static double
probability(uint64_t size, uint64_t mean)
{
    return size >= mean * PMT_SAMPLE_SURE ? 1.0 : -expm1(-(double)size / (double)mean);
}

/* 1 / p, rounded at random. */
static uint32_t
weight_draw(double p)
{
    double exact = 1 / p, whole = floor(exact);
    whole += uniform(&S.random) <= exact - whole ? 1 : 0;
    return whole >= 4e9 ? 4000000000u : (uint32_t)whole;
}

/* blocks^2 */
static double
variance(double p)
{
    double f = 1 / p - floor(1 / p);
    return (1 - p) / (p * p) + f * (1 - f);
}

int
pmt__sample_due(uint64_t size, uint64_t *mean)
{
    uint64_t now = __atomic_load_n(&S.mean, __ATOMIC_RELAXED);
    if (!__atomic_load_n(&S.on, __ATOMIC_ACQUIRE) || now == 0) {
        pmt__sample_left = PARKED;
        mine.mean = 0;
        return 0;
    }
    if (mine.mean == 0) {
        if (mine.random == 0) {
            mine.random = seed();
        }
        mine.mean = now;
        pmt__sample_left = distance(&mine.random, now) - (int64_t)size;
    }
    if (size >= now * PMT_SAMPLE_SURE) {
        if (pmt__sample_left < 0) {
            mine.mean = now;
            pmt__sample_left = distance(&mine.random, now);
        }
        *mean = 0;
        return 1;
    }
    if (pmt__sample_left >= 0) {
        return 0;
    }
    *mean = mine.mean;
    mine.mean = now;
    pmt__sample_left = distance(&mine.random, now);
    return 1;
}

/* --- the table -------------------------------------------------------------------------------------------------------------- */

#define SLOTS (1u << PMT_SAMPLE_BITS)

static uint32_t
bucket_of(const void *block)
{
    return pmt__sample_hash(block) * PMT_SAMPLE_BUCKET & (SLOTS - 1);
}

int32_t
pmt__sample_find(const void *block)
{
    uint32_t first = bucket_of(block);
    for (uint32_t i = 0; i < PMT_SAMPLE_BUCKET * PMT_SAMPLE_BUCKETS_LOOKED; i++) {
        uint32_t slot = (first + i) & (SLOTS - 1);
        if (__atomic_load_n(&S.blocks[slot], __ATOMIC_ACQUIRE) == block) {
            return (int32_t)slot;
        }
    }
    return -1;
}

static uint8_t *
filter_of(const void *block)
{
    return &pmt__sample_filter[pmt__sample_hash(block) >> (32 - PMT_SAMPLE_FILTER_BITS)];
}

static int
put(const void *block, const pmt__sample *sample)
{
    uint32_t first = bucket_of(block);
    for (uint32_t i = 0; i < PMT_SAMPLE_BUCKET * PMT_SAMPLE_BUCKETS_LOOKED; i++) {
        uint32_t slot = (first + i) & (SLOTS - 1);
        if (S.blocks[slot] == NULL) {
            uint8_t *count = filter_of(block);
            S.samples[slot] = *sample;
            if (*count != UINT8_MAX) {
                __atomic_store_n(count, (uint8_t)(*count + 1), __ATOMIC_RELAXED);
            }
            __atomic_store_n(&S.blocks[slot], block, __ATOMIC_RELEASE);
            S.live++;
            return 0;
        }
    }
    return -1;
}

pmt__sample
pmt__sample_take_nopy(int32_t slot)
{
    uint8_t *count = filter_of(S.blocks[slot]);
    if (*count != UINT8_MAX) {
        __atomic_store_n(count, (uint8_t)(*count - 1), __ATOMIC_RELAXED);
    }
    __atomic_store_n(&S.blocks[slot], NULL, __ATOMIC_RELEASE);
    S.live--;
    return S.samples[slot];
}

void
pmt__sample_put_nopy(const void *block, const pmt__sample *sample)
{
    if (put(block, sample) < 0) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
        pmt__sample_died_nopy(sample);
    }
}

/* --- counting --------------------------------------------------------------------------------------------------------------- */

void
pmt__sample_sums_add(pmt__sample_sums *to, const pmt__sample_sums *sums, int times)
{
    const uint64_t n = (uint64_t)(int64_t)times;
    to->samples += n * sums->samples;
    to->sure_blocks += n * sums->sure_blocks;
    to->sure_bytes += n * sums->sure_bytes;
    to->blocks2 += times * sums->blocks2;
    to->bytes2 += times * sums->bytes2;
}

void
pmt__sample_sums_put(pmt__buffer *out, const pmt__sample_sums *sums)
{
    const double variances[2] = {sums->blocks2, sums->bytes2};
    pmt__buffer_put_zigzag(out, (int64_t)sums->samples);
    pmt__buffer_put_zigzag(out, (int64_t)sums->sure_blocks);
    pmt__buffer_put_zigzag(out, (int64_t)sums->sure_bytes);
    pmt__buffer_put(out, variances, sizeof variances);
}

static pmt__sample_sums
sums_of(const pmt__sample *sample)
{
    double n = (double)sample->size, v = variance(sample->p);
    uint64_t sure = sample->p >= 1;
    return (pmt__sample_sums){1, sure, sure * sample->size, v, v * n * n};
}

/* Before its sums change, and when what has changed is counted in its cohort. */
static pmt__sample_site *
site_of(uint32_t cohort)
{
    const pmt__peak *peak = &pmt__t.peaks[0];
    uint32_t id = PMT_COHORT_SITE(&pmt__t.cohorts[cohort]);
    pmt__sample_site *site = &S.sites[id];
    if (!site->dirty) {
        site->dirty = 1;
        S.dirty[S.dirty_count++] = id;
    }
    if (!peak->growing && site->run != peak->run) {
        site->run = peak->run;
        site->at_peak = site->allocs;
        pmt__sample_sums_add(&site->at_peak, &site->frees, -1);
    }
    return site;
}

static void
live_add(uint32_t cohort_id, uint64_t size, uint32_t weight)
{
    pmt__cohort *cohort = &pmt__t.cohorts[cohort_id];
    pmt__t.live_bytes += size * weight;
    if (pmt__t.live_bytes >= pmt__t.peak_floor) {
        pmt__peak_reached_slow_nopy();
    }
    if (cohort->stamp != pmt__t.stamp) {
        pmt__cohort_seen_slow_nopy(cohort);
    }
    cohort->live += weight;
    if (cohort->size & PMT_COHORT_SIZELESS) {
        pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS].live_bytes += size * weight;
    }
}

static void
live_sub(uint32_t cohort_id, uint64_t size, uint32_t weight)
{
    pmt__cohort *cohort = &pmt__t.cohorts[cohort_id];
    pmt__count_loses(cohort);
    cohort->live -= weight;
    if (cohort->size & PMT_COHORT_SIZELESS) {
        pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS].live_bytes -= size * weight;
    }
    pmt__t.live_bytes -= size * weight;
}

void
pmt__sample_died_nopy(const pmt__sample *sample)
{
    if (sample->cohort == 0) {
        return;
    }
    const pmt__sample_sums sums = sums_of(sample);
    live_sub(sample->cohort, sample->size, sample->weight);
    pmt__sample_sums_add(&site_of(sample->cohort)->frees, &sums, 1);
}

/* --- more samples than there is room for ---------------------------------------------------------------------------------- */

/* All samples as if they had been drawn with this mean, as far as it is larger than theirs. First all that changes dies, then what
   stays is born again: what the heap is in between must never look like a peak. */
static void
thin(uint64_t mean)
{
    uint8_t again[SLOTS / 8] = {0};
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        pmt__sample *sample = &S.samples[slot];
        double p = probability(sample->size, mean);
        if (S.blocks[slot] == NULL || sample->cohort == 0 || p >= sample->p) {
            continue;
        }
        pmt__sample_died_nopy(sample);
        if (uniform(&S.random) * sample->p > p) {
            pmt__sample_take_nopy((int32_t)slot);
            continue;
        }
        sample->p = p;
        sample->weight = weight_draw(p);
        again[slot / 8] |= (uint8_t)(1u << slot % 8);
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        const pmt__sample *sample = &S.samples[slot];
        if (again[slot / 8] >> slot % 8 & 1) {
            const pmt__sample_sums sums = sums_of(sample);
            live_add(sample->cohort, sample->size, sample->weight);
            pmt__sample_sums_add(&site_of(sample->cohort)->frees, &sums, -1);
        }
    }
}

void
pmt__sampling_mean_set_nopy(uint64_t mean)
{
    if (mean > S.mean) {
        thin(mean);
    }
    /* A smaller mean: what lives was drawn with the larger one, and keeps its p and its weight. */
    __atomic_store_n(&S.mean, mean, __ATOMIC_RELAXED);
    __atomic_store_n(&S.always, mean * PMT_SAMPLE_SURE, __ATOMIC_RELAXED);
}

static void
make_room(void)
{
    while (S.live >= PMT_SAMPLE_LIVE_MAX && S.mean < PMT_SAMPLE_MEAN_MAX) {
        S.doubled++;
        pmt__sampling_mean_set_nopy(S.mean * 2);
    }
}

void
pmt__sample_born_nopy(void *block, uint64_t size, uint32_t cohort_id, uint64_t mean)
{
    if (cohort_id == 0) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
        return;
    }
    make_room();
    double p = mean == 0 ? 1.0 : probability(size, mean);
    if (mean != 0 && mean != S.mean) { /* the mean has changed since the point was drawn */
        double now = probability(size, S.mean);
        if (uniform(&S.random) * p > now) {
            return;
        }
        p = now < p ? now : p;
    }
    pmt__sample sample = {size, p, cohort_id, weight_draw(p)};
    if (put(block, &sample) < 0) {
        pmt__t.counters[PMT_COUNTER_MEMORY_LIMIT]++;
        return;
    }
    live_add(cohort_id, size, sample.weight);
    pmt__cohort *cohort = &pmt__t.cohorts[cohort_id];
    cohort->allocs += sample.weight;
    uint64_t bytes = size * sample.weight;
    if (cohort->size & PMT_COHORT_SIZELESS) {
        pmt__t.large[cohort->size & ~PMT_COHORT_SIZELESS].alloc_bytes += bytes;
        int bucket = 63 - __builtin_clzll(size | 1);
        pmt__t.size_allocs[bucket] += sample.weight;
        pmt__t.size_bytes[bucket] += bytes;
    }
    const pmt__sample_sums sums = sums_of(&sample);
    pmt__sample_sums_add(&site_of(cohort_id)->allocs, &sums, 1);
}

void
pmt__sample_watch_nopy(const void *block)
{
    static const pmt__sample watched = {0, 1, 0, 0};
    if (pmt__sample_find(block) < 0) {
        put(block, &watched);
    }
}

/* --- life ------------------------------------------------------------------------------------------------------------------- */

/* Nothing of an earlier recording. What others may still be looking at stays where it is. */
static void
forget(void)
{
    pmt__sampling old = S;
    memset(&S, 0, sizeof S);
    S.blocks = old.blocks;
    S.samples = old.samples;
    S.always = UINT64_MAX;
    if (S.blocks != NULL) {
        memset(S.blocks, 0, sizeof *S.blocks * SLOTS);
    }
    memset(pmt__sample_filter, 0, sizeof pmt__sample_filter);
}

int
pmt__sampling_create(uint64_t mean)
{
    const size_t limit = pmt__t.site_limit;
    forget();
    if (S.blocks == NULL) {
        S.blocks = pmt__pages_map(sizeof *S.blocks * SLOTS);
    }
    if (S.samples == NULL) {
        S.samples = pmt__pages_map(sizeof *S.samples * SLOTS);
    }
    S.sites = pmt__pages_map_sparse(sizeof *S.sites * limit);
    S.dirty = pmt__pages_map_sparse(sizeof *S.dirty * limit);
    if (S.blocks == NULL || S.samples == NULL || S.sites == NULL || S.dirty == NULL) {
        pmt__sampling_dispose();
        return PMT_ERR_NOMEM;
    }
    S.mean = S.mean_asked = mean;
    S.random = seed();
    __atomic_store_n(&S.on, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&S.always, mean * PMT_SAMPLE_SURE, __ATOMIC_RELEASE);
    return 0;
}

void
pmt__sampling_dispose(void)
{
    const size_t limit = pmt__t.site_limit;
    __atomic_store_n(&S.on, 0, __ATOMIC_RELEASE);
    pmt__pages_unmap(S.sites, sizeof *S.sites * limit);
    pmt__pages_unmap(S.dirty, sizeof *S.dirty * limit);
    forget();
}

/* What lives counts in the first cut of the child as allocated, and what the parent has not yet told is the parent's. */
static void
sites_forked(void)
{
    for (uint32_t i = 0; i < S.dirty_count; i++) {
        memset(&S.sites[S.dirty[i]], 0, sizeof *S.sites);
    }
    S.dirty_count = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (S.blocks[slot] != NULL && S.samples[slot].cohort != 0) {
            const pmt__sample_sums sums = sums_of(&S.samples[slot]);
            pmt__sample_sums_add(&site_of(S.samples[slot].cohort)->allocs, &sums, 1);
        }
    }
}

void
pmt__sampling_forked_nopy(void)
{
    S.random = seed();
    mine.random = seed();
    if (S.on) {
        mine.mean = S.mean;
        pmt__sample_left = distance(&mine.random, S.mean);
        sites_forked();
    }
}

uint64_t
pmt__sampling_bytes(void)
{
    return !S.on ? 0
                 : (sizeof *S.blocks + sizeof *S.samples) * SLOTS + sizeof pmt__sample_filter
                       + (sizeof *S.sites + sizeof *S.dirty) * pmt__t.site_count;
}
