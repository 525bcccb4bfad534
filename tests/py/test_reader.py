"""Reader and Aggregate, on captures that an independent encoder wrote."""

import csv
import io
import json
import os
import random
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import capture_builder as cb
from capture_answers import assert_nothing_is_leaked, key_of, parse_flame
from capture_builder import CaptureBuilder, Row, Simulation

from pymemtrace import _core

S = 10**9
MAIN: cb.Frame = ("/app/app.py", "<module>", 10)
LOAD: cb.Frame = ("/app/shop/cache.py", "Cache.load", 20)
PARSE: cb.Frame = ("/usr/lib/python3.11/json/__init__.py", "loads", 30)
IMPORT: cb.Frame = ("<frozen importlib._bootstrap>", "_find_and_load", 40)


def stacks_of(aggregate: Any) -> dict[cb.Stack, tuple[int, int]]:
    rows = aggregate.stacks()
    result = {key_of(row["stack"]): (row["bytes"], row["blocks"]) for row in rows}
    assert len(result) == len(rows)
    return result


def simulate(seed: int, *, cuts: int = 6, end_cut: int | None = None) -> Simulation:
    """A random program: deep and shallow stacks, sizes around the border, recursion."""
    rng = random.Random(seed)
    frames = [MAIN, LOAD, PARSE, IMPORT, ("<string>", "<lambda>", 1), ("/x/y.py", "f", 7)]
    stacks = [
        tuple(rng.choice(frames) for _ in range(rng.choice((1, 2, 3, 5, 40)))) for _ in range(12)
    ]
    it = Simulation()
    it.builder.thread(1, 1001, "MainThread")
    it.builder.thread(2, 1002, "worker")
    for cut in range(cuts):
        for _ in range(rng.randrange(150)):
            if it.live and rng.random() < 0.45:
                key = rng.choice(list(it.live))
                it.free(key, temporary=it.live[key].born == cut and rng.random() < 0.5)
            else:
                size = rng.choice((0, 1, 48, 64, 511, 512, 513, 5000, 70000))
                it.allocate(
                    rng.choice(stacks), size, rng.randrange(1, 7), thread=rng.choice((1, 1, 2))
                )
        it.cut(flags=cb.MAIN_RETURNED if cut == end_cut else 0)
    it.builder.end(cuts * S)
    return it


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pmt"


def read(builder: CaptureBuilder, path: Path, **slots: int) -> Any:
    return _core.Reader(str(builder.write(path, **slots)))


# --- views --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("view", ["peak", "leaks", "total", "temporary"])
def test_views_against_every_block(seed: int, view: Any, path: Path) -> None:
    it = simulate(seed, end_cut=4 if seed % 2 else None)
    aggregate = read(it.builder, path).aggregate(view)
    expected = it.expect(view)
    assert stacks_of(aggregate) == expected
    assert aggregate.bytes == sum(bytes_ for bytes_, _ in expected.values())
    assert aggregate.blocks == sum(blocks for _, blocks in expected.values())
    assert aggregate.allocations == len(it.blocks)
    assert aggregate.allocated_bytes == sum(block.size for block in it.blocks)
    assert aggregate.view == view


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("view", ["leaks", "total", "temporary"])
def test_time_windows_against_every_block(seed: int, view: Any, path: Path) -> None:
    it = simulate(seed)
    reader = read(it.builder, path)
    for first in range(6):
        for last in range(first, 6):
            # A window covers whole cuts: those that its borders lie in.
            aggregate = reader.aggregate(view, start_s=first + 0.25, end_s=last + 0.75)
            assert stacks_of(aggregate) == it.expect(view, first, last)
            exact = reader.aggregate(view, start_s=first, end_s=last + 1)
            assert stacks_of(exact) == it.expect(view, first, last)


def test_a_window_ends_at_the_nearest_cuts(path: Path) -> None:
    it = Simulation()
    for seconds in (1.001, 2.001, 3.007, 3.2, 4.0):
        it.builder.cut(round(seconds * S))
    reader = read(it.builder, path)

    def window(start: float | None, end: float | None) -> tuple[float, float]:
        aggregate = reader.aggregate("total", start_s=start, end_s=end)
        assert reader.stats(start_s=start, end_s=end)["window"] == aggregate.window
        return aggregate.window["start_s"], aggregate.window["end_s"]

    assert window(1, 2) == (1.001, 2.001)
    assert window(2, 3) == (2.001, 3.007)
    assert window(None, 1) == (0.0, 1.001)
    assert window(3.15, None) == (3.2, 4.0)
    assert window(None, None) == window(0, 100) == (0.0, 4.0)
    # At least one cut: the one that the middle lies in.
    assert window(1.2, 1.3) == window(1.7, 1.8) == (1.001, 2.001)
    assert window(1.5, 1.5) == (1.001, 2.001)
    assert window(3.9, None) == window(3.99, 50) == (3.2, 4.0)
    assert window(None, 0.1) == window(0, 0) == (0.0, 1.001)


def test_the_peak_in_a_window_is_the_highest_cut_or_exact(path: Path) -> None:
    it = Simulation()
    small = it.allocate((MAIN,), 100)
    it.cut()  # 100
    big = it.allocate((MAIN, LOAD), 10_000)
    it.free(big)
    it.cut()  # the peak lies between two cuts: 10,100
    it.allocate((MAIN, PARSE), 300)
    it.free(small)
    it.cut()  # 300
    reader = read(it.builder, path)
    whole = {(MAIN,): (100, 1), (MAIN, LOAD): (10_000, 1)}
    assert stacks_of(reader.aggregate("peak")) == whole
    assert stacks_of(reader.aggregate("peak", start_s=1, end_s=2)) == whole
    assert stacks_of(reader.aggregate("peak", end_s=1)) == {(MAIN,): (100, 1)}
    assert stacks_of(reader.aggregate("peak", start_s=2)) == {(MAIN, PARSE): (300, 1)}


