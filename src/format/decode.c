#include "format/decode.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "base/error.h"
#include "platform/input.h"

/* Where the first chunk may start: behind the slots, and not absurdly far. */
#define HEADER_SIZE_MIN (PMT_SLOT_B_OFFSET + PMT_SLOT_SIZE)
#define HEADER_SIZE_MAX (1u << 20)

static uint16_t
get_u16(const uint8_t *in)
{
    return (uint16_t)(in[0] | in[1] << 8);
}

static uint32_t
get_u32(const uint8_t *in)
{
    return (uint32_t)get_u16(in) | (uint32_t)get_u16(in + 2) << 16;
}

static uint64_t
get_u64(const uint8_t *in)
{
    return (uint64_t)get_u32(in) | (uint64_t)get_u32(in + 4) << 32;
}

int
pmt__source_read(const pmt__source *self, void *out, size_t size, uint64_t offset, size_t *done,
                 pmt_error *err)
{
    if (self->bytes != NULL) {
        uint64_t left = offset < self->size ? self->size - offset : 0;
        *done = left < size ? (size_t)left : size;
        if (*done != 0) {
            memcpy(out, self->bytes + offset, *done);
        }
        return PMT_OK;
    }
    int result = pmt__input_read_at(self->fd, out, size, offset, done);
    if (result < 0) {
        return pmt__error_set_errno(err, PMT_ERR_IO, -result, "cannot read");
    }
    return PMT_OK;
}

int
pmt__source_refresh(pmt__source *self, pmt_error *err)
{
    int result = self->bytes != NULL ? 0 : pmt__input_size(self->fd, &self->size);
    return result < 0 ? pmt__error_set_errno(err, PMT_ERR_IO, -result, "cannot read") : PMT_OK;
}

/* --- file header and slots ------------------------------------------------------------------- */

int
pmt__header_read(pmt__header *out, const pmt__source *source, pmt_error *err)
{
    static const uint8_t magic[8] = PMT_MAGIC_BYTES;
    uint8_t bytes[PMT_HEADER_USED];
    size_t done;
    int result = pmt__source_read(source, bytes, sizeof bytes, 0, &done, err);
    if (result < 0) {
        return result;
    }
    if (done == 0) {
        return pmt__error_set(err, PMT_ERR_NOT_CAPTURE, "the file is empty, not a capture");
    }
    if (memcmp(bytes, magic, done < 8 ? done : 8) != 0) {
        return pmt__error_set(err, PMT_ERR_NOT_CAPTURE,
                              "not a PyMemTrace capture: it does not start with \"\\x89PMT\"");
    }
    if (done < sizeof bytes) {
        return pmt__error_set_at(err, PMT_ERR_DAMAGED, (int64_t)done,
                                 "the capture is cut short inside its file header");
    }
    out->major = get_u16(bytes + 8);
    out->minor = get_u16(bytes + 10);
    /* Before the checksum, which another major version may have elsewhere. */
    if (out->major != PMT_FORMAT_MAJOR) {
        return pmt__error_set(err, PMT_ERR_VERSION,
                              "the capture has format version %u.%u and this program reads %u.x: "
                              "use the version of PyMemTrace that recorded it, or a newer one",
                              out->major, out->minor, PMT_FORMAT_MAJOR);
    }
    if (get_u64(bytes + 56) != XXH3_64bits(bytes, 56)) {
        return pmt__error_set_at(err, PMT_ERR_DAMAGED, 56, "wrong checksum of the file header");
    }
    uint64_t required = get_u64(bytes + 16);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (required >> bit & 1) {
            return pmt__error_set(err, PMT_ERR_VERSION,
                                  "the capture needs feature %u, which this program does not know: "
                                  "use a newer version of PyMemTrace",
                                  bit);
        }
    }
    out->size = get_u32(bytes + 12);
    if (out->size < HEADER_SIZE_MIN || out->size > HEADER_SIZE_MAX || out->size % 8 != 0) {
        return pmt__error_set_at(err, PMT_ERR_DAMAGED, 12, "wrong size of the file header: %u",
                                 out->size);
    }
    out->optional = get_u64(bytes + 24);
    memcpy(out->id, bytes + 32, 16);
    out->created_unix_ns = get_u64(bytes + 48);
    return PMT_OK;
}

