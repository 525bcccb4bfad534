/* pymemtrace._core: converts between Python objects and the C library, and decides nothing. */
#include <Python.h>

#include "cpython/recorder.h"
#include "errors.h"
#include "reader.h"
#include "recording.h"
#include "state.h"

static int
core_exec(PyObject *module)
{
    ext_state *state = ext_state_get(module);
    if (ext_errors_init(&state->errors, module) < 0) {
        return -1;
    }
    if (PyModule_AddStringConstant(module, "version", PMT_VERSION) < 0) {
        return -1;
    }
    return ext_reader_add(module);
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    ext_state *state = ext_state_get(module);
    Py_VISIT(state->reader_type);
    Py_VISIT(state->aggregate_type);
    Py_VISIT(state->combined_type);
    Py_VISIT(state->events_type);
    return ext_errors_traverse(&state->errors, visit, arg);
}

static int
core_clear(PyObject *module)
{
    ext_state *state = ext_state_get(module);
    Py_CLEAR(state->reader_type);
    Py_CLEAR(state->aggregate_type);
    Py_CLEAR(state->combined_type);
    Py_CLEAR(state->events_type);
    ext_errors_clear(&state->errors);
    return 0;
}

static void
core_free(void *module)
{
    (void)core_clear((PyObject *)module);
}

/* A slot carries a function as void *, which ISO C allows only through an integer. */
static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, (void *)(uintptr_t)core_exec},
#ifdef Py_mod_multiple_interpreters
    /* The allocator hooks are one per process. */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    /* Free-threaded builds may import the package: they refuse to record. */
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pymemtrace._core",
    .m_doc = "The C core of PyMemTrace.",
    .m_size = (Py_ssize_t)sizeof(ext_state),
    .m_methods = ext_recording_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void); /* for -Wmissing-prototypes */

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
