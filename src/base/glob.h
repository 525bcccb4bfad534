/* Shell patterns: `*` any run of bytes, `?` any one byte, `[abc]`, `[a-z]`, `[!abc]`, as in Python's
   fnmatch.fnmatchcase: no character is special in the text, `/` included. */
#ifndef PMT_BASE_GLOB_H
#define PMT_BASE_GLOB_H

#include <stdbool.h>
#include <stddef.h>

bool pmt__glob_match(const char *pattern, const char *text, size_t text_len);

#endif
