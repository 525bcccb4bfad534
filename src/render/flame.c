/* The container of docs/flame-data.md, version 1. */
#include "render/render.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "analyze/lives.h"
#include "base/error.h"
#include "base/index.h"
#include "render/text.h"

#define VERSION 1u
#define LIFE_ROWS_MAX ((size_t)250000) /* 7 MB before compression; a browser opens that at once */
#define THREADS_MAX 65536u

/* One (stack, thread) with its values of the four views. */
typedef struct value_row {
    uint32_t stack;
    uint32_t thread;
    pmt__sums sums;
} value_row;

typedef struct flame {
    const pmt_aggregate *aggregate;
    const pmt_reader *reader;
    const pmt_allocator *allocator;
    pmt__text_buffer arrays; /* the array area */
    pmt__text_buffer list;   /* JSON: the object "arrays" without its braces */
    PMT__VEC(value_row) rows;
    pmt__lives lives;
    /* From places in the reader to places in the container; UINT32_MAX = not used. */
    uint32_t *nodes;
    uint32_t *frames;
    uint32_t *strings;
    uint32_t *threads;
    uint32_t node_count;
    uint32_t string_count;
    uint32_t thread_count;
} flame;

/* --- arrays ---------------------------------------------------------------------------------- */

/* Starts an array of count elements. What is appended to self->arrays next is its content. */
static void
begin_array(flame *self, const char *name, const char *type, size_t count)
{
    while (self->arrays.len % 8 != 0 && !self->arrays.failed) {
        pmt__text_put_char(&self->arrays, '\0');
    }
    if (self->list.len != 0) {
        pmt__text_put_char(&self->list, ',');
    }
    pmt__text_put_char(&self->list, '"');
    pmt__text_put_c(&self->list, name);
    pmt__text_put_c(&self->list, "\":{\"type\":\"");
    pmt__text_put_c(&self->list, type);
    pmt__text_put_c(&self->list, "\",\"offset\":");
    pmt__text_put_u64(&self->list, self->arrays.len);
    pmt__text_put_c(&self->list, ",\"count\":");
    pmt__text_put_u64(&self->list, count);
    pmt__text_put_char(&self->list, '}');
}

/* The only machines that this runs on are little-endian (see the root meson.build). */
static void
put_u16(flame *self, uint32_t value)
{
    uint16_t narrow = (uint16_t)value;
    pmt__text_put(&self->arrays, &narrow, sizeof narrow);
}

static void
put_u32(flame *self, uint32_t value)
{
    pmt__text_put(&self->arrays, &value, sizeof value);
}

static void
put_f64(flame *self, double value)
{
    pmt__text_put(&self->arrays, &value, sizeof value);
}

/* --- what is shown --------------------------------------------------------------------------- */

static int
collect_values(flame *self, pmt_error *err)
{
    const pmt_reader *reader = self->reader;
    pmt__sums *sums = NULL;
    pmt__index index;
    int result = pmt__sums_compute(&sums, reader, &self->aggregate->window, err);
    if (result < 0) {
        return result;
    }
    pmt__index_init(&index, self->allocator);
    for (size_t i = 1; i < reader->sites.len; i++) {
        const pmt__stored_site *site = &reader->sites.data[i];
        const pmt_aggregate *aggregate = self->aggregate;
        if ((aggregate->stacks != NULL && !aggregate->stacks[site->stack])
            || (aggregate->threads != NULL && !aggregate->threads[site->thread])
            || (sums[i].total_blocks | sums[i].peak_blocks | sums[i].leak_blocks) == 0) {
            continue;
        }
        uint64_t hash = pmt__hash_u64((uint64_t)site->stack << 32 | site->thread);
        pmt__index_walk walk;
        uint32_t at = pmt__index_first(&walk, &index, hash);
        while (at != PMT_INDEX_NONE
               && (self->rows.data[at].stack != site->stack
                   || self->rows.data[at].thread != site->thread)) {
            at = pmt__index_next(&walk);
        }
        if (at == PMT_INDEX_NONE) {
            at = (uint32_t)self->rows.len;
            value_row row = {.stack = site->stack, .thread = site->thread};
            if (!pmt__index_add(&index, hash, at)
                || !PMT__VEC_PUSH(self->allocator, &self->rows, row)) {
                result = pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
                break;
            }
        }
        pmt__sums *to = &self->rows.data[at].sums;
        to->peak_blocks += sums[i].peak_blocks;
        to->peak_bytes += sums[i].peak_bytes;
        to->leak_blocks += sums[i].leak_blocks;
        to->leak_bytes += sums[i].leak_bytes;
        to->total_blocks += sums[i].total_blocks;
        to->total_bytes += sums[i].total_bytes;
        to->temp_blocks += sums[i].temp_blocks;
        to->temp_bytes += sums[i].temp_bytes;
    }
    pmt__index_dispose(&index);
    pmt__release(self->allocator, sums);
    return result;
}

