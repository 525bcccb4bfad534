/* What /proc and the kernel say of this process, asked from inside while it runs: no malloc, no stdio, no descriptor below the
   ones that programs count on. Memory that others may unmap meanwhile is read by process_vm_readv, which fails where a load would
   be the end of the program. */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "platform/kept.h"
#include "platform/linux.h"
#include "platform/platform.h"

/* --- files that stay open --- */

typedef struct kept {
    const char *path;
    int flags;
    pmt__kept file;
} kept;

static kept statm = {"/proc/self/statm", O_RDONLY, {0, 0, 0, 0}};
static kept smaps = {"/proc/self/smaps", O_RDONLY, {0, 0, 0, 0}};
static kept maps = {"/proc/self/maps", O_RDONLY, {0, 0, 0, 0}};
static kept pagemap = {"/proc/self/pagemap", O_RDONLY, {0, 0, 0, 0}};
static kept tasks = {"/proc/self/task", O_RDONLY | O_DIRECTORY, {0, 0, 0, 0}};

/* Its descriptor or a negative errno. */
static int
kept_fd(kept *self)
{
    self->file.absent = 0;
    return pmt__kept_fd(&self->file, self->path, self->flags);
}

void
pmt__process_files_close(void)
{
    kept *all[] = {&statm, &smaps, &maps, &pagemap, &tasks};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        pmt__kept_close(&all[i]->file);
    }
}

/* --- sizes --- */

size_t
pmt__page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t
pmt__process_rss_bytes(void)
{
    int saved = errno;
    char text[128];
    int fd = kept_fd(&statm);
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    errno = saved;
    if (n <= 0) {
        return 0;
    }
    text[n] = '\0';
    const char *at = strchr(text, ' '); /* "total resident …" */
    uint64_t pages = 0;
    for (at = at == NULL ? "" : at + 1; *at >= '0' && *at <= '9'; at++) {
        pages = pages * 10 + (uint64_t)(*at - '0');
    }
    return pages * pmt__page_size();
}

int
pmt__areas_read(int fd, char *text, size_t size, int (*each)(void *context, const pmt__area *area),
                void *context)
{
    pmt__smaps parser;
    pmt__smaps_init(&parser);
    pmt__area area;
    int rc = 0, stopped = 0;
    ssize_t n = 0;
    for (off_t offset = 0; rc == 0 && !stopped; offset += n) {
        n = pread(fd, text, size, offset);
        if (n < 0 && errno == EINTR) {
            n = 0;
            continue;
        }
        if (n <= 0) {
            rc = n < 0 ? -errno : 0;
            break;
        }
        size_t used = 0;
        for (size_t at = 0; at < (size_t)n && !stopped; at += used) {
            if (pmt__smaps_take(&parser, text + at, (size_t)n - at, &used, &area)) {
                stopped = each(context, &area) != 0;
            }
        }
    }
    while (rc == 0 && !stopped && pmt__smaps_end(&parser, &area)) {
        stopped = each(context, &area) != 0;
    }
    return rc;
}

static int
own_areas_read(kept *file, char *text, size_t size,
               int (*each)(void *context, const pmt__area *area), void *context)
{
    int saved = errno;
    int fd = kept_fd(file);
    int rc = fd < 0 ? fd : pmt__areas_read(fd, text, size, each, context);
    errno = saved;
    return rc;
}

int
pmt__process_areas(int (*each)(void *context, const pmt__area *area), void *context)
{
    static char text[16 << 10]; /* owned by the caller's lock */
    return own_areas_read(&smaps, text, sizeof text, each, context);
}

int
pmt__process_mappings(int (*each)(void *context, const pmt__area *area), void *context)
{
    static char text[16 << 10]; /* owned by the caller's lock */
    return own_areas_read(&maps, text, sizeof text, each, context);
}

#define PAGEMAP_PRESENT ((uint64_t)1 << 63)
#define PAGEMAP_FILE ((uint64_t)1 << 61)
#define PAGEMAP_EXCLUSIVE ((uint64_t)1 << 56)

