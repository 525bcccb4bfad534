/* The types Reader, Aggregate and Combined of pymemtrace._core. */
#ifndef PMT_EXT_READER_H
#define PMT_EXT_READER_H

#include <Python.h>

#include "analyze/stats.h"
#include "analyze/totals.h"
#include "pymemtrace/reader.h"

/* Adds the types to the module and to its state. 0, or -1 with an exception set. */
int ext_reader_add(PyObject *module);

/* The capture of a Reader, borrowed from it; NULL with an exception if it is none, or is not open. */
const pmt_reader *ext_reader_get(PyObject *module, PyObject *object);

/* Reader.info() of a Reader. New reference or NULL. */
PyObject *ext_reader_info(PyObject *reader);

/* Sets what Reader.totals() and Combined.totals() have in common. 0 or -1. */
int ext_totals_put(PyObject *dict, const pmt__totals *totals);
/* Likewise of stats(); threads are in `by_thread`, a list that is taken over. */
PyObject *ext_stats_make(const pmt__stats *stats, PyObject *by_thread);
PyObject *ext_thread_sums_make(const pmt__stats *stats, const pmt_reader *reader);

#endif
