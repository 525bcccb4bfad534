/* How sure the estimates of a sampled capture are: the sections SAMPLES. */
#ifndef PMT_STORE_SAMPLES_H
#define PMT_STORE_SAMPLES_H

#include "store/store.h"

/* Sums over samples; modulo 2^64 where they are differences. */
typedef struct pmt__sample_entry {
    uint32_t site;
    pmt_spread allocs;
    pmt_spread frees;
    pmt_spread at_peak; /* less what lives at the cut; 0 if the section has none */
} pmt__sample_entry;

/* Checks a section and keeps it, as one of the cut that comes next. */
int pmt__reader_add_samples(pmt_reader *self, pmt__cursor *in, pmt_error *err);

typedef struct pmt__sample_walk {
    pmt__cursor cursor;
    const pmt_reader *reader;
    size_t left;
    uint64_t site;
    bool has_peak;
} pmt__sample_walk;

/* The entries of the section at this place among the reader's `samples`. */
void pmt__samples_begin(pmt__sample_walk *walk, const pmt_reader *reader, size_t at);
/* Fills *out and returns true, or returns false at the end. */
bool pmt__samples_next(pmt__sample_walk *walk, pmt__sample_entry *out);

#endif
