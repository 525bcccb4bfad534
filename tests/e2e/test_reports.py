"""summary, table, tree and stats of a program whose memory is known."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import into_closed_pipe

SUMMARY_LINES = 10


def rows_of(command: Any, recorded: Any, *words: str) -> list[dict[str, Any]]:
    done = command("table", "--json", *words, recorded.capture)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["rows"]


def row_at(rows: list[dict[str, Any]], line: int) -> dict[str, Any]:
    found = [r for r in rows if r["site"]["line"] == line and r["site"]["module"] == "known"]
    assert len(found) == 1
    return found[0]


def in_terminal(words: list[str], cwd: Path, columns: int = 100) -> str:
    """What the command prints when its output is a terminal."""
    code = (
        "import fcntl, os, struct, sys, termios\n"
        f"fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 50, {columns}, 0, 0))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'pymemtrace', *sys.argv[1:]])\n"
    )
    leader, follower = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=follower, stderr=follower,
        cwd=cwd, env=environment | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(follower)
    output = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        output += part
    os.close(leader)
    assert process.wait(60) == 0
    return output.decode()


# --- summary -------------------------------------------------------------------------------------


def test_summary_names_the_line_of_the_peak(command: Any, recorded: Any) -> None:
    done = command("summary", "--json", recorded.capture)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["format"] == 1
    [capture] = result["captures"]
    assert capture["path"] == str(recorded.capture)
    assert capture["ended"] == "normal"
    assert capture["command"][-1] == "known.py"
    assert capture["mode"] == "full"
    assert recorded.peak_bytes < result["heap_bytes_peak"] < recorded.peak_bytes + (4 << 20)
    assert result["heap_bytes_end"] > recorded.worker_bytes
    assert result["allocations"] > 20000
    assert result["frees"] > 20000
    assert result["rss_bytes_peak"] > 0
    [first, *_] = result["sites"]
    assert first["site"]["line"] == recorded.peak_line
    assert first["site"]["file"] == str(recorded.script)
    assert first["bytes"] - recorded.peak_bytes in range(200)
    assert first["share"] == pytest.approx(first["bytes"] / result["heap_bytes_peak"])
    assert [frame["function"] for frame in first["stack"]] == ["peak", "<module>"]
    assert len(result["sites"]) == 10


def test_summary_as_text(command: Any, recorded: Any) -> None:
    done = command("summary", "--limit", 3, "known.pmt", cwd=recorded.folder)
    assert (done.returncode, done.stderr) == (0, "")
    answer, _, sites = done.stdout.partition("\n\n")
    assert len(answer.splitlines()) == SUMMARY_LINES - 1
    assert "\x1b" not in done.stdout
    assert re.search(r"peak +5\d\.\d MiB in [\d,]+ blocks", answer)
    assert re.search(r"dominating line +9\d\.\d % at the peak: peak \(known.py:5\)", answer)
    assert "at the peak: <module>:18 > peak:5\n" in answer
    assert "ended normally" in answer
    lines = sites.splitlines()
    assert len(lines) == 2 + 3
    assert lines[0] == "Lines by bytes at the peak"
    assert re.match(r" +50\.0 MiB  9\d\.\d % .* known\.py:5 +peak$", lines[2])


# --- views and filters ---------------------------------------------------------------------------


def test_what_is_alive_at_the_end(command: Any, recorded: Any) -> None:
    rows = rows_of(command, recorded, "--leaks")
    assert row_at(rows, recorded.worker_line)["bytes"] - recorded.worker_bytes in range(200)
    assert [r for r in rows if r["site"]["line"] == recorded.peak_line and r["bytes"] > 1000] == []


def test_total_and_temporary(command: Any, recorded: Any) -> None:
    total = row_at(rows_of(command, recorded, "--total"), recorded.churn_line)
    temporary = row_at(rows_of(command, recorded, "--temporary"), recorded.churn_line)
    # the number as a text, and the text with the x; the number itself may come from a free list
    assert total["blocks"] == total["allocations"] >= 40000
    assert total["bytes"] == total["allocated_bytes"]
    assert 0 < temporary["blocks"] <= total["blocks"]


def test_the_views_exclude_each_other(command: Any, recorded: Any) -> None:
    done = command("table", "--leaks", "--total", recorded.capture)
    assert (done.returncode, done.stdout) == (2, "")
    assert "not allowed with" in done.stderr


def test_only_one_thread(command: Any, recorded: Any) -> None:
    [worker] = [
        t
        for t in json.loads(command("stats", "--json", recorded.capture).stdout)["by_thread"]
        if t["name"] != "MainThread" and t["python_id"] != 0
    ]
    rows = rows_of(command, recorded, "--leaks", "--thread", str(worker["native_id"]))
    assert rows[0]["site"]["line"] == recorded.worker_line
    rows = rows_of(command, recorded, "--leaks", "--thread", "MainThread")
    assert recorded.worker_line not in {r["site"]["line"] for r in rows if r["bytes"] > 1 << 20}


def test_an_unknown_thread(command: Any, recorded: Any) -> None:
    done = command("table", "--thread", "nobody", recorded.capture)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "'nobody'" in done.stderr
    assert "MainThread (" in done.stderr
    assert str(recorded.capture) in done.stderr


def test_include_and_exclude(command: Any, recorded: Any) -> None:
    everything = rows_of(command, recorded)
    included = rows_of(command, recorded, "--include", "known")
    assert 0 < len(included) < len(everything)
    assert all("known" in [frame["module"] for frame in r["stack"]] for r in included)
    excluded = rows_of(command, recorded, "--exclude", "*/known.py", "--exclude", "importlib")
    assert 0 < len(excluded) < len(everything)
    assert {r["site"]["module"].split(".")[0] for r in excluded} & {"known", "importlib"} == set()


@pytest.mark.parametrize("pattern", ["known.py", "__main__", "known", "kno*.py", "[*]known.py"])
def test_the_program_by_its_names(command: Any, recorded: Any, pattern: str) -> None:
    rows = rows_of(command, recorded, "--include", pattern)
    if pattern.startswith("["):
        assert rows == []
    else:
        assert recorded.peak_line in [row["site"]["line"] for row in rows]
        assert all("known" in [frame["module"] for frame in row["stack"]] for row in rows)


def test_a_file_by_the_last_parts_of_its_path(command: Any, recorded: Any) -> None:
    folder = recorded.folder.name  # "a recording0"
    assert rows_of(command, recorded, "--include", f"{folder}/known.py")
    assert not rows_of(command, recorded, "--include", "cording0/known.py")
    assert not rows_of(command, recorded, "--include", "nown.py")


@pytest.mark.parametrize("name", ["summary", "table"])
def test_a_pattern_that_matches_nothing_gives_a_hint(
    command: Any, recorded: Any, name: str
) -> None:
    done = command(name, "--include", "nobody", recorded.capture)
    assert (done.returncode, done.stderr) == (0, "")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("Nothing at the peak")]
    assert "file names" in line
    assert "[root]" not in done.stdout
    assert "dominating line" not in done.stdout


def test_a_time_window(command: Any, recorded: Any) -> None:
    whole = rows_of(command, recorded, "--total")
    assert rows_of(command, recorded, "--total", "--from", "0", "--to", "1h") == whole
    [capture] = json.loads(command("table", "--json", recorded.capture).stdout)["captures"]
    started = capture["started"]
    assert rows_of(command, recorded, "--total", "--from", started, "--until", "2m") == whole
    done = command("table", "--from", "1h", recorded.capture)
    assert (done.returncode, done.stdout) == (2, "")
    assert "behind the end" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_window_that_was_used_is_named(command: Any, recorded: Any) -> None:
    found = json.loads(command("table", "--json", "--from", "1ms", recorded.capture).stdout)
    start, end = found["window"]["start_s"], found["window"]["end_s"]
    assert 0 <= start < end == found["captures"][0]["duration_s"] or end > 0
    text = command("table", "--from", "1ms", recorded.capture).stdout
    assert f"Only the time from {start:.3f} s to {end:.3f} s: the whole flushes" in text
    done = command("table", "--from", "2001-01-01T00:00:00+00:00", recorded.capture)
    assert "note: --from lies before the start of the recording, " in done.stdout
    assert "before the start" not in command("table", "--from", "0", recorded.capture).stdout


def test_the_launcher_is_one_place(command: Any, recorded: Any) -> None:
    own = [row["site"] for row in rows_of(command, recorded, "--total")]
    assert {"file": "", "line": 0, "function": "[pymemtrace]"}.items() <= next(
        site for site in own if site["function"] == "[pymemtrace]"
    ).items()
    assert not [site for site in own if "_launch" in site["file"]]


@pytest.mark.parametrize("word", ["x", "-1", "1y", "2026-13-01", ""])
def test_no_moment(command: Any, recorded: Any, word: str) -> None:
    done = command("table", f"--from={word}", recorded.capture)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no moment" in done.stderr


# --- tree, stats ---------------------------------------------------------------------------------


def find(node: dict[str, Any], *lines: int) -> dict[str, Any]:
    for line in lines:
        node = next(n for n in node["children"] if n["site"]["line"] == line)
    return node


def test_tree_and_inverted_tree(command: Any, recorded: Any) -> None:
    root = json.loads(command("tree", "--json", recorded.capture).stdout)["root"]
    module_line = next(n["site"]["line"] for n in root["children"] if n["bytes"] > 50 << 20)
    assert find(root, module_line, recorded.peak_line)["bytes"] - recorded.peak_bytes in range(200)
    inverted = json.loads(command("tree", "--json", "--inverted", recorded.capture).stdout)["root"]
    assert inverted["bytes"] == root["bytes"] == sum(n["bytes"] for n in inverted["children"])
    assert find(inverted, recorded.peak_line, module_line)["children"] == []


def test_tree_as_text(command: Any, recorded: Any) -> None:
    done = command("tree", "--min-share", 5, "known.pmt", cwd=recorded.folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r" +5\d\.\d MiB +100\.0 %  \[root\]", lines[3])
    assert lines[5].endswith("peak  known.py:5")
    assert lines[-1] == "Branches with less than 5.0 % are left out (--min-share)."


@pytest.fixture(scope="module")
def importing(command: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The capture of a program that imports a module, which keeps a MiB."""
    folder = tmp_path_factory.mktemp("importing")
    (folder / "imported.py").write_text("kept = bytearray(1 << 20)\n")
    assert command("run", "-o", "x.pmt", "-c", "import imported", cwd=folder).returncode == 0
    return folder / "x.pmt"