def test_an_epoch_that_was_under_way_at_the_windows_start(path: Path) -> None:
    """Its frees in the window are taken to be of blocks that the window saw being allocated."""
    it = Simulation()
    it.allocate((MAIN,), 10)
    it.allocate((MAIN,), 10)
    it.cut(next_epoch=False)
    third = it.allocate((MAIN,), 10)
    it.free(third)
    it.allocate((MAIN,), 10)
    it.cut()
    leaks = read(it.builder, path).aggregate("leaks", start_s=1)
    assert stacks_of(leaks) == {(MAIN,): (10, 1)}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"start_s": 3, "end_s": 2}, "ends before it starts"),
        ({"start_s": 100}, "behind the end"),
        ({"start_s": float("nan")}, "start_s"),
        ({"thread": "nobody"}, "nobody"),
        ({"view": "heap"}, "view must be"),
    ],
)
def test_queries_that_make_no_sense(kwargs: dict[str, Any], message: str, path: Path) -> None:
    reader = read(simulate(1).builder, path)
    with pytest.raises(ValueError, match=message):
        reader.aggregate(**kwargs)


def test_patterns_must_be_a_sequence(path: Path) -> None:
    reader = read(simulate(1).builder, path)
    with pytest.raises(TypeError, match="sequence"):
        reader.aggregate(include="app")
    with pytest.raises(TypeError, match="must be str"):
        reader.aggregate(exclude=[b"app"])
    with pytest.raises(ValueError, match="null"):
        reader.aggregate(exclude=["a\0b"])


# --- filters ------------------------------------------------------------------------------------


@pytest.fixture
def filtered(path: Path) -> Any:
    it = Simulation()
    it.builder.thread(1, 1001, "MainThread")
    it.builder.thread(2, 1002, "worker")
    it.allocate((MAIN,), 1)
    it.allocate((MAIN, LOAD), 2, thread=2)
    it.allocate((MAIN, LOAD, PARSE), 4)
    it.allocate((MAIN, IMPORT), 8)
    it.cut()
    return read(it.builder, path)


@pytest.mark.parametrize(
    ("kwargs", "total"),
    [
        ({"include": ["shop"]}, 6),  # a package
        ({"include": ["shop.cache"]}, 6),
        ({"include": ["cache"]}, 0),  # no such module
        ({"include": ["/app/shop/*"]}, 6),
        ({"include": ["*.py"]}, 15),
        ({"include": ["json", "importlib"]}, 12),
        ({"include": ["j?on"]}, 4),
        ({"include": ["[hij]son"]}, 4),
        ({"include": ["[!j]son"]}, 0),
        ({"exclude": ["json"]}, 11),
        ({"exclude": ["shop"]}, 13),  # the stack that ends in json stays
        ({"exclude": ["app", "importlib._bootstrap"]}, 6),
        ({"include": ["shop"], "exclude": ["json"]}, 2),
        ({"thread": "worker"}, 2),
        ({"thread": "1001"}, 13),
        ({"thread": "MainThread", "include": ["shop"]}, 4),
    ],
)
def test_filters(filtered: Any, kwargs: dict[str, Any], total: int) -> None:
    assert filtered.aggregate("total", **kwargs).bytes == total


def test_exclude_looks_through_synthetic_frames(path: Path) -> None:
    b = CaptureBuilder()
    node = b.synthetic(b.stack(MAIN, PARSE), "[folded]")
    b.cut(S, [Row(b.site(node, 8), 0, 1, 0)])
    reader = read(b, path)
    assert reader.aggregate("total").bytes == 8
    assert reader.aggregate("total", exclude=["json"]).bytes == 0


# --- rows, trees --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_sites_merge_stacks_by_innermost_location(seed: int, path: Path) -> None:
    it = simulate(seed)
    aggregate = read(it.builder, path).aggregate("total")
    expected: Counter[cb.Frame] = Counter()
    heaviest: dict[cb.Frame, int] = {}
    for stack, (bytes_, _) in it.expect("total").items():
        expected[stack[-1]] += bytes_
        heaviest[stack[-1]] = max(bytes_, heaviest.get(stack[-1], 0))
    rows = aggregate.sites()
    assert {key_of([row["site"]])[0]: row["bytes"] for row in rows} == dict(expected)
    assert [row["bytes"] for row in rows] == sorted(expected.values(), reverse=True)
    for row in rows:
        assert row["stack"][0] == row["site"]
        assert it.expect("total")[key_of(row["stack"])][0] == heaviest[key_of([row["site"]])[0]]
        assert row["share"] == pytest.approx(row["bytes"] / aggregate.bytes)
    assert aggregate.sites(2) == rows[:2]
    assert aggregate.stacks(limit=0) == []


def flatten(node: dict[str, Any], prefix: cb.Stack = ()) -> dict[cb.Stack, tuple[int, int]]:
    result = {prefix: (node["bytes"], node["blocks"])}
    weights = [(child["bytes"], child["blocks"]) for child in node["children"]]
    assert weights == sorted(weights, reverse=True)
    for child in node["children"]:
        site = child["site"]
        result |= flatten(child, (*prefix, (site["file"], site["function"], site["line"])))
    return result


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_trees_sum_up_their_subtrees(seed: int, inverted: bool, path: Path) -> None:
    it = simulate(seed)
    aggregate = read(it.builder, path).aggregate("leaks")
    expected: dict[cb.Stack, tuple[int, int]] = {}
    for stack, (bytes_, blocks) in it.expect("leaks").items():
        frames = stack[::-1] if inverted else stack
        for depth in range(len(frames) + 1):
            old = expected.get(frames[:depth], (0, 0))
            expected[frames[:depth]] = (old[0] + bytes_, old[1] + blocks)
    assert flatten(aggregate.tree(inverted=inverted)) == expected
    short = flatten(aggregate.tree(inverted=inverted, max_depth=2))
    assert short == {path: value for path, value in expected.items() if len(path) <= 2}
    least = 0.05 * aggregate.bytes
    heavy = flatten(aggregate.tree(inverted=inverted, min_share=0.05))
    assert heavy == {path: v for path, v in expected.items() if v[0] >= least or not path}


