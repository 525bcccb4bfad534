"""The event log of real programs: its replay is what the tables of the same capture say."""

import gc
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import pymemtrace
from pymemtrace import _core

TARGETS = Path(__file__).resolve().parents[1] / "targets"
RUN = [sys.executable, "-m", "pymemtrace", "run", "-q", "--events", "-o", "x.pmt"]

Key = tuple[tuple[str, str, int], ...]


def run(*words: str) -> _core.Reader:
    done = subprocess.run([*RUN, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return _core.Reader("x.pmt")


def key_of(stack: list[dict[str, Any]]) -> Key:
    return tuple((site["file"], site["function"], site["line"]) for site in stack)


def by_stack(reader: _core.Reader, replayed: dict[str, Any]) -> dict[Key, tuple[int, int]]:
    bytes_: Counter[Key] = Counter()
    blocks: Counter[Key] = Counter()
    for site_id, (count, size) in replayed["sites"].items():
        key = key_of(reader.site(site_id)["stack"])
        blocks[key] += count
        bytes_[key] += size
    return {key: (bytes_[key], blocks[key]) for key in blocks}


def view(reader: _core.Reader, name: Any) -> dict[Key, tuple[int, int]]:
    rows = reader.aggregate(name).stacks()
    return {key_of(row["stack"]): (row["bytes"], row["blocks"]) for row in rows}


def by_domain(reader: _core.Reader, replayed: dict[str, Any]) -> Counter[tuple[str, int]]:
    result: Counter[tuple[str, int]] = Counter()
    for site_id, (_, size) in replayed["sites"].items():
        site = reader.site(site_id)
        result[site["domain"], site["thread"]["id"]] += size
    return result


def assert_agrees(reader: _core.Reader) -> dict[str, Any]:
    """Replayed to its end and to its highest point, the log gives what the last cut gives."""
    log = reader.event_log()
    assert log is not None
    assert log["events"] == log["logged"] == log["complete"]
    replayed = reader.replay()
    last = reader.timeline()[-1]
    totals = reader.totals()
    assert replayed["unmatched"] == 0
    assert replayed["events"] == log["events"]
    assert replayed["allocations"] == totals["allocations"]
    assert replayed["frees"] == totals["frees"]
    assert replayed["allocated_bytes"] == totals["allocated_bytes"]
    assert replayed["live_bytes"] == last["heap_bytes"]
    assert replayed["live_blocks"] == last["heap_blocks"]
    assert replayed["peak_bytes"] == totals["heap_bytes_peak"]
    at_peak = reader.replay(replayed["peak_stop"])
    assert at_peak["live_bytes"] == totals["heap_bytes_peak"]
    assert at_peak["live_blocks"] == totals["heap_blocks_peak"]
    assert by_stack(reader, at_peak) == view(reader, "peak")
    if not any(cut["main_returned"] for cut in reader.timeline()):
        assert by_stack(reader, replayed) == view(reader, "leaks")
        of_domain: Counter[str] = Counter()
        of_thread: Counter[int] = Counter()
        for (domain, thread), size in by_domain(reader, replayed).items():
            of_domain[domain] += size
            of_thread[thread] += size
        stats = reader.stats()
        for name, sums in stats["by_domain"].items():
            assert of_domain[name] == sums["end_bytes"]
        for row in stats["by_thread"]:
            assert of_thread[row["id"]] == row["end_bytes"]
    return replayed


@pytest.mark.parametrize("seed", range(3))
def test_replay_agrees_with_the_tables(seed: int) -> None:
    reader = run(str(TARGETS / "every_event.py"), str(seed))
    assert_agrees(reader)
    assert reader.info()["dropped"] == {}
    counters = reader.info()["counters"]
    assert counters["events without the GIL"] > 0
    kinds = Counter(event[2] for event in reader.events())
    assert kinds["realloc-free"] == kinds["realloc-alloc"] > 100
    assert kinds["reuse-free"] == kinds["reuse-alloc"] == counters.get("re-attributed blocks", 0)
    if sys.version_info >= (3, 13):
        assert kinds["reuse-alloc"] > 1000


def test_alive_when_main_returned_and_after() -> None:
    """The end of a recording that is no whole program, per stack."""
    code = f"import sys, os; sys.path.insert(0, {str(TARGETS)!r}); sys.argv[1:] = ['5']\n"
    code += "import pymemtrace, every_event\n"
    code += "with pymemtrace.record('y.pmt', events=True): kept = every_event.main()\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    reader = _core.Reader("y.pmt")
    assert not any(cut["main_returned"] for cut in reader.timeline())
    replayed = assert_agrees(reader)
    assert replayed["live_blocks"] > 1000
    # a start in mid-process: what was there before is no event
    assert reader.info()["counters"]["frees of earlier blocks"] > 0


def test_events_one_by_one() -> None:
    """The iterator, and a replay in Python that has nothing in common with the one in C."""
    gc.disable()
    with pymemtrace.record("one.pmt", events=True):
        one = bytearray(70_001)
        first = bytearray(90_002)
        one.extend(bytes(100_000))
        del first
    gc.enable()
    reader = _core.Reader("one.pmt")
    events = list(reader.events())
    assert [event[0] for event in events] == list(range(len(events)))
    assert [event[1] for event in events] == sorted(event[1] for event in events)
    alive: dict[int, tuple[int, int]] = {}
    peak = live = 0
    for number, t_s, kind, site_id, address, size in events:
        assert 0.0 <= t_s <= reader.info()["duration_s"]
        assert address % 16 == 0
        if kind.endswith("alloc"):
            assert address not in alive
            alive[address] = (site_id, size)
            live += size
        else:
            born, bytes_ = alive.pop(address)
            assert born == site_id
            assert size is None or size == bytes_
            assert (size is None) == (reader.site(site_id)["size"] is None)
            live -= bytes_
        peak = max(peak, live)
        if number % 97 == 0:
            half = reader.replay(stop=number + 1)
            assert (half["live_bytes"], half["live_blocks"]) == (live, len(alive))
            assert (half["peak_bytes"], half["events"]) == (peak, number + 1)
    assert_agrees(reader)
    # what a bytearray adds to its bytes depends on the version
    large = [e for e in events if e[2] == "alloc" and 90_002 < (e[5] or 0) < 90_100]
    assert len(large) == 1
    moved = [i for i, event in enumerate(events) if event[2] == "realloc-free"]
    assert any(events[i + 1][5] > 170_000 for i in moved)
    assert all(events[i + 1][2] == "realloc-alloc" for i in moved)
    site = reader.site(large[0][3])
    assert site["size"] is None
    assert site["site"]["function"] == "test_events_one_by_one"
    assert site["stack"][0] == site["site"]
    assert site["thread"]["native_id"] == threading.get_native_id()
    del one


def test_killed(tmp_path: Path) -> None:
    code = "kept = []\nwhile 1:\n    kept.append([len(kept)])\n    kept[:10000] = kept[:10000]\n"
    with subprocess.Popen([*RUN, "-c", code]) as process:
        path = tmp_path / "x.pmt"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (
                path.exists()
                and len(_core.Reader(str(path)).timeline() if path.stat().st_size else ()) >= 2
            ):
                break
            time.sleep(0.1)
        process.kill()
    reader = _core.Reader(str(path))
    assert reader.info()["ended"] == "killed"
    log = reader.event_log()
    assert log is not None
    if log["complete"] < log["events"]:  # killed between the tables and the log of a cut
        assert log["complete"] == log["logged"]
        replayed = reader.replay()
        cuts = [c for c in reader.timeline() if c["allocations"] + c["frees"] == replayed["events"]]
        assert cuts
        assert cuts[0]["heap_bytes"] == replayed["live_bytes"]
    else:
        assert_agrees(reader)
    assert log["complete"] > 1000


def test_no_memory_for_the_log() -> None:
    """What does not fit is dropped and counted; the tables stay exact."""
    code = "for i in range(1_500_000): x = [i]\nkept = [bytearray(1000) for _ in range(1000)]"
    reader = run("--max-memory", "16M", "-c", code)
    log = reader.event_log()
    assert log is not None
    dropped = reader.info()["dropped"].get("events not in the log", 0)
    assert log["events"] - log["logged"] == dropped
    if dropped:
        assert log["complete"] < log["events"]
    replayed = reader.replay()
    assert replayed["events"] == log["complete"]
    assert replayed["unmatched"] == 0
    row = view(reader, "leaks")
    assert max(row.values())[0] >= 1_000_000


def test_a_limit_on_the_file_ends_the_log_first() -> None:
    code = "import random\nx = [None] * 50_000\nr = random.Random(1)\n"
    code += "for i in range(500_000): x[r.randrange(50_000)] = [i]\n"
    code += "kept = [bytearray(1000) for _ in range(1000)]"
    reader = run("--max-size", "800K", "-c", code)
    assert Path("x.pmt").stat().st_size <= 800 * 1024
    info = reader.info()
    assert info["stopped"] is None
    log = reader.event_log()
    assert log is not None
    assert log["complete"] == log["logged"] < log["events"]
    assert info["dropped"]["events not in the log"] == log["events"] - log["logged"]
    assert log["events"] == reader.totals()["allocations"] + reader.totals()["frees"]
    assert max(view(reader, "leaks").values())[0] >= 1_000_000


def test_compaction_keeps_the_log() -> None:
    code = (
        "from pymemtrace import _core\n"
        "_core.start('z.pmt', argv=['z'], events=True, interval_s=0.01, max_size_bytes=600_000)\n"
        "kept, i = [], 0\n"
        "while _core.status()['cuts'] < 1500:\n"
        "    i += 1\n"
        "    for f in [lambda: [i], lambda: (i, 1), lambda: bytearray(i % 2000)] * 10:\n"
        "        kept.append(f())\n"
        "    del kept[:-200]\n"
        "    exec('kept.append([i])\\n' * (i % 50 + 1))\n"
        "    _core.flush()\n"
        "_core.stop()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    reader = _core.Reader("z.pmt")
    assert len(reader.timeline()) < 1400  # cuts were merged
    assert Path("z.pmt").stat().st_size <= 600_000
    log = reader.event_log()
    assert log is not None
    assert log["logged"] > 5000
    if log["complete"] == log["events"]:
        assert_agrees(reader)
    else:
        assert log["complete"] == log["logged"]
        assert reader.replay()["unmatched"] == 0


def test_a_capture_without_a_log() -> None:
    with pymemtrace.record("none.pmt"):
        pass
    reader = _core.Reader("none.pmt")
    assert reader.event_log() is None
    assert "events" not in reader.info()["counters"]
    with pytest.raises(ValueError, match="no event log: record with --events"):
        reader.replay()
    with pytest.raises(ValueError, match="no event log"):
        reader.events()
    with pytest.raises(IndexError, match="no site 0"):
        reader.site(0)
    with pytest.raises(IndexError, match="no site"):
        reader.site(1 << 40)


def test_stats_names_the_log() -> None:
    run("-c", "x = [bytearray(1000) for _ in range(100)]")
    done = subprocess.run(
        [sys.executable, "-m", "pymemtrace", "stats", "x.pmt"], capture_output=True, text=True
    )
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "event log" in line]
    count = _core.Reader("x.pmt").replay()["events"]
    assert len(lines) == 1
    assert f"{count:,} events" in lines[0]


def test_the_file_changes_behind_the_reader(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with pymemtrace.record(f"{name}.pmt", events=True):
            bytearray(1000)
    reader = _core.Reader("a.pmt")
    events = reader.events()
    next(events)
    Path("b.pmt").replace("a.pmt")
    with pytest.raises(_core.PymemtraceError, match="open it again"):
        reader.replay()
    assert len(list(events)) > 0  # the one that was opened is still there
    Path("a.pmt").unlink()
    with pytest.raises(FileNotFoundError):
        reader.events()


def test_a_process_that_is_interrupted_leaves_a_log() -> None:
    code = "import os, signal\nx = [bytearray(500) for _ in range(500)]\n"
    code += "os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([*RUN, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGINT
    assert_agrees(_core.Reader("x.pmt"))
