/* What an interposer of the C library calls, and what the recorder gives it: the contract between the preloaded library, which
   knows nothing of Python and nothing of the recorder, and the hooks of one interpreter (src/cpython).

   Every function may be called by any thread at any time, with or without the GIL, before Python starts and after it has
   ended. None of them allocates, waits for the GIL, or changes errno. */
#ifndef PMT_RECORD_NATIVE_TABLE_H
#define PMT_RECORD_NATIVE_TABLE_H

#include <stddef.h>

#define PMT_NATIVE_TABLE_VERSION 2

typedef struct pmt__native_table {
    unsigned version;
    /* A block came from malloc or one of its relatives. */
    void (*allocated)(void *block, size_t size);
    /* It is about to be freed. Not NULL. */
    void (*freeing)(void *block);
    /* Calls real(old, size), where size is not 0, and notes what it did. */
    void *(*reallocate)(void *(*real)(void *, size_t), void *old, size_t size);
    /* Pages were mapped for the program's use as memory. */
    void (*mapped)(void *start, size_t size);
    /* They are about to be unmapped, or have been replaced: any part of any number of mappings. */
    void (*unmapping)(void *start, size_t size);
    /* A mapping has moved, grown or shrunk. Where old was no memory of the program's, nothing is noted. */
    void (*remapped)(void *old, size_t old_size, void *start, size_t size);
    /* A library may have been unloaded: other code can stand at its addresses from now on. */
    void (*unloaded)(void);
} pmt__native_table;

/* Exported by the preloaded library: gives it the table, or takes it away (NULL). Calls may be under way when it returns. */
#define PMT_PRELOAD_CONNECT "pymemtrace_preload_connect"
typedef void (*pmt__preload_connect)(const pmt__native_table *table);

#endif
