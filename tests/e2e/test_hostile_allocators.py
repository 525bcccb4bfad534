"""Other users of the allocator hooks, before, above and below ours."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile import (
    TARGETS,
    assert_same,
    assert_sums,
    assert_whole,
    compile_c,
    execute,
    extension,
    row_at,
)

from pymemtrace import _core


def assert_seen(reader: _core.Reader, mark: str, count: int) -> None:
    row = row_at(reader, "leaks", "allocators.py", mark)
    assert count * 10_000 <= row["bytes"] <= count * 10_200


@pytest.mark.parametrize(
    "allocator", ["debug", "malloc", "malloc_debug", "pymalloc", "pymalloc_debug", "default"]
)
def test_pythonmalloc(allocator: str) -> None:
    done = assert_same("allocators.py", "plain", env={"PYTHONMALLOC": allocator})
    assert_whole(done.reader)
    assert_seen(done.reader, "KEPT", 100)
    assert_seen(done.reader, "AFTER", 100)
    assert done.reader.proc()["allocator"] == {
        "debug": "pymalloc_debug", "default": "pymalloc",
    }.get(allocator, allocator)  # fmt: skip


@pytest.mark.parametrize("options", [["-Xdev"], ["-Xtracemalloc=5"], ["-Xdev", "-Xtracemalloc"]])
@pytest.mark.parametrize("what", ["plain", "tracemalloc_inside"])
def test_options(what: str, options: list[str]) -> None:
    done = assert_same("allocators.py", what, options=options)
    assert_whole(done.reader)
    assert_seen(done.reader, "KEPT", 100)
    assert_seen(done.reader, "AFTER", 100)


def test_tracemalloc_inside() -> None:
    done = assert_same("allocators.py", "tracemalloc_inside")
    assert_whole(done.reader)
    assert_seen(done.reader, "KEPT", 100)
    assert_seen(done.reader, "AFTER", 100)


@pytest.mark.parametrize("options", [[], ["-Xdev"]])
def test_tracemalloc_before_us(options: list[str]) -> None:
    """When it stops, it puts back the allocators that it found, which knew nothing of ours."""
    done = assert_same(
        "allocators.py", "tracemalloc_before", options=options, env={"PYTHONTRACEMALLOC": "5"}
    )
    assert_whole(done.reader)
    assert_seen(done.reader, "KEPT", 50)
    assert_seen(done.reader, "AFTER", 60)


def test_same_allocators_put_again() -> None:
    done = assert_same("allocators.py", "replaced")
    assert_whole(done.reader)
    assert_seen(done.reader, "KEPT", 100)


def test_hook_below_restores_what_it_found(tmp_path: Path) -> None:
    """Ours are taken off with it: they are put back at the next flush, and the capture says so."""
    compile_c("-shared", TARGETS / "restorer.c", "-o", tmp_path / extension("restorer"))
    (tmp_path / "sitecustomize.py").write_text("import restorer\nrestorer.on()\n")
    done = assert_same("allocators.py", "restored_below", env={"PYTHONPATH": str(tmp_path)})
    assert "hooks taken off" in done.reader.info()["dropped"]
    assert_sums(done.reader)
    row = row_at(done.reader, "leaks", "allocators.py", "AGAIN")
    assert 100 * 20_000 <= row["bytes"] <= 100 * 20_200


@pytest.mark.parametrize("free_threaded", [False, True])
def test_unknown_interpreters_are_refused(free_threaded: bool, tmp_path: Path) -> None:
    """The part that a build for an interpreter without a frame reader gets, asked from here."""
    source = Path(__file__).resolve().parents[2]
    include = [f"-I{source / 'src'}", f"-I{source / 'include'}"]
    compile_c(
        "-c", *include, *(["-DPy_GIL_DISABLED=1"] if free_threaded else []),
        source / "src/cpython/frames_unsupported.c", "-o", tmp_path / "unsupported.o",
    )  # fmt: skip
    compile_c(
        "-shared", *include, TARGETS / "refusing.c", tmp_path / "unsupported.o",
        source / "src/base/error.c", "-o", tmp_path / extension("refusing"),
    )  # fmt: skip
    code = "import refusing; print(*refusing.answers(), sep='\\n')"
    done = execute([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    first, check, second, install = done.stdout.splitlines()
    assert int(first) == int(second) < 0
    assert check == install
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"Python {version}{' (free-threaded)' if free_threaded else ''}:" in check
    assert "3.11, 3.12, 3.13, 3.14 and 3.15" in check
