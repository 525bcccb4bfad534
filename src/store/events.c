/* The event log: checked when the capture is opened, read again when somebody walks over it. */
#include <string.h>

#include "base/error.h"
#include "format/events_get.h"
#include "platform/input.h"
#include "store/store.h"

struct pmt_event_walk {
    const pmt_reader *reader; /* borrowed */
    int fd;                   /* owned, or -1 */
    pmt__chunk_reader chunks;
    size_t chunk_at; /* the next of reader->event_chunks */
    pmt__event_head head;
    pmt__event_decoder decoder;
    pmt__cursor in;
    uint64_t at; /* events of this chunk that were given out */
};

/* The next event of a chunk, with its size. */
static bool
get_event(const pmt_reader *reader, pmt__event_decoder *decoder, pmt__cursor *in,
          uint64_t site_limit, pmt__raw_event *event, uint64_t *size)
{
    if (!pmt__event_get(decoder, in, site_limit, event)) {
        return false;
    }
    *size = reader->sites.data[event->site].size;
    if (*size == PMT_SIZE_LARGE) {
        *size = event->kind == PMT_EVENT_ALLOC ? pmt__get_limited(in, INT64_MAX, "a size")
                                               : PMT_EVENT_SIZE_UNKNOWN;
    }
    return in->code == PMT_OK;
}

int
pmt__reader_add_events(pmt_reader *self, const pmt__chunk *chunk, pmt_error *err)
{
    pmt__cursor in;
    pmt__event_head head;
    pmt__cursor_init(&in, chunk, "the event log (EVTS)", err);
    pmt__event_head_get(&in, &head);
    if (self->event_chunks.len != 0) {
        const pmt__event_chunk *before = &self->event_chunks.data[self->event_chunks.len - 1];
        if (head.first < before->first + before->count) {
            pmt__cursor_fail(&in, "event %llu comes twice", (unsigned long long)head.first);
        }
    }
    pmt__event_decoder decoder = {.control = 0};
    for (uint64_t i = 0; i < head.count && in.code == PMT_OK; i++) {
        pmt__raw_event event;
        uint64_t size;
        get_event(self, &decoder, &in, self->sites.len, &event, &size);
    }
    if (in.code == PMT_OK && (in.at != in.end || decoder.pair_at != 0)) {
        pmt__cursor_fail(&in, "it does not end with its last event");
    }
    pmt__event_chunk place = {chunk->offset, chunk->sequence, head.first, head.count,
                              self->sites.len};
    if (in.code == PMT_OK && !PMT__VEC_PUSH(self->allocator, &self->event_chunks, place)) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory while reading the capture");
    }
    return in.code;
}

void
pmt_reader_event_log(const pmt_reader *self, pmt_event_log *out)
{
    memset(out, 0, sizeof *out);
    out->present = (self->header.optional & PMT_FEATURE_EVENTS) != 0 || self->event_chunks.len != 0;
    uint64_t next = 0;
    for (size_t i = 0; i < self->event_chunks.len; i++) {
        const pmt__event_chunk *chunk = &self->event_chunks.data[i];
        out->logged += chunk->count;
        next = chunk->first + chunk->count;
        if (chunk->first == out->complete) {
            out->complete = next;
        }
    }
    out->events = self->counters[PMT_COUNTER_EVENTS];
    out->events = next > out->events ? next : out->events;
}

/* --- the walk -------------------------------------------------------------------------------- */

static int
changed(pmt_error *err)
{
    return pmt__error_set(err, PMT_ERR_STATE,
                          "the capture is not the one that was opened, or has been rewritten "
                          "since: open it again");
}

