/* An entry takes some 40 bytes in a capture and 130 as a struct, and there is one per cut and site that changed: like rows, the
   sections are kept as they are, once they were checked. */
#include "store/samples.h"

#include <string.h>

#include "base/error.h"

static void
get_sums(pmt_spread *out, pmt__cursor *in)
{
    out->samples = (uint64_t)pmt__get_zigzag(in);
    out->sure_blocks = (uint64_t)pmt__get_zigzag(in);
    out->sure_bytes = (uint64_t)pmt__get_zigzag(in);
    out->blocks2 = pmt__get_f64(in);
    out->bytes2 = pmt__get_f64(in);
}

/* Returns the mean. */
static uint64_t
begin(pmt__sample_walk *walk, const pmt_reader *reader)
{
    walk->reader = reader;
    walk->site = 0;
    uint64_t mean = pmt__get_varint(&walk->cursor);
    uint64_t has_peak = pmt__get_limited(&walk->cursor, 1, "whether the peak moved");
    walk->has_peak = has_peak != 0;
    walk->left = pmt__get_count(&walk->cursor, PMT_SAMPLES_ENTRY_MIN);
    return mean;
}

void
pmt__samples_begin(pmt__sample_walk *walk, const pmt_reader *reader, size_t at)
{
    const pmt__stored_samples *place = &reader->samples.data[at];
    const pmt__chunk chunk = {.payload = reader->sample_bytes.data + place->offset,
                              .size = place->size};
    pmt__cursor_init(&walk->cursor, &chunk, "SAMPLES", NULL);
    begin(walk, reader);
}

bool
pmt__samples_next(pmt__sample_walk *walk, pmt__sample_entry *out)
{
    if (walk->left == 0) {
        return false;
    }
    walk->left--;
    pmt__cursor *in = &walk->cursor;
    memset(out, 0, sizeof *out);
    walk->site += (uint64_t)pmt__get_zigzag(in);
    if (in->code == PMT_OK && (walk->site == 0 || walk->site >= walk->reader->sites.len)) {
        pmt__cursor_fail(in, "samples of site %llu", (unsigned long long)walk->site);
    }
    get_sums(&out->allocs, in);
    get_sums(&out->frees, in);
    if (walk->has_peak) {
        get_sums(&out->at_peak, in);
    }
    out->site = (uint32_t)walk->site;
    return in->code == PMT_OK;
}

int
pmt__reader_add_samples(pmt_reader *self, pmt__cursor *in, pmt_error *err)
{
    pmt__sample_walk walk = {.cursor = *in};
    pmt__sample_entry entry;
    self->sample_mean = begin(&walk, self);
    while (pmt__samples_next(&walk, &entry)) {
    }
    pmt__stored_samples place = {self->sample_bytes.len, (size_t)(walk.cursor.at - in->at),
                                 self->cuts.len};
    const uint8_t *start = in->at;
    *in = walk.cursor;
    if (in->code != PMT_OK) {
        return in->code;
    }
    if (!PMT__VEC_RESERVE(self->allocator, &self->sample_bytes, place.size)
        || !PMT__VEC_PUSH(self->allocator, &self->samples, place)) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory while reading the capture");
    }
    memcpy(self->sample_bytes.data + place.offset, start, place.size);
    self->sample_bytes.len += place.size;
    return PMT_OK;
}
