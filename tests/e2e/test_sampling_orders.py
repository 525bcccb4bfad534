"""Another rate, off and on, while a program is sampled: by its code, the command, a signal."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pymemtrace

# Three spans of the same allocations, of which the second one is not sampled.
SPANS = """
import sys, time
import pymemtrace
def first(): return [bytes(3_000) for _ in range(4_000)]
def second(): return [bytes(3_000) for _ in range(4_000)]
def third(): return [bytes(3_000) for _ in range(4_000)]
with pymemtrace.record("x.pmt", sample_bytes=4096) as recording:
    held = [first()]
    recording.sampling("off")
    held.append(second())
    recording.flush()
    pymemtrace.sampling("on")
    held.append(third())
    del held[0]
"""

BUSY = """
import sys, time
import pymemtrace
with pymemtrace.record("x.pmt", sample_bytes=65536, interval_s=0.05, **eval(sys.argv[1])):
    pymemtrace.toggle_sampling_on(10)
    print("on", flush=True)
    while True:
        held = [bytes(1000) for _ in range(100)]
        time.sleep(0.001)
"""


def run_python(program: str, *words: str) -> None:
    Path("program.py").write_text(program)
    subprocess.run([sys.executable, "program.py", *words], check=True, timeout=60)


@contextmanager
def busy(options: str = "{}") -> Iterator["subprocess.Popen[str]"]:
    Path("busy.py").write_text(BUSY)
    words = [sys.executable, "busy.py", options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            time.sleep(0.2)
            yield process
        finally:
            process.kill()


def order(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pymemtrace", "sampling", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def info() -> Any:
    return pymemtrace.open("x.pmt").info()


def labels() -> list[str]:
    return [mark["label"] for mark in pymemtrace.open("x.pmt").marks()]


def wait_for(labels_wanted: list[str]) -> None:
    end = time.monotonic() + 20
    while labels() != labels_wanted:
        assert time.monotonic() < end, labels()
        time.sleep(0.02)


def test_off_and_on_from_the_code() -> None:
    run_python(SPANS)
    capture = pymemtrace.open("x.pmt")
    allocated: Counter[str] = Counter()
    for row in capture.sites("total"):
        allocated[row["site"]["function"].split(".")[0]] += row["allocated_bytes"]
    truth = 4_000 * 3_033
    for name in ("first", "third"):
        assert abs(allocated[name] - truth) < truth * 0.2  # 2,000 samples: 9 sigma
    assert "second" not in allocated
    alive = {row["site"]["function"].split(".")[0] for row in capture.sites("leaks")}
    assert "first" not in alive  # its frees were seen
    assert [mark["label"] for mark in capture.marks()] == ["sampling off", "sampling on"]


def test_no_order_where_nothing_is_sampled() -> None:
    with pytest.raises(pymemtrace.PymemtraceError, match="nothing is being sampled"):
        pymemtrace.sampling("off")
    with (
        pymemtrace.record("x.pmt") as recording,
        pytest.raises(pymemtrace.PymemtraceError, match="nothing is being sampled"),
    ):
        recording.sampling(65536)


@pytest.mark.parametrize("what", [0, 1, 1023, 2**41, -1, "no", 1.5, None])
def test_orders_that_are_none(what: Any) -> None:
    with pytest.raises((ValueError, OverflowError, TypeError)):
        pymemtrace.sampling(what)


def test_the_command_changes_the_rate() -> None:
    with busy() as process:
        assert info()["sample_bytes_now"] == 65536
        for size, number in (("256K", 262144), ("4K", 4096)):
            done = order(str(process.pid), size)
            assert done.returncode == 0, done.stderr
            assert info()["sample_bytes_now"] == number
        for what in ("on", "off", "off", "on", "off"):
            done = order("x.pmt", what)
            assert done.returncode == 0, done.stderr
        assert labels() == ["sampling off", "sampling on", "sampling off"]
        assert process.poll() is None


def test_the_command_says_what_is_wrong() -> None:
    with busy():
        for words, wrong in (
            (["x.pmt", "7"], "give 1K to 1T"),
            (["x.pmt", "-5"], "-5"),
            ([str(os.getpid()), "off"], "not being recorded"),
        ):
            done = order(*words)
            assert done.returncode == 2
            assert wrong in done.stderr
            assert "Traceback" not in done.stderr
    done = order("x.pmt", "off")
    assert done.returncode == 2
    assert "has ended" in done.stderr


def test_a_signal_turns_it_off_and_on() -> None:
    with busy() as process:
        wanted = []
        for what in ("off", "on", "off", "on"):
            process.send_signal(signal.SIGUSR1)
            wanted.append(f"sampling {what}")
            wait_for(wanted)
        assert process.poll() is None


def test_a_signal_that_the_program_uses_is_not_taken() -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with pytest.raises(ValueError, match="SIGUSR1"):
            pymemtrace.toggle_sampling_on(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_it_costs_is_counted() -> None:
    with busy():
        time.sleep(1)
        counters = info()["counters"]
    assert 0 < counters["CPU us of the recorder"] < counters["CPU us of the process"]
    assert 0 < counters["CPU us of samples"] < counters["CPU us of the process"]


def test_started_and_stopped_many_times() -> None:
    program = (
        "import pymemtrace\n"
        "for i in range(60):\n"
        "    options = {'sample_bytes': 4096 << i % 3, 'box_bytes': 1 << 20, 'force': True}\n"
        "    with pymemtrace.record('x.pmt', **options):\n"
        "        held = [bytes(500) for _ in range(5000)]\n"
    )
    run_python(program)
    rows = pymemtrace.open("x.pmt").sites("total")
    assert abs(rows[0]["allocated_bytes"] - 5_000 * 533) < 5_000 * 533 * 0.4
