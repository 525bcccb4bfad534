/* Asking a loaded capture. */
#include <string.h>

#include "pymemtrace/reader.h"
#include "store/store.h"

static const char *
stop_reason(uint32_t reason)
{
    switch (reason) {
    case PMT_REASON_NO_SPACE:
        return "no space left on the device";
    case PMT_REASON_MAX_SIZE:
        return "the capture reached --max-size";
    case PMT_REASON_WRITE_ERROR:
        return "the capture could not be written";
    case PMT_REASON_FILE_GONE:
        return "the capture was removed or replaced";
    default:
        return "recording stopped early";
    }
}

void
pmt_reader_capture(const pmt_reader *self, pmt_capture *out)
{
    memset(out, 0, sizeof *out);
    out->version_major = self->header.major;
    out->version_minor = self->header.minor;
    memcpy(out->id, self->header.id, sizeof out->id);
    out->created_unix_ns = self->header.created_unix_ns;
    const pmt_fact *started = pmt_reader_find_fact(self, "started_unix_ns");
    out->started_unix_ns = started == NULL ? out->created_unix_ns : started->number;
    const pmt_fact *pid = pmt_reader_find_fact(self, "pid");
    out->pid = pid == NULL ? 0 : pid->number;
    if (self->cuts.len != 0) {
        const pmt_cut *last = &self->cuts.data[self->cuts.len - 1];
        out->duration_ns = last->t_ns;
        out->last_cut_unix_ns = last->unix_ns;
    }
    if (self->has_end && self->end_t_ns > out->duration_ns) {
        out->duration_ns = self->end_t_ns;
    }
    out->ended = self->ended;
    out->main_ended = (int)self->main_ended;
    out->exit_status = self->exit_status;
    if (self->has_slot && self->slot.status == PMT_STATUS_STOPPED) {
        out->stopped = stop_reason(self->slot.reason);
        out->stopped_errno = self->slot.sys_errno;
    }
    const pmt_fact *mode = pmt_reader_find_fact(self, "mode");
    out->sampled =
        self->samples.len != 0
        || (mode != NULL && mode->text.len == 7 && memcmp(mode->text.text, "sampled", 7) == 0);
    if (out->sampled) {
        const pmt_fact *mean = pmt_reader_find_fact(self, "sample_bytes");
        out->sample_bytes = mean == NULL ? self->sample_mean : mean->number;
        out->sample_bytes_now = self->sample_mean != 0 ? self->sample_mean : out->sample_bytes;
    }
    out->torn = self->torn[0] == '\0' ? NULL : self->torn;
    out->damaged = self->damaged;
    memcpy(out->counters, self->counters, sizeof out->counters);
}

size_t
pmt_reader_fact_count(const pmt_reader *self)
{
    return self->facts.len;
}

const pmt_fact *
pmt_reader_fact(const pmt_reader *self, size_t at)
{
    return &self->facts.data[at];
}

const pmt_fact *
pmt_reader_find_fact(const pmt_reader *self, const char *key)
{
    size_t len = strlen(key);
    for (size_t i = 0; i < self->facts.len; i++) {
        pmt_string other = self->facts.data[i].key;
        if (other.len == len && memcmp(other.text, key, len) == 0) {
            return &self->facts.data[i];
        }
    }
    return NULL;
}

uint64_t
pmt__decimal(pmt_string text)
{
    uint64_t number = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.text[i];
        if (c < '0' || c > '9' || number > UINT64_MAX / 10 - 1) {
            return 0;
        }
        number = number * 10 + (uint64_t)(c - '0');
    }
    return number;
}

/* A number, or its decimal text; 0 if it is neither or missing. */
static uint64_t
number_of(const pmt_fact *fact)
{
    if (fact != NULL && fact->type == PMT_FACT_TEXT) {
        return pmt__decimal(fact->text);
    }
    return fact == NULL || fact->type != PMT_FACT_NUMBER ? 0 : fact->number;
}

uint64_t
pmt_reader_inherited_epoch(const pmt_reader *self)
{
    if (self->fork_epoch != 0) {
        return self->fork_epoch;
    }
    return number_of(pmt_reader_find_fact(self, "inherited")) == 1 ? 1 : 0;
}

uint64_t
pmt_reader_parent_pid(const pmt_reader *self)
{
    uint64_t forked = number_of(pmt_reader_find_fact(self, "parent_pid"));
    if (forked == 0) {
        forked = number_of(pmt_reader_find_fact(self, "fork_parent_pid"));
    }
    return forked != 0 ? forked : number_of(pmt_reader_find_fact(self, "ppid"));
}

size_t
pmt_reader_cut_count(const pmt_reader *self)
{
    return self->cuts.len;
}

const pmt_cut *
pmt_reader_cut(const pmt_reader *self, size_t at)
{
    return &self->cuts.data[at];
}

