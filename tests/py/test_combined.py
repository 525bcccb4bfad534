"""Several captures as one, on captures that an independent encoder wrote."""

import csv
import io
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import capture_builder as cb
from capture_answers import assert_nothing_is_leaked, key_of, parse_flame
from capture_builder import CaptureBuilder, Simulation

import pymemtrace
from pymemtrace import _core

pytestmark = pytest.mark.any_version

S = 10**9
START = 1_700_000_000 * S
FRAMES: list[cb.Frame] = [
    ("/app/app.py", "<module>", 10),
    ("/app/shop/cache.py", "Cache.load", 20),
    ("/usr/lib/python3.11/json/__init__.py", "loads", 30),
    ("/x/y.py", "f", 7),
]
VIEWS: list[Any] = ["peak", "leaks", "total", "temporary"]


def simulate(pid: int, *, start_s: float = 0, inherited: int = 0, **facts: object) -> Simulation:
    """A random process. Its stacks are drawn from those that all have, and some of its own."""
    rng = random.Random(pid)
    common = random.Random(1)
    stacks = [
        tuple(common.choice(FRAMES) for _ in range(common.choice((1, 2, 3, 9)))) for _ in range(9)
    ]
    stacks.append((FRAMES[0], ("/app/own.py", f"own_{pid}", pid)))
    if inherited:
        facts["inherited"] = 1
    it = Simulation(
        CaptureBuilder(
            pid=pid,
            started_unix_ns=START + int(start_s * S),
            command=["/usr/bin/python3", f"worker-{pid}.py"],
            **facts,
        )
    )
    it.builder.thread(1, pid, "MainThread")
    for _ in range(inherited):
        it.allocate(rng.choice(stacks), rng.choice((64, 5000)))
    if inherited:
        it.cut()
    rng.shuffle(stacks)
    for cut in range(4):
        for _ in range(rng.randrange(20, 120)):
            if it.live and rng.random() < 0.4:
                key = rng.choice(list(it.live))
                it.free(key, temporary=it.live[key].born == cut and rng.random() < 0.5)
            else:
                it.allocate(rng.choice(stacks), rng.choice((0, 1, 64, 512, 513, 70000)))
        it.cut(flags=cb.MAIN_RETURNED if cut == 3 else 0)
    it.builder.end(it.cuts * S)
    return it


def write(processes: list[Simulation], folder: Path) -> list[Path]:
    return [
        process.builder.write(folder / f"p{number}.pmt", status=cb.ENDED)
        for number, process in enumerate(processes)
    ]


def expected_of(process: Simulation, view: str, with_inherited: bool) -> dict[Any, list[int]]:
    """Per stack: bytes and blocks, from the blocks themselves."""
    kept = process.blocks
    if not with_inherited:
        process.blocks = [block for block in kept if block.epoch != 1]
    try:
        return {stack: list(value) for stack, value in process.expect(view).items()}
    finally:
        process.blocks = kept


@pytest.fixture
def processes() -> list[Simulation]:
    return [
        simulate(100),
        simulate(101, start_s=1, inherited=30, fork_parent_pid=100, fork_point_unix_ns=START + S),
        simulate(102, start_s=20),
    ]


