/* An extension around src/cpython/frames_unsupported.c: what a build for an unknown interpreter answers. */
#include <Python.h>

#include "cpython/recorder.h"

static PyObject *
answers(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    pmt_error check = PMT_ERROR_INIT, install = PMT_ERROR_INIT;
    int check_code = pmt__cpython_check(&check), install_code = pmt__cpython_install(0, &install);
    pmt__cpython_check_hooks();
    pmt__cpython_uninstall();
    return Py_BuildValue("isis", check_code, check.message, install_code, install.message);
}

static PyMethodDef methods[] = {{"answers", answers, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "refusing", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC
PyInit_refusing(void)
{
    return PyModule_Create(&module);
}