static void
slot_decode(pmt__slot *out, const uint8_t *in)
{
    out->seq = get_u64(in);
    out->status = get_u32(in + 8);
    out->reason = get_u32(in + 12);
    out->data_end = get_u64(in + 16);
    out->cut_t_ns = get_u64(in + 24);
    out->cut_unix_ns = get_u64(in + 32);
    out->cuts = get_u64(in + 40);
    out->live_bytes = get_u64(in + 48);
    out->peak_bytes = get_u64(in + 56);
    out->sys_errno = (int32_t)get_u32(in + 64);
}

int
pmt__slot_read(pmt__slot *out, bool *found, const pmt__source *source, pmt_error *err)
{
    static const uint64_t offsets[2] = {PMT_SLOT_A_OFFSET, PMT_SLOT_B_OFFSET};
    *found = false;
    for (size_t i = 0; i < 2; i++) {
        uint8_t bytes[PMT_SLOT_SIZE];
        size_t done;
        int result = pmt__source_read(source, bytes, sizeof bytes, offsets[i], &done, err);
        if (result < 0) {
            return result;
        }
        if (done < sizeof bytes || get_u64(bytes + 248) != XXH3_64bits(bytes, 248)) {
            continue;
        }
        pmt__slot slot;
        slot_decode(&slot, bytes);
        if (!*found || slot.seq > out->seq) {
            *out = slot;
            *found = true;
        }
    }
    return PMT_OK;
}

/* --- chunks ---------------------------------------------------------------------------------- */

static void *
zstd_alloc(void *context, size_t size)
{
    const pmt_allocator *allocator = context;
    return allocator->resize(allocator->context, NULL, size);
}

static void
zstd_free(void *context, void *block)
{
    pmt__release(context, block);
}

void
pmt__chunk_reader_init(pmt__chunk_reader *self, const pmt__source *source, uint64_t offset,
                       const pmt_allocator *allocator)
{
    memset(self, 0, sizeof *self);
    self->source = *source;
    self->allocator = allocator;
    self->next_offset = offset;
    self->next_sequence = 1;
}

void
pmt__chunk_reader_dispose(pmt__chunk_reader *self)
{
    ZSTD_freeDCtx(self->zstd);
    self->zstd = NULL;
    PMT__VEC_DISPOSE(self->allocator, &self->stored);
    PMT__VEC_DISPOSE(self->allocator, &self->raw);
}

__attribute__((format(printf, 2, 3))) static int
stop(pmt__chunk_reader *self, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int used = vsnprintf(self->stop, sizeof self->stop, format, args);
    va_end(args);
    size_t at = used < 0 ? 0 : (size_t)used;
    if (at < sizeof self->stop) {
        snprintf(self->stop + at, sizeof self->stop - at, " (at offset %llu)",
                 (unsigned long long)self->next_offset);
    }
    return 0;
}

/* 1, 0 after stop(), or an error. */
static int
decompress(pmt__chunk_reader *self, size_t raw_size, pmt_error *err)
{
    if (self->zstd == NULL) {
        ZSTD_customMem memory = {zstd_alloc, zstd_free,
                                 (void *)(uintptr_t)(const void *)self->allocator};
        self->zstd = ZSTD_createDCtx_advanced(memory);
        if (self->zstd == NULL) {
            return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
        }
    }
    /* The claim is checked against the frame's own before memory is taken for it. */
    unsigned long long claimed = ZSTD_getFrameContentSize(self->stored.data, self->stored.len);
    if (claimed != raw_size) {
        return stop(self, "chunk %llu does not hold the %zu bytes that it says",
                    (unsigned long long)self->next_sequence, raw_size);
    }
    self->raw.len = 0;
    if (!PMT__VEC_RESERVE(self->allocator, &self->raw, raw_size + 1)) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory for a chunk of %zu bytes",
                              raw_size);
    }
    size_t size = ZSTD_decompressDCtx(self->zstd, self->raw.data, raw_size, self->stored.data,
                                      self->stored.len);
    if (size != raw_size) {
        return stop(self, "chunk %llu cannot be decompressed: %s",
                    (unsigned long long)self->next_sequence,
                    ZSTD_isError(size) ? ZSTD_getErrorName(size) : "wrong size");
    }
    self->raw.len = size;
    return 1;
}

