/* Aggregates in the formats of other programs and of the flame graph report. */
#ifndef PMT_RENDER_RENDER_H
#define PMT_RENDER_RENDER_H

#include "analyze/aggregate.h"

/* All of these append to out; PMT_ERR_NOMEM, or the error of the analysis behind them.
   inverted: stacks with the innermost frame first. */

/* One line per stack, "frame;frame;frame bytes": Brendan Gregg's format for flamegraph.pl. A frame is
   "function (module:line)", with the file's last part where it has no module; semicolons and line breaks in names
   are replaced. Frames are most of such a file: with whole paths it is several times as large. */
int pmt__render_collapsed(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                          pmt_error *err);
/* The same with "function (file:line)". */
int pmt__render_collapsed_paths(pmt__text_buffer *out, const pmt_aggregate *aggregate,
                                bool inverted, pmt_error *err);

/* https://www.speedscope.app/file-format-schema.json: two profiles, bytes and blocks. */
int pmt__render_speedscope(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                           pmt_error *err);

/* profile.proto of github.com/google/pprof, not compressed. Sample types as Go's heap profiles have
   them: alloc_objects, alloc_space, inuse_objects, inuse_space. In use is what lives at the peak in the
   peak view and at the end in the others; allocated are the temporaries in the temporary view and all
   else. */
int pmt__render_pprof(pmt__text_buffer *out, const pmt_aggregate *aggregate, pmt_error *err);

/* RFC 4180 with a header line: bytes, blocks, allocated_bytes, allocations, function, file, line,
   module, stack (as in the collapsed format with paths, the innermost frame first unless inverted); of
   several captures also process_PID for each: its part of the bytes. */
int pmt__render_csv(pmt__text_buffer *out, const pmt_aggregate *aggregate, bool inverted,
                    pmt_error *err);

/* The container of docs/flame-data.md. head is a JSON object with the keys of the header that do not
   come from the aggregate (title, captures, view, inverted, t_start …). */
int pmt__render_flame(pmt__text_buffer *out, const pmt_aggregate *aggregate, pmt_string head,
                      pmt_error *err);

#endif
