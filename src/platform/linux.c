/* The contract of platform.h on Linux. Raw system calls where glibc's wrapper allocates, caches or sets errno in a way
   that the traced program could notice. */
#include "platform/platform.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "platform/linux.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

/* --- memory --- */

static size_t
round_to_pages(size_t size_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size_bytes + page - 1) / page * page;
}

/* By system call, not by the C library's functions: those may be interposed, by ourselves for one, and our own memory is not the
   program's. */
#if defined(__SANITIZE_THREAD__) /* it must see where memory begins to be another's */
#define own_mmap(address, size, protection, flags) mmap(address, size, protection, flags, -1, 0)
#define own_munmap(pages, size) munmap(pages, size)
#define own_mremap(pages, size, new_size) mremap(pages, size, new_size, MREMAP_MAYMOVE)
#else
static void *
own_mmap(void *address, size_t size_bytes, int protection, int flags)
{
    long result = syscall(SYS_mmap, address, size_bytes, protection, flags, -1, 0);
    return result == -1 ? MAP_FAILED : (void *)result;
}

static void
own_munmap(void *pages, size_t size_bytes)
{
    syscall(SYS_munmap, pages, size_bytes);
}

static void *
own_mremap(void *pages, size_t size_bytes, size_t new_size_bytes)
{
    long result = syscall(SYS_mremap, pages, size_bytes, new_size_bytes, MREMAP_MAYMOVE);
    return result == -1 ? MAP_FAILED : (void *)result;
}
#endif

/* Our pages get a name in /proc/PID/smaps where the kernel has names, and are noted in any case. */
static void
own_name(void *pages, size_t size_bytes)
{
    static int refused; /* atomic: any thread that was refused */
    if (!__atomic_load_n(&refused, __ATOMIC_RELAXED)
        && prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, pages, size_bytes, "pymemtrace") != 0) {
        __atomic_store_n(&refused, 1, __ATOMIC_RELAXED);
    }
    pmt__pages_note(pages, size_bytes, PMT_PAGES_OWN);
}

void *
pmt__pages_map(size_t size_bytes)
{
    int saved = errno;
    size_t size = round_to_pages(size_bytes);
    void *pages =
        own_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    if (pages != MAP_FAILED) {
        own_name(pages, size);
    }
    errno = saved;
    return pages == MAP_FAILED ? NULL : pages;
}

void *
pmt__pages_map_sparse(size_t size_bytes)
{
    void *pages = pmt__pages_map(size_bytes);
    if (pages != NULL) {
        int saved = errno;
        madvise(pages, round_to_pages(size_bytes), MADV_NOHUGEPAGE);
        madvise(pages, round_to_pages(size_bytes), MADV_DONTDUMP);
        errno = saved;
    }
    return pages;
}

void
pmt__pages_unmap(void *pages, size_t size_bytes)
{
    if (pages != NULL) {
        int saved = errno;
        pmt__pages_note(pages, round_to_pages(size_bytes), PMT_PAGES_UNKNOWN);
        own_munmap(pages, round_to_pages(size_bytes));
        errno = saved;
    }
}

void *
pmt__pages_resize(void *pages, size_t size_bytes, size_t new_size_bytes)
{
    int saved = errno;
    size_t size = round_to_pages(size_bytes), new_size = round_to_pages(new_size_bytes);
    pmt__pages_note(pages, size, PMT_PAGES_UNKNOWN); /* before they can be another's */
    void *now = own_mremap(pages, size, new_size);
    if (now == MAP_FAILED) {
        pmt__pages_note(pages, size, PMT_PAGES_OWN);
    } else {
        pmt__pages_note(now, new_size, PMT_PAGES_OWN);
    }
    errno = saved;
    return now == MAP_FAILED ? NULL : now;
}

void
pmt__pages_discard(void *pages, size_t size_bytes)
{
    int saved = errno;
    madvise(pages, round_to_pages(size_bytes), MADV_DONTNEED);
    errno = saved;
}