/* 1: the header of the next chunk, which lies within the file as far as it says. Else as pmt__chunk_next. */
static int
next_header(pmt__chunk_reader *self, uint8_t header[PMT_CHUNK_HEADER_SIZE], pmt_error *err)
{
    uint64_t offset = self->next_offset;
    unsigned long long sequence = self->next_sequence;
    size_t done;
    int result = pmt__source_read(&self->source, header, PMT_CHUNK_HEADER_SIZE, offset, &done, err);
    if (result < 0) {
        return result;
    }
    self->stop[0] = '\0';
    if (done == 0) {
        return 0;
    }
    if (done < PMT_CHUNK_HEADER_SIZE) {
        return stop(self, "chunk %llu is cut short", sequence);
    }
    if (memcmp(header, "CHNK", 4) != 0) {
        return stop(self, "no chunk where chunk %llu should start", sequence);
    }
    uint32_t stored_size = get_u32(header + 12);
    uint32_t raw_size = get_u32(header + 16);
    if (stored_size > PMT_CHUNK_MAX || raw_size > PMT_CHUNK_MAX) {
        return stop(self, "chunk %llu says it has %u bytes; a chunk has at most %u", sequence,
                    stored_size > raw_size ? stored_size : raw_size, PMT_CHUNK_MAX);
    }
    /* Before memory is taken for it; the file may have grown since it was opened, which then is
       noticed by the next reader. */
    if (offset + PMT_CHUNK_HEADER_SIZE > self->source.size
        || stored_size > self->source.size - offset - PMT_CHUNK_HEADER_SIZE) {
        return stop(self, "chunk %llu is cut short", sequence);
    }
    return 1;
}

static uint64_t
end_of(uint64_t offset, uint32_t stored_size)
{
    return (offset + PMT_CHUNK_HEADER_SIZE + stored_size + 7) / 8 * 8;
}

int
pmt__chunk_next(pmt__chunk_reader *self, pmt__chunk *out, pmt_error *err)
{
    uint8_t header[PMT_CHUNK_HEADER_SIZE];
    int result = next_header(self, header, err);
    if (result <= 0) {
        return result;
    }
    uint64_t offset = self->next_offset;
    unsigned long long sequence = self->next_sequence;
    uint32_t flags = get_u32(header + 8);
    uint32_t stored_size = get_u32(header + 12);
    uint32_t raw_size = get_u32(header + 16);
    size_t done;
    self->stored.len = 0;
    if (!PMT__VEC_RESERVE(self->allocator, &self->stored, (size_t)stored_size + 1)) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory for a chunk of %u bytes",
                              stored_size);
    }
    result = pmt__source_read(&self->source, self->stored.data, stored_size,
                              offset + PMT_CHUNK_HEADER_SIZE, &done, err);
    if (result < 0) {
        return result;
    }
    if (done < stored_size) {
        return stop(self, "chunk %llu is cut short", sequence);
    }
    self->stored.len = stored_size;
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    XXH3_64bits_update(&hash, header, 32);
    XXH3_64bits_update(&hash, self->stored.data, stored_size);
    if (XXH3_64bits_digest(&hash) != get_u64(header + 32)) {
        return stop(self, "wrong checksum of chunk %llu", sequence);
    }
    if (get_u64(header + 24) != self->next_sequence) {
        return stop(self, "chunk %llu where chunk %llu should be",
                    (unsigned long long)get_u64(header + 24), sequence);
    }

    memcpy(out->kind, header + 4, 4);
    out->kind[4] = '\0';
    if (flags & PMT_CHUNK_COMPRESSED) {
        result = decompress(self, raw_size, err);
        if (result <= 0) {
            return result;
        }
        out->payload = self->raw.data;
        out->size = raw_size;
    } else {
        if (raw_size != stored_size) {
            return stop(self, "chunk %llu has two different sizes", sequence);
        }
        out->payload = self->stored.data;
        out->size = stored_size;
    }
    bool known = memcmp(out->kind, "PROC", 4) == 0 || memcmp(out->kind, "DLTA", 4) == 0
                 || memcmp(out->kind, "EVTS", 4) == 0 || memcmp(out->kind, "END ", 4) == 0
                 || memcmp(out->kind, "SYMB", 4) == 0;
    if (!known && (flags & PMT_CHUNK_REQUIRED)) {
        return pmt__error_set_at(err, PMT_ERR_VERSION, (int64_t)offset,
                                 "the capture holds a chunk of a kind that this program does not "
                                 "know and must not skip: use a newer version of PyMemTrace");
    }
    out->offset = offset;
    out->end = end_of(offset, stored_size);
    out->sequence = self->next_sequence++;
    self->next_offset = out->end;
    return 1;
}

