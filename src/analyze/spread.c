/* The variance of an estimate is a sum over its samples, and the sections SAMPLES have such sums per site and cut. So they have
   them of whole sites only: not of blocks of some birth epochs, which is what a time window and what a fork handed down leave
   of a site. Then a part of the blocks has the same part of the variance; that is exact where they are of one size. */
#include "analyze/spread.h"

#include <math.h>

#include "base/error.h"
#include "store/samples.h"

/* --- intervals --------------------------------------------------------------------------------- */

#define Z 1.959963984540054 /* 97.5 % quantile of the normal distribution */

/* Wilson and Hilferty: the cube root of a Gamma variable is nearly normal. 1 % off at the shape 2, and less above it. */
static double
gamma_quantile(double shape, double z)
{
    double root = 1 - 1 / (9 * shape) + z / (3 * sqrt(shape));
    return root <= 0 ? 0 : shape * root * root * root;
}

static uint64_t
to_u64(double value)
{
    return value >= 0x1p64 ? UINT64_MAX : value > 0 ? (uint64_t)value : 0;
}

void
pmt_interval(uint64_t estimate, uint64_t sure, double variance, uint64_t *low, uint64_t *high)
{
    *low = *high = estimate;
    if (sure >= estimate || !(variance > 0)) {
        return;
    }
    double unsure = (double)(estimate - sure);
    double count = unsure * unsure / variance, scale = variance / unsure;
    /* the true value is a whole number */
    uint64_t down = to_u64(ceil(gamma_quantile(count + 0.5, -Z) * scale));
    uint64_t up = to_u64(floor(gamma_quantile(count + 0.5, Z) * scale));
    if (down < estimate - sure) {
        *low = sure + down;
    }
    if (up > estimate - sure) {
        *high = up > UINT64_MAX - sure ? UINT64_MAX : sure + up;
    }
}

/* --- sums -------------------------------------------------------------------------------------- */

void
pmt__spread_add(pmt_spread *to, const pmt_spread *spread, int times)
{
    const uint64_t n = (uint64_t)(int64_t)times;
    to->samples += n * spread->samples;
    to->sure_blocks += n * spread->sure_blocks;
    to->sure_bytes += n * spread->sure_bytes;
    to->blocks2 += times * spread->blocks2;
    to->bytes2 += times * spread->bytes2;
}

static double
share_of(uint64_t part, uint64_t whole)
{
    return part >= whole ? 1.0 : (double)part / (double)whole;
}

pmt_spread
pmt__spread_part(const pmt_spread *spread, uint64_t blocks, uint64_t of_blocks, uint64_t bytes,
                 uint64_t of_bytes)
{
    double by_blocks = share_of(blocks, of_blocks), by_bytes = share_of(bytes, of_bytes);
    return (pmt_spread){
        .samples = (uint64_t)((double)spread->samples * by_blocks + 0.5),
        .sure_blocks = (uint64_t)((double)spread->sure_blocks * by_blocks),
        .sure_bytes = (uint64_t)((double)spread->sure_bytes * by_bytes),
        .blocks2 = spread->blocks2 * by_blocks,
        .bytes2 = spread->bytes2 * by_bytes,
    };
}

/* What rounding leaves of a difference of large sums is nothing. No variance of 64-bit numbers is larger than 2^128. */
static double
variance_within(double variance)
{
    return variance > 1e-9 && variance <= 0x1p128 ? variance : 0;
}

/* Differences are complete now: what a capture that lies, or events that were lost, made impossible goes. */
static void
settle(pmt_spread *spread, uint64_t blocks, uint64_t bytes)
{
    spread->samples = pmt__at_least_0(spread->samples);
    spread->sure_blocks = pmt__at_least_0(spread->sure_blocks);
    spread->sure_bytes = pmt__at_least_0(spread->sure_bytes);
    spread->sure_blocks = spread->sure_blocks < blocks ? spread->sure_blocks : blocks;
    spread->sure_bytes = spread->sure_bytes < bytes ? spread->sure_bytes : bytes;
    spread->blocks2 = variance_within(spread->blocks2);
    spread->bytes2 = variance_within(spread->bytes2);
}

static void
add_section(pmt__sums *sums, uint8_t *sampled, const pmt_reader *reader, const pmt__window *window,
            size_t at)
{
    size_t cut = reader->samples.data[at].cut;
    bool is_peak = cut == window->peak && window->exact_peak;
    pmt__sample_walk walk;
    pmt__sample_entry it;
    pmt__samples_begin(&walk, reader, at);
    while (pmt__samples_next(&walk, &it)) {
        pmt__sums *sum = &sums[it.site];
        sampled[it.site] = 1;
        if (cut >= window->first && cut <= window->last) {
            pmt__spread_add(&sum->total, &it.allocs, 1);
        }
        if (cut <= window->peak) {
            pmt__spread_add(&sum->peak, &it.allocs, 1);
            pmt__spread_add(&sum->peak, &it.frees, -1);
            if (is_peak) {
                pmt__spread_add(&sum->peak, &it.at_peak, 1);
            }
        }
        if (cut <= window->end) {
            pmt__spread_add(&sum->leak, &it.allocs, 1);
            pmt__spread_add(&sum->leak, &it.frees, -1);
        }
    }
}

/* A site that has never had a sample was recorded as in a full capture. */
static void
set_sure(pmt__sums *sum)
{
    sum->peak = (pmt_spread){.sure_blocks = sum->peak_blocks, .sure_bytes = sum->peak_bytes};
    sum->leak = (pmt_spread){.sure_blocks = sum->leak_blocks, .sure_bytes = sum->leak_bytes};
    sum->total = (pmt_spread){.sure_blocks = sum->total_blocks, .sure_bytes = sum->total_bytes};
}

static void
take_parts(pmt__sums *sum, const pmt__sums *whole)
{
    sum->peak = pmt__spread_part(&sum->peak, sum->peak_blocks, whole->peak_blocks, sum->peak_bytes,
                                 whole->peak_bytes);
    sum->leak = pmt__spread_part(&sum->leak, sum->leak_blocks, whole->leak_blocks, sum->leak_bytes,
                                 whole->leak_bytes);
    sum->total = pmt__spread_part(&sum->total, sum->total_blocks, whole->total_blocks,
                                  sum->total_bytes, whole->total_bytes);
}

int
pmt__spreads_compute(pmt__sums *sums, const pmt_reader *reader, const pmt__window *window,
                     const pmt__sums *whole, pmt_error *err)
{
    size_t sites = reader->sites.len;
    uint8_t *sampled = pmt__alloc_zeroed(reader->allocator, sites, 1);
    if (sampled == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory for %zu sites", sites);
    }
    for (size_t i = 0; i < reader->samples.len; i++) {
        add_section(sums, sampled, reader, window, i);
    }
    for (size_t i = 0; i < sites; i++) {
        const pmt__sums *of = whole == NULL ? &sums[i] : &whole[i];
        if (!sampled[i]) {
            set_sure(&sums[i]);
            continue;
        }
        settle(&sums[i].peak, of->peak_blocks, of->peak_bytes);
        settle(&sums[i].leak, of->leak_blocks, of->leak_bytes);
        settle(&sums[i].total, of->total_blocks, of->total_bytes);
        if (whole != NULL) {
            take_parts(&sums[i], of);
        }
    }
    pmt__release(reader->allocator, sampled);
    return PMT_OK;
}
