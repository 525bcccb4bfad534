/* What a process does that `pymemtrace attach` or `detach` has reached. */
#ifndef PMT_EXT_ATTEND_H
#define PMT_EXT_ATTEND_H

#include <Python.h>

PyObject *ext_attend(PyObject *module, PyObject *folder);

#define EXT_ATTEND_DOC                                                                         \
    "Takes the request in a folder of cli/_control.py, if somebody still waits for it, does\n" \
    "what it says and leaves the answer there. Raises nothing."

#endif
