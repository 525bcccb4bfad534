"""A reader that follows a capture while it grows."""

import time
from pathlib import Path

import pytest

import pymemtrace
from pymemtrace import _core

NUMBERS = ("bytes", "blocks", "allocated_bytes", "allocations", "temporary_bytes", "temporaries")


def test_what_comes_is_taken_in(tmp_path: Path) -> None:
    path = str(tmp_path / "a.pmt")
    with pymemtrace.record(path) as recording:
        first = bytearray(3_000_000)
        recording.flush()
        reader = _core.Reader(path, follow=True)
        assert reader.aggregate("leaks").bytes >= 3_000_000
        assert reader.refresh() is False
        second = bytearray(5_000_000)
        recording.flush()
        assert reader.refresh() is True
        again = _core.Reader(path)
        for view in ("peak", "leaks", "total", "temporary"):
            got, expected = reader.aggregate(view), again.aggregate(view)
            assert got.stacks() == expected.stacks()
            assert got.bytes == expected.bytes
        assert reader.thread_sums() == again.stats()["by_thread"]
        assert reader.timeline() == again.timeline()
        del first, second
    assert reader.refresh() is True
    assert reader.info()["ended"] == "normal"
    assert reader.refresh() is False


def test_another_capture_in_its_place_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "a.pmt")
    with pymemtrace.record(path):
        pass
    reader = _core.Reader(path, follow=True)
    aggregate = reader.aggregate("total")
    with pymemtrace.record(path, force=True):
        pass
    with pytest.raises(pymemtrace.PymemtraceError, match=r"a\.pmt: (another|the) file"):
        reader.refresh()
    with pytest.raises(ValueError, match="not open"):
        reader.info()
    assert aggregate.stacks()  # what was made before can be asked


def deeper(depth: int, kept: list[bytes]) -> None:
    kept.append(bytes(40 + depth))
    if depth:
        deeper(depth - 1, kept)


def test_the_writer_puts_a_shorter_file_in_its_place(tmp_path: Path) -> None:
    path = str(tmp_path / "a.pmt")
    kept: list[bytes] = []
    replaced = 0
    with pymemtrace.record(path, max_size_bytes=300_000, interval_s=0.01) as recording:
        reader = _core.Reader(path, follow=True)
        end = time.monotonic() + 30
        while replaced < 3 and time.monotonic() < end:
            for _ in range(20):
                deeper(200, kept)
            del kept[: len(kept) // 2]
            recording.flush()
            try:
                reader.refresh()
            except pymemtrace.PymemtraceError:
                replaced += 1
                reader = _core.Reader(path, follow=True)
            reader.aggregate("leaks")
    assert replaced == 3
    try:
        reader.refresh()
    except pymemtrace.PymemtraceError:
        reader = _core.Reader(path, follow=True)
    expected = _core.Reader(path)
    for view in ("peak", "leaks", "total", "temporary"):
        assert reader.aggregate(view).stacks() == expected.aggregate(view).stacks()


def test_only_a_follower_refreshes(tmp_path: Path) -> None:
    with pymemtrace.record(tmp_path / "a.pmt"):
        pass
    with pytest.raises(ValueError, match="does not follow"):
        _core.Reader(str(tmp_path / "a.pmt")).refresh()


def test_lines_have_own_and_total(tmp_path: Path) -> None:
    def inner() -> bytearray:
        return bytearray(1_000_000)

    def outer(depth: int) -> list[bytearray]:
        return [inner(), *(outer(depth - 1) if depth else [])]

    with pymemtrace.record(tmp_path / "a.pmt"):
        kept = outer(3)
    aggregate = _core.Reader(str(tmp_path / "a.pmt")).aggregate("peak")
    lines = aggregate.lines(1000)
    by_function = {line["site"]["function"].rpartition(".")[2]: line for line in lines}
    assert by_function["inner"]["own"]["bytes"] >= 4_000_000
    # four blocks below it, each once, although the line is on the stack four times
    assert 4_000_000 <= by_function["outer"]["total"]["bytes"] < 4_100_000
    assert by_function["outer"]["own"]["bytes"] < 100_000
    assert sum(line["own"]["bytes"] for line in lines) == aggregate.bytes
    sites = {str(row["site"]): row["bytes"] for row in aggregate.sites()}
    own = {str(line["site"]): line["own"]["bytes"] for line in lines}
    assert {site: own[site] for site in sites} == sites
    for number in NUMBERS:
        for total in (False, True):
            ordered = aggregate.lines(1000, by=number, total=total)
            values = [line["total" if total else "own"][number] for line in ordered]  # type: ignore[literal-required]
            assert values == sorted(values, reverse=True)
    assert len(aggregate.lines(2)) == 2
    with pytest.raises(ValueError, match="no order"):
        aggregate.lines(2, by="beauty")
    del kept