static void
use_stack(flame *self, uint32_t stack)
{
    for (; self->nodes[stack] == UINT32_MAX; stack = self->reader->stacks.data[stack].parent) {
        self->nodes[stack] = 0;
    }
}

static void
use_string(flame *self, uint32_t string)
{
    if (self->strings[string] == UINT32_MAX) {
        self->strings[string] = 0;
    }
}

static void
number_places(flame *self)
{
    const pmt_reader *reader = self->reader;
    self->nodes[0] = 0;
    for (size_t i = 0; i < self->rows.len; i++) {
        use_stack(self, self->rows.data[i].stack);
        self->threads[self->rows.data[i].thread] = 0;
    }
    for (size_t i = 0; i < self->lives.list.len; i++) {
        use_stack(self, self->lives.list.data[i].stack);
        self->threads[self->lives.list.data[i].thread] = 0;
    }
    for (size_t i = 0; i < reader->stacks.len; i++) {
        if (self->nodes[i] != UINT32_MAX) {
            self->nodes[i] = self->node_count++;
            if (i != 0) {
                self->frames[reader->stacks.data[i].frame] = 0;
            }
        }
    }
    for (size_t i = 0; i < reader->threads.len; i++) {
        if (self->threads[i] != UINT32_MAX) {
            /* A thread beyond what 16 bits can name shares the last number. */
            self->threads[i] =
                self->thread_count < THREADS_MAX ? self->thread_count++ : THREADS_MAX - 1;
        }
    }
    use_string(self, 0);
    for (size_t i = 0; i < reader->frames.len; i++) {
        if (self->frames[i] != UINT32_MAX) {
            use_string(self, reader->frames.data[i].function);
            use_string(self, reader->frames.data[i].file);
        }
    }
    for (size_t i = 0; i < reader->marks.len; i++) {
        use_string(self, reader->marks.data[i].label);
    }
    for (size_t i = 0; i < reader->strings.len; i++) {
        if (self->strings[i] != UINT32_MAX) {
            self->strings[i] = self->string_count++;
        }
    }
}

/* --- groups of arrays ------------------------------------------------------------------------ */

static void
put_strings(flame *self)
{
    const pmt_reader *reader = self->reader;
    begin_array(self, "string_offsets", "u32", (size_t)self->string_count + 1);
    uint32_t at = 0;
    put_u32(self, 0);
    for (size_t i = 0; i < reader->strings.len; i++) {
        if (self->strings[i] != UINT32_MAX) {
            at += reader->strings.data[i].len;
            put_u32(self, at);
        }
    }
    begin_array(self, "string_bytes", "u8", at);
    for (size_t i = 0; i < reader->strings.len; i++) {
        if (self->strings[i] != UINT32_MAX) {
            pmt_string text = pmt__reader_string(reader, (uint32_t)i);
            pmt__text_put(&self->arrays, text.text, text.len);
        }
    }
}

static void
put_frames(flame *self)
{
    const pmt_reader *reader = self->reader;
    uint32_t count = 0;
    for (size_t i = 0; i < reader->frames.len; i++) {
        if (self->frames[i] != UINT32_MAX) {
            self->frames[i] = count++;
        }
    }
    static const char *const arrays[] = {"frame_function", "frame_file", "frame_line",
                                         "frame_flags"};
    for (size_t array = 0; array < 4; array++) {
        begin_array(self, arrays[array], array == 3 ? "u8" : "u32", count);
        for (size_t i = 0; i < reader->frames.len; i++) {
            const pmt__frame *frame = &reader->frames.data[i];
            if (self->frames[i] == UINT32_MAX) {
                continue;
            }
            switch (array) {
            case 0:
                put_u32(self, self->strings[frame->function]);
                break;
            case 1:
                put_u32(self, self->strings[frame->file]);
                break;
            case 2:
                put_u32(self,
                        frame->line < 0 || frame->line > UINT32_MAX ? 0 : (uint32_t)frame->line);
                break;
            default:
                pmt__text_put_char(&self->arrays, (char)frame->flags);
            }
        }
    }
}

