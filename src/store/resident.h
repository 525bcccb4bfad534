/* The sections RESIDENT of a capture: moments at which its resident memory was taken apart. */
#ifndef PMT_STORE_RESIDENT_H
#define PMT_STORE_RESIDENT_H

#include "store/store.h"

typedef struct pmt__moment {
    uint64_t value[PMT_RESIDENT_LIMIT]; /* by PMT_RESIDENT_*; 0 if not known */
    struct {
        uint64_t size_bytes, pools, blocks;
    } classes[PMT_RESIDENT_CLASSES]; /* of pymalloc */
    size_t class_count;
} pmt__moment;

/* Reads the body of a section. Returns the cursor's code. */
int pmt__moment_get(pmt__moment *out, pmt__cursor *in);

/* Checks a section and keeps it. */
int pmt__reader_add_resident(pmt_reader *self, pmt__cursor *in, pmt_error *err);

/* The moments of a capture, in file order. */
size_t pmt__reader_moment_count(const pmt_reader *self);
/* The last one that is not behind the cut of "alive at the end"; SIZE_MAX without any. */
size_t pmt__reader_end_moment(const pmt_reader *self);
void pmt__reader_moment(const pmt_reader *self, size_t at, pmt__moment *out);

#endif
