"""Recording begins and ends in a process that runs already, which notices nothing of it."""

import dataclasses
import errno
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import MB, TARGETS, assert_whole, environment, row_at

import pymemtrace
from pymemtrace import _core
from pymemtrace.cli import _divert, _elf, _inject, _target, build_parser, main
from pymemtrace.cli import attach as attach_module

CHECKOUT = Path(__file__).resolve().parents[2]
TARGET = "attach.py"
SCRIPT = TARGETS / TARGET
KEPT = 100 * 10_000
NOBODY = 65534
ATTACHER = [sys.executable, "-m", "pymemtrace"]
METHODS = ["auto", *(["remote-exec"] if sys.version_info >= (3, 14) else [])]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may")


def ptrace_is_permitted() -> bool:
    """May this process look into one that it has started?"""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            os.close(os.open(f"/proc/{process.pid}/mem", os.O_RDWR))
            return True
        except OSError:
            return False
        finally:
            process.kill()


pytestmark = pytest.mark.skipif(
    not ptrace_is_permitted(), reason="ptrace is not permitted here (ptrace_scope, seccomp)"
)


class Program:
    """A running target, in the current folder."""

    def __init__(self, *words: object, python: str = sys.executable, options: Any = (),
                 prefix: Any = (), env: Any = None) -> None:  # fmt: skip
        self.forks = "forks" in words
        self.process = subprocess.Popen(
            [*map(str, prefix), python, *options, str(SCRIPT), *map(str, words)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(env),
        )  # fmt: skip
        self.pid = self.process.pid
        assert self.line() == "ready"
        time.sleep(0.1)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """What it said in the end, and what it complained of."""
        Path("stop").touch()
        out, err = self.process.communicate(timeout=60)
        Path("stop").unlink()
        assert self.process.returncode == 0, err
        return (out + err).strip()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def begin(*words: object, **how: Any) -> Program:
        programs.append(Program(*words, **how))
        return programs[-1]

    yield begin
    for program in programs:
        program.kill()
        if program.forks:  # a child may still have been asked for the script: then it stays
            for folder in leftovers(program):
                shutil.rmtree(folder)
        assert leftovers(program) == set()


def leftovers(program: Program) -> set[str]:
    folders = ("/tmp", "/var/tmp", "/dev/shm")
    return {
        str(path)
        for folder in folders
        for path in Path(folder).iterdir()
        if re.fullmatch(f"pymemtrace-{program.pid}-[0-9a-f]{{16}}", path.name)
    }


def call(
    *words: object, env: Any = None, attacher: Any = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*(attacher or ATTACHER), *map(str, words)], capture_output=True, text=True, timeout=60,
        env=environment(env),
    )  # fmt: skip


