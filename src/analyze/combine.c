/* Several captures as one.

   Each process numbers its strings, frames and stacks on its own. They are interned anew, by content, into
   one *names* reader, which holds those columns and no rows: everything that turns an aggregate into rows, a
   tree or another format asks `aggregate->reader` for names only, so it works on a combination as it is.
   Parents come before children in every capture, so that one pass over its stacks gives the map from its
   numbers to the common ones, with one look into a hash index per stack.

   The parts are made and added up one after the other, and the rows of a part are let go as soon as they are
   added: at any time there are the readers, the common rows, and one part. What a part has of each stack
   stays as a list of (stack, part, bytes), sorted by stack: a table of stacks by captures would be mostly
   empty where the processes do different things. */
#include "analyze/combine.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "store/intern.h"
#include "store/names.h"

#define COMMAND_LEN 100 /* of a process' frame: a command line can be longer than the screen */

static int
no_memory(pmt_error *err)
{
    return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
}

int
pmt__captures_check(size_t count, pmt_error *err)
{
    if (count == 0 || count > UINT32_MAX) {
        return pmt__error_set(err, PMT_ERR_ARGUMENT, "no captures to combine");
    }
    return PMT_OK;
}

/* --- one clock --------------------------------------------------------------------------------- */

static uint64_t
start_of(const pmt_reader *reader)
{
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    return capture.started_unix_ns;
}

uint64_t
pmt__captures_start(const pmt_reader *const *readers, size_t count, uint64_t *offsets_ns)
{
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        offsets_ns[i] = start_of(readers[i]);
        first = offsets_ns[i] < first ? offsets_ns[i] : first;
    }
    for (size_t i = 0; i < count; i++) {
        offsets_ns[i] -= first;
    }
    return first;
}

bool
pmt__query_for(pmt_query *out, const pmt_query *query, const pmt_reader *reader, uint64_t offset_ns,
               bool with_inherited)
{
    *out = *query;
    out->exclude_epoch = with_inherited ? 0 : pmt_reader_inherited_epoch(reader);
    if (query->has_start) {
        out->start_ns = query->start_ns > offset_ns ? query->start_ns - offset_ns : 0;
        out->has_start = out->start_ns != 0;
    }
    if (query->has_end) {
        if (query->end_ns < offset_ns) {
            return false;
        }
        out->end_ns = query->end_ns - offset_ns;
    }
    size_t cuts = reader->cuts.len;
    bool ends_before =
        cuts != 0 && out->has_start && out->start_ns >= reader->cuts.data[cuts - 1].t_ns;
    return !ends_before;
}

int
pmt__query_is_outside(const pmt_query *query, pmt_error *err)
{
    if (query->thread == NULL) {
        return pmt__error_set(err, PMT_ERR_ARGUMENT,
                              "the time window touches none of the captures");
    }
    return pmt__error_set(err, PMT_ERR_ARGUMENT,
                          "no thread of the captures has the name or native id '%.100s'",
                          query->thread);
}

/* --- the stretch that a query is answered for ---------------------------------------------------- */

typedef struct borders {
    uint64_t start_ns; /* the earliest */
    uint64_t end_ns;   /* the latest */
    bool any;
    bool whole; /* everything that there is */
} borders;

static uint64_t
last_of(const pmt_reader *reader)
{
    return reader->cuts.data[reader->cuts.len - 1].t_ns;
}

/* The window of one capture, on the common clock. */
typedef struct placed {
    bool found; /* else it has none */
    pmt__window window;
} placed;

static int
place_window(placed *out, const pmt_reader *reader, uint64_t offset_ns, const pmt_query *query,
             pmt_error *err)
{
    pmt_query own;
    out->found = reader->cuts.len != 0 && pmt__query_for(&own, query, reader, offset_ns, false);
    if (!out->found) {
        return PMT_OK;
    }
    int result = pmt__window_choose(&out->window, reader, &own, err);
    out->window.start_ns += offset_ns;
    out->window.end_ns += offset_ns;
    return result;
}

/* Nothing of a capture lies between the borders but what was used of it. */
static bool
fits(const borders *self, const pmt_reader *reader, uint64_t offset_ns, const placed *at)
{
    if (!at->found) {
        return reader->cuts.len == 0 || offset_ns >= self->end_ns
               || offset_ns + last_of(reader) <= self->start_ns;
    }
    const pmt__window *window = &at->window;
    return (window->first == 0 || window->start_ns == self->start_ns)
           && (window->last == reader->cuts.len - 1 || window->end_ns == self->end_ns);
}

