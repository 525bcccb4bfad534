/* Making the payload of a chunk SYMB, and appending it to a capture. */
#include <string.h>

#include "base/error.h"
#include "base/index.h"
#include "base/varint.h"
#include "format/encode.h"
#include "platform/input.h"
#include "platform/platform.h"
#include "store/store.h"

/* --- the payload ------------------------------------------------------------------------------- */

struct pmt_symbols {
    const pmt_allocator *allocator; /* borrowed */
    pmt__text_buffer texts;         /* their lengths and bytes, one after the other */
    PMT__VEC(pmt__string) known; /* where they are in it; number 0 is the empty one and not there */
    pmt__index index;
    pmt__text_buffer places;
    pmt__text_buffer frames; /* of the place that was begun last */
    size_t place_count;
    size_t frame_count; /* of that place */
    pmt__text_buffer bytes;
};

int
pmt_symbols_create(pmt_symbols **out, const pmt_allocator *allocator, pmt_error *err)
{
    allocator = allocator == NULL ? pmt_allocator_default() : allocator;
    pmt_symbols *self = *out = pmt__alloc_zeroed(allocator, 1, sizeof *self);
    if (self == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    self->allocator = allocator;
    pmt__text_init(&self->texts, allocator);
    pmt__text_init(&self->places, allocator);
    pmt__text_init(&self->frames, allocator);
    pmt__text_init(&self->bytes, allocator);
    pmt__index_init(&self->index, allocator);
    return PMT_OK;
}

void
pmt_symbols_destroy(pmt_symbols *self)
{
    if (self == NULL) {
        return;
    }
    pmt__text_dispose(&self->texts);
    pmt__text_dispose(&self->places);
    pmt__text_dispose(&self->frames);
    pmt__text_dispose(&self->bytes);
    pmt__index_dispose(&self->index);
    PMT__VEC_DISPOSE(self->allocator, &self->known);
    pmt__release(self->allocator, self);
}

static void
put_varint(pmt__text_buffer *out, uint64_t value)
{
    uint8_t bytes[PMT_VARINT_MAX];
    pmt__text_put(out, bytes, (size_t)(pmt__varint_put(bytes, value) - bytes));
}

static uint64_t
hash_text(pmt_string text)
{
    uint64_t hash = text.len;
    for (size_t i = 0; i < text.len; i++) {
        hash = hash * 31 + (uint8_t)text.text[i];
    }
    return pmt__hash_u64(hash);
}

/* Appends the number of a text, which gets one if it is new. */
static void
put_text(pmt_symbols *self, pmt__text_buffer *out, pmt_string text)
{
    if (text.len == 0) {
        put_varint(out, 0);
        return;
    }
    uint64_t hash = hash_text(text);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->index, hash);
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        pmt__string place = self->known.data[at];
        if (place.len == text.len
            && memcmp(self->texts.data + place.offset, text.text, text.len) == 0) {
            put_varint(out, (uint64_t)at + 1);
            return;
        }
    }
    at = (uint32_t)self->known.len;
    put_varint(&self->texts, text.len);
    size_t offset = self->texts.len;
    pmt__text_put(&self->texts, text.text, text.len);
    self->texts.failed = self->texts.failed || offset + text.len > PMT_CHUNK_MAX;
    if (self->texts.failed || !PMT__VEC_RESERVE(self->allocator, &self->known, 1)
        || !pmt__index_add(&self->index, hash, at)) {
        self->texts.failed = true;
        return;
    }
    self->known.data[self->known.len++] = (pmt__string){(uint32_t)offset, (uint32_t)text.len};
    put_varint(out, (uint64_t)at + 1);
}

static void
end_place(pmt_symbols *self)
{
    if (self->place_count != 0) {
        put_varint(&self->places, self->frame_count);
        pmt__text_put(&self->places, self->frames.data, self->frames.len);
        self->places.failed = self->places.failed || self->frames.failed;
    }
    self->frames.len = 0;
    self->frame_count = 0;
}

void
pmt_symbols_put_place(pmt_symbols *self, pmt_string object, uint64_t offset)
{
    end_place(self);
    put_text(self, &self->places, object);
    put_varint(&self->places, offset);
    self->place_count++;
}

void
pmt_symbols_put_frame(pmt_symbols *self, pmt_string function, pmt_string file, int64_t line)
{
    put_text(self, &self->frames, function);
    put_text(self, &self->frames, file);
    put_varint(&self->frames, line > 0 && line <= INT32_MAX ? (uint64_t)line : 0);
    self->frame_count++;
}