def test_a_stack_of_10000_frames(path: Path) -> None:
    it = Simulation()
    it.allocate([("/app/app.py", "f", line % 3 + 1) for line in range(10_000)], 64)
    it.cut()
    aggregate = read(it.builder, path).aggregate("total")
    assert len(aggregate.stacks()[0]["stack"]) == 10_000
    for inverted in (False, True):
        node = aggregate.tree(inverted=inverted)
        depth = 0
        while node["children"]:
            node = node["children"][0]
            depth += 1
        assert depth == 10_000


def test_an_empty_capture_has_empty_views(path: Path) -> None:
    reader = read(CaptureBuilder(), path)
    aggregate = reader.aggregate("peak")
    assert (aggregate.bytes, aggregate.sites(), aggregate.stacks()) == (0, [], [])
    assert aggregate.tree()["children"] == []
    assert reader.totals()["heap_bytes_peak"] == 0
    assert reader.epochs() == reader.timeline() == reader.stats()["size_histogram"] == []
    for kind in ("pprof", "speedscope", "collapsed", "csv"):
        assert isinstance(aggregate.export(kind), bytes)
    assert parse_flame(aggregate.flame())["node_parent"] == (0,)


# --- lines and names ----------------------------------------------------------------------------


def code_objects(code: CodeType) -> list[CodeType]:
    found = [code]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += code_objects(constant)
    return found


@pytest.mark.parametrize("module", ["json.decoder", "argparse", "asyncio.tasks", "typing", "ast"])
def test_lines_of_real_code_objects(module: str, path: Path) -> None:
    import importlib.util

    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_bytes()
    b = CaptureBuilder()
    expected: Counter[tuple[str, int]] = Counter()
    rows: Counter[int] = Counter()
    for code in code_objects(compile(source, spec.origin, "exec")):
        id_ = b.code_object(code)
        for start, end, line in code.co_lines():
            for offset in range(start, end, 2):
                rows[b.site(b.python(0, id_, offset), 1)] += 1
                expected[code.co_qualname, line or 0] += 1
    b.cut(S, [Row(site, 0, count, 0) for site, count in rows.items()])
    found: Counter[tuple[str, int]] = Counter()
    for row in read(b, path).aggregate("total").stacks():
        found[row["site"]["function"], row["site"]["line"]] += row["blocks"]
    assert found == expected


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("/app/app.py", "app"),
        ("/app/shop/cache.py", "shop.cache"),
        ("/app/shop/__init__.py", "shop"),
        ("/app/__init__.py", "__init__"),
        ("/usr/lib/python3.11/json/decoder.py", "json.decoder"),
        ("/usr/lib/python3.11/site-packages/numpy/core/x.cpython-311.so", "numpy.core.x"),
        ("/application/app.py", "app"),  # no entry contains it
        ("/elsewhere/tool", "tool"),
        ("relative/mod.py", "relative.mod"),
        ("./mod.py", "mod"),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap"),
        ("<frozen runpy>", "runpy"),
        ("<string>", ""),
        ("<frozen ", ""),
        ("", ""),
        ("/", ""),
    ],
)
def test_module_names(file: str, module: str, path: Path) -> None:
    it = Simulation()
    it.allocate(((file, "f", 3),), 8)
    it.cut()
    (row,) = read(it.builder, path).aggregate("total").sites()
    assert row["site"] == {"file": file, "line": 3, "function": "f", "module": module}


def test_a_module_name_that_was_recorded_counts(path: Path) -> None:
    b = CaptureBuilder()
    code = b.code("/app/app.py", "f", module="__main__")
    b.cut(S, [Row(b.site(b.python(0, code, None), 8), 0, 1, 0)])
    (row,) = read(b, path).aggregate("total").sites()
    assert row["site"] == {"file": "/app/app.py", "line": 0, "function": "f", "module": "__main__"}


def test_native_inlined_and_synthetic_frames(path: Path) -> None:
    b = CaptureBuilder()
    node = b.native(b.stack(MAIN), "/lib/libx.so.1", 0x1234)
    node = b.inlined(node, "fast", "fast.c", 7)
    node = b.synthetic(node, "[folded]")
    b.cut(S, [Row(b.site(node, 8), 0, 1, 0)])
    (row,) = read(b, path).aggregate("total").stacks()
    assert row["stack"] == [
        {"file": "", "line": 0, "function": "[folded]", "module": ""},
        {
            "file": "fast.c",
            "line": 7,
            "function": "fast",
            "module": "",
            "kind": "inlined",
            "symbol": "fast",
            "object": "",
        },
        {
            "file": "/lib/libx.so.1",
            "line": 0,
            "function": "libx.so.1+0x1234",
            "module": "",
            "kind": "native",
            "symbol": "libx.so.1+0x1234",
            "object": "/lib/libx.so.1",
        },
        {"file": "/app/app.py", "line": 10, "function": "<module>", "module": "app"},
    ]


