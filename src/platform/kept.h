/* Files that stay open: an open() at every measurement would take the lowest free descriptor for a moment, at which another thread of
   the program may just be aiming (close(0), then open()). They lie at high numbers, and their identity is compared before each use,
   because programs close descriptors that they do not know. One caller at a time. */
#ifndef PMT_PLATFORM_KEPT_H
#define PMT_PLATFORM_KEPT_H

#include <stddef.h>
#include <stdint.h>

typedef struct pmt__kept { /* all zero: not open */
    int fd;                /* 0 = none */
    int absent; /* it could not be opened, and will not be tried again: that takes a descriptor too */
    uint64_t device, inode;
} pmt__kept;

/* Its descriptor, opened now if it is not, or a negative errno. flags: of open(). */
int pmt__kept_fd(pmt__kept *self, const char *path, int flags);
/* Closes the descriptor if it still is ours. What was absent is tried again. */
void pmt__kept_close(pmt__kept *self);

/* Reads the file line by line from its beginning; each line, NUL-terminated and without its end, is given to `each` until that returns
   other than 0. Of a line that is longer than `size` - 1, only the beginning is. 0, or a negative errno. */
int pmt__lines_read(int fd, char *text, size_t size, int (*each)(void *context, char *line),
                    void *context);

#endif
