#include "attach.h"

#include <errno.h>

#include "cpython/pending.h"
#include "platform/tracee.h"

PyObject *
ext_attach_layout(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *result = PyDict_New();
    for (const pmt__layout_item *it = pmt__cpython_layout(); result != NULL && it->name != NULL;
         it++) {
        PyObject *offset = PyLong_FromSize_t(it->offset);
        if (offset == NULL || PyDict_SetItemString(result, it->name, offset) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(offset);
    }
    return result;
}

/* bytes or None; 0, or -1 with an exception. The sizes of one part's must agree. */
static int
part_bytes(PyObject *object, const void **bytes, size_t *size)
{
    if (object == Py_None) {
        return 0;
    }
    if (!PyBytes_Check(object) || (*size != 0 && *size != (size_t)PyBytes_GET_SIZE(object))) {
        PyErr_SetString(PyExc_ValueError, "a part has bytes of one size, or None");
        return -1;
    }
    *bytes = PyBytes_AS_STRING(object); /* borrowed from the argument */
    *size = (size_t)PyBytes_GET_SIZE(object);
    return 0;
}

/* To be freed with PyMem_Free; NULL with an exception. */
static pmt__exchange *
parts_get(PyObject *tuple)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    pmt__exchange *parts = PyMem_Calloc((size_t)count + 1, sizeof *parts);
    if (parts == NULL) {
        return (pmt__exchange *)PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        unsigned long long address;
        PyObject *expected, *bytes; /* borrowed */
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(tuple, i), "KOO:part", &address, &expected, &bytes)
            || part_bytes(expected, &parts[i].expected, &parts[i].size) < 0
            || part_bytes(bytes, &parts[i].bytes, &parts[i].size) < 0) {
            PyMem_Free(parts);
            return NULL;
        }
        parts[i].address = address;
    }
    return parts;
}

static PyObject *
answer(int rc, uint64_t held_ns)
{
    if (rc < 0) {
        errno = -rc;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (rc == PMT_TRACEE_OTHER) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)held_ns / 1e9);
}

PyObject *
ext_attach_exchange(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long pid;
    PyObject *tuple;
    double timeout_s;
    if (!PyArg_ParseTuple(args, "KO!d:attach_exchange", &pid, &PyTuple_Type, &tuple, &timeout_s)) {
        return NULL;
    }
    pmt__exchange *parts = parts_get(tuple);
    if (parts == NULL) {
        return NULL;
    }
    uint64_t held_ns = 0;
    const int rc = pmt__tracee_exchange(pid, parts, (size_t)PyTuple_GET_SIZE(tuple),
                                        (uint64_t)(timeout_s * 1e9), &held_ns);
    PyMem_Free(parts);
    return answer(rc, held_ns);
}

PyObject *
ext_attach_divert(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long pid, thread, number, stack, next, to, argument;
    PyObject *tuple;
    double timeout_s;
    if (!PyArg_ParseTuple(args, "K(KKKK)KKO!d:attach_divert", &pid, &thread, &number, &stack, &next,
                          &to, &argument, &PyTuple_Type, &tuple, &timeout_s)) {
        return NULL;
    }
    pmt__exchange *parts = parts_get(tuple);
    if (parts == NULL) {
        return NULL;
    }
    const pmt__waiting waiting = {thread, number, stack, next};
    uint64_t held_ns = 0;
    const int rc =
        pmt__tracee_divert(pid, &waiting, to, argument, parts, (size_t)PyTuple_GET_SIZE(tuple),
                           (uint64_t)(timeout_s * 1e9), &held_ns);
    PyMem_Free(parts);
    return answer(rc, held_ns);
}
