/* The container of docs/flame-data.md, version 1.

   The data come from one capture, or from the parts of a combination, whose stacks and threads are translated
   to the common ones on the way. Many processes can have more stacks than a browser opens at once: then the
   lightest ones are folded. A stack weighs what it and those above it have of each view; so no stack is
   heavier than the one below it, the heaviest STACKS_MAX are a tree, and each of the others goes to a frame
   "[folded]" on the last of its callers that stays: whatever the page sums up stays as it is. */
#include "render/render.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/combine.h"
#include "analyze/lives.h"
#include "analyze/totals.h"
#include "base/error.h"
#include "base/index.h"
#include "render/text.h"

#define VERSION 1u
#define LIFE_ROWS_MAX ((size_t)250000) /* 7 MB before compression; a browser opens that at once */
#define THREADS_MAX 65536u
#define STACKS_MAX \
    ((size_t)100000) /* of several captures: what a browser opens within two seconds */

/* One (stack, thread) with its values of the four views. */
typedef struct value_row {
    uint32_t stack;
    uint32_t thread;
    pmt__sums sums;
} value_row;

/* A place on the time line; NaN = not known. */
typedef struct point {
    double t;
    double rss;
    double heap;
    uint32_t gc;
} point;

typedef struct flame {
    const pmt_aggregate *aggregate;
    const pmt_reader *reader;            /* names */
    const pmt__combination *combination; /* borrowed, or NULL: of one capture */
    const pmt_allocator *allocator;
    pmt__text_buffer arrays; /* the array area */
    pmt__text_buffer list;   /* JSON: the object "arrays" without its braces */
    PMT__VEC(value_row) rows;
    pmt__lives lives;
    PMT__VEC(point) points;
    /* Folding: where a stack goes, and on which stack the one with the number stacks.len + i of the reader
       stands. folds is NULL if none is folded. */
    uint32_t *folds;
    PMT__VEC(uint32_t) folded;
    /* From places in the reader to places in the container; UINT32_MAX = not used. */
    uint32_t *nodes;
    uint32_t *frames;
    uint32_t *strings;
    uint32_t *threads;
    bool has_objects; /* some frames are native */
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

static uint32_t
parent_of(const flame *self, size_t stack)
{
    size_t known = self->reader->stacks.len;
    return stack < known ? self->reader->stacks.data[stack].parent
                         : self->folded.data[stack - known];
}

static uint32_t
frame_of(const flame *self, size_t stack)
{
    return stack < self->reader->stacks.len ? self->reader->stacks.data[stack].frame
                                            : self->combination->folded_frame;
}

static int
no_memory(pmt_error *err)
{
    return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
}

/* Adds to the row of this stack and thread. */
static int
add_value(flame *self, pmt__index *index, const value_row *row, pmt_error *err)
{
    uint64_t hash = pmt__hash_u64((uint64_t)row->stack << 32 | row->thread);
    pmt__index_walk walk;
    uint32_t at = pmt__index_first(&walk, index, hash);
    while (
        at != PMT_INDEX_NONE
        && (self->rows.data[at].stack != row->stack || self->rows.data[at].thread != row->thread)) {
        at = pmt__index_next(&walk);
    }
    if (at != PMT_INDEX_NONE) {
        pmt__sums_add(&self->rows.data[at].sums, &row->sums);
        return PMT_OK;
    }
    at = (uint32_t)self->rows.len;
    return pmt__index_add(index, hash, at) && PMT__VEC_PUSH(self->allocator, &self->rows, *row)
               ? PMT_OK
               : no_memory(err);
}

/* Of one capture. part: what its numbers are in the combination, or NULL. */
static int
collect_sites(flame *self, pmt__index *index, const pmt_aggregate *aggregate,
              const pmt__combined_part *part, pmt_error *err)
{
    const pmt_reader *reader = aggregate->reader;
    pmt__sums *sums = NULL;
    int result = pmt__sums_compute(&sums, reader, &aggregate->selection.window, err);
    for (size_t i = 1; i < reader->sites.len && result == PMT_OK; i++) {
        const pmt__stored_site *site = &reader->sites.data[i];
        if (!pmt__selection_has(&aggregate->selection, site)
            || (sums[i].total_blocks | sums[i].peak_blocks | sums[i].leak_blocks) == 0) {
            continue;
        }
        value_row row = {site->stack, site->thread, sums[i]};
        if (part != NULL) {
            row.stack = part->stacks[row.stack];
            row.thread = part->threads[row.thread];
        }
        result = add_value(self, index, &row, err);
    }
    pmt__release(reader->allocator, sums);
    return result;
}

static int
collect_values(flame *self, pmt_error *err)
{
    const pmt__combination *of = self->combination;
    pmt__index index;
    pmt__index_init(&index, self->allocator);
    int result = PMT_OK;
    if (of == NULL) {
        result = collect_sites(self, &index, self->aggregate, NULL, err);
    }
    for (size_t i = 0; of != NULL && i < of->count && result == PMT_OK; i++) {
        if (of->parts[i].aggregate != NULL) {
            result = collect_sites(self, &index, of->parts[i].aggregate, &of->parts[i], err);
        }
    }
    pmt__index_dispose(&index);
    return result;
}

/* --- folding --------------------------------------------------------------------------------- */

static int
compare_weights(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return a > b ? -1 : a < b;
}

/* What each stack, with those above it, has of the views, each of which weighs 1. */
static void
weigh(const flame *self, double *weights)
{
    pmt__sums total = {0};
    for (size_t i = 0; i < self->rows.len; i++) {
        pmt__sums_add(&total, &self->rows.data[i].sums);
    }
    for (size_t i = 0; i < self->rows.len; i++) {
        const pmt__sums *sums = &self->rows.data[i].sums;
        double *weight = &weights[self->rows.data[i].stack];
        *weight += (double)sums->peak_bytes / ((double)total.peak_bytes + 1.0);
        *weight += (double)sums->leak_bytes / ((double)total.leak_bytes + 1.0);
        *weight += (double)sums->total_bytes / ((double)total.total_bytes + 1.0);
        *weight += (double)sums->temp_bytes / ((double)total.temp_bytes + 1.0);
    }
    for (size_t i = self->reader->stacks.len; i-- > 1;) {
        weights[self->reader->stacks.data[i].parent] += weights[i];
    }
}

/* The weight that STACKS_MAX stacks have at least, or a negative one if there are not more. */
static double
least_weight(const double *weights, double *scratch, size_t count)
{
    memcpy(scratch, weights, count * sizeof *scratch);
    qsort(scratch, count, sizeof *scratch, compare_weights);
    return scratch[STACKS_MAX] > 0.0 ? scratch[STACKS_MAX - 1] : -1.0;
}

/* Says for each stack where it goes. Callers come before callees. */
static int
choose_folds(flame *self, const double *weights, double least, pmt_error *err)
{
    size_t count = self->reader->stacks.len;
    uint32_t *on = pmt__alloc_zeroed(self->allocator, count, sizeof *on); /* its [folded], or 0 */
    if (on == NULL) {
        return no_memory(err);
    }
    size_t room = STACKS_MAX;
    for (size_t i = 0; i < count; i++) {
        room -= weights[i] > least && room > 0;
    }
    for (size_t i = 1; i < count; i++) {
        uint32_t parent = self->folds[self->reader->stacks.data[i].parent];
        bool stays = weights[i] > least;
        if (!stays && weights[i] >= least && room > 0 && parent < count) {
            stays = true; /* of those that weigh the same, the first ones */
            room--;
        }
        if (stays && parent < count) {
            self->folds[i] = (uint32_t)i;
            continue;
        }
        if (parent < count && on[parent] == 0) {
            on[parent] = (uint32_t)(count + self->folded.len);
            if (!PMT__VEC_PUSH(self->allocator, &self->folded, parent)) {
                pmt__release(self->allocator, on);
                return no_memory(err);
            }
        }
        self->folds[i] = parent < count ? on[parent] : parent;
    }
    pmt__release(self->allocator, on);
    return PMT_OK;
}

static int
move_values(flame *self, pmt_error *err)
{
    pmt__index index;
    pmt__index_init(&index, self->allocator);
    size_t count = self->rows.len;
    int result = PMT_OK;
    self->rows.len = 0;
    for (size_t i = 0; i < count && result == PMT_OK; i++) {
        /* Never more rows than were read, so this writes over rows that are done with. */
        value_row row = self->rows.data[i];
        row.stack = self->folds[row.stack];
        result = add_value(self, &index, &row, err);
    }
    pmt__index_dispose(&index);
    return result;
}

static int
fold_light_stacks(flame *self, pmt_error *err)
{
    size_t count = self->reader->stacks.len;
    if (self->combination == NULL || !self->combination->by_process || count <= STACKS_MAX) {
        return PMT_OK;
    }
    double *weights = pmt__alloc_zeroed(self->allocator, count, sizeof *weights);
    double *scratch = pmt__alloc_zeroed(self->allocator, count, sizeof *scratch);
    int result = weights == NULL || scratch == NULL ? no_memory(err) : PMT_OK;
    double least = -1.0;
    if (result == PMT_OK) {
        weigh(self, weights);
        least = least_weight(weights, scratch, count);
    }
    pmt__release(self->allocator, scratch);
    if (least >= 0.0) {
        self->folds = pmt__alloc_zeroed(self->allocator, count, sizeof *self->folds);
        result = self->folds == NULL ? no_memory(err) : choose_folds(self, weights, least, err);
        if (result == PMT_OK) {
            result = move_values(self, err);
        }
    }
    pmt__release(self->allocator, weights);
    return result;
}

/* --- time ------------------------------------------------------------------------------------ */

/* The lives of a part in the list: where they end, and how wide their buckets are. */
typedef struct life_run {
    size_t end;
    uint64_t width_ns;
} life_run;

static int
take_lives(flame *self, const pmt__combined_part *part, size_t max_rows, life_run *run,
           pmt_error *err)
{
    const pmt__combination *of = self->combination;
    const pmt_allocator *allocator = self->allocator;
    size_t stacks = part->reader->stacks.len;
    uint32_t *names = pmt__alloc_zeroed(allocator, stacks, sizeof *names);
    if (names == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < stacks; i++) {
        names[i] = self->folds == NULL ? part->stacks[i] : self->folds[part->stacks[i]];
    }
    pmt__lives *all = &self->lives;
    pmt__lives own;
    int result = pmt__lives_init_at(&own, part->aggregate, max_rows, names, part->offset_ns,
                                    of->duration_ns, err);
    pmt__release(allocator, names);
    if (result == PMT_OK && !PMT__VEC_RESERVE(allocator, &all->list, own.list.len)) {
        result = no_memory(err);
    }
    for (size_t i = 0; i < own.list.len && result == PMT_OK; i++) {
        pmt__life life = own.list.data[i];
        life.thread = part->threads[life.thread];
        all->list.data[all->list.len++] = life;
    }
    if (own.width_ns >= all->width_ns) {
        all->width_ns = own.width_ns;
        all->bucket_count = own.bucket_count;
    }
    *run = (life_run){all->list.len, own.width_ns};
    pmt__lives_dispose(&own);
    return result;
}

/* Buckets of all parts start at the same instant and are powers of two wide: the widest ones are sums of the
   others. */
static void
align_lives(pmt__lives *all, const life_run *runs)
{
    for (size_t i = 0, part = 0; i < all->list.len; i++) {
        while (i >= runs[part].end) {
            part++;
        }
        pmt__life *life = &all->list.data[i];
        uint64_t times = all->width_ns / runs[part].width_ns;
        life->birth = (uint16_t)(life->birth / times);
        if (life->death != PMT_LIFE_ALIVE) {
            life->death = (uint16_t)(life->death / times);
        }
    }
}

static int
collect_lives(flame *self, pmt_error *err)
{
    const pmt__combination *of = self->combination;
    if (of == NULL) {
        return pmt__lives_init(&self->lives, self->aggregate, LIFE_ROWS_MAX, err);
    }
    pmt__lives *all = &self->lives;
    all->allocator = self->allocator;
    all->width_ns = 1000000000u; /* no buckets are narrower */
    life_run *runs = pmt__alloc_zeroed(self->allocator, of->count, sizeof *runs);
    int result = runs == NULL ? no_memory(err) : PMT_OK;
    bool complete = true;
    for (size_t i = 0; i < of->count && result == PMT_OK; i++) {
        const pmt__combined_part *part = &of->parts[i];
        size_t before = all->list.len;
        runs[i].end = before;
        if (part->aggregate != NULL && part->reader->cuts.len != 0) {
            result = take_lives(self, part, LIFE_ROWS_MAX / of->count, &runs[i], err);
            complete =
                complete && (all->list.len != before || part->aggregate->total.allocations == 0);
        }
    }
    if (result == PMT_OK) {
        align_lives(all, runs);
    }
    if (!complete) {
        all->list.len = 0; /* the report then has no time window */
    }
    pmt__release(self->allocator, runs);
    return result;
}

static void
use_stack(flame *self, uint32_t stack)
{
    for (; self->nodes[stack] == UINT32_MAX; stack = parent_of(self, stack)) {
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
    for (size_t i = 0; i < reader->stacks.len + self->folded.len; i++) {
        if (self->nodes[i] != UINT32_MAX) {
            self->nodes[i] = self->node_count++;
            if (i != 0) {
                self->frames[frame_of(self, i)] = 0;
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
            use_string(self, reader->frames.data[i].object);
            self->has_objects = self->has_objects || reader->frames.data[i].object != 0;
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

/* With what the page needs to know of the kind. */
static unsigned
flags_of(const pmt__frame *frame)
{
    enum {
        NATIVE = 8,
        INLINED = 16
    };
    unsigned kind = frame->kind == PMT_FRAME_NATIVE    ? NATIVE
                    : frame->kind == PMT_FRAME_INLINED ? NATIVE | INLINED
                                                       : 0;
    return frame->flags | kind;
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
                                         "frame_flags", "frame_object"};
    for (size_t array = 0; array < (self->has_objects ? 5 : 4); array++) {
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
            case 3:
                pmt__text_put_char(&self->arrays, (char)flags_of(frame));
                break;
            default:
                put_u32(self, self->strings[frame->object]);
            }
        }
    }
}

static void
put_nodes(flame *self)
{
    size_t count = self->reader->stacks.len + self->folded.len;
    begin_array(self, "node_parent", "u32", self->node_count);
    for (size_t i = 0; i < count; i++) {
        if (self->nodes[i] != UINT32_MAX) {
            put_u32(self, i == 0 ? 0 : self->nodes[parent_of(self, i)]);
        }
    }
    begin_array(self, "node_frame", "u32", self->node_count);
    for (size_t i = 0; i < count; i++) {
        if (self->nodes[i] != UINT32_MAX) {
            put_u32(self, i == 0 ? 0 : self->frames[frame_of(self, i)]);
        }
    }
}

/* An array of one field, a uint64_t, of each of `count` structs that lie `stride` apart. */
static void
put_amounts(flame *self, const char *name, const void *structs, size_t stride, size_t offset,
            size_t count)
{
    begin_array(self, name, "f64", count);
    for (size_t i = 0; i < count; i++) {
        uint64_t value;
        memcpy(&value, (const char *)structs + i * stride + offset, sizeof value);
        put_f64(self, (double)value);
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
    /* samples do not tell what was temporary */
    size_t column_count = sizeof columns / sizeof *columns - (self->aggregate->is_estimate ? 2 : 0);
    for (size_t column = 0; column < column_count; column++) {
        put_amounts(self, columns[column].name, self->rows.data, sizeof *self->rows.data,
                    offsetof(value_row, sums) + columns[column].offset, count);
    }
}

/* How sure the values are, if they are estimates. */
static void
put_spreads(flame *self)
{
    static const struct {
        const char *name;
        size_t offset;
    } views[] = {{"peak", offsetof(pmt__sums, peak)},
                 {"leak", offsetof(pmt__sums, leak)},
                 {"total", offsetof(pmt__sums, total)}},
      fields[] = {{"samples", offsetof(pmt_spread, samples)},
                  {"sure_bytes", offsetof(pmt_spread, sure_bytes)},
                  {"sure_blocks", offsetof(pmt_spread, sure_blocks)},
                  {"bytes2", offsetof(pmt_spread, bytes2)},
                  {"blocks2", offsetof(pmt_spread, blocks2)}};
    for (size_t view = 0; view < sizeof views / sizeof *views; view++) {
        for (size_t field = 0; field < sizeof fields / sizeof *fields; field++) {
            char name[32];
            snprintf(name, sizeof name, "%s_%s", views[view].name, fields[field].name);
            size_t offset = offsetof(value_row, sums) + views[view].offset + fields[field].offset;
            if (field < 3) {
                put_amounts(self, name, self->rows.data, sizeof *self->rows.data, offset,
                            self->rows.len);
                continue;
            }
            begin_array(self, name, "f64", self->rows.len);
            for (size_t i = 0; i < self->rows.len; i++) {
                double value;
                memcpy(&value, (const char *)&self->rows.data[i] + offset, sizeof value);
                put_f64(self, value);
            }
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
    put_amounts(self, "life_bytes", lives->list.data, sizeof(pmt__life), offsetof(pmt__life, bytes),
                count);
    put_amounts(self, "life_blocks", lives->list.data, sizeof(pmt__life),
                offsetof(pmt__life, blocks), count);
}

static double
seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

/* The start, every cut, and the highest points between cuts: the peak lies on the curve. */
static int
collect_timeline(flame *self, pmt_error *err)
{
    size_t count = self->reader->cuts.len;
    const pmt_cut *cuts = self->reader->cuts.data;
    if (!PMT__VEC_RESERVE(self->allocator, &self->points, 2 * count + 1)) {
        return no_memory(err);
    }
    point *out = self->points.data;
    if (count > 0) {
        *out++ = (point){0.0, (double)NAN, 0.0, 0};
    }
    for (size_t i = 0; i < count; i++) {
        const pmt_cut *cut = &cuts[i];
        if (pmt__cut_has_inner_peak(self->reader, i)) {
            *out++ = (point){seconds(cut->peak_t_ns), (double)NAN, (double)cut->peak_bytes, 0};
        }
        uint64_t gc = pmt__cut_gc_runs(cut) - (i == 0 ? 0 : pmt__cut_gc_runs(&cuts[i - 1]));
        *out++ =
            (point){seconds(cut->t_ns), cut->rss_bytes == 0 ? (double)NAN : (double)cut->rss_bytes,
                    (double)cut->live_bytes, (uint32_t)gc};
    }
    self->points.len = (size_t)(out - self->points.data);
    return PMT_OK;
}

/* The sum of the heaps. There is none of resident memory: processes share pages. */
static int
collect_timelines(flame *self, pmt_error *err)
{
    const pmt__combination *of = self->combination;
    const pmt_reader **readers = pmt__alloc_zeroed(self->allocator, of->count, sizeof *readers);
    if (readers == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < of->count; i++) {
        readers[i] = of->parts[i].reader;
    }
    pmt__together together;
    int result = pmt__together_init(&together, readers, of->count, of->with_inherited, err);
    pmt__release(self->allocator, readers);
    if (result == PMT_OK && !PMT__VEC_RESERVE(self->allocator, &self->points, together.list.len)) {
        result = no_memory(err);
    }
    for (size_t i = 0; i < together.list.len && result == PMT_OK; i++) {
        const pmt__moment *moment = &together.list.data[i];
        self->points.data[self->points.len++] = (point){
            seconds(moment->t_ns), (double)NAN, (double)moment->heap_bytes, moment->gc_runs};
    }
    pmt__together_dispose(&together);
    return result;
}

static void
put_timeline(flame *self)
{
    size_t count = self->points.len;
    const point *points = self->points.data;
    static const char *const arrays[] = {"tl_t", "tl_rss", "tl_heap"};
    for (size_t array = 0; array < 3; array++) {
        begin_array(self, arrays[array], "f64", count);
        for (size_t i = 0; i < count; i++) {
            const double values[] = {points[i].t, points[i].rss, points[i].heap};
            put_f64(self, values[array]);
        }
    }
    begin_array(self, "tl_gc", "u32", count);
    for (size_t i = 0; i < count; i++) {
        put_u32(self, points[i].gc);
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
    const pmt__window *window = &self->aggregate->selection.window;
    if (window->whole) {
        return;
    }
    pmt__text_put_c(out, ",\"stretch\":{\"start_s\":");
    pmt__put_seconds(out, window->start_ns);
    pmt__text_put_c(out, ",\"end_s\":");
    pmt__put_seconds(out, window->end_ns);
    pmt__text_put_char(out, '}');
}

/* Of several captures the sum of their own peaks, which are not simultaneous. */
static void
put_totals(flame *self, pmt__text_buffer *out)
{
    const pmt_reader *reader = self->reader;
    const pmt_cut *last = reader->cuts.len == 0 ? NULL : &reader->cuts.data[reader->cuts.len - 1];
    uint64_t sum = 0;
    for (size_t i = 0; i < self->rows.len; i++) {
        sum += self->rows.data[i].sums.peak_bytes;
    }
    pmt__text_put_c(out, ",\"totals\":{\"peak_bytes\":");
    pmt__text_put_u64(out, last == NULL ? sum : last->peak_bytes);
    pmt__text_put_c(out, ",\"peak_t_s\":");
    if (last == NULL) {
        pmt__text_put_c(out, "null");
    } else {
        pmt__put_seconds(out, last->peak_t_ns);
    }
    pmt__text_put_char(out, '}');
}

static void
put_header(flame *self, pmt__text_buffer *out, pmt_string head)
{
    /* `head` is an object: its closing brace makes room for the rest. */
    pmt__text_put(out, head.text, head.len - 1);
    pmt__text_put_c(out, ",\"buckets\":{\"count\":");
    pmt__text_put_u64(out, self->lives.list.len == 0 ? 0 : self->lives.bucket_count);
    pmt__text_put_c(out, ",\"width_s\":");
    pmt__put_seconds(out, self->lives.width_ns);
    pmt__text_put_char(out, '}');
    put_threads(self, out);
    put_totals(self, out);
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

/* Everything that the arrays are made of. */
static int
collect(flame *self, pmt_error *err)
{
    int result = collect_values(self, err);
    if (result == PMT_OK) {
        result = fold_light_stacks(self, err);
    }
    /* Births and deaths are cut by seconds, which would not add up to the values of a stretch that ends between
       two: such a page shows its stretch and no other. */
    if (result == PMT_OK && self->aggregate->selection.window.whole) {
        result = collect_lives(self, err);
    }
    if (result == PMT_OK) {
        result =
            self->combination == NULL ? collect_timeline(self, err) : collect_timelines(self, err);
    }
    return result;
}

static int
put_container(flame *self, pmt__text_buffer *out, pmt_string head, pmt_error *err)
{
    const pmt_reader *reader = self->reader;
    self->frames = places(self->allocator, reader->frames.len);
    self->strings = places(self->allocator, reader->strings.len);
    self->threads = places(self->allocator, reader->threads.len);
    int result = self->frames == NULL || self->strings == NULL || self->threads == NULL
                     ? no_memory(err)
                     : collect(self, err);
    if (result < 0) {
        return result;
    }
    self->nodes = places(self->allocator, reader->stacks.len + self->folded.len);
    if (self->nodes == NULL) {
        return no_memory(err);
    }
    number_places(self);
    put_strings(self);
    put_frames(self);
    put_nodes(self);
    put_values(self);
    if (self->aggregate->is_estimate) {
        put_spreads(self);
    }
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
    flame self = {.aggregate = aggregate,
                  .reader = reader,
                  .combination = aggregate->combination,
                  .allocator = reader->allocator};
    pmt__text_init(&self.arrays, self.allocator);
    pmt__text_init(&self.list, self.allocator);
    int result = put_container(&self, out, head, err);
    pmt__text_dispose(&self.arrays);
    pmt__text_dispose(&self.list);
    PMT__VEC_DISPOSE(self.allocator, &self.rows);
    PMT__VEC_DISPOSE(self.allocator, &self.points);
    PMT__VEC_DISPOSE(self.allocator, &self.folded);
    pmt__release(self.allocator, self.folds);
    pmt__lives_dispose(&self.lives);
    pmt__release(self.allocator, self.nodes);
    pmt__release(self.allocator, self.frames);
    pmt__release(self.allocator, self.strings);
    pmt__release(self.allocator, self.threads);
    return result;
}
