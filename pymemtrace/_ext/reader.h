/* The types Reader and Aggregate of pymemtrace._core. */
#ifndef PMT_EXT_READER_H
#define PMT_EXT_READER_H

#include <Python.h>

/* Adds the types to the module and to its state. 0, or -1 with an exception set. */
int ext_reader_add(PyObject *module);

#endif
