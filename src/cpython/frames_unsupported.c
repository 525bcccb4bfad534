/* Compiled in place of a frames_3XX.c where there is none: the package installs, and recording
 * says that it cannot work here instead of guessing at a layout. */
#include "cpython/frames.h"

bool
pmt__frames_supported(void)
{
    return false;
}
