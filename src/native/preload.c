/* The preloaded library: stands before the C library's allocator and its mappings, and tells the recorder what passes.

   It knows no Python and links to nothing but the C library. Until the recorder connects (native_table.h), and in every process
   where none does, it passes calls on: a load, a compare and a jump.

   The originals are those of the next object that defines them: the C library, or another allocator that is preloaded behind us.
   Looking them up may allocate, before we have them: such requests come from a small buffer whose blocks are never given back.

   Who looks malloc up in the C library's own handle, ctypes.CDLL("libc.so.6").malloc for one, would go past us: so dlsym is ours
   as well. What goes past it all the same: a library that was linked with -Bsymbolic or opened with RTLD_DEEPBIND and carries an
   allocator of its own, and calls inside the C library. */
#undef _FILE_OFFSET_BITS /* mmap and mmap64 are two functions here */

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "native/exec.h"
#include "native/preload.h"

#define EXPORT __attribute__((visibility("default")))
#define PAGE 4096 /* as large as on x86-64; elsewhere only what is counted is rounded less */
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* --- the originals ----------------------------------------------------------------------------------------------------------- */

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*reallocarray)(void *, size_t, size_t);
    void (*free)(void *);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
    void *(*mmap)(void *, size_t, int, int, int, off_t);
    void *(*mmap64)(void *, size_t, int, int, int, off64_t);
    int (*munmap)(void *, size_t);
    void *(*mremap)(void *, size_t, size_t, int, ...);
    void *(*sbrk)(intptr_t);
    int (*brk)(void *);
    int (*dlclose)(void *);
} real;

static _Atomic(const pmt__native_table *) table;

EXPORT void pymemtrace_preload_connect(const pmt__native_table *recorder);
void
pymemtrace_preload_connect(const pmt__native_table *recorder)
{
    if (recorder == NULL || recorder->version == PMT_NATIVE_TABLE_VERSION) {
        atomic_store_explicit(&table, recorder, memory_order_release);
    }
}

static inline const pmt__native_table *
recorder(void)
{
    return atomic_load_explicit(&table, memory_order_acquire);
}

EXPORT const pmt__preload_function *pymemtrace_preload_functions(size_t *count);

/* The real dlsym, which is not to be found by itself. */
static void *(*real_dlsym(void))(void *, const char *)
{
    static void *(*found)(void *, const char *);
    if (found == NULL) {
        static const char *const versions[] = {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17"};
        for (size_t i = 0; found == NULL && i < sizeof versions / sizeof *versions; i++) {
            void *address = dlvsym(RTLD_NEXT, "dlsym", versions[i]);
            memcpy(&found, &address, sizeof found);
        }
    }
    return found;
}

static void originals_find(void);

/* --- another allocator behind us --------------------------------------------------------------------------------------------

   What jemalloc or tcmalloc map for themselves, by the function that we stand before, is not memory besides the blocks that they give out of it. The
   C library's own allocator maps by another way. */

static __thread int in_allocator __attribute__((tls_model("initial-exec")));
static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
} behind;

#define BEHIND(call)            \
    in_allocator++;             \
    __auto_type result_ = call; \
    in_allocator--;             \
    return result_

static void *
behind_malloc(size_t size)
{
    BEHIND(behind.malloc(size));
}

static void *
behind_calloc(size_t count, size_t size)
{
    BEHIND(behind.calloc(count, size));
}

static void *
behind_realloc(void *old, size_t size)
{
    BEHIND(behind.realloc(old, size));
}

static void
behind_free(void *block)
{
    in_allocator++;
    behind.free(block);
    in_allocator--;
}

static int
behind_posix_memalign(void **out, size_t alignment, size_t size)
{
    BEHIND(behind.posix_memalign(out, alignment, size));
}

static void *
behind_aligned_alloc(size_t alignment, size_t size)
{
    BEHIND(behind.aligned_alloc(alignment, size));
}

static void *
behind_memalign(size_t alignment, size_t size)
{
    BEHIND(behind.memalign(alignment, size));
}

/* Once the originals are known: is malloc another library's than mmap? */
static void
behind_set(void)
{
    Dl_info allocator, library;
    void *of_malloc, *of_mmap;
    memcpy(&of_malloc, &real.malloc, sizeof of_malloc);
    memcpy(&of_mmap, &real.mmap, sizeof of_mmap);
    if (real.malloc == behind_malloc || real.malloc == NULL || real.mmap == NULL
        || !dladdr(of_malloc, &allocator) || !dladdr(of_mmap, &library)
        || allocator.dli_fbase == library.dli_fbase) {
        return;
    }
#define SET(function)                      \
    behind.function = real.function;       \
    if (real.function != NULL) {           \
        real.function = behind_##function; \
    }
    SET(malloc)
    SET(calloc)
    SET(realloc)
    SET(free)
    SET(posix_memalign)
    SET(aligned_alloc)
    SET(memalign)
#undef SET
}

