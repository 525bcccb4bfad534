/* pymemtrace._core: converts between Python objects and the C library, and decides nothing. */
#include <Python.h>

#include "cpython/frames.h"
#include "errors.h"

typedef struct {
    ext_errors errors;
} module_state;

static module_state *
get_state(PyObject *module)
{
    return (module_state *)PyModule_GetState(module); /* borrowed */
}

static PyObject *
core_is_recording(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    Py_RETURN_FALSE;
}

static PyMethodDef core_methods[] = {
    {"is_recording", core_is_recording, METH_NOARGS, "Whether this process is being recorded."},
    {NULL, NULL, 0, NULL},
};

static int
core_exec(PyObject *module)
{
    module_state *state = get_state(module);
    if (ext_errors_init(&state->errors, module) < 0) {
        return -1;
    }
    if (PyModule_AddStringConstant(module, "version", PMT_VERSION) < 0) {
        return -1;
    }
    return 0;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    return ext_errors_traverse(&get_state(module)->errors, visit, arg);
}

static int
core_clear(PyObject *module)
{
    ext_errors_clear(&get_state(module)->errors);
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
    .m_size = (Py_ssize_t)sizeof(module_state),
    .m_methods = core_methods,
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
