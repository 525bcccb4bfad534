/* The writer's side of docs/format.md.

   Nothing here may call malloc, and neither may zstd on its behalf: this runs in the traced
   process, where malloc can be hooked or be held by a thread that a fork has lost. So zstd gets a
   static workspace from the page allocator, sized for the payload at hand and given back at once; at
   one chunk per second its page faults do not matter, and the memory is not resident between cuts. */
#include "format/encode.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "base/varint.h"
#include "format/spec.h"
#include "platform/platform.h"

#define COMPRESSION_LEVEL 1
#define FIRST_CAPACITY ((size_t)64 << 10)

static void
put_u16(uint8_t *out, uint16_t value)
{
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
}

static void
put_u32(uint8_t *out, uint32_t value)
{
    put_u16(out, (uint16_t)value);
    put_u16(out + 2, (uint16_t)(value >> 16));
}

static void
put_u64(uint8_t *out, uint64_t value)
{
    put_u32(out, (uint32_t)value);
    put_u32(out + 4, (uint32_t)(value >> 32));
}

/* --- buffer ----------------------------------------------------------------------------------- */

void
pmt__buffer_init(pmt__buffer *self)
{
    memset(self, 0, sizeof *self);
}

void
pmt__buffer_dispose(pmt__buffer *self)
{
    if (self->data != NULL) {
        pmt__pages_unmap(self->data, self->cap);
    }
    memset(self, 0, sizeof *self);
}

void
pmt__buffer_clear(pmt__buffer *self)
{
    self->len = 0;
    self->failed = 0;
}

static int
grow(pmt__buffer *self, size_t needed)
{
    size_t cap = self->cap == 0 ? FIRST_CAPACITY : self->cap;
    while (cap < needed) {
        if (cap > SIZE_MAX / 2) {
            return -1;
        }
        cap *= 2;
    }
    uint8_t *data = pmt__pages_map(cap);
    if (data == NULL) {
        return -1;
    }
    if (self->data != NULL) {
        memcpy(data, self->data, self->len);
        pmt__pages_unmap(self->data, self->cap);
    }
    self->data = data;
    self->cap = cap;
    return 0;
}

uint8_t *
pmt__buffer_reserve(pmt__buffer *self, size_t n)
{
    if (self->failed) {
        return NULL;
    }
    if (self->data == NULL || n > self->cap - self->len) {
        if (n > SIZE_MAX - self->len || grow(self, self->len + n) < 0) {
            self->failed = 1;
            return NULL;
        }
    }
    return self->data + self->len;
}

void
pmt__buffer_put(pmt__buffer *self, const void *bytes, size_t n)
{
    uint8_t *out = pmt__buffer_reserve(self, n);
    if (out != NULL && n != 0) {
        memcpy(out, bytes, n);
        self->len += n;
    }
}

void
pmt__buffer_put_varint(pmt__buffer *self, uint64_t value)
{
    uint8_t *out = pmt__buffer_reserve(self, PMT_VARINT_MAX);
    if (out != NULL) {
        self->len += (size_t)(pmt__varint_put(out, value) - out);
    }
}

void
pmt__buffer_put_zigzag(pmt__buffer *self, int64_t value)
{
    pmt__buffer_put_varint(self, pmt__zigzag(value));
}

void
pmt__buffer_put_text(pmt__buffer *self, const char *text, size_t n)
{
    pmt__buffer_put_varint(self, n);
    pmt__buffer_put(self, text, n);
}

/* --- sections and facts ----------------------------------------------------------------------- */

void
pmt__section_put(pmt__buffer *self, uint8_t kind, const pmt__buffer *body)
{
    if (body->failed) {
        self->failed = 1;
        return;
    }
    pmt__buffer_put(self, &kind, 1);
    pmt__buffer_put_varint(self, body->len);
    pmt__buffer_put(self, body->data, body->len);
}

static void
put_fact_head(pmt__buffer *self, const char *key, uint8_t type)
{
    pmt__buffer_put_text(self, key, strlen(key));
    pmt__buffer_put(self, &type, 1);
}

void
pmt__fact_put_number(pmt__buffer *self, const char *key, uint64_t value)
{
    put_fact_head(self, key, PMT_FACT_NUMBER);
    pmt__buffer_put_varint(self, value);
}

void
pmt__fact_put_text(pmt__buffer *self, const char *key, const char *text)
{
    put_fact_head(self, key, PMT_FACT_TEXT);
    pmt__buffer_put_text(self, text, strlen(text));
}

void
pmt__fact_put_list(pmt__buffer *self, const char *key, const char *const *items, size_t count)
{
    put_fact_head(self, key, PMT_FACT_LIST);
    pmt__buffer_put_varint(self, count);
    for (size_t i = 0; i < count; i++) {
        pmt__buffer_put_text(self, items[i], strlen(items[i]));
    }
}

/* --- chunks ----------------------------------------------------------------------------------- */

/* Compresses into out, which has room for `size` bytes. Returns the compressed size, or 0 if that is not smaller or
   the workspace cannot be had: then the chunk is stored as it is. */
