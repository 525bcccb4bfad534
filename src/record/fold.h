/* Cuts without new stacks, for a capture whose --max-size has no more room for them. */
#ifndef PMT_RECORD_FOLD_H
#define PMT_RECORD_FOLD_H

#include "format/spec.h"
#include "record/merge.h"

#define PMT_FOLD_CLASSES (PMT_DOMAIN_COUNT * (PMT_SIZE_LARGE + 1))

typedef struct pmt__fold {
    pmt__merge merge;
    uint32_t
        first; /* site of the tables that the file does not have; those before keep their numbers */
    PMT__VEC(uint16_t) classes;     /* by site of the tables: domain and size */
    uint32_t ids[PMT_FOLD_CLASSES]; /* sites of the file, by class; 0: not defined yet */
    uint32_t site_count;            /* of the file */
    uint64_t epoch;                 /* of the cut before */
    uint64_t cuts;
    pmt__buffer payload, body, rows; /* scratch */
} pmt__fold;

/* first: the first site that the file has no definition of; epoch: of the last cut in the file. The caller holds the tables. 0 or -ENOMEM. */
int pmt__fold_init(pmt__fold *self, uint32_t first, uint64_t epoch);
void pmt__fold_dispose(pmt__fold *self); /* also if it was never initialised but is zero */
/* The payload of a DLTA chunk without its names and stacks: what its new sites have is summed by size and domain under the node
   [folded]. Every cut comes by here, in order. 0, -ENOMEM, or -EBADMSG for what it does not know. */
int pmt__fold_cut(pmt__fold *self, const uint8_t *payload, size_t size, pmt__buffer *out);

#endif
