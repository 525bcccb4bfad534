"""A box: of fixed size, readable at every moment, and after every death."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import pymemtrace
from pymemtrace import _core

SIZE = 1 << 20

# Many stacks and short intervals, so that a small box writes its state anew again and again.
# `leading` holds most.
PROGRAM = """
import random, sys, time
import pymemtrace

path, box, seconds, interval = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
N = 60
text = "\\n".join(
    f"def f{i}(n, deep):\\n"
    f"    if deep == 0:\\n"
    f"        return [bytes(200) for _ in range(n)]\\n"
    f"    return g[({i} * 7 + deep * 13) % {N}](n, deep - 1)"
    for i in range(N)
)
names = {}
exec(compile(text, "generated.py", "exec"), names)
g = names["g"] = [names[f"f{i}"] for i in range(N)]
choose = random.Random(1)
held = []

def leading():
    return [bytes(10_000) for _ in range(2_000)]

with pymemtrace.record(
    path, sample_bytes=1024, box_bytes=box, interval_s=interval, force=True
) as recording:
    most = leading()
    recording.flush()
    print("on", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        some = g[choose.randrange(N)](choose.randrange(20), choose.randrange(6))
        if choose.random() < 0.1:
            held.append(some)
        if len(held) > 500:
            del held[choose.randrange(len(held))]
print(len(most))
"""


@contextlib.contextmanager
def running(
    path: Path, seconds: float, interval: float = 0.02
) -> Iterator["subprocess.Popen[str]"]:
    Path("boxed.py").write_text(PROGRAM)
    words = [sys.executable, "boxed.py", str(path), str(SIZE), str(seconds), str(interval)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        yield process


def flips(path: Path) -> int:
    """How often the state has gone into the other region: docs/format.md, "State slots"."""
    page = path.read_bytes()[:4096]
    slots = [page[512:768], page[1024:1280]]
    newest = max(slots, key=lambda slot: int.from_bytes(slot[:8], "little"))
    return int.from_bytes(newest[72:80], "little")


def leading_row(path: Path) -> Any:
    return max(pymemtrace.open(path).sites("leaks"), key=lambda row: row["bytes"])


def test_its_size_never_changes() -> None:
    path = Path("x.pmt")
    with running(path, 4) as process:
        size = path.stat().st_size
        blocks = path.stat().st_blocks
        assert SIZE - 16384 <= size <= SIZE
        assert blocks * 512 >= size  # it is there, not just promised
        while process.poll() is None:
            assert path.stat().st_size == size
            time.sleep(0.05)
    assert process.returncode == 0
    assert path.stat().st_size == size
    assert flips(path) >= 2
    info = pymemtrace.open(path).info()
    assert info["ended"] == "normal"
    assert not info["damaged"]


def test_it_is_read_while_its_state_moves() -> None:
    path = Path("x.pmt")
    with running(path, 5) as process:
        reads, first, seen = 0, flips(path), 0.0
        while process.poll() is None:
            info = pymemtrace.open(path).info()
            assert not info["damaged"], info
            assert info["duration_s"] >= seen  # never an older state
            seen = info["duration_s"]
            reads += 1
    assert reads > 20
    assert flips(path) > first + 1


def test_a_follower_opens_it_anew() -> None:
    path = Path("x.pmt")
    with running(path, 4) as process:
        reader, anew, cuts = _core.Reader(str(path), follow=True), 0, 0
        while process.poll() is None:
            try:
                reader.refresh()
            except pymemtrace.PymemtraceError:  # its state has been written anew
                reader, anew = _core.Reader(str(path), follow=True), anew + 1
            cuts += 1
    assert anew > 0
    assert process.returncode == 0


@pytest.mark.parametrize("number", range(12))
def test_after_sigkill(number: int) -> None:
    path = Path("x.pmt")
    with running(path, 60) as process:
        time.sleep(random.Random(number).uniform(0.01, 2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = datetime.now(UTC)
    info = pymemtrace.open(path).info()
    assert info["ended"] == "killed"
    assert not info["damaged"]
    last = datetime.fromisoformat(info["last_flush"])
    assert abs((killed - last).total_seconds()) < 5
    row = leading_row(path)
    assert row["site"]["function"].split(".")[0] == "leading"
    assert 0 <= row["bytes"] - 2_000 * 10_033 < 50_000  # its blocks are sure; and the list


@pytest.mark.parametrize("left", [0, 100, 4096, 5000, SIZE // 3, SIZE // 2 + 5000])
def test_somebody_cuts_it_off(left: int) -> None:
    path = Path("x.pmt")
    with running(path, 1.5) as process:
        os.truncate(path, left)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == "2000\n"
    with contextlib.suppress(pymemtrace.PymemtraceError):  # it may hold nothing: that can be said
        pymemtrace.open(path).info()


def test_a_life_of_a_moment_leaves_a_state() -> None:
    program = "import time\nx = bytearray(50_000_000)\nprint('on', flush=True)\ntime.sleep(60)\n"
    command = [sys.executable, "-m", "pymemtrace", "run", "-q", "--sample", "512K", "-o", "x.pmt"]
    with subprocess.Popen([*command, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        time.sleep(0.4)
        process.kill()
    capture = pymemtrace.open("x.pmt")
    assert capture.info()["duration_s"] < 1
    assert capture.sites("leaks")[0]["bytes"] > 50_000_000


def test_lines_are_known_where_stacks_are_too_many() -> None:
    path = Path("x.pmt")
    Path("boxed.py").write_text(PROGRAM.replace("randrange(6)", "randrange(40)"))
    words = [sys.executable, "boxed.py", str(path), str(SIZE), "4", "0.02"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=60)
    capture = pymemtrace.open(path)
    assert capture.info()["folded"] > 0
    total = sum(row["allocated_bytes"] for row in capture.sites("total"))
    unknown = sum(
        row["allocated_bytes"]
        for row in capture.sites("total")
        if row["site"]["function"] == "[folded]"
    )
    assert unknown < total * 0.02
    below = [row["stack"] for row in capture.stacks("total") if len(row["stack"]) == 2]
    assert any(stack[1]["function"] == "[folded]" for stack in below)


def test_no_room_for_it_is_said_at_the_start() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))

    command = [sys.executable, "-m", "pymemtrace", "run", "--sample", "512K", "--box", "1M"]
    done = subprocess.run(
        [*command, "-o", "x.pmt", "-c", "print('ran')"],
        capture_output=True, text=True, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode != 0
    assert "x.pmt" in done.stderr
    assert "too large" in done.stderr
    assert "ran" not in done.stdout
    assert "Traceback" not in done.stderr


def test_children_have_boxes_of_their_own() -> None:
    program = "import os, time\nx = bytearray(9_000_000)\npid = os.fork()\n" \
              "y = bytearray(3_000_000)\ntime.sleep(0.3)\n" \
              "if pid: os.waitpid(pid, 0)\n"  # fmt: skip
    command = [sys.executable, "-m", "pymemtrace", "run", "-q", "--sample", "64K", "--box", "1M"]
    subprocess.run([*command, "-o", "x.pmt", "-c", program], check=True)
    boxes = sorted(Path().glob("x*.pmt"))
    assert len(boxes) == 2
    for box in boxes:
        assert SIZE - 16384 <= box.stat().st_size <= SIZE
        assert pymemtrace.open(box).info()["ended"] == "normal"


@pytest.mark.parametrize("options", [["--sample", "512K"], []])
def test_who_waits_for_a_child_is_written_meanwhile(options: list[str]) -> None:
    # logging runs code in Python after a fork, within os.fork, which then warns of threads (3.12+)
    program = "import logging, os, time\nx = bytearray(9_000_000)\npid = os.fork()\n" \
              "if pid: os.waitpid(pid, 0)\nelse: time.sleep(2.5); os._exit(0)\n"  # fmt: skip
    command = [sys.executable, "-W", "error", "-m", "pymemtrace", "run", "-q", *options]
    done = subprocess.run([*command, "-o", "x.pmt", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for path in Path().glob("x*.pmt"):
        times = [row["t_s"] for row in pymemtrace.open(path).timeline()]
        assert any(0.5 < at < 2.4 for at in times), (path, times)
    assert len(list(Path().glob("x*.pmt"))) == 2


@pytest.mark.parametrize("words", [["--box", "1K"], ["--box", "2G"], ["--box", "-1"]])
def test_sizes_that_cannot_be(words: list[str]) -> None:
    command = [sys.executable, "-m", "pymemtrace", "run", "--sample", "64K"]
    done = subprocess.run([*command, *words, "-c", "1"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--box" in done.stderr


def test_a_box_is_for_samples() -> None:
    command = [sys.executable, "-m", "pymemtrace", "run", "--box", "1M", "-c", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--sample" in done.stderr
