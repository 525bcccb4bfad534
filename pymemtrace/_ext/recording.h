/* The recording functions of pymemtrace._core. */
#ifndef PMT_EXT_RECORDING_H
#define PMT_EXT_RECORDING_H

#include <Python.h>

extern PyMethodDef ext_recording_methods[]; /* ends with a NULL name */

#endif
