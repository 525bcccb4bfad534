"""What the commands share: numbers and paths as text, moments, files, JSON, progress."""

import argparse
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pymemtrace.cli import _captures, _format, _options, _output
from pymemtrace.cli._failure import Failure
from pymemtrace.cli._page import Column, PlainPage, RichPage
from pymemtrace.cli._progress import Progress

pytestmark = pytest.mark.any_version


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"), (50 << 20, "50.0 MiB"), (2**64 - 1, "16.0 EiB"),
    ],
)  # fmt: skip
def test_size(number: int, text: str) -> None:
    assert _format.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"), (0.0846, "85 ms"), (0.9996, "1.0 s"), (59.94, "59.9 s"),
        (59.96, "1 min 00 s"), (192, "3 min 12 s"), (3840, "1 h 04 min"), (90000, "1 d 01 h"),
    ],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert _format.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0 %"), (0.0001, "<0.1 %"), (0.1234, "12.3 %"), (0.9999, ">99.9 %"), (1, "100.0 %")],
)
def test_share(value: float, text: str) -> None:
    assert _format.share(value) == text


def test_clean_leaves_words_and_shows_control_characters() -> None:
    assert _format.clean("naïve 名前.py") == "naïve 名前.py"
    assert _format.clean("a\x1b[1m\n\u202e\ud800\u2028") == "a\\x1b[1m\\x0a\\u202e\\ud800\\u2028"


def test_paths_are_short_and_never_the_same() -> None:
    paths = _format.Paths("/usr/lib/python3.13", "/home/me/job")
    files = {
        "/home/me/job/etl.py": "etl.py",
        "/home/me/job/lib/util.py": "lib/util.py",
        "/opt/venv/lib/python3.13/site-packages/rich/text.py": "rich/text.py",
        "/usr/lib/python3/dist-packages/apt/cache.py": "apt/cache.py",
        "/usr/lib/python3.13/json/decoder.py": "python3.13/json/decoder.py",
        "/home/me/jobs/other.py": "/home/me/jobs/other.py",
        "<frozen importlib._bootstrap>": "<frozen importlib._bootstrap>",
        # two that would be called the same
        "/a/site-packages/twice/x.py": "/a/site-packages/twice/x.py",
        "/b/site-packages/twice/x.py": "/b/site-packages/twice/x.py",
    }
    paths.learn(files)
    assert {file: paths.file(file) for file in files} == files


def test_an_installed_file_is_not_taken_for_one_of_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "text.py").touch()
    paths = _format.Paths(None, str(tmp_path))
    installed = "/venv/site-packages/rich/text.py"
    paths.learn([installed])
    assert paths.file(installed) == installed


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("250ms", 0.25), (".5", 0.5)],
)
def test_moments_since_the_start(text: str, seconds: float) -> None:
    assert _options.parse_moment(text) == seconds


def test_instants() -> None:
    moment = _options.parse_moment("2026-03-01T12:00:05Z")
    assert moment == datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
    assert _options.seconds_since("2026-03-01T12:00:00+00:00", moment) == 5.0
    local = _options.parse_moment("2026-03-01 12:00")
    assert isinstance(local, datetime)
    assert local.tzinfo is not None
    with pytest.raises(argparse.ArgumentTypeError, match="is no moment"):
        _options.parse_moment("soon")


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    _output.write_file(str(target), b"first", force=False)
    with pytest.raises(Failure, match="exists already"):
        _output.write_file(str(target), b"second", force=False)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(Failure, match="No space left on device"):
            _output.write_file(str(target), b"third", force=True)
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]
    _output.write_file(str(target), b"fourth", force=True)
    assert target.read_bytes() == b"fourth"


def test_a_file_made_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"theirs")
    monkeypatch.setattr(_output, "check_target", lambda path, force: None)
    with pytest.raises(Failure, match="exists already"):
        _output.write_file(str(target), b"ours", force=False)
    assert target.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [target]


# --- printing ------------------------------------------------------------------------------------


def test_json_without_recursion_is_the_same() -> None:
    value = {"a": [1, 2.5, None, True, {"b": []}], "c": {}, 'quo"te': "\ud800é", "d": [[], [1]]}
    assert "".join(_captures.json_parts(value)) == json.dumps(value)


def test_plain_tables_have_no_width() -> None:
    stream = io.StringIO()
    PlainPage(stream).table(
        [Column("n", right=True), Column("name", bends=True)], [["1", "x" * 300], ["22", "y"]]
    )
    assert stream.getvalue() == f"   n  name\n   1  {'x' * 300}\n  22  y\n"


def test_a_narrow_terminal_loses_optional_columns_first() -> None:
    from rich.console import Console

    columns = [Column("bytes"), Column("more", optional=True), Column("name", bends=True)]
    for width, shown in ((40, True), (24, False)):
        stream = io.StringIO()
        page = RichPage(Console(file=stream, width=width, color_system=None))
        page.table(columns, [["1.0 MiB", "12345678", "module.py:1"]])
        assert ("12345678" in stream.getvalue()) is shown
        assert "module.py:1" in stream.getvalue()


class Terminal(io.StringIO):
    """Says that it is one."""

    def fileno(self) -> int:
        return 0

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "patience_s", "shown"), [(True, 0, True), (True, 600, False), (False, 0, False)]
)
def test_progress(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, patience_s: float, shown: bool
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: terminal)
    stream = Terminal()
    with Progress("reading x.pmt", stream, patience_s) as progress:
        progress(1, 10)
        progress(5, 10)
    assert ("reading x.pmt" in stream.getvalue()) is shown