uint64_t
pmt__pages_resident(const void *pages, size_t size_bytes)
{
    enum {
        BATCH = 4096
    }; /* pages per call */
    unsigned char map[BATCH];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t count = round_to_pages(size_bytes) / page;
    uint64_t resident = 0;
    int saved = errno;
    for (size_t at = 0; at < count; at += BATCH) {
        size_t n = count - at < BATCH ? count - at : BATCH;
        uintptr_t start = (uintptr_t)pages + at * page;
        if (mincore((void *)start, n * page, map) != 0) {
            break;
        }
        for (size_t i = 0; i < n; i++) {
            resident += map[i] & 1;
        }
    }
    errno = saved;
    return resident * page;
}

/* The kernel reads the set before it looks at `how`, which is none: EFAULT, or EINVAL where the set can be read. */
int
pmt__readable(const void *address)
{
    int saved = errno;
    errno = 0;
    syscall(SYS_rt_sigprocmask, ~0, address, NULL, sizeof(uint64_t));
    int readable = errno != EFAULT;
    errno = saved;
    return readable;
}

/* --- clocks --- */

static uint64_t
clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t
pmt__clock_mono_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t
pmt__clock_unix_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

uint64_t
pmt__thread_cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t
pmt__process_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* --- threads --- */

uint64_t
pmt__thread_native_id(void)
{
    return (uint64_t)syscall(SYS_gettid);
}

int
pmt__thread_exists(uint64_t native_id)
{
    int saved = errno;
    int exists = syscall(SYS_tgkill, getpid(), (pid_t)native_id, 0) == 0 || errno != ESRCH;
    errno = saved;
    return exists;
}

void
pmt__thread_get_name(char name[16])
{
    memset(name, 0, 16);
    prctl(PR_GET_NAME, name);
}

int
pmt__thread_start(uintptr_t *thread, void *(*entry)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t id;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    int rc = pthread_create(&id, &attributes, entry, arg);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) {
        *thread = (uintptr_t)id;
    }
    return rc;
}

void
pmt__thread_set_name(const char *name)
{
    prctl(PR_SET_NAME, name); /* pthread_setname_np would open a file for another thread */
}

void
pmt__thread_join(uintptr_t thread, uint64_t native_id)
{
    int saved = errno;
    pthread_join((pthread_t)thread, NULL);
    /* The kernel lets the joining side go on a little before it takes the thread off its lists. */
    for (int i = 0; native_id != 0 && i < 1000; i++) {
        if (syscall(SYS_tgkill, getpid(), (pid_t)native_id, 0) != 0) {
            break;
        }
        static const uint32_t never = 0;
        pmt__wait_word(&never, 0, 20000);
    }
    errno = saved;
}

void
pmt__wait_word(const uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
    int saved = errno;
    struct timespec timeout = {(time_t)(timeout_ns / 1000000000u),
                               (long)(timeout_ns % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ns == 0 ? NULL : &timeout, NULL, 0);
    errno = saved;
}

void
pmt__wake_word(const uint32_t *word)
{
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    errno = saved;
}

int
pmt__barrier_all_prepare(void)
{
    int saved = errno;
    long have = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    int rc = -1;
    if (have > 0 && (have & MEMBARRIER_CMD_PRIVATE_EXPEDITED)) {
        rc = (int)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    }
    errno = saved;
    return rc == 0 ? 0 : -1;
}

void
pmt__barrier_all(void)
{
    int saved = errno;
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    errno = saved;
}

/* --- files --- */

#define HIGH_DESCRIPTOR 900 /* below the usual soft limit of 1024 */

int
pmt__descriptor_move_high(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR);
    struct rlimit limit;
    if (high < 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > 8) {
        for (int from =
                 (int)(limit.rlim_cur < HIGH_DESCRIPTOR ? limit.rlim_cur : HIGH_DESCRIPTOR) - 8;
             high < 0 && from > fd; from /= 2) {
            high = fcntl(fd, F_DUPFD_CLOEXEC, from);
        }
    }
    if (high < 0) {
        return fd;
    }
    close(fd);
    return high;
}