int
pmt__captures_stretch(pmt__stretch *out, const pmt_reader *const *readers,
                      const uint64_t *offsets_ns, size_t count, const pmt_query *query,
                      pmt_error *err)
{
    borders it = {.start_ns = UINT64_MAX, .whole = true};
    uint64_t duration_ns = 0;
    const pmt_allocator *allocator = readers[0]->allocator;
    placed *windows = pmt__alloc_zeroed(allocator, count, sizeof *windows);
    if (windows == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        int result = place_window(&windows[i], readers[i], offsets_ns[i], query, err);
        if (result < 0) {
            pmt__release(allocator, windows);
            return result;
        }
        bool found = windows[i].found;
        const pmt__window *window = &windows[i].window;
        if (readers[i]->cuts.len != 0) {
            uint64_t end_ns = offsets_ns[i] + last_of(readers[i]);
            duration_ns = end_ns > duration_ns ? end_ns : duration_ns;
            it.whole = it.whole && found && window->whole;
        }
        if (found) {
            it.any = true;
            it.start_ns = window->start_ns < it.start_ns ? window->start_ns : it.start_ns;
            it.end_ns = window->end_ns > it.end_ns ? window->end_ns : it.end_ns;
        }
    }
    bool exact = it.any;
    for (size_t i = 0; i < count && exact; i++) {
        exact = fits(&it, readers[i], offsets_ns[i], &windows[i]);
    }
    pmt__release(allocator, windows);
    *out = (pmt__stretch){.whole = it.whole};
    if (exact) {
        out->start_ns = it.start_ns;
        out->end_ns = it.end_ns;
    } else if (it.any) {
        out->start_ns = query->has_start ? query->start_ns : 0;
        out->end_ns = query->has_end && query->end_ns < duration_ns ? query->end_ns : duration_ns;
    }
    return PMT_OK;
}

/* --- names ------------------------------------------------------------------------------------- */

typedef struct combiner {
    pmt__combination *to;
    const pmt_allocator *allocator;
    const pmt_reader *const *readers; /* borrowed */
    uint64_t *offsets_ns;             /* owned: of their starts */
    pmt__interner intern;
    pmt__index threads;        /* by name, or native id where there is none */
    PMT__VEC(uint32_t) places; /* 1 + the row of a stack */
    pmt_error *err;
} combiner;

/* The common number of a text of the reader; strings: those that are known by now, + 1. */
static int
map_string(combiner *self, const pmt_reader *reader, uint32_t *strings, uint32_t string,
           uint32_t *out)
{
    if (strings[string] == 0) {
        pmt_string text = pmt__reader_string(reader, string);
        int result = pmt__intern_string(&self->intern, text.text, text.len, out);
        if (result < 0) {
            return result;
        }
        strings[string] = *out + 1;
    }
    *out = strings[string] - 1;
    return PMT_OK;
}

static int
map_frame(combiner *self, const pmt_reader *reader, uint32_t *strings, uint32_t at, uint32_t *out)
{
    pmt__frame frame = reader->frames.data[at];
    int result = map_string(self, reader, strings, frame.function, &frame.function);
    if (result == PMT_OK) {
        result = map_string(self, reader, strings, frame.file, &frame.file);
    }
    if (result == PMT_OK) {
        result = map_string(self, reader, strings, frame.module, &frame.module);
    }
    if (result == PMT_OK) {
        result = map_string(self, reader, strings, frame.object, &frame.object);
    }
    return result < 0 ? result : pmt__intern_frame(&self->intern, &frame, out);
}

/* Threads of one name are one; a process that does not name its threads has them by native id. */
static int
map_thread(combiner *self, const pmt_reader *reader, uint32_t *strings, size_t at, uint32_t *out)
{
    pmt_reader *names = self->to->names;
    pmt__stored_thread thread = reader->threads.data[at];
    int result = map_string(self, reader, strings, thread.name, &thread.name);
    if (result < 0) {
        return result;
    }
    uint64_t id = thread.name == 0 ? thread.native_id : 0;
    uint64_t hash = pmt__hash_pair(thread.name, id);
    pmt__index_walk walk;
    uint32_t found = pmt__index_first(&walk, &self->threads, hash);
    for (; found != PMT_INDEX_NONE; found = pmt__index_next(&walk)) {
        const pmt__stored_thread *other = &names->threads.data[found];
        if (other->name == thread.name && (thread.name != 0 || other->native_id == id)) {
            *out = found;
            return PMT_OK;
        }
    }
    *out = (uint32_t)names->threads.len;
    if (!pmt__index_add(&self->threads, hash, *out)
        || !PMT__VEC_PUSH(self->allocator, &names->threads, thread)) {
        return no_memory(self->err);
    }
    return PMT_OK;
}

