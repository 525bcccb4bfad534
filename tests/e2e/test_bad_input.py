"""What is no capture, or a damaged one: one line, exit status 3, no traceback."""

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import into_closed_pipe

COMMANDS = {
    "summary": (),
    "table": (),
    "tree": (),
    "stats": (),
    "flamegraph": ("-o", "out"),
    "export": ("--to", "csv", "-o", "out"),
}


def assert_refused(done: Any, *parts: str) -> None:
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("pymemtrace: ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_what_is_no_capture(command: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "x.pmt").write_text("hello, I am a text\n")
    done = command(name, *COMMANDS[name], "x.pmt", cwd=tmp_path)
    assert_refused(done, "not a capture", "x.pmt", "pymemtrace run")
    assert not (tmp_path / "out").exists()


def test_missing_file(command: Any, tmp_path: Path) -> None:
    assert_refused(command("table", "x.pmt", cwd=tmp_path), "No such file", "x.pmt")


def test_pattern_without_match(command: Any, tmp_path: Path) -> None:
    assert_refused(command("table", "*.pmt", cwd=tmp_path), "no file matches", "*.pmt")


def test_directory(command: Any, tmp_path: Path) -> None:
    assert_refused(command("table", ".", cwd=tmp_path), "Is a directory")


def test_empty_file(command: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pmt").touch()
    assert_refused(command("table", "--json", "x.pmt", cwd=tmp_path), "empty", "x.pmt")


def test_newer_version(command: Any, recorded: Any, tmp_path: Path) -> None:
    content = bytearray(recorded.capture.read_bytes())
    content[8:10] = struct.pack("<H", 9)
    (tmp_path / "x.pmt").write_bytes(content)
    done = command("table", "x.pmt", cwd=tmp_path)
    assert_refused(done, "version 9.0", "reads 1.x", "x.pmt", "newer")


@pytest.mark.parametrize("place", [30, 4096 + 60], ids=["header", "first chunk"])
def test_flipped_bit_before_any_figure(
    command: Any, recorded: Any, tmp_path: Path, place: int
) -> None:
    content = bytearray(recorded.capture.read_bytes())
    content[place] ^= 4
    (tmp_path / "x.pmt").write_bytes(content)
    assert_refused(command("table", "x.pmt", cwd=tmp_path), "checksum", "offset", "x.pmt")


def test_what_is_before_the_damage_is_shown(command: Any, recorded: Any, tmp_path: Path) -> None:
    content = recorded.capture.read_bytes()
    (tmp_path / "x.pmt").write_bytes(content[:-600])
    done = command("table", "--json", "x.pmt", cwd=tmp_path)
    assert done.returncode == 3
    result = json.loads(done.stdout)
    assert result["rows"][0]["site"]["line"] == recorded.peak_line
    assert "cut short" in result["captures"][0]["damaged"]
    assert done.stderr.count("\n") == 1
    assert "cut short" in done.stderr
    text = command("table", "x.pmt", cwd=tmp_path)
    assert text.returncode == 3
    assert "note: The capture is damaged" in text.stdout


@pytest.mark.parametrize("words", [(), ("--limit", "0", "x"), ("--limit", "many", "x")])
def test_bad_usage(command: Any, words: tuple[str, ...]) -> None:
    done = command("table", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize("words", [["table"], ["table", "--json"], ["tree"]])
def test_a_reader_that_stops_early_hides_no_damage(
    words: list[str], recorded: Any, tmp_path: Path
) -> None:
    data = bytearray(recorded.capture.read_bytes())
    data[-20] ^= 0xFF
    damaged = tmp_path / "damaged.pmt"
    damaged.write_bytes(data)
    status, err = into_closed_pipe([sys.executable, "-m", "pymemtrace", *words, damaged])
    assert status == 3
    assert err.startswith("pymemtrace: the capture is damaged: ")
    assert err.count("\n") == 1