@pytest.mark.parametrize(
    "name", ["naïve", "日本", "lone\udc80surrogate", 'quo"te,\n;x', "\x1b[31m"]
)
def test_names_of_any_kind_go_through_everything(name: str, path: Path) -> None:
    it = Simulation()
    it.allocate((MAIN, (f"/x/{name}.py", name, 3)), 8)
    it.cut()
    aggregate = read(it.builder, path).aggregate("total")
    assert aggregate.sites()[0]["site"]["function"] == name
    profile = json.loads(aggregate.export("speedscope"))
    assert name in [frame["name"] for frame in profile["shared"]["frames"]]
    shown = name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if "\udc80" in name:
        shown = name.replace("\udc80", "�")
    (row,) = csv.DictReader(io.StringIO(aggregate.export("csv").decode()))
    assert row["function"] == shown
    (line,) = aggregate.export("collapsed").decode().splitlines()
    assert line.count(";") == 1
    assert shown in pprof(aggregate)["strings"]
    parse_flame(aggregate.flame(title=name))


# --- facts --------------------------------------------------------------------------------------


def test_info_of_a_run_that_ended(path: Path) -> None:
    b = CaptureBuilder()
    b.cut(S, counters={1: 5, 2: 7, 3: 9, 6: 1})
    b.end(2 * S)
    info = read(b, path, status=cb.ENDED).info()
    assert info == {
        "path": str(path),
        "pid": 4711,
        "parent_pid": 0,
        "inherited": False,
        "command": ["python", "app.py"],
        "python": "3.11.7",
        "mode": "full",
        "started": "2023-11-14T22:13:20.000000+00:00",
        "duration_s": 2.0,
        "ended": "normal",
        "ended_by": None,
        "exit_status": None,
        "age_s": 0.0,
        "dropped": {"memory limit": 5},
        "folded": 7,
        "counters": {
            "memory limit": 5,
            "folded stacks": 7,
            "frees of earlier blocks": 9,
            "events without the GIL": 1,
        },
        "stopped": None,
        "damaged": None,
        "torn": None,
        "id": bytes(range(16)).hex(),
        "version": "1.0",
        "cuts": 1,
    }


def own_facts() -> dict[str, object]:
    stat = Path("/proc/self/stat").read_text()
    return {
        "pid": os.getpid(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "start_ticks": int(stat[stat.rindex(")") + 2 :].split()[19]),
    }


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        ({}, "running"),
        ({"boot_id": "0000"}, "killed"),
        ({"start_ticks": 1}, "killed"),
        ({"pid": 2**31 - 1}, "killed"),
    ],
)
def test_a_capture_without_end(change: dict[str, object], ended: str, path: Path) -> None:
    b = CaptureBuilder(**{**own_facts(), **change})
    b.cut(S)
    info = read(b, path).info()
    assert info["ended"] == ended
    assert (info["damaged"], info["torn"]) == (None, None)
    assert (info["age_s"] > 0) is (ended == "running")


def test_a_recording_that_stopped_early_says_why(path: Path) -> None:
    b = CaptureBuilder(**own_facts())
    b.cut(S)
    info = read(b, path, status=cb.STOPPED, reason=1, error=28).info()
    assert info["ended"] == "killed"
    assert info["stopped"] == "no space left on the device"