size_t
pmt_reader_end_cut(const pmt_reader *self)
{
    for (size_t i = 0; i < self->cuts.len; i++) {
        if (self->cuts.data[i].flags & PMT_CUT_MAIN_RETURNED) {
            return i;
        }
    }
    return self->cuts.len - 1; /* SIZE_MAX without one */
}

size_t
pmt_reader_mark_count(const pmt_reader *self)
{
    return self->marks.len;
}

pmt_mark
pmt_reader_mark(const pmt_reader *self, size_t at)
{
    const pmt__stored_mark *mark = &self->marks.data[at];
    return (pmt_mark){mark->epoch, mark->t_ns, pmt__reader_string(self, mark->label)};
}

size_t
pmt_reader_thread_count(const pmt_reader *self)
{
    return self->threads.len;
}

pmt_thread
pmt_reader_thread(const pmt_reader *self, size_t at)
{
    const pmt__stored_thread *it = &self->threads.data[at];
    return (pmt_thread){it->id,
                        it->native_id,
                        it->python_id,
                        it->birth_ns,
                        it->flags,
                        it->interpreter,
                        pmt__reader_string(self, it->name)};
}

size_t
pmt_reader_frame_count(const pmt_reader *self)
{
    return self->frames.len;
}

pmt_frame
pmt_reader_frame(const pmt_reader *self, uint32_t frame)
{
    const pmt__frame *it = &self->frames.data[frame];
    return (pmt_frame){pmt__reader_string(self, it->function),
                       pmt__reader_string(self, it->file),
                       pmt__reader_string(self, it->module),
                       it->line,
                       it->kind,
                       it->flags,
                       pmt__reader_string(self, it->object)};
}

size_t
pmt_reader_unresolved_count(const pmt_reader *self)
{
    return self->unresolved.len;
}

pmt_place
pmt_reader_unresolved(const pmt_reader *self, size_t at)
{
    const pmt__stored_place *it = &self->unresolved.data[at];
    pmt_place place = {pmt__reader_string(self, it->path), it->offset, NULL, 0};
    if (it->object != 0) {
        const pmt__stored_object *object = &self->objects.data[it->object - 1];
        place.build_id = object->build_id;
        place.build_id_size = object->build_id_size;
    }
    return place;
}

size_t
pmt_reader_stack_count(const pmt_reader *self)
{
    return self->stacks.len;
}

uint32_t
pmt_reader_stack_parent(const pmt_reader *self, uint32_t stack)
{
    return self->stacks.data[stack].parent;
}

uint32_t
pmt_reader_stack_frame(const pmt_reader *self, uint32_t stack)
{
    return self->stacks.data[stack].frame;
}

static bool
is_native(const pmt_reader *self, uint32_t frame)
{
    const pmt__frame *it = &self->frames.data[frame];
    if (it->kind == PMT_FRAME_SYNTHETIC) {
        static const char unknown[] = PMT_UNKNOWN_NATIVE;
        pmt_string name = pmt__reader_string(self, it->function);
        return name.len == sizeof unknown - 1 && memcmp(name.text, unknown, name.len) == 0;
    }
    return it->kind == PMT_FRAME_NATIVE || it->kind == PMT_FRAME_INLINED;
}

uint32_t
pmt_reader_blamed_frame(const pmt_reader *self, uint32_t stack)
{
    if (stack == 0) {
        return UINT32_MAX;
    }
    uint32_t innermost = self->stacks.data[stack].frame;
    while (stack != 0 && is_native(self, self->stacks.data[stack].frame)) {
        stack = self->stacks.data[stack].parent;
    }
    uint32_t frame = stack == 0 ? innermost : self->stacks.data[stack].frame;
    return self->frames.data[frame].kind == PMT_FRAME_PYTHON ? frame : innermost;
}

size_t
pmt_reader_site_count(const pmt_reader *self)
{
    return self->sites.len - 1;
}

pmt_site
pmt_reader_site(const pmt_reader *self, uint32_t site)
{
    const pmt__stored_site *it = &self->sites.data[site];
    return (pmt_site){it->stack, it->thread, it->size, it->domain};
}

void
pmt__rows_begin(pmt__row_walk *walk, const pmt_reader *reader, size_t cut, pmt_error *err)
{
    const pmt__rows *rows = &reader->rows.data[cut];
    memset(walk, 0, sizeof *walk);
    walk->cursor.at = walk->cursor.start = rows->bytes;
    walk->cursor.end = rows->bytes + rows->size;
    walk->cursor.offset = (int64_t)rows->offset;
    walk->cursor.what = "the rows of a cut";
    walk->cursor.err = err;
    walk->left = rows->count;
    walk->reader = reader;
    walk->epoch = reader->cuts.data[cut].epoch;
    walk->site_limit = rows->site_limit;
    walk->corrections = (reader->cuts.data[cut].flags & PMT_CUT_PEAK_MOVED) != 0;
}
