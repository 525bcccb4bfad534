"""Other users of the allocator hooks, before, above and below ours."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile import TARGETS, assert_same, assert_sums, assert_whole, row_at

from pymemtrace import _core


def assert_seen(reader: _core.Reader, mark: str, count: int) -> None:
    row = row_at(reader, "leaks", "allocators.py", mark)
    assert count * 10_000 <= row["bytes"] <= count * 10_100


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


def build_restorer(folder: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    include = sysconfig.get_path("include")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", f"-I{include}", f"-I{Path(include).parent}",
         TARGETS / "restorer.c", "-o", folder / f"restorer{suffix}"],
        check=True,
    )  # fmt: skip


def test_hook_below_restores_what_it_found(tmp_path: Path) -> None:
    """Our hooks are taken off with it: they are put back at the next flush, and the capture says so."""
    build_restorer(tmp_path)
    (tmp_path / "sitecustomize.py").write_text("import restorer\nrestorer.on()\n")
    done = assert_same("allocators.py", "restored_below", env={"PYTHONPATH": str(tmp_path)})
    assert "hooks taken off" in done.reader.info()["dropped"]
    assert_sums(done.reader)
    row = row_at(done.reader, "leaks", "allocators.py", "AGAIN")
    assert 100 * 20_000 <= row["bytes"] <= 100 * 20_100
