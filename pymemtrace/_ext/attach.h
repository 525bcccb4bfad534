/* What `pymemtrace attach` needs of C: another process, held and changed (platform/tracee.h). */
#ifndef PMT_EXT_ATTACH_H
#define PMT_EXT_ATTACH_H

#include <Python.h>

PyObject *ext_attach_layout(PyObject *module, PyObject *unused);
PyObject *ext_attach_exchange(PyObject *module, PyObject *args);
PyObject *ext_attach_divert(PyObject *module, PyObject *args);

#define EXT_ATTACH_LAYOUT_DOC "Offsets in the interpreter's structures, as a dict."
#define EXT_ATTACH_EXCHANGE_DOC                                                              \
    "attach_exchange(pid, parts, timeout_s): stops the process, compares and writes parts\n" \
    "(address, expected or None, bytes or None). Seconds that it stood still, or None if\n"  \
    "something was not as expected. Raises OSError."
#define EXT_ATTACH_DIVERT_DOC                                                                      \
    "attach_divert(pid, (thread, number, stack, next), to, argument, parts, timeout_s): the same " \
    "with\n"                                                                                       \
    "one thread, which goes on elsewhere if it still waits in that system call."

#endif
