/* How the resident memory of the process is made up: the section RESIDENT of docs/format.md. */
#ifndef PMT_RECORD_RESIDENT_H
#define PMT_RECORD_RESIDENT_H

#include <stddef.h>
#include <stdint.h>

#include "format/encode.h"
#include "format/spec.h"
#include "platform/platform.h"
#include "record/ranges.h"

typedef struct pmt__resident {
    uint64_t value[PMT_RESIDENT_LIMIT]; /* by PMT_RESIDENT_* */
    struct {
        uint32_t pools, blocks;
    } classes[PMT_RESIDENT_CLASSES]; /* blocks of 16, 32, … bytes */
} pmt__resident;

/* The working memory of measurements; pages, made by the first. Owned by whoever may take cuts (writer.c). */
typedef struct pmt__measure {
    pmt__resident result;
    pmt__area *areas;
    size_t area_count, area_room;
    pmt__extent *ranges; /* mappings of the domain mmap */
    size_t range_count, range_room;
    pmt__extent *stacks; /* of the threads that run, sorted */
    size_t stack_count;
    uint8_t *states;      /* of the pages of one window */
    const uint32_t *stop; /* borrowed, or NULL; atomic: whoever wants the measurement to end */
} pmt__measure;

void pmt__measure_init(pmt__measure *self);
void pmt__measure_dispose(pmt__measure *self);
uint64_t pmt__measure_bytes(const pmt__measure *self); /* of its memory */

/* Copies what the tables know. The caller holds them. */
void pmt__measure_prepare_nopy(pmt__measure *self);

/* Measures into self->result, but for T, TOOK and LIVE. 0, or a negative errno: nothing is known. Reads the memory of others without
   trusting it, takes the C library's locks, allocates nothing but pages. The caller does not hold the tables. Ends
   early, with -ECANCELED, when *stop is not 0 (NULL: never). */
int pmt__measure_run(pmt__measure *self, const uint32_t *stop);

/* The body of the section. */
void pmt__resident_put(pmt__buffer *out, const pmt__resident *self);

/* Is this the header of a pool of pymalloc, as all versions from 3.10 on write it? Its size class and blocks in use. */
#define PMT_POOL_SIZE ((size_t)16 << 10)
#define PMT_POOL_HEADER 48
int pmt__pool_parse(const uint8_t header[PMT_POOL_HEADER], uint32_t *size_class, uint32_t *blocks);

/* The size of a mapping that glibc's malloc made for one block, told by what stands at its beginning; 0: it is none. *block: the
   offset of the block in it. `page`: its first `size` bytes. */
uint64_t pmt__chunk_parse(const uint8_t *page, size_t size, size_t *block);

#endif