static size_t
compress(uint8_t *out, const uint8_t *payload, size_t size)
{
    ZSTD_compressionParameters params = ZSTD_getCParams(COMPRESSION_LEVEL, size, 0);
    size_t workspace_size = ZSTD_estimateCCtxSize_usingCParams(params);
    if (ZSTD_isError(workspace_size)) {
        return 0;
    }
    void *workspace = pmt__pages_map(workspace_size);
    if (workspace == NULL) {
        return 0;
    }
    size_t stored = 0;
    ZSTD_CCtx *context = ZSTD_initStaticCCtx(workspace, workspace_size);
    if (context != NULL) {
        stored = ZSTD_compressCCtx(context, out, size, payload, size, COMPRESSION_LEVEL);
        if (ZSTD_isError(stored) || stored >= size) {
            stored = 0;
        }
    }
    pmt__pages_unmap(workspace, workspace_size);
    return stored;
}

static uint64_t
get_number(const uint8_t *in, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) {
        value = value << 8 | in[i];
    }
    return value;
}

static uint64_t
chunk_checksum(const uint8_t *chunk)
{
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    XXH3_64bits_update(&hash, chunk, 32);
    XXH3_64bits_update(&hash, chunk + PMT_CHUNK_HEADER_SIZE, (size_t)get_number(chunk + 12, 4));
    return XXH3_64bits_digest(&hash);
}

void
pmt__chunk_put(pmt__buffer *out, const char kind[4], uint32_t flags, uint64_t sequence,
               const uint8_t *payload, size_t size)
{
    if (size > PMT_CHUNK_MAX) {
        out->failed = 1;
        return;
    }
    uint8_t *header = pmt__buffer_reserve(out, PMT_CHUNK_HEADER_SIZE + size + 8);
    if (header == NULL) {
        return;
    }
    uint8_t *body = header + PMT_CHUNK_HEADER_SIZE;
    size_t stored = size < 64 ? 0 : compress(body, payload, size);
    flags &= ~PMT_CHUNK_COMPRESSED;
    if (stored != 0) {
        flags |= PMT_CHUNK_COMPRESSED;
    } else {
        stored = size;
        if (size != 0) {
            memcpy(body, payload, size);
        }
    }

    memcpy(header, "CHNK", 4);
    memcpy(header + 4, kind, 4);
    put_u32(header + 8, flags);
    put_u32(header + 12, (uint32_t)stored);
    put_u32(header + 16, (uint32_t)size);
    put_u32(header + 20, 0);
    put_u64(header + 24, sequence);
    put_u64(header + 32, chunk_checksum(header));

    size_t total = PMT_CHUNK_HEADER_SIZE + stored;
    size_t padding = (8 - total % 8) % 8;
    memset(header + total, 0, padding);
    out->len += total + padding;
}

size_t
pmt__chunk_stored_size(const uint8_t header[40])
{
    size_t stored = (size_t)get_number(header + 12, 4);
    if (memcmp(header, "CHNK", 4) != 0 || stored > PMT_CHUNK_MAX) {
        return 0;
    }
    return (PMT_CHUNK_HEADER_SIZE + stored + 7) / 8 * 8;
}

size_t
pmt__chunk_renumber(uint8_t *chunks, size_t size, uint64_t sequence)
{
    size_t whole = size < PMT_CHUNK_HEADER_SIZE ? 0 : pmt__chunk_stored_size(chunks);
    if (whole == 0 || whole > size || chunk_checksum(chunks) != get_number(chunks + 32, 8)) {
        return 0;
    }
    put_u64(chunks + 24, sequence);
    put_u64(chunks + 32, chunk_checksum(chunks));
    return whole;
}

/* --- file header and slots -------------------------------------------------------------------- */

void
pmt__header_encode(uint8_t out[64], const uint8_t id[16], uint64_t created_unix_ns,
                   uint64_t required, uint64_t optional)
{
    static const uint8_t magic[8] = PMT_MAGIC_BYTES;
    memcpy(out, magic, 8);
    put_u16(out + 8, PMT_FORMAT_MAJOR);
    put_u16(out + 10, PMT_FORMAT_MINOR);
    put_u32(out + 12, PMT_HEADER_SIZE);
    put_u64(out + 16, required);
    put_u64(out + 24, optional);
    memcpy(out + 32, id, 16);
    put_u64(out + 48, created_unix_ns);
    put_u64(out + 56, XXH3_64bits(out, 56));
}

void
pmt__header_box_encode(uint8_t out[16], uint64_t region_bytes)
{
    put_u64(out, region_bytes);
    put_u64(out + 8, XXH3_64bits(out, 8));
}

void
pmt__slot_encode(uint8_t out[256], const pmt__slot *slot)
{
    memset(out, 0, PMT_SLOT_SIZE);
    put_u64(out, slot->seq);
    put_u32(out + 8, slot->status);
    put_u32(out + 12, slot->reason);
    put_u64(out + 16, slot->data_end);
    put_u64(out + 24, slot->cut_t_ns);
    put_u64(out + 32, slot->cut_unix_ns);
    put_u64(out + 40, slot->cuts);
    put_u64(out + 48, slot->live_bytes);
    put_u64(out + 56, slot->peak_bytes);
    put_u32(out + 64, (uint32_t)slot->sys_errno);
    put_u64(out + 72, slot->flips);
    put_u64(out + 80, slot->rss_bytes);
    put_u64(out + 248, XXH3_64bits(out, 248));
}