@pytest.mark.parametrize("with_inherited", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_stacks_against_every_block(
    view: Any, with_inherited: bool, processes: list[Simulation], tmp_path: Path
) -> None:
    merged = pymemtrace.open_many(write(processes, tmp_path), with_inherited=with_inherited)
    expected: dict[Any, list[int]] = {}
    by_capture: dict[Any, list[int]] = {}
    for number, process in enumerate(processes):
        # Only the second has inherited anything: epoch 1 of the others is an epoch like any.
        counted = expected_of(process, view, with_inherited or number != 1)
        for stack, (size, blocks) in counted.items():
            sums = expected.setdefault(stack, [0, 0])
            sums[0] += size
            sums[1] += blocks
            by_capture.setdefault(stack, [0, 0, 0])[number] += size
    rows = merged.stacks(view)
    assert {key_of(row["stack"]): [row["bytes"], row["blocks"]] for row in rows} == expected
    assert {key_of(row["stack"]): row["by_capture"] for row in rows} == by_capture
    sizes = [row["bytes"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    aggregate = merged.aggregate(view)
    assert aggregate.bytes == sum(sizes) == sum(aggregate.by_capture)


@pytest.mark.parametrize("inverted", [False, True])
def test_trees_and_sites(inverted: bool, processes: list[Simulation], tmp_path: Path) -> None:
    merged = pymemtrace.open_many(write(processes, tmp_path))
    root = merged.tree("leaks", inverted=inverted)
    assert root["by_capture"] == merged.aggregate("leaks").by_capture
    waiting = [root]
    while waiting:
        node = waiting.pop()
        assert sum(node["by_capture"]) == node["bytes"]
        waiting += node["children"]
    by_line: Counter[tuple[Any, int]] = Counter()
    for row in merged.stacks("leaks"):
        for number, size in enumerate(row["by_capture"]):
            by_line[key_of(row["stack"])[-1], number] += size
    for row in merged.sites("leaks"):
        key = key_of([row["site"]])[0]
        assert row["by_capture"] == [by_line[key, number] for number in range(3)]


def test_totals_add_up(processes: list[Simulation], tmp_path: Path) -> None:
    paths = write(processes, tmp_path)
    merged = pymemtrace.open_many(paths, with_inherited=True)
    alone = [pymemtrace.open(path).totals() for path in paths]
    totals = merged.totals()
    for key in ("heap_bytes_peak", "heap_bytes_end", "allocated_bytes", "allocations", "frees"):
        assert totals[key] == sum(one[key] for one in alone)
        assert [process[key] for process in merged.processes()] == [one[key] for one in alone]
    assert totals["inherited_bytes"] == 0
    merged = pymemtrace.open_many(paths)
    once = merged.totals()
    inherited = [block for block in processes[1].blocks if block.epoch == 1]
    assert once["inherited_blocks"] == len(inherited) == 30
    size = sum(block.size for block in inherited)
    assert once["inherited_bytes"] == size == totals["allocated_bytes"] - once["allocated_bytes"]
    stats = merged.stats()
    assert stats["allocated_bytes"] == once["allocated_bytes"]
    assert [row["pid"] for row in stats["by_thread"]] == [100, 101, 102]
    assert stats["by_domain"]["obj"]["peak_bytes"] == once["heap_bytes_peak"]


def test_the_highest_sum_at_one_time(tmp_path: Path) -> None:
    """Of cuts that are simultaneous, and of spikes between them, which are not."""
    builders = []
    for pid, spike in ((1, 900), (2, 800)):
        builder = CaptureBuilder(pid=pid)
        for t, live in ((1, 100), (2, 300), (3, 200)):
            # The first has its peak at 2.25 s, the second one at 2.5 s.
            flags, peak = (
                (cb.PEAK_MOVED, (spike, 1, 2 * S + pid * S // 4)) if t == 3 else (0, (0,) * 3)
            )
            builder.cut(t * S, flags=flags, live=(live, 1), peak=peak)
        builder.end(3 * S)
        builders.append(builder)
    paths = [b.write(tmp_path / f"{n}.pmt", status=cb.ENDED) for n, b in enumerate(builders)]
    merged = pymemtrace.open_many(paths)
    totals = merged.totals()
    assert totals["heap_bytes_peak"] == 1700
    assert totals["heap_bytes_peak_simultaneous"] == 900 + 300
    assert totals["peak_simultaneous_t_s"] == 2.25
    assert totals["peak_simultaneous_processes"] == 2
    assert totals["peak_simultaneous_time"] == "2023-11-14T22:13:22.250000+00:00"
    times = {row["t_s"]: row["heap_bytes"] for row in merged.timeline()}
    assert times == {0.0: 0, 1.0: 200, 2.0: 600, 2.25: 1200, 2.5: 1100, 3.0: 0}


def test_processes_that_never_met(tmp_path: Path) -> None:
    processes = [simulate(pid, start_s=100 * pid) for pid in (1, 2, 3)]
    merged = pymemtrace.open_many(write(processes, tmp_path))
    peaks = [process["heap_bytes_peak"] for process in merged.processes()]
    assert merged.totals()["heap_bytes_peak_simultaneous"] == max(peaks)
    assert merged.totals()["peak_simultaneous_processes"] == 1
    assert merged.totals()["duration_s"] == 204


def test_a_window_counts_from_the_first_start(processes: list[Simulation], tmp_path: Path) -> None:
    merged = pymemtrace.open_many(write(processes, tmp_path))
    late = merged.aggregate("total", start_s=20)
    assert late.by_capture[:2] == [0, 0]
    assert late.by_capture[2] == sum(block.size for block in processes[2].blocks)
    with pytest.raises(ValueError, match="touches none of the captures"):
        merged.aggregate("total", start_s=10, end_s=15)
    with pytest.raises(ValueError, match="no thread of the captures"):
        merged.aggregate("total", thread="nobody")
    assert merged.aggregate("total", thread="101").by_capture[::2] == [0, 0]


def span(start_s: float, end_s: float) -> dict[str, float]:
    return {"start_s": start_s, "end_s": end_s}


@pytest.mark.parametrize(
    ("asked", "used", "own"),
    [
        # Each process' own windows; None: it is outside.
        ({}, span(0, 24), [(0, 4), (0, 5), (0, 4)]),
        (span(0, 100), span(0, 24), [(0, 4), (0, 5), (0, 4)]),
        (span(2.4, 4.4), span(2, 4), [(2, 4), (1, 3), None]),
        ({"start_s": 2.6}, span(3, 24), [(3, 4), (2, 5), (0, 4)]),
        ({"end_s": 3.3}, span(0, 3), [(0, 3), (0, 2), None]),
        ({"start_s": 20}, span(20, 24), [None, None, (0, 4)]),
        ({"start_s": 22.2}, span(22, 24), [None, None, (2, 4)]),
    ],
)
def test_the_window_that_is_used(
    asked: dict[str, float],
    used: dict[str, float],
    own: list[tuple[float, float] | None],
    processes: list[Simulation],
    tmp_path: Path,
) -> None:
    paths = write(processes, tmp_path)
    merged = pymemtrace.open_many(paths)
    readers = [_core.Reader(str(path)) for path in paths]
    for view in VIEWS:
        aggregate = merged.aggregate(view, by_process=True, **asked)
        assert aggregate.window == used
        expected = [
            0 if window is None else reader.aggregate(
                view, start_s=window[0], end_s=window[1], with_inherited=False
            ).bytes
            for reader, window in zip(readers, own, strict=True)
        ]  # fmt: skip
        assert aggregate.by_capture == expected
        # The page has the values of the window, and says which it is.
        flame = parse_flame(aggregate.flame())
        column = {"leaks": "leak", "temporary": "temp"}.get(view, view)
        assert sum(flame[f"{column}_bytes"]) == sum(expected)
        whole = used == span(0, 24)
        assert flame["head"].get("stretch") == (None if whole else used)
        assert ("life_node" in flame) == whole
        says = f"Only the time from {used['start_s']:.3f} s to {used['end_s']:.3f} s, in whole"
        assert any(note.startswith(says) for note in flame["head"]["notes"]) != whole
    stats = merged.stats(**asked)
    assert stats["window"] == used
    assert stats["allocated_bytes"] == merged.aggregate("total", **asked).bytes


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        (span(2, 3.9), span(2, 3.9)),  # used: 2 to 4, and 2.3 to 4.3
        ({"start_s": 2.6}, span(2.6, 4.3)),
        ({"end_s": 2.2}, span(0, 2.2)),
        ({}, span(0, 4.3)),
        ({"start_s": 4}, span(4, 4.3)),  # 3.3 to 4.3 of the second one only, and both ran there
    ],
)
def test_a_window_where_flushes_do_not_meet(
    asked: dict[str, float], used: dict[str, float], tmp_path: Path
) -> None:
    merged = pymemtrace.open_many(write([simulate(7), simulate(8, start_s=0.3)], tmp_path))
    assert merged.aggregate(**asked).window == used
    assert merged.stats(**asked)["window"] == used


def test_one_capture_is_itself(tmp_path: Path) -> None:
    [path] = write([simulate(7)], tmp_path)
    alone, merged = pymemtrace.open(path), pymemtrace.open_many([path])
    for view in VIEWS:
        rows = merged.stacks(view)
        for row in rows:
            assert row.pop("by_capture") == [row["bytes"]]
        assert rows == alone.stacks(view)
    for kind in ("collapsed", "speedscope"):
        assert merged.export(kind, "leaks") == alone.export(kind, "leaks")


def test_exports(processes: list[Simulation], tmp_path: Path) -> None:
    merged = pymemtrace.open_many(write(processes, tmp_path))
    total = merged.aggregate("leaks").bytes
    lines = merged.export("collapsed", "leaks").decode().splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == total
    rows = list(csv.DictReader(io.StringIO(merged.export("csv", "leaks").decode())))
    assert sum(int(row["bytes"]) for row in rows) == total
    for row, expected in zip(rows, merged.stacks("leaks"), strict=True):
        assert [int(row[f"process_{pid}"]) for pid in (100, 101, 102)] == expected["by_capture"]
    speedscope = json.loads(merged.export("speedscope", "leaks"))
    assert sum(speedscope["profiles"][0]["weights"]) == total
    assert merged.export("pprof", "leaks")


def test_data_frames(processes: list[Simulation], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pymemtrace.open_many(write(processes, tmp_path)).sites("leaks").to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert {"file", "line", "bytes", "by_capture"} <= set(frame.columns)


def test_flame_data(processes: list[Simulation], tmp_path: Path) -> None:
    merged = pymemtrace.open_many(write(processes, tmp_path))
    container = merged.aggregate("peak", by_process=True).flame(title="x")
    flame = parse_flame(container)
    header = flame["head"]
    assert [info["pid"] for info in header["captures"]] == [100, 101, 102]
    assert header["t_start"] == merged.totals()["started"]
    assert header["totals"] == {
        "peak_bytes": merged.totals()["heap_bytes_peak"],
        "peak_t_s": None,
    }
    assert "not simultaneous" in header["notes"][0]
    for name, view in (("peak", "peak"), ("leak", "leaks"), ("total", "total")):
        assert sum(flame[f"{name}_bytes"]) == merged.aggregate(view).bytes

    def outermost(node: int) -> str:
        while flame["node_parent"][node] != 0:
            node = flame["node_parent"][node]
        function: str = flame["strings"][flame["frame_function"][flame["node_frame"][node]]]
        return function

    sizes: Counter[str] = Counter()
    for node, size in zip(flame["val_node"], flame["total_bytes"], strict=True):
        sizes[outermost(node)] += size
    by_capture = merged.aggregate("total").by_capture
    names = [f"process {pid}: python3 worker-{pid}.py" for pid in (100, 101, 102)]
    assert sizes == dict(zip(names, by_capture, strict=True))
    # The third process starts 20 s after the first: so do its lives.
    assert header["buckets"] == {"count": 25, "width_s": 1.0}
    assert sum(flame["life_bytes"]) == merged.aggregate("total").bytes
    for node, birth in zip(flame["life_node"], flame["life_birth"], strict=True):
        assert (birth >= 20) == (outermost(node) == names[2])
    assert max(flame["tl_heap"]) == merged.totals()["heap_bytes_peak_simultaneous"]
    assert list(flame["tl_t"]) == sorted(flame["tl_t"])


def test_flame_data_of_too_many_stacks_is_folded(tmp_path: Path) -> None:
    builders = []
    for pid in (1, 2):
        builder = CaptureBuilder(pid=pid)
        rows = []
        node = builder.stack(FRAMES[0])
        for line in range(60_000):
            leaf = builder.inlined(node, "leaf", "/app/leaf.py", line)
            rows.append(cb.Row(builder.site(leaf, 100), 0, 1 + line % 7, 0))
        builder.cut(S, rows, live=(1, 1))
        builders.append(builder)
    paths = [b.write(tmp_path / f"{n}.pmt") for n, b in enumerate(builders)]
    merged = pymemtrace.open_many(paths)
    aggregate = merged.aggregate("leaks", by_process=True)
    assert len(aggregate.stacks()) == 120_000
    flame = parse_flame(aggregate.flame())
    assert len(flame["node_parent"]) < 100_010
    assert sum(flame["leak_bytes"]) == aggregate.bytes
    assert sum(flame["leak_blocks"]) == aggregate.blocks
    assert "[folded]" in flame["strings"]


def test_what_cannot_be_combined(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no captures"):
        pymemtrace.open_many([])
    with pytest.raises(TypeError, match="a Reader is needed, not int"):
        _core.Combined([1])  # type: ignore[list-item]
    with pytest.raises(OSError, match="missing"):
        pymemtrace.open_many([tmp_path / "missing"])
    combined = _core.Combined.__new__(_core.Combined)
    with pytest.raises(ValueError, match="no captures are combined here"):
        combined.totals()


@pytest.mark.parametrize("value", [0, 2, "no", ""])
def test_facts_that_do_not_say_inherited(value: object, tmp_path: Path) -> None:
    builder = CaptureBuilder(inherited=value)
    builder.cut(S, [cb.Row(builder.site(builder.stack(FRAMES[0]), 8), 0, 3, 0)])
    reader = _core.Reader(str(builder.write(tmp_path / "x.pmt")))
    assert not reader.info()["inherited"]
    assert _core.Combined([reader]).aggregate("total").blocks == 3


def test_one_capture_without_what_it_inherited(tmp_path: Path) -> None:
    process = simulate(5, inherited=4)
    [path] = write([process], tmp_path)
    assert pymemtrace.open_many([path]).totals()["inherited_blocks"] == 4
    reader = _core.Reader(str(path))
    allocated = len(process.blocks)
    assert reader.aggregate("total").blocks == allocated
    assert reader.aggregate("total", with_inherited=False).blocks == allocated - 4
    assert reader.stats(with_inherited=False)["allocations"] == allocated - 4


USE = """
def use():
    readers = [_core.Reader(path) for path in sys.argv[1:]]
    combined = _core.Combined(readers)
    for view in ("peak", "leaks"):
        aggregate = combined.aggregate(view, include=["*"], by_process=view == "peak")
        aggregate.sites(); aggregate.stacks(3); aggregate.tree(); aggregate.tree(inverted=True)
        aggregate.flame(); aggregate.by_capture
        for kind in ("pprof", "speedscope", "collapsed", "csv"):
            aggregate.export(kind)
    for name in ("info", "totals", "timeline", "stats"):
        getattr(combined, name)()
    for bad in (lambda: _core.Combined([]), lambda: _core.Combined([readers[0], 3]),
                lambda: combined.aggregate("x"), lambda: combined.stats(thread="nobody"),
                lambda: combined.aggregate(start_s=1e6), lambda: combined.__init__(readers)):
        try:
            bad()
        except Exception:
            pass
"""


def test_nothing_is_leaked(processes: list[Simulation], tmp_path: Path) -> None:
    paths = write(processes, tmp_path)
    assert_nothing_is_leaked(USE, 30, *paths)
