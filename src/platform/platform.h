/* The contract with the operating system. One implementation per system (linux.c); nobody else makes system calls.

   Every function states what it needs and what it promises. None of them allocates with malloc, and none touches errno
   of the caller unless it says so: the recorder calls them from inside the program's allocations. */
#ifndef PMT_PLATFORM_H
#define PMT_PLATFORM_H

#include <stddef.h>
#include <stdint.h>

#include "platform/smaps.h"

/* --- memory ---------------------------------------------------------------------------------------------------------- */

/* Zeroed private pages, committed on first touch; size is rounded up to pages. NULL if the system refuses. */
void *pmt__pages_map(size_t size_bytes);
/* The same, kept out of core dumps and of transparent huge pages: for large sparse tables. */
void *pmt__pages_map_sparse(size_t size_bytes);
void pmt__pages_unmap(void *pages, size_t size_bytes);
/* Makes a mapping larger (the new part reads as zeros) or smaller; it may move. NULL: no memory, it is as it was. */
void *pmt__pages_resize(void *pages, size_t size_bytes, size_t new_size_bytes);
/* Gives the memory back and keeps the range mapped: it reads as zeros again. */
void pmt__pages_discard(void *pages, size_t size_bytes);
/* How much of the range is resident now. */
uint64_t pmt__pages_resident(const void *pages, size_t size_bytes);

/* What pages are for, as far as somebody noted it. The functions above note our own pages. Any thread at any time; nothing is
   promised about a range that changes meanwhile. Where there is no memory for the note, the pages stay unknown. */
typedef enum pmt__pages_use {
    PMT_PAGES_UNKNOWN = 0,
    PMT_PAGES_OWN = 1,
    PMT_PAGES_ARENA = 2, /* of pymalloc */
    PMT_PAGES_FRAMES = 3 /* the interpreter's memory for frames */
} pmt__pages_use;
void pmt__pages_note(const void *start, size_t size_bytes, pmt__pages_use use);
/* The use of the page at this address; *run_end: up to where it is the same, at most `end`. address < end. */
pmt__pages_use pmt__pages_use_at(uintptr_t address, uintptr_t end, uintptr_t *run_end);

/* Whether the 8 bytes at this address, which lie within one page, can be read. */
int pmt__readable(const void *address);

/* --- clocks ---------------------------------------------------------------------------------------------------------- */

uint64_t pmt__clock_mono_ns(void); /* steady */
uint64_t pmt__clock_unix_ns(void); /* wall clock */
uint64_t pmt__thread_cpu_ns(void); /* CPU time of the calling thread */
uint64_t pmt__process_cpu_ns(void);

/* A steady counter of unknown rate, to be set in proportion between two readings of the clock: some ten cycles. */
static inline uint64_t
pmt__ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return pmt__clock_mono_ns();
#endif
}

/* --- threads --------------------------------------------------------------------------------------------------------- */

uint64_t pmt__thread_native_id(void);
/* Is there a thread of this process with this native id? */
int pmt__thread_exists(uint64_t native_id);

/* Starts a thread that blocks all signals. Returns 0 or an errno. */
int pmt__thread_start(uintptr_t *thread, void *(*entry)(void *), void *arg);
void pmt__thread_set_name(const char *name); /* of the calling thread; at most 15 bytes count */
void pmt__thread_get_name(char name[16]);    /* of the calling thread */
/* Returns when the thread has ended and, if its native id is given (not 0), no longer counts among the
   threads of the process. */
void pmt__thread_join(uintptr_t thread, uint64_t native_id);

/* Waits while *word == value, at most timeout_ns (0 = for ever). May return early. */
void pmt__wait_word(const uint32_t *word, uint32_t value, uint64_t timeout_ns);
void pmt__wake_word(const uint32_t *word);

/* A full memory barrier executed on every running thread of this process (asymmetric fences: the other side needs a
   compiler barrier only). `prepare` once per process; 0 if the system has it, else -1. */
int pmt__barrier_all_prepare(void);
void pmt__barrier_all(void);

/* --- files ----------------------------------------------------------------------------------------------------------- */

/* Creates path for reading and writing: new, mode 0600, never through a symlink, not inherited by children; at a high descriptor
   number, so that programs which close or reuse low numbers do not meet it. replace: an existing regular file is removed
   first (its content is not touched: whoever has it open keeps it). Returns the descriptor or a negative errno. */
int pmt__file_create(const char *path, int replace);
/* Identity of an open file, to notice that the descriptor was closed and reused. 0 or a negative errno. */
int pmt__file_identity(int fd, uint64_t *device, uint64_t *inode);
/* Opens an existing file for reading and writing again if it still is the given file. Descriptor or negative errno. */
int pmt__file_reopen(const char *path, uint64_t device, uint64_t inode);
/* Reads exactly size_bytes at offset. 0 or a negative errno. */
int pmt__file_read_at(int fd, void *bytes, size_t size_bytes, uint64_t offset);
/* Writes all bytes at offset, or nothing where the limit on file sizes forbids it (-EFBIG): no SIGXFSZ. 0 or a
   negative errno. */
