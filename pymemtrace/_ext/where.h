/* Where the resident memory is. */
#ifndef PMT_EXT_WHERE_H
#define PMT_EXT_WHERE_H

#include <Python.h>

#include "pymemtrace/reader.h"
#include "state.h"

/* The bodies of Reader.where and Reader.where_timeline. New reference or NULL. */
PyObject *ext_where(const ext_state *state, const pmt_reader *reader, PyObject *args,
                    PyObject *kwargs);
PyObject *ext_where_timeline(const pmt_reader *reader);

/* where_process, a function of the module. */
PyObject *ext_where_process(PyObject *module, PyObject *pid);
#define EXT_WHERE_PROCESS_DOC \
    "where_process($module, pid, /)\n--\n\nWhat the system tells of a process' resident memory."

#endif