def test_facts_and_lists(path: Path) -> None:
    it = Simulation(CaptureBuilder(extra="x", depth=-3, tags=["a", ""]))
    it.builder.thread(1, 1001, "MainThread")
    it.builder.thread(2, 1002, "worker", birth_ns=S // 2)
    it.allocate((MAIN,), 100)
    it.cut()
    it.builder.thread(2, 1002, "renamed", flags=1)
    it.mark("batch 1", S + 5 * 10**8)
    key = it.allocate((MAIN,), 2000)
    it.cut(flags=cb.MAIN_RETURNED)
    it.free(key)
    it.cut()
    reader = read(it.builder, path)
    assert reader.path == str(path)
    proc = reader.proc()
    assert (proc["extra"], proc["depth"], proc["tags"], proc["pid"]) == ("x", -3, ["a", ""], 4711)
    assert [(t["id"], t["native_id"], t["name"], t["ended"]) for t in reader.threads()] == [
        (1, 1001, "MainThread", False),
        (2, 1002, "renamed", True),
    ]
    assert reader.marks() == [{"epoch": 2, "t_s": 1.5, "label": "batch 1"}]
    assert [row["t_s"] for row in reader.timeline()] == [1.0, 2.0, 3.0]
    assert [row["heap_bytes"] for row in reader.timeline()] == [100, 2100, 100]
    totals = reader.totals()
    assert totals["heap_bytes_peak"] == totals["heap_bytes_end"] == 2100
    assert (totals["allocations"], totals["frees"], totals["allocated_bytes"]) == (2, 1, 2100)
    assert totals["rss_bytes_peak"] == 10**7 + 3 * 4096
    assert [
        (e["epoch"], e["start_s"], e["end_s"], e["label"], e["allocated_bytes"], e["live_bytes"])
        for e in reader.epochs()
    ] == [
        (1, 0.0, 1.0, None, 100, 100),
        (2, 1.0, 1.5, "batch 1", 0, 0),
        (3, 1.5, 2.0, None, 2000, 2000),
        (4, 2.0, 3.0, None, 0, 0),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_stats_against_every_block(seed: int, path: Path) -> None:
    it = simulate(seed)
    reader = read(it.builder, path)
    stats = reader.stats()
    classes: Counter[int] = Counter(block.size.bit_length() for block in it.blocks)
    assert {(row["low"], row["high"]): row["allocations"] for row in stats["size_histogram"]} == {
        (1 << n >> 1, (1 << n) - 1): count for n, count in classes.items()
    }
    assert sum(row["bytes"] for row in stats["size_histogram"]) == sum(b.size for b in it.blocks)
    domains = ["obj", "mem", "raw", "malloc", "mmap", "track"]
    assert list(stats["by_domain"]) == domains
    for number, name in enumerate(domains, 1):
        blocks = [block for block in it.blocks if block.domain == number]
        assert stats["by_domain"][name]["allocations"] == len(blocks)
        assert stats["by_domain"][name]["peak_bytes"] == sum(b.size for b in blocks if b.at_peak)
    for row in stats["by_thread"]:
        blocks = [block for block in it.blocks if block.thread == row["id"]]
        assert row["allocated_bytes"] == sum(block.size for block in blocks)
        assert row["end_blocks"] == sum(block.died is None for block in blocks)
    ages: Counter[int] = Counter(
        (block.died - block.born).bit_length() for block in it.blocks if block.died is not None
    )
    assert {row["high"]: row["blocks"] for row in stats["lifetimes"]} == {
        (1 << n) - 1: count for n, count in ages.items()
    }
    assert stats["frees"] == it.frees


# --- other formats ------------------------------------------------------------------------------


def test_collapsed_and_csv(path: Path) -> None:
    it = simulate(3)
    aggregate = read(it.builder, path).aggregate("leaks")

    def label(frame: cb.Frame) -> str:
        return f"{frame[1]} ({frame[0]}:{frame[2]})"

    expected = {";".join(map(label, s)): v[0] for s, v in it.expect("leaks").items()}
    lines = aggregate.export("collapsed", full_paths=True).decode().splitlines()
    assert {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines} == expected
    inverted = {";".join(map(label, s[::-1])): v[0] for s, v in it.expect("leaks").items()}
    lines = aggregate.export("collapsed", inverted=True, full_paths=True).decode().splitlines()
    assert {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines} == inverted
    table = list(csv.DictReader(io.StringIO(aggregate.export("csv").decode())))
    assert {row["stack"]: int(row["bytes"]) for row in table} == inverted
    assert sum(int(row["blocks"]) for row in table) == aggregate.blocks


def test_speedscope(path: Path) -> None:
    it = simulate(4)
    aggregate = read(it.builder, path).aggregate("total")
    profile = json.loads(aggregate.export("speedscope"))
    assert profile["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = [(f["file"], f["name"], f["line"]) for f in profile["shared"]["frames"]]
    for index, part in enumerate(("bytes", "blocks")):
        samples = profile["profiles"][index]
        found = {
            tuple(frames[i] for i in sample): weight
            for sample, weight in zip(samples["samples"], samples["weights"], strict=True)
        }
        assert found == {s: v[index] for s, v in it.expect("total").items()}
        assert samples["endValue"] == sum(samples["weights"])
        assert samples["name"] == part


def fields(data: bytes) -> list[tuple[int, Any]]:
    """The fields of a protocol buffer message."""
    out: list[tuple[int, Any]] = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            out.append((tag >> 3, number()))
        else:
            assert tag & 7 == 2
            size = number()
            out.append((tag >> 3, data[at : at + size]))
            at += size
    return out


def packed(data: bytes) -> list[int]:
    """Varints in a row, read as fields 0 of a message: each gets a tag."""
    values = []
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value)
            value = shift = 0
    return values


def pprof(aggregate: Any) -> dict[str, Any]:
    message = fields(aggregate.export("pprof"))
    strings = [value.decode() for tag, value in message if tag == 6]
    functions = {}
    for tag, value in message:
        if tag == 5:
            it = dict(fields(value))
            assert 3 not in it  # system_name: pprof would take the name for one of C++
            name = strings[it[2]]
            if name == "app.<module>":
                name = "<module>"
            functions[it[1]] = (strings[it[4]], name)
    locations = {}
    for tag, value in message:
        if tag == 4:
            it = dict(fields(value))
            line = dict(fields(it[4]))
            locations[it[1]] = (*functions[line[1]], line[2])
    samples = {}
    for tag, value in message:
        if tag == 2:
            it = dict(fields(value))
            samples[tuple(locations[i] for i in reversed(packed(it[1])))] = packed(it[2])
    types = [dict(fields(value)) for tag, value in message if tag == 1]
    return {
        "strings": strings,
        "samples": samples,
        "types": [(strings[it[1]], strings[it[2]]) for it in types],
        "default": strings[dict(message)[14]],
        "duration": dict(message)[10],
    }


@pytest.mark.parametrize("view", ["peak", "leaks", "total", "temporary"])
def test_pprof(view: Any, path: Path) -> None:
    it = simulate(5)
    profile = pprof(read(it.builder, path).aggregate(view))
    assert profile["strings"][0] == ""
    assert profile["types"] == [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ]
    allocated = it.expect("temporary" if view == "temporary" else "total")
    inuse = it.expect("peak" if view == "peak" else "leaks")
    expected = {}
    for stack in allocated.keys() | inuse.keys():
        a, u = allocated.get(stack, (0, 0)), inuse.get(stack, (0, 0))
        if a != (0, 0) or u != (0, 0):
            expected[stack] = [a[1], a[0], u[1], u[0]]
    assert profile["samples"] == expected
    assert profile["default"] == ("inuse_space" if view in ("peak", "leaks") else "alloc_space")
    assert profile["duration"] == 6 * S


def flame_stacks(flame: dict[str, Any]) -> list[cb.Stack]:
    stacks: list[cb.Stack] = [()]
    for node in range(1, len(flame["node_parent"])):
        frame = flame["node_frame"][node]
        location = (
            flame["strings"][flame["frame_file"][frame]],
            flame["strings"][flame["frame_function"][frame]],
            flame["frame_line"][frame],
        )
        stacks.append((*stacks[flame["node_parent"][node]], location))
    return stacks


@pytest.mark.parametrize("seed", range(6))
def test_flame_data(seed: int, path: Path) -> None:
    it = simulate(seed, end_cut=4 if seed % 2 else None)
    it.builder.mark(1, S, "mark")
    flame = parse_flame(read(it.builder, path).aggregate("peak").flame(title="T"))
    head = flame["head"]
    assert (head["title"], head["view"], head["inverted"]) == ("T", "peak", False)
    assert head["captures"][0]["pid"] == 4711
    assert head["totals"] == {"peak_bytes": it.peak_bytes, "peak_t_s": it.peak_t_ns / 1e9}
    assert head["t_start"] == head["captures"][0]["started"]
    stacks = flame_stacks(flame)
    columns = {"peak": "peak", "leak": "leaks", "total": "total", "temp": "temporary"}
    for column, view in columns.items():
        found: dict[cb.Stack, tuple[int, int]] = {}
        for i, node in enumerate(flame["val_node"]):
            bytes_, blocks = flame[f"{column}_bytes"][i], flame[f"{column}_blocks"][i]
            old = found.get(stacks[node], (0, 0))
            if bytes_ or blocks:
                found[stacks[node]] = (old[0] + int(bytes_), old[1] + int(blocks))
        assert found == it.expect(view)
    names = {t["id"]: t["name"] for t in head["threads"]}
    assert set(names.values()) == {"MainThread", "worker"}

    # Cuts are seconds here, and so are buckets: births and deaths are those of the blocks.
    assert head["buckets"]["width_s"] == 1.0
    end = it.cuts - 1 if it.end_cut is None else it.end_cut
    lives: Counter[tuple[cb.Stack, str, int, int]] = Counter()
    for block in it.blocks:
        alive = block.died is None or block.died > end
        death = 0xFFFF if alive or block.died is None else block.died
        thread = "MainThread" if block.thread == 1 else "worker"
        lives[block.stack, thread, block.born, death] += 1
    assert lives == {
        (
            stacks[flame["life_node"][i]],
            names[flame["life_thread"][i]],
            flame["life_birth"][i],
            flame["life_death"][i],
        ): flame["life_blocks"][i]
        for i in range(len(flame["life_node"]))
    }
    assert sum(flame["life_bytes"]) == sum(block.size for block in it.blocks)
    # The start, the cuts at whole seconds, and between them the highest points.
    points = list(zip(flame["tl_t"], flame["tl_heap"], flame["tl_gc"], strict=True))
    assert points[0] == (0.0, 0.0, 0)
    assert [t for t, _, _ in points] == sorted(t for t, _, _ in points)
    cuts = [point for point in points[1:] if point[0] == int(point[0])]
    assert cuts == [(float(i + 1), live, 1) for i, live in enumerate(it.cut_live)]
    between = [point for point in points if point[0] != int(point[0])]
    assert (it.peak_t_ns / 1e9, it.peak_bytes, 0) in between
    assert max(heap for _, heap, _ in points) == it.peak_bytes


def test_flame_data_of_a_filtered_window(path: Path) -> None:
    it = simulate(2)
    reader = read(it.builder, path)
    aggregate = reader.aggregate("total", start_s=1, end_s=3, include=["shop"], thread="worker")
    flame = parse_flame(aggregate.flame(inverted=True))
    head = flame["head"]
    assert head["inverted"] is True
    assert head["stretch"] == {"start_s": 1.0, "end_s": 3.0}
    assert head["notes"] == [
        "Only the time from 1.000 s to 3.000 s, in whole flushes.",
        "Only thread worker.",
        "Only stacks with a frame that matches shop.",
    ]
    assert [t["name"] for t in head["threads"]] == ["worker"]
    stacks = flame_stacks(flame)
    assert all(LOAD in stacks[node] for node in flame["val_node"])
    allocated = [b for b in it.blocks if b.thread == 2 and LOAD in b.stack and 1 <= b.born <= 2]
    assert sum(flame["total_blocks"]) == len(allocated)


@pytest.mark.parametrize("seed", range(4))
def test_flame_data_of_a_window_is_that_of_the_table(seed: int, path: Path) -> None:
    reader = read(simulate(seed).builder, path)
    window = {"start_s": 1.1, "end_s": 3.9}
    flame = parse_flame(reader.aggregate("peak", **window).flame())
    assert "life_node" not in flame  # they are cut by seconds, and a window may end between two
    assert flame["head"]["buckets"]["count"] == 0
    stacks = flame_stacks(flame)
    columns = {"peak": "peak", "leak": "leaks", "total": "total", "temp": "temporary"}
    for column, view in columns.items():
        found: Counter[cb.Stack] = Counter()
        for i, node in enumerate(flame["val_node"]):
            found[stacks[node]] += int(flame[f"{column}_bytes"][i])
        expected = {
            stack: size
            for stack, (size, _) in stacks_of(reader.aggregate(view, **window)).items()
            if size
        }
        assert {stack: size for stack, size in found.items() if size} == expected


def test_flame_frames_know_the_machinery(path: Path) -> None:
    it = Simulation()
    runpy = ("<frozen runpy>", "_run_code", 1)
    it.allocate((runpy, MAIN, IMPORT), 8)
    it.cut()
    flame = parse_flame(read(it.builder, path).aggregate("peak").flame())
    flags = {
        flame["strings"][flame["frame_function"][i]]: flag
        for i, flag in enumerate(flame["frame_flags"])
    }
    assert flags == {"_run_code": 2, "<module>": 0, "_find_and_load": 1}


# --- bad input ----------------------------------------------------------------------------------


def refuse(path: Path, data: bytes, error: type[Exception] = _core.CaptureError) -> str:
    path.write_bytes(data)
    with pytest.raises(error) as caught:
        _core.Reader(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_files_that_are_no_captures(path: Path) -> None:
    assert "empty" in refuse(path, b"")
    assert "not a PyMemTrace capture" in refuse(path, b"hello, world" * 100)
    assert "not a PyMemTrace capture" in refuse(path, b"x")
    assert "not a PyMemTrace capture" in refuse(path, b"\x89PNG\r\n\x1a\n" + bytes(9000))
    assert "cut short" in refuse(path, cb.header()[:40])


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        _core.Reader(str(tmp_path / "none.pmt"))
    assert caught.value.filename == str(tmp_path / "none.pmt")
    with pytest.raises(IsADirectoryError):
        _core.Reader(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="fifo"):
        _core.Reader(str(tmp_path / "fifo"))


def test_newer_versions(path: Path) -> None:
    b = CaptureBuilder()
    rest = b.bytes()[64:]
    message = refuse(path, cb.header(major=2, minor=3) + rest)
    assert "2.3" in message
    assert "1.x" in message
    assert "feature 5" in refuse(path, cb.header(required=1 << 5) + rest)
    path.write_bytes(cb.header(minor=7) + rest)
    assert _core.Reader(str(path)).info()["version"] == "1.7"


def test_a_header_with_a_wrong_checksum(path: Path) -> None:
    data = bytearray(CaptureBuilder().bytes())
    data[30] ^= 1
    assert "checksum" in refuse(path, bytes(data))


def test_lengths_of_4_gib(path: Path) -> None:
    b = CaptureBuilder()
    b.cut(S)
    first, second = b.chunks
    huge = bytearray(first)
    huge[12:20] = b"\xff" * 8
    assert "4294967295 bytes" in refuse(path, b.bytes()[:4096] + bytes(huge) + second)
    huge = bytearray(second)
    huge[12:20] = b"\xff" * 8
    path.write_bytes(b.bytes()[:4096] + first + bytes(huge))
    damaged = _core.Reader(str(path)).info()["damaged"]
    assert "4294967295 bytes" in damaged
    assert f"at offset {4096 + len(first)}" in damaged
    # Inside a payload whose checksum is right.
    b = CaptureBuilder()
    b.add_chunk(b"DLTA", b"\x01" + cb.varint(0xFFFFFFFF))
    assert "4294967295 bytes should follow" in refuse(path, b.bytes())


SECTIONS = {
    "number": b"\x01\x02" + b"\xff\xff",
    "count": b"\x01\x06" + cb.varint(1) + cb.varint(2**32 - 1),
    "gap": b"\x01\x04" + cb.varint(7) + cb.varint(1) + cb.text("a"),
    "string": b"\x06\x04" + cb.varint(1) + cb.varint(1) + cb.varint(1) + cb.varint(99),
    "code": b"\x03\x06" + b"".join(map(cb.varint, (1, 1, 0, 1, 5, 0))),
    "parent": b"\x03\x06" + b"".join(map(cb.varint, (1, 1, 0, 0, 5, 0))),
    "node": b"\x04\x06" + b"".join(map(cb.varint, (1, 1, 99, 8, 1, 0))),
    "size": b"\x04\x07" + b"".join(map(cb.varint, (1, 1, 0, 514, 1, 0))),
    "domain": b"\x04\x06" + b"".join(map(cb.varint, (1, 1, 0, 8, 7, 0))),
    "kind": b"\x03\x06" + b"".join(map(cb.varint, (1, 1, 9, 1, 5, 0))),
    "required section": b"\x80\x00",
    "no cut": b"",
    "behind": b"\x01\x05" + cb.varint(1) + cb.varint(1) + cb.text("") + b"xx",
}


@pytest.mark.parametrize("what", SECTIONS)
def test_payloads_that_say_wrong_things(what: str, path: Path) -> None:
    b = CaptureBuilder()
    offset = 4096 + len(b.chunks[0])
    b.add_chunk(b"DLTA", SECTIONS[what])
    assert f"at offset {offset}" in refuse(path, b.bytes())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Row(2, 0, 1, 0)], "site 2"),
        ([Row(0, 0, 1, 0)], "site 0"),
        ([Row(1, 1, 1, 0)], "older than the recording"),
        ([Row(1, 0, 1, 0, 0, (1, 2, 3))], "bytes behind the last row"),
    ],
)
def test_rows_that_say_wrong_things(rows: list[Row], message: str, path: Path) -> None:
    b = CaptureBuilder()
    b.site(b.stack(MAIN), 8)
    b.cut(S, rows)
    assert message in refuse(path, b.bytes())


