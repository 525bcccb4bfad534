"""What the reports say of a sampled recording: estimates, their intervals, what they rest on."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import run_command

import pymemtrace

PROGRAM = """
kept = []
def small():
    for n in range(200_000):
        kept.append(bytes(n % 90))
def large():
    return [bytearray(3_000_000) for _ in range(4)]
def rare():
    kept.append(bytearray(40_000))
def churn():
    for n in range(100_000):
        bytes(n % 90)
small()
held = large()
rare()
churn()
del held
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sampled.pmt, full.pmt: the same program."""
    folder = tmp_path_factory.mktemp("sampled")
    (folder / "program.py").write_text(PROGRAM)
    for name, options in (("sampled", ["--sample", "32K"]), ("full", [])):
        words = ["run", "-q", *options, "-o", f"{name}.pmt", "program.py"]
        done = run_command(*words, cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
    return folder


def report(folder: Path, *words: str) -> str:
    done = run_command(*words, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_rows_have_limits_and_samples(folder: Path) -> None:
    rows = {
        row["site"]["function"]: row
        for row in pymemtrace.open(folder / "sampled.pmt").sites("peak")
    }
    small = rows["small"]
    assert small["bytes_low"] < small["bytes"] < small["bytes_high"]
    assert small["blocks_low"] < small["blocks"] < small["blocks_high"]
    assert small["allocated_bytes_low"] < small["allocated_bytes"] < small["allocated_bytes_high"]
    assert small["samples"] > 50
    (large,) = (row for name, row in rows.items() if name.startswith("large"))
    # of 91 means, so each is certain; what else the line has allocated may be a sample too
    assert large["bytes_low"] >= 4 * 3_000_000
    assert large["samples"] >= 4
    full = pymemtrace.open(folder / "full.pmt").sites("peak")
    assert not any("bytes_low" in row or "samples" in row for row in full)


def test_the_peak_is_known_though_all_was_freed_in_the_same_flush(folder: Path) -> None:
    totals = pymemtrace.open(folder / "sampled.pmt").totals()
    truth = pymemtrace.open(folder / "full.pmt").totals()["heap_bytes_peak"]
    assert totals["heap_bytes_peak_low"] > 12_000_000
    assert totals["heap_bytes_peak_high"] - totals["heap_bytes_peak_low"] < truth / 3
    # the estimate is right within 6 deviations, of which the interval has 4
    width = totals["heap_bytes_peak_high"] - totals["heap_bytes_peak_low"]
    assert abs(totals["heap_bytes_peak"] - truth) < 1.5 * width


@pytest.mark.parametrize("command", ["summary", "table", "tree", "stats"])
def test_every_report_says_that_it_is_of_samples(folder: Path, command: str) -> None:
    text = report(folder, command, "sampled.pmt")
    note = "sampled: one sample per 32 KiB allocated on average; figures are estimates"
    assert f"note: {note} with 95 % intervals\n" in text
    assert "event dropped" not in text
    assert "exact" not in text
    assert "temporary" not in text.replace("temporaries", "")
    full = report(folder, command, "full.pmt")
    assert "95 %" not in full
    assert "sample" not in full


def test_columns(folder: Path) -> None:
    lines = report(folder, "table", "sampled.pmt").splitlines()
    head = next(line for line in lines if line.lstrip().startswith("bytes"))
    assert head.split() == [
        "bytes", "95", "%", "share", "blocks", "line", "function", "samples", "allocated", "95",
        "%", "allocations",
    ]  # fmt: skip
    small = next(line for line in lines if " small " in line).split()
    low, _, high = small[2].partition("-")
    assert float(low) < float(small[0]) < float(high)
    tree = report(folder, "tree", "sampled.pmt").splitlines()
    root = next(line for line in tree if line.endswith("[root]")).split()
    low, _, high = root[2].partition("-")
    assert float(low) < float(root[0]) < float(high)


def test_few_samples_are_named(folder: Path, tmp_path: Path) -> None:
    code = "kept = [bytes(700) for n in range(20_000)]"
    done = run_command("run", "-q", "--sample", "1M", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    samples = pymemtrace.open(tmp_path / "x.pmt").tree("leaks")["samples"]
    assert 0 < samples < 100  # some 14: neither in 900,000 runs
    for command in ("summary", "table", "tree"):
        text = report(tmp_path, command, "--leaks", "x.pmt")
        plural = "" if samples == 1 else "s"
        assert f"note: This view rests on {samples} sample{plural}.\n" in text
        assert "rests on" not in report(folder, command, "sampled.pmt")


def test_temporaries_are_not_known(folder: Path) -> None:
    text = report(folder, "table", "--temporary", "sampled.pmt")
    assert "note: A sampled recording does not know which allocations were temporary.\n" in text
    stats = json.loads(report(folder, "stats", "--temporary", "--json", "sampled.pmt"))
    assert stats["temporaries"] is None
    assert stats["by_domain"]["obj"]["temporary_bytes"] is None


def values(item: Any, key: str) -> list[Any]:
    if isinstance(item, dict):
        found = [value for name, value in item.items() if name == key]
        return found + [value for inner in item.values() for value in values(inner, key)]
    return [v for inner in item for v in values(inner, key)] if isinstance(item, list) else []


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("summary", ["heap_bytes_peak", "heap_bytes_end", "allocated_bytes", "allocations",
                     "bytes", "blocks", "view_bytes"]),
        ("table", ["bytes", "blocks", "allocated_bytes", "view_blocks"]),
        ("tree", ["bytes", "blocks"]),
        ("stats", ["peak_bytes", "end_blocks", "allocated_bytes", "heap_bytes_peak"]),
    ],
)  # fmt: skip
def test_json_values(folder: Path, command: str, keys: list[str]) -> None:
    sampled = json.loads(report(folder, command, "--json", "sampled.pmt"))
    full = json.loads(report(folder, command, "--json", "full.pmt"))
    assert sampled["captures"][0]["mode"] == "sampled"
    assert sampled["captures"][0]["sample_bytes"] == 32768
    for key in keys:
        found = values(sampled, key)
        assert found
        for value in found:
            assert value.keys() == {"estimate", "low", "high"}
            assert 0 <= value["low"] <= value["estimate"] <= value["high"]
        assert all(type(value) is int for value in values(full, key))
    assert "_low" not in json.dumps(sampled)


def test_csv_has_the_limits_behind_its_columns(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(report_export(folder, "sampled.pmt"))))
    for row in rows:
        assert int(row["bytes_low"]) <= int(row["bytes"]) <= int(row["bytes_high"])
        assert int(row["allocations_low"]) <= int(row["allocations"])
        assert int(row["samples"]) >= 0
    full = report_export(folder, "full.pmt").splitlines()[0]
    assert full == "bytes,blocks,allocated_bytes,allocations,function,file,line,module,stack"


def report_export(folder: Path, name: str) -> str:
    done = run_command("export", "--to", "csv", "-o", "-", name, cwd=folder)
    assert done.returncode == 0
    return done.stdout


def test_pprof_has_the_period(folder: Path) -> None:
    capture = pymemtrace.open(folder / "sampled.pmt")
    profile = capture.export("pprof")
    comment = b"sampled: one sample per 32768 bytes allocated on average; values are estimates"
    assert comment in profile
    assert b"\x60\x80\x80\x02" in profile  # period: field 12, 32768
    assert b"sampled: one" not in pymemtrace.open(folder / "full.pmt").export("pprof")


def test_flame_data_has_what_they_rest_on(folder: Path) -> None:
    for name, there in (("sampled", True), ("full", False)):
        aggregate = pymemtrace.open(folder / f"{name}.pmt").aggregate()
        data = aggregate.flame()
        for array in (b'"peak_bytes2"', b'"leak_samples"', b'"total_sure_blocks"'):
            assert (array in data) == there
        assert (b'"temp_bytes"' in data) != there


def test_sampled_and_full_captures_together(folder: Path) -> None:
    merged = pymemtrace.open_many([folder / "sampled.pmt", folder / "full.pmt"])
    alone = pymemtrace.open(folder / "sampled.pmt").aggregate("leaks").totals
    full = pymemtrace.open(folder / "full.pmt").aggregate("leaks").totals
    together = merged.aggregate("leaks").totals
    assert together["bytes"] == alone["bytes"] + full["bytes"]
    assert together["samples"] == alone["samples"]
    # what is certain is added to both limits
    assert together["bytes_low"] == alone["bytes_low"] + full["bytes"]
    assert together["bytes_high"] == alone["bytes_high"] + full["bytes"]
    totals = merged.totals()
    assert totals["heap_bytes_end_low"] < totals["heap_bytes_end"] < totals["heap_bytes_end_high"]
    text = report(folder, "summary", "--merge", "sampled.pmt", "full.pmt")
    assert "sampled: one sample per 32 KiB" in text


def test_a_mean_that_was_doubled_is_said(tmp_path: Path) -> None:
    code = "kept = [bytes(5000) for n in range(20_000)]"
    done = run_command("run", "-q", "--sample", "1K", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    info = pymemtrace.open(tmp_path / "x.pmt").info()
    assert info["sample_bytes"] == 1024
    assert info["sample_bytes_now"] > 4096
    text = report(tmp_path, "table", "x.pmt")
    assert "sampled: one sample per 1 KiB allocated on average at the start, per " in text
    (row, *_) = pymemtrace.open(tmp_path / "x.pmt").sites("leaks")
    assert abs(row["bytes"] / (20_000 * 5033) - 1) < 0.15  # some 8000 samples: 12 deviations
    assert row["bytes_low"] > row["bytes"] * 0.9
    assert row["samples"] <= 8192


def test_a_child_knows_how_sure_it_is_of_what_it_has_inherited(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "kept = [bytes(700) for n in range(20_000)]\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    more = [bytes(700) for n in range(20_000)]\n"
        "    time.sleep(0.1)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    command = ["run", "-q", "--sample", "16K", "-o", "x.pmt", "-c", code]
    done = run_command(*command, cwd=tmp_path)
    assert done.returncode == 0
    (path,) = tmp_path.glob("x.*.pmt")
    child = pymemtrace.open(path)
    parent = pymemtrace.open(tmp_path / "x.pmt")
    inherited = child.aggregate("leaks").totals
    own = parent.aggregate("leaks").totals
    assert inherited["samples"] > 1.5 * own["samples"]
    for low, high in (("bytes_low", "bytes_high"), ("blocks_low", "blocks_high")):
        wide = inherited[high] - inherited[low]
        assert 1.2 * (own[high] - own[low]) < wide < 1.7 * (own[high] - own[low])
    # in what is merged, blocks count where they were allocated: its own are half of what it has
    merged = pymemtrace.open_many([tmp_path / "x.pmt", path])
    together = merged.aggregate("leaks").totals
    assert abs(together["samples"] - inherited["samples"]) <= inherited["samples"] * 0.05


MANY_STACKS = """
import sys, time
from pymemtrace import _core

