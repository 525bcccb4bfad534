/* The formats that write a stack as one line of text: collapsed and csv. */
#include "render/render.h"

#include "analyze/combine.h"
#include "base/error.h"
#include "render/text.h"

static void
put_stack(pmt__text_buffer *out, const pmt_reader *reader, const pmt__path *path,
          bool outermost_first, bool full_paths)
{
    size_t count = path->frames.len;
    for (size_t i = 0; i < count; i++) {
        size_t at = outermost_first ? count - 1 - i : i;
        pmt_frame frame = pmt_reader_frame(reader, path->frames.data[at]);
        if (i != 0) {
            pmt__text_put_char(out, ';');
        }
        if (full_paths) {
            pmt__put_frame(out, &frame);
        } else {
            pmt__put_short_frame(out, &frame);
        }
    }
}

static int
render_collapsed(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                 bool full_paths, pmt_error *err)
{
    const pmt_reader *reader = aggregate->reader;
    pmt__path path = {.allocator = reader->allocator};
    const pmt_row *rows;
    size_t count = pmt_aggregate_stacks(aggregate, &rows);
    for (size_t i = 0; i < count; i++) {
        if (!pmt__path_set(&path, reader, rows[i].stack)) {
            out->failed = true;
            break;
        }
        if (path.frames.len == 0) {
            pmt__text_put_c(out, "[no stack]");
        }
        put_stack(out, reader, &path, !inverted, full_paths);
        pmt__text_put_char(out, ' ');
        pmt__text_put_u64(out, rows[i].value.bytes);
        pmt__text_put_char(out, '\n');
    }
    pmt__path_dispose(&path);
    return pmt__text_result(out, err);
}

int
pmt__render_collapsed(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                      pmt_error *err)
{
    return render_collapsed(out, aggregate, inverted, false, err);
}

int
pmt__render_collapsed_paths(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                            pmt_error *err)
{
    return render_collapsed(out, aggregate, inverted, true, err);
}

/* Moves a field over, in quotes if it needs them. */
static void
put_field(pmt__text_buffer *out, pmt__text_buffer *field)
{
    bool quote = false;
    for (size_t i = 0; i < field->len; i++) {
        char c = field->data[i];
        quote = quote || c == '"' || c == ',' || c == '\n' || c == '\r';
    }
    if (quote) {
        pmt__text_put_char(out, '"');
    }
    for (size_t i = 0; i < field->len; i++) {
        if (field->data[i] == '"') {
            pmt__text_put_char(out, '"');
        }
        pmt__text_put_char(out, field->data[i]);
    }
    if (quote) {
        pmt__text_put_char(out, '"');
    }
    field->len = 0;
}

/* Of several captures: a column for each process. */
static void
put_processes(pmt__text_buffer *out, const pmt__combination *of)
{
    for (size_t i = 0; of != NULL && i < of->count; i++) {
        pmt_capture capture;
        pmt_reader_capture(of->parts[i].reader, &capture);
        pmt__text_put_c(out, ",process_");
        pmt__text_put_u64(out, capture.pid);
    }
    pmt__text_put_char(out, '\n');
}

/* Its numbers; bytes: scratch, one for each process. */
static void
put_bytes_by_capture(pmt__text_buffer *out, const pmt_aggregate *aggregate, const pmt_row *row,
                     uint64_t *bytes)
{
    if (aggregate->combination != NULL) {
        pmt_aggregate_stacks_by_capture(aggregate, row, 1, bytes);
        for (size_t i = 0; i < aggregate->combination->count; i++) {
            pmt__text_put_char(out, ',');
            pmt__text_put_u64(out, bytes[i]);
        }
    }
    pmt__text_put_char(out, '\n');
}

static const char *const estimate_columns =
    ",bytes_low,bytes_high,blocks_low,blocks_high,allocated_bytes_low,allocated_bytes_high,"
    "allocations_low,allocations_high,samples";

/* Where values are estimates: the limits of their 95 % intervals, and what the view's rest on. */
static void
put_limits(pmt__text_buffer *out, const pmt_row *row)
{
    const pmt_value *value = &row->value;
    const pmt_spread *view = &row->spreads->view, *all = &row->spreads->allocated;
    const struct {
        uint64_t estimate, sure;
        double variance;
    } estimates[] = {
        {value->bytes, view->sure_bytes, view->bytes2},
        {value->blocks, view->sure_blocks, view->blocks2},
        {value->allocated_bytes, all->sure_bytes, all->bytes2},
        {value->allocations, all->sure_blocks, all->blocks2},
    };
    for (size_t i = 0; i < sizeof estimates / sizeof *estimates; i++) {
        uint64_t limits[2];
        pmt_interval(estimates[i].estimate, estimates[i].sure, estimates[i].variance, &limits[0],
                     &limits[1]);
        for (size_t n = 0; n < 2; n++) {
            pmt__text_put_char(out, ',');
            pmt__text_put_u64(out, limits[n]);
        }
    }
    pmt__text_put_char(out, ',');
    pmt__text_put_u64(out, view->samples);
}

int
pmt__render_csv(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                pmt_error *err)
{
    const pmt_reader *reader = aggregate->reader;
    pmt__path path = {.allocator = reader->allocator};
    pmt__text_buffer field;
    pmt__text_init(&field, reader->allocator);
    pmt__text_put_c(out,
                    "bytes,blocks,allocated_bytes,allocations,function,file,line,module,stack");
    if (aggregate->is_estimate) {
        pmt__text_put_c(out, estimate_columns);
    }
    put_processes(out, aggregate->combination);
    uint64_t *bytes =
        pmt__alloc_zeroed(reader->allocator, pmt_aggregate_capture_count(aggregate), sizeof *bytes);
    out->failed = out->failed || bytes == NULL;
    const pmt_row *rows;
    size_t count = pmt_aggregate_stacks(aggregate, &rows);
    for (size_t i = 0; i < count && bytes != NULL; i++) {
        const pmt_value *value = &rows[i].value;
        const uint64_t numbers[] = {value->bytes, value->blocks, value->allocated_bytes,
                                    value->allocations};
        for (size_t n = 0; n < 4; n++) {
            pmt__text_put_u64(out, numbers[n]);
            pmt__text_put_char(out, ',');
        }
        pmt_frame frame = {{"", 0}, {"", 0}, {"", 0}, 0, 0, 0, {"", 0}};
        if (rows[i].stack != 0) {
            frame = pmt_reader_frame(reader, pmt_reader_blamed_frame(reader, rows[i].stack));
        }
        pmt__put_utf8(&field, frame.function);
        put_field(out, &field);
        pmt__text_put_char(out, ',');
        pmt__put_utf8(&field, frame.file);
        put_field(out, &field);
        pmt__text_put_char(out, ',');
        pmt__put_i64(out, frame.line);
        pmt__text_put_char(out, ',');
        pmt__put_utf8(&field, frame.module);
        put_field(out, &field);
        pmt__text_put_char(out, ',');
        if (!pmt__path_set(&path, reader, rows[i].stack)) {
            out->failed = true;
            break;
        }
        put_stack(&field, reader, &path, inverted, true);
        put_field(out, &field);
        if (aggregate->is_estimate) {
            put_limits(out, &rows[i]);
        }
        put_bytes_by_capture(out, aggregate, &rows[i], bytes);
    }
    out->failed = out->failed || field.failed;
    pmt__text_dispose(&field);
    pmt__release(reader->allocator, bytes);
    pmt__path_dispose(&path);
    return pmt__text_result(out, err);
}
