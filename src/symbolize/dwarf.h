/* From addresses of an ELF file to lines of source code, by libbacktrace. */
#ifndef PMT_SYMBOLIZE_DWARF_H
#define PMT_SYMBOLIZE_DWARF_H

#include <stddef.h>
#include <stdint.h>

typedef struct pmt__dwarf pmt__dwarf;

typedef struct pmt__source_frame {
    const char *function; /* borrowed from the file; NULL: not known; may be mangled */
    const char *file;     /* likewise */
    int line;             /* 0: not known */
} pmt__source_frame;

/* Of the file with this path, which lives as long; NULL: out of memory. */
pmt__dwarf *pmt__dwarf_open(const char *path);
/* The frames of the instruction at this address of the file, the innermost first: at most `room` of them. What is
   wrong with the file's data is no error: then there are none. */
size_t pmt__dwarf_find(pmt__dwarf *self, uint64_t address, pmt__source_frame *out, size_t room);

#endif
