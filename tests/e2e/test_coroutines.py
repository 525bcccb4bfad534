"""asyncio, greenlet and gevent: stacks are those of a plain walk; what is kept is at its lines.

With native frames in them as well."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKED = """
import sys
from pymemtrace import _core
_core.start("x.pmt", argv=["x"], native_traces=NATIVE)
_core._check_stacks(True)
main()
compared, different = _core._check_stacks(False)
_core.stop()
assert compared > 2000, compared
assert different == 0, (compared, different)
reader = _core.Reader("x.pmt")
for row in reader.aggregate("leaks").sites():
    if row["bytes"] > 40_000:
        names = [f["function"] for f in row["stack"] if "+0x" not in f["function"]]
        print(names[0], *reversed(names[1:]))
"""

ASYNCIO = """
import asyncio
kept = []
async def leaf(n):
    await asyncio.sleep(0)
    kept.append(bytearray(1000 + n))
async def middle(n):
    for k in range(20):
        await leaf(n + k)
async def streams():
    async for n in numbers():
        kept.append(bytearray(n))
async def numbers():
    for n in range(200):
        await asyncio.sleep(0)
        yield 1000 + n
async def everything():
    async with asyncio.TaskGroup() as group:
        for n in range(20):
            group.create_task(middle(n))
        group.create_task(streams())
    await asyncio.to_thread(lambda: kept.append(bytearray(300_000)))
def main():
    asyncio.run(everything())
"""

GREENLET = """
import greenlet
kept = []
def leaf(n):
    greenlet.getcurrent().parent.switch(n)
    kept.append(bytearray(1000 + n))
def body(depth, n):
    if depth:
        return body(depth - 1, n)
    for k in range(20):
        leaf(n + k)
def main():
    lets = [greenlet.greenlet(body) for _ in range(20)]
    for n, let in enumerate(lets):
        let.switch(n, n)
    while any(not let.dead for let in lets):
        for let in lets:
            if not let.dead:
                let.switch()
"""

GEVENT = """
import gevent, gevent.pool, gevent.queue
kept = []
queue = gevent.queue.Queue(3)
def producer(n):
    for k in range(20):
        queue.put(bytearray(1000 + n + k))
def consumer():
    while True:
        item = queue.get()
        if item is None:
            return
        kept.append(bytes(item))
def main():
    taker = gevent.spawn(consumer)
    pool = gevent.pool.Pool(8)
    pool.map(producer, range(20))
    queue.put(None)
    taker.join()
"""


native = pytest.mark.parametrize("native", [False, True], ids=["python", "native"])


def lines_of(program: str, folder: Path, native: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"NATIVE = {native}\n{program}{CHECKED}"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@native
def test_asyncio(native: bool, tmp_path: Path) -> None:
    lines = lines_of(ASYNCIO, tmp_path, native)
    assert any(line.startswith("leaf ") and line.endswith(" middle") for line in lines)
    assert any(line.startswith("streams ") for line in lines)
    assert any("<lambda>" in line.split()[0] and "_bootstrap" in line for line in lines)


@native
def test_greenlet(native: bool, tmp_path: Path) -> None:
    pytest.importorskip("greenlet", reason="greenlet is not installed for this interpreter")
    lines = lines_of(GREENLET, tmp_path, native)
    assert any(line.startswith("leaf ") and "body body" in line for line in lines)


@native
def test_gevent(native: bool, tmp_path: Path) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed for this interpreter")
    lines = lines_of(GEVENT, tmp_path, native)
    assert any(line.split()[0] == "consumer" for line in lines)
