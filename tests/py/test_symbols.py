"""Looking native functions up: from a capture with addresses to one with names."""

import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import native_objects as no
from test_native_frames import MAIN, WORK, Stacks, frames_of

import pymemtrace
from pymemtrace import _core, _symbols

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("objcopy") is None,
    reason="there are no gcc and binutils to build libraries with",
)

FUNCTIONS = ("outermost", "plain", "hidden", "_RNvNtCs1234_7mycrate3foo3bar")
NAMES = ["outermost", "plain", "hidden", "mycrate::foo::bar"]


@pytest.fixture(autouse=True)
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    monkeypatch.setenv(_symbols.FOLDERS_VARIABLE, "")


def record(
    path: Path, library: Path, *more: tuple[str, int], build_id: bytes | None = None
) -> Path:
    """A capture with a stack for each of the functions, and one for each of the further places."""
    stacks = Stacks()
    for function in FUNCTIONS:
        stacks.add(MAIN, WORK, (str(library), no.return_address(library, function)))
    for place in more:
        stacks.add(MAIN, place)
    if build_id is None:
        build_id = bytes.fromhex(no.build_id(library))
    stacks.builder.object(str(library), build_id)
    return stacks.end().write(path)


def outermost(reader: Any) -> list[str]:
    """Of each stack, the outermost native function."""
    return [
        [frame[1] for frame in stack if frame[0] == "native"][-1] for stack in frames_of(reader)
    ]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return no.build(tmp_path)


@pytest.fixture
def path(tmp_path: Path, library: Path) -> Path:
    return record(tmp_path / "a.pmt", library)


def test_names_are_looked_up_once_and_kept(path: Path, library: Path) -> None:
    calls: list[tuple[int, int]] = []
    result = _symbols.resolve(str(path), looking=lambda *done: calls.append(done))
    assert (result.places, result.named, result.stored, result.remarks) == (4, 4, True, [])
    assert calls == [(4, 4)]
    assert outermost(result.reader) == NAMES
    library.unlink()  # as on another machine
    again = _symbols.resolve(str(path))
    assert (again.places, again.named, again.stored) == (0, 0, False)
    assert frames_of(again.reader) == frames_of(result.reader)
    assert frames_of(again.reader)[0][:3] == [
        ("inlined", "innermost", str(library.parent / "thing.c"), no.INNERMOST_LINE,
         library.name, str(library)),
        ("inlined", "middle", str(library.parent / "thing.c"), no.MIDDLE_LINE,
         library.name, str(library)),
        ("native", "outermost", str(library.parent / "thing.c"), no.OUTERMOST_LINE,
         library.name, str(library)),
    ]  # fmt: skip


def test_open_looks_up(path: Path) -> None:
    rows = pymemtrace.open(path).stacks("leaks")
    assert rows[0]["stack"][0]["function"] == "innermost"
    assert _core.Reader(str(path)).unresolved() == []


