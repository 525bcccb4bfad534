/* Whether the C library's allocator can be recorded in this process, and how. */
#ifndef PMT_NATIVE_CONNECT_H
#define PMT_NATIVE_CONNECT_H

#include "record/native_table.h"

/* Gives the preload library its table; NULL takes it away. Where the library was not preloaded, it is loaded from this path and the
   objects of the process are patched (patch.h); library NULL: they are not. Returns how the native layer works now, as the fact
   `native_layer` has it: "preload", "patch" or "none". */
const char *pmt__native_connect(const pmt__native_table *table, const char *library);
/* An address in the library, wherever it was loaded from; NULL: it is not there. */
const void *pmt__native_library(void);

#endif