static int
compare_marks(const void *left, const void *right)
{
    const pmt__stored_mark *a = left;
    const pmt__stored_mark *b = right;
    if (a->t_ns != b->t_ns) {
        return a->t_ns < b->t_ns ? -1 : 1;
    }
    return a->label < b->label ? -1 : a->label > b->label;
}

static int
add_marks(combiner *self, const pmt__combined_part *part, uint32_t *strings)
{
    pmt_reader *names = self->to->names;
    for (size_t i = 0; i < part->reader->marks.len; i++) {
        pmt__stored_mark mark = part->reader->marks.data[i];
        mark.t_ns += part->offset_ns;
        int result = map_string(self, part->reader, strings, mark.label, &mark.label);
        if (result < 0) {
            return result;
        }
        if (!PMT__VEC_PUSH(self->allocator, &names->marks, mark)) {
            return no_memory(self->err);
        }
    }
    return PMT_OK;
}

/* "process 1234: python worker.py" */
static void
put_process(pmt__text_buffer *out, const pmt_reader *reader)
{
    pmt_capture capture;
    pmt_reader_capture(reader, &capture);
    pmt__text_put_c(out, "process ");
    pmt__text_put_u64(out, capture.pid);
    const pmt_fact *command = pmt_reader_find_fact(reader, "command");
    size_t start = out->len;
    for (size_t i = 0; command != NULL && i < command->item_count; i++) {
        /* the interpreter by its name only */
        pmt_string word = i == 0 ? pmt__last_part(command->items[i]) : command->items[i];
        pmt__text_put_c(out, i == 0 ? ": " : " ");
        pmt__text_put(out, word.text, word.len);
    }
    if (!out->failed && out->len - start > COMMAND_LEN) {
        out->len = start + COMMAND_LEN;
        while ((out->data[out->len] & 0xc0) == 0x80) { /* not within a character */
            out->len--;
        }
        pmt__text_put_c(out, "\xe2\x80\xa6");
    }
}

/* The stack that all stacks of the part stand on. */
static int
map_root(combiner *self, const pmt__combined_part *part, uint32_t *out)
{
    *out = 0;
    if (!self->to->by_process) {
        return PMT_OK;
    }
    pmt__text_buffer text;
    pmt__text_init(&text, self->allocator);
    put_process(&text, part->reader);
    pmt__frame frame = {.kind = PMT_FRAME_SYNTHETIC, .flags = PMT_FRAME_IS_SYNTHETIC};
    int result = text.failed
                     ? no_memory(self->err)
                     : pmt__intern_string(&self->intern, text.data, text.len, &frame.function);
    pmt__text_dispose(&text);
    if (result < 0) {
        return result;
    }
    /* Not interned: two processes of one name stay two, such as a process and what it became by exec. */
    pmt_reader *names = self->to->names;
    uint32_t at = (uint32_t)names->frames.len;
    if (!PMT__VEC_PUSH(self->allocator, &names->frames, frame)) {
        return no_memory(self->err);
    }
    return pmt__intern_stack(&self->intern, 0, at, out);
}

static int
add_folded_frame(combiner *self)
{
    static const char name[] = "[folded]";
    pmt__frame frame = {.kind = PMT_FRAME_SYNTHETIC, .flags = PMT_FRAME_IS_SYNTHETIC};
    int result = pmt__intern_string(&self->intern, name, sizeof name - 1, &frame.function);
    if (result == PMT_OK) {
        result = pmt__intern_frame(&self->intern, &frame, &self->to->folded_frame);
    }
    return result;
}

