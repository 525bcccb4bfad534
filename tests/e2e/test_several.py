"""The commands on the captures of several processes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "py"))

import capture_builder as cb
from capture_builder import CaptureBuilder, Row

S = 10**9
MIB = 1024 * 1024
PROGRAM = """\
import sys


def hold(mebibytes):
    return [bytearray(1024 * 1024) for _ in range(mebibytes)]


kept = hold(int(sys.argv[1]))
"""
HOLD_LINE = 5


class Several:
    """Recordings of PROGRAM that keep 3, 8 and 5 MiB."""

    sizes = (3, 8, 5)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = [f"job.{size}.pmt" for size in sorted(self.sizes)]


@pytest.fixture(scope="module")
def several(command: Any, tmp_path_factory: pytest.TempPathFactory) -> Several:
    folder = tmp_path_factory.mktemp("several")
    (folder / "hold.py").write_text(PROGRAM)
    for size in Several.sizes:
        done = command("run", "-o", f"job.{size}.pmt", "hold.py", size, cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
    return Several(folder)


def result_of(command: Any, several: Several, *words: object) -> dict[str, Any]:
    done = command(*words, "--json", "job.*.pmt", cwd=several.folder)
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    assert [info["path"] for info in result["captures"]] == several.names
    return result


def hold_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    [row] = [row for row in rows if row["site"]["line"] == HOLD_LINE]
    return row


def check_hold(row: dict[str, Any], size_key: str = "bytes") -> None:
    assert row[size_key] == sum(row["by_capture"])
    for size, mebibytes in zip(row["by_capture"], sorted(Several.sizes), strict=True):
        assert mebibytes * MIB <= size < mebibytes * MIB + 10_000


def test_summary_side_by_side(command: Any, several: Several) -> None:
    result = result_of(command, several, "summary", "--leaks")
    check_hold(hold_row(result["sites"]))
    reports = result["reports"]
    for key in ("heap_bytes_peak", "heap_bytes_end", "allocated_bytes", "allocations", "frees"):
        assert result[key] == sum(report[key] for report in reports)
        assert [process[key] for process in result["processes"]] == [r[key] for r in reports]
    assert [r["path"] for r in reports] == several.names
    peaks = [report["heap_bytes_peak"] for report in reports]
    # They ran one after another.
    assert result["heap_bytes_peak_simultaneous"] == max(peaks)
    assert result["by_capture"] == [report["view_bytes"] for report in reports]


def test_summary_side_by_side_as_text(command: Any, several: Several) -> None:
    done = command("summary", *several.names, cwd=several.folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "3 processes: job.3.pmt, job.5.pmt, job.8.pmt"
    assert lines[1].split()[:5] == ["process", "parent", "ran", "peak", "at"]
    for line, size in zip(lines[2:5], (3, 5, 8), strict=True):
        assert line.endswith(f"python hold.py {size}") or f" hold.py {size}" in line
    assert lines[5].split()[0] == "all"
    assert "each process at its own peak" in done.stdout
    assert "at one time" in done.stdout
    row = next(line for line in lines if f"hold.py:{HOLD_LINE}" in line)
    pid = json.loads(command("summary", "--json", "job.8.pmt", cwd=several.folder).stdout)
    assert row.endswith(f"3; 50.0 % in {pid['captures'][0]['pid']}")


def test_summary_merged(command: Any, several: Several) -> None:
    result = result_of(command, several, "summary", "--merge", "--leaks")
    assert "reports" not in result
    check_hold(hold_row(result["sites"]))
    text = command("summary", "--merge", *several.names, cwd=several.folder).stdout
    assert "sum of the peaks" in text
    assert "\n  process  parent" not in text


def test_one_capture_is_reported_as_ever(command: Any, several: Several) -> None:
    plain = command("summary", "job.3.pmt", cwd=several.folder).stdout
    assert plain == command("summary", "job.3*.pmt", cwd=several.folder).stdout
    assert "dominating line" in plain


def test_table_tree_and_stats(command: Any, several: Several) -> None:
    table = result_of(command, several, "table", "--merge", "--leaks")
    check_hold(hold_row(table["rows"]))
    assert table["view_bytes"] == sum(row["bytes"] for row in table["rows"])
    root = result_of(command, several, "tree", "--merge", "--leaks")["root"]
    assert root["by_capture"] == table["by_capture"]
    check_hold(max(root["children"], key=lambda node: node["bytes"]))
    stats = result_of(command, several, "stats", "--merge")
    pids = {info["pid"] for info in stats["captures"]}
    assert {row["pid"] for row in stats["by_thread"]} == pids
    assert sum(row["allocations"] for row in stats["size_histogram"]) == stats["allocations"]
    for name in ("table", "tree", "stats"):
        done = command(name, "--merge", *several.names, cwd=several.folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("3 processes: ")
        assert "these are not simultaneous" in done.stdout
        # One after another without --merge.
        text = command(name, *several.names, cwd=several.folder).stdout
        assert text.index("job.3.pmt:") < text.index("job.5.pmt:") < text.index("job.8.pmt:")


@pytest.mark.parametrize("kind", ["collapsed", "csv", "pprof", "speedscope"])
def test_exports(command: Any, several: Several, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "out"
    done = command(
        "export", "--merge", "--leaks", "--to", kind, "-o", output, *several.names,
        cwd=several.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 100
    if kind == "collapsed":
        total = sum(int(line.rpartition(" ")[2]) for line in output.read_text().splitlines())
        assert total == result_of(command, several, "table", "--merge", "--leaks")["view_bytes"]
    done = command("export", "--to", kind, "-o", output, *several.names, cwd=several.folder)
    assert done.returncode == 2
    assert "--merge" in done.stderr


def test_flamegraph(command: Any, several: Several) -> None:
    done = command("flamegraph", "--merge", *several.names, cwd=several.folder)
    assert done.returncode == 0
    assert done.stdout.startswith("wrote job.3.merged.html (")
    assert "not simultaneous" in done.stderr
    page = (several.folder / "job.3.merged.html").read_text()
    assert "<title>3 processes: job.3.pmt, job.5.pmt, job.8.pmt</title>" in page


# --- what a fork hands down ------------------------------------------------------------------


def write_family(folder: Path) -> None:
    """A parent with 1000 bytes, and a child that has them too, and 70 of its own."""
    line = ("/app/app.py", "load", 7)
    for pid, facts in ((10, {}), (11, {"fork_parent_pid": 10, "inherited": 1})):
        builder = CaptureBuilder(pid=pid, command=["python3", f"app-{pid}.py"], **facts)
        site = builder.site(builder.stack(line), 100)
        own = builder.site(builder.stack(line, ("/app/app.py", "own", 9)), 70)
        builder.cut(
            S, [Row(site, 0, 10, 0)], epoch=1, flags=cb.PEAK_MOVED, live=(1000, 10),
            allocations=10, allocated_bytes=1000, peak=(1000, 10, S),
        )  # fmt: skip
        more = pid == 11
        size = 1070 if more else 1000
        builder.cut(
            2 * S, [Row(own, 0, 1, 0)] if more else [], epoch=2,
            flags=cb.MAIN_RETURNED | (cb.PEAK_MOVED if more else 0), live=(size, 10 + more),
            allocations=10 + more, allocated_bytes=size,
            peak=(size, 10 + more, 2 * S if more else S),
        )  # fmt: skip
        builder.end(2 * S)
        builder.write(folder / f"app.{pid}.pmt", status=cb.ENDED)


def test_inherited_blocks(command: Any, tmp_path: Path) -> None:
    write_family(tmp_path)
    once = json.loads(command("summary", "--json", "app.*.pmt", cwd=tmp_path).stdout)
    assert once["heap_bytes_peak"] == 1070
    assert once["heap_bytes_peak_simultaneous"] == 1070
    assert once["allocated_bytes"] == 1070
    assert [process["heap_bytes_end"] for process in once["processes"]] == [1000, 70]
    assert [row["by_capture"] for row in once["sites"]] == [[1000, 0], [0, 70]]
    both = json.loads(
        command("summary", "--json", "--with-inherited", "app.*.pmt", cwd=tmp_path).stdout
    )
    assert both["heap_bytes_peak"] == both["heap_bytes_peak_simultaneous"] == 2070
    assert both["sites"][0]["by_capture"] == [1000, 1000]
    text = command("summary", "app.*.pmt", cwd=tmp_path).stdout
    assert "Process 11 has 1000 B from process 10 by fork; they count there only" in text
    assert " inherited " in text.splitlines()[1]
    orphan = command("table", "--merge", "app.11.pmt", cwd=tmp_path).stdout
    assert "whose capture is not here: they are not counted" in orphan


def test_a_real_family(command: Any, tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "base = [bytes(1000) for _ in range(20_000)]\n"
        "for k in range(2):\n"
        "    if os.fork() == 0:\n"
        "        own = [bytes(500) for _ in range(10_000)]; time.sleep(0.2); os._exit(0)\n"
        "for _ in range(2): os.wait()\n"
    )
    assert command("run", "-q", "-o", "x.pmt", "-c", code, cwd=tmp_path).returncode == 0
    once = json.loads(command("summary", "--json", "x*.pmt", cwd=tmp_path).stdout)
    base, own = 20_000 * 1033, 10_000 * 533
    assert len(once["captures"]) == 3
    for field in ("heap_bytes_peak", "heap_bytes_end", "heap_bytes_peak_simultaneous"):
        assert base + 2 * own <= once[field] <= base + 2 * own + (2 << 20), field
    words = ["summary", "--json", "--with-inherited", "x*.pmt"]
    both = json.loads(command(*words, cwd=tmp_path).stdout)
    assert 3 * base + 2 * own <= both["heap_bytes_end"] <= 3 * base + 2 * own + (6 << 20)


def test_many_heirs_are_one_sentence(command: Any, tmp_path: Path) -> None:
    for pid in range(20, 26):
        builder = CaptureBuilder(pid=pid, fork_parent_pid=20, inherited=int(pid > 20))
        site = builder.site(builder.stack(("/app/app.py", "load", 7)), 100)
        builder.cut(S, [Row(site, 0, 10, 0)], live=(1000, 10), allocated_bytes=1000)
        builder.write(tmp_path / f"{pid}.pmt")
    done = command("table", "--merge", "--leaks", "*.pmt", cwd=tmp_path)
    sentences = [line for line in done.stdout.splitlines() if "by fork" in line]
    assert len(sentences) == 1
    assert "5 processes have 4.9 KiB from their parents by fork: blocks count" in sentences[0]


# --- filters -----------------------------------------------------------------------------------


def test_a_window_is_named(command: Any, tmp_path: Path) -> None:
    write_family(tmp_path)
    window = ["--merge", "--from", "1.2", "--until", "1.8", "app.*.pmt"]
    sentence = (
        "Only the time from 1.000 s to 2.000 s:"
        " the whole flushes of each process nearest to what was asked for."
    )
    for name in ("table", "tree", "stats", "summary"):
        assert sentence in command(name, *window, cwd=tmp_path).stdout
    for name in ("table", "stats", "summary"):
        result = json.loads(command(name, "--json", *window, cwd=tmp_path).stdout)
        assert result["window"] == {"start_s": 1.0, "end_s": 2.0}
    done = command("table", "--total", "--json", *window, cwd=tmp_path)
    assert [row["by_capture"] for row in json.loads(done.stdout)["rows"]] == [[0, 70]]
    for words in (["export", "--to", "csv", "-o", "x.csv"], ["flamegraph", "-o", "x.html"]):
        done = command(*words, *window, cwd=tmp_path)
        assert done.returncode == 0
        assert sentence in done.stderr


def test_patterns_that_match_nothing(command: Any, tmp_path: Path) -> None:
    write_family(tmp_path)
    words = ["--merge", "--include", "nobody", "app.*.pmt"]
    hint = "Nothing at the peak that the patterns let through."
    assert hint in command("table", *words, cwd=tmp_path).stdout
    done = command("flamegraph", "-o", "x.html", *words, cwd=tmp_path)
    assert hint in done.stderr


def test_collapsed_paths(command: Any, tmp_path: Path) -> None:
    write_family(tmp_path)
    words = ["export", "--to", "collapsed", "-o", "-", "--merge", "app.*.pmt"]
    assert "/app/app.py" not in command(*words, cwd=tmp_path).stdout
    assert "/app/app.py:7" in command(*words, "--full-paths", cwd=tmp_path).stdout


# --- wrong mixtures ----------------------------------------------------------------------------


def test_a_wrong_mixture(command: Any, several: Several, tmp_path: Path) -> None:
    for name in several.names:
        (tmp_path / name).write_bytes((several.folder / name).read_bytes())
    (tmp_path / "copy.pmt").write_bytes((several.folder / "job.3.pmt").read_bytes())
    newer = bytearray((several.folder / "job.5.pmt").read_bytes())
    newer[:64] = cb.header(major=9)
    (tmp_path / "newer.pmt").write_bytes(newer)
    (tmp_path / "no.pmt").write_text("no capture")
    words = ["copy.pmt", "job.3.pmt", "job.8.pmt", "newer.pmt", "no.pmt", "missing.pmt"]
    for name in ("summary", "table", "tree", "stats"):
        done = command(name, "--merge", "--json", *words, cwd=tmp_path)
        assert done.returncode == 3
        result = json.loads(done.stdout)
        assert [info["path"] for info in result["captures"]] == ["copy.pmt", "job.8.pmt"]
        lines = done.stderr.splitlines()
        assert len(lines) == 4
        assert lines[0].startswith("pymemtrace: note: the same capture as copy.pmt")
        assert lines[0].endswith(": job.3.pmt")
        for line, path in zip(lines[1:], words[3:], strict=True):
            assert path in line
    # The same twice is no error.
    done = command("table", "--merge", "--json", "job.3.pmt", "./job.3.pmt", cwd=tmp_path)
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["captures"]) == 1


def test_a_damaged_one_counts_as_far_as_it_goes(
    command: Any, several: Several, tmp_path: Path
) -> None:
    builder = CaptureBuilder(pid=77)
    site = builder.site(builder.stack(("/app/app.py", "load", 7)), 100)
    for t in (1, 2):
        builder.cut(t * S, [Row(site, 0, 5, 0)], live=(500 * t, 5 * t))
    data = bytearray(builder.bytes(status=cb.RECORDING))
    data[-20] ^= 255  # within the second cut, which the state slot calls complete
    (tmp_path / "damaged.pmt").write_bytes(data)
    done = command(
        "table", "--merge", "--leaks", "--json", "damaged.pmt", several.folder / "job.3.pmt",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "damaged" in done.stderr
    result = json.loads(done.stdout)
    assert len(result["captures"]) == 2
    assert result["by_capture"][0] == 500


def test_nothing_readable(command: Any, tmp_path: Path) -> None:
    (tmp_path / "no.pmt").write_text("no capture")
    for words in (["--merge", "no.pmt"], ["no.pmt", "missing.pmt"]):
        done = command("summary", *words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.count("\n") == len(words) - (words[0] == "--merge")


def test_a_window_or_thread_of_none(command: Any, several: Several) -> None:
    for words in (["--from", "1h"], ["--thread", "nobody"]):
        done = command("table", "--merge", *words, *several.names, cwd=several.folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
    assert "MainThread" in done.stderr