static void
put_nodes(flame *self)
{
    const pmt_reader *reader = self->reader;
    begin_array(self, "node_parent", "u32", self->node_count);
    for (size_t i = 0; i < reader->stacks.len; i++) {
        if (self->nodes[i] != UINT32_MAX) {
            put_u32(self, i == 0 ? 0 : self->nodes[reader->stacks.data[i].parent]);
        }
    }
    begin_array(self, "node_frame", "u32", self->node_count);
    for (size_t i = 0; i < reader->stacks.len; i++) {
        if (self->nodes[i] != UINT32_MAX) {
            put_u32(self, i == 0 ? 0 : self->frames[reader->stacks.data[i].frame]);
        }
    }
}

static void
put_values(flame *self)
{
    static const struct {
        const char *name;
        size_t offset;
    } columns[] = {{"peak_bytes", offsetof(pmt__sums, peak_bytes)},
                   {"peak_blocks", offsetof(pmt__sums, peak_blocks)},
                   {"leak_bytes", offsetof(pmt__sums, leak_bytes)},
                   {"leak_blocks", offsetof(pmt__sums, leak_blocks)},
                   {"total_bytes", offsetof(pmt__sums, total_bytes)},
                   {"total_blocks", offsetof(pmt__sums, total_blocks)},
                   {"temp_bytes", offsetof(pmt__sums, temp_bytes)},
                   {"temp_blocks", offsetof(pmt__sums, temp_blocks)}};
    size_t count = self->rows.len;
    begin_array(self, "val_node", "u32", count);
    for (size_t i = 0; i < count; i++) {
        put_u32(self, self->nodes[self->rows.data[i].stack]);
    }
    begin_array(self, "val_thread", "u16", count);
    for (size_t i = 0; i < count; i++) {
        put_u16(self, self->threads[self->rows.data[i].thread]);
    }
    for (size_t column = 0; column < sizeof columns / sizeof *columns; column++) {
        begin_array(self, columns[column].name, "f64", count);
        for (size_t i = 0; i < count; i++) {
            uint64_t value;
            memcpy(&value, (const char *)&self->rows.data[i].sums + columns[column].offset,
                   sizeof value);
            put_f64(self, (double)value);
        }
    }
}

static void
put_lives(flame *self)
{
    const pmt__lives *lives = &self->lives;
    size_t count = lives->list.len;
    if (count == 0) {
        return;
    }
    begin_array(self, "life_node", "u32", count);
    for (size_t i = 0; i < count; i++) {
        put_u32(self, self->nodes[lives->list.data[i].stack]);
    }
    begin_array(self, "life_thread", "u16", count);
    for (size_t i = 0; i < count; i++) {
        put_u16(self, self->threads[lives->list.data[i].thread]);
    }
    begin_array(self, "life_birth", "u16", count);
    for (size_t i = 0; i < count; i++) {
        put_u16(self, lives->list.data[i].birth);
    }
    begin_array(self, "life_death", "u16", count);
    for (size_t i = 0; i < count; i++) {
        put_u16(self, lives->list.data[i].death);
    }
    begin_array(self, "life_bytes", "f64", count);
    for (size_t i = 0; i < count; i++) {
        put_f64(self, (double)lives->list.data[i].bytes);
    }
    begin_array(self, "life_blocks", "f64", count);
    for (size_t i = 0; i < count; i++) {
        put_f64(self, (double)lives->list.data[i].blocks);
    }
}

static double
seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static uint64_t
gc_runs(const pmt_cut *cut)
{
    return cut->gc[0] + cut->gc[1] + cut->gc[2];
}

enum {
    TL_T,
    TL_RSS,
    TL_HEAP,
    TL_GC
};

static void
put_point(flame *self, int column, double t, double rss, double heap, uint32_t gc)
{
    switch (column) {
    case TL_T:
        put_f64(self, t);
        break;
    case TL_RSS:
        put_f64(self, rss);
        break;
    case TL_HEAP:
        put_f64(self, heap);
        break;
    default:
        put_u32(self, gc);
        break;
    }
}

