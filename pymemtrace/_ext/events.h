/* The event log: the iterator over it and its replay. */
#ifndef PMT_EXT_EVENTS_H
#define PMT_EXT_EVENTS_H

#include <Python.h>

#include "pymemtrace/reader.h"
#include "state.h"

extern PyType_Spec ext_events_spec;

/* The bodies of Reader.events and Reader.replay; reader_object keeps `reader` alive. New reference or NULL. */
PyObject *ext_events_new(const ext_state *state, PyObject *reader_object, const pmt_reader *reader,
                         PyObject *path);
PyObject *ext_replay(const ext_state *state, const pmt_reader *reader, PyObject *path,
                     PyObject *args, PyObject *kwargs);

#endif
