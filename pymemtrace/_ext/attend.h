/* What a process does that `pymemtrace attach` or `detach` has reached. */
#ifndef PMT_EXT_ATTEND_H
#define PMT_EXT_ATTEND_H

#include <Python.h>

PyObject *ext_attend(PyObject *module, PyObject *folder);

/* Found by name, in the extension that the process was made to load (cli/_stub.py). The first one is for the main thread with the GIL: a
   pending call, hence the result, 0. The second is what a thread of our own does, which waits for the GIL as any thread. */
#define EXT_EXPORT __attribute__((visibility("default")))
EXT_EXPORT int pymemtrace_attend(void *folder);
EXT_EXPORT void *pymemtrace_attend_thread(void *folder);

/* Where the command puts the names of folders once the extension is there. */
extern EXT_EXPORT char pymemtrace_attend_names[64][64];

#define EXT_ATTEND_DOC                                                                         \
    "Takes the request in a folder of cli/_control.py, if somebody still waits for it, does\n" \
    "what it says and leaves the answer there. Raises nothing."

#endif
