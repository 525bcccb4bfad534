/* The one place where the library's codes become Python exceptions. */
#include "errors.h"

#include <errno.h>

static int
add_exception(PyObject *module, PyObject **slot, const char *qualified_name, const char *doc,
              PyObject *bases)
{
    *slot = PyErr_NewExceptionWithDoc(qualified_name, doc, bases, NULL);
    if (*slot == NULL) {
        return -1;
    }
    return PyModule_AddType(module, (PyTypeObject *)*slot);
}

int
ext_errors_init(ext_errors *self, PyObject *module)
{
    if (add_exception(module, &self->base, "pymemtrace.PymemtraceError",
                      "Base class of what PyMemTrace raises.", NULL)
        < 0) {
        return -1;
    }
    if (add_exception(module, &self->unsupported, "pymemtrace.UnsupportedError",
                      "Not possible with this interpreter or on this system.", self->base)
        < 0) {
        return -1;
    }
    if (add_exception(module, &self->capture, "pymemtrace.CaptureError",
                      "The input is no capture, is damaged, or is of a newer version.", self->base)
        < 0) {
        return -1;
    }
    return add_exception(module, &self->capture_exists, "pymemtrace.CaptureExistsError",
                         "The output exists and would be overwritten.", self->base);
}

int
ext_errors_traverse(ext_errors *self, visitproc visit, void *arg)
{
    Py_VISIT(self->base);
    Py_VISIT(self->unsupported);
    Py_VISIT(self->capture);
    Py_VISIT(self->capture_exists);
    return 0;
}

void
ext_errors_clear(ext_errors *self)
{
    Py_CLEAR(self->base);
    Py_CLEAR(self->unsupported);
    Py_CLEAR(self->capture);
    Py_CLEAR(self->capture_exists);
}

PyObject *
ext_errors_raise(const ext_errors *self, const pmt_error *err)
{
    PyObject *type = self->base;
    switch (err->code) {
    case PMT_ERR_NOMEM:
        return PyErr_NoMemory();
    case PMT_ERR_ARGUMENT:
        type = PyExc_ValueError;
        break;
    case PMT_ERR_IO: {
        /* OSError(errno, text) picks FileNotFoundError, PermissionError and so on. */
        PyObject *args = Py_BuildValue("(is)", err->sys_errno, err->message);
        if (args != NULL) {
            PyErr_SetObject(PyExc_OSError, args);
            Py_DECREF(args);
        }
        return NULL;
    }
    case PMT_ERR_NOT_CAPTURE:
    case PMT_ERR_DAMAGED:
    case PMT_ERR_VERSION:
        type = self->capture;
        break;
    case PMT_ERR_EXISTS:
        type = self->capture_exists;
        break;
    case PMT_ERR_UNSUPPORTED:
        type = self->unsupported;
        break;
    default:
        break;
    }
    PyErr_SetString(type, err->message);
    return NULL;
}
