"""What `pymemtrace run` does besides running: its files, its messages, its options."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import on_terminal

import pymemtrace

RUN = [sys.executable, "-m", "pymemtrace", "run"]


def run(*words: str, cwd: Path, **kwargs: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*RUN, *words], cwd=cwd, capture_output=True, text=True, timeout=60, **kwargs
    )  # type: ignore[call-overload, no-any-return]


def assert_refused(done: "subprocess.CompletedProcess[str]", status: int, *parts: str) -> None:
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("pymemtrace: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


def test_missing_script(tmp_path: Path) -> None:
    done = run("-o", "x.pmt", "nothing.py", cwd=tmp_path)
    assert_refused(done, 2, str(tmp_path / "nothing.py"), "No such file")
    assert list(tmp_path.iterdir()) == []


def test_existing_capture_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x.pmt").write_text("precious")
    done = run("-o", "x.pmt", "-c", "print('ran')", cwd=tmp_path)
    assert_refused(done, 2, str(tmp_path / "x.pmt"), "exists", "-f")
    assert (tmp_path / "x.pmt").read_text() == "precious"


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "x.pmt").write_text("old")
    done = run("-f", "-o", "x.pmt", "-c", "print('ran')", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    assert not (tmp_path / "x.pmt").read_bytes().startswith(b"old")


def test_missing_directory(tmp_path: Path) -> None:
    done = run("-o", "no/x.pmt", "-c", "print('ran')", cwd=tmp_path)
    assert_refused(done, 2, str(tmp_path / "no" / "x.pmt"), "No such file or directory")


def test_directory_as_capture(tmp_path: Path) -> None:
    done = run("-f", "-o", ".", "-c", "print('ran')", cwd=tmp_path)
    assert_refused(done, 2, str(tmp_path))


def test_relative_capture_survives_chdir(tmp_path: Path) -> None:
    code = "import os; os.mkdir('in'); os.chdir('in')"
    assert run("-o", "x.pmt", "-c", code, cwd=tmp_path).returncode == 0
    assert (tmp_path / "x.pmt").stat().st_size > 0
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (["job.py"], "job.py"),
        (["-m", "job"], "job"),
        (["-c", "import job"], "command"),
        (["-"], "stdin"),
        (["./sub/../job.py"], "job.py"),
    ],
)
def test_default_capture(target: list[str], name: str, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import os; print(os.getpid())")
    (tmp_path / "sub").mkdir()
    done = run(*target, cwd=tmp_path, input="import job")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"pymemtrace-{name}.{int(done.stdout)}.pmt").exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-o"],
        ["-m"],
        ["-c"],
        ["--no-such-option", "x.py"],
        ["--temporaries", "0", "x.py"],
        ["--max-memory", "much", "x.py"],
        ["--max-siz", "1", "x.py"],
        ["--"],
    ],
)
def test_usage_errors(words: list[str], tmp_path: Path) -> None:
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: pymemtrace run" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_first_line_cannot_be_skipped(tmp_path: Path) -> None:
    command = [sys.executable, "-x", *RUN[1:], "-c", "print('ran')"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert_refused(done, 2, "-x")


def test_double_dash_ends_our_options(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import sys; print(sys.argv)")
    done = run("-o", "x.pmt", "--", "job.py", "--", "-f", cwd=tmp_path)
    assert done.stdout == "['job.py', '--', '-f']\n"


def run_on_terminal(*words: str, cwd: Path) -> str:
    return on_terminal([*RUN, *words], cwd=cwd)


def test_note_on_a_terminal(tmp_path: Path) -> None:
    expected = f"pymemtrace: wrote {tmp_path / 'x.pmt'}\n"
    assert run_on_terminal("-o", "x.pmt", "-c", "", cwd=tmp_path) == expected
    assert run_on_terminal("-qfo", "x.pmt", "-c", "", cwd=tmp_path) == ""


def test_forked_child_does_not_note(tmp_path: Path) -> None:
    code = "import os; os.fork() and os.wait()"
    assert run_on_terminal("-o", "x.pmt", "-c", code, cwd=tmp_path).count("wrote") == 1


def test_script_from_pipe(tmp_path: Path) -> None:
    """As in `pymemtrace run <(generate)`: a file that can be read once, and not by its name."""
    shell = '"$@" <(echo "import sys; print(sys.argv, sys.path[0], __file__)"; sleep 0.1)'
    outputs = []
    for command in ([sys.executable], [*RUN, "-o", "x.pmt"]):
        done = subprocess.run(
            ["bash", "-c", shell, "bash", *command],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] != ""


def test_script_from_fifo(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source = "print(__file__)\nraise SystemExit(3)\n"
    writer = threading.Thread(target=fifo.write_text, args=(source,), daemon=True)
    writer.start()
    done = run("-o", "x.pmt", "fifo", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{fifo}\n", "")
    writer.join(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_from_outside(number: signal.Signals, tmp_path: Path) -> None:
    code = "import time; print('ready', flush=True); time.sleep(100)"
    with subprocess.Popen(
        [*RUN, "-o", "x.pmt", "-c", code], cwd=tmp_path, stdout=-1, stderr=-1, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)  # not needed for the outcome: lets the signal find it in sleep()
        process.send_signal(number)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in stderr) == (number == signal.SIGINT)
    assert "_launch" not in stderr


def test_started_by_another_script(tmp_path: Path) -> None:
    """As the installed command does it; the program is named like a module that we import."""
    entry = tmp_path / "bin" / "pymemtrace"
    entry.parent.mkdir()
    entry.write_text("import sys\nfrom pymemtrace.cli import main\nsys.exit(main())\n")
    (tmp_path / "argparse.py").write_text(
        "import sys; print(__name__, sys.argv, sys.flags.dev_mode)"
    )
    command = [sys.executable, "-Xdev", str(entry), "run", "-o", "x.pmt", "argparse.py", "-c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("__main__ ['argparse.py', '-c'] True\n", "")


def test_a_directory_is_no_capture_to_overwrite(tmp_path: Path) -> None:
    for force in ([], ["-f"]):
        done = run(*force, "-o", str(tmp_path), "-c", "pass", cwd=tmp_path)
        assert_refused(done, 2, str(tmp_path), "it is no regular file", "-o")
        assert "-f" not in done.stderr


@pytest.mark.parametrize(
    ("code", "by", "status", "words"),
    [
        ("pass", "return", 0, "ended normally"),
        ("import sys; sys.exit()", "exit", 0, "ended normally"),
        ("import sys; sys.exit(3)", "exit", 3, "ended with exit status 3"),
        ("raise SystemExit('no')", "exit", 1, "ended with exit status 1"),
        ("1 / 0", "exception", 1, "ended by an exception (exit status 1)"),
        ("raise KeyboardInterrupt", "exception", 130, "ended by an exception (exit status 130)"),
    ],
)
def test_how_the_program_ended(code: str, by: str, status: int, words: str, tmp_path: Path) -> None:
    done = run("-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert done.returncode == (-2 if status == 130 else status)
    info = pymemtrace.open(tmp_path / "x.pmt").info()
    assert (info["ended"], info["ended_by"], info["exit_status"]) == ("normal", by, status)
    shown = subprocess.run(
        [*RUN[:-1], "summary", "x.pmt"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert f", {words}; CPython" in shown