static int
walk_open(pmt_event_walk **out, const pmt_reader *reader, const pmt__source *source, int fd,
          pmt_error *err)
{
    *out = NULL;
    pmt_event_walk *self = pmt__alloc_zeroed(reader->allocator, 1, sizeof *self);
    if (self == NULL) {
        if (fd >= 0) {
            pmt__input_close(fd);
        }
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    self->reader = reader;
    self->fd = fd;
    pmt__chunk_reader_init(&self->chunks, source, reader->header.size, reader->allocator);
    pmt__header header;
    pmt_error inner = PMT_ERROR_INIT;
    int result = pmt__header_read(&header, source, &inner);
    if (result == PMT_ERR_IO) {
        result = pmt__error_set_errno(err, PMT_ERR_IO, inner.sys_errno, "cannot read");
    } else if (result < 0 || memcmp(header.id, reader->header.id, sizeof header.id) != 0) {
        result = changed(err);
    }
    if (result < 0) {
        pmt_event_walk_destroy(self);
        return result;
    }
    *out = self;
    return PMT_OK;
}

int
pmt_event_walk_open(pmt_event_walk **out, const pmt_reader *reader, const char *path,
                    pmt_error *err)
{
    *out = NULL;
    pmt__source source = {.bytes = NULL, .fd = -1, .size = 0};
    source.fd = pmt__input_open(path, &source.size);
    if (source.fd < 0) {
        return pmt__error_set_errno(err, PMT_ERR_IO, -source.fd, "cannot read %s", path);
    }
    return walk_open(out, reader, &source, source.fd, err);
}

int
pmt_event_walk_open_bytes(pmt_event_walk **out, const pmt_reader *reader, const void *bytes,
                          size_t size, pmt_error *err)
{
    pmt__source source = {.bytes = size == 0 ? (const uint8_t *)"" : bytes, .fd = -1, .size = size};
    return walk_open(out, reader, &source, -1, err);
}

void
pmt_event_walk_destroy(pmt_event_walk *self)
{
    if (self == NULL) {
        return;
    }
    if (self->fd >= 0) {
        pmt__input_close(self->fd);
    }
    pmt__chunk_reader_dispose(&self->chunks);
    pmt__release(self->reader->allocator, self);
}

static int
next_chunk(pmt_event_walk *self, pmt_error *err)
{
    const pmt__event_chunk *place = &self->reader->event_chunks.data[self->chunk_at];
    pmt__chunk chunk;
    self->chunks.next_offset = place->offset;
    self->chunks.next_sequence = place->sequence;
    int result = pmt__chunk_next(&self->chunks, &chunk, err);
    if (result < 0 && result != PMT_ERR_VERSION) {
        return result;
    }
    if (result != 1 || strcmp(chunk.kind, "EVTS") != 0) {
        return changed(err);
    }
    pmt__cursor_init(&self->in, &chunk, "the event log (EVTS)", NULL);
    pmt__event_head_get(&self->in, &self->head);
    if (self->in.code != PMT_OK || self->head.first != place->first
        || self->head.count != place->count) {
        return changed(err);
    }
    memset(&self->decoder, 0, sizeof self->decoder);
    self->at = 0;
    self->chunk_at++;
    return PMT_OK;
}

int
pmt_event_walk_next(pmt_event_walk *self, pmt_event *out, pmt_error *err)
{
    while (self->at == self->head.count) {
        if (self->chunk_at == self->reader->event_chunks.len) {
            return 0;
        }
        int result = next_chunk(self, err);
        if (result < 0) {
            return result;
        }
    }
    pmt__raw_event event;
    uint64_t limit = self->reader->event_chunks.data[self->chunk_at - 1].site_limit;
    if (!get_event(self->reader, &self->decoder, &self->in, limit, &event, &out->size)) {
        return changed(err);
    }
    out->number = self->head.first + self->at;
    out->t_ns =
        self->head.begin_ns
        + (uint64_t)((double)self->head.span_ns * (double)self->at / (double)self->head.count);
    out->kind = (pmt_event_kind)(event.control * 2 + event.kind);
    out->site = event.site;
    out->address = event.address;
    self->at++;
    return 1;
}
