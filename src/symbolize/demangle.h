/* Names of functions as their programmers know them. */
#ifndef PMT_SYMBOLIZE_DEMANGLE_H
#define PMT_SYMBOLIZE_DEMANGLE_H

#include <stdbool.h>
#include <stddef.h>

#define PMT_NAME_MAX 2048 /* a longer one is cut */

/* Is it a mangled name of C++ or Rust? */
bool pmt__is_mangled(const char *name);
/* Writes the name, demangled if it is a mangled one of C++ or Rust, else as it is, NUL-terminated. */
void pmt__demangle(char out[PMT_NAME_MAX + 1], const char *name);

#endif
