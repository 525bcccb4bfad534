"""Six programs whose memory is made up differently; where.py records each of them.

where.py SCENE SECONDS
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

MIB = 1 << 20


def rounds(seconds: float) -> Iterator[int]:
    """Numbers until the time is over, some 50 ms apart at least."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1
        time.sleep(0.05)


def c_library() -> Any:
    import ctypes

    libc = ctypes.CDLL("libc.so.6")
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.malloc.restype = libc.mmap.restype = pointer
    libc.malloc.argtypes = [size]
    libc.free.argtypes = [pointer]
    libc.memset.argtypes = [pointer, number, size]
    libc.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_long]
    libc.munmap.argtypes = [pointer, size]
    return libc


def objects(seconds: float) -> None:
    """Rows of small objects, a part of which dies again and leaves holes."""
    kept: list[Any] = []
    for number in rounds(seconds):
        kept += [{"id": i, "name": f"row {number}.{i}", "tags": (i, str(i))} for i in range(4000)]
        if number % 20 == 19:
            kept = kept[::3]


def arrays(seconds: float) -> None:
    """numpy: large and small arrays, some of which are never written."""
    import numpy

    kept: list[Any] = []
    for number in rounds(seconds):
        kept.append(numpy.arange(number % 7 * 100_000 + 1000, dtype=numpy.float64))
        kept.append(numpy.zeros(500_000))
        kept += [numpy.ones(n) for n in range(10, 2000, 10)]
        if number % 10 == 9:
            kept = [array * 2 for array in kept[::2]]


def threads(seconds: float) -> None:
    """Twenty threads, each with its own heap of the C library."""
    import threading

    libc = c_library()

    def work() -> None:
        blocks = []
        for number in rounds(seconds):
            for size in range(1000, 60_000, 3000):
                block = libc.malloc(size)
                libc.memset(block, number & 255, size)
                blocks.append(block)
            if number % 8 == 7:
                for block in blocks[::2]:
                    libc.free(block)
                blocks = blocks[1::2]

    running = [threading.Thread(target=work) for _ in range(20)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def texts(seconds: float) -> None:
    """Large bytes objects and strings."""
    kept: list[Any] = []
    for number in rounds(seconds):
        kept.append(bytes([number & 255]) * ((number % 9 + 1) * MIB))
        kept.append("x" * (number % 5 * 200_000))
        if len(kept) > 60:
            del kept[::2]


def native(seconds: float) -> None:
    """Many small blocks of malloc, and mappings that are unmapped in parts."""
    import mmap

    libc = c_library()
    blocks: list[int] = []
    kept: list[Any] = []
    for number in rounds(seconds):
        for size in range(8, 4000, 8):
            block = libc.malloc(size)
            libc.memset(block, 1, size)
            blocks.append(block)
        if number % 5 == 4:
            for block in blocks[::4]:
                libc.free(block)
            del blocks[::4]
        start = libc.mmap(None, 2 * MIB, mmap.PROT_READ | mmap.PROT_WRITE,
                          mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)  # fmt: skip
        libc.memset(start, 1, 2 * MIB)
        libc.munmap(start + MIB // 2, MIB // 2)
        shared = mmap.mmap(-1, MIB)
        shared.write(b"s" * MIB)
        kept.append(shared)


def imports(seconds: float) -> None:
    """sqlite, lxml where it is, and half the standard library."""
    import importlib
    import sqlite3

    names = (
        "asyncio ctypes decimal difflib email.mime.text html.parser http.client http.server json"
        " logging.config multiprocessing pydoc sqlite3 tarfile unittest.mock urllib.request"
        " xml.dom.minidom xml.etree.ElementTree zipfile lxml.etree django jinja2 pygments.lexers"
    )
    for name in names.split():
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    base = sqlite3.connect(":memory:")
    base.execute("create table t (id integer primary key, name text, body blob)")
    trees: list[Any] = []
    for number in rounds(seconds):
        rows = [(f"name {number} {i}", b"b" * (i % 900)) for i in range(2000)]
        base.executemany("insert into t (name, body) values (?, ?)", rows)
        try:
            from lxml import etree
        except ImportError:
            continue
        trees.append(etree.fromstring("<r>" + "<a b='1'>text</a>" * 3000 + "</r>"))
        if number % 10 == 9:
            base.execute("delete from t where id % 3 = 0")
            del trees[::2]


SCENES: dict[str, Callable[[float], None]] = {
    "objects": objects,
    "arrays": arrays,
    "threads": threads,
    "texts": texts,
    "native": native,
    "imports": imports,
}

if __name__ == "__main__":
    SCENES[sys.argv[1]](float(sys.argv[2]))