int
pmt__chunk_next_of(pmt__chunk_reader *self, const char kind[4], pmt__chunk *out, pmt_error *err)
{
    uint8_t header[PMT_CHUNK_HEADER_SIZE];
    int result;
    while ((result = next_header(self, header, err)) == 1) {
        if (memcmp(header + 4, kind, 4) == 0) {
            return pmt__chunk_next(self, out, err);
        }
        if (get_u64(header + 24) != self->next_sequence) {
            return stop(self, "chunk %llu where chunk %llu should be",
                        (unsigned long long)get_u64(header + 24),
                        (unsigned long long)self->next_sequence);
        }
        self->next_sequence++;
        self->next_offset = end_of(self->next_offset, get_u32(header + 12));
    }
    return result;
}

/* --- payloads -------------------------------------------------------------------------------- */

void
pmt__cursor_init(pmt__cursor *self, const pmt__chunk *chunk, const char *what, pmt_error *err)
{
    self->at = self->start = chunk->payload;
    self->end = chunk->payload + chunk->size;
    self->offset = (int64_t)chunk->offset;
    self->what = what;
    self->err = err;
    self->code = PMT_OK;
}

int
pmt__cursor_fail(pmt__cursor *self, const char *format, ...)
{
    if (self->code != PMT_OK) {
        return self->code;
    }
    char message[160];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    self->code = pmt__error_set_at(self->err, PMT_ERR_DAMAGED, self->offset,
                                   "the capture is damaged: %s: %s, at byte %td of the chunk",
                                   self->what, message, self->at - self->start);
    self->at = self->end;
    return self->code;
}

uint64_t
pmt__get_varint_slow(pmt__cursor *self)
{
    uint64_t value;
    const uint8_t *behind = pmt__varint_get(self->at, self->end, &value);
    if (behind == NULL) {
        pmt__cursor_fail(self, "a number is cut short or too large");
        return 0;
    }
    self->at = behind;
    return value;
}

uint8_t
pmt__get_u8(pmt__cursor *self)
{
    const uint8_t *byte = pmt__get_bytes(self, 1);
    return byte == NULL ? 0 : *byte;
}

double
pmt__get_f64(pmt__cursor *self)
{
    const uint8_t *bytes = pmt__get_bytes(self, sizeof(double));
    double value = 0;
    if (bytes != NULL) {
        memcpy(&value, bytes, sizeof value);
    }
    return value - value == 0 ? value : 0;
}

const uint8_t *
pmt__get_bytes(pmt__cursor *self, uint64_t size)
{
    if (self->code != PMT_OK) {
        return NULL;
    }
    if (size > (uint64_t)(self->end - self->at)) {
        pmt__cursor_fail(self, "%llu bytes should follow and %td do", (unsigned long long)size,
                         self->end - self->at);
        return NULL;
    }
    const uint8_t *bytes = self->at;
    self->at += size;
    return bytes;
}

uint64_t
pmt__get_limited(pmt__cursor *self, uint64_t limit, const char *name)
{
    uint64_t value = pmt__get_varint(self);
    if (value > limit) {
        pmt__cursor_fail(self, "%s is %llu, more than %llu", name, (unsigned long long)value,
                         (unsigned long long)limit);
        return 0;
    }
    return value;
}

size_t
pmt__get_count(pmt__cursor *self, size_t min_size)
{
    uint64_t count = pmt__get_varint(self);
    uint64_t possible = (uint64_t)(self->end - self->at) / min_size;
    if (count > possible) {
        pmt__cursor_fail(self, "%llu entries should follow and there is room for %llu",
                         (unsigned long long)count, (unsigned long long)possible);
        return 0;
    }
    return (size_t)count;
}

void
pmt__cursor_take(pmt__cursor *self, pmt__cursor *inner, uint64_t size, const char *what)
{
    *inner = *self;
    inner->what = what;
    const uint8_t *bytes = pmt__get_bytes(self, size);
    if (bytes == NULL) {
        inner->at = inner->end;
        inner->code = self->code;
        return;
    }
    inner->end = bytes + size;
}
