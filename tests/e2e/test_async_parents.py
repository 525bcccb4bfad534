"""The tasks that await a task are in its stack (--async-parents): which, in which order, where."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pymemtrace import _core

TARGETS = Path(__file__).resolve().parents[1] / "targets"
TARGET = TARGETS / "async_parents.py"
LINES = {
    match[1]: number
    for number, line in enumerate(TARGET.read_text().splitlines(), 1)
    if (match := re.search(r"  # (\w+)$", line))
}

# Of each scenario: the comments at the lines of its stack, from the first of the program's frames
# above the event loop on. Not in here: those that `check` knows.
WORKER = ("worker", "keep")
FAILING = ("failing", "keep")
STACKS: dict[str, tuple[str, ...]] = {
    "by_await": ("handler", "by_await", *WORKER),
    "by_gather": ("handler", "by_gather", *WORKER),
    "by_gather_of_gathers": ("handler", "by_gather_of_gathers", *WORKER),
    "by_wait": ("handler", "by_wait", *WORKER),
    "by_wait_for": ("handler", "by_wait_for", *WORKER),
    "by_wait_for_coroutine": ("handler", "by_wait_for_coroutine", *WORKER),
    "by_timeout": ("handler", "by_timeout", *WORKER),
    "by_shield": ("handler", "by_shield", *WORKER),
    "by_group": ("handler", "by_group", *WORKER),
    "three_levels": ("handler", "three_levels", "by_task_of_task", "inner", "by_gather", *WORKER),
    "by_generators": ("handler", "by_generators", "generator_based", "awaitable", *WORKER),
    "by_async_generator": ("handler", "by_async_generator", "numbers", *WORKER),
    "by_context_manager": ("handler", "by_context_manager", "opened", *WORKER),
    "by_future": WORKER,
    "forgotten": WORKER,
    "cancelled": FAILING,
    "finished": FAILING,
    "raising": ("handler", "raising", *FAILING),
    "two_parents": ("handler", "two_parents", *WORKER),
    "circle": ("handler", "circle", "two", "one", *FAILING),
    "subclass": ("handler", "subclass", *WORKER),
    "in_a_thread": ("by_gather", *WORKER),
    "executor": ("keep",),
    "eager": ("handler", "eager", "eager_body", "eager_child", "keep"),
    "debug": ("handler", "by_gather", *WORKER),
    "thread": ("handler", "by_group", *WORKER),
    "again": ("handler", "by_await", *WORKER),
}


def lines_of(*marks: str) -> tuple[int, ...]:
    return tuple(LINES[mark] for mark in marks)


def run(folder: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def recorded(folder: Path, *words: object) -> tuple[str, _core.Reader]:
    done = run(folder, "-m", "pymemtrace", "run", "-qfo", "x.pmt", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, _core.Reader(str(folder / "x.pmt"))


def kept_by_stack(reader: _core.Reader) -> Counter[tuple[int, ...]]:
    """Bytes by the lines of the program above the innermost frame of the loop."""
    kept = Counter[tuple[int, ...]]()
    for row in reader.aggregate("leaks").stacks():
        stack = [frame for frame in reversed(row["stack"]) if frame["file"].endswith(".py")]
        is_loop = [f["file"].endswith(("asyncio/events.py", "asyncio/runners.py")) for f in stack]
        first = len(stack) - is_loop[::-1].index(True) if any(is_loop) else 0
        lines = tuple(f["line"] for f in stack[first:] if f["file"] == str(TARGET))
        if lines and lines[-1] in lines_of("keep", "stepping") and row["bytes"] > 10_000:
            kept[lines] += row["bytes"]
    return kept


def expected(output: str) -> dict[tuple[int, ...], Counter[str]]:
    stacks: dict[tuple[int, ...], Counter[str]] = {}
    for line in output.splitlines():
        name, _, size = line.partition(" ")
        if name in STACKS and (name != "eager" or sys.version_info >= (3, 12)):
            stacks.setdefault(lines_of(*STACKS[name]), Counter())[name] += int(size)
    return stacks


def check(output: str, reader: _core.Reader) -> None:
    kept = kept_by_stack(reader)
    for lines, sizes in expected(output).items():
        size = kept.pop(lines, 0)
        assert sizes.total() < size < sizes.total() + 1000 * len(sizes), (sizes, lines, kept)
    assert kept.pop(lines_of("handler", "many", *WORKER)) > 3000 * 22_000
    for mark in ("repeated_first", "repeated"):  # the same task, awaited at another line
        assert kept.pop(lines_of("handler", mark, "stepping")) > 22_000
    assert not kept
    assert "task steps without their parents" not in reader.info()["counters"]


@pytest.mark.parametrize("options", [(), ("--native",), ("--events",)], ids=lambda o: str(o))
def test_every_way_to_await(options: tuple[str, ...], tmp_path: Path) -> None:
    plain = run(tmp_path, TARGET)
    output, reader = recorded(tmp_path, "--async-parents", *options, TARGET)
    assert output == plain.stdout
    assert reader.proc()["async_parents"] == 1
    check(output, reader)


def test_uvloop(tmp_path: Path) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed for this interpreter")
    if sys.version_info < (3, 12):
        pytest.skip("asyncio.Runner runs tasks of other loops from 3.12 on")
    output, reader = recorded(tmp_path, "--async-parents", TARGET, "uvloop")
    check(output.replace("eager", "not eager"), reader)


def test_nothing_without_the_option(tmp_path: Path) -> None:
    _, reader = recorded(tmp_path, TARGET)
    assert reader.proc()["async_parents"] == 0
    kept = kept_by_stack(reader)
    assert kept[lines_of(*WORKER)] > 3000 * 22_000
    assert not any(LINES["many"] in lines or LINES["by_group"] in lines for lines in kept)


# --- inside one program --------------------------------------------------------------------------

CHECKED = """
import sys
from pymemtrace import _core
_core.start("x.pmt", argv=["x"], async_parents=True, native_traces=NATIVE)
sys.path.insert(0, FOLDER)
import async_parents
_core._check_stacks(True)
if NATIVE:
    for number, name in enumerate(("three_levels", "by_generators", "raising", "circle")):
        async_parents.run(getattr(async_parents, name), 20_000 + number)
