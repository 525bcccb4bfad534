/* Between the files of this room. */
#ifndef PMT_PLATFORM_LINUX_H
#define PMT_PLATFORM_LINUX_H

#include <stddef.h>
#include <stdint.h>

#include "platform/smaps.h"

/* Moves a descriptor to a high number and returns it (the same one if that cannot be). */
int pmt__descriptor_move_high(int fd);

/* The areas that an open file "smaps" or "maps" of a process tells of, from its beginning, each given to `each` until that returns other
   than 0. 0, or a negative errno. */
int pmt__areas_read(int fd, char *text, size_t size,
                    int (*each)(void *context, const pmt__area *area), void *context);

#endif
