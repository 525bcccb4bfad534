/* Native places, and what they are in the source code. */
#ifndef PMT_EXT_SYMBOLS_H
#define PMT_EXT_SYMBOLS_H

#include <Python.h>

#include "pymemtrace/reader.h"

/* The body of Reader.unresolved. New reference or NULL. */
PyObject *ext_unresolved(const pmt_reader *reader);
/* That of Reader.append_symbols: whether it could be done. */
PyObject *ext_append_symbols(const pmt_reader *reader, PyObject *path, PyObject *bytes);
/* encode_symbols(), a function of the module. */
PyObject *ext_encode_symbols(PyObject *module, PyObject *places);

#define EXT_ENCODE_SYMBOLS_DOC                                                               \
    "The bytes of what was found: (object, offset, [(function, file, line), ...]) for each " \
    "place, "                                                                                \
    "the innermost frame first."

#endif