/* Does a cut tell of a highest point between it and the one before? */
static bool
peak_inside(const pmt_cut *cuts, size_t i)
{
    uint64_t before = i == 0 ? 0 : cuts[i - 1].t_ns;
    return (cuts[i].flags & PMT_CUT_PEAK_MOVED) != 0 && cuts[i].peak_t_ns > before
           && cuts[i].peak_t_ns < cuts[i].t_ns;
}

/* The start, every cut, and the highest points between cuts: the peak lies on the curve. */
static void
put_timeline(flame *self)
{
    static const char *const names[] = {"tl_t", "tl_rss", "tl_heap", "tl_gc"};
    size_t count = self->reader->cuts.len;
    const pmt_cut *cuts = self->reader->cuts.data;
    size_t points = count == 0 ? 0 : count + 1;
    for (size_t i = 0; i < count; i++) {
        points += peak_inside(cuts, i);
    }
    for (int column = TL_T; column <= TL_GC; column++) {
        begin_array(self, names[column], column == TL_GC ? "u32" : "f64", points);
        if (count > 0) {
            put_point(self, column, 0.0, (double)NAN, 0.0, 0);
        }
        for (size_t i = 0; i < count; i++) {
            if (peak_inside(cuts, i)) {
                put_point(self, column, seconds(cuts[i].peak_t_ns), (double)NAN,
                          (double)cuts[i].peak_bytes, 0);
            }
            put_point(self, column, seconds(cuts[i].t_ns),
                      cuts[i].rss_bytes == 0 ? (double)NAN : (double)cuts[i].rss_bytes,
                      (double)cuts[i].live_bytes,
                      (uint32_t)(gc_runs(&cuts[i]) - (i == 0 ? 0 : gc_runs(&cuts[i - 1]))));
        }
    }
}

static void
put_marks(flame *self)
{
    size_t count = self->reader->marks.len;
    const pmt__stored_mark *marks = self->reader->marks.data;
    begin_array(self, "mark_t", "f64", count);
    for (size_t i = 0; i < count; i++) {
        put_f64(self, seconds(marks[i].t_ns));
    }
    begin_array(self, "mark_label", "u32", count);
    for (size_t i = 0; i < count; i++) {
        put_u32(self, self->strings[marks[i].label]);
    }
}

/* --- header ---------------------------------------------------------------------------------- */

static void
put_threads(flame *self, pmt__text_buffer *out)
{
    const pmt_reader *reader = self->reader;
    pmt__text_put_c(out, ",\"threads\":[");
    uint32_t written = 0;
    for (size_t i = 0; i < reader->threads.len; i++) {
        /* Only the first of those that share a number names it. */
        if (self->threads[i] != written || written >= THREADS_MAX) {
            continue;
        }
        pmt__text_put_c(out, written == 0 ? "{\"id\":" : ",{\"id\":");
        pmt__text_put_u64(out, written);
        pmt__text_put_c(out, ",\"name\":");
        pmt_thread thread = pmt_reader_thread(reader, i);
        if (written == THREADS_MAX - 1) {
            pmt__text_put_c(out, "\"other threads\"");
        } else if (thread.name.len != 0) {
            pmt__put_json(out, thread.name);
        } else if (thread.native_id != 0) {
            pmt__text_put_c(out, "\"thread ");
            pmt__text_put_u64(out, thread.native_id);
            pmt__text_put_char(out, '"');
        } else {
            pmt__text_put_c(out, "\"unknown thread\"");
        }
        pmt__text_put_char(out, '}');
        written++;
    }
    pmt__text_put_char(out, ']');
}

/* The part of the run that the values are of, if they are not of all of it. */
static void
put_stretch(flame *self, pmt__text_buffer *out)
{
    const pmt__window *window = &self->aggregate->window;
    if (window->whole) {
        return;
    }
    pmt__text_put_c(out, ",\"stretch\":{\"start_s\":");
    pmt__put_seconds(out, window->start_ns);
    pmt__text_put_c(out, ",\"end_s\":");
    pmt__put_seconds(out, window->end_ns);
    pmt__text_put_char(out, '}');
}