else:
    async_parents.main()
compared, different = _core._check_stacks(False)
_core.stop()
print((compared > 400, different))
"""


@pytest.mark.parametrize("native", [False, True], ids=["python", "native"])
def test_what_is_kept_is_what_a_walk_finds(native: bool, tmp_path: Path) -> None:
    text = f"NATIVE, FOLDER = {native}, {str(TARGET.parent)!r}\n{CHECKED}"
    done = run(tmp_path, "-c", text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "(True, 0)"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_programs(seed: int, tmp_path: Path) -> None:
    done = run(tmp_path, "-W", "ignore", TARGETS / "async_random.py", seed, 1.5)
    assert (done.returncode, done.stdout) == (0, "True 0\n"), done.stderr


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio knows who awaits from 3.14 on")
def test_it_is_what_asyncio_says(tmp_path: Path) -> None:
    output, reader = recorded(tmp_path, "--async-parents", TARGETS / "async_call_graph.py")
    found = []
    for row in reader.aggregate("leaks").stacks():
        if row["site"]["function"] == "keep" and row["bytes"] > 10_000:
            frames = [[f["function"].rpartition(".")[2], f["line"]] for f in row["stack"]]
            loop = [f["function"] for f in row["stack"]].index("Handle._run")
            found += [frames[1:loop]] * round(row["bytes"] / 20_000)  # of the same stack
    assert sorted(found) == sorted(json.loads(line) for line in output.splitlines())


@pytest.mark.parametrize("options", [(), ("--native",)], ids=["python", "native"])
def test_the_program_sees_nothing_of_it(options: tuple[str, ...], tmp_path: Path) -> None:
    target = TARGETS / "async_objects.py"
    without, _ = recorded(tmp_path, *options, target)
    with_parents, _ = recorded(tmp_path, "--async-parents", *options, target)
    assert with_parents == without
    assert len(without.splitlines()) > 20


WITHOUT_GIL = """
import asyncio, ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
kept = []
async def worker(size):
    kept.append(bytearray(10))
    kept.append(libc.malloc(size)) # known
    await asyncio.sleep(0)
    kept.append(libc.malloc(size)) # perhaps the first event of the step
    kept.append(bytearray(size)) # again
async def parent():
    await asyncio.gather(*(worker(50_000 + n) for n in range(100)))
