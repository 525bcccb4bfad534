/* Pressure stall information: for how long tasks waited for memory. Of a cgroup or of the host. */
#ifndef PMT_PLATFORM_PSI_H
#define PMT_PLATFORM_PSI_H

#include <stddef.h>
#include <stdint.h>

#include "platform/kept.h"

typedef struct pmt__psi { /* PMT_UNKNOWN where it is not known */
    uint64_t some_us, full_us;
    uint64_t some_avg10, full_avg10; /* of the last 10 s, in hundredths of a per cent */
} pmt__psi;

/* 0, or a negative errno: then nothing is known. */
int pmt__psi_read(pmt__psi *out, pmt__kept *file, const char *path, char *text, size_t size);

#endif
