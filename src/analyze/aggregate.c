#include "analyze/aggregate.h"

#include <stdlib.h>

#include "analyze/combine.h"
#include "analyze/spread.h"
#include "base/error.h"

void
pmt__value_add(pmt_value *to, const pmt_value *value)
{
    to->bytes += value->bytes;
    to->blocks += value->blocks;
    to->allocated_bytes += value->allocated_bytes;
    to->allocations += value->allocations;
    to->inuse_bytes += value->inuse_bytes;
    to->inuse_blocks += value->inuse_blocks;
    to->temporary_bytes += value->temporary_bytes;
    to->temporaries += value->temporaries;
}

void
pmt__spreads_add(pmt_spreads *to, const pmt_spreads *spreads)
{
    pmt__spread_add(&to->view, &spreads->view, 1);
    pmt__spread_add(&to->allocated, &spreads->allocated, 1);
}

static pmt_spreads
sure(const pmt_value *value)
{
    return (pmt_spreads){
        .view = {.sure_blocks = value->blocks, .sure_bytes = value->bytes},
        .allocated = {.sure_blocks = value->allocations, .sure_bytes = value->allocated_bytes},
    };
}

void
pmt_row_spreads(const pmt_row *row, pmt_spreads *out)
{
    *out = row->spreads == NULL ? sure(&row->value) : *row->spreads;
}

static pmt_value
value_of(const pmt__sums *sums, pmt_view view)
{
    pmt_value value;
    value.allocated_bytes = sums->total_bytes;
    value.allocations = sums->total_blocks;
    value.temporary_bytes = sums->temp_bytes;
    value.temporaries = sums->temp_blocks;
    value.inuse_bytes = view == PMT_VIEW_PEAK ? sums->peak_bytes : sums->leak_bytes;
    value.inuse_blocks = view == PMT_VIEW_PEAK ? sums->peak_blocks : sums->leak_blocks;
    switch (view) {
    case PMT_VIEW_TOTAL:
        value.bytes = sums->total_bytes;
        value.blocks = sums->total_blocks;
        break;
    case PMT_VIEW_TEMPORARY:
        value.bytes = sums->temp_bytes;
        value.blocks = sums->temp_blocks;
        break;
    default:
        value.bytes = value.inuse_bytes;
        value.blocks = value.inuse_blocks;
    }
    return value;
}

static int
compare(uint64_t a, uint64_t b)
{
    return a > b ? -1 : a < b;
}

static int
compare_rows(const void *left, const void *right)
{
    const pmt_row *a = left;
    const pmt_row *b = right;
    int order = compare(a->value.bytes, b->value.bytes);
    if (order == 0) {
        order = compare(a->value.blocks, b->value.blocks);
    }
    if (order == 0) {
        order = compare(a->value.allocated_bytes, b->value.allocated_bytes);
    }
    if (order == 0) {
        order = compare(b->frame, a->frame);
    }
    return order == 0 ? compare(b->stack, a->stack) : order;
}

void
pmt__rows_sort(pmt_row *rows, size_t count)
{
    if (count > 1) {
        qsort(rows, count, sizeof *rows, compare_rows);
    }
}

bool
pmt__rows_push(pmt_aggregate *self, const pmt_row *row)
{
    const pmt_spreads none = {.view = {0}};
    const pmt_allocator *allocator = self->reader->allocator;
    return (!self->is_estimate || PMT__VEC_PUSH(allocator, &self->spreads, none))
           && PMT__VEC_PUSH(allocator, &self->rows, *row);
}

void
pmt__rows_finish(pmt_aggregate *self)
{
    for (size_t i = 0; i < self->rows.len; i++) {
        self->rows.data[i].spreads = self->is_estimate ? &self->spreads.data[i] : NULL;
    }
    pmt__rows_sort(self->rows.data, self->rows.len);
}

static bool
is_empty(const pmt_value *value)
{
    return (value->bytes | value->blocks | value->allocated_bytes | value->allocations
            | value->inuse_bytes | value->inuse_blocks)
           == 0;
}