int
pmt__process_pages(uintptr_t start, size_t count, uint8_t *states)
{
    static uint64_t entries[2048]; /* owned by the caller's lock */
    int saved = errno;
    int fd = kept_fd(&pagemap);
    int rc = fd < 0 ? fd : 0;
    size_t page = pmt__page_size();
    for (size_t done = 0; rc == 0 && done < count;) {
        size_t n = count - done;
        n = n < sizeof entries / sizeof *entries ? n : sizeof entries / sizeof *entries;
        ssize_t got = pread(fd, entries, n * sizeof *entries,
                            (off_t)((start / page + done) * sizeof *entries));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < (ssize_t)sizeof *entries) {
            rc = got < 0 ? -errno : -EIO;
            break;
        }
        n = (size_t)got / sizeof *entries;
        for (size_t i = 0; i < n; i++) {
            uint64_t e = entries[i];
            states[done + i] = !(e & PAGEMAP_PRESENT)                     ? PMT_PAGE_ABSENT
                               : (e & (PAGEMAP_EXCLUSIVE | PAGEMAP_FILE)) ? PMT_PAGE_PRESENT
                                                                          : PMT_PAGE_MAYBE;
        }
        done += n;
    }
    errno = saved;
    return rc;
}

/* --- threads --- */

size_t
pmt__process_threads(uint64_t *native_ids, size_t room)
{
    struct entry { /* linux_dirent64 */
        uint64_t inode;
        int64_t offset;
        unsigned short size;
        unsigned char type;
        char name[];
    };
    static char list[8192] __attribute__((aligned(8))); /* owned by the caller's lock */
    int saved = errno;
    size_t count = 0;
    int fd = kept_fd(&tasks);
    long n = 0;
    if (fd >= 0 && lseek(fd, 0, SEEK_SET) == 0) {
        while ((n = syscall(SYS_getdents64, fd, list, sizeof list)) > 0) {
            for (long at = 0; at < n;) {
                const struct entry *entry = (const struct entry *)(const void *)(list + at);
                uint64_t id = 0;
                for (const char *c = entry->name; *c >= '0' && *c <= '9'; c++) {
                    id = id * 10 + (uint64_t)(*c - '0');
                }
                if (id != 0 && count < room) {
                    native_ids[count++] = id;
                }
                at += entry->size;
            }
        }
    }
    errno = saved;
    return count;
}

/* The list of robust mutexes begins in the thread's descriptor, in every C library. */
uintptr_t
pmt__thread_block(uint64_t native_id)
{
    int saved = errno;
    void *head = NULL;
    size_t size = 0;
    long rc = syscall(SYS_get_robust_list, (pid_t)native_id, &head, &size);
    errno = saved;
    return rc == 0 ? (uintptr_t)head : 0;
}

/* --- memory --- */

int
pmt__process_peek(uintptr_t address, void *out, size_t size_bytes)
{
    int saved = errno;
    struct iovec to = {out, size_bytes}, from = {(void *)address, size_bytes};
    ssize_t n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
    errno = saved;
    return n == (ssize_t)size_bytes;
}

void
pmt__process_peek_each(const uintptr_t *addresses, size_t count, void *out, size_t size_bytes)
{
    enum {
        BATCH = 256
    };
    int saved = errno;
    memset(out, 0, count * size_bytes);
    for (size_t at = 0; at < count;) {
        struct iovec from[BATCH];
        size_t n = count - at < BATCH ? count - at : BATCH;
        for (size_t i = 0; i < n; i++) {
            from[i] = (struct iovec){(void *)addresses[at + i], size_bytes};
        }
        struct iovec to = {(char *)out + at * size_bytes, n * size_bytes};
        ssize_t got = process_vm_readv(getpid(), &to, 1, from, n, 0);
        size_t whole = got <= 0 ? 0 : (size_t)got / size_bytes;
        at += whole < n ? whole + 1 : n; /* the one behind the last good one is not there */
    }
    errno = saved;
}

/* --- the C library's allocator --- */

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
extern struct mallinfo2 mallinfo2(void) __attribute__((weak)); /* built here, run elsewhere */

int
pmt__malloc_facts_get(pmt__malloc_facts *out)
{
    memset(out, 0, sizeof *out);
    if (mallinfo2 == NULL) {
        return -1;
    }
    int saved = errno;
    struct mallinfo2 info = mallinfo2();
    errno = saved;
    out->held_bytes = info.arena;
    out->used_bytes = info.uordblks;
    out->free_bytes = info.fordblks;
    out->top_bytes = info.keepcost;
    out->mapped_bytes = info.hblkhd;
    return 0;
}
#else
int
pmt__malloc_facts_get(pmt__malloc_facts *out)
{
    memset(out, 0, sizeof *out);
    return -1;
}
#endif

static int
unloaded_get(struct dl_phdr_info *info, size_t size, void *unloaded)
{
    if (size >= offsetof(struct dl_phdr_info, dlpi_subs) + sizeof info->dlpi_subs) {
        *(uint64_t *)unloaded = info->dlpi_subs;
    }
    return 1;
}

uint64_t
pmt__objects_unloaded(void)
{
    uint64_t unloaded = 0;
    dl_iterate_phdr(unloaded_get, &unloaded);
    return unloaded;
}
