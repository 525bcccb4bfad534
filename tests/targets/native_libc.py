"""Takes memory past Python's allocators in every way that the C library offers, and says what it keeps.

Prints one line per function: name, bytes alive, blocks alive.
"""

import ctypes
import mmap

libc = ctypes.CDLL(None)
own = ctypes.CDLL("libc.so.6")  # its handle: malloc is looked up in the C library itself
VOID, SIZE = ctypes.c_void_p, ctypes.c_size_t


def function(library, name, result, *arguments):
    f = getattr(library, name)
    f.restype, f.argtypes = result, arguments
    return f


malloc = function(libc, "malloc", VOID, SIZE)
own_malloc = function(own, "malloc", VOID, SIZE)
own_free = function(own, "free", None, VOID)
free = function(libc, "free", None, VOID)
calloc = function(libc, "calloc", VOID, SIZE, SIZE)
realloc = function(libc, "realloc", VOID, VOID, SIZE)
reallocarray = function(libc, "reallocarray", VOID, VOID, SIZE, SIZE)
posix_memalign = function(libc, "posix_memalign", ctypes.c_int, ctypes.POINTER(VOID), SIZE, SIZE)
aligned_alloc = function(libc, "aligned_alloc", VOID, SIZE, SIZE)
memalign = function(libc, "memalign", VOID, SIZE, SIZE)
valloc = function(libc, "valloc", VOID, SIZE)
pvalloc = function(libc, "pvalloc", VOID, SIZE)
c_mmap = function(
    libc, "mmap", VOID, VOID, SIZE, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
)
munmap = function(libc, "munmap", ctypes.c_int, VOID, SIZE)
mremap = function(libc, "mremap", VOID, VOID, SIZE, SIZE, ctypes.c_int)
REST = (mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
MEMORY = (mmap.PROT_READ | mmap.PROT_WRITE, *REST)
MAYMOVE = 1
PAGE = 4096
keep = []


def with_malloc():
    for _ in range(100):
        malloc(1000)
    for block in [malloc(5000) for _ in range(50)]:
        free(block)
    return 100 * 1000, 100


def with_the_library_s_own():
    for _ in range(100):
        own_malloc(700)
    own_free(own_malloc(10_000))
    return 100 * 700, 100


def with_calloc():
    for _ in range(10):
        calloc(30, 100)
    return 10 * 3000, 10


def with_realloc():
    block = malloc(10)
    for size in (100, 10_000, 1_000_000, 2000):
        block = realloc(block, size)
    gone = malloc(40_000)
    realloc(gone, 0)  # a free
    realloc(None, 3000)
    reallocarray(None, 10, 400)
    return 2000 + 3000 + 4000, 3


def with_alignment():
    out = VOID()
    assert posix_memalign(ctypes.byref(out), 4096, 5000) == 0
    aligned_alloc(64, 6400)
    memalign(256, 7000)
    valloc(8000)
    pvalloc(9000)
    return 5000 + 6400 + 7000 + 8000 + 12_288, 5


def with_mmap():
    c_mmap(None, 10 * PAGE, *MEMORY)
    munmap(c_mmap(None, 7 * PAGE, *MEMORY), 7 * PAGE)
    c_mmap(None, 20 * PAGE, 0, *REST)  # a reservation is no memory
    return 10 * PAGE, 1


def with_holes():
    start = c_mmap(None, 30 * PAGE, *MEMORY)
    munmap(start, 5 * PAGE)  # the head
    munmap(start + 25 * PAGE, 5 * PAGE)  # the tail
    munmap(start + 10 * PAGE, 2 * PAGE)  # a hole
    gone = c_mmap(None, 9 * PAGE, *MEMORY)
    munmap(gone + 3 * PAGE, 3 * PAGE)
    munmap(gone, 3 * PAGE)
    munmap(gone + 6 * PAGE, 3 * PAGE)
    return 18 * PAGE, 1


def with_mremap():
    mremap(c_mmap(None, 4 * PAGE, *MEMORY), 4 * PAGE, 40 * PAGE, MAYMOVE)
    mremap(c_mmap(None, 40 * PAGE, *MEMORY), 40 * PAGE, 5 * PAGE, MAYMOVE)
    return 45 * PAGE, 2


def with_the_mmap_module():
    keep.append(mmap.mmap(-1, 100 * PAGE))
    gone = mmap.mmap(-1, 300 * PAGE)
    gone.close()
    return 100 * PAGE, 1


def main():
    for f in (
        with_malloc, with_the_library_s_own, with_calloc, with_realloc, with_alignment, with_mmap,
        with_holes, with_mremap, with_the_mmap_module,
    ):  # fmt: skip
        print(f.__name__, *f(), flush=True)


if __name__ == "__main__":
    main()
