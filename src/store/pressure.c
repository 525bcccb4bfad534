/* A section takes some 25 bytes in a capture and 200 as a struct, and there is one per cut: they are kept as they are, once they
   were checked. */
#include "store/pressure.h"

#include <string.h>

#include "base/error.h"

static int
get(uint64_t value[PMT_PRESSURE_COUNT], pmt__cursor *in)
{
    for (size_t left = pmt__get_count(in, 2); left > 0; left--) {
        uint64_t which = pmt__get_varint(in);
        uint64_t figure = pmt__get_varint(in);
        if (which < PMT_PRESSURE_COUNT) {
            value[which] = figure - 1; /* 0: not known */
        }
    }
    return in->code;
}

int
pmt__reader_add_pressure(pmt_reader *self, pmt__cursor *in, pmt_error *err)
{
    const uint8_t *start = in->at;
    uint64_t value[PMT_PRESSURE_COUNT];
    if (get(value, in) != PMT_OK) {
        return in->code;
    }
    pmt__stored_pressure place = {self->pressure_bytes.len, (size_t)(in->at - start),
                                  self->cuts.len};
    if (!PMT__VEC_RESERVE(self->allocator, &self->pressure_bytes, place.size)
        || !PMT__VEC_PUSH(self->allocator, &self->pressures, place)) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory while reading the capture");
    }
    memcpy(self->pressure_bytes.data + place.offset, start, place.size);
    self->pressure_bytes.len += place.size;
    return PMT_OK;
}

size_t
pmt__reader_pressure_count(const pmt_reader *self)
{
    return self->pressures.len;
}

void
pmt__pressure_walk_init(pmt__pressure_walk *self, const pmt_reader *reader)
{
    self->reader = reader;
    self->at = 0;
    self->t_ns = 0;
    for (size_t i = 0; i < PMT_PRESSURE_COUNT; i++) {
        self->value[i] = PMT_PRESSURE_UNKNOWN;
    }
}

static void
highest_settle(uint64_t *value, size_t highest, size_t last)
{
    if (value[last] != PMT_PRESSURE_UNKNOWN
        && (value[highest] == PMT_PRESSURE_UNKNOWN || value[highest] < value[last])) {
        value[highest] = value[last];
    }
}

bool
pmt__pressure_walk_next(pmt__pressure_walk *self)
{
    const pmt_reader *reader = self->reader;
    if (self->at >= reader->pressures.len) {
        return false;
    }
    const pmt__stored_pressure place = reader->pressures.data[self->at];
    if (place.cut >= reader->cuts.len) {
        return false;
    }
    self->at++;
    const pmt__chunk chunk = {.payload = reader->pressure_bytes.data + place.offset,
                              .size = place.size};
    pmt__cursor in;
    pmt__cursor_init(&in, &chunk, "PRESSURE", NULL);
    uint64_t *value = self->value;
    value[PMT_PRESSURE_MAX_USAGE] = value[PMT_PRESSURE_MAX_SOME_AVG10] = PMT_PRESSURE_UNKNOWN;
    get(value, &in);
    highest_settle(value, PMT_PRESSURE_MAX_USAGE, PMT_PRESSURE_USAGE);
    highest_settle(value, PMT_PRESSURE_MAX_SOME_AVG10, PMT_PRESSURE_SOME_AVG10);
    self->t_ns = reader->cuts.data[place.cut].t_ns;
    return true;
}

uint64_t
pmt__pressure_working_set(const pmt__pressure_walk *self)
{
    uint64_t usage = self->value[PMT_PRESSURE_USAGE];
    uint64_t inactive = self->value[PMT_PRESSURE_INACTIVE_FILE];
    if (usage == PMT_PRESSURE_UNKNOWN || inactive == PMT_PRESSURE_UNKNOWN) {
        return PMT_PRESSURE_UNKNOWN;
    }
    return usage > inactive ? usage - inactive : 0;
}
