/* CPython's location table: from the offset of an instruction to the source line. */
#ifndef PMT_MODEL_LOCATION_H
#define PMT_MODEL_LOCATION_H

#include <stddef.h>
#include <stdint.h>

/* The line of the instruction at `offset` bytes from the start of the bytecode, or 0 if the table
   gives none (or is malformed: it comes from a capture and is not trusted).

   table is co_linetable of CPython 3.11 or newer, of `size` bytes; first_line is co_firstlineno. */
int64_t pmt__location_line(const uint8_t *table, size_t size, int64_t first_line, uint64_t offset);

#endif
