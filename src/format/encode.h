/* Writing side of the codec: a growing byte buffer, sections, chunks, the file header and its state slots.

   Memory comes from the platform's page allocator, never from malloc: the writer lives in the traced process. Growth
   can fail; a failed buffer stays failed and ignores further puts, so callers check `failed` once at the end. */
#ifndef PMT_FORMAT_ENCODE_H
#define PMT_FORMAT_ENCODE_H

#include <stddef.h>
#include <stdint.h>

typedef struct pmt__buffer {
    uint8_t *data; /* owned; page memory */
    size_t len;
    size_t cap;
    int failed; /* 1: memory ran out, content is incomplete */
} pmt__buffer;

void pmt__buffer_init(pmt__buffer *self);
void pmt__buffer_dispose(pmt__buffer *self);
void pmt__buffer_clear(pmt__buffer *self); /* keeps the memory, forgets content and failure */

/* Makes room for n more bytes; returns where they go, or NULL (and sets failed). Does not move len. */
uint8_t *pmt__buffer_reserve(pmt__buffer *self, size_t n);
void pmt__buffer_put(pmt__buffer *self, const void *bytes, size_t n);
void pmt__buffer_put_varint(pmt__buffer *self, uint64_t value);
void pmt__buffer_put_zigzag(pmt__buffer *self, int64_t value);
void pmt__buffer_put_text(pmt__buffer *self, const char *text,
                          size_t n); /* varint length + bytes */

/* Appends a section: its kind, its length, the bytes of body. */
void pmt__section_put(pmt__buffer *self, uint8_t kind, const pmt__buffer *body);

/* Facts of the PROC chunk; the caller writes the count first. */
void pmt__fact_put_number(pmt__buffer *self, const char *key, uint64_t value);
void pmt__fact_put_text(pmt__buffer *self, const char *key, const char *text);
void pmt__fact_put_list(pmt__buffer *self, const char *key, const char *const *items, size_t count);

/* Appends a whole chunk (header, payload, padding) to out; compresses the payload with zstd level 1 when that makes it
   smaller. kind is four characters. */
void pmt__chunk_put(pmt__buffer *out, const char kind[4], uint32_t flags, uint64_t sequence,
                    const uint8_t *payload, size_t size);

/* Gives the first of the whole chunks in these bytes another sequence number. Returns its size with its padding; 0 and
   nothing changed if it is not whole or its checksum is wrong. */
size_t pmt__chunk_renumber(uint8_t *chunks, size_t size, uint64_t sequence);
/* The size that the chunk with this header has in the file, padding included; 0 if it is not the header of a chunk. */
size_t pmt__chunk_stored_size(const uint8_t header[40]);

typedef struct pmt__slot {
    uint64_t seq;
    uint32_t status;
    uint32_t reason;
    uint64_t data_end;
    uint64_t cut_t_ns;
    uint64_t cut_unix_ns;
    uint64_t cuts;
    uint64_t live_bytes;
    uint64_t peak_bytes;
    int32_t sys_errno;
    uint64_t flips; /* of a box: the state is in region flips % 2 */
    uint64_t rss_bytes;
} pmt__slot;

void pmt__header_encode(uint8_t out[64], const uint8_t id[16], uint64_t created_unix_ns,
                        uint64_t required, uint64_t optional);
/* Of a box: how large each of its regions is. */
void pmt__header_box_encode(uint8_t out[16], uint64_t region_bytes);
void pmt__slot_encode(uint8_t out[256], const pmt__slot *slot);

#endif