_core.start("x.pmt", argv=["x"], sample_bytes=4096, max_size_bytes=1 << 18, interval_s=0.02)
kept = []
for turn in range(200):
    for number in range(40):
        name, names = f"f{turn}_{number}_{'x' * 60}", {}
        code = f"def {name}(kept):\\n    kept.append(bytes(5000))\\n"
        code += "    kept.append(bytearray(20000))\\n"
        exec(compile(code, f"/app/{turn}_{number}.py", "exec"), names)
        names[name](kept)
    if turn % 50 == 49:
        _core.mark(f"turn {turn}")
    time.sleep(0.03)
_core.stop()
"""


def test_folding_and_compaction_while_samples_are_thinned(tmp_path: Path) -> None:
    """Thinned samples weigh more: what lives grows by that without an allocation."""
    done = subprocess.run(
        [sys.executable, "-c", MANY_STACKS], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    capture = pymemtrace.open(tmp_path / "x.pmt")
    info = capture.info()
    assert info["stopped"] is None
    assert info["sample_bytes_now"] > info["sample_bytes"]
    assert info["folded"] > 0
    totals = capture.aggregate("leaks").totals
    truth = 200 * 40 * (5033 + 20057)
    width = totals["bytes_high"] - totals["bytes_low"]
    assert abs(totals["bytes"] - truth) < 1.5 * width + 0.02 * truth  # besides, functions and names
    rows = {row["site"]["function"]: row for row in capture.sites("leaks")}
    folded = rows["[folded]"]
    assert folded["samples"] > 100
    assert folded["bytes_low"] < folded["bytes"] < folded["bytes_high"]
    # nothing has died but functions: no age can hold more than what was allocated
    lifetimes = capture.stats()["lifetimes"]
    assert sum(row["blocks"] for row in lifetimes) < 2 * capture.totals()["allocations"]