def attach(program: Program, *words: object, output: str = "x.pmt") -> str:
    done = call("attach", program.pid, "-o", output, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def detach(program: Program, *words: object) -> str:
    done = call("detach", program.pid, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def fails(status: int, *words: object, **how: Any) -> str:
    """The one line that says why."""
    done = call(*words, **how)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert re.fullmatch(r"pymemtrace: .+\n", done.stderr), done.stderr
    return done.stderr


def wait_until(done: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


# --- programs of all kinds ----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "words",
    [("busy",), ("numbers",), ("sleeps", 3), ("joins",), ("waits",), ("forks",), ("handles",),
     ("interrupted",), ("threads",)],
    ids=lambda words: words[0],
)  # fmt: skip
def test_attach_and_detach(words: Any, method: str, start: Callable[..., Program]) -> None:
    if method == "remote-exec" and words[0] in ("handles", "interrupted"):
        pytest.skip("CPython loses an exception that a handler raises while it reads the script")
    if method == "remote-exec" and words[0] == "joins":
        pytest.skip("its main thread never comes to a safe point")
    program = start(*words, options=("-W", "error"))
    for number in range(3):
        attach(program, "--method", method, output=f"{number}.pmt")
        time.sleep(0.2)
        assert f"wrote {Path.cwd()}/{number}.pmt" in detach(program, "--method", method)
        assert_whole(_core.Reader(f"{number}.pmt"))
    assert program.end() == "well"


def test_dev_mode(start: Callable[..., Program]) -> None:
    program = start("busy", options=("-X", "dev"))
    attach(program)
    detach(program)
    assert program.end() == "well"


def test_input(start: Callable[..., Program]) -> None:
    program = start("reads")
    attach(program)
    program.say("hello")
    assert program.line() == "hello"
    detach(program)
    program.say("end")
    assert program.end() == "well"


@pytest.mark.parametrize("method", METHODS)
def test_server(method: str, start: Callable[..., Program]) -> None:
    program = start("serves")
    port = int(program.line())
    with socket.create_connection(("127.0.0.1", port)) as client:
        lines = client.makefile("rw")
        for number in range(3):
            attach(program, "-f", "--method", method)
            lines.write(f"{number}\n")
            lines.flush()
            assert lines.readline() == f"{number}\n"
            detach(program, "--method", method)
        lines.close()
    assert program.end() == "well"


def test_what_is_recorded(start: Callable[..., Program]) -> None:
    program = start("busy")
    said = attach(program, "--full", "--events")
    assert re.search(
        r"attached .* after its start, with [\d.]+ MiB of resident memory, [\d,]+ blocks", said
    )
    assert f"pymemtrace detach {program.pid}" in said
    time.sleep(1)
    detach(program)
    reader = _core.Reader("x.pmt")
    row = row_at(reader, "total", TARGET, "KEPT")
    assert row["allocated_bytes"] >= 2 * KEPT
    assert row_at(reader, "peak", TARGET, "KEPT")["bytes"] >= KEPT
    # what we do to end it is hardly to be seen
    ours = reader.aggregate("leaks", include=["<pymemtrace>"])
    assert ours.bytes < 100_000
    proc = reader.proc()
    assert proc["native_layer"] == "patch"
    assert 0 < proc["attached_age_ns"] < 60e9
    assert 4 * MB < proc["attached_rss_bytes"] < 100 * MB
    assert proc["attached_blocks"] > 1000
    log = reader.event_log()
    assert log is not None
    assert log["events"] == log["complete"] > 1000
    summary = call("summary", "x.pmt").stdout
    assert re.search(r"attached +.* after the start; .* MiB of resident memory, .* blocks", summary)
    assert "were there already" in " ".join(call("stats", "x.pmt").stdout.split())
    assert program.end() == "well"


def test_samples(start: Callable[..., Program]) -> None:
    program = start("busy")
    assert "a sample per 512.0 KiB" in attach(program)
    time.sleep(1)
    detach(program)
    attach(program, "--sample", "64K", output="y.pmt")
    time.sleep(0.5)
    detach(program)
    for name, size in (("x.pmt", 512 << 10), ("y.pmt", 64 << 10)):
        reader = _core.Reader(name)
        assert_whole(reader)
        proc = reader.proc()
        assert (proc["mode"], proc["sample_bytes"]) == ("sampled", size)
        assert proc["attached_blocks"] > 1000
        assert row_at(reader, "total", TARGET, "KEPT")["samples"] > 0
    document = json.loads(call("summary", "--json", "y.pmt").stdout)
    assert set(document["attached"]) == {"age_s", "rss_bytes", "blocks"}
    assert "sampled" in call("summary", "y.pmt").stdout
    assert "add --full" in fails(2, "attach", program.pid, "--events")
    assert program.end() == "well"


def test_native_stacks(start: Callable[..., Program]) -> None:
    program = start("busy")
    attach(program, "--full", "--native", "--max-memory", "64M", "--max-size", "8M")
    time.sleep(0.3)
    detach(program)
    assert _core.Reader("x.pmt").proc()["native_traces"] == 1
    assert program.end() == "well"


def test_default_name_and_end_of_process(start: Callable[..., Program]) -> None:
    program = start("busy")
    done = call("attach", program.pid, "--full")
    name = f"pymemtrace-attach.py.{program.pid}.pmt"
    assert f"into {Path.cwd()}/{name}" in done.stdout
    said = program.end()  # with our thread and our descriptors there
    assert said.startswith("True ")
    assert "modules" not in said
    reader = _core.Reader(name)
    assert_whole(reader)
    # what was alive when the program had ended, and not when the interpreter was gone
    assert row_at(reader, "leaks", TARGET, "NAMES")["blocks"] > 0


def test_duration(start: Callable[..., Program]) -> None:
    program = start("busy")
    said = attach(program, "--duration", "0.5")
    assert "ends by itself after 500 ms" in said
    wait_until(lambda: _core.Reader("x.pmt").info()["ended"] == "normal")
    assert 0.4 < _core.Reader("x.pmt").info()["duration_s"] < 1.5
    assert "not being recorded" in fails(4, "detach", program.pid)
    attach(program, "--duration", "100", output="y.pmt")
    detach(program)
    assert_whole(_core.Reader("y.pmt"))
    assert program.end() == "well"


def test_duration_while_the_main_thread_waits(start: Callable[..., Program]) -> None:
    program = start("sleeps", 6)
    attach(program, "--duration", "0.5")
    wait_until(lambda: _core.Reader("x.pmt").info()["ended"] == "normal", 5)
    attach(program, output="y.pmt")
    detach(program)
    assert_whole(_core.Reader("y.pmt"))
    assert program.end() == "well"


def test_many_times(start: Callable[..., Program]) -> None:
    program = start("busy")
    for _ in range(12):
        attach(program, "-f")
        detach(program)
    assert program.end() == "well"


# --- what cannot be -----------------------------------------------------------------------------


def test_twice(start: Callable[..., Program]) -> None:
    program = start("busy")
    attach(program)
    line = fails(4, "attach", program.pid, "-o", "y.pmt")
    assert f"is being recorded already, into {Path.cwd()}/x.pmt" in line
    assert not Path("y.pmt").exists()
    detach(program)
    assert "not being recorded" in fails(4, "detach", program.pid)
    assert program.end() == "well"


def test_detach_of_what_was_never_attached(start: Callable[..., Program]) -> None:
    program = start("busy")
    assert "the process is not being recorded" in fails(4, "detach", program.pid)
    assert "the process is not being recorded" in fails(4, "detach", program.pid)
    assert program.end() == "well"


def test_recorded_by_itself(start: Callable[..., Program]) -> None:
    program = start("recorded")
    wait_until(lambda: Path("own.pmt").exists())
    time.sleep(0.5)
    line = fails(4, "attach", program.pid, "-o", "x.pmt")
    assert f"is being recorded already, into {Path.cwd()}/own.pmt" in line
    assert "was not begun by attach" in fails(4, "detach", program.pid)
    Path("stop").touch()
    out, _ = program.process.communicate(timeout=30)
    assert out.startswith("True")  # it has imported something meanwhile
    assert_whole(_core.Reader("own.pmt"))


def test_main_thread_in_a_signal_handler(start: Callable[..., Program]) -> None:
    program = start("in_handler")
    wait_until(lambda: waits_in(program.pid) == "34")
    target = _target.Target(program.pid)
    assert list(_divert.waiting_threads(target)) == []
    line = fails(4, "attach", program.pid, "--timeout", "1.5")
    assert "its main thread is in the system call pause" in line
    program.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: waits_in(program.pid) != "34")
    attach(program)
    detach(program)
    assert program.end() == "well"


def waits_in(pid: int) -> str:
    return Path(f"/proc/{pid}/syscall").read_text().split()[0]


def test_two_at_once(start: Callable[..., Program]) -> None:
    program = start("busy")
    attachers = [
        subprocess.Popen(
            [*ATTACHER, "attach", str(program.pid), "-o", f"{number}.pmt"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    said = [attacher.communicate(timeout=60) for attacher in attachers]
    assert sorted(attacher.returncode for attacher in attachers) == [0, 4, 4, 4], said
    detach(program)
    assert program.end() == "well"


def test_recorded_by_run() -> None:
    command = [*ATTACHER, "run", "-q", "-o", "x.pmt", str(SCRIPT), "busy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        line = fails(4, "attach", process.pid, "-o", "y.pmt")
        assert "is being recorded already" in line
        assert "not begun by attach" in fails(4, "detach", process.pid)
        Path("stop").touch()
        process.communicate(timeout=60)
    assert_whole(_core.Reader("x.pmt"))


@pytest.mark.parametrize("method", METHODS)
def test_gil_is_held(method: str, start: Callable[..., Program]) -> None:
    program = start("holds", 4)
    line = fails(4, "attach", program.pid, "-o", "x.pmt", "--timeout", "1.5", "--method", method)
    assert "its main thread is in the system call" in line
    assert "longer --timeout" in line
    time.sleep(3.5)  # it goes on, and nothing happens
    assert not Path("x.pmt").exists()
    attach(program, "--timeout", "20", "--method", method)
    detach(program, "--timeout", "20", "--method", method)
    assert program.end() == "well"


def test_remote_exec_is_not_there(start: Callable[..., Program]) -> None:
    if sys.version_info >= (3, 14):
        pytest.skip("it is there")
    program = start("busy")
    line = fails(4, "attach", program.pid, "--method", "remote-exec")
    assert "has no sys.remote_exec" in line
    assert program.end() == "well"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="3.14 and later")
def test_remote_exec_is_disabled(start: Callable[..., Program]) -> None:
    program = start("busy", options=("-X", "disable-remote-debug"))
    for method in ("auto", "remote-exec"):
        line = fails(4, "attach", program.pid, "--method", method)
        assert "--method ptrace" in line
    attach(program, "--method", "ptrace")
    detach(program, "--method", "ptrace")
    assert program.end() == "well"


def test_script_where_ptrace_is_not_possible(
    start: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(target: _target.Target) -> None:
        raise _inject.no_right(target)

    monkeypatch.setattr(_inject, "Pending", refused)
    program = start("busy")
    if sys.version_info >= (3, 14):
        assert main(["attach", str(program.pid), "-o", "x.pmt"]) == 0
        assert main(["detach", str(program.pid)]) == 0
        assert_whole(_core.Reader("x.pmt"))
    else:
        assert main(["attach", str(program.pid), "-o", "x.pmt"]) == 4
    assert program.end() == "well"


def test_threads_that_cannot_be_stopped(
    start: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*words: Any) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "too long")

    monkeypatch.setattr(_core, "attach_exchange", never)
    program = start("busy")
    with pytest.raises(_target.Failure, match="cannot be stopped for a moment"):
        attach_module.run(parsed("attach", str(program.pid), "-o", "x.pmt", "--method", "ptrace"))
    assert program.end() == "well"


def parsed(*words: str) -> Any:
    return build_parser(["attach"]).parse_args(words)


def test_no_process() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        assert "there is no such process" in fails(2, "attach", process.pid)


def test_zombie() -> None:
    process = subprocess.Popen(["true"])
    wait_until(lambda: _target.read_status(process.pid).state == "Z")
    assert "the process has ended" in fails(2, "attach", process.pid)
    process.wait()


def test_not_python() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            time.sleep(0.2)
            assert "does not run Python" in fails(2, "attach", process.pid)
        finally:
            process.kill()


def test_stopped(start: Callable[..., Program]) -> None:
    program = start("busy")
    program.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: _target.read_status(program.pid).state == "T")
    line = fails(4, "attach", program.pid)
    assert "is stopped" in line
    assert f"kill -CONT {program.pid}" in line
    program.process.send_signal(signal.SIGCONT)
    assert program.end() == "well"


def test_older_python() -> None:
    for name in ("3.10", "3.9", "3.8"):
        root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        found = [*root.glob(f"versions/{name}.*/bin/python"), shutil.which(f"python{name}")]
        if found[0]:
            break
    else:
        pytest.skip("there is none here")
    command = [str(found[0]), "-c", "print('ready', flush=True); input()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        line = fails(4, "attach", process.pid)
        assert "older than 3.11" in line
        assert "3.11 to 3.15" in line
        process.communicate("\n", timeout=30)


@pytest.mark.parametrize("words", [("x",), ("-1",), ("0",), ("1e9",), ("1", "--duration", "0"),
                                   ("1", "--duration", "-3"), ("1", "--max-size", "3"), (),
                                   ("1", "--method", "gdb")])  # fmt: skip
def test_usage(words: Any) -> None:
    done = call("attach", *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_existing_file(start: Callable[..., Program]) -> None:
    program = start("busy")
    Path("x.pmt").write_text("precious")
    assert "exists already" in fails(2, "attach", program.pid, "-o", "x.pmt")
    assert Path("x.pmt").read_text() == "precious"
    attach(program, "-f")
    detach(program)
    assert program.end() == "well"


def test_folder_that_is_not_there(start: Callable[..., Program]) -> None:
    program = start("busy")
    assert "cannot write the capture" in fails(2, "attach", program.pid, "-o", "no/x.pmt")
    assert program.end() == "well"


def test_traced_by_somebody_else(start: Callable[..., Program]) -> None:
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("there is no debugger here")
    program = start("busy")
    command = [gdb, "-nx", "-batch", "-p", str(program.pid), "-ex", "shell sleep 20"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as debugger:
        wait_until(lambda: _target.read_status(program.pid).tracer != 0)
        line = fails(4, "attach", program.pid)
        assert "traces it already" in line
        debugger.kill()
    wait_until(lambda: _target.read_status(program.pid).tracer == 0)
    program.process.send_signal(signal.SIGCONT)  # a debugger that is killed can leave it stopped
    attach(program)
    detach(program)
    assert program.end() == "well"


def test_process_id_that_is_used_again(start: Callable[..., Program]) -> None:
    program = start("busy")
    target = _target.Target(program.pid)
    target.check()
    earlier = target.status.start_ticks - 1
    target.status = dataclasses.replace(target.status, start_ticks=earlier)
    with pytest.raises(_target.Failure, match="has ended"):
        target.check()
    program.kill()
    with pytest.raises(_target.Failure, match=r"no such process|has ended"):
        _target.Target(program.pid)


def test_process_that_ends_meanwhile(start: Callable[..., Program]) -> None:
    program = start("holds", 60)
    command = [*ATTACHER, "attach", str(program.pid), "-o", "x.pmt"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as attacher:
        time.sleep(0.6)
        program.kill()
        _, err = attacher.communicate(timeout=30)
    assert attacher.returncode == 2
    assert "the process has ended" in err


def test_interrupt_while_it_waits(start: Callable[..., Program]) -> None:
    program = start("holds", 3)
    command = [*ATTACHER, "attach", str(program.pid), "-o", "x.pmt"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as attacher:
        time.sleep(1.5)
        attacher.send_signal(signal.SIGINT)
        _, err = attacher.communicate(timeout=30)
    assert (attacher.returncode, err) == (130, "")
    time.sleep(2.5)
    assert not Path("x.pmt").exists()
    assert program.end() == "well"


# --- users and containers -----------------------------------------------------------------------


def as_user(uid: int) -> list[str]:
    """An attacher that has read its modules before it becomes somebody else."""
    code = (
        "import os, sys\n"
        "from pymemtrace.cli import attach, detach, main\n"
        f"os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    return [sys.executable, "-c", code]


@as_root
def test_process_of_another_user(start: Callable[..., Program]) -> None:
    program = start("busy")
    line = fails(4, "attach", program.pid, "-o", "/tmp/x.pmt", attacher=as_user(NOBODY))
    assert "a process of another user, root" in line
    assert "as root" in line
    assert program.end() == "well"


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv here")
def test_no_right_to_trace(start: Callable[..., Program]) -> None:
    """As in a container without CAP_SYS_PTRACE."""
    program = start("busy")
    without = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", *ATTACHER]
    line = fails(4, "attach", program.pid, "-o", "x.pmt", attacher=without)
    assert "no right to" in line
    assert "root" in line or "SYS_PTRACE" in line
    assert program.end() == "well"


@as_root
def test_root_attaches_to_a_user(start: Callable[..., Program], tmp_path: Path) -> None:
    probe = [*as_user(NOBODY)[:2], f"import os; os.setresuid({NOBODY}, {NOBODY}, {NOBODY});"
             f"open({_core.__file__!r}, 'rb'); os.stat({str(tmp_path)!r})"]  # fmt: skip
    Path("open").mkdir(mode=0o777)
    Path("open").chmod(0o777)
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(folder.stat().st_mode | 0o711)
    if subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("another user cannot read this installation or the tests' folder")
    program = start("other_user", NOBODY)
    line = fails(2, "attach", program.pid, "-o", "x.pmt")
    assert "cannot write the capture (Permission denied)" in line
    attach(program, output="open/x.pmt")
    assert Path("open/x.pmt").stat().st_uid == NOBODY
    detach(program)
    assert_whole(_core.Reader("open/x.pmt"))


def unshare(*words: str) -> list[str]:
    return ["unshare", *words]


def can_unshare() -> bool:
    return (
        os.geteuid() == 0
        and shutil.which("unshare") is not None
        and subprocess.run(["unshare", "-m", "-p", "-f", "true"], capture_output=True).returncode
        == 0
    )


in_namespaces = pytest.mark.skipif(not can_unshare(), reason="no right to make namespaces")


@in_namespaces
@pytest.mark.skipif(
    any(Path(place).is_relative_to("/tmp") for place in (CHECKOUT, sys.prefix, sys.base_prefix)),
    reason="this installation lies in /tmp, which the program does not see in this test",
)
def test_other_tmp(start: Callable[..., Program], tmp_path: Path) -> None:
    """As of a service with PrivateTmp."""
    program = start(
        "busy", prefix=unshare("-m", "sh", "-c", 'mount -t tmpfs x /tmp; exec "$@"', "sh")
    )
    if not str(tmp_path).startswith("/tmp"):
        attach(program)
        detach(program)
    else:
        assert "container" in fails(4, "attach", program.pid, "-o", "x.pmt")
        attach(program, output=f"/dev/shm/pymemtrace-test-{program.pid}.pmt")
        detach(program)
        Path(f"/dev/shm/pymemtrace-test-{program.pid}.pmt").unlink()


@in_namespaces
def test_installation_is_not_there(start: Callable[..., Program]) -> None:
    package = Path(_core.__file__).parent
    program = start(
        "busy",
        prefix=unshare("-m", "sh", "-c", f'mount -t tmpfs x "{package}"; exec "$@"', "sh"),
    )
    line = fails(4, "attach", program.pid, "-o", "x.pmt")
    assert "does not have this installation" in line
    assert "docker exec" in line
    assert program.end() == "well"


@in_namespaces
@pytest.mark.parametrize("words", [("busy",), ("sleeps", 3)], ids=lambda words: words[0])
def test_other_process_ids(words: Any, start: Callable[..., Program]) -> None:
    program = start(*words, prefix=unshare("-p", "-f"))
    (child,) = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    assert call("attach", child, "-o", "x.pmt").returncode == 0
    assert call("detach", child).returncode == 0
    assert program.end() == "well"


# --- other interpreters -------------------------------------------------------------------------


def is_the_same(python: Path) -> bool:
    """Whether that environment's package was built from the sources of this one's."""
    words = "import pymemtrace; print(pymemtrace.__path__[0])"
    there = subprocess.run([python, "-c", words], capture_output=True, text=True, cwd="/")
    ours = Path(pymemtrace.__path__[0])
    return there.returncode == 0 and all(
        (Path(there.stdout.strip()) / file.relative_to(ours)).is_file()
        and (Path(there.stdout.strip()) / file.relative_to(ours)).read_bytes() == file.read_bytes()
        for file in ours.glob("**/*.py")
    )


def others() -> list[Path]:
    found = []
    for python in sorted(CHECKOUT.glob(".venv-3.*/bin/python")):
        version = python.parts[-3].removeprefix(".venv-")
        if (
            python.exists()
            and version != f"{sys.version_info[0]}.{sys.version_info[1]}"
            and (python.parents[1] / ".built").exists()
            and "-" not in version
            and is_the_same(python)
        ):
            found.append(python)
    return found


def plain() -> list[Path]:
    """Without this package; and of the same version, built by somebody else."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    builder = CHECKOUT / f".venv-{version}-system/bin/python"
    base = Path(getattr(sys, "_base_executable", sys.executable))
    return [base, *([builder] if builder.exists() else [])]


@pytest.mark.parametrize("python", plain(), ids=lambda path: path.parts[-3])
@pytest.mark.parametrize("words", [("busy",), ("sleeps", 2)], ids=lambda words: words[0])
def test_other_installation(words: Any, python: Path, start: Callable[..., Program]) -> None:
    program = start(*words, python=str(python), options=("-E", "-s"))
    for _ in range(2):
        attach(program, "-f")
        detach(program)
    assert_whole(_core.Reader("x.pmt"))
    assert program.end() == "well"


NONE = pytest.param(
    Path("/none/bin/python"),
    marks=pytest.mark.skip(reason="no other interpreter has this package, of these sources"),
)


@pytest.mark.parametrize("python", others() or [NONE], ids=lambda path: path.parts[-3])
def test_other_version(python: Path, start: Callable[..., Program]) -> None:
    program = start("busy", python=str(python))
    attach(program)
    detach(program, "--python", python)
    assert program.end() == "well"


def test_helper_that_does_not_fit(start: Callable[..., Program]) -> None:
    program = start("busy")
    line = fails(4, "attach", program.pid, "--python", "/bin/true")
    assert "/bin/true" in line
    assert "that is no CPython" in line
    assert program.end() == "well"


# --- what stays ---------------------------------------------------------------------------------


def changed_code(pid: int) -> dict[str, bytes]:
    """What of the loaded code is not as in its file, and what stands behind it."""
    areas = _elf.mappings(pid)
    memory = _elf.Memory(pid)
    behind = {}
    for loaded in _elf.objects(memory, areas):
        content = Path(f"/proc/{pid}/root{loaded.path}").read_bytes()
        tails = list(loaded.tails())
        for area in loaded.areas:
            if not area.runs:
                continue
            end = next((start for start, _ in tails if area.start < start <= area.end), area.end)
            found = memory.read(area.start, end - area.start)
            assert found == content[area.offset : area.offset + len(found)], loaded.path
        for start, found in tails:
            area = next(area for area in loaded.areas if area.start <= start < area.end)
            at = area.offset + start - area.start
            expected = content[at : at + len(found)].ljust(len(found), b"\0")
            if found != expected:
                behind[loaded.path] = found
    memory.close()
    return behind


@pytest.mark.parametrize("method", METHODS)
def test_fifty_times_and_killed(method: str, start: Callable[..., Program]) -> None:
    program = start("threads")
    before = changed_code(program.pid)
    assert before == {}
    chance = random.Random(2)
    for number in range(50):
        for what in ("attach", "detach"):
            command = [*ATTACHER, what, str(program.pid), "--method", method]
            command += ["-f", "-o", "x.pmt"] if what == "attach" else []
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as attacher:
                if number % 3:
                    time.sleep(chance.uniform(0.1, 0.3))
                    attacher.kill()
                attacher.communicate()
        assert _target.read_status(program.pid).state in "RSD"
        assert _target.read_status(program.pid).tracer == 0
    time.sleep(0.5)  # what was asked for is done, or found to be in vain
    call("detach", program.pid, "--method", method)
    attach(program, "-f", "--method", method)
    detach(program, "--method", method)
    assert_whole(_core.Reader("x.pmt"))
    behind = changed_code(program.pid)
    assert len(behind) == (1 if method == "auto" else 0)
    for content in behind.values():  # our code, once; at most names of folders besides
        assert content.count(b"pymemtrace_attend_thread\0") == 1
    assert program.end() == "well"
    tidy(program)


# --- the command is killed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "latest_s", "method"),
    [(("busy",), 0.25, METHODS[-1]), (("sleeps", 1.5), 1.3, "auto"), (("joins",), 0.25, "auto"),
     (("handles",), 0.25, "auto")],
    ids=["busy", "sleeps", "joins", "handles"],
)  # fmt: skip
def test_command_is_killed(
    words: Any, latest_s: float, method: str, start: Callable[..., Program]
) -> None:
    program = start(*words)
    chance = random.Random(1)
    for number in range(30 if latest_s < 1 else 12):
        what = ("attach", "detach")[number % 2]
        command = [*ATTACHER, what, str(program.pid), "--method", method]
        if what == "attach":
            command += ["-f", "-o", "x.pmt"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as attacher:
            time.sleep(chance.uniform(0, latest_s))
            attacher.kill()
            attacher.communicate()
        assert _target.read_status(program.pid).state in "RSD"
    time.sleep(2 if latest_s > 1 else 0.2)  # what was asked for is done, or found to be in vain
    call("detach", program.pid, "--method", method)
    attach(program, "-f", "--method", method)
    detach(program, "--method", method)
    assert_whole(_core.Reader("x.pmt"))
    assert program.end() == "well"
    tidy(program)


def tidy(program: Program) -> None:
    """What a killed command leaves goes when the process comes to it; some was never asked for."""
    for folder in leftovers(program):
        shutil.rmtree(folder, ignore_errors=True)