static int
map_names(combiner *self, pmt__combined_part *part)
{
    const pmt_reader *reader = part->reader;
    uint32_t *strings = pmt__alloc_zeroed(self->allocator, reader->strings.len, sizeof *strings);
    uint32_t *frames = pmt__alloc_zeroed(self->allocator, reader->frames.len, sizeof *frames);
    part->stacks = pmt__alloc_zeroed(self->allocator, reader->stacks.len, sizeof *part->stacks);
    part->threads = pmt__alloc_zeroed(self->allocator, reader->threads.len, sizeof *part->threads);
    int result = strings == NULL || frames == NULL || part->stacks == NULL || part->threads == NULL
                     ? no_memory(self->err)
                     : map_root(self, part, &part->stacks[0]);
    for (size_t i = 0; i < reader->frames.len && result == PMT_OK; i++) {
        result = map_frame(self, reader, strings, (uint32_t)i, &frames[i]);
    }
    for (size_t i = 1; i < reader->stacks.len && result == PMT_OK; i++) {
        pmt__stack stack = reader->stacks.data[i];
        result = pmt__intern_stack(&self->intern, part->stacks[stack.parent], frames[stack.frame],
                                   &part->stacks[i]);
    }
    for (size_t i = 0; i < reader->threads.len && result == PMT_OK; i++) {
        result = map_thread(self, reader, strings, i, &part->threads[i]);
    }
    if (result == PMT_OK) {
        result = add_marks(self, part, strings);
    }
    pmt__release(self->allocator, strings);
    pmt__release(self->allocator, frames);
    return result;
}

/* --- values ------------------------------------------------------------------------------------ */

static int
add_row(combiner *self, pmt_aggregate *out, const pmt_row *row)
{
    uint32_t *place = &self->places.data[row->stack];
    if (*place == 0) {
        const pmt_row empty = {.stack = row->stack, .frame = row->frame};
        if (!pmt__rows_push(out, &empty)) {
            return no_memory(self->err);
        }
        *place = (uint32_t)out->rows.len;
    }
    pmt__value_add(&out->rows.data[*place - 1].value, &row->value);
    if (out->is_estimate) {
        pmt_spreads spreads;
        pmt_row_spreads(row, &spreads);
        pmt__spreads_add(&out->spreads.data[*place - 1], &spreads);
        pmt__spreads_add(&out->total_spreads, &spreads);
    }
    return PMT_OK;
}

static int
add_rows(combiner *self, pmt_aggregate *out, size_t at)
{
    pmt__combination *to = self->to;
    const pmt__combined_part *part = &to->parts[at];
    pmt_aggregate *from = part->aggregate;
    size_t new_stacks = to->names->stacks.len - self->places.len;
    if (!PMT__VEC_RESERVE(self->allocator, &self->places, new_stacks)) {
        return no_memory(self->err);
    }
    while (self->places.len < to->names->stacks.len) {
        self->places.data[self->places.len++] = 0;
    }
    int result = PMT_OK;
    for (size_t i = 0; i < from->rows.len && result == PMT_OK; i++) {
        pmt_row row = from->rows.data[i];
        row.stack = part->stacks[row.stack];
        row.frame = to->names->stacks.data[row.stack].frame;
        const pmt__part_bytes bytes = {row.stack, (uint32_t)at, row.value.bytes};
        if (bytes.bytes != 0 && !PMT__VEC_PUSH(self->allocator, &to->bytes, bytes)) {
            return no_memory(self->err);
        }
        result = add_row(self, out, &row);
    }
    pmt__value_add(&out->total, &from->total);
    PMT__VEC_DISPOSE(self->allocator, &from->rows);
    PMT__VEC_DISPOSE(self->allocator, &from->spreads);
    return result;
}

/* Sorts by stack, by counting; parts stay in their order. */
static int
sort_bytes(combiner *self)
{
    pmt__combination *to = self->to;
    size_t stacks = to->names->stacks.len;
    if (to->bytes.len >= UINT32_MAX) {
        return pmt__error_set(self->err, PMT_ERR_LIMIT, "the captures have over 2^32 stacks");
    }
    to->starts = pmt__alloc_zeroed(self->allocator, stacks + 1, sizeof *to->starts);
    pmt__part_bytes *sorted = pmt__alloc_zeroed(self->allocator, to->bytes.len, sizeof *sorted);
    if (to->starts == NULL || sorted == NULL) {
        pmt__release(self->allocator, sorted);
        return no_memory(self->err);
    }
    for (size_t i = 0; i < to->bytes.len; i++) {
        to->starts[to->bytes.data[i].stack + 1]++;
    }
    for (size_t i = 1; i <= stacks; i++) {
        to->starts[i] += to->starts[i - 1];
    }
    for (size_t i = to->bytes.len; i-- > 0;) { /* from the back, which turns ends into starts */
        uint32_t *end = &to->starts[to->bytes.data[i].stack + 1];
        sorted[--*end] = to->bytes.data[i];
    }
    for (size_t i = 0; i < stacks; i++) {
        to->starts[i] = to->starts[i + 1];
    }
    to->starts[stacks] = (uint32_t)to->bytes.len;
    size_t count = to->bytes.len;
    PMT__VEC_DISPOSE(self->allocator, &to->bytes);
    to->bytes.data = sorted;
    to->bytes.len = to->bytes.cap = count;
    return PMT_OK;
}

