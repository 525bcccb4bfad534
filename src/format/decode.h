/* Reading side of the codec: the file header, its state slots, chunks, and the numbers and texts
   inside a payload. Nothing here trusts its input. */
#ifndef PMT_FORMAT_DECODE_H
#define PMT_FORMAT_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/varint.h"
#include "format/encode.h"
#include "format/spec.h"
#include "pymemtrace/error.h"

/* Where the bytes come from: an open file, or memory if bytes is not NULL. */
typedef struct pmt__source {
    const uint8_t *bytes; /* borrowed */
    int fd;               /* borrowed */
    uint64_t size;        /* when it was opened or refreshed; a file may change at any time */
} pmt__source;

/* Reads at most size bytes; *done is less only at the end. */
int pmt__source_read(const pmt__source *self, void *out, size_t size, uint64_t offset, size_t *done,
                     pmt_error *err);

/* Takes in by how much a file has grown or shrunk since it was opened. */
int pmt__source_refresh(pmt__source *self, pmt_error *err);

typedef struct pmt__header {
    uint16_t major;
    uint16_t minor;
    uint32_t size;
    uint64_t optional;
    uint8_t id[16];
    uint64_t created_unix_ns;
} pmt__header;

/* PMT_ERR_NOT_CAPTURE, PMT_ERR_VERSION or PMT_ERR_DAMAGED when it is not one that can be read. */
int pmt__header_read(pmt__header *out, const pmt__source *source, pmt_error *err);

/* Sets *found to whether there is a valid slot, and *out to the one that counts. */
int pmt__slot_read(pmt__slot *out, bool *found, const pmt__source *source, pmt_error *err);

typedef struct pmt__chunk {
    char kind[5];           /* NUL-terminated */
    uint64_t offset;        /* of its header in the file */
    uint64_t end;           /* behind its padding */
    const uint8_t *payload; /* decompressed; borrowed until the next chunk is read */
    size_t size;
    uint64_t sequence;
} pmt__chunk;

typedef struct pmt__chunk_reader {
    pmt__source source;
    const pmt_allocator *allocator; /* borrowed */
    PMT__VEC(uint8_t) stored;       /* owned */
    PMT__VEC(uint8_t) raw;          /* owned */
    void *zstd;                     /* owned: ZSTD_DCtx */
    uint64_t next_offset;           /* behind the last complete chunk */
    uint64_t next_sequence;
    /* Why the reading ended before the end of the file; empty if it did not. */
    char stop[256];
} pmt__chunk_reader;

void pmt__chunk_reader_init(pmt__chunk_reader *self, const pmt__source *source, uint64_t offset,
                            const pmt_allocator *allocator);
void pmt__chunk_reader_dispose(pmt__chunk_reader *self);

/* 1: *out is the next complete chunk. 0: there is none; `stop` says why. Else an error. Chunks of
   unknown kinds are passed on like the others, unless they forbid to be skipped. */
int pmt__chunk_next(pmt__chunk_reader *self, pmt__chunk *out, pmt_error *err);

/* The same for the next chunk of this kind. Those of others are passed over by what their headers say. */
int pmt__chunk_next_of(pmt__chunk_reader *self, const char kind[4], pmt__chunk *out,
                       pmt_error *err);

/* A walk through a payload. The first thing that is wrong fills the error and makes the cursor stay
   at its end, where every number is 0: so a run of gets needs one check behind it. */
typedef struct pmt__cursor {
    const uint8_t *at;
    const uint8_t *end;
    const uint8_t *start; /* of the payload, for messages */
    int64_t offset;       /* of the chunk in the file, for messages */
    const char *what;     /* being read, for messages; borrowed */
    pmt_error *err;       /* borrowed */
    int code;             /* PMT_OK until something is wrong */
} pmt__cursor;

void pmt__cursor_init(pmt__cursor *self, const pmt__chunk *chunk, const char *what, pmt_error *err);
/* A cursor over the next `size` bytes, which the outer one passes. */
void pmt__cursor_take(pmt__cursor *self, pmt__cursor *inner, uint64_t size, const char *what);
/* Fails the cursor: "in <what>, byte N: <message>". Returns the code. */
int pmt__cursor_fail(pmt__cursor *self, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

uint64_t pmt__get_varint_slow(pmt__cursor *self);
static inline uint64_t
pmt__get_varint(pmt__cursor *self)
{
    if (self->at < self->end && *self->at < 0x80) {
        return *self->at++;
    }
    return pmt__get_varint_slow(self);
}
static inline int64_t
pmt__get_zigzag(pmt__cursor *self)
{
    return pmt__unzigzag(pmt__get_varint(self));
}
uint8_t pmt__get_u8(pmt__cursor *self);
/* Eight bytes, little-endian, IEEE 754; 0 if it is not finite. */
double pmt__get_f64(pmt__cursor *self);
/* Passes size bytes and returns them; NULL (and failed) if there are fewer. */
const uint8_t *pmt__get_bytes(pmt__cursor *self, uint64_t size);
/* A varint that must be <= limit; `name` for the message. */
uint64_t pmt__get_limited(pmt__cursor *self, uint64_t limit, const char *name);
/* A varint count of entries of at least min_size bytes each: never more than can follow. */
size_t pmt__get_count(pmt__cursor *self, size_t min_size);

#endif