/* --- before the originals are known ---------------------------------------------------------------------------------------- */

static char early[64 << 10] __attribute__((aligned(16)));
static atomic_size_t early_used;

static void *
early_alloc(size_t size, size_t alignment)
{
    size_t room = size + alignment + 16;
    size_t at = atomic_fetch_add(&early_used, (room + 15) & ~(size_t)15);
    if (room < size || at + room > sizeof early) {
        errno = ENOMEM;
        return NULL;
    }
    uintptr_t block = ((uintptr_t)early + at + 16 + alignment - 1) & ~(uintptr_t)(alignment - 1);
    memcpy((char *)block - sizeof size, &size, sizeof size);
    return (void *)block;
}

void *
pmt__preload_early(size_t size)
{
    return early_alloc(size, 16);
}

static bool
is_early(const void *block)
{
    return (uintptr_t)block - (uintptr_t)early < sizeof early;
}

static void *
early_realloc(void *old, size_t size)
{
    size_t old_size;
    memcpy(&old_size, (char *)old - sizeof old_size, sizeof old_size);
    void *block = malloc(size);
    if (block != NULL) {
        memcpy(block, old, old_size < size ? old_size : size);
    }
    return block;
}

/* Whether calls can be passed on; the first to ask looks the originals up. */
static inline bool
ready(void)
{
    if (UNLIKELY(real.malloc == NULL)) {
        originals_find();
    }
    return real.malloc != NULL;
}

/* --- malloc and its relatives ------------------------------------------------------------------------------------------------ */

static inline void *
allocated(void *block, size_t size)
{
    const pmt__native_table *r = recorder();
    if (r != NULL && block != NULL) {
        r->allocated(block, size);
    }
    return block;
}

EXPORT void *
malloc(size_t size)
{
    if (UNLIKELY(!ready())) {
        return early_alloc(size, 16);
    }
    return allocated(real.malloc(size), size);
}

EXPORT void *
calloc(size_t count, size_t size)
{
    if (UNLIKELY(!ready())) { /* the buffer is still zero */
        size_t bytes;
        return __builtin_mul_overflow(count, size, &bytes) ? NULL : early_alloc(bytes, 16);
    }
    return allocated(real.calloc(count, size), count * size);
}

EXPORT void
free(void *block)
{
    if (UNLIKELY(block == NULL) || UNLIKELY(is_early(block)) || UNLIKELY(!ready())) {
        return;
    }
    const pmt__native_table *r = recorder();
    if (r != NULL) {
        r->freeing(block);
    }
    real.free(block);
}

EXPORT void free_sized(void *block, size_t size);
void
free_sized(void *block, size_t size)
{
    (void)size;
    free(block);
}

EXPORT void free_aligned_sized(void *block, size_t alignment, size_t size);
void
free_aligned_sized(void *block, size_t alignment, size_t size)
{
    (void)alignment;
    (void)size;
    free(block);
}

EXPORT void cfree(void *block);
void
cfree(void *block)
{
    free(block);
}

EXPORT void *
realloc(void *old, size_t size)
{
    if (UNLIKELY(!ready())) {
        return old == NULL ? early_alloc(size, 16) : early_realloc(old, size);
    }
    if (UNLIKELY(is_early(old))) {
        return early_realloc(old, size);
    }
    if (old == NULL) {
        return allocated(real.realloc(NULL, size), size);
    }
    const pmt__native_table *r = recorder();
    if (r == NULL) {
        return real.realloc(old, size);
    }
    if (size == 0) { /* a free, whatever comes back */
        r->freeing(old);
        return allocated(real.realloc(old, 0), 0);
    }
    return r->reallocate(real.realloc, old, size);
}

EXPORT void *
reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, bytes);
}

EXPORT int
posix_memalign(void **out, size_t alignment, size_t size)
{
    if (UNLIKELY(!ready())) {
        *out = early_alloc(size, alignment);
        return *out == NULL ? ENOMEM : 0;
    }
    int rc = real.posix_memalign(out, alignment, size);
    if (rc == 0) {
        allocated(*out, size);
    }
    return rc;
}

EXPORT void *
aligned_alloc(size_t alignment, size_t size)
{
    if (UNLIKELY(!ready())) {
        return early_alloc(size, alignment);
    }
    return allocated(real.aligned_alloc(alignment, size), size);
}

EXPORT void *memalign(size_t alignment, size_t size);
void *
memalign(size_t alignment, size_t size)
{
    if (UNLIKELY(!ready())) {
        return early_alloc(size, alignment);
    }
    return allocated(real.memalign(alignment, size), size);
}

