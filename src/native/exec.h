/* Between the files of the preloaded library. */
#ifndef PMT_NATIVE_EXEC_H
#define PMT_NATIVE_EXEC_H

#include <stddef.h>

/* The words come to an executed Python: a list KEY=VALUE, with PMT_WORD_END behind each. */
#define PMT_WORD_END '\x1f'

/* Memory that free() and realloc() know not to be the C library's, also by an address inside it. NULL: there is no more. */
void *pmt__preload_early(size_t size);

/* This process is a Python that was executed by a recorded one: it will record itself before it runs its program. parent: the process
   that did it; generation: see PMT_PRELOAD_CHILDREN. Before main. */
void pmt__preload_python_follow(const char *words, long parent, long generation);

#endif
