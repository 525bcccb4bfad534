"""`pymemtrace report`, on processes that really ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.any_version

Command = Callable[..., "subprocess.CompletedProcess[str]"]

LEAKS = """\
import os, sys, time
from pymemtrace import _core

kept = []


def load():
    kept.append(bytearray(300_000))


def serve():
    steady = [bytes(5_000) for _ in range(100)]
    for _ in range(8):
        _core.flush()
        for _ in range(5):
            load()
        time.sleep(0.05)
    _core.flush()


serve()
"""


def record(folder: Path, ending: str, *options: str) -> Path:
    (folder / "leaks.py").write_text(LEAKS + ending)
    subprocess.run(
        [sys.executable, "-m", "pymemtrace", "run", "-q", "--sample", "32K", *options,
         "-o", "leaks.pmt", "leaks.py"],
        cwd=folder, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return folder / "leaks.pmt"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("killed"), "os.kill(os.getpid(), 9)\n")


def report(command: Command, path: Path, *options: str) -> str:
    done = command("report", *options, path)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def read(command: Command, path: Path, *options: str) -> Any:
    return json.loads(report(command, path, "--json", *options))


def facts(text: str) -> dict[str, str]:
    """The lines above the tables, by their names."""
    lines = [line.strip().partition("  ") for line in text.splitlines()[1:] if line[:2] == "  "]
    return {name: rest.strip() for name, _, rest in lines if rest}


def test_a_killed_process(command: Command, killed: Path) -> None:
    text = report(command, killed)
    lines = facts(text)
    assert lines["end"].startswith("The process was killed or crashed")
    assert "most likely ended within 2.0 s of it" in lines["last state"]
    assert " of it: load (" in lines["leading line"]
    assert lines["leading line"].endswith("leaks.py:8)")
    assert " in that time: load (" in lines["growing most"]
    assert lines["growth"].startswith("RSS +")
    assert "█" in lines["RSS over time"]
    assert lines["gc"].endswith("in that time")
    assert lines["not recorded"].startswith("no sample dropped; the recorder itself had ")
    assert "Lines by bytes alive at the end\n" in text
    assert "and lived at the end\n" in text
    assert f"\n  pymemtrace tree --leaks {killed}\n" in text


def test_the_commands_that_it_proposes_work(command: Command, killed: Path) -> None:
    commands = [
        line.split() for line in report(command, killed).partition("\nNext\n")[2].splitlines()
    ]
    assert len(commands) >= 3
    for words in commands:
        assert words[0] == "pymemtrace"
        assert command(*words[1:]).returncode == 0


def test_json(command: Command, killed: Path) -> None:
    found = read(command, killed)
    death = found["death"]
    assert death["likely_cause"] == "killed"
    assert death["when"].startswith("20")
    assert death["confidence"] in ("probable", "not known", "unknown")
    assert death["evidence"]["ended"] == "killed"
    site = found["sites"][0]
    assert site["site"]["function"] == "load"
    assert abs(site["bytes"]["estimate"] - 8 * 5 * 300_000) < 100_000  # all sure
    growth = found["growth"]
    assert growth["sites"][0]["site"]["function"] == "load"
    assert growth["rss_bytes_per_s"] > 1_000_000
    assert growth["end_s"] > growth["start_s"]
    assert found["leaks"] is None
    assert found["forecast"] is None
    assert found["where"]["rss_bytes"] > 0
    assert any(line.startswith("pymemtrace tree --leaks") for line in found["next"])


@pytest.mark.parametrize(
    ("status", "cause", "text"),
    [("139", "crash", "The process crashed: SIGSEGV."),
     ("-15", "signal", "The process was ended by SIGTERM."),
     ("3", "exit", "The process ended by itself with exit status 3.")],
)  # fmt: skip
def test_the_status_that_a_parent_saw(
    command: Command, killed: Path, status: str, cause: str, text: str
) -> None:
    end = read(command, killed, "--exit-status", status)["end"]
    assert (end["likely_cause"], end["confidence"]) == (cause, "certain")
    assert end["text"] == text


def test_bad_options(command: Command, killed: Path) -> None:
    for options, text in (
        (("--exit-status", "300"), "no exit status from -64 to 255"),
        (("--window", "0"), "no length of time"),
        (("--window", "soon"), "no moment"),
    ):
        done = command("report", *options, killed)
        assert done.returncode == 2
        assert text in done.stderr


def test_the_window(command: Command, killed: Path) -> None:
    growth = read(command, killed, "--window", "0.1s")["growth"]
    assert growth["end_s"] - growth["start_s"] < 0.3


@pytest.mark.parametrize(
    ("ending", "cause", "text"),
    [
        ("", "normal", "The process ended normally."),
        ("sys.exit(4)", "exit", "The process ended by itself with exit status 4."),
        ("raise MemoryError", "exception",
         "The process ended by an unhandled exception (exit status 1)."),
        ("os.execv('/bin/true', ['true'])", "executed",
         "The process executed another program in its own place, which is not recorded here."),
    ],
)  # fmt: skip
def test_ends(command: Command, tmp_path: Path, ending: str, cause: str, text: str) -> None:
    path = record(tmp_path, ending + "\n")
    found = read(command, path)
    assert found["end"]["likely_cause"] == cause
    assert found["end"]["text"] == text
    assert (found["death"] is not None) == (cause == "exception")
    assert facts(report(command, path))["end"] == f"{text} (certain)"


def test_a_full_recording(command: Command, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(LEAKS + "os.kill(os.getpid(), 9)\n")
    subprocess.run([sys.executable, "-m", "pymemtrace", "run", "-q", "-o", "x.pmt", "x.py"],
                   capture_output=True, check=False)  # fmt: skip
    text = report(command, tmp_path / "x.pmt")
    assert facts(text)["leading line"].endswith("load (x.py:8)")
    assert "95 %  " not in facts(text).get("live heap", "")


def test_a_process_that_still_runs(command: Command, tmp_path: Path) -> None:
    (tmp_path / "leaks.py").write_text(LEAKS + "sys.stdin.read()\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "pymemtrace", "run", "-q", "--sample", "32K", "-o", "leaks.pmt",
         "leaks.py"], stdin=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        for _ in range(600):
            if (tmp_path / "leaks.pmt").exists() and len(
                command("report", "--json", "leaks.pmt").stdout
            ) > 100:
                break
            time.sleep(0.05)
        text = report(command, tmp_path / "leaks.pmt")
        assert facts(text)["end"] == "The process is still running. (certain)"
        assert facts(text)["last state"].endswith(" ago")
        assert "pymemtrace live" in text
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def test_several_captures_and_no_capture(command: Command, killed: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no capture")
    done = command("report", killed, "notes.txt", killed)
    assert done.returncode == 3
    assert done.stdout.count("The process was killed or crashed") == 2
    assert "notes.txt" in done.stderr
    found = json.loads(command("report", "--json", killed, killed).stdout)
    assert len(found["reports"]) == 2


# --- a memory limit -------------------------------------------------------------------------------


@pytest.fixture
def group() -> Iterator[tuple[Path, str]]:
    """A cgroup of our own below the one that we are in, and the name of its limit's file."""
    from pymemtrace import _cgroup

    version, path = _cgroup.parse_membership(_cgroup.read("/proc/self/cgroup"))
    root = Path(_cgroup.ROOT) / ("memory" if version == 1 else "")
    limit = "memory.limit_in_bytes" if version == 1 else "memory.max"
    folder = root / path.lstrip("/") / f"pymemtrace-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        if not (folder / limit).exists():
            pytest.skip("the memory controller is not delegated to us")
        (folder / limit).write_text(str(96 << 20))
        for name in ("memory.swap.max", "memory.swappiness"):
            if (folder / name).exists():
                (folder / name).write_text("0")
        yield folder, limit
    finally:
        for _ in range(100):  # a group is busy for a moment after its last process
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.05)