int
pmt__file_create(const char *path, int replace)
{
    int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(path, flags, 0600);
    if (fd < 0 && errno == EEXIST && replace) {
        struct stat found;
        if (lstat(path, &found) != 0) {
            return -errno;
        }
        if (!S_ISREG(found.st_mode)) {
            return -EEXIST;
        }
        if (unlink(path) != 0 && errno != ENOENT) {
            return -errno;
        }
        fd = open(path, flags, 0600);
    }
    if (fd < 0) {
        return -errno;
    }
    if (fchmod(fd, 0600) != 0) { /* the umask may have taken the owner's bits */
        int rc = -errno;
        close(fd);
        return rc;
    }
    return pmt__descriptor_move_high(fd);
}

int
pmt__file_identity(int fd, uint64_t *device, uint64_t *inode)
{
    int saved = errno;
    struct stat found;
    int rc = fstat(fd, &found) == 0 ? 0 : -errno;
    if (rc == 0) {
        *device = (uint64_t)found.st_dev;
        *inode = (uint64_t)found.st_ino;
    }
    errno = saved;
    return rc;
}

int
pmt__file_reopen(const char *path, uint64_t device, uint64_t inode)
{
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    uint64_t found_device, found_inode;
    int rc = pmt__file_identity(fd, &found_device, &found_inode);
    if (rc == 0 && (found_device != device || found_inode != inode)) {
        rc = -ESTALE;
    }
    if (rc != 0) {
        close(fd);
        return rc;
    }
    return pmt__descriptor_move_high(fd);
}

int
pmt__file_read_at(int fd, void *bytes, size_t size_bytes, uint64_t offset)
{
    int saved = errno;
    ssize_t n = pread(fd, bytes, size_bytes, (off_t)offset);
    int rc = n == (ssize_t)size_bytes ? 0 : n < 0 ? -errno : -EIO;
    errno = saved;
    return rc;
}

int
pmt__file_write_at(int fd, const void *bytes, size_t size_bytes, uint64_t offset)
{
    int saved = errno;
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
        && offset + size_bytes > limit.rlim_cur) {
        errno = saved;
        return -EFBIG;
    }
    const uint8_t *at = bytes;
    int rc = 0;
    while (size_bytes > 0) {
        ssize_t n = pwrite(fd, at, size_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            rc = n < 0 ? -errno : -ENOSPC;
            break;
        }
        at += n;
        offset += (uint64_t)n;
        size_bytes -= (size_t)n;
    }
    errno = saved;
    return rc;
}

/* 0, -ESTALE if the path is another file, or another negative errno. */
static int
path_check(const char *path, uint64_t device, uint64_t inode)
{
    struct stat found;
    if (lstat(path, &found) != 0) {
        return -errno;
    }
    return (uint64_t)found.st_dev == device && (uint64_t)found.st_ino == inode ? 0 : -ESTALE;
}

int
pmt__file_replace(const char *from, const char *to, uint64_t device, uint64_t inode)
{
    int saved = errno;
    int rc = path_check(to, device, inode);
    if (rc == 0 && rename(from, to) != 0) {
        rc = -errno;
    }
    errno = saved;
    return rc;
}

void
pmt__file_remove(const char *path, uint64_t device, uint64_t inode)
{
    int saved = errno;
    if (path_check(path, device, inode) == 0) {
        unlink(path);
    }
    errno = saved;
}

int
pmt__file_truncate(int fd, uint64_t size_bytes)
{
    int saved = errno;
    int rc = ftruncate(fd, (off_t)size_bytes) == 0 ? 0 : -errno;
    errno = saved;
    return rc;
}

int
pmt__file_size(int fd, uint64_t *size_bytes)
{
    int saved = errno;
    struct stat found;
    int rc = fstat(fd, &found) == 0 ? 0 : -errno;
    if (rc == 0) {
        *size_bytes = (uint64_t)found.st_size;
    }
    errno = saved;
    return rc;
}

