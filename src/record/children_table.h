/* What the interposer of exec and _exit calls, and what the recorder gives it: the second contract between the preloaded library and
   the recorder (the first is native_table.h).

   The functions may be called by any thread, with or without the GIL, in a signal handler, and in a child by vfork, which runs in its
   parent's memory. None of them allocates with malloc or waits for the GIL. */
#ifndef PMT_RECORD_CHILDREN_TABLE_H
#define PMT_RECORD_CHILDREN_TABLE_H

#include <stdint.h>

#define PMT_CHILDREN_TABLE_VERSION 1

typedef struct pmt__children_table {
    unsigned version;
    /* The process that is recorded, 0: none. In a child by vfork it is not the calling one. */
    uint64_t (*process)(void);
    /* For a program that the calling process executes (itself: in its own place): whose child it is, and how often its process will have
       executed itself under recording. */
    void (*origin)(int itself, uint64_t *parent, uint64_t *generation);
    /* _exit() follows. */
    void (*exiting)(void);
    /* exec follows. 1: exec_failed must be called if it comes back. */
    int (*exec_begin)(void);
    void (*exec_failed)(void);
} pmt__children_table;

/* Exported by the preloaded library: gives it the table. words: what a Python that is executed must know to record itself (see
   native/exec.c), copied; NULL: children are not followed through exec. */
#define PMT_PRELOAD_CHILDREN "pymemtrace_preload_children"
typedef void (*pmt__preload_children)(const pmt__children_table *table, const char *words);

#endif
