/* Exceptions for the library's error codes. */
#ifndef PMT_EXT_ERRORS_H
#define PMT_EXT_ERRORS_H

#include <Python.h>

#include "pymemtrace/error.h"

typedef struct {
    PyObject *base;           /* owned: PymemtraceError */
    PyObject *unsupported;    /* owned: UnsupportedError */
    PyObject *capture;        /* owned: CaptureError */
    PyObject *capture_exists; /* owned: CaptureExistsError */
} ext_errors;

/* Creates the exception types and adds them to the module. Returns 0, or -1 with an exception. */
int ext_errors_init(ext_errors *self, PyObject *module);
int ext_errors_traverse(ext_errors *self, visitproc visit, void *arg);
void ext_errors_clear(ext_errors *self);

/* Raises the exception that fits err->code. Always returns NULL, to be returned by the caller. */
PyObject *ext_errors_raise(const ext_errors *self, const pmt_error *err);

#endif
