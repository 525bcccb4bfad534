/* Between the files of this room. */
#ifndef PMT_PLATFORM_LINUX_H
#define PMT_PLATFORM_LINUX_H

#include <stdint.h>

/* Moves a descriptor to a high number and returns it (the same one if that cannot be). */
int pmt__descriptor_move_high(int fd);

#endif