int
pmt_symbols_bytes(pmt_symbols *self, const void **out, size_t *size, pmt_error *err)
{
    end_place(self);
    self->bytes.len = 0;
    put_varint(&self->bytes, self->known.len);
    pmt__text_put(&self->bytes, self->texts.data, self->texts.len);
    put_varint(&self->bytes, self->place_count);
    pmt__text_put(&self->bytes, self->places.data, self->places.len);
    if (self->bytes.failed || self->texts.failed || self->places.failed) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory for the symbols");
    }
    *out = self->bytes.data;
    *size = self->bytes.len;
    return PMT_OK;
}

/* --- appending --------------------------------------------------------------------------------- */

/* Whether nobody writes to the capture any more. Where that is not certain, it is not so: a process on another host, or in a
   container, is not to be seen from here. */
static bool
has_ended(const pmt_reader *reader)
{
    if (reader->has_end) {
        return true;
    }
    char here[PMT_HOST_NAME_MAX];
    pmt__host_name_get(here);
    const pmt_fact *host = pmt_reader_find_fact(reader, "hostname");
    return reader->ended == PMT_ENDED_KILLED && !reader->damaged && host != NULL
           && host->text.len != 0 && strlen(here) == host->text.len
           && memcmp(host->text.text, here, host->text.len) == 0
           && !pmt__reader_process_runs(reader);
}

static int
refuse(pmt_error *err, const char *why)
{
    return pmt__error_set(err, PMT_ERR_STATE, "no symbols can be added to the capture: %s", why);
}

/* Where the chunk goes: others may have appended meanwhile. */
static int
find_place(const pmt_reader *reader, pmt__source *source, uint64_t *offset, uint64_t *sequence,
           pmt_error *err)
{
    pmt__header header;
    int result = pmt__header_read(&header, source, err);
    if (result < 0) {
        return result;
    }
    if (memcmp(header.id, reader->header.id, sizeof header.id) != 0
        || header.size != reader->header.size) {
        return refuse(err, "the file is not what it was");
    }
    pmt__chunk_reader chunks;
    pmt__chunk_reader_init(&chunks, source, reader->end_offset, reader->allocator);
    chunks.next_sequence = reader->end_sequence;
    pmt__chunk chunk;
    while ((result = pmt__chunk_next(&chunks, &chunk, err)) == 1) {
        if (strcmp(chunk.kind, "SYMB") != 0) {
            result = refuse(err, "it has grown");
            break;
        }
    }
    *offset = chunks.next_offset;
    *sequence = chunks.next_sequence;
    pmt__chunk_reader_dispose(&chunks);
    return result;
}

/* Makes these bytes the end of the file, from offset on. 0, or a negative errno: then the file ends at offset. */
static int
replace_end(int fd, const void *bytes, size_t size, uint64_t offset)
{
    int result = pmt__file_truncate(fd, offset);
    if (result == 0) {
        result = pmt__file_write_at(fd, bytes, size, offset);
        if (result < 0) {
            pmt__file_truncate(fd, offset);
        }
    }
    return result;
}

static int
append(const pmt_reader *reader, int fd, uint64_t size, const void *bytes, size_t count,
       pmt_error *err)
{
    int result = pmt__output_lock(fd);
    if (result < 0) {
        return refuse(err, "it is locked");
    }
    pmt__source source = {NULL, fd, size};
    result = pmt__source_refresh(&source, err);
    uint64_t offset = 0;
    uint64_t sequence = 0;
    if (result == PMT_OK) {
        result = find_place(reader, &source, &offset, &sequence, err);
    }
    if (result < 0) {
        return result;
    }
    pmt__buffer chunk;
    pmt__buffer_init(&chunk);
    pmt__chunk_put(&chunk, "SYMB", 0, sequence, bytes, count);
    if (chunk.failed) {
        result = pmt__error_set(err, PMT_ERR_NOMEM, "out of memory for the symbols");
    } else {
        result = replace_end(fd, chunk.data, chunk.len, offset);
        if (result < 0) {
            result = pmt__error_set_errno(err, PMT_ERR_IO, -result, "cannot write");
        }
    }
    pmt__buffer_dispose(&chunk);
    return result;
}

int
pmt_symbols_append(const pmt_reader *reader, const char *path, const void *bytes, size_t size,
                   pmt_error *err)
{
    if (reader->end_sequence == 0 || !has_ended(reader)) {
        return refuse(err, "it may still be written");
    }
    uint64_t file_size;
    int fd = pmt__output_open(path, &file_size);
    if (fd < 0) {
        return pmt__error_set_errno(err, PMT_ERR_IO, -fd, "cannot write");
    }
    int result = append(reader, fd, file_size, bytes, size, err);
    pmt__input_close(fd); /* and with it, the lock */
    return result;
}
