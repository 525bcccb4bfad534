/* The first pages of a capture, for whoever only has to know whose it is. */
#ifndef PMT_EXT_HEAD_H
#define PMT_EXT_HEAD_H

#include <Python.h>

/* read_head(), a function of the module. New reference or NULL. */
PyObject *ext_read_head(PyObject *module, PyObject *fd);

#define EXT_READ_HEAD_DOC                                                                         \
    "read_head($module, fd, /)\n--\n\n(status, reason, cut_unix_ns, cuts, live_bytes, is_box, "   \
    "facts) of an open capture, without reading it: the slot that counts and the bytes of PROC. " \
    "None: it is none, or cannot be read."

#endif