def test_unknown_parts_are_skipped_unless_they_must_not_be(path: Path) -> None:
    it = Simulation()
    it.allocate((MAIN,), 8)
    it.builder.add_chunk(b"NEWS", b"?")
    it.cut()
    assert read(it.builder, path).aggregate("total").bytes == 8
    it.builder.add_chunk(b"NEWS", b"?", 2)
    assert "must not skip" in refuse(path, it.builder.bytes())


def test_every_truncation_keeps_the_complete_cuts(path: Path) -> None:
    it = simulate(7, cuts=3)
    data = it.builder.bytes()
    ends = [4096]
    for part in it.builder.chunks:
        ends.append(ends[-1] + len(part))
    rng = random.Random(1)
    lengths = sorted({*ends, *(end + 1 for end in ends), *rng.sample(range(len(data)), 300)})
    for length in lengths:
        path.write_bytes(data[:length])
        # What padding is missing does not matter.
        complete = sum(end - 7 <= length for end in ends) - 1
        if complete < 1:
            with pytest.raises(_core.CaptureError):
                _core.Reader(str(path))
            continue
        if any(end - 7 <= length < end for end in ends):
            continue
        info = _core.Reader(str(path)).info()
        assert info["cuts"] == min(complete - 1, 3)
        whole = length >= ends[-1]
        assert (info["damaged"] is None) == whole  # the slot says that there was more
        assert info["torn"] is None


