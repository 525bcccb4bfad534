/* The chunks SYMB of a capture: what native places are in the source code. docs/format.md describes them. */
#ifndef PMT_STORE_SYMBOLS_H
#define PMT_STORE_SYMBOLS_H

#include "store/intern.h"
#include "store/store.h"

#define PMT_SYMBOL_FRAMES_MAX 1024u /* of one place */

typedef struct pmt__symbol_frame {
    uint32_t function; /* strings of the reader */
    uint32_t file;
    int64_t line;
} pmt__symbol_frame;

/* An address of an object, and its frames, the innermost first. */
typedef struct pmt__symbol {
    uint32_t object; /* string of the reader */
    uint64_t offset;
    size_t frames_at;
    size_t frame_count; /* 0: it was looked for and not found */
} pmt__symbol;

typedef struct pmt__symbols {
    const pmt_allocator *allocator; /* borrowed */
    PMT__VEC(pmt__symbol) places;
    PMT__VEC(pmt__symbol_frame) frames;
    pmt__index index; /* of places */
} pmt__symbols;

void pmt__symbols_init(pmt__symbols *self, const pmt_allocator *allocator);
void pmt__symbols_dispose(pmt__symbols *self);

/* Reads a payload; what it says of a place replaces what was known. Its texts are interned. */
int pmt__symbols_load(pmt__symbols *self, const pmt__chunk *chunk, pmt__interner *intern,
                      pmt_error *err);
/* NULL if nothing is known of the place. Borrowed until more is loaded. */
const pmt__symbol *pmt__symbols_find(const pmt__symbols *self, uint32_t object, uint64_t offset);

#endif
