/* Children that come into being by exec, and ends of the process that pass Python by: through the preloaded library. */
#ifndef PMT_NATIVE_CHILDREN_H
#define PMT_NATIVE_CHILDREN_H

/* Tells the library, preloaded or loaded later, whom to call (record/children_table.h). words: only for a preloaded one. 1, or 0 if the
   library is not in this process. */
int pmt__native_children(const char *words);

#endif
