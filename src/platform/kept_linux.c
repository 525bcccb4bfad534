#include "platform/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "platform/linux.h"
#include "platform/platform.h"

static int
is_ours(const pmt__kept *self)
{
    uint64_t device, inode;
    return self->fd > 0 && pmt__file_identity(self->fd, &device, &inode) == 0
           && device == self->device && inode == self->inode;
}

int
pmt__kept_fd(pmt__kept *self, const char *path, int flags)
{
    if (is_ours(self)) {
        return self->fd;
    }
    if (self->absent) {
        return -ENOENT;
    }
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) {
        self->fd = 0;
        self->absent = errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != EINTR;
        return -errno;
    }
    self->fd = pmt__descriptor_move_high(fd);
    pmt__file_identity(self->fd, &self->device, &self->inode);
    return self->fd;
}

void
pmt__kept_close(pmt__kept *self)
{
    if (is_ours(self)) {
        pmt__file_close(self->fd);
    }
    self->fd = 0;
    self->absent = 0;
}

int
pmt__lines_read(int fd, char *text, size_t size, int (*each)(void *context, char *line),
                void *context)
{
    size_t held = 0;
    int skipping = 0; /* the rest of a line that was too long */
    off_t offset = 0;
    for (;;) {
        ssize_t n = pread(fd, text + held, size - 1 - held, offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        offset += n;
        size_t end = held + (size_t)n, at = 0;
        for (char *stop; (stop = memchr(text + at, '\n', end - at)) != NULL;) {
            *stop = '\0';
            if (!skipping && each(context, text + at) != 0) {
                return 0;
            }
            skipping = 0;
            at = (size_t)(stop - text) + 1;
        }
        held = end - at;
        if (n == 0 || (at == 0 && end == size - 1)) {
            text[end] = '\0';
            if (held != 0 && !skipping && each(context, text + at) != 0) {
                return 0;
            }
            if (n == 0) {
                return 0;
            }
            skipping = 1;
            held = 0;
            continue;
        }
        memmove(text, text + at, held);
    }
}