asyncio.run(parent())
"""


@pytest.mark.parametrize("options", [(), ("--native",)], ids=["python", "native"])
def test_events_without_the_gil(options: tuple[str, ...], tmp_path: Path) -> None:
    """They have the parents if an event with the GIL came before them in that step of the task."""
    (tmp_path / "x.py").write_text(WITHOUT_GIL)
    _, reader = recorded(tmp_path, "--async-parents", *options, "x.py")
    found = Counter[tuple[str, ...]]()
    for row in reader.aggregate("leaks").stacks():
        stack = [f for f in reversed(row["stack"]) if f["file"].endswith("x.py")]
        if stack and stack[-1]["function"] == "worker" and row["bytes"] > 40_000:
            comment = WITHOUT_GIL.splitlines()[stack[-1]["line"] - 1].partition("# ")[2]
            found[comment, *(f["function"] for f in stack[1:-1])] += row["bytes"]
    assert found["known", "parent"] >= 5_000_000
    assert found["again", "parent"] >= 5_000_000
    assert all(len(key) == 2 or key[0].startswith("perhaps") for key in found)


IMPOSTORS = """
import asyncio
kept = []
def generator():
    kept.append(bytearray(30_000))
    yield
class Handle:
    __slots__ = ("_callback", "_loop", "_args")
    def _run(self):
        next(self._args)
def look(callback, loop):
    handle = Handle()
    handle._callback, handle._loop, handle._args = callback, loop, generator()
    handle._run()
def named(name, *bases):
    return type(name, bases, {"__slots__": ("a", "b", "c", "d"), "__call__": lambda *_: None})
async def worker():
    await asyncio.sleep(0.01)
async def parent():
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(worker())
    asyncio.create_task(second(task))
    await asyncio.sleep(0)
    (wakeup, _), = task._callbacks
    step = named("_asyncio.TaskStepMethWrapper")()
    step.a = step.b = step.c = step.d = 1
    false_task = named("_asyncio.Task")()
    false_task.a = false_task.b = false_task.c = false_task.d = 1
    step.a = false_task
    for callback in (wakeup, step, false_task, None, print, task.cancel, kept.append):
        for of in (loop, None, 1, task):
            look(callback, of)
    look(asyncio.current_task().get_coro, loop)
    task.add_done_callback(named("functools.partial")())
    task.add_done_callback(lambda _: None)
    await task
async def second(task):
    await task
handle = Handle()
handle._args = generator()
handle._run()  # it has no other slot
asyncio.run(parent())
"""


def test_what_only_looks_like_asyncio(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(IMPOSTORS)
    output, reader = recorded(tmp_path, "--async-parents", "x.py")
    assert output == ""
    # a real task's own callback, whose coroutine is another: at each of the four loops
    assert reader.info()["counters"]["task steps without their parents"] == 4
    names = {
        tuple(f["function"] for f in reversed(row["stack"]) if f["file"].endswith("x.py"))
        for row in reader.aggregate("leaks").stacks()
        if row["site"]["function"] == "generator"
    }
    outer = ("<module>", "parent", "look", "Handle._run", "generator")
    assert names == {outer, ("<module>", "Handle._run", "generator")}


def test_children_too(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, {str(TARGET)!r}], check=True)\n"
    )
    output, _ = recorded(tmp_path, "--async-parents", "x.py")
    captures = list(tmp_path.glob("x.*.pmt"))
    if not captures and " " in str(Path(_core.__file__).parent):
        pytest.skip("children by posix_spawn are not followed where the package's path has a space")
    (child,) = captures
    check(output, _core.Reader(str(child)))


def test_record_in_the_middle(tmp_path: Path) -> None:
    text = """
import asyncio, pymemtrace
kept = []
async def worker():
    with pymemtrace.record("x.pmt", async_parents=True) as recording:
        kept.append(bytearray(50_000))
        await asyncio.sleep(0)
        kept.append(bytearray(50_000))
async def parent():
    async with asyncio.TaskGroup() as group:
        group.create_task(worker())
asyncio.run(parent())
"""
    done = run(tmp_path, "-c", text)
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[Any] = _core.Reader(str(tmp_path / "x.pmt")).aggregate("leaks").stacks()
    for line in (6, 8):
        (row,) = [r for r in rows if r["site"]["line"] == line and r["bytes"] > 10_000]
        names = [f["function"] for f in reversed(row["stack"])]
        own = [name for name in names if not name.startswith("TaskGroup.")]
        assert own[own.index("Handle._run") + 1 :] == ["parent", "worker"]
