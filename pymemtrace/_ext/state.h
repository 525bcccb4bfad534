/* What belongs to one instance of the module pymemtrace._core. */
#ifndef PMT_EXT_STATE_H
#define PMT_EXT_STATE_H

#include <Python.h>

#include "errors.h"

typedef struct ext_state {
    ext_errors errors;
    PyObject *reader_type;    /* owned, or NULL */
    PyObject *aggregate_type; /* owned, or NULL */
    PyObject *combined_type;  /* owned, or NULL */
    PyObject *events_type;    /* owned, or NULL */
} ext_state;

static inline ext_state *
ext_state_get(PyObject *module)
{
    return (ext_state *)PyModule_GetState(module);
}

/* ext_errors_raise for a method of a type of the module. Always returns NULL. */
static inline PyObject *
ext_raise(PyTypeObject *type, const pmt_error *err)
{
    const ext_state *state = (const ext_state *)PyType_GetModuleState(type);
    return state == NULL ? NULL : ext_errors_raise(&state->errors, err);
}

#endif
