"""Where the resident memory is: programs that know what their memory is made of."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pymemtrace.cli import main

MIB = 1 << 20
GOLDEN = Path(__file__).resolve().parents[1] / "golden"

PROGRAM = """\
import ctypes
import mmap
import threading

MIB = 1 << 20
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def block(size):
    address = libc.malloc(size)
    libc.memset(address, 1, size)
    return address


objects = [bytes(100) for _ in range(200_000)]  # 133 bytes each
for _ in range(50_000):
    block(1000)
for _ in range(2):
    block(50 * MIB)
private = mmap.mmap(-1, 50 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
shared = mmap.mmap(-1, 20 * MIB)
for mapping in private, shared:
    for at in range(0, len(mapping), 4096):
        mapping[at] = 1
"""


def where_of(command: Any, capture: Path, *words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(command("where", *words, "--json", capture).stdout)
    return answer


def parts_of(answer: dict[str, Any]) -> dict[str, int]:
    names = [part["name"] for part in answer["parts"]]
    assert len(set(names)) == len(names)
    return {part["name"]: part["bytes"] for part in answer["parts"]}


def assert_about(found: int, expected: int) -> None:
    assert 0.97 * expected <= found <= 1.03 * expected


@pytest.fixture(scope="module")
def capture(command: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("where")
    (folder / "known.py").write_text(PROGRAM)
    done = command("run", "-q", "-o", "known.pmt", "known.py", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / "known.pmt"


def test_known_parts(command: Any, capture: Path) -> None:
    done = command("where", "--json", capture)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    parts = parts_of(answer)
    assert_about(parts["python objects"], 200_000 * 133)
    assert parts["pymalloc rounding"] < 0.25 * parts["python objects"]  # 144 for 133
    assert_about(parts["native heap blocks"], 50_000_000)
    assert_about(parts["large native blocks"], 100 * MIB)  # and a list
    assert_about(parts["mappings"], 50 * MIB)
    assert_about(parts["shared memory"], 20 * MIB)
    for name in ("file pages", "library data", "main stack", "recorder", "kernel pages"):
        assert 0 < parts[name] < 40 * MIB, name
    rss = answer["rss_bytes"]
    assert sum(parts.values()) + answer["unattributed_bytes"] == rss
    assert answer["unattributed_bytes"] <= 0.03 * rss
    assert [part["bytes"] for part in answer["parts"]] == sorted(parts.values(), reverse=True)
    assert answer["captures"][0]["path"] == str(capture)
    assert answer["at"] >= answer["captures"][0]["started"]
    assert_about(answer["requested_bytes"], 200_000 * 133 + 50_000_000 + 170 * MIB)


def test_text(command: Any, capture: Path) -> None:
    done = command("where", capture)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert any(line.strip().startswith("dominating part") for line in lines)
    assert any("unattributed" in line for line in lines)
    done = command("summary", capture)
    assert any("dominating part: " in line and "(RSS)" in line for line in done.stdout.splitlines())


def test_over_time(command: Any, tmp_path: Path) -> None:
    code = (
        "import time\n"
        "time.sleep(1.5)\n"
        "kept = [bytes(100) for _ in range(200_000)]\n"
        "time.sleep(6)\n"  # a measurement that takes 25 ms may come again after five seconds
        "del kept\n"
    )
    done = command("run", "-q", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert done.returncode == 0
    answer = where_of(command, tmp_path / "x.pmt", "--timeline")
    moments = answer["timeline"]
    assert len(moments) >= 3
    assert all(m["unattributed_bytes"] <= 0.03 * m["rss_bytes"] for m in moments)
    objects = [m["parts"]["python objects"] for m in moments]
    assert_about(max(objects), 200_000 * 133)
    assert objects[0] < 3 * MIB
    assert objects[-1] < 3 * MIB
    assert parts_of(answer)["python objects"] == objects[-1]
    first = where_of(command, tmp_path / "x.pmt", "--at", "1.2s")
    assert first["at_s"] == moments[0]["t_s"]
    high = moments[objects.index(max(objects))]["t_s"]
    then = where_of(command, tmp_path / "x.pmt", f"--at={high + 0.001}")
    assert parts_of(then)["python objects"] == max(objects)


def test_what_doubles_is_measured_at_once(command: Any, tmp_path: Path) -> None:
    """However short before, and however long, the last measurement was: the peak is not missed."""
    code = (
        "import time\n"
        "small = [bytes(100) for _ in range(400_000)]\n"
        "time.sleep(1.3)\n"  # a cut: takes some 10 ms, for which two seconds of pause are due
        "large = bytearray(b'1') * (400 << 20)\n"
        "time.sleep(1.3)\n"
        "del small, large\n"
    )
    done = command("run", "-q", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert done.returncode == 0
    answer = where_of(command, tmp_path / "x.pmt", "--timeline")
    moments = [moment["rss_bytes"] for moment in answer["timeline"]]
    assert max(moments) >= 2 * moments[0]  # maybe in the middle of the filling
    assert moments[-1] < max(moments) / 2


def test_without_the_native_layer(command: Any, tmp_path: Path) -> None:
    """Blocks of malloc are found in memory then; what else is mapped is said to be unknown."""
    (tmp_path / "known.py").write_text(PROGRAM)
    done = command("run", "-q", "--python-only", "-o", "x.pmt", "known.py", cwd=tmp_path)
    assert done.returncode == 0
    answer = where_of(command, tmp_path / "x.pmt")
    parts = parts_of(answer)
    assert_about(parts["large native blocks"], 100 * MIB)  # and a list
    assert parts["native heap other"] >= 50_000_000
    assert "mappings" not in parts
    assert_about(answer["unattributed_bytes"], 50 * MIB)


@pytest.mark.parametrize("allocator", ["malloc", "pymalloc_debug"])
def test_other_allocators(
    command: Any, tmp_path: Path, allocator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONMALLOC", allocator)
    (tmp_path / "known.py").write_text(PROGRAM)
    done = command("run", "-q", "-o", "x.pmt", "known.py", cwd=tmp_path)
    assert done.returncode == 0
    answer = where_of(command, tmp_path / "x.pmt")
    parts = parts_of(answer)
    assert answer["unattributed_bytes"] <= 0.03 * answer["rss_bytes"]
    if allocator == "malloc":
        assert "pymalloc free" not in parts
        assert "python objects" not in parts
        assert parts["native heap blocks"] > 50_000_000 + 200_000 * 133
    else:
        assert_about(parts["python objects"], 200_000 * 133)


# --- processes ------------------------------------------------------------------------------------

WAITING = """\
import sys
kept = bytearray(30 << 20)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def waiting(request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    """A program that waits; recorded if the parameter says so."""
    recorder = ["-m", "pymemtrace", "run", "-q", "-o", "x.pmt"] if request.param else []
    process = subprocess.Popen(
        [sys.executable, *recorder, "-c", WAITING],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("waiting", [True], indirect=True)
def test_a_recorded_process(command: Any, waiting: "subprocess.Popen[str]") -> None:
    answer = {}
    for _ in range(100):
        done = command("where", "--json", waiting.pid)
        if done.returncode == 0:
            answer = json.loads(done.stdout)
            break
        time.sleep(0.1)
    assert answer["captures"][0]["pid"] == waiting.pid
    assert answer["captures"][0]["ended"] == "running"
    assert_about(parts_of(answer)["large native blocks"], 30 * MIB)
    Path("x.pmt").unlink()  # it goes on writing to what it has open
    assert command("where", waiting.pid).returncode == 0


@pytest.mark.parametrize("waiting", [False], indirect=True)
def test_another_process(command: Any, waiting: "subprocess.Popen[str]") -> None:
    done = command("where", "--json", waiting.pid)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["from_outside"]
    assert answer["captures"] == []
    assert "not being recorded" in answer["note"]
    parts = parts_of(answer)
    assert 30 * MIB <= parts["anonymous memory"] <= 45 * MIB
    assert sum(parts.values()) == answer["rss_bytes"]
    rss = 4096 * int(Path(f"/proc/{waiting.pid}/statm").read_text().split()[1])
    assert_about(answer["rss_bytes"], rss)
    done = command("where", waiting.pid)
    assert (done.returncode, done.stderr) == (0, "")
    notes = [line for line in done.stdout.splitlines() if line.startswith("note:")]
    assert len(notes) == 1
    assert "not being recorded" in notes[0]
    assert command("where", "--at", "1s", waiting.pid).returncode == 2


def test_no_process(command: Any) -> None:
    done = command("where", 2**22 + 1)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(2**22 + 1) in done.stderr


def test_no_right(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("pymemtrace._core.where_process", refuse)
    assert main(["where", "1"]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_capture_without_measurements(command: Any) -> None:
    done = command("where", GOLDEN / "v1.0.pmt")
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert command("summary", GOLDEN / "v1.0.pmt").returncode == 0


# --- the recorder ---------------------------------------------------------------------------------


def test_the_program_does_not_see_it(command: Any, tmp_path: Path) -> None:
    """No descriptor that a program may meet, no allocation in its name."""
    code = (
        "import os, time\n"
        "time.sleep(2.3)\n"
        "print([fd for fd in os.listdir('/proc/self/fd') if int(fd) < 800])\n"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    done = command("run", "-q", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert done.stdout == plain.stdout


def test_after_a_fork(command: Any, tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "kept = bytearray(30 << 20)\n"
        "time.sleep(1.2)\n"
        "for _ in range(3):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        time.sleep(0.1)\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "kept2 = bytearray(30 << 20)\n"
    )
    done = command("run", "-q", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answer = where_of(command, tmp_path / "x.pmt")
    assert_about(parts_of(answer)["large native blocks"], 60 * MIB)
    assert answer["unattributed_bytes"] <= 0.03 * answer["rss_bytes"]