def test_a_torn_end_is_no_damage(path: Path) -> None:
    b = CaptureBuilder()
    b.cut(S)
    complete = b.bytes()
    b.cut(2 * S)
    path.write_bytes(complete + b.chunks[-1][:50])
    info = _core.Reader(str(path)).info()
    assert (info["cuts"], info["damaged"]) == (1, None)
    assert f"at offset {len(complete)}" in info["torn"]


def test_flipped_bits_never_change_figures_silently(path: Path) -> None:
    it = simulate(8, cuts=2)
    data = it.builder.bytes()
    expected = stacks_of(_core.Reader(str(it.builder.write(path))).aggregate("total"))
    rng = random.Random(2)
    for _ in range(300):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            reader = _core.Reader(str(path))
        except _core.CaptureError:
            continue
        if reader.info()["damaged"] is None and reader.info()["torn"] is None:
            assert stacks_of(reader.aggregate("total")) == expected


# --- the objects --------------------------------------------------------------------------------


def test_progress_is_reported_and_can_raise(path: Path) -> None:
    b = CaptureBuilder(filler="x")
    for i in range(1, 8):
        b.string(f"{i}" * 600_000)
        b.cut(i * S)
    b.write(path)
    calls: list[tuple[int, int]] = []
    _core.Reader(str(path), progress=lambda done, total: calls.append((done, total)))
    assert len(calls) >= 3
    assert calls == sorted(calls)
    assert all(done <= total == path.stat().st_size for done, total in calls)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _core.Reader(str(path), progress=stop)


