#include "native/connect.h"

#include <dlfcn.h>
#include <string.h>

int
pmt__native_connect(const pmt__native_table *table)
{
    void *address = dlsym(RTLD_DEFAULT, PMT_PRELOAD_CONNECT);
    if (address == NULL) {
        return 0;
    }
    pmt__preload_connect connect;
    memcpy(&connect, &address, sizeof connect);
    connect(table);
    return 1;
}
