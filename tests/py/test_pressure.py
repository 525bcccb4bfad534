"""How short memory was: from captures that an independent encoder wrote, and from this process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from capture_answers import assert_nothing_is_leaked
from capture_builder import CaptureBuilder

import pymemtrace
from pymemtrace import _core
from pymemtrace.cli import _pressure

S = 10**9
MIB = 1 << 20
NONE = (1 << 64) - 2
USAGE, LIMIT, HIGH, OOMS, KILLS, HITS, HIGH_HITS = range(1, 8)
INACTIVE, SOME_US, FULL_US, SOME, FULL, OF = 10, 13, 14, 15, 16, 17
AVAILABLE, HOST, SWAP_FREE, SCORE, SWAP, PEAK_RSS, MAX_USAGE, MAX_SOME = range(18, 26)

FIRST: dict[int, int | None] = {
    USAGE: 300 * MIB, LIMIT: 512 * MIB, HIGH: NONE, OOMS: 2, KILLS: 1, HITS: 10, HIGH_HITS: 0,
    8: 1, 9: 2, INACTIVE: 50 * MIB, 11: 3, 12: 4, SOME_US: 1000, FULL_US: 500, SOME: 0, FULL: 0,
    OF: 1, AVAILABLE: 700 * MIB, HOST: 1000 * MIB, SWAP_FREE: 0, SCORE: 1995, SWAP: 0,
    PEAK_RSS: 120 * MIB,
}  # fmt: skip


def built(path: Path, *sections: dict[int, int | None] | None) -> Any:
    b = CaptureBuilder()
    for number, figures in enumerate(sections, 1):
        if figures is not None:
            b.pressure(figures)
        b.cut(number * S)
    b.write(path)
    return _core.Reader(str(path))


def test_figures_stay_until_they_change(tmp_path: Path) -> None:
    reader = built(
        tmp_path / "x.pmt",
        FIRST,
        None,
        {USAGE: 498 * MIB, HITS: 13, SOME: 410, MAX_SOME: 1234, MAX_USAGE: 510 * MIB, 99: 7},
        {USAGE: None, INACTIVE: None, LIMIT: NONE, KILLS: None, SCORE: None, SOME: 5, OF: 2},
        {USAGE: 20 * MIB, INACTIVE: 30 * MIB},
    )
    first, second, third, last = reader.pressure()
    assert first == {
        "t_ns": 1 * S,
        "cgroup_bytes": 300 * MIB,
        "cgroup_working_set_bytes": 250 * MIB,
        "cgroup_limit_bytes": 512 * MIB,
        "cgroup_high_bytes": None,
        "cgroup_oom": 2,
        "cgroup_oom_kills": 1,
        "cgroup_limit_hits": 10,
        "cgroup_high_hits": 0,
        "cgroup_anon_bytes": 1,
        "cgroup_file_bytes": 2,
        "cgroup_inactive_file_bytes": 50 * MIB,
        "cgroup_kernel_bytes": 3,
        "cgroup_shmem_bytes": 4,
        "psi_some_us": 1000,
        "psi_full_us": 500,
        "psi_some_avg10": 0.0,
        "psi_full_avg10": 0.0,
        "psi_of": "cgroup",
        "host_available_bytes": 700 * MIB,
        "host_bytes": 1000 * MIB,
        "host_swap_free_bytes": 0,
        "oom_score_adj": -998,
        "swap_bytes": 0,
        "peak_rss_bytes": 120 * MIB,
        "max_cgroup_bytes": 300 * MIB,
        "max_psi_some_avg10": 0.0,
    }
    changed = {
        "t_ns": 3 * S,
        "cgroup_bytes": 498 * MIB,
        "cgroup_working_set_bytes": 448 * MIB,
        "cgroup_limit_hits": 13,
        "psi_some_avg10": 4.1,
        "max_psi_some_avg10": 12.34,
        "max_cgroup_bytes": 510 * MIB,
    }
    assert second == {**first, **changed}
    unknown = dict.fromkeys(
        ("cgroup_bytes", "cgroup_working_set_bytes", "cgroup_inactive_file_bytes",
         "cgroup_limit_bytes", "cgroup_oom_kills", "oom_score_adj", "max_cgroup_bytes")
    )  # fmt: skip
    stalls = {"t_ns": 4 * S, "psi_some_avg10": 0.05, "max_psi_some_avg10": 0.05, "psi_of": "host"}
    assert third == {**second, **unknown, **stalls}
    assert last["cgroup_working_set_bytes"] == 0  # never less
    assert reader.pressure(last=1) == [last]
    assert reader.pressure(last=0) == []
    assert reader.pressure(last=9) == [first, second, third, last]
    with pytest.raises((TypeError, OverflowError)):
        reader.pressure(last=-1)


def test_a_capture_without_figures(tmp_path: Path) -> None:
    reader = built(tmp_path / "x.pmt", None, None)
    assert reader.pressure() == []
    assert list(_pressure.lines([])) == []
    assert reader.info()["cgroup_version"] is None


@pytest.mark.parametrize(
    "body", [b"\x02\x01\x05", b"\x01\x01\x05\x00", b"\xff\xff\xff\xff\x0f\x01\x01", b"\x01\x01"]
)
def test_broken_sections_are_named(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "x.pmt"
    b = CaptureBuilder()
    b._sections[0x0D] = []
    b.sections()
    b.add_chunk(b"DLTA", bytes([13, len(body)]) + body)
    b.write(path)
    with pytest.raises(_core.CaptureError, match="PRESSURE"):
        _core.Reader(str(path))


USE = """
import sys
from pymemtrace import _core
reader = _core.Reader(sys.argv[1])
def use():
    reader.pressure()
    reader.pressure(last=1)
    for bad in (-1, "x", 1 << 80):
        try:
            reader.pressure(last=bad)
        except Exception:
            pass