/* Adds the sites' values up per stack; rows come out in the order of the stacks. */
static int
collect(pmt_aggregate *self, const pmt__sums *sums, pmt_error *err)
{
    const pmt_reader *reader = self->reader;
    /* 1 + the row of a stack */
    uint32_t *places = pmt__alloc_zeroed(reader->allocator, reader->stacks.len, sizeof *places);
    if (places == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    int result = PMT_OK;
    for (size_t i = 1; i < reader->sites.len; i++) {
        const pmt__stored_site *site = &reader->sites.data[i];
        if (!pmt__selection_has(&self->selection, site)) {
            continue;
        }
        pmt_value value = value_of(&sums[i], self->view);
        if (is_empty(&value)) {
            continue;
        }
        if (places[site->stack] == 0) {
            pmt_row row = {.stack = site->stack, .frame = reader->stacks.data[site->stack].frame};
            if (!pmt__rows_push(self, &row)) {
                result = pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
                break;
            }
            places[site->stack] = (uint32_t)self->rows.len;
        }
        size_t place = places[site->stack] - 1;
        pmt__value_add(&self->rows.data[place].value, &value);
        pmt__value_add(&self->total, &value);
        if (self->is_estimate) {
            const pmt_spreads spreads = pmt__sums_spreads(&sums[i], self->view);
            pmt__spreads_add(&self->spreads.data[place], &spreads);
            pmt__spreads_add(&self->total_spreads, &spreads);
        }
    }
    pmt__release(reader->allocator, places);
    return result;
}

int
pmt_aggregate_create(pmt_aggregate **out, const pmt_reader *reader, const pmt_query *query,
                     pmt_error *err)
{
    *out = NULL;
    if (query->view < PMT_VIEW_PEAK || query->view > PMT_VIEW_TEMPORARY) {
        return pmt__error_set(err, PMT_ERR_ARGUMENT, "unknown view %d", (int)query->view);
    }
    pmt_aggregate *self = pmt__alloc_zeroed(reader->allocator, 1, sizeof *self);
    if (self == NULL) {
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    self->reader = reader;
    self->view = query->view;
    self->is_estimate = pmt__reader_is_sampled(reader);
    pmt__sums *sums = NULL;
    int result = pmt__selection_init(&self->selection, reader, query, err);
    if (result == PMT_OK) {
        result = pmt__sums_compute(&sums, reader, &self->selection.window, err);
    }
    if (result == PMT_OK) {
        result = collect(self, sums, err);
    }
    pmt__release(reader->allocator, sums);
    if (result < 0) {
        pmt_aggregate_destroy(self);
        return result;
    }
    pmt__rows_finish(self);
    *out = self;
    return PMT_OK;
}

void
pmt_aggregate_destroy(pmt_aggregate *self)
{
    if (self == NULL) {
        return;
    }
    const pmt_allocator *allocator = self->reader->allocator;
    pmt__selection_dispose(&self->selection, allocator);
    PMT__VEC_DISPOSE(allocator, &self->rows);
    PMT__VEC_DISPOSE(allocator, &self->spreads);
    pmt__combination_destroy(self->combination); /* and with it, the reader of several captures */
    pmt__release(allocator, self);
}

const pmt_reader *
pmt_aggregate_names(const pmt_aggregate *self)
{
    return self->reader;
}

int
pmt_aggregate_window(const pmt_aggregate *self, uint64_t *start_ns, uint64_t *end_ns)
{
    const pmt__window *window = &self->selection.window;
    *start_ns = window->start_ns;
    *end_ns = window->end_ns;
    return !window->whole;
}

void
pmt_aggregate_total(const pmt_aggregate *self, pmt_value *out)
{
    *out = self->total;
}

int
pmt_aggregate_is_estimate(const pmt_aggregate *self)
{
    return self->is_estimate;
}

void
pmt_aggregate_total_spreads(const pmt_aggregate *self, pmt_spreads *out)
{
    *out = self->is_estimate ? self->total_spreads : sure(&self->total);
}

/* How many rows have something in the view: they come first. */
static size_t
count_shown(const pmt_row *rows, size_t count)
{
    while (count > 0 && rows[count - 1].value.bytes == 0 && rows[count - 1].value.blocks == 0) {
        count--;
    }
    return count;
}

size_t
pmt_aggregate_stacks(const pmt_aggregate *self, const pmt_row **out)
{
    *out = self->rows.data;
    return count_shown(self->rows.data, self->rows.len);
}

int
pmt_aggregate_sites(const pmt_aggregate *self, int native, pmt_row **out, size_t *count,
                    pmt_error *err)
{
    const pmt_reader *reader = self->reader;
    *out = NULL;
    *count = 0;
    size_t limit = reader->frames.len + 1;
    /* 1 + the row of a frame */
    uint32_t *places = pmt__alloc_zeroed(reader->allocator, limit, sizeof *places);
    /* Their spreads stand behind them. */
    size_t each = sizeof(pmt_row) + (self->is_estimate ? sizeof(pmt_spreads) : 0);
    pmt_row *rows = pmt__alloc_zeroed(reader->allocator, limit, each);
    if (places == NULL || rows == NULL) {
        pmt__release(reader->allocator, places);
        pmt__release(reader->allocator, rows);
        return pmt__error_set(err, PMT_ERR_NOMEM, "out of memory");
    }
    pmt_spreads *spreads = self->is_estimate ? (pmt_spreads *)(void *)(rows + limit) : NULL;
    uint32_t used = 0;
    for (size_t i = 0; i < self->rows.len; i++) {
        const pmt_row *row = &self->rows.data[i];
        uint32_t frame = native ? row->frame : pmt_reader_blamed_frame(reader, row->stack);
        uint32_t *place = &places[pmt__frame_place(reader, frame)];
        if (*place == 0) {
            /* Rows come the heaviest first, so the first stack of a location is its heaviest. */
            rows[used] = (pmt_row){.stack = row->stack, .frame = frame};
            rows[used].spreads = spreads == NULL ? NULL : &spreads[used];
            *place = ++used;
        }
        pmt__value_add(&rows[*place - 1].value, &row->value);
        if (spreads != NULL) {
            pmt__spreads_add(&spreads[*place - 1], row->spreads);
        }
    }
    pmt__release(reader->allocator, places);
    pmt__rows_sort(rows, used);
    *out = rows;
    *count = count_shown(rows, used);
    return PMT_OK;
}

void
pmt_rows_release(const pmt_aggregate *self, pmt_row *rows)
{
    pmt__release(self->reader->allocator, rows);
}
