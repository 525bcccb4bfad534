#include "native/connect.h"

#include <dlfcn.h>
#include <string.h>

#include "native/patch.h"

static void
give(void *address, const pmt__native_table *table)
{
    pmt__preload_connect connect;
    memcpy(&connect, &address, sizeof connect);
    connect(table);
}

const void *
pmt__native_library(void)
{
    const void *preloaded = dlsym(RTLD_DEFAULT, PMT_PRELOAD_CONNECT);
    return preloaded != NULL ? preloaded : pmt__native_patched_connect();
}

const char *
pmt__native_connect(const pmt__native_table *table, const char *library)
{
    void *preloaded = dlsym(RTLD_DEFAULT, PMT_PRELOAD_CONNECT);
    if (preloaded != NULL) {
        give(preloaded, table);
        return table == NULL ? "none" : "preload";
    }
    pmt_error err = PMT_ERROR_INIT;
    if (table != NULL && (library == NULL || pmt__native_patch(library, &err) < 0)) {
        return "none";
    }
    void *loaded = pmt__native_patched_connect();
    if (loaded != NULL) {
        give(loaded, table);
    }
    return table == NULL || loaded == NULL ? "none" : "patch";
}
