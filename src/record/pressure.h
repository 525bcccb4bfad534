/* How short memory is around the process: the section PRESSURE of docs/format.md. */
#ifndef PMT_RECORD_PRESSURE_H
#define PMT_RECORD_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#include "format/decode.h"
#include "format/encode.h"
#include "format/spec.h"
#include "platform/pressure.h"

/* Owned by whoever may take cuts (writer.c). */
typedef struct pmt__pressure {
    pmt__pressure_source source;
    uint64_t told[PMT_PRESSURE_COUNT]; /* what the capture knows so far */
    uint64_t thorough_after_ns;
} pmt__pressure;

void pmt__pressure_init(pmt__pressure *self);
/* Closes its files; those of the process it was in. */
void pmt__pressure_close(pmt__pressure *self);
/* A capture begins, which knows nothing yet. Reads once, for the facts: some 300 us. */
void pmt__pressure_begin(pmt__pressure *self);

/* Appends facts for PROC about the cgroup; *count: of the facts. */
void pmt__pressure_facts_put(const pmt__pressure *self, pmt__buffer *out, uint32_t *count);

/* Reads, and appends the section. Some 50 us. thorough: also what is otherwise read every 5 s only. */
void pmt__pressure_put(pmt__pressure *self, pmt__buffer *payload, int thorough);

/* Appends a section with what `now` has and `told` has not, and brings `told` up to it. */
void pmt__pressure_put_changes(uint64_t told[PMT_PRESSURE_COUNT],
                               const uint64_t now[PMT_PRESSURE_COUNT], pmt__buffer *payload);

/* Sections of a window as one: the last figures, and the highest of those that come and go. */
typedef struct pmt__pressure_merge {
    bool any;
    uint32_t has; /* bit per figure */
    uint64_t value[PMT_PRESSURE_COUNT];
} pmt__pressure_merge;

void pmt__pressure_merge_begin(pmt__pressure_merge *self);
/* The body of a section. False: it is not one. */
bool pmt__pressure_merge_add(pmt__pressure_merge *self, pmt__cursor *in);
void pmt__pressure_merge_put(const pmt__pressure_merge *self, pmt__buffer *payload);

#endif
