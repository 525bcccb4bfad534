/* The areas of a process as /proc/PID/smaps tells them, parsed line by line without any memory but the parser's own: the recorder
   reads them inside the traced process, `pymemtrace where PID` from outside.

   Names come from the process (a mapped file may be called anything), so the text is not trusted: whatever it holds, an area
   that is given out has start < end, and sizes do not overflow. Lines that are not understood are passed over. */
#ifndef PMT_PLATFORM_SMAPS_H
#define PMT_PLATFORM_SMAPS_H

#include <stddef.h>
#include <stdint.h>

typedef enum pmt__area_kind {
    PMT_AREA_ANONYMOUS,  /* private memory without a file, whatever it is called */
    PMT_AREA_HEAP,       /* the program break: glibc's main heap */
    PMT_AREA_MAIN_STACK, /* of the first thread */
    PMT_AREA_KERNEL,     /* [vdso], [vvar], [vsyscall] … */
    PMT_AREA_FILE,       /* also of shared memory that is mapped privately */
    PMT_AREA_SHARED /* anonymous and shared: memfd, /dev/shm, System V, MAP_SHARED | MAP_ANONYMOUS */
} pmt__area_kind;

enum {
    PMT_AREA_READABLE = 1,
    PMT_AREA_WRITABLE = 2,
    PMT_AREA_EXECUTABLE = 4,
    PMT_AREA_IS_SHARED = 8, /* MAP_SHARED */
    PMT_AREA_IS_OWN = 16    /* named "pymemtrace" by pmt__pages_map */
};

/* Sizes in bytes. */
typedef struct pmt__area {
    uint64_t start, end;
    uint64_t rss_bytes;
    uint64_t pss_bytes; /* each page divided by the processes that map it */
    uint64_t
        anonymous_bytes; /* resident pages that have no file: written copies in private mappings */
    uint64_t shared_bytes; /* resident pages that other processes map too */
    uint64_t swap_bytes;
    uint8_t kind;  /* pmt__area_kind */
    uint8_t flags; /* PMT_AREA_* */
} pmt__area;

#define PMT_SMAPS_LINE 256 /* of longer lines only this much counts: the rest is a file's name */

typedef struct pmt__smaps {
    pmt__area area;
    int open; /* `area` has begun */
    size_t len;
    char line[PMT_SMAPS_LINE];
} pmt__smaps;

void pmt__smaps_init(pmt__smaps *self);
/* Takes text until an area is complete. 1: it is in *out, and *used bytes of the text were taken; call again with the rest.
   0: all bytes were taken. */
int pmt__smaps_take(pmt__smaps *self, const char *text, size_t size, size_t *used, pmt__area *out);
/* The end of the text: 1 as long as there are areas. */
int pmt__smaps_end(pmt__smaps *self, pmt__area *out);

#endif