static void
put_header(flame *self, pmt__text_buffer *out, pmt_string head)
{
    const pmt_reader *reader = self->reader;
    /* `head` is an object: its closing brace makes room for the rest. */
    pmt__text_put(out, head.text, head.len - 1);
    pmt__text_put_c(out, ",\"buckets\":{\"count\":");
    pmt__text_put_u64(out, self->lives.list.len == 0 ? 0 : self->lives.bucket_count);
    pmt__text_put_c(out, ",\"width_s\":");
    pmt__put_seconds(out, self->lives.width_ns);
    pmt__text_put_char(out, '}');
    put_threads(self, out);
    const pmt_cut *last = reader->cuts.len == 0 ? NULL : &reader->cuts.data[reader->cuts.len - 1];
    pmt__text_put_c(out, ",\"totals\":{\"peak_bytes\":");
    pmt__text_put_u64(out, last == NULL ? 0 : last->peak_bytes);
    pmt__text_put_c(out, ",\"peak_t_s\":");
    if (last == NULL) {
        pmt__text_put_c(out, "null");
    } else {
        pmt__put_seconds(out, last->peak_t_ns);
    }
    pmt__text_put_char(out, '}');
    put_stretch(self, out);
    pmt__text_put_c(out, ",\"strings_count\":");
    pmt__text_put_u64(out, self->string_count);
    pmt__text_put_c(out, ",\"arrays\":{");
    pmt__text_put(out, self->list.data, self->list.len);
    pmt__text_put_c(out, "}}");
}

static uint32_t *
places(const pmt_allocator *allocator, size_t count)
{
    uint32_t *result = pmt__alloc_zeroed(allocator, count, sizeof *result);
    if (result != NULL) {
        memset(result, 0xff, count * sizeof *result);
    }
    return result;
}

static int
put_container(flame *self, pmt__text_buffer *out, pmt_string head, pmt_error *err)
{
    const pmt_reader *reader = self->reader;
    self->nodes = places(self->allocator, reader->stacks.len);
    self->frames = places(self->allocator, reader->frames.len);
    self->strings = places(self->allocator, reader->strings.len);
    self->threads = places(self->allocator, reader->threads.len);
    if (self->nodes == NULL || self->frames == NULL || self->strings == NULL
        || self->threads == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    int result = collect_values(self, err);
    /* Births and deaths are cut by seconds, which would not add up to the values of a stretch that ends between
       two: such a page shows its stretch and no other. */
    if (result == PMT_OK && self->aggregate->window.whole) {
        result = pmt__lives_init(&self->lives, self->aggregate, LIFE_ROWS_MAX, err);
    }
    if (result < 0) {
        return result;
    }
    number_places(self);
    put_strings(self);
    put_frames(self);
    put_nodes(self);
    put_values(self);
    put_lives(self);
    put_timeline(self);
    put_marks(self);

    pmt__text_buffer json;
    pmt__text_init(&json, self->allocator);
    put_header(self, &json, head);
    uint32_t version = VERSION;
    uint32_t length = (uint32_t)json.len;
    pmt__text_put(out, "PMTF", 4);
    pmt__text_put(out, &version, sizeof version);
    pmt__text_put(out, &length, sizeof length);
    pmt__text_put(out, json.data, json.len);
    static const char zeros[8];
    pmt__text_put(out, zeros, (8 - (12 + json.len) % 8) % 8);
    pmt__text_put(out, self->arrays.data, self->arrays.len);
    out->failed = out->failed || json.failed || self->arrays.failed || self->list.failed;
    pmt__text_dispose(&json);
    return pmt__text_result(out, err);
}

int
pmt__render_flame(pmt__text_buffer *out, const pmt_aggregate *aggregate, pmt_string head,
                  pmt_error *err)
{
    if (head.len < 3 || head.text[0] != '{' || head.text[head.len - 1] != '}') {
        return pmt__error_set(err, PMT_ERR_ARGUMENT, "the head of the header is no JSON object");
    }
    const pmt_reader *reader = aggregate->reader;
    flame self = {.aggregate = aggregate, .reader = reader, .allocator = reader->allocator};
    pmt__text_init(&self.arrays, self.allocator);
    pmt__text_init(&self.list, self.allocator);
    int result = put_container(&self, out, head, err);
    pmt__text_dispose(&self.arrays);
    pmt__text_dispose(&self.list);
    PMT__VEC_DISPOSE(self.allocator, &self.rows);
    pmt__lives_dispose(&self.lives);
    pmt__release(self.allocator, self.nodes);
    pmt__release(self.allocator, self.frames);
    pmt__release(self.allocator, self.strings);
    pmt__release(self.allocator, self.threads);
    return result;
}
