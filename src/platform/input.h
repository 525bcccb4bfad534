/* The part of the contract with the operating system that reading captures needs. Unlike platform.h
   it is for processes that are not being recorded: it may use malloc and change errno. */
#ifndef PMT_PLATFORM_INPUT_H
#define PMT_PLATFORM_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "platform/smaps.h"

/* Opens a regular file for reading, not inherited by children. Returns the descriptor or a negative
   errno; -EISDIR, -EINVAL for what is no regular file (a pipe would block). */
int pmt__input_open(const char *path, uint64_t *size_bytes);
/* Reads at most `size` bytes at offset; *done is less only at the file's end, which may have moved
   since it was opened. 0 or a negative errno. Not mmap: a file that is truncated under a mapping
   is SIGBUS. */
int pmt__input_read_at(int fd, void *bytes, size_t size, uint64_t offset, size_t *done);
/* Its size now. 0 or a negative errno. */
int pmt__input_size(int fd, uint64_t *size_bytes);
/* Whether another file has this path by now. Not so if nothing has it any more. */
int pmt__input_is_replaced(int fd, const char *path);
void pmt__input_close(int fd);

/* The same for reading and writing. */
int pmt__output_open(const char *path, uint64_t *size_bytes);
/* Locks the file against others that ask for the lock (flock(2)) until it is closed; never waits. 0 or a negative errno. */
int pmt__output_lock(int fd);

/* Whether the process with this id runs and started at these ticks since boot. A zombie does not. */
int pmt__process_is_alive(uint64_t pid, uint64_t start_ticks);
/* The areas of any process, as pmt__process_areas. 0 or a negative errno: -ESRCH, -ENOENT: there is none; -EACCES, -EPERM: it is
   another user's. */
int pmt__input_areas(uint64_t pid, int (*each)(void *context, const pmt__area *area),
                     void *context);
/* The id of this boot of the host, NUL-terminated; empty if unknown. */
void pmt__boot_id_get(char out[64]);
#define PMT_HOST_NAME_MAX 65
/* The name of the host, as uname(2) has it. */
void pmt__host_name_get(char out[PMT_HOST_NAME_MAX]);

#endif