/* --- the whole --------------------------------------------------------------------------------- */

/* Adds the part at a place. *found counts those that had something to ask. */
static int
add_part(combiner *self, pmt_aggregate *out, const pmt_query *query, size_t at, size_t *found)
{
    pmt__combined_part *part = &self->to->parts[at];
    int result = map_names(self, part);
    pmt_query own;
    if (result < 0
        || !pmt__query_for(&own, query, part->reader, part->offset_ns, self->to->with_inherited)) {
        return result;
    }
    pmt_error err = PMT_ERROR_INIT;
    result = pmt_aggregate_create(&part->aggregate, part->reader, &own, &err);
    if (result == PMT_ERR_ARGUMENT && own.thread != NULL) {
        return PMT_OK; /* it has no such thread */
    }
    if (result < 0) {
        if (self->err != NULL) {
            *self->err = err;
        }
        return result;
    }
    ++*found;
    return add_rows(self, out, at);
}

static int
note_stretch(const combiner *self, pmt_aggregate *out, const pmt_query *query)
{
    pmt__stretch stretch;
    int result = pmt__captures_stretch(&stretch, self->readers, self->offsets_ns, self->to->count,
                                       query, self->err);
    if (result == PMT_OK) {
        pmt__window *window = &out->selection.window;
        window->whole = stretch.whole;
        window->start_ns = stretch.start_ns;
        window->end_ns = stretch.end_ns;
    }
    return result;
}

static int
combine(combiner *self, pmt_aggregate *out, const pmt_query *query)
{
    pmt__combination *to = self->to;
    size_t found = 0;
    int result = pmt__interner_begin(&self->intern);
    if (result == PMT_OK && self->to->by_process) {
        result = add_folded_frame(self);
    }
    for (size_t i = 0; i < to->count && result == PMT_OK; i++) {
        result = add_part(self, out, query, i, &found);
    }
    if (result < 0) {
        return result;
    }
    if (found == 0) {
        return pmt__query_is_outside(query, self->err);
    }
    if (to->names->marks.len > 1) {
        qsort(to->names->marks.data, to->names->marks.len, sizeof *to->names->marks.data,
              compare_marks);
    }
    pmt__rows_finish(out);
    result = sort_bytes(self);
    return result < 0 ? result : note_stretch(self, out, query);
}

static void
note_times(pmt__combination *self, uint64_t start_unix_ns)
{
    for (size_t i = 0; i < self->count; i++) {
        pmt_capture capture;
        pmt_reader_capture(self->parts[i].reader, &capture);
        uint64_t end_ns = self->parts[i].offset_ns + capture.duration_ns;
        self->duration_ns = end_ns > self->duration_ns ? end_ns : self->duration_ns;
    }
    /* What pmt_reader_capture says of the names: exports ask it for the time. */
    self->names->header.created_unix_ns = start_unix_ns;
    self->names->has_end = true;
    self->names->end_t_ns = self->duration_ns;
}

static int
begin(combiner *self)
{
    pmt__combination *to = self->to;
    to->names = pmt__alloc_zeroed(self->allocator, 1, sizeof *to->names);
    if (to->names != NULL) {
        to->names->allocator = self->allocator; /* before anything can fail: it is destroyed then */
    }
    to->parts = pmt__alloc_zeroed(self->allocator, to->count, sizeof *to->parts);
    self->offsets_ns = pmt__alloc_zeroed(self->allocator, to->count, sizeof *self->offsets_ns);
    if (to->names == NULL || to->parts == NULL || self->offsets_ns == NULL) {
        return no_memory(self->err);
    }
    uint64_t start_unix_ns = pmt__captures_start(self->readers, to->count, self->offsets_ns);
    for (size_t i = 0; i < to->count; i++) {
        to->parts[i].reader = self->readers[i];
        to->parts[i].offset_ns = self->offsets_ns[i];
    }
    note_times(to, start_unix_ns);
    return PMT_OK;
}

