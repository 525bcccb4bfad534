/* input.h on Linux. */
#include "platform/input.h"
#include "platform/linux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static int
open_file(const char *path, int access, uint64_t *size_bytes)
{
    /* O_NONBLOCK: opening a pipe that nobody writes would wait for ever. No effect on files. */
    int fd = open(path, access | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        return -errno;
    }
    struct stat facts;
    int result = 0;
    if (fstat(fd, &facts) < 0) {
        result = -errno;
    } else if (S_ISDIR(facts.st_mode)) {
        result = -EISDIR;
    } else if (!S_ISREG(facts.st_mode)) {
        result = -EINVAL;
    }
    if (result < 0) {
        close(fd);
        return result;
    }
    *size_bytes = (uint64_t)facts.st_size;
    return fd;
}

int
pmt__input_open(const char *path, uint64_t *size_bytes)
{
    return open_file(path, O_RDONLY, size_bytes);
}

int
pmt__output_open(const char *path, uint64_t *size_bytes)
{
    return open_file(path, O_RDWR, size_bytes);
}

int
pmt__output_lock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

int
pmt__input_read_at(int fd, void *bytes, size_t size, uint64_t offset, size_t *done)
{
    *done = 0;
    while (*done < size) {
        ssize_t n = pread(fd, (char *)bytes + *done, size - *done, (off_t)(offset + *done));
        if (n == 0) {
            break;
        }
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        *done += (size_t)n;
    }
    return 0;
}

int
pmt__input_size(int fd, uint64_t *size_bytes)
{
    struct stat facts;
    if (fstat(fd, &facts) < 0) {
        return -errno;
    }
    *size_bytes = (uint64_t)facts.st_size;
    return 0;
}

int
pmt__input_is_replaced(int fd, const char *path)
{
    struct stat open_one;
    struct stat named;
    if (fstat(fd, &open_one) < 0 || stat(path, &named) < 0) {
        return 0;
    }
    return open_one.st_dev != named.st_dev || open_one.st_ino != named.st_ino;
}

void
pmt__input_close(int fd)
{
    close(fd);
}

/* Reads the start of a small file of /proc into a NUL-terminated buffer; returns its length. */
static size_t
read_small(const char *path, char *out, size_t size)
{
    out[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    size_t done;
    if (pmt__input_read_at(fd, out, size - 1, 0, &done) < 0) {
        done = 0;
    }
    close(fd);
    out[done] = '\0';
    return done;
}

int
pmt__process_is_alive(uint64_t pid, uint64_t start_ticks)
{
    char path[64];
    char text[1024];
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    if (read_small(path, text, sizeof text) == 0) {
        return 0;
    }
    /* "pid (name) state …": the name may hold anything, so count from its last parenthesis. The
       state is field 3, the start time field 22 (proc(5)). */
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X') {
        return 0;
    }
    at += 2;
    for (int field = 3; field < 22; field++) {
        at = strchr(at, ' ');
        if (at == NULL) {
            return 0;
        }
        at++;
    }
    return strtoull(at, NULL, 10) == start_ticks;
}

void
pmt__boot_id_get(char out[64])
{
    size_t n = read_small("/proc/sys/kernel/random/boot_id", out, 64);
    while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == ' ')) {
        out[--n] = '\0';
    }
}

void
pmt__host_name_get(char out[PMT_HOST_NAME_MAX])
{
    struct utsname host;
    out[0] = '\0';
    if (uname(&host) == 0) {
        snprintf(out, PMT_HOST_NAME_MAX, "%s", host.nodename);
    }
}

int
pmt__input_areas(uint64_t pid, int (*each)(void *context, const pmt__area *area), void *context)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%llu/smaps", (unsigned long long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    char text[16 << 10];
    int rc = pmt__areas_read(fd, text, sizeof text, each, context);
    close(fd);
    return rc;
}
