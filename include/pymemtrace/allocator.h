/* Where the reading side takes its memory from. (Recording does not use this: it has page memory of
   its own.) */
#ifndef PYMEMTRACE_ALLOCATOR_H
#define PYMEMTRACE_ALLOCATOR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* resize behaves like realloc: block NULL allocates; size is never 0; NULL on failure leaves the old
   block as it was. release accepts NULL. Both may be called from any thread. */
typedef struct pmt_allocator {
    void *(*resize)(void *context, void *block, size_t size);
    void (*release)(void *context, void *block);
    void *context;
} pmt_allocator;

/* malloc's memory. Borrowed; lives for ever. */
const pmt_allocator *pmt_allocator_default(void);

#ifdef __cplusplus
}
#endif
#endif
