/* Where the debug information of an object is that does not hold it itself. */
#ifndef PMT_SYMBOLIZE_DEBUG_FILE_H
#define PMT_SYMBOLIZE_DEBUG_FILE_H

#include "symbolize/object.h"

/* Opens the debug file of an object: `given` if that is not NULL, else the one of its build id below one of the
   folders (separated by colons), else the one of its .gnu_debuglink, beside it, in .debug, or below the folders. One that
   is not of this object (by its build id, or else its checksum) is passed over. Returns its path, which is the caller's to
   free, or NULL if there is none. */
char *pmt__debug_file_open(pmt__object *out, const pmt__object *object, const char *folders,
                           const char *given);

#endif
