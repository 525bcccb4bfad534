/* Adjacent DLTA payloads become one: the payload of a merged window (docs/format.md). */
#ifndef PMT_RECORD_MERGE_H
#define PMT_RECORD_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "format/decode.h"
#include "format/encode.h"
#include "format/spec.h"
#include "record/sample.h"

#define PMT_CUT_HEAD 19 /* numbers in the head of a CUT section */
enum {
    PMT_HEAD_T = 1,
    PMT_HEAD_SPAN = 2,
    PMT_HEAD_FLAGS = 4,
    PMT_HEAD_EPOCH = 5
};

/* The counters of a cohort over the window; or of all blocks of a site that were born and died in the window at about
   the same age. */
typedef struct pmt__sum {
    uint64_t birth; /* epoch, or DEAD | part of the window | log2 class of the age */
    uint32_t site;
    uint32_t run; /* the peak fields are valid if it is that of the window */
    uint64_t allocs, frees, temporaries;
    uint64_t alloc_bytes, free_bytes, temporary_bytes; /* the three only of sizeless sites */
    int64_t peak_blocks, peak_bytes;
} pmt__sum;

/* An entry of LIFETIMES. */
typedef struct pmt__merge_life {
    uint64_t site, birth, age, blocks, bytes;
} pmt__merge_life;

/* An entry of SAMPLES. */
typedef struct pmt__merge_sample {
    uint64_t site;
    size_t delta; /* 1 + that it is of */
    pmt__sample_sums allocs, frees, peak;
} pmt__merge_sample;

typedef struct pmt__merge_thread {
    uint64_t fields[7]; /* as in THREADS */
    bool known;
} pmt__merge_thread;

typedef struct pmt__merge_key {
    uint64_t key; /* site << 32 | birth epoch */
    uint32_t sum;
} pmt__merge_key;

typedef struct pmt__merge {
    const pmt_allocator *allocator; /* borrowed */
    PMT__VEC(uint8_t) sizeless;     /* one bit per site; of the whole capture up to here */
    uint64_t sites;
    uint64_t last_epoch; /* of the delta that was scanned last */

    /* the window */
    size_t deltas;
    bool keeps_epochs;
    uint64_t epoch_before; /* births behind this one are in the window */
    uint64_t head[PMT_CUT_HEAD];
    uint64_t span_ns;
    bool peak_moved;
    uint32_t run;
    uint64_t size_allocs[64], size_bytes[64];
    pmt__buffer counters;    /* of the last cut, encoded */
    pmt__buffer definitions; /* sections as they were */
    pmt__buffer resident;    /* the last RESIDENT, as it was */
    PMT__VEC(pmt__merge_thread) threads;
    PMT__VEC(uint64_t) marks;        /* epochs that marks ended, rising */
    PMT__VEC(pmt__merge_life) lives; /* of the delta that is being added */
    PMT__VEC(pmt__merge_sample) samples;
    uint64_t sample_mean; /* of the last delta; 0: none */
    size_t sample_peak;   /* 1 + the last delta that tells of the peak; 0: none */
    PMT__VEC(pmt__sum) sums;
    PMT__VEC(uint32_t) table; /* hash: 1 + place in sums; 0 = free */
    PMT__VEC(pmt__merge_key) keys, keys_to;
    pmt__buffer body;
} pmt__merge;

void pmt__merge_init(pmt__merge *self, const pmt_allocator *allocator);
void pmt__merge_dispose(pmt__merge *self);

/* Every delta of a capture is scanned, in order: gives its head and learns which sites are sizeless. All of these return 0, -ENOMEM,
   or -EBADMSG for what they do not know. */
int pmt__merge_scan(pmt__merge *self, const uint8_t *payload, size_t size,
                    uint64_t head[PMT_CUT_HEAD]);

/* Sums of SAMPLES. */
void pmt__merge_sums_get(pmt__cursor *in, pmt__sample_sums *out);

/* Starts a window behind the cut with this epoch (0: none). */
void pmt__merge_begin(pmt__merge *self, uint64_t epoch_before, bool keeps_epochs);
int pmt__merge_add(pmt__merge *self, const uint8_t *payload, size_t size);
/* Whether the window takes so much memory that it should end. */
bool pmt__merge_is_large(const pmt__merge *self);
/* Appends the payload of the window; it cannot be added to afterwards. */
int pmt__merge_finish(pmt__merge *self, pmt__buffer *payload);

#endif
