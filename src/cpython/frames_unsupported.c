/* Compiled in place of a frames_3XX.c where there is none: the package installs and reads captures, and recording says that it
   cannot work here instead of guessing at a layout. */
#include <Python.h>

#include "base/error.h"
#include "cpython/recorder.h"

static int
refuse(pmt_error *err)
{
#ifdef Py_GIL_DISABLED
    const char *kind = " (free-threaded)";
#else
    const char *kind = "";
#endif
    return pmt__error_set(err, PMT_ERR_UNSUPPORTED,
                          "cannot record on Python %d.%d.%d%s: CPython 3.11, 3.12, 3.13, 3.14 and "
                          "3.15 with a GIL are supported",
                          PY_MAJOR_VERSION, PY_MINOR_VERSION, PY_MICRO_VERSION, kind);
}

int
pmt__cpython_check(pmt_error *err)
{
    return refuse(err);
}

int
pmt__cpython_install(int native, pmt_error *err)
{
    (void)native;
    return refuse(err);
}

const pmt__native_table *
pmt__cpython_sampled_native_table(void)
{
    return NULL;
}

const pmt__native_table *
pmt__cpython_native_table(void)
{
    return NULL;
}

const void *
pmt__cpython_frame_now(void)
{
    return NULL;
}

int
pmt__cpython_is_called_by(const void *frame)
{
    (void)frame;
    return 0;
}

void
pmt__cpython_check_hooks(void)
{
}

void
pmt__cpython_uninstall(void)
{
}

const pmt__frame_source *
pmt__cpython_source(void)
{
    return NULL;
}

void
pmt__cpython_checking(int on)
{
    (void)on;
}

void
pmt__cpython_check_counts(uint64_t *compared, uint64_t *different)
{
    *compared = *different = 0;
}

double
pmt__cpython_pair_ns(size_t size, unsigned rounds)
{
    (void)size;
    (void)rounds;
    return 0.0;
}

const char *
pmt__cpython_allocator_name(void)
{
    return "unknown";
}
