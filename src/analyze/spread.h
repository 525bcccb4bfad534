/* How sure the sums over a sampled capture are. */
#ifndef PMT_ANALYZE_SPREAD_H
#define PMT_ANALYZE_SPREAD_H

#include "analyze/aggregate.h"

/* *to += times * *spread. Modulo for what counts: differences come out right if they are not negative in the end. */
void pmt__spread_add(pmt_spread *to, const pmt_spread *spread, int times);

/* The part of it that is of so many of its blocks and bytes. */
pmt_spread pmt__spread_part(const pmt_spread *spread, uint64_t blocks, uint64_t of_blocks,
                            uint64_t bytes, uint64_t of_bytes);

/* Fills in the spreads of the sums of all sites. whole: the blocks and bytes of the views with nothing left out, or NULL if that is so
   of `sums`. */
int pmt__spreads_compute(pmt__sums *sums, const pmt_reader *reader, const pmt__window *window,
                         const pmt__sums *whole, pmt_error *err);

#endif