"""


def text_of(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"{name}: {''.join(text for text, _ in segments)}"
        for name, segments in _pressure.lines(rows)
    ]


def test_the_summary_says_what_is_worth_saying(tmp_path: Path) -> None:
    path = tmp_path / "x.pmt"
    rows = built(path, FIRST, {USAGE: 498 * MIB, HITS: 13, SOME: 410}).pressure()
    assert text_of(rows) == [
        "cgroup: 498.0 MiB of 512 MiB at the end, 3 limit hits,"
        " memory stalls 4.1 % of the last 10 s"
    ]
    rows = built(path, FIRST, {USAGE: 499 * MIB, KILLS: 2}, {USAGE: 100 * MIB}).pressure()
    assert text_of(rows) == [
        "cgroup: 100.0 MiB of 512 MiB at the end, 499.0 MiB at most, 1 process killed for it"
    ]
    rows = built(path, {USAGE: 300 * MIB, LIMIT: NONE, SOME: 30}).pressure()
    assert text_of(rows) == []
    rows = built(path, {OF: 2, SOME: 300, MAX_SOME: 5000}, {SOME: 0}).pressure()
    assert text_of(rows) == ["memory pressure: memory stalls up to 50.0 % of 10 s on the host"]
    rows = built(path, FIRST, {LIMIT: None, USAGE: None}).pressure()
    assert text_of(rows) == []


def test_the_head_of_live_has_the_limit(tmp_path: Path) -> None:
    from pymemtrace.cli._live.watch import Watch, Wish

    built(tmp_path / "x.pmt", FIRST)
    watch = Watch([str(tmp_path / "x.pmt")])
    watch.refresh()
    assert watch.picture(Wish()).cgroup == "300.0 MiB of 512 MiB"


# --- this process ---------------------------------------------------------------------------------


def test_this_process(tmp_path: Path) -> None:
    path = tmp_path / "x.pmt"
    with pymemtrace.record(path) as recording:
        recording.flush()
        recording.flush()
    capture = pymemtrace.open(path)
    rows = capture.pressure()
    assert [row["t_ns"] for row in rows] == [
        pytest.approx(cut["t_s"] * S, abs=2) for cut in capture.timeline()
    ]
    for row in rows:
        assert 0 < row["host_available_bytes"] <= row["host_bytes"]
        assert row["peak_rss_bytes"] > MIB
        assert -1000 <= row["oom_score_adj"] <= 1000
    info, proc = capture.info(), capture.process()
    if info["cgroup_version"] is not None:
        assert info["cgroup_version"] in (1, 2)
        assert info["cgroup_path"] == proc["cgroup_path"]
        assert info["cgroup_path"] in Path("/proc/self/cgroup").read_text("utf-8")


SPIKE = """
import pymemtrace
with pymemtrace.record("x.pmt", interval_s=3600) as recording:
    recording.flush()
    big = bytearray(200 << 20)
    big[::4096] = bytes(len(big[::4096]))
    del big
    recording.flush()
"""


def test_a_spike_between_two_flushes_is_seen(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SPIKE], cwd=tmp_path, check=True)
    capture = pymemtrace.open(tmp_path / "x.pmt")
    assert capture.totals()["rss_bytes_peak"] < 200 * MIB
    rows = capture.pressure()
    assert rows[0]["peak_rss_bytes"] < 200 * MIB <= rows[1]["peak_rss_bytes"]
    assert rows[1]["peak_rss_bytes"] <= rows[-1]["peak_rss_bytes"]


FORKS = """
import os
big = bytearray(200 << 20)
big[::4096] = bytes(len(big[::4096]))
del big
child = os.fork()
if child == 0:
    kept = [bytearray(2 << 20)]
else:
    os.waitpid(child, 0)
    print(child)
"""


def test_a_child_has_figures_of_its_own(tmp_path: Path) -> None:
    """What the parent had open speaks of the parent."""
    (tmp_path / "forks.py").write_text(FORKS, "utf-8")
    command = [sys.executable, "-m", "pymemtrace", "run", "-o", "x.pmt", "forks.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    child = int(done.stdout.split()[0])
    rows = pymemtrace.open(tmp_path / f"x.{child}.pmt").pressure()
    assert rows
    parent = pymemtrace.open(tmp_path / "x.pmt").pressure()[-1]
    assert parent["peak_rss_bytes"] >= 200 * MIB
    assert MIB < rows[-1]["peak_rss_bytes"] < 200 * MIB


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    def files() -> list[Path]:
        return [file for file in Path("/proc/self/fd").iterdir() if os.path.lexists(file)]

    def names() -> list[str]:
        return sorted(str(file.readlink()) for file in files())

    before = names()
    with pymemtrace.record(tmp_path / "x.pmt") as recording:
        recording.flush()
        during = [int(file.name) for file in files()]
        assert sum(fd >= 512 for fd in during) >= 3  # out of the way of programs
    assert names() == before


def test_nothing_is_leaked(tmp_path: Path) -> None:
    path = tmp_path / "x.pmt"
    built(path, FIRST, {USAGE: 1}, {USAGE: None, SCORE: None})
    assert_nothing_is_leaked(USE, 50, path)
