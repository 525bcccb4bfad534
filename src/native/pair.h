/* How long malloc and free take here, as they are called by everybody: for measurements. */
#ifndef PMT_NATIVE_PAIR_H
#define PMT_NATIVE_PAIR_H

#include <stddef.h>

/* ns of a malloc + free pair of `size` bytes, in batches of 64, of `threads` threads at once that do `rounds` rounds of 1,280 pairs
   each. With one thread: the calling one; of its rounds the best counts, since noise only adds. With more: their CPU time, the mean
   over all. -1: no thread. */
double pmt__native_pair_ns(size_t size, unsigned rounds, unsigned threads);

#endif