int pmt__file_write_at(int fd, const void *bytes, size_t size_bytes, uint64_t offset);
/* Renames `from` to `to` if `to` still is the given file. 0, -ESTALE, or another negative errno. */
int pmt__file_replace(const char *from, const char *to, uint64_t device, uint64_t inode);
/* Removes path if it still is the given file. */
void pmt__file_remove(const char *path, uint64_t device, uint64_t inode);
int pmt__file_truncate(int fd, uint64_t size_bytes);
/* Makes the file this large, if it is smaller, with its room taken on the device: later writes in it do not fail for lack of space. What is
   new reads as zeros. 0, or a negative errno: -ENOSPC, -EFBIG by the limit on file sizes (no SIGXFSZ) … */
int pmt__file_allocate(int fd, uint64_t size_bytes);
/* 0 or a negative errno. */
int pmt__file_size(int fd, uint64_t *size_bytes);
/* The beginning of a small regular file that nobody but its owner can write to, who is the user of this process or root; as a text, at most
   room - 1 bytes. Returns its length or a negative errno: -EPERM where that is not so. */
int pmt__file_read_private(const char *path, char *out, size_t room);
void pmt__file_close(int fd);

/* --- the process and its host ---------------------------------------------------------------------------------------- */

/* Resident set now; 0 if unknown. This one and the next ones keep files open at high descriptor numbers. One caller at a time. */
uint64_t pmt__process_rss_bytes(void);
/* All areas of this process in the order of their addresses, each given to `each` until that returns other than 0. 0, or a
   negative errno. Takes milliseconds per GiB that is resident. */
int pmt__process_areas(int (*each)(void *context, const pmt__area *area), void *context);
/* The same without their sizes in memory, which are 0 here: some microseconds per area. One caller at a time of this one. */
int pmt__process_mappings(int (*each)(void *context, const pmt__area *area), void *context);
/* The state of so many pages of this process from `start` on. 0, or a negative errno. */
enum {
    PMT_PAGE_ABSENT = 0,
    PMT_PAGE_MAYBE =
        1, /* in the page table, but it may be the page of zeros, which counts nowhere */
    PMT_PAGE_PRESENT = 2 /* resident */
};
int pmt__process_pages(uintptr_t start, size_t count, uint8_t *states);
/* The native ids of the threads of this process; returns how many were put (0: unknown). */
size_t pmt__process_threads(uint64_t *native_ids, size_t room);
/* Closes those files. */
void pmt__process_files_close(void);

/* Copies memory of this process that may not be there (any more). Whether all of it was. */
int pmt__process_peek(uintptr_t address, void *out, size_t size_bytes);
/* The same for many places: size_bytes of each one after the other; what is not there reads as zeros. */
void pmt__process_peek_each(const uintptr_t *addresses, size_t count, void *out, size_t size_bytes);
/* An address in the part of a thread's stack that the C library keeps for itself, at its upper end; 0 if unknown. */
uintptr_t pmt__thread_block(uint64_t native_id);
size_t pmt__page_size(void);
/* How many objects (libraries) have been unloaded since the process started. Takes the loader's lock. */
uint64_t pmt__objects_unloaded(void);

/* What the C library's allocator says of itself. Takes its locks: not for hooks. 0, or -1: it does not tell. */
typedef struct pmt__malloc_facts {
    uint64_t held_bytes; /* the heaps of all arenas */
    uint64_t used_bytes; /* of these: blocks with their headers, those in the threads' caches too */
    uint64_t free_bytes; /* of these: free blocks and what was never used */
    uint64_t top_bytes;  /* of these: at the end of the main heap, where it could be given back */
    uint64_t mapped_bytes; /* blocks with a mapping of their own */
} pmt__malloc_facts;
int pmt__malloc_facts_get(pmt__malloc_facts *out);
uint64_t pmt__process_start_ticks(void);
uint64_t pmt__process_id(void); /* = the native id of the first thread */
uint64_t pmt__process_parent_id(void);
typedef struct pmt__host_facts {
    char hostname[256];
    char kernel[256];
    char machine[64];
    char boot_id[64];
    char cgroup[256];
    uint64_t cpus;
    uint64_t memory_bytes;
} pmt__host_facts;
void pmt__host_facts_get(pmt__host_facts *facts);
int pmt__random_bytes(void *bytes, size_t size_bytes); /* 0 or a negative errno */

/* Calls these around fork() in this process: before, after in the parent, after in the child. Once per process. */
int pmt__atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#endif
