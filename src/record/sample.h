/* Sampling: points are thrown at random onto the bytes that are allocated (a Poisson process whose mean distance is `mean` bytes),
   and a block with a point in it is a sample.

   So a block of n bytes is a sample with p = 1 - e^(-n / mean), and a sample stands for 1 / p blocks of its size: sums over samples
   are unbiased estimates (Horvitz and Thompson 1952), for what lives and for what was allocated. Blocks of `always` bytes and more are
   samples with p = 1. The weight 1 / p is rounded to a whole number at random, up or down, so that it is right on average: the
   cohorts of sampled blocks count as those of all blocks do, in estimated blocks and bytes.

   How sure an estimate is comes from the sum over its samples of (1 - p) / p^2 + f (1 - f), f being the part that was rounded: an unbiased
   estimate of its variance, in blocks^2; times n^2, in bytes^2. What is certain (p = 1) has none and is summed up besides: an interval
   is right for the rest alone. Sums are kept per site, for what was allocated and what was freed, and what lived at the peak.

   Live samples stand in a table of their own, not in the shadow, whose pages they would touch one each. Who frees a block looks into a
   small filter first. The table has a limit: before it is full, the mean is doubled, and a sample stays with the probability new p /
   old p and a new weight, so that all of them are as if they had been drawn with the new mean. Each keeps its p: where the mean has
   become less since, or a block was certain when it was drawn, it is not that of the mean. */
#ifndef PMT_RECORD_SAMPLE_H
#define PMT_RECORD_SAMPLE_H

#include <stdint.h>

#include "platform/platform.h"
#include "record/tables.h"

#define PMT_SAMPLE_MEAN_MIN ((uint64_t)1 << 10)
#define PMT_SAMPLE_MEAN_MAX ((uint64_t)1 << 40)

#define PMT_SAMPLE_BITS 14 /* slots */
#define PMT_SAMPLE_BUCKET 8
#define PMT_SAMPLE_BUCKETS_LOOKED 4 /* a block stands in one of so many buckets in a row */
#define PMT_SAMPLE_LIVE_MAX 8192u
#define PMT_SAMPLE_FILTER_BITS 17

/* What is known of a live sample. Written by who holds the tables, before its block stands in `blocks`. */
typedef struct pmt__sample {
    uint64_t size;
    double p;        /* that it is a sample */
    uint32_t cohort; /* 0: no sample, but somebody must be told when it is freed (a thread state) */
    uint32_t weight; /* blocks that it stands for */
} pmt__sample;

/* Sums over samples, or differences of such sums: then modulo. */
typedef struct pmt__sample_sums {
    uint64_t samples;
    uint64_t sure_blocks; /* of these: p = 1 */
    uint64_t sure_bytes;
    double blocks2; /* variance, blocks^2 */
    double bytes2;  /* bytes^2 */
} pmt__sample_sums;

/* Of a site, since the last cut. */
typedef struct pmt__sample_site {
    pmt__sample_sums allocs, frees;
    pmt__sample_sums at_peak; /* allocs less frees, then */
    uint32_t run;             /* of the peak that this is of */
    uint32_t dirty;
} pmt__sample_site;

typedef struct pmt__sampling {
    uint32_t on;
    uint64_t mean;       /* atomic: bytes */
    uint64_t always;     /* atomic: bytes */
    uint64_t mean_asked; /* by the user: what it started with */
    uint32_t live;       /* samples */
    uint32_t doubled;    /* how often the mean had to be */
    const void *
        *blocks; /* [1 << PMT_SAMPLE_BITS]: atomic; these two stay mapped when a recording ends */
    pmt__sample *samples;
    pmt__sample_site *sites; /* by site id */
    uint32_t *dirty;         /* [site limit] */
    uint32_t dirty_count;
    uint64_t random; /* of the holder of the tables */
    uint32_t paused; /* atomic: nothing new is a sample */
    uint64_t ticks;  /* atomic: that samples have taken, of pmt__ticks */
} pmt__sampling;

extern pmt__sampling pmt__sampling_now __attribute__((visibility("hidden")));
/* Live samples by hash, saturated: atomic. */
extern uint8_t pmt__sample_filter[1 << PMT_SAMPLE_FILTER_BITS]
    __attribute__((visibility("hidden"), aligned(4096)));

/* Bytes to the next point of this thread. Every allocation takes its size off. */
extern __thread int64_t pmt__sample_left
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* 0, or PMT_ERR_NOMEM. After pmt__tables_create. mean: in its limits. */
int pmt__sampling_create(uint64_t mean_bytes);
void pmt__sampling_dispose(void);
/* Another mean from now on, live samples included where it is larger. The caller holds the tables. */
void pmt__sampling_mean_set_nopy(uint64_t mean_bytes);
/* Nothing new is a sample until it goes on; what lives is looked after meanwhile. The caller holds the tables. */
void pmt__sampling_pause_nopy(int paused);
/* In a forked child, by its only thread: it draws anew, by another seed. */
void pmt__sampling_forked_nopy(void);
uint64_t pmt__sampling_bytes(void);

/* A block of `size` bytes has come to the point of this thread (left < 0), or is larger than `always`: is it a sample? Draws the next
   distance if it was the point. *mean: the mean that the point was drawn with (0: a block that is always one). Any thread. */
int pmt__sample_due(uint64_t size, uint64_t *mean);

/* The block is a sample. The caller holds the tables. */
void pmt__sample_born_nopy(void *block, uint64_t size, uint32_t cohort, uint64_t mean);
/* The block must be told of when it is freed. As above. */
void pmt__sample_watch_nopy(const void *block);

/* What a sample has cost the program, since pmt__ticks was `from`. Any thread. */
PMT_INLINE void
pmt__sample_ticked(uint64_t from)
{
    __atomic_fetch_add(&pmt__sampling_now.ticks, pmt__ticks() - from, __ATOMIC_RELAXED);
}

PMT_INLINE uint32_t
pmt__sample_hash(const void *block)
{
    return (uint32_t)(((uintptr_t)block >> 4) * PMT_MIX >> 32);
}

/* 64 KiB of addresses share a cache line, as what is freed soon after one another often lies near: on most frees, a miss would be the
   whole cost. */
PMT_INLINE uint32_t
pmt__sample_filter_at(const void *block)
{
    const uintptr_t at = (uintptr_t)block;
    return (uint32_t)(at >> 10 ^ at >> 23) & ((1u << PMT_SAMPLE_FILTER_BITS) - 1);
}

/* May the block be in the table? No: certainly not. Any thread, about a block of its own. */
PMT_INLINE int
pmt__sample_maybe(const void *block)
{
    return __atomic_load_n(&pmt__sample_filter[pmt__sample_filter_at(block)], __ATOMIC_RELAXED)
           != 0;
}

/* Its slot, or -1. Any thread, about a block of its own. */
int32_t pmt__sample_find(const void *block);

/* Takes it out of the table, uncounted; or puts it in again, as it was. The caller holds the tables. */
pmt__sample pmt__sample_take_nopy(int32_t slot);
void pmt__sample_put_nopy(const void *block, const pmt__sample *sample);
/* A sample that was taken out has been freed. The caller holds the tables. */
void pmt__sample_died_nopy(const pmt__sample *sample);

/* *to += times * *sums, times being 1 or -1. */
void pmt__sample_sums_add(pmt__sample_sums *to, const pmt__sample_sums *sums, int times);
/* As SAMPLES has them. */
void pmt__sample_sums_put(pmt__buffer *out, const pmt__sample_sums *sums);

#endif