def test_reading_while_it_is_written(path: Path) -> None:
    """The writer appends a chunk and then updates a slot; no reader takes that for damage."""
    b = CaptureBuilder(**own_facts())
    end = len(b.bytes())
    steps = []
    for i in range(1, 1500):
        b.cut(i * S)
        steps.append((end, b.chunks[-1], cb.slot(i + 2, cb.RECORDING, end + len(b.chunks[-1]))))
        end += len(b.chunks[-1])
    b.chunks = b.chunks[:1]
    b.write(path)

    def write() -> None:
        with path.open("r+b") as file:
            for number, (offset, data, slot) in enumerate(steps):
                os.pwrite(file.fileno(), data, offset)
                os.pwrite(file.fileno(), slot, 512 if number % 2 else 1024)

    writer = threading.Thread(target=write)
    writer.start()
    seen = -1
    while writer.is_alive() or seen < len(steps):
        info = _core.Reader(str(path)).info()
        assert (info["ended"], info["damaged"], info["torn"]) == ("running", None, None)
        assert info["cuts"] >= seen
        seen = info["cuts"]
    writer.join()
    assert seen == len(steps)


def test_an_aggregate_keeps_its_reader_alive(path: Path) -> None:
    aggregate = read(simulate(1).builder, path).aggregate("total")
    before = aggregate.sites()
    path.unlink()
    assert aggregate.sites() == before


def test_readers_work_from_several_threads(path: Path) -> None:
    reader = read(simulate(1).builder, path)
    expected = reader.aggregate("total").sites()
    results: list[Any] = []

    def work() -> None:
        for _ in range(5):
            results.append(reader.aggregate("total").sites())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 20


def test_objects_that_were_not_made_properly() -> None:
    with pytest.raises(TypeError):
        _core.Aggregate()
    reader = _core.Reader.__new__(_core.Reader)
    with pytest.raises(ValueError, match="not open"):
        reader.info()
    with pytest.raises(TypeError):
        _core.Reader(3.5)  # type: ignore[arg-type]


USE = """
def use():
    reader = _core.Reader(sys.argv[1])
    for view in ("peak", "leaks", "total", "temporary"):
        aggregate = reader.aggregate(view, include=["*"], exclude=["json"], thread="MainThread")
        aggregate.sites(); aggregate.stacks(); aggregate.tree(); aggregate.tree(inverted=True)
        aggregate.flame()
        for kind in ("pprof", "speedscope", "collapsed", "csv"):
            aggregate.export(kind)
    for name in ("info", "proc", "totals", "threads", "timeline", "marks", "epochs", "stats"):
        getattr(reader, name)()
    for bad in (lambda: _core.Reader("/"), lambda: reader.aggregate("x"),
                lambda: reader.aggregate(include=[3]), lambda: aggregate.export("x"),
                lambda: _core.Reader(sys.argv[0] or sys.executable)):
        try:
            bad()
        except Exception:
            pass
"""


def test_nothing_is_leaked(path: Path) -> None:
    simulate(1).builder.write(path)
    assert_nothing_is_leaked(USE, 50, path)


def test_every_moment_of_the_timeline_is_found_again(tmp_path: Path) -> None:
    """A time in seconds is the nearest nanosecond, not the one below it."""
    rng = random.Random(1)
    b = CaptureBuilder()
    for t in sorted(rng.randrange(10**12) for _ in range(500)):
        b.resident({1: t, 3: 1 << 20})
        b.cut(t)
    reader = read(b, tmp_path / "x.pmt")
    moments = [moment["t_s"] for moment in reader.where_timeline()]
    assert len(moments) == 500
    assert [reader.where(moment)["at_s"] for moment in moments] == moments
    with pytest.raises(ValueError, match="at_s must be a number of seconds"):
        reader.where(float("nan"))