int
pmt_aggregate_combine(pmt_aggregate **out, const pmt_reader *const *readers, size_t count,
                      const pmt_query *query, unsigned flags, pmt_error *err)
{
    *out = NULL;
    int result = pmt__captures_check(count, err);
    if (result == PMT_OK) {
        result = pmt__window_check(query, err);
    }
    if (result < 0) {
        return result;
    }
    const pmt_allocator *allocator = readers[0]->allocator;
    pmt_aggregate *self = pmt__alloc_zeroed(allocator, 1, sizeof *self);
    pmt__combination *to = pmt__alloc_zeroed(allocator, 1, sizeof *to);
    if (self == NULL || to == NULL) {
        pmt__release(allocator, self);
        pmt__release(allocator, to);
        return no_memory(err);
    }
    *to = (pmt__combination){.allocator = allocator,
                             .count = count,
                             .with_inherited = (flags & PMT_COMBINE_WITH_INHERITED) != 0,
                             .by_process = (flags & PMT_COMBINE_BY_PROCESS) != 0};
    combiner it = {.to = to, .allocator = allocator, .readers = readers, .err = err};
    result = begin(&it);
    if (result < 0) {
        pmt__release(allocator, it.offsets_ns);
        pmt__combination_destroy(to);
        pmt__release(allocator, self);
        return result;
    }
    self->combination = to;
    self->reader = to->names;
    self->view = query->view;
    for (size_t i = 0; i < count; i++) {
        self->is_estimate = self->is_estimate || pmt__reader_is_sampled(readers[i]);
    }
    pmt__interner_init(&it.intern, to->names, err);
    pmt__index_init(&it.threads, allocator);
    result = combine(&it, self, query);
    pmt__interner_dispose(&it.intern);
    pmt__index_dispose(&it.threads);
    PMT__VEC_DISPOSE(allocator, &it.places);
    pmt__release(allocator, it.offsets_ns);
    if (result < 0) {
        pmt_aggregate_destroy(self);
        return result;
    }
    *out = self;
    return PMT_OK;
}

void
pmt__combination_destroy(pmt__combination *self)
{
    if (self == NULL) {
        return;
    }
    for (size_t i = 0; i < self->count && self->parts != NULL; i++) {
        pmt_aggregate_destroy(self->parts[i].aggregate);
        pmt__release(self->allocator, self->parts[i].stacks);
        pmt__release(self->allocator, self->parts[i].threads);
    }
    pmt_reader_destroy(self->names);
    pmt__release(self->allocator, self->parts);
    pmt__release(self->allocator, self->starts);
    PMT__VEC_DISPOSE(self->allocator, &self->bytes);
    pmt__release(self->allocator, self);
}

/* --- by capture -------------------------------------------------------------------------------- */

size_t
pmt_aggregate_capture_count(const pmt_aggregate *self)
{
    return self->combination == NULL ? 1 : self->combination->count;
}

void
pmt_aggregate_bytes_by_capture(const pmt_aggregate *self, uint64_t *out)
{
    const pmt__combination *of = self->combination;
    if (of == NULL) {
        *out = self->total.bytes;
        return;
    }
    for (size_t i = 0; i < of->count; i++) {
        const pmt_aggregate *part = of->parts[i].aggregate;
        out[i] = part == NULL ? 0 : part->total.bytes;
    }
}

void
pmt_aggregate_stacks_by_capture(const pmt_aggregate *self, const pmt_row *rows, size_t count,
                                uint64_t *out)
{
    const pmt__combination *of = self->combination;
    size_t width = pmt_aggregate_capture_count(self);
    memset(out, 0, count * width * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        if (of == NULL) {
            out[i] = rows[i].value.bytes;
            continue;
        }
        for (uint32_t at = of->starts[rows[i].stack]; at < of->starts[rows[i].stack + 1]; at++) {
            out[i * width + of->bytes.data[at].part] += of->bytes.data[at].bytes;
        }
    }
}

