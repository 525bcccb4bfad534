/* Which frame reader was compiled in. */
#ifndef PMT_CPYTHON_FRAMES_H
#define PMT_CPYTHON_FRAMES_H

#include <stdbool.h>

/* True when this build knows the frame layout of the interpreter it was built for. */
bool pmt__frames_supported(void);

#endif