EXPORT void *
valloc(size_t size)
{
    return ready() ? allocated(real.valloc(size), size) : early_alloc(size, PAGE);
}

EXPORT void *pvalloc(size_t size);
void *
pvalloc(size_t size)
{
    return ready() ? allocated(real.pvalloc(size), (size + PAGE - 1) & ~(size_t)(PAGE - 1))
                   : early_alloc(size, PAGE);
}

/* --- mappings ------------------------------------------------------------------------------------------------------------------

   Memory is what is anonymous and can be used: reservations (PROT_NONE) and files are not counted as memory of the program. */

static size_t
whole_pages(size_t size)
{
    return (size + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static bool
is_memory(int protection, int flags)
{
    return (flags & MAP_ANONYMOUS) && protection != PROT_NONE;
}

static void *
mapped(void *start, size_t size, int protection, int flags)
{
    const pmt__native_table *r = recorder();
    if (r != NULL && start != MAP_FAILED && LIKELY(!in_allocator)) {
        if (flags & MAP_FIXED) { /* what was there is gone */
            r->unmapping(start, whole_pages(size));
        }
        if (is_memory(protection, flags)) {
            r->mapped(start, whole_pages(size));
        }
    }
    return start;
}

EXPORT void *
mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (UNLIKELY(!ready())) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return mapped(real.mmap(address, size, protection, flags, fd, offset), size, protection, flags);
}

EXPORT void *
mmap64(void *address, size_t size, int protection, int flags, int fd, off64_t offset)
{
    if (UNLIKELY(!ready())) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return mapped(real.mmap64(address, size, protection, flags, fd, offset), size, protection,
                  flags);
}

EXPORT int
munmap(void *start, size_t size)
{
    if (UNLIKELY(!ready())) {
        errno = EINVAL;
        return -1;
    }
    const pmt__native_table *r = recorder();
    if (r != NULL && size != 0 && ((uintptr_t)start & (PAGE - 1)) == 0) { /* else it fails */
        r->unmapping(start, whole_pages(size));
    }
    return real.munmap(start, size);
}

EXPORT void *
mremap(void *old, size_t old_size, size_t size, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    void *fixed = flags & MREMAP_FIXED ? va_arg(args, void *) : NULL;
    va_end(args);
    if (UNLIKELY(!ready())) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    const pmt__native_table *r = recorder();
    if (r == NULL) {
        return real.mremap(old, old_size, size, flags, fixed);
    }
    /* Only whoever owns the range may do this, so nobody else gets the old addresses meanwhile. */
    void *moved = real.mremap(old, old_size, size, flags, fixed);
    if (moved != MAP_FAILED && r->remapped != NULL) {
        r->remapped(old, whole_pages(old_size), moved, whole_pages(size));
    }
    return moved;
}

EXPORT void *
sbrk(intptr_t increment)
{
    if (UNLIKELY(!ready())) {
        errno = ENOMEM;
        return (void *)-1;
    }
    void *before = real.sbrk(increment);
    const pmt__native_table *r = recorder();
    if (r != NULL && before != (void *)-1 && labs(increment) >= PAGE) {
        if (increment > 0) {
            r->mapped(before, (size_t)increment);
        } else {
            r->unmapping((char *)before + increment, (size_t)-increment);
        }
    }
    return before;
}

EXPORT int
brk(void *end)
{
    if (UNLIKELY(!ready())) {
        errno = ENOMEM;
        return -1;
    }
    char *before = real.sbrk(0);
    int rc = real.brk(end);
    const pmt__native_table *r = recorder();
    if (r != NULL && rc == 0 && before != (char *)-1 && labs((char *)end - before) >= PAGE) {
        if ((char *)end > before) {
            r->mapped(before, (size_t)((char *)end - before));
        } else if ((char *)end < before) {
            r->unmapping(end, (size_t)(before - (char *)end));
        }
    }
    return rc;
}

EXPORT int
dlclose(void *handle)
{
    if (UNLIKELY(!ready())) {
        return -1;
    }
    int rc = real.dlclose(handle);
    const pmt__native_table *r = recorder();
    if (r != NULL && rc == 0) {
        r->unloaded();
    }
    return rc;
}

/* --- looking up ---------------------------------------------------------------------------------------------------------------- */

#define KNOWN(function) {#function, (void **)(void *)&real.function, (void *)(uintptr_t)&function}
#define OURS(function) {#function, NULL, (void *)(uintptr_t)&function}
extern void *our_dlsym(void *handle, const char *name) __asm__("dlsym");
static const pmt__preload_function known[] = {
    KNOWN(calloc),
    KNOWN(realloc),
    KNOWN(reallocarray),
    KNOWN(free),
    KNOWN(posix_memalign),
    KNOWN(aligned_alloc),
    KNOWN(memalign),
    KNOWN(valloc),
    KNOWN(pvalloc),
    KNOWN(mmap),
    KNOWN(mmap64),
    KNOWN(munmap),
    KNOWN(mremap),
    KNOWN(sbrk),
    KNOWN(brk),
    KNOWN(dlclose),
    OURS(free_sized),
    OURS(free_aligned_sized),
    OURS(cfree),
    {"dlsym", NULL, (void *)(uintptr_t)&our_dlsym},
    KNOWN(malloc), /* the last: that it is known says that all are */
};
enum {
    KNOWN_COUNT = sizeof known / sizeof *known
};

const pmt__preload_function *
pymemtrace_preload_functions(size_t *count)
{
    *count = KNOWN_COUNT;
    return known;
}

static void
originals_find(void)
{
    static atomic_int finding;
    static __thread int inside;
    if (inside || real_dlsym() == NULL) {
        return;
    }
    inside = 1;
    atomic_fetch_add(&finding, 1); /* two threads at once find the same */
    for (int i = 0; i < KNOWN_COUNT; i++) {
        if (known[i].original != NULL) {
            *known[i].original = real_dlsym()(RTLD_NEXT, known[i].name);
        }
    }
    behind_set();
    inside = 0;
}

/* What dlsym should answer instead of `found`. */
__attribute__((used)) static void *
instead_of(void *found)
{
    for (int i = 0; found != NULL && i < KNOWN_COUNT; i++) {
        if (known[i].original != NULL && found == *known[i].original) {
            return known[i].ours;
        }
        void *first; /* of what lies behind, malloc is what people look up */
        memcpy(&first, &behind.malloc, sizeof first);
        if (found == first) {
            return (void *)(uintptr_t)&malloc;
        }
    }
    return found;
}

__attribute__((used)) static void *
dlsym_target(void)
{
    void *address;
    void *(*function)(void *, const char *) = real_dlsym();
    memcpy(&address, &function, sizeof address);
    return address;
}

/* RTLD_NEXT and RTLD_DEFAULT mean "as seen from the caller", whom the real dlsym finds by its return address: it must be jumped
   to. They also find us first where they should, so only look-ups in one library's handle need a second look. */
EXPORT void *pymemtrace_dlsym(void *handle, const char *name);
void *
pymemtrace_dlsym(void *handle, const char *name)
{
    return instead_of(real_dlsym()(handle, name));
}

#if defined(__x86_64__)
__asm__(".text\n"
        ".globl dlsym\n"
        ".type dlsym, @function\n"
        "dlsym:\n"
        "    lea 1(%rdi), %rax\n" /* RTLD_NEXT is -1, RTLD_DEFAULT 0 */
        "    cmp $1, %rax\n"
        "    ja pymemtrace_dlsym@PLT\n"
        "    push %rdi\n"
        "    push %rsi\n"
        "    sub $8, %rsp\n"
        "    call dlsym_target\n"
        "    add $8, %rsp\n"
        "    pop %rsi\n"
        "    pop %rdi\n"
        "    jmp *%rax\n"
        ".size dlsym, .-dlsym\n");
#endif

/* --- the start ------------------------------------------------------------------------------------------------------------------ */

/* Whoever started us has put us into LD_PRELOAD and noted under this name what had been there: nothing ("-"), or "=" and the
   value. The program and its children are to see that. Where our path could not stand there, an open descriptor does. */
#define BEFORE "PYMEMTRACE_LD_PRELOAD="

static void
environment_restore(void)
{
    extern char **environ;
    const char *before = NULL;
    char **out = environ;
    for (char **at = environ; at != NULL && *at != NULL; at++) {
        if (strncmp(*at, BEFORE, sizeof BEFORE - 1) == 0) {
            before = *at + sizeof BEFORE - 1;
        }
    }
    if (before == NULL) {
        return;
    }
    for (char **at = environ; *at != NULL; at++) {
        if (strncmp(*at, BEFORE, sizeof BEFORE - 1) == 0) {
            continue;
        }
        if (strncmp(*at, "LD_PRELOAD=", 11) == 0) {
            if (strncmp(*at + 11, "/proc/self/fd/", 14) == 0) {
                close(atoi(*at + 11 + 14));
            }
            if (*before != '=') {
                continue;
            }
            /* the value is a tail of the string that is there: "<our library>:<value>" */
            size_t have = strlen(*at + 11), want = strlen(before + 1);
            if (want <= have) {
                char *value = *at + 11 + have - want;
                memmove(*at + 11, value, want + 1);
            }
        }
        *out++ = *at;
    }
    *out = NULL;
}

__attribute__((constructor)) static void
start(void)
{
    originals_find();
    environment_restore();
}