def test_tree_without_the_import_system(command: Any, importing: Path) -> None:
    text = command("tree", importing).stdout
    assert "imported.py:1" in text
    assert "_find_and_load" not in text
    assert "frames of the import system are left out" in text
    assert "_find_and_load" in command("tree", "--json", importing).stdout


def test_inverted_tree_begins_with_what_allocates(command: Any, tmp_path: Path) -> None:
    code = "import sqlite3, asyncio"
    assert command("run", "-o", "x.pmt", "-c", code, cwd=tmp_path).returncode == 0
    top = json.loads(command("table", "--leaks", "--json", "x.pmt", cwd=tmp_path).stdout)["rows"][0]
    text = command("tree", "--leaks", "--inverted", "x.pmt", cwd=tmp_path).stdout
    assert text.splitlines()[4].split()[-1].endswith(f":{top['site']['line']}")


def test_depth_counts_the_frames_that_are_shown(command: Any, importing: Path) -> None:
    text = command("tree", "--depth", 2, importing).stdout
    assert "imported.py:1" in text


def test_tree_of_a_deep_recursion(command: Any, tmp_path: Path) -> None:
    code = (
        "import sys; sys.setrecursionlimit(20000)\n"
        "def f(n): return f(n - 1) if n else bytearray(1 << 20)\n"
        "kept = f(5000)\n"
    )
    assert command("run", "-o", "x.pmt", "-c", code, cwd=tmp_path).returncode == 0
    done = command("tree", "--json", "x.pmt", cwd=tmp_path)
    assert done.returncode == 0
    # json.loads() cannot go that deep either
    assert done.stdout.count('"function": "f"') >= 5000
    assert done.stdout.count("{") == done.stdout.count("}")
    assert command("tree", "x.pmt", cwd=tmp_path).stdout.count("  f  ") >= 5000