int
pmt_aggregate_sites_by_capture(const pmt_aggregate *self, int native, const pmt_row *rows,
                               size_t count, uint64_t *out, pmt_error *err)
{
    const pmt__combination *of = self->combination;
    if (of == NULL) {
        pmt_aggregate_stacks_by_capture(self, rows, count, out);
        return PMT_OK;
    }
    const pmt_reader *names = self->reader;
    /* 1 + the row of a frame */
    uint32_t *places = pmt__alloc_zeroed(of->allocator, names->frames.len + 1, sizeof *places);
    if (places == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        places[pmt__frame_place(names, rows[i].frame)] = (uint32_t)i + 1;
    }
    memset(out, 0, count * of->count * sizeof *out);
    for (size_t i = 0; i < of->bytes.len; i++) {
        const pmt__part_bytes *bytes = &of->bytes.data[i];
        uint32_t frame = native ? names->stacks.data[bytes->stack].frame
                                : pmt_reader_blamed_frame(names, bytes->stack);
        uint32_t place = places[pmt__frame_place(names, frame)];
        if (place != 0) {
            out[(place - 1) * of->count + bytes->part] += bytes->bytes;
        }
    }
    pmt__release(of->allocator, places);
    return PMT_OK;
}

/* --- trees by capture -------------------------------------------------------------------------- */

typedef struct finder {
    const pmt__tree *tree;
    pmt__index index; /* of nodes, by parent and frame */
} finder;

/* The child of the node with this frame; 0 if the tree leaves it out. */
static uint32_t
find_child(const finder *self, uint32_t node, uint32_t frame)
{
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, &self->index, pmt__hash_pair(node, frame));
    for (; at != PMT_INDEX_NONE; at = pmt__index_next(&walk)) {
        if (self->tree->nodes.data[at].parent == node
            && self->tree->nodes.data[at].frame == frame) {
            return at;
        }
    }
    return 0;
}

/* For each stack the node that it ends in, or where the tree leaves it. Bit 31: it leaves it. */
#define LEFT (UINT32_C(1) << 31) /* more than NODE_LIMIT of tree.c */

static void
find_ends(const finder *self, const pmt_reader *names, bool inverted, uint32_t *ends)
{
    for (size_t i = 1; i < names->stacks.len; i++) {
        pmt__stack stack = names->stacks.data[i];
        if (!inverted) {
            uint32_t above = ends[stack.parent];
            uint32_t child = above & LEFT ? 0 : find_child(self, above, stack.frame);
            ends[i] = child == 0 ? above | LEFT : child;
            continue;
        }
        uint32_t node = 0;
        for (uint32_t at = (uint32_t)i; at != 0; at = names->stacks.data[at].parent) {
            uint32_t child = find_child(self, node, names->stacks.data[at].frame);
            if (child == 0) {
                break;
            }
            node = child;
        }
        ends[i] = node;
    }
}

int
pmt__tree_by_capture(const pmt__tree *tree, const pmt_aggregate *aggregate, bool inverted,
                     uint64_t *out, pmt_error *err)
{
    const pmt__combination *of = aggregate->combination;
    if (of == NULL) {
        for (size_t i = 0; i < tree->nodes.len; i++) {
            out[i] = tree->nodes.data[i].bytes;
        }
        return PMT_OK;
    }
    finder it = {.tree = tree};
    pmt__index_init(&it.index, of->allocator);
    uint32_t *ends = pmt__alloc_zeroed(of->allocator, of->names->stacks.len, sizeof *ends);
    int result = ends == NULL ? no_memory(err) : PMT_OK;
    for (size_t i = 1; i < tree->nodes.len && result == PMT_OK; i++) {
        const pmt__tree_node *node = &tree->nodes.data[i];
        if (!pmt__index_add(&it.index, pmt__hash_pair(node->parent, node->frame), (uint32_t)i)) {
            result = no_memory(err);
        }
    }
    if (result == PMT_OK) {
        find_ends(&it, of->names, inverted, ends);
        for (size_t i = 0; i < of->bytes.len; i++) {
            const pmt__part_bytes *bytes = &of->bytes.data[i];
            out[(ends[bytes->stack] & ~LEFT) * of->count + bytes->part] += bytes->bytes;
        }
        for (size_t i = tree->nodes.len; i-- > 1;) {
            for (size_t part = 0; part < of->count; part++) {
                out[tree->nodes.data[i].parent * of->count + part] += out[i * of->count + part];
            }
        }
    }
    pmt__index_dispose(&it.index);
    pmt__release(of->allocator, ends);
    return result;
}
