/* Pieces that several formats share. */
#ifndef PMT_RENDER_TEXT_H
#define PMT_RENDER_TEXT_H

#include "analyze/aggregate.h"

/* Appends the text as valid UTF-8: what is not becomes U+FFFD. */
void pmt__put_utf8(pmt__text_buffer *out, pmt_string text);
/* Appends a JSON string with its quotes; surrogates become \uXXXX, other invalid bytes \ufffd. */
void pmt__put_json(pmt__text_buffer *out, pmt_string text);
void pmt__put_i64(pmt__text_buffer *out, int64_t value);
/* Seconds with nine decimals. */
void pmt__put_seconds(pmt__text_buffer *out, uint64_t ns);
/* "function (file:line)", without what is not known; `;` and control characters are replaced. */
void pmt__put_frame(pmt__text_buffer *out, const pmt_frame *frame);
/* "function (module:line)". */
void pmt__put_short_frame(pmt__text_buffer *out, const pmt_frame *frame);

/* The frames of a stack, the innermost first, in *frames, which grows as needed. */
typedef struct pmt__path {
    const pmt_allocator *allocator; /* borrowed */
    PMT__VEC(uint32_t) frames;      /* owned */
} pmt__path;
bool pmt__path_set(pmt__path *self, const pmt_reader *reader, uint32_t stack);
void pmt__path_dispose(pmt__path *self);

int pmt__text_result(const pmt__text_buffer *out, pmt_error *err);

#endif
