/* Making Aggregate objects. */
#ifndef PMT_EXT_AGGREGATE_H
#define PMT_EXT_AGGREGATE_H

#include <Python.h>

#include "pymemtrace/reader.h"

extern PyType_Spec ext_aggregate_spec;

/* The body of Reader.aggregate: reader_object keeps `reader` alive. New reference or NULL. */
PyObject *ext_aggregate_new(PyTypeObject *type, PyObject *reader_object, const pmt_reader *reader,
                            PyObject *args, PyObject *kwargs);

#endif
