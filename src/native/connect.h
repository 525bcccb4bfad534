/* Whether the C library's allocator can be recorded in this process, and how. */
#ifndef PMT_NATIVE_CONNECT_H
#define PMT_NATIVE_CONNECT_H

#include "record/native_table.h"

/* Gives the preloaded library its table (NULL: takes it away). 1, or 0 if the library is not in this process. */
int pmt__native_connect(const pmt__native_table *table);

#endif
