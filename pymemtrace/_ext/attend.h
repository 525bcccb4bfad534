/* What a process does that `pymemtrace attach` or `detach` has reached. */
#ifndef PMT_EXT_ATTEND_H
#define PMT_EXT_ATTEND_H

#include <Python.h>

PyObject *ext_attend(PyObject *module, PyObject *folder);

/* Found by name, in the extension that the process was made to load (cli/_inject.py). The first one is for the main thread with the GIL:
   a pending call. The second is for a thread that was on its way back from a system call, and must get away at once: it starts a
   thread, which waits for the GIL as any thread does. */
#define EXT_EXPORT __attribute__((visibility("default")))
EXT_EXPORT void pymemtrace_attend(const char *folder);
EXT_EXPORT void pymemtrace_attend_soon(const char *folder);

/* Where the command puts the names of folders once the extension is there. */
extern EXT_EXPORT char pymemtrace_attend_names[64][64];

#define EXT_ATTEND_DOC                                                                         \
    "Takes the request in a folder of cli/_control.py, if somebody still waits for it, does\n" \
    "what it says and leaves the answer there. Raises nothing."

#endif
