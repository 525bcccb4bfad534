/* The type Combined of pymemtrace._core: several captures as one. */
#ifndef PMT_EXT_COMBINED_H
#define PMT_EXT_COMBINED_H

#include <Python.h>

extern PyType_Spec ext_combined_spec;

#endif