def test_stats(command: Any, recorded: Any) -> None:
    result = json.loads(command("stats", "--json", recorded.capture).stdout)
    assert sum(row["allocations"] for row in result["size_histogram"]) == result["allocations"]
    [large] = [r for r in result["size_histogram"] if r["low"] <= recorded.peak_bytes <= r["high"]]
    assert large["bytes"] >= recorded.peak_bytes
    assert set(result["by_domain"]) >= {"obj", "mem", "raw"}
    sums = [domain["allocated_bytes"] for domain in result["by_domain"].values()]
    assert sum(sums) == result["allocated_bytes"]
    assert sum(row["blocks"] for row in result["lifetimes"]) == result["frees"]
    # From 3.14 on, a thread allocates a little before it has a Python id: that is a row of its own.
    known = [thread for thread in result["by_thread"] if thread["python_id"] != 0]
    assert [thread["name"] for thread in known] == ["MainThread", "Thread-1 (worker)"]
    assert sum(t["allocations"] for t in result["by_thread"] if t not in known) < 10


def test_stats_of_what_a_filter_lets_through(command: Any, recorded: Any) -> None:
    words = ["--json", "--exclude", "*", "--thread", "MainThread"]
    nothing = json.loads(command("stats", *words, recorded.capture).stdout)
    assert sum(row["allocations"] for row in nothing["size_histogram"]) <= nothing["allocations"]
    words = ["--json", "--include", "known", "--exclude", "importlib"]
    result = json.loads(command("stats", *words, recorded.capture).stdout)
    rows = rows_of(command, recorded, "--total", "--include", "known", "--exclude", "importlib")
    assert sum(r["allocations"] for r in rows) == sum(
        r["allocations"] for r in result["size_histogram"]
    )
    over = result["size_histogram"][-1]
    assert over["low"] == 513
    assert over["bytes"] > recorded.peak_bytes


