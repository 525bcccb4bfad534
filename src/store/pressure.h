/* The sections PRESSURE of a capture: how short memory was around its process. */
#ifndef PMT_STORE_PRESSURE_H
#define PMT_STORE_PRESSURE_H

#include "store/store.h"

/* Checks a section and keeps it, as one of the cut that comes next. */
int pmt__reader_add_pressure(pmt_reader *self, pmt__cursor *in, pmt_error *err);

size_t pmt__reader_pressure_count(const pmt_reader *self);

/* A walk over all of them, in file order: each has what changed since the one before. */
typedef struct pmt__pressure_walk {
    const pmt_reader *reader;
    size_t at;     /* of the next one */
    uint64_t t_ns; /* of the cut */
    uint64_t
        value[PMT_PRESSURE_COUNT]; /* by PMT_PRESSURE_*; PMT_PRESSURE_UNKNOWN, PMT_PRESSURE_NONE */
} pmt__pressure_walk;

void pmt__pressure_walk_init(pmt__pressure_walk *self, const pmt_reader *reader);
/* Brings the figures to the next section and returns true, or returns false at the end. The highest figures are never less than
   the last ones. */
bool pmt__pressure_walk_next(pmt__pressure_walk *self);

/* Memory that cannot be given back without swapping, as Kubernetes counts it: without inactive pages of files. */
uint64_t pmt__pressure_working_set(const pmt__pressure_walk *self);

#endif
