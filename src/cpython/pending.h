/* The queue of pending calls: what the main thread is asked to do at its next safe point. */
#ifndef PMT_CPYTHON_PENDING_H
#define PMT_CPYTHON_PENDING_H

#include <stddef.h>

/* Py_AddPendingCall, from any thread, so that the main thread looks at it soon. */
void pmt__cpython_call_soon(int (*function)(void *));

typedef struct pmt__layout_item {
    const char *name; /* <structure>.<field>, and calls.… */
    size_t offset;
} pmt__layout_item;

/* Where another process of this version has its queue, and what shows that it does. Ends with a NULL name; empty for versions and
   builds that cannot be recorded. */
const pmt__layout_item *pmt__cpython_layout(void);

#endif