def test_stats_as_text(command: Any, recorded: Any) -> None:
    done = command("stats", recorded.capture)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("32.0 MiB to 64.0 MiB", "Python objects", "MainThread (", "flushes"):
        assert text in done.stdout


# --- several captures, states --------------------------------------------------------------------


def test_several_captures_and_a_pattern(command: Any, recorded: Any, tmp_path: Path) -> None:
    for name in ("a.pmt", "b.pmt"):
        (tmp_path / name).write_bytes(recorded.capture.read_bytes())
    done = command("table", "--json", "*.pmt", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert [c["path"] for c in result["captures"]] == ["a.pmt", "b.pmt"]
    assert [r["path"] for r in result["reports"]] == ["a.pmt", "b.pmt"]
    assert result["reports"][0]["rows"] == result["reports"][1]["rows"] != []
    text = command("table", "--limit", 1, "b.pmt", "a.pmt", cwd=tmp_path).stdout
    assert text.index("b.pmt:") < text.index("a.pmt:")


def test_one_bad_capture_does_not_keep_the_others_back(
    command: Any, recorded: Any, tmp_path: Path
) -> None:
    (tmp_path / "bad.pmt").write_text("no capture")
    done = command("table", "--json", "bad.pmt", recorded.capture, cwd=tmp_path)
    assert done.returncode == 3
    assert len(json.loads(done.stdout)["reports"]) == 1
    assert "bad.pmt" in done.stderr


def test_running_and_killed(command: Any, tmp_path: Path) -> None:
    code = (
        "import pymemtrace._core as core, time\n"
        "kept = bytearray(3 << 20)\ncore.flush()\nprint('ready', flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pymemtrace", "run", "-o", "x.pmt", "-c", code],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    done = command("summary", "x.pmt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "note: The program still runs; these figures are" in done.stdout
    [capture] = json.loads(command("table", "--json", "x.pmt", cwd=tmp_path).stdout)["captures"]
    assert capture["ended"] == "running"
    assert capture["age_s"] > 0

    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    done = command("summary", "--leaks", "x.pmt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "note: The program ended without closing the capture" in done.stdout
    assert "killed" in done.stdout
    result = json.loads(command("summary", "--leaks", "--json", "x.pmt", cwd=tmp_path).stdout)
    assert result["captures"][0]["ended"] == "killed"
    assert result["sites"][0]["bytes"] - (3 << 20) in range(200)


# --- output --------------------------------------------------------------------------------------


def test_a_terminal_gets_colours_and_its_width(recorded: Any) -> None:
    output = in_terminal(["summary", "known.pmt"], recorded.folder, columns=70)
    assert "\x1b[" in output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output).replace("\r\n", "\n")
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 70
    assert "allocations  line" not in plain  # columns without room are left out
    assert "known.py:5" in plain


def test_names_from_a_capture_cannot_control_the_terminal(command: Any, tmp_path: Path) -> None:
    code = (
        "code = compile('kept = bytearray(1 << 20)', 'evil\\x1b[31m\\u202ename.py', 'exec')\n"
        "exec(code)\n"
    )
    assert command("run", "-o", "x.pmt", "-c", code, cwd=tmp_path).returncode == 0
    done = command("summary", "x.pmt", cwd=tmp_path)
    assert done.returncode == 0
    assert "evil\\x1b[31m\\u202ename.py:1" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_a_closed_pipe_is_no_error(recorded: Any) -> None:
    command = [sys.executable, "-m", "pymemtrace", "table", "--total", recorded.capture]
    assert into_closed_pipe(command) == (0, "")


def test_a_full_disk_is_said(recorded: Any) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pymemtrace", "table", str(recorded.capture)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
