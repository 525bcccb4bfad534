"""The parts of the launcher that need no process of their own, with a recorder that only notes."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymemtrace._core", reason="the extension is not built")

from pymemtrace import _launch
from pymemtrace.cli import run as command


class Recorder:
    class CaptureExistsError(Exception):
        pass

    class UnsupportedError(Exception):
        pass

    __file__ = "/p/_core.so"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[Any] = []

    def start(self, path: str, **options: Any) -> None:
        self.calls.append(("start", path, options))
        if self.error is not None:
            raise self.error

    def run_main(self, kind: str, what: str, fd: int, note: str | None, base: str | None) -> None:
        main = sys.modules["__main__"]
        self.calls.append(
            (kind, what, fd, note, list(sys.argv), sys.path[0], dict(vars(main)), base)
        )


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "orig_argv", sys.orig_argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


WORDS = [
    "path=/x.pmt",
    "force=1",
    "quiet=0",
    "events=1",
    "max_memory_bytes=5",
    "temporaries=2",
    "--",
]


def test_starts_the_recorder_then_runs() -> None:
    recorder = Recorder()
    _launch.launch([*WORDS, "-c", "code", "a"], ["python", "-B"], recorder)
    start, main = recorder.calls
    assert start == (
        "start",
        "/x.pmt",
        {"argv": ["python", "-B", "-c", "code", "a"], "force": 1, "events": 1,
         "max_memory_bytes": 5, "temporaries": 2, "follow": None},
    )  # fmt: skip
    assert main[7] is None
    assert main[:6] == ("string", "code", -1, "pymemtrace: wrote /x.pmt\n", ["-c", "a"], "")
    assert sys.orig_argv == ["python", "-B", "-c", "code", "a"]
    assert main[6]["__name__"] == "__main__"
    assert "__file__" not in main[6]


def test_children_are_told() -> None:
    recorder = Recorder()
    words = ["follow=1", "library=/p/_preload.so", "quiet=1", *WORDS]
    _launch.launch([*words, "-c", "code"], ["python"], recorder)
    start, main = recorder.calls
    told = dict(word.split("=", 1) for word in start[2]["follow"].split("\x1f") if word)
    assert told["library"] == "/p/_preload.so"
    assert told["core"] == recorder.__file__
    assert told["package"] == str(Path(_launch.__file__).parent)
    assert told["interpreter"] == str(Path("/proc/self/exe").readlink())
    assert (told["base"], main[7]) == ("/x", "/x")
    assert (told["events"], told["temporaries"]) == ("1", "2")
    assert "force" not in told


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Recorder.CaptureExistsError(), 2, "exists already: /x.pmt: "),
        (Recorder.UnsupportedError("Python 4"), 4, "cannot record here: Python 4: "),
        (PermissionError(13, "Permission denied"), 2, "(Permission denied): /x.pmt: "),
    ],
)
def test_program_is_not_run_without_recording(
    error: Exception, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(error)
    with pytest.raises(SystemExit) as info:
        _launch.launch([*WORDS, "-c", "code"], ["python"], recorder)
    assert info.value.code == status
    assert len(recorder.calls) == 1
    assert text in capsys.readouterr().err


def test_script_is_opened_before_the_recording_starts(tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(SystemExit):
        _launch.launch([*WORDS, str(tmp_path / "no.py")], ["python"], recorder)
    assert recorder.calls == []


@pytest.mark.parametrize(
    "source",
    ["", "x", "  x", "  x\n    y\n\n  z", "\tx\n\ty", "\tx\n    y", "  \n  x\n \n", "    x\n  y\n"],
)
def test_dedent(source: str) -> None:
    assert _launch.dedent(source).rstrip() == textwrap.dedent(source).rstrip()


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["-m", "pymemtrace", "run"], []),
        (["script", "-X", "dev"], []),
        (["-Xdev", "-X", "utf8", "-m", "p"], ["-Xdev", "-X", "utf8"]),
        (["-uBWerror", "s"], ["-uBWerror"]),
        (["-uW", "error", "s"], ["-uW", "error"]),
        (["-IBmpymemtrace", "run", "-m"], ["-IB"]),
        (["-c", "code", "-O"], []),
        (
            ["--check-hash-based-pycs", "never", "-O", "s"],
            ["--check-hash-based-pycs", "never", "-O"],
        ),
        (["-"], []),
        (["-E", "--", "s"], ["-E"]),
    ],
)
def test_interpreter_options(words: list[str], options: list[str]) -> None:
    assert command.interpreter_options(words) == options


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("64k", 65536), ("1.5G", 3 << 29), ("2MiB", 2 << 20), ("7 b", 7)]
)
def test_parse_size(text: str, size: int) -> None:
    assert command.parse_size(text) == size
