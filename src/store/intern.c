#include "store/intern.h"

#include <string.h>

#include "base/error.h"

#define POOL_LIMIT UINT32_MAX /* bytes of all texts: places in the pool have 32 bits */

static int
no_memory(pmt__interner *self)
{
    return pmt__error_set(self->err, PMT_ERR_NOMEM, "out of memory for the names of a capture");
}

void
pmt__interner_init(pmt__interner *self, pmt_reader *reader, pmt_error *err)
{
    self->reader = reader;
    self->err = err;
    pmt__index_init(&self->strings, reader->allocator);
    pmt__index_init(&self->frames, reader->allocator);
    pmt__index_init(&self->stacks, reader->allocator);
}

void
pmt__interner_dispose(pmt__interner *self)
{
    pmt__index_dispose(&self->strings);
    pmt__index_dispose(&self->frames);
    pmt__index_dispose(&self->stacks);
}

int
pmt__interner_begin(pmt__interner *self)
{
    pmt_reader *reader = self->reader;
    if (!PMT__VEC_RESERVE(reader->allocator, &reader->pool, 1)
        || !PMT__VEC_PUSH(reader->allocator, &reader->strings, (pmt__string){0, 0})
        || !PMT__VEC_PUSH(reader->allocator, &reader->stacks, (pmt__stack){0, UINT32_MAX})
        || !PMT__VEC_PUSH(reader->allocator, &reader->sites, (pmt__stored_site){0})) {
        return no_memory(self);
    }
    return PMT_OK;
}

/* FNV-1a would do, but names share long prefixes and are long: eight bytes at a time. */
static uint64_t
hash_bytes(const char *text, size_t len)
{
    uint64_t hash = len;
    while (len >= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        hash = pmt__hash_pair(hash, word);
        text += 8;
        len -= 8;
    }
    uint64_t word = 0;
    memcpy(&word, text, len);
    return pmt__hash_pair(hash, word);
}

int
pmt__intern_string(pmt__interner *self, const char *text, size_t len, uint32_t *out)
{
    pmt_reader *reader = self->reader;
    if (len == 0) {
        *out = 0;
        return PMT_OK;
    }
    uint64_t hash = hash_bytes(text, len);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->strings, hash);
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        pmt__string place = reader->strings.data[at];
        if (place.len == len && memcmp(reader->pool.data + place.offset, text, len) == 0) {
            *out = at;
            return PMT_OK;
        }
    }
    if (len > POOL_LIMIT - reader->pool.len) {
        return pmt__error_set(self->err, PMT_ERR_LIMIT, "over 4 GiB of names");
    }
    if (!PMT__VEC_RESERVE(self->reader->allocator, &reader->pool, len)
        || !PMT__VEC_RESERVE(self->reader->allocator, &reader->strings, 1)
        || !pmt__index_add(&self->strings, hash, (uint32_t)reader->strings.len)) {
        return no_memory(self);
    }
    pmt__string place = {(uint32_t)reader->pool.len, (uint32_t)len};
    memcpy(reader->pool.data + place.offset, text, len);
    reader->pool.len += len;
    *out = (uint32_t)reader->strings.len;
    reader->strings.data[reader->strings.len++] = place;
    return PMT_OK;
}

int
pmt__intern_frame(pmt__interner *self, const pmt__frame *frame, uint32_t *out)
{
    pmt_reader *reader = self->reader;
    uint64_t hash = pmt__hash_pair(pmt__hash_pair(frame->function, frame->file),
                                   (uint64_t)frame->line << 2 | frame->kind);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->frames, hash);
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        const pmt__frame *other = &reader->frames.data[at];
        if (other->function == frame->function && other->file == frame->file
            && other->line == frame->line && other->kind == frame->kind
            && (frame->object == 0 || other->module == frame->module)) {
            *out = at;
            return PMT_OK;
        }
    }
    *out = (uint32_t)reader->frames.len;
    if (!pmt__index_add(&self->frames, hash, *out)
        || !PMT__VEC_PUSH(self->reader->allocator, &reader->frames, *frame)) {
        return no_memory(self);
    }
    return PMT_OK;
}

int
pmt__intern_stack(pmt__interner *self, uint32_t parent, uint32_t frame, uint32_t *out)
{
    pmt_reader *reader = self->reader;
    uint64_t hash = pmt__hash_u64((uint64_t)parent << 32 | frame);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->stacks, hash);
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        if (reader->stacks.data[at].parent == parent && reader->stacks.data[at].frame == frame) {
            *out = at;
            return PMT_OK;
        }
    }
    *out = (uint32_t)reader->stacks.len;
    if (!pmt__index_add(&self->stacks, hash, *out)
        || !PMT__VEC_PUSH(self->reader->allocator, &reader->stacks, (pmt__stack){parent, frame})) {
        return no_memory(self);
    }
    return PMT_OK;
}
