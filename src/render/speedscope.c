#include "render/render.h"

#include "base/error.h"
#include "render/text.h"

static void
put_frames(pmt__text_buffer *out, const pmt_reader *reader)
{
    pmt__text_put_char(out, '[');
    for (size_t i = 0; i < reader->frames.len; i++) {
        pmt_frame frame = pmt_reader_frame(reader, (uint32_t)i);
        pmt__text_put_c(out, i == 0 ? "{\"name\":" : ",\n{\"name\":");
        pmt__put_json(out, frame.function);
        if (frame.file.len != 0) {
            pmt__text_put_c(out, ",\"file\":");
            pmt__put_json(out, frame.file);
        }
        if (frame.line > 0) {
            pmt__text_put_c(out, ",\"line\":");
            pmt__put_i64(out, frame.line);
        }
        pmt__text_put_char(out, '}');
    }
    pmt__text_put_char(out, ']');
}

static uint64_t
weight_of(const pmt_row *row, bool bytes)
{
    return bytes ? row->value.bytes : row->value.blocks;
}

static void
put_profile(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted, bool bytes)
{
    const pmt_reader *reader = aggregate->reader;
    const pmt_row *rows;
    size_t count = pmt_aggregate_stacks(aggregate, &rows);
    pmt__path path = {.allocator = reader->allocator};
    pmt__text_put_c(out, bytes ? "{\"type\":\"sampled\",\"name\":\"bytes\",\"unit\":\"bytes\","
                               : "{\"type\":\"sampled\",\"name\":\"blocks\",\"unit\":\"none\",");
    pmt__text_put_c(out, "\"startValue\":0,\"endValue\":");
    pmt__text_put_u64(out, bytes ? aggregate->total.bytes : aggregate->total.blocks);
    pmt__text_put_c(out, ",\n\"samples\":[");
    for (size_t i = 0; i < count; i++) {
        if (!pmt__path_set(&path, reader, rows[i].stack)) {
            out->failed = true;
            break;
        }
        pmt__text_put_c(out, i == 0 ? "[" : ",\n[");
        size_t depth = path.frames.len;
        for (size_t n = 0; n < depth; n++) {
            if (n != 0) {
                pmt__text_put_char(out, ',');
            }
            pmt__text_put_u64(out, path.frames.data[inverted ? n : depth - 1 - n]);
        }
        pmt__text_put_char(out, ']');
    }
    pmt__text_put_c(out, "],\n\"weights\":[");
    for (size_t i = 0; i < count; i++) {
        if (i != 0) {
            pmt__text_put_char(out, ',');
        }
        pmt__text_put_u64(out, weight_of(&rows[i], bytes));
    }
    pmt__text_put_c(out, "]}");
    pmt__path_dispose(&path);
}

int
pmt__render_speedscope(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                       pmt_error *err)
{
    static const char *const names[] = {"", "peak", "leaks", "total", "temporary"};
    pmt__text_put_c(out, "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\","
                         "\"exporter\":\"pymemtrace\",\"name\":\"");
    pmt__text_put_c(out, names[aggregate->view]);
    pmt__text_put_c(out, "\",\"activeProfileIndex\":0,\n\"shared\":{\"frames\":");
    put_frames(out, aggregate->reader);
    pmt__text_put_c(out, "},\n\"profiles\":[");
    put_profile(out, aggregate, inverted, true);
    pmt__text_put_c(out, ",\n");
    put_profile(out, aggregate, inverted, false);
    pmt__text_put_c(out, "]}\n");
    return pmt__text_result(out, err);
}