/* For file systems that cannot: zeros are written behind what there is. */
static int
zeros_append(int fd, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[1 << 16];
    int rc = 0;
    while (rc == 0 && from < to) {
        size_t size = to - from < sizeof zeros ? (size_t)(to - from) : sizeof zeros;
        rc = pmt__file_write_at(fd, zeros, size, from);
        from += size;
    }
    return rc;
}

int
pmt__file_allocate(int fd, uint64_t size_bytes)
{
    int saved = errno;
    struct rlimit limit;
    int rc;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
        && size_bytes > limit.rlim_cur) {
        rc = -EFBIG;
    } else {
        do {
            rc = fallocate(fd, 0, 0, (off_t)size_bytes) == 0 ? 0 : -errno;
        } while (rc == -EINTR);
    }
    uint64_t size;
    if (rc == -EOPNOTSUPP && (rc = pmt__file_size(fd, &size)) == 0) {
        rc = zeros_append(fd, size, size_bytes);
    }
    errno = saved;
    return rc;
}

int
pmt__file_read_private(const char *path, char *out, size_t room)
{
    int saved = errno;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int rc = fd < 0 ? -errno : 0;
    struct stat found;
    if (rc == 0 && fstat(fd, &found) != 0) {
        rc = -errno;
    }
    if (rc == 0
        && (!S_ISREG(found.st_mode) || (found.st_uid != geteuid() && found.st_uid != 0)
            || (found.st_mode & (S_IWGRP | S_IWOTH)) != 0)) {
        rc = -EPERM;
    }
    if (rc == 0) {
        ssize_t n = pread(fd, out, room - 1, 0);
        rc = n < 0 ? -errno : (int)n;
        out[n < 0 ? 0 : n] = '\0';
    }
    if (fd >= 0) {
        close(fd);
    }
    errno = saved;
    return rc;
}

void
pmt__file_close(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
}

/* --- the process and its host --- */

/* Reads a small file whole; returns the length (0 if it cannot be read) and terminates the text. */
static size_t
read_small(const char *path, char *out, size_t cap)
{
    int saved = errno;
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n;
        while (len < cap - 1 && (n = read(fd, out + len, cap - 1 - len)) > 0) {
            len += (size_t)n;
        }
        close(fd);
    }
    out[len] = '\0';
    errno = saved;
    return len;
}

static void
read_line(const char *path, char *out, size_t cap)
{
    read_small(path, out, cap);
    out[strcspn(out, "\n")] = '\0';
}

uint64_t
pmt__process_id(void)
{
    return (uint64_t)getpid();
}

uint64_t
pmt__process_parent_id(void)
{
    return (uint64_t)getppid();
}

uint64_t
pmt__process_start_ticks(void)
{
    char text[1024];
    read_small("/proc/self/stat", text, sizeof text);
    const char *at = strrchr(text, ')'); /* the command's name may hold blanks and brackets */
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at == NULL ? 0 : strtoull(at + 1, NULL, 10);
}

void
pmt__host_facts_get(pmt__host_facts *facts)
{
    memset(facts, 0, sizeof *facts);
    struct utsname names;
    if (uname(&names) == 0) {
        snprintf(facts->hostname, sizeof facts->hostname, "%s", names.nodename);
        snprintf(facts->kernel, sizeof facts->kernel, "%s %s", names.sysname, names.release);
        snprintf(facts->machine, sizeof facts->machine, "%.63s", names.machine);
    }
    read_line("/proc/sys/kernel/random/boot_id", facts->boot_id, sizeof facts->boot_id);
    char text[2048];
    read_small("/proc/self/cgroup", text, sizeof text);
    const char *unified = strstr(text, "0::");
    if (unified != NULL) {
        snprintf(facts->cgroup, sizeof facts->cgroup, "%.*s", (int)strcspn(unified + 3, "\n"),
                 unified + 3);
    }
    facts->cpus = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
    facts->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

int
pmt__random_bytes(void *bytes, size_t size_bytes)
{
    return getrandom(bytes, size_bytes, 0) == (ssize_t)size_bytes ? 0 : -EIO;
}

int
pmt__atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return pthread_atfork(prepare, parent, child);
}
