#ifndef PMT_EXT_PRESSURE_H
#define PMT_EXT_PRESSURE_H

#include <Python.h>

#include "pymemtrace/reader.h"

/* The body of Reader.pressure. New reference or NULL. */
PyObject *ext_pressure(const pmt_reader *reader, PyObject *args, PyObject *kwargs);

#endif
