/* Equal texts, frames and stacks once each, in the columns of a reader: while a capture is loaded, and where
   several are combined. */
#ifndef PMT_STORE_INTERN_H
#define PMT_STORE_INTERN_H

#include "base/index.h"
#include "store/store.h"

typedef struct pmt__interner {
    pmt_reader *reader; /* borrowed: where the columns are */
    pmt_error *err;     /* borrowed */
    pmt__index strings;
    pmt__index frames;
    pmt__index stacks;
} pmt__interner;

void pmt__interner_init(pmt__interner *self, pmt_reader *reader, pmt_error *err);
void pmt__interner_dispose(pmt__interner *self);
/* Gives empty columns what every reader has: the empty text, the root of the stacks, site 0, which is not used. */
int pmt__interner_begin(pmt__interner *self);

/* All of these return PMT_OK, PMT_ERR_NOMEM or PMT_ERR_LIMIT, and *out is the place. */
/* The text may not lie in the reader's pool. */
int pmt__intern_string(pmt__interner *self, const char *text, size_t len, uint32_t *out);
/* Frames are equal if function, file, line and kind are, and native ones if the name of their object is too; the rest of the first
   one stays. */
int pmt__intern_frame(pmt__interner *self, const pmt__frame *frame, uint32_t *out);
int pmt__intern_stack(pmt__interner *self, uint32_t parent, uint32_t frame, uint32_t *out);

#endif