def test_open_looks_up_at_the_end_of_the_interpreter(path: Path) -> None:
    code = f"""
import atexit, pymemtrace
atexit.register(lambda: print(pymemtrace.open({str(path)!r}).tree("leaks")["children"][0]["bytes"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("400\n", "")
    assert _core.Reader(str(path)).unresolved() == []


def test_a_capture_that_cannot_be_written_has_names_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    path.chmod(stat.S_IRUSR)
    if os.access(path, os.W_OK):  # root may
        monkeypatch.setattr(_core, "Reader", unwritable(_core.Reader))
    result = _symbols.resolve(str(path))
    assert (result.named, result.stored) == (4, False)
    assert outermost(result.reader) == NAMES
    assert path.read_bytes() == before


def unwritable(reader_type: Any) -> Any:
    class Unwritable:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._reader = reader_type(*args, **kwargs)

        def append_symbols(self, symbols: bytes) -> bool:
            return False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reader, name)

    return Unwritable


def test_another_build_is_not_used(tmp_path: Path, library: Path) -> None:
    path = record(tmp_path / "b.pmt", library, build_id=b"\x01" * 20)
    result = _symbols.resolve(str(path))
    assert (result.places, result.named, result.stored) == (4, 0, False)
    [remark] = result.remarks
    assert str(library) in remark
    assert "another build" in remark
    assert outermost(result.reader)[0].startswith("libthing.so+0x")
    # It is looked for again: perhaps the right one comes back.
    record(path, library)
    assert _symbols.resolve(str(path)).named == 4


def test_without_a_recorded_build_id_the_file_is_used(tmp_path: Path, library: Path) -> None:
    path = record(tmp_path / "b.pmt", library, build_id=b"")
    assert _symbols.resolve(str(path)).named == 4


def test_what_is_missing_does_not_keep_the_rest_back(tmp_path: Path, library: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no ELF" * 99)
    path = record(
        tmp_path / "b.pmt", library, ("[vdso]", 5), ("/no/such\nlib.so", 5), (str(text), 5),
        ("", 5), ("relative.so", 5), (str(library), 1 << 50),
    )  # fmt: skip
    result = _symbols.resolve(str(path))
    assert (result.places, result.named, result.stored) == (10, 4, True)
    assert [remark.split(": ")[1] for remark in result.remarks] == [
        "no such file.",
        "it is no ELF file of this machine.",
    ]
    # What was looked for in a file that is there is not looked for again, the rest is.
    left = [os.fsdecode(place[0]) for place in _core.Reader(str(path)).unresolved()]
    assert left == ["[vdso]", "/no/such\nlib.so", str(text), "", "relative.so"]


def test_debug_files_by_build_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = no.build(tmp_path)
    found = no.build_id(library)
    path = record(tmp_path / "b.pmt", library)
    debug = tmp_path / "debug" / ".build-id" / found[:2] / f"{found[2:]}.debug"
    debug.parent.mkdir(parents=True)
    no.split(library, debug)
    _symbols.resolve(str(path))
    assert "hidden" not in outermost(_core.Reader(str(path)))
    # The debug package is installed later.
    monkeypatch.setenv(_symbols.FOLDERS_VARIABLE, f"/nowhere:{tmp_path}/debug")
    assert _symbols.resolve(str(path)).places == 0
    assert _symbols.resolve(str(path), again=True).named == 4
    assert outermost(_core.Reader(str(path))) == NAMES


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_debug_files_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = no.build(tmp_path)
    path = record(tmp_path / "b.pmt", library)
    no.split(library, tmp_path / "downloaded")
    script(
        tmp_path / "bin" / "debuginfod-find",
        f'test "$1 $2" = "debuginfo {no.build_id(library)}" && echo {tmp_path}/downloaded',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert "hidden" not in outermost(_symbols.resolve(str(path)).reader)  # no server is set
    monkeypatch.setenv("DEBUGINFOD_URLS", "http://localhost:1")
    assert outermost(_symbols.resolve(str(path), again=True).reader) == NAMES


def test_a_slow_server_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = no.build(tmp_path)
    path = record(tmp_path / "b.pmt", library)
    no.run("strip", library)
    script(tmp_path / "bin" / "debuginfod-find", "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("DEBUGINFOD_URLS", "http://localhost:1")
    monkeypatch.setattr(_symbols, "DOWNLOAD_LIMIT_S", 0.2)
    assert _symbols.resolve(str(path)).named == 3


# --- a look-up that goes wrong -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill -SEGV $$", "exec sleep 60"])
def test_when_debug_information_is_too_much_there_are_symbols(
    how: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shlex.quote(_symbols.PROGRAM)
    script(tmp_path / "symbolize", f'case "$*" in *"--dwarf no"*) exec {real} "$@";; esac\n{how}')
    monkeypatch.setattr(_symbols, "PROGRAM", str(tmp_path / "symbolize"))
    monkeypatch.setattr(_symbols, "TIME_LIMIT_S", 3)
    result = _symbols.resolve(str(path))
    assert outermost(result.reader) == NAMES
    assert frames_of(result.reader)[0][0][:3] == (
        "native",
        "outermost",
        frames_of(result.reader)[0][0][5],
    )
    [remark] = result.remarks
    assert "the symbol table was used" in remark


@pytest.mark.parametrize(
    "how", ["kill -SEGV $$", "echo nonsense", "echo '{}'; echo '[1,2]'", "exit 0", "exit 3"]
)
def test_an_object_that_nobody_can_read_stays_without_names(
    how: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "symbolize", how)
    monkeypatch.setattr(_symbols, "PROGRAM", str(tmp_path / "symbolize"))
    result = _symbols.resolve(str(path))
    assert (result.named, result.stored, len(result.remarks)) == (0, False, 1)


def test_without_the_program_nothing_has_a_name(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_symbols, "PROGRAM", str(tmp_path / "missing"))
    assert "cannot start" in _symbols.resolve(str(path)).remarks[0]


# --- commands ------------------------------------------------------------------------------------

COMMAND = str(Path(sys.executable).parent / "pymemtrace")


def run(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, words)], capture_output=True, text=True, check=check, timeout=60
    )


def test_the_command_symbolize(path: Path, library: Path, tmp_path: Path) -> None:
    other = record(tmp_path / "other.pmt", library, build_id=b"\x01" * 20)
    done = run("symbolize", path, other)
    assert done.stdout.splitlines() == [
        f"{path}: 4 of 4 native places have a name now",
        f"{other}: 0 of 4 native places have a name now",
    ]
    assert "another build" in done.stderr
    assert run("symbolize", path).stdout == f"{path}: there is nothing to look up\n"
    assert "4 of 4" in run("symbolize", "--again", path).stdout
    assert run("symbolize", tmp_path / "none.pmt", check=False).returncode == 3


def test_a_report_looks_up_and_keeps(path: Path, library: Path) -> None:
    first = run("tree", "--leaks", path)
    assert first.stderr == ""
    assert "mycrate::foo::bar" in first.stdout
    library.unlink()
    assert run("tree", "--leaks", path).stdout == first.stdout


def test_a_report_says_what_it_could_not_look_up(tmp_path: Path, library: Path) -> None:
    places = [(f"/no/lib{number}.so", 1) for number in range(4)]
    path = record(tmp_path / "b.pmt", library, *places)
    done = run("table", path)
    notes = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: Functions of /no/lib0.so are not known: no such file.",
        "note: Functions of /no/lib1.so are not known: no such file.",
        "note: Nor are those of 2 other libraries (`pymemtrace symbolize` names them).",
    ]
