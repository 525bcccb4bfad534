#include "store/symbols.h"

#include "base/error.h"

void
pmt__symbols_init(pmt__symbols *self, const pmt_allocator *allocator)
{
    *self = (pmt__symbols){.allocator = allocator};
    pmt__index_init(&self->index, allocator);
}

void
pmt__symbols_dispose(pmt__symbols *self)
{
    PMT__VEC_DISPOSE(self->allocator, &self->places);
    PMT__VEC_DISPOSE(self->allocator, &self->frames);
    pmt__index_dispose(&self->index);
}

static uint32_t
find(const pmt__symbols *self, uint32_t object, uint64_t offset)
{
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->index, pmt__hash_pair(object, offset));
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        const pmt__symbol *place = &self->places.data[at];
        if (place->object == object && place->offset == offset) {
            break;
        }
    }
    return at;
}

const pmt__symbol *
pmt__symbols_find(const pmt__symbols *self, uint32_t object, uint64_t offset)
{
    uint32_t at = find(self, object, offset);
    return at == PMT_INDEX_NONE ? NULL : &self->places.data[at];
}

static int
no_memory(pmt_error *err)
{
    return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory while reading the symbols");
}

static int
put(pmt__symbols *self, const pmt__symbol *place, pmt_error *err)
{
    uint32_t at = find(self, place->object, place->offset);
    if (at != PMT_INDEX_NONE) {
        self->places.data[at] = *place;
        return PMT_OK;
    }
    if (self->places.len >= PMT_INDEX_NONE) {
        return pmt__error_set(err, PMT_ERR_LIMIT, "over 2^32 symbols");
    }
    uint64_t hash = pmt__hash_pair(place->object, place->offset);
    if (!PMT__VEC_RESERVE(self->allocator, &self->places, 1)
        || !pmt__index_add(&self->index, hash, (uint32_t)self->places.len)) {
        return no_memory(err);
    }
    self->places.data[self->places.len++] = *place;
    return PMT_OK;
}

/* A text of the chunk: the string of the reader. */
static uint32_t
get_text(pmt__cursor *in, const uint32_t *texts, size_t count)
{
    uint64_t number = pmt__get_varint(in);
    if (number > count) {
        pmt__cursor_fail(in, "a reference to text %llu of %zu", (unsigned long long)number, count);
        return 0;
    }
    return texts[number];
}

static int
load_texts(pmt__symbols *self, pmt__cursor *in, pmt__interner *intern, uint32_t **out,
           size_t *count)
{
    *count = pmt__get_count(in, 1);
    *out = pmt__alloc_zeroed(self->allocator, *count + 1, sizeof **out);
    if (*out == NULL) {
        return no_memory(in->err);
    }
    for (size_t i = 1; i <= *count; i++) {
        uint64_t len = pmt__get_varint(in);
        const uint8_t *bytes = pmt__get_bytes(in, len);
        if (bytes == NULL) {
            break;
        }
        int result = pmt__intern_string(intern, (const char *)bytes, (size_t)len, &(*out)[i]);
        if (result < 0) {
            return result;
        }
    }
    return in->code;
}

static int
load_places(pmt__symbols *self, pmt__cursor *in, const uint32_t *texts, size_t text_count)
{
    size_t count = pmt__get_count(in, 3);
    for (size_t i = 0; i < count && in->code == PMT_OK; i++) {
        pmt__symbol place = {.frames_at = self->frames.len};
        place.object = get_text(in, texts, text_count);
        place.offset = pmt__get_varint(in);
        place.frame_count =
            (size_t)pmt__get_limited(in, PMT_SYMBOL_FRAMES_MAX, "the number of frames of a place");
        if (place.frame_count > (size_t)(in->end - in->at) / 3) {
            return pmt__cursor_fail(in, "%zu frames of a place should follow", place.frame_count);
        }
        if (!PMT__VEC_RESERVE(self->allocator, &self->frames, place.frame_count)) {
            return no_memory(in->err);
        }
        for (size_t n = 0; n < place.frame_count; n++) {
            pmt__symbol_frame frame;
            frame.function = get_text(in, texts, text_count);
            frame.file = get_text(in, texts, text_count);
            frame.line = (int64_t)pmt__get_limited(in, INT32_MAX, "a line number");
            self->frames.data[self->frames.len++] = frame;
        }
        int result = in->code == PMT_OK ? put(self, &place, in->err) : in->code;
        if (result < 0) {
            return result;
        }
    }
    if (in->code == PMT_OK && in->at != in->end) {
        pmt__cursor_fail(in, "bytes behind its last entry");
    }
    return in->code;
}

int
pmt__symbols_load(pmt__symbols *self, const pmt__chunk *chunk, pmt__interner *intern,
                  pmt_error *err)
{
    pmt__cursor in;
    pmt__cursor_init(&in, chunk, "symbols (SYMB)", err);
    uint32_t *texts = NULL;
    size_t count = 0;
    int result = load_texts(self, &in, intern, &texts, &count);
    if (result == PMT_OK) {
        result = load_places(self, &in, texts, count);
    }
    pmt__release(self->allocator, texts);
    return result;
}
