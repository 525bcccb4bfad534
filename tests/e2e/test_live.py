"""`pymemtrace live` and `run --live` as a user sees them: through tmux, 80x24."""

import contextlib
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pymemtrace

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
textual = pytest.importorskip("textual", reason="textual is not installed")

COMMAND = [sys.executable, "-m", "pymemtrace"]
WAIT_S = 60.0  # for what takes a second or two on a machine with nothing else to do

PROGRAM = """\
import threading
import time
from pathlib import Path

kept = []


def hoard():
    kept.append(bytearray(40 << 20))


def scatter():
    kept.append([str(number) * 5 for number in range(50000)])


def work():
    kept.append(bytearray(3 << 20))
    while not Path("stop").exists():
        time.sleep(0.05)


thread = threading.Thread(target=work, name="helper")
thread.start()
hoard()
scatter()
while not Path("stop").exists():
    time.sleep(0.05)
    if Path("more").exists() and len(kept) < 4:
        kept.append(bytearray(60 << 20))
thread.join()
raise SystemExit(3)
"""


class Terminal:
    """A tmux with one window, in which a command runs; its status is shown when it has ended."""

    def __init__(self, *command: object, size: tuple[int, int] = (80, 24), **variables: str):
        self._socket = f"pymemtrace-test-{os.getpid()}-{time.monotonic_ns()}"
        environment = {"LC_ALL": "C.UTF-8", "TERM": "screen-256color", "COLUMNS": "80", **variables}
        words = ["env", "-u", "NO_COLOR", *(f"{k}={v}" for k, v in environment.items())]
        text = shlex.join([*words, *map(str, command)])
        self.tmux("-u", "-f", "/dev/null", "new-session", "-d", "-x", size[0], "-y", size[1],
                  f"{text}; echo status=$?; exec sleep 1000")  # fmt: skip

    def tmux(self, *words: object) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *map(str, words)],
            capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def screen(self, *words: str) -> str:
        return self.tmux("capture-pane", "-p", *words)

    def send(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def until(self, pattern: str, absent: str = "") -> str:
        """Waits until the screen matches, and nothing of it matches `absent`."""
        end = time.monotonic() + WAIT_S
        while True:
            screen = self.screen()
            found = re.search(pattern, screen, re.MULTILINE)
            if found and not (absent and re.search(absent, screen, re.MULTILINE)):
                return screen
            assert time.monotonic() < end, f"no {pattern!r}:\n{screen}"
            assert "Traceback" not in screen, screen
            time.sleep(0.05)

    def resize(self, columns: int, lines: int) -> None:
        self.tmux("resize-window", "-x", columns, "-y", lines)

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Runs `pymemtrace` with these words in a terminal."""
    opened: list[Terminal] = []

    def open_terminal(*words: object, **options: object) -> Terminal:
        opened.append(Terminal(*COMMAND, *words, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """PROGRAM, which is being recorded into app.pmt."""
    (tmp_path / "app.py").write_text(PROGRAM)
    process = subprocess.Popen([*COMMAND, "run", "-o", "app.pmt", "app.py"], cwd=tmp_path)
    end = time.monotonic() + WAIT_S
    while not (tmp_path / "app.pmt").exists():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    yield process
    (tmp_path / "stop").touch()
    process.kill()
    process.wait()


HOARD_FIRST = r"own.*\n.*40\.0 MiB.*hoard  app\.py:9"


# --- live -----------------------------------------------------------------------------------------


@needs_tmux
def test_keys(terminal: Callable[..., Terminal], program: "subprocess.Popen[bytes]") -> None:
    screen = terminal("live", "app.pmt")
    text = screen.until(HOARD_FIRST)
    assert re.search(rf"^{program.pid} python app\.py +running \d", text)
    assert re.search(r"now 4\d\.\d MiB  peak 4\d\.\d MiB  RSS \d+\.\d MiB", text)
    assert "alive now, by bytes, own" in text
    assert max(map(len, text.splitlines())) <= 80

    screen.send("s")  # by blocks
    screen.until(r"blocks▾.*\n.*50,0\d\d.*scatter.*  app\.py:13")
    screen.send("o")  # with callees
    screen.until(r"by blocks, with callees")
    screen.send("s", "s", "s")
    screen.until(r"total▾.*\n(.*\n)? +0 B +40\.0 MiB .*<module>  app\.py:24")
    screen.send("o")

    screen.send("/")
    screen.type("*nothing*")
    screen.send("Enter")
    screen.until("the filter lets nothing through", absent="hoard")
    screen.send("Escape")
    screen.until(HOARD_FIRST)
    screen.send("/")
    screen.type("app.py !__main__")
    screen.send("Enter")
    screen.until(r"filter app\.py !__main__", absent="hoard")
    screen.send("Escape")
    screen.until(HOARD_FIRST)

    screen.send("v")
    screen.until("at the peak, by bytes, own")
    screen.send("v", "v", "v")
    screen.until("alive now")

    screen.send("2")
    screen.until(r"100\.0 %.*\[root\]\n(.*\n)*.*hoard  app\.py:9")
    screen.send("Enter")  # closes the root
    screen.until(r"▸ \[root\]", absent="hoard")
    screen.send("Right")
    screen.until(r"hoard  app\.py:9")
    screen.send("4")
    screen.until(r"resident \(RSS\)")
    screen.until("large native blocks")
    screen.send("5")
    screen.until(rf"process.*\n +{program.pid} .*running")
    screen.send("3")
    screen.until(r"helper \(\d+\)")
    screen.send("Down", "Enter")
    screen.until(r"thread helper \(\d+\)\n(.*\n){2} *3\.0 MiB.*work  app\.py:17", absent="hoard")
    screen.send("m")
    screen.until(HOARD_FIRST)
    screen.send(">")
    screen.until(r"thread MainThread", absent="work  app")
    screen.send("m", "d")
    screen.until(r"blocks +2 ")
    screen.send("q", "?")
    screen.until("one thread after the other")
    screen.send("q", "q")
    screen.until("status=0")
    assert program.poll() is None


@needs_tmux
def test_it_grows_pauses_and_ends(
    terminal: Callable[..., Terminal], program: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    screen = terminal("live", "app.pmt")
    screen.until(HOARD_FIRST)
    screen.send("Space")
    screen.until("PAUSED")
    (tmp_path / "more").touch()
    again = terminal("live", "app.pmt")  # which is not paused
    again.until(r"60\.0 MiB.*<module>  app\.py:29")
    again.send("q")
    assert "60.0 MiB" not in screen.screen()
    screen.send("Space")
    screen.until(r"60\.0 MiB.*<module>  app\.py:29", absent="PAUSED")
    (tmp_path / "stop").touch()
    screen.until("ended with exit status 3")
    assert program.wait(WAIT_S) == 3
    screen.until("alive at the end")
    screen.send("C-c")
    screen.until("status=0")


@needs_tmux
def test_it_is_killed(
    terminal: Callable[..., Terminal], program: "subprocess.Popen[bytes]"
) -> None:
    screen = terminal("live", program.pid)  # by its id
    screen.until(HOARD_FIRST)
    program.kill()
    screen.until("killed: the capture ends with its last flush")
    assert "hoard" in screen.screen()
    screen.send("q")
    screen.until("status=0")


@needs_tmux
def test_small_and_without_colour(
    terminal: Callable[..., Terminal], program: "subprocess.Popen[bytes]"
) -> None:
    screen = terminal("live", "app.pmt", NO_COLOR="1")
    screen.until(HOARD_FIRST)
    assert not re.search(r"\x1b\[[0-9;]*\b(3[1-7]|38;[25])[;m]", screen.screen("-e"))
    for columns, lines in ((40, 12), (12, 4), (130, 40)):
        screen.resize(columns, lines)
        screen.send("2")
        screen.send("1")
        if columns >= 40:
            text = screen.until(r"40\.0 MiB.*hoard")
            assert max(map(len, text.splitlines())) <= columns
    screen.until(r"RSS +[▁▂▃▄▅▆▇█ ]+\d")
    screen.send("q")
    screen.until("status=0")


CHILDREN = """\
import multiprocessing, time
from pathlib import Path

def child_hoard():
    kept = bytearray(20 << 20)
    while not Path("stop").exists():
        time.sleep(0.05)

if __name__ == "__main__":
    kept = bytearray(30 << 20)
    while not Path("more").exists():
        time.sleep(0.05)
    process = multiprocessing.get_context("fork").Process(target=child_hoard)
    process.start()
    process.join()
"""


@needs_tmux
def test_children_appear_by_themselves(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    Path("kids.py").write_text(CHILDREN)
    process = subprocess.Popen([*COMMAND, "run", "-o", "kids.pmt", "kids.py"])
    try:
        while not Path("kids.pmt").exists():
            assert process.poll() is None
            time.sleep(0.02)
        screen = terminal("live", "kids.pmt")
        screen.until(r"30\.0 MiB.*<module>  kids\.py:10", absent="child_hoard")
        Path("more").touch()
        screen.until(r"2 processes of(.*\n)*.*20\.0 MiB.*child_hoard  kids\.py:5")
        screen.send("5")
        screen.until(rf"\d+ +{process.pid} .*3\d\.\d MiB .*running")  # inherited
        screen.send("Down", "Enter")
        screen.until(r"child_hoard", absent="2 processes of")
        screen.send("]")
        screen.until(r"kids\.py:10", absent="child_hoard")
        Path("stop").touch()
        screen.send("m")
        screen.until("0 of 2 running")
        screen.send("q")
        screen.until("status=0")
    finally:
        Path("stop").touch()
        process.wait(WAIT_S)


# --- what cannot be watched -----------------------------------------------------------------------


@pytest.mark.parametrize("words", [("live", "app.pmt"), ("run", "--live", "app.py")])
def test_it_ends_with_its_terminal(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TALK)
    if words[0] == "live":
        with pymemtrace.record("app.pmt"):
            pass
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    output = b""
    while b"Sites" not in output:
        output += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(WAIT_S) in (-signal.SIGHUP, 128 + signal.SIGHUP)
    for path in tmp_path.glob("pymemtrace-app.py.*.pmt"):  # the program of `run` goes on
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.name.split(".")[-2]), signal.SIGKILL)


def in_terminal(*command: object) -> tuple[int, str]:
    """Status and output of a command that ends by itself, on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    output = b""
    try:
        while piece := os.read(ours, 4096):
            output += piece
    except OSError:  # nobody has its other end any more
        pass
    os.close(ours)
    return process.wait(WAIT_S), output.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("word", "status", "text"),
    [
        ("missing.pmt", 3, r"cannot read the capture \(No such file or directory\): missing\.pmt"),
        ("*.pmt", 3, r"no file matches: \*\.pmt"),
        ("strange", 3, r"not a capture of PyMemTrace .*: strange"),
        (str(os.getpid()), 3, rf"the process is not being recorded: {os.getpid()}: start it by"),
        ("999999999", 3, "no such process: 999999999"),
    ],
)
def test_one_line_says_what_is_wrong(word: str, status: int, text: str) -> None:
    Path("strange").write_text("a text")
    got, output = in_terminal("-m", "pymemtrace", "live", word)
    assert got == status, output
    assert re.fullmatch(rf"pymemtrace: {text}.*\n", output), output


