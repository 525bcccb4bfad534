"""PYMEMTRACE: recordings that the environment starts, their boxes, what the next start says."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pymemtrace
from pymemtrace import _boxes, _core

# What a program needs to die: it waits until a state of it is in the file.
WAIT = """
import os, sys, time
def wait_for_state():
    from pymemtrace import _core
    _core.flush()
"""
KILL = (
    WAIT
    + """
kept = [bytearray(200_000) for _ in range(25)]  # of more than 8 means: sure
wait_for_state()
os.kill(os.getpid(), 9)
"""
)


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    folder = tmp_path / "boxes"
    folder.mkdir(mode=0o700)
    return folder


def environment(boxes: Path, more: str = "", **others: str) -> dict[str, str]:
    value = f"dir={boxes},box=1M,sample=16K{',' + more if more else ''}"
    return os.environ | {"PYMEMTRACE": value} | others


def run(boxes: Path, *words: str, more: str = "", **how: Any) -> "subprocess.CompletedProcess[str]":
    how.setdefault("env", environment(boxes, more))
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60, check=False, **how
    )


def names(boxes: Path) -> list[str]:
    return sorted(path.name for path in boxes.glob("*.pmt"))


def wait_until(condition: Any, what: str) -> Any:
    for _ in range(600):
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


def deaths(boxes: Path, program: str) -> Any:
    path = boxes / f"{program}.deaths.json"
    return json.loads(path.read_text()) if path.exists() else {"deaths": 0}


# --- the start ------------------------------------------------------------------------------------


def test_without_the_variable_nothing_is_imported() -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYMEMTRACE"}
    code = "import sys; print([name for name in sys.modules if 'pymemtrace' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env,
                          check=True)  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("value", ["", "0", "off"])
def test_it_can_be_switched_off(boxes: Path, tmp_path: Path, value: str) -> None:
    done = run(boxes, "-c", KILL.replace("wait_for_state()\nos", "os"),
               env=os.environ | {"PYMEMTRACE": value})  # fmt: skip
    assert done.returncode == -9
    assert done.stderr == ""
    assert list(tmp_path.glob("**/*.pmt")) == []


def test_a_killed_process_leaves_its_box(boxes: Path) -> None:
    (boxes.parent / "app.py").write_text(KILL)
    done = run(boxes, "app.py")
    assert (done.returncode, done.stdout, done.stderr) == (-9, "", "")
    (name,) = names(boxes)
    capture = pymemtrace.open(boxes / name)
    info = capture.info()
    assert name == f"app.py.{info['pid']}.pmt"
    assert (info["ended"], info["mode"]) == ("killed", "sampled")
    assert info["command"][-1] == "app.py"
    assert capture.process()["box_bytes"] == 1 << 20
    row = next(row for row in capture.sites("leaks") if row["site"]["file"].endswith("app.py"))
    assert row["bytes"] >= 25 * 200_000


def test_a_signal_turns_sampling_off_and_on(boxes: Path) -> None:
    program = (
        WAIT + "import signal\n"
        "for _ in range(3):\n"
        "    os.kill(os.getpid(), signal.SIGUSR2)\n"
        "wait_for_state()\n"
        "print('ends', flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = run(boxes, "-c", program, more="signal=usr2")
    assert (done.returncode, done.stdout, done.stderr) == (-9, "ends\n", "")
    (name,) = names(boxes)
    labels = [mark["label"] for mark in pymemtrace.open(boxes / name).marks()]
    assert labels == ["sampling off", "sampling on", "sampling off"]


@pytest.mark.parametrize("value", ["KILL", "9", "SIGTERM", "", "usr2;rm"])
def test_signals_that_are_not_for_this(boxes: Path, value: str) -> None:
    done = run(boxes, "-c", "print('runs')", more=f"signal={value}")
    assert (done.returncode, done.stdout) == (0, "runs\n")
    assert "is neither SIGUSR1 nor SIGUSR2" in done.stderr


def test_1_records_into_the_current_directory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILL], capture_output=True, text=True, check=False,
        env=os.environ | {"PYMEMTRACE": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-9, "")
    (path,) = tmp_path.glob("command.*.pmt")
    assert path.stat().st_size > 15 << 20
    assert pymemtrace.open(path).info()["sample_bytes"] == 512 << 10


def test_a_short_process_that_ends_normally_leaves_nothing(boxes: Path) -> None:
    for ending in ("", "; sys.exit(3)"):
        done = run(boxes, "-c", "import sys; print(len(sys.argv))" + ending)
        assert (done.stdout, done.stderr) == ("1\n", "")
        assert done.returncode == (3 if ending else 0)
    assert names(boxes) == []


def test_keep_normal_0_keeps_no_normal_end(boxes: Path) -> None:
    code = "import time; time.sleep(1.1)"
    assert run(boxes, "-c", code, more="keep_normal=0").returncode == 0
    assert names(boxes) == []
    assert run(boxes, "-c", code).returncode == 0
    (name,) = names(boxes)
    info = pymemtrace.open(boxes / name).info()
    assert (info["ended"], info["ended_by"]) == ("normal", None)


def test_an_unhandled_exception_leaves_the_box(boxes: Path) -> None:
    done = run(boxes, "-c", "raise MemoryError")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "MemoryError"
    (name,) = names(boxes)
    info = pymemtrace.open(boxes / name).info()
    assert (info["ended"], info["ended_by"], info["exit_status"]) == ("normal", "exception", 1)


def test_verbose(boxes: Path) -> None:
    done = run(boxes, "-c", "pass", more="verbose")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"pymemtrace: PYMEMTRACE: recording into {boxes}/command.")
    assert "a sample per 16 KiB" in line


@pytest.mark.parametrize(
    "words",
    [["-m", "pip", "--version"], ["-m", "pymemtrace", "--version"],
     ["-c", "from multiprocessing.resource_tracker import main"]],
)  # fmt: skip
def test_helpers_are_left_out(boxes: Path, words: list[str]) -> None:
    assert run(boxes, *words).returncode == 0
    assert not list(boxes.iterdir())


@pytest.mark.skipif(
    sys.version_info >= (3, 13) and " " in _core.__file__,
    reason="not followed: LD_PRELOAD cannot name a library whose path has a space",
)
def test_pymemtrace_run_comes_first(boxes: Path, tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "code = 'import time; kept = [bytes(100) for _ in range(10 ** 5)]; time.sleep(1.1)'\n"
        "subprocess.run([sys.executable, '-c', code], check=True)\n"
    )
    done = run(boxes, "-m", "pymemtrace", "run", "-o", "x.pmt", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.glob("x*.pmt"))) == 2
    assert not list(boxes.iterdir())


def test_a_program_that_records_itself_comes_first(boxes: Path, tmp_path: Path) -> None:
    code = "import pymemtrace\nwith pymemtrace.record('own.pmt'): kept = bytes(10 ** 6)\n"
    done = run(boxes, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert pymemtrace.open(tmp_path / "own.pmt").info()["mode"] == "full"


def test_tracebacks_and_modules_are_those_of_the_program(boxes: Path) -> None:
    code = "import sys; print(sorted(sys.modules), sys.argv, sys.path, sys.flags)"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    done = run(boxes, "-c", code)
    assert done.stderr == ""
    extra = set(eval(done.stdout.partition("] [")[0] + "]")) - set(
        eval(plain.stdout.partition("] [")[0] + "]")
    )
    assert extra <= {"pymemtrace", "pymemtrace._core", "pymemtrace._boxes",
                     "pymemtrace._environment", "atexit", "fcntl"}  # fmt: skip
    assert done.stdout.partition("] [")[2] == plain.stdout.partition("] [")[2]


# --- what is wrong with it ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("sample=0", "sample=0 is no size from 1K to 1T: its usual value is taken"),
        ("sample=-5", "sample=-5 is no size"),
        ("sample=1e9", "sample=1e9 is no size"),
        ("box=3", "box=3 is no size from 1M to 1G, or 0"),
        ("keep=many", "keep=many is no number from 0 to 1000"),
        ("interval=nan", "interval=nan is no number of seconds"),
        ("native=perhaps", "native=perhaps is neither 1 nor 0"),
        ("x=__import__('os')", "unknown key 'x': it is one of box, dir,"),
        ("2", "unknown key '2'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line(boxes: Path, value: str, line: str) -> None:
    done = run(boxes, "-c", "print('runs')", more=value)
    assert (done.returncode, done.stdout) == (0, "runs\n")
    (got,) = done.stderr.splitlines()
    assert got.startswith(f"pymemtrace: PYMEMTRACE: {line}")


@pytest.mark.parametrize("value", ["dir=x\ny", "dir=\x1b[2J", "d" * 5000])
def test_a_hostile_value_is_one_line(boxes: Path, value: str) -> None:
    done = run(boxes, "-c", "print('runs')", env=os.environ | {"PYMEMTRACE": value})
    assert (done.returncode, done.stdout) == (0, "runs\n")
    (got,) = done.stderr.splitlines()
    assert "nothing is recorded" in got
    assert "\x1b" not in got


def test_folders_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for folder, text in (
        ("file", "cannot open the folder"), ("no/such", "cannot make the folder"),
        ("open", "everybody may write to the folder"), ("/proc", "cannot write here"),
    ):  # fmt: skip
        done = run(tmp_path / folder, "-c", "print('runs')")
        assert (done.returncode, done.stdout) == (0, "runs\n")
        (line,) = done.stderr.splitlines()
        assert text in line
        assert "dir=" in line


def test_without_room_the_program_runs_and_nothing_is_left(boxes: Path) -> None:
    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = run(boxes, "-c", "print('runs')", more="box=4M", preexec_fn=set_limit)
    assert (done.returncode, done.stdout) == (0, "runs\n")
    (line,) = done.stderr.splitlines()
    assert "cannot write the box (File too large)" in line
    assert names(boxes) == []


def test_without_standard_error_nothing_is_written_anywhere(tmp_path: Path) -> None:
    script = f"exec 2>&-; exec '{sys.executable}' -c 'import os; print(os.path.exists(\"x\"))'"
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False,
        env=os.environ | {"PYMEMTRACE": "wrong=1,dir=/no/such/folder"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "False\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a program with other rights")
def test_a_program_with_other_rights_is_not_recorded(boxes: Path) -> None:
    boxes.chmod(0o1777)
    code = (
        "import os, sys\n"
        "os.setresuid(12345, 0, 0)\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'print(1)'])\n"
    )
    plain = {key: value for key, value in os.environ.items() if key != "PYMEMTRACE"}
    code = f"import os; os.environ['PYMEMTRACE'] = 'dir={boxes}'\n{code}"
    done = run(boxes, "-c", code, env=plain)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert not list(boxes.iterdir())


# --- children -------------------------------------------------------------------------------------


def test_forked_and_executed_children_have_boxes_of_their_own(boxes: Path) -> None:
    code = WAIT + (
        "import subprocess\n"
        "kept = [bytes(1000) for _ in range(3000)]\n"
        "pid = os.fork()\n"
        "more = [bytes(1000) for _ in range(3000)]\n"
        "if pid == 0:\n"
        "    time.sleep(0.1); more.append(bytes(5)); wait_for_state(); os.kill(os.getpid(), 9)\n"
        "os.waitpid(pid, 0)\n"
        f"subprocess.run([sys.executable, '-c', {KILL!r}])\n"
        "print(os.getpid(), pid)\n"
        "wait_for_state(); sys.stdout.flush(); os.kill(os.getpid(), 9)\n"
    )
    (boxes.parent / "app.py").write_text(code)
    done = run(boxes, "app.py")
    assert done.returncode == -9
    pid, child = done.stdout.split()
    (executed,) = (name for name in names(boxes) if name.startswith("command."))
    assert set(names(boxes)) == {f"app.py.{pid}.pmt", f"app.py.{child}.pmt", executed}
    assert pymemtrace.open(boxes / f"app.py.{child}.pmt").info()["parent_pid"] == int(pid)


def test_ends_by_exit_and_exec_are_known(boxes: Path) -> None:
    """os._exit ends the workers of multiprocessing: none of them has died."""
    code = (
        "import os, sys, time\n"
        "pid = os.fork()\n"
        "kept = [bytes(1000) for _ in range(5000)]\n"
        "if pid == 0: time.sleep(0.1); kept.append(bytes(1000)); os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "os.execv('/bin/true', ['true'])\n"
    )
    done = run(boxes, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    infos = [pymemtrace.open(boxes / name).info() for name in names(boxes)]
    assert len(infos) == 2
    assert all(info["ended"] == "normal" for info in infos)
    assert sorted(str(info["ended_by"]) for info in infos) == ["None", "exec"]


# --- the next start -------------------------------------------------------------------------------


def test_the_next_start_reports_the_death_once(boxes: Path) -> None:
    (boxes.parent / "app.py").write_text(KILL)
    run(boxes, "app.py")
    (box,) = names(boxes)
    pid = box.split(".")[2]
    (boxes.parent / "app.py").write_text("import time; print('runs')")
    done = run(boxes, "app.py")
    assert (done.returncode, done.stdout) == (0, "runs\n")
    wait_until(lambda: deaths(boxes, "app.py")["deaths"], "a death is counted")
    (line,) = done.stderr.splitlines()
    (box,) = names(boxes)
    assert line.startswith(f"pymemtrace: the last process app.py (pid {pid}) ")
    assert line.endswith(f": pymemtrace report {boxes / box}")
    state = deaths(boxes, "app.py")
    assert (state["deaths"], state["last"]["pid"], state["last"]["file"]) == (1, int(pid), box)
    assert run(boxes, "app.py").stderr == ""
    assert deaths(boxes, "app.py")["deaths"] == 1


def test_a_death_whose_box_is_gone_or_damaged_is_counted(boxes: Path) -> None:
    from pymemtrace import _deaths

    (boxes / "app.7.20261127T135055Z.pmt").write_bytes(b"damaged")
    for file in ("app.7.20261127T135055Z.pmt", "app.7.20261127T135056Z.pmt"):
        described = _deaths.describe(str(boxes), "app", file)
        assert described is not None
        entry, line = described
        assert (entry["cause"], entry["pid"]) == ("unread", 7)
        assert "cannot be read" in line


def test_a_hostile_state_file_is_replaced(boxes: Path) -> None:
    victim = boxes.parent / "victim"
    victim.write_text("mine")
    (boxes / "command.deaths.json").symlink_to(victim)
    run(boxes, "-c", KILL)
    run(boxes, "-c", "pass")
    wait_until(lambda: not (boxes / "command.deaths.json").is_symlink(), "it is replaced")
    assert victim.read_text() == "mine"
    assert deaths(boxes, "command")["deaths"] == 1
    (boxes / "command.deaths.json").write_text('{"deaths": "x", "causes": [], "recent": 5}')
    run(boxes, "-c", KILL)
    run(boxes, "-c", "pass")
    wait_until(lambda: deaths(boxes, "command")["deaths"] == 1, "it is counted anew")


def test_a_wait_of_the_program_finds_no_child_of_ours(boxes: Path) -> None:
    run(boxes, "-c", KILL)
    code = "import os\ntry: print(os.wait())\nexcept ChildProcessError: print('none')\n"
    done = run(boxes, "-c", code)
    assert done.stdout == "none\n"
    assert len(done.stderr.splitlines()) == 1


def test_a_prefork_server_reports_its_dead_workers(boxes: Path) -> None:
    (boxes.parent / "server.py").write_text(WAIT + (
        "def worker(dies):\n"
        "    pid = os.fork()\n"
        "    if pid: return pid\n"
        "    kept = [bytes(1000) for _ in range(5000)]\n"
        "    time.sleep(0.1); kept.append(bytes(1000)); wait_for_state()\n"
        "    if dies: os.kill(os.getpid(), 9)\n"
        "    os._exit(0)\n"
        "os.waitpid(worker(True), 0)\n"
        "time.sleep(1.1)\n"
        "os.waitpid(worker(False), 0)\n"
        "time.sleep(1.1)\n"
        "os.waitpid(worker(False), 0)\n"
    ))  # fmt: skip
    done = run(boxes, "server.py")
    assert done.returncode == 0
    wait_until(lambda: deaths(boxes, "server.py")["deaths"], "a death is counted")
    (line,) = done.stderr.splitlines()
    assert "the last process server.py (pid " in line
    assert deaths(boxes, "server.py")["deaths"] == 1


def test_a_crash_loop_is_bounded(boxes: Path) -> None:
    """40 starts, four at once, each killed."""
    (boxes.parent / "app.py").write_text(KILL)
    first = None
    for _ in range(10):
        started = [
            subprocess.Popen(
                [sys.executable, "app.py"], env=environment(boxes, "keep=4"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for _ in range(4)
        ]  # fmt: skip
        first = first or {process.pid for process in started}
        assert [process.wait() for process in started] == [-9] * 4
        # those of the last round, who have no follower yet, and who was kept
        assert len(names(boxes)) <= 4 + 1 + 4 + 4
    done = run(boxes, "app.py", more="keep=4")
    assert done.returncode == -9
    run(boxes, "-c", "pass")  # another program: it leaves them alone
    left = [_boxes.parse_name(name) for name in names(boxes)]
    dead = [name for name in left if name is not None and name.stamp]
    assert len(dead) <= 5
    assert first is not None
    assert sum(name.first and name.pid in first for name in dead) == 1
    state = wait_until(
        lambda: (found := deaths(boxes, "app.py"))["deaths"] >= 36 and found, "all are counted"
    )
    assert state["deaths"] <= 41
    assert len(state["recent"]) <= 16


def test_a_pid_that_is_used_again_overwrites_nothing(boxes: Path) -> None:
    """In a container, every start has the pid 1: here, one process executes itself."""
    code = WAIT + (
        "generation = int(sys.argv[1])\n"
        "kept = bytearray(1_000_000 * (generation + 1))\n"
        "wait_for_state()\n"
        "if generation < 2:\n"
        "    os.execv(sys.executable, [sys.executable, 'app.py', str(generation + 1)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    (boxes.parent / "app.py").write_text(code)
    done = run(boxes, "app.py", "0", more="keep_normal=5")
    assert (done.returncode, done.stderr) == (-9, "")
    by_end = sorted(str(pymemtrace.open(boxes / name).info()["ended_by"]) for name in names(boxes))
    assert by_end == ["None", "exec", "exec"]


def test_signals_of_the_start_reach_the_program(boxes: Path) -> None:
    """The mask is what it was."""
    run(boxes, "-c", KILL)
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    assert run(boxes, "-c", code).stdout == "set()\n"
    assert signal.SIGCHLD not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
