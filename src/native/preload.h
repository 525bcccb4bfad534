/* What the preload library exports, for whoever loads it. Stands alone: the library includes nothing of the project but this and
   record/native_table.h. */
#ifndef PMT_NATIVE_PRELOAD_H
#define PMT_NATIVE_PRELOAD_H

#include <stddef.h>

#include "record/native_table.h"

typedef struct pmt__preload_function {
    const char *name;
    void **
        original; /* where the library keeps the function that it passes calls on to; NULL: it finds that itself */
    void *ours;
} pmt__preload_function;

#define PMT_PRELOAD_FUNCTIONS_MAX 32
#define PMT_PRELOAD_FUNCTIONS "pymemtrace_preload_functions"
typedef const pmt__preload_function *(*pmt__preload_functions)(size_t *count);

#endif