def test_it_needs_a_terminal(command: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    for words in (("live", "app.pmt"), ("run", "--live", "app.py")):
        done = command(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"pymemtrace: (run --)?live needs a terminal: .*\n", done.stderr)


def test_it_needs_textual() -> None:
    script = (
        "import sys; sys.modules['textual'] = None\n"
        "from pymemtrace.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    for words in (("live", "app.pmt"), ("run", "--live", "app.py")):
        status, output = in_terminal("-c", script, *words)
        assert status == 4
        assert re.fullmatch(r"pymemtrace: .*: pip install 'pymemtrace-profiler\[live\]'\n", output)


def test_other_commands_do_not_import_it() -> None:
    script = (
        "import sys\nfrom pymemtrace.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not any(name.startswith(('textual', 'rich')) for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert " live " in done.stdout


# --- run --live -----------------------------------------------------------------------------------

TALK = """\
import sys, time
from pathlib import Path
print("hello", sys.argv[1:], sys.stdin.isatty(), len(sys.stdin.read()))
kept = bytearray(10 << 20)
try:
    while not Path("stop").exists():
        time.sleep(0.05)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(7)
print("goodbye")
sys.exit(5)
"""


@needs_tmux
def test_run_live(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    screen = terminal("run", "--live", "-o", "talk.pmt", "talk.py", "an argument")
    screen.until(r"10\.0 MiB.*<module>  talk\.py:4")
    screen.send("6")
    screen.until(r"^hello \['an argument'\] False 0")
    (tmp_path / "stop").touch()
    screen.until("^goodbye")
    screen.until("ended with exit status 5")
    screen.send("q")
    text = screen.until("status=5")
    assert re.search(r"^hello.*\ngoodbye\npymemtrace: wrote ", text)
    assert "talk.out" in text
    assert (tmp_path / "talk.out").read_text().endswith("goodbye\n")


@needs_tmux
def test_ctrl_c_is_for_the_program(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    screen = terminal("run", "--live", "-q", "-o", "talk.pmt", "talk.py")
    screen.until(r"10\.0 MiB.*<module>  talk\.py:4")
    screen.send("C-c")
    screen.until("ended with exit status 7")
    screen.send("q")
    screen.until("^interrupted\nstatus=7")


@needs_tmux
def test_the_program_goes_on_without_the_viewer(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    screen = terminal("run", "--live", "-q", "-o", "talk.pmt", "talk.py")
    screen.until(r"10\.0 MiB.*<module>  talk\.py:4")
    screen.send("q")
    screen.until("^hello", absent="status=")
    screen.send("C-c")  # from the terminal, to all that is in the foreground
    screen.until("^hello.*\n.*interrupted\nstatus=7")


@needs_tmux
def test_a_signal_ends_both(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "die.py").write_text(
        "import os, signal, time\nkept = bytearray(1 << 20)\ntime.sleep(2)\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    screen = terminal("run", "--live", "-q", "-o", "die.pmt", "die.py")
    screen.until("killed: ")
    screen.send("q")
    screen.until(f"status={128 + signal.SIGUSR1}")
    assert not (tmp_path / "die.out").exists()  # it printed nothing


@needs_tmux
def test_nothing_to_run(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    screen = terminal("run", "--live", "missing.py", cwd=tmp_path)
    text = screen.until("status=2")
    assert "cannot open the script" in text
    assert list(tmp_path.glob("*.out")) == []
