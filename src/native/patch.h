/* The native layer in a process that runs already: makes every loaded object call our functions instead of the C library's, also those of
   exec.c, so that the recorder knows of _exit and exec. */
#ifndef PMT_NATIVE_PATCH_H
#define PMT_NATIVE_PATCH_H

#include "pymemtrace/error.h"

/* Loads the preload library from this path and patches what is loaded now, each object once. The objects stay patched for ever:
   without a recorder the functions pass calls on. 0, or PMT_ERR_UNSUPPORTED with the reason. */
int pmt__native_patch(const char *library, pmt_error *err);

/* Patches what was loaded since. Cheap when nothing was. Any thread, without locks of the recorder. */
void pmt__native_patch_again(void);

/* The library's function of the name PMT_PRELOAD_CONNECT; NULL before pmt__native_patch. */
void *pmt__native_patched_connect(void);
/* That of the name PMT_PRELOAD_CHILDREN. */
void *pmt__native_patched_children(void);

/* How many objects and places were patched so far. */
void pmt__native_patch_counts(unsigned *objects, unsigned *places);

#endif