GROWS = """\
import time
kept = []


def cache():
    kept.append(bytearray(1_000_000))


while True:
    cache()
    time.sleep(0.02)
"""


def test_a_process_that_the_oom_killer_ends(
    command: Command, tmp_path: Path, group: tuple[Path, str]
) -> None:
    folder, _ = group
    (tmp_path / "grows.py").write_text(GROWS)
    boxes = tmp_path / "boxes"
    env = os.environ | {"PYMEMTRACE": f"dir={boxes},sample=32K,box=1M,interval=0.2"}
    join = f"echo $$ > {folder}/cgroup.procs && exec '{sys.executable}' grows.py"
    done = subprocess.run(["/bin/sh", "-c", join], env=env, timeout=120, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    (path,) = boxes.glob("*.pmt")
    death = read(command, path, "--exit-status", "137")["death"]
    assert death["likely_cause"] == "oom-cgroup"
    assert death["confidence"] in ("certain", "very probable", "probable")
    evidence = death["evidence"]
    assert evidence["limit_bytes"] == 96 << 20
    assert 0 < evidence["used_bytes"] <= 96 << 20
    assert evidence["kills_now"] == evidence["kills_last"] + 1 == 1  # the group is still there
    text = report(command, path)
    assert "by the OOM killer of its cgroup" in facts(text)["end"]
    assert facts(text)["leading line"].endswith("cache (grows.py:6)")
    # what the next start says
    env["PYMEMTRACE"] += ",program=grows.py"
    done = subprocess.run([sys.executable, "-c", "pass"], env=env, timeout=60, check=True,
                          capture_output=True, text=True)  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert "the last process grows.py (pid " in line
    assert "killed by the OOM killer of its cgroup" in line
    assert " of 96 MiB: pymemtrace report " in line


# --- run -o FILE, again and again -----------------------------------------------------------------


def test_a_box_makes_way_for_the_next_run(command: Command, tmp_path: Path) -> None:
    words = ["run", "-q", "--sample", "32K", "--box", "1M", "--keep", "2", "-o", "x.pmt", "-c"]
    for number in range(5):
        done = command(*words, "import os; os.kill(os.getpid(), 9)")
        assert done.returncode == -9, done.stderr
        assert len(list(tmp_path.glob("x*.pmt"))) == min(number + 1, 3)
    done = command(words[0], *words[2:], "import time; time.sleep(0.5)")  # without -q
    (line,) = [line for line in done.stderr.splitlines() if "the last process" in line]
    assert line.startswith("pymemtrace: the last process x (pid ")
    full = ["run", "-q", "-o", "x.pmt", "-c", "pass"]
    done = command(*full)  # no box is asked for
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert command(*full[:2], "-f", *full[2:]).returncode == 0
    done = command(*words, "pass")  # there is no box
    assert done.returncode == 2
    assert "exists already" in done.stderr
