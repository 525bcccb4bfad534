/* A moment takes some 300 bytes in a capture and 2 KiB as a struct, and a long run has tens of thousands: the sections are kept as
   they are, once they were checked. */
#include "store/resident.h"

#include <string.h>

#include "base/error.h"

int
pmt__moment_get(pmt__moment *out, pmt__cursor *in)
{
    memset(out, 0, sizeof *out);
    for (size_t left = pmt__get_count(in, 2); left > 0; left--) {
        uint64_t which = pmt__get_varint(in);
        uint64_t value = pmt__get_varint(in);
        if (which < PMT_RESIDENT_LIMIT) {
            out->value[which] = value;
        }
    }
    for (size_t left = pmt__get_count(in, 3); left > 0; left--) {
        uint64_t size_bytes = pmt__get_varint(in);
        uint64_t pools = pmt__get_varint(in), blocks = pmt__get_varint(in);
        if (out->class_count < PMT_RESIDENT_CLASSES) {
            out->classes[out->class_count].size_bytes = size_bytes;
            out->classes[out->class_count].pools = pools;
            out->classes[out->class_count++].blocks = blocks;
        }
    }
    return in->code;
}

int
pmt__reader_add_resident(pmt_reader *self, pmt__cursor *in, pmt_error *err)
{
    const uint8_t *start = in->at;
    pmt__moment moment;
    if (pmt__moment_get(&moment, in) != PMT_OK) {
        return in->code;
    }
    pmt__stored_moment place = {self->resident_bytes.len, (size_t)(in->at - start), self->cuts.len};
    if (!PMT__VEC_RESERVE(self->allocator, &self->resident_bytes, place.size)
        || !PMT__VEC_PUSH(self->allocator, &self->moments, place)) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory while reading the capture");
    }
    memcpy(self->resident_bytes.data + place.offset, start, place.size);
    self->resident_bytes.len += place.size;
    return PMT_OK;
}

size_t
pmt__reader_moment_count(const pmt_reader *self)
{
    return self->moments.len;
}

size_t
pmt__reader_end_moment(const pmt_reader *self)
{
    size_t end = pmt_reader_end_cut(self), count = self->moments.len;
    while (count > 1 && self->moments.data[count - 1].cut > end) {
        count--;
    }
    return count == 0 ? SIZE_MAX : count - 1;
}

void
pmt__reader_moment(const pmt_reader *self, size_t at, pmt__moment *out)
{
    pmt__stored_moment place = self->moments.data[at];
    const pmt__chunk chunk = {.payload = self->resident_bytes.data + place.offset,
                              .size = place.size};
    pmt__cursor in;
    pmt__cursor_init(&in, &chunk, "RESIDENT", NULL);
    pmt__moment_get(out, &in);
}
