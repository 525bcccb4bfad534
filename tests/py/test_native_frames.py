"""Native frames: places in objects, symbols in the capture, what the reader makes of them."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import capture_builder as cb
from capture_builder import CaptureBuilder, Row

from pymemtrace import _core

S = 10**9
LIB = "/usr/lib/libthing.so.1"
PY = "/usr/bin/python3.11"
MAIN: cb.Frame = ("/app/app.py", "<module>", 10)
WORK: cb.Frame = ("/app/app.py", "work", 20)
SOURCE = "/src/thing.c"
INLINED = [("copy", "/src/inline.h", 3), ("grow", SOURCE, 40), ("thing_load", SOURCE, 50)]


class Stacks:
    """Builds stacks of Python frames and native places; every site has one block of 100 bytes."""

    def __init__(self, **facts: object) -> None:
        self.builder = CaptureBuilder(**facts)
        self._sites: list[int] = []

    def add(self, *frames: cb.Frame | tuple[str, int]) -> None:
        node = 0
        for frame in frames:
            if len(frame) == 2:
                node = self.builder.native(node, *frame)
            else:
                node = self.builder.python(node, *self.builder.line(*frame))
        self._sites.append(self.builder.site(node, 100))

    def end(self) -> CaptureBuilder:
        count = len(self._sites)
        rows = [Row(site, 0, 1, 0, peak=0) for site in self._sites]
        self.builder.cut(
            S,
            rows,
            live=(100 * count, count),
            allocations=count,
            allocated_bytes=100 * count,
            peak=(100 * count, count, S),
            flags=cb.PEAK_MOVED,
        )
        self.builder.end(S)
        return self.builder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pmt"


def one_place(**facts: object) -> CaptureBuilder:
    stacks = Stacks(**facts)
    stacks.add(MAIN, (PY, 0x100), WORK, (LIB, 0x1234))
    stacks.builder.object(LIB, b"\x01\x02\x03")
    return stacks.end()


def frames_of(reader: Any, **how: Any) -> list[list[tuple[Any, ...]]]:
    """Of each stack, the innermost first: (kind, function, file, line, module, object)."""
    rows = reader.aggregate("leaks", **how).stacks()
    return [
        [
            (site.get("kind"), site["function"], site["file"], site["line"], site["module"],
             site.get("object"))
            for site in row["stack"]
        ]
        for row in rows
    ]  # fmt: skip


def test_places_without_symbols(path: Path) -> None:
    reader = _core.Reader(str(one_place().write(path)))
    [[native, work, python, main]] = frames_of(reader)
    assert native == ("native", "libthing.so.1+0x1234", LIB, 0, "", LIB)
    assert python == ("native", "python3.11+0x100", PY, 0, "", PY)
    assert (work[1], main[1]) == ("work", "<module>")
    assert reader.unresolved() == [
        (PY.encode(), b"", [0x100]),
        (LIB.encode(), b"\x01\x02\x03", [0x1234]),
    ]


def test_a_place_becomes_the_frames_that_the_capture_has_for_it(path: Path) -> None:
    builder = one_place()
    builder.symbols({(LIB, 0x1234): INLINED, (PY, 0x100): [("PyEval", "", 0)], (LIB, 9): []})
    reader = _core.Reader(str(builder.write(path)))
    [[copy, grow, load, _, python, _]] = frames_of(reader)
    assert copy == ("inlined", "copy", "/src/inline.h", 3, "libthing.so.1", LIB)
    assert grow == ("inlined", "grow", SOURCE, 40, "libthing.so.1", LIB)
    assert load == ("native", "thing_load", SOURCE, 50, "libthing.so.1", LIB)
    assert python == ("native", "PyEval", PY, 0, "python3.11", PY)
    assert reader.unresolved() == []
    assert reader.aggregate("leaks").stacks()[0]["stack"][0]["symbol"] == "copy"


def test_what_was_looked_for_and_not_found_is_not_looked_for_again(path: Path) -> None:
    builder = one_place()
    builder.symbols({(LIB, 0x1234): [], (PY, 0x100): []})
    reader = _core.Reader(str(builder.write(path)))
    assert frames_of(reader)[0][0][1] == "libthing.so.1+0x1234"
    assert reader.unresolved() == []


def test_symbols_can_stand_anywhere_and_the_last_ones_count(path: Path) -> None:
    stacks = Stacks()
    stacks.builder.symbols({(LIB, 1): [("old", "", 0)], (LIB, 2): [("early", "", 0)]})
    stacks.add((LIB, 1))
    stacks.add((LIB, 2))
    stacks.add((LIB, 3))
    builder = stacks.end()
    builder.symbols({(LIB, 1): [("new", "", 0)]})
    builder.add_chunk(b"WHAT", b"of a later version", 2)
    reader = _core.Reader(str(builder.write(path)))
    assert {stack[0][1] for stack in frames_of(reader)} == {"new", "early", "libthing.so.1+0x3"}
    assert reader.info()["ended"] == "normal"
    assert reader.unresolved() == [(LIB.encode(), b"", [3])]
    # Something that must not be skipped is there: nothing is put behind it, or over it.
    assert reader.append_symbols(_core.encode_symbols([])) is False


def test_addresses_of_one_line_are_one_frame(path: Path) -> None:
    stacks = Stacks()
    for offset in (1, 2, 3):
        stacks.add(WORK, (LIB, offset))
    builder = stacks.end()
    builder.symbols({(LIB, 1): INLINED, (LIB, 2): INLINED, (LIB, 3): INLINED[1:]})
    reader = _core.Reader(str(builder.write(path)))
    rows = reader.aggregate("leaks").stacks()
    assert [(row["stack"][0]["function"], row["blocks"]) for row in rows] == [
        ("copy", 2),
        ("grow", 1),
    ]


def test_functions_of_one_header_in_two_libraries_are_two(path: Path) -> None:
    stacks = Stacks()
    stacks.add(("/lib/a.so", 1))
    stacks.add(("/lib/b.so", 1))
    stacks.add(("/other/a.so", 1))
    builder = stacks.end()
    frame = [("std::vector<int>::reserve", "/usr/include/vector", 5)]
    builder.symbols({(path_, 1): frame for path_ in ("/lib/a.so", "/lib/b.so", "/other/a.so")})
    reader = _core.Reader(str(builder.write(path)))
    assert [stack[0][4] for stack in frames_of(reader)] == ["a.so", "b.so"]


def test_symbols_are_given_beside_the_capture(path: Path) -> None:
    one_place().write(path)
    given = _core.encode_symbols([(LIB.encode(), 0x1234, [(b"f\xff", b"/x.c", 7)])])
    reader = _core.Reader(str(path), symbols=given)
    assert frames_of(reader)[0][0] == ("native", "f\ufffd", "/x.c", 7, "libthing.so.1", LIB)
    assert reader.unresolved() == [(PY.encode(), b"", [0x100])]
    assert len(_core.Reader(str(path), symbols=b"\0\0").unresolved()) == 2


def test_encoded_symbols_are_those_of_the_format() -> None:
    places = [
        (LIB.encode(), 0x1234, [tuple(map(encoded, frame)) for frame in INLINED]),
        (PY.encode(), 1 << 63, []),
    ]
    assert _core.encode_symbols(places) == cb.symbols_payload(
        {(LIB, 0x1234): INLINED, (PY, 1 << 63): []}
    )
    with pytest.raises(TypeError):
        _core.encode_symbols([("text", 1, [])])  # type: ignore[list-item]
    with pytest.raises((OverflowError, TypeError)):
        _core.encode_symbols([(b"", -1, [])])


def encoded(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def test_native_frames_of_the_interpreter_can_be_left_out(path: Path) -> None:
    stacks = Stacks(executable="/opt/my-python/bin/frozen-app")
    for number, path_ in enumerate(
        ("/opt/my-python/bin/frozen-app", "/lib/libpython3.13t.so.1.0", "/usr/bin/python3", PY)
    ):
        stacks.add(MAIN, (path_, 5), WORK, (LIB, 1), (path_, number))
    stacks.add(MAIN, WORK, ("/usr/lib/python3.11/x.so", 1), ("/usr/bin/pythonista", 2))
    reader = _core.Reader(str(stacks.end().write(path)), hide_interpreter=True)
    names = [[frame[1] for frame in stack] for stack in frames_of(reader)]
    assert names == [
        ["libthing.so.1+0x1", "work", "<module>"],
        ["pythonista+0x2", "x.so+0x1", "work", "<module>"],
    ]


# --- damaged symbols -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"", "cut short"),
        (b"\x01\x05ab", "should follow"),
        (cb.varint(1 << 40), "entries should follow"),
        (b"\0" + cb.varint(5), "entries should follow"),
        (b"\0\x01\x01\0\0", "reference to text 1 of 0"),
        (b"\0\x01\0\0\x02\0\0\0", "2 frames of a place should follow"),
        (b"\0\x01\0\0" + cb.varint(1025), "more than 1024"),
        (b"\0\x01\0\0\x01\0\0" + cb.varint(1 << 31), "line number"),
        (b"\0\0\0", "bytes behind its last entry"),
    ],
)
def test_damaged_symbols_are_named(payload: bytes, what: str, path: Path) -> None:
    builder = one_place()
    builder.add_chunk(b"SYMB", payload)
    with pytest.raises(_core.CaptureError, match=what):
        _core.Reader(str(builder.write(path)))
    with pytest.raises(_core.CaptureError, match=what):
        _core.Reader(str(one_place().write(path)), symbols=payload)


def test_half_a_chunk_behind_the_end_is_ignored(path: Path) -> None:
    builder = one_place()
    whole = len(builder.bytes())
    builder.symbols({(LIB, 0x1234): INLINED})
    data = builder.bytes()
    for size in range(whole, len(data) - 8, 7):
        path.write_bytes(data[:size])
        reader = _core.Reader(str(path))
        assert (reader.info()["torn"], reader.info()["damaged"]) == (None, None)
        assert frames_of(reader)[0][0][1] == "libthing.so.1+0x1234"


def test_damaged_objects_are_named(path: Path) -> None:
    stacks = Stacks()
    stacks.builder.object(LIB, bytes(65))
    with pytest.raises(_core.CaptureError, match="build id"):
        _core.Reader(str(stacks.end().write(path)))


# --- appending -----------------------------------------------------------------------------------

ANSWER = _core.encode_symbols([(LIB.encode(), 0x1234, [(b"found", b"", 0)])])


def function_of(path: Path) -> str:
    name = frames_of(_core.Reader(str(path)))[0][0][1]
    assert isinstance(name, str)
    return name


def test_symbols_are_appended(path: Path) -> None:
    before = one_place().write(path).read_bytes()
    assert _core.Reader(str(path)).append_symbols(ANSWER) is True
    assert function_of(path) == "found"
    assert path.read_bytes().startswith(before)
    # garbage behind the end, and what others have appended meanwhile
    with path.open("ab") as file:
        file.write(b"half a chunk")
    reader = _core.Reader(str(path))
    assert reader.append_symbols(ANSWER) is True
    later = _core.encode_symbols([(LIB.encode(), 0x1234, [(b"later", b"", 0)])])
    assert reader.append_symbols(later) is True
    assert function_of(path) == "later"
    assert b"half a chunk" not in path.read_bytes()


def test_many_symbols_are_compressed(path: Path) -> None:
    one_place().write(path)
    before = path.stat().st_size
    places = [(LIB.encode(), n, [(b"function", b"/src/file.c", n)]) for n in range(10000)]
    assert _core.Reader(str(path)).append_symbols(_core.encode_symbols(places))
    assert path.stat().st_size - before < 70_000
    assert function_of(path) == "function"


HERE = {
    "hostname": socket.gethostname(),
    "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
}


def without_end(path: Path, **facts: object) -> None:
    """As a program leaves it that was killed while it wrote a chunk."""
    builder = one_place(**facts)
    data = builder.bytes()
    end = len(builder.chunks.pop())
    path.write_bytes(data[: len(data) - end // 2])
    # the state slots say what was complete
    whole = builder.bytes()[: cb.HEADER_SIZE]
    path.write_bytes(whole + path.read_bytes()[cb.HEADER_SIZE :])


def process(state: str) -> dict[str, object]:
    """Facts of a process of this host."""
    pid = os.getpid()
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return {**HERE, "pid": pid, "start_ticks": ticks + (state == "gone")}


def test_the_torn_end_of_a_killed_program_is_replaced(path: Path) -> None:
    without_end(path, **process("gone"))
    reader = _core.Reader(str(path))
    assert reader.info()["ended"] == "killed"
    assert reader.info()["torn"]
    assert reader.append_symbols(ANSWER) is True
    assert function_of(path) == "found"
    info = _core.Reader(str(path)).info()
    assert (info["ended"], info["torn"], info["damaged"], info["cuts"]) == ("killed", None, None, 1)


@pytest.mark.parametrize("why", ["running", "other host", "no host", "damaged", "locked", "grown"])
def test_captures_that_may_still_be_written_stay_as_they_are(why: str, path: Path) -> None:
    facts = process("running" if why == "running" else "gone")
    if why == "other host":
        facts["hostname"] = "elsewhere"
    elif why == "no host":
        del facts["hostname"]
    without_end(path, **facts)
    if why == "damaged":
        data = bytearray(path.read_bytes())
        data[-40] ^= 1  # of the last whole chunk
        path.write_bytes(data[:-30])
    reader = _core.Reader(str(path))
    if why == "grown":
        builder = one_place(**facts)
        path.write_bytes(builder.bytes())
    before = path.read_bytes()
    with path.open("rb") as file:
        if why == "locked":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        assert reader.append_symbols(ANSWER) is False
    assert path.read_bytes() == before


def test_captures_that_cannot_be_written_stay_as_they_are(path: Path) -> None:
    one_place().write(path)
    reader = _core.Reader(str(path))
    before = path.read_bytes()
    path.unlink()
    assert reader.append_symbols(ANSWER) is False
    path.mkdir()
    assert reader.append_symbols(ANSWER) is False
    path.rmdir()
    path.write_bytes(before[:32] + bytes(16) + before[48:])  # another id, another checksum
    assert reader.append_symbols(ANSWER) is False


def test_nothing_is_left_of_an_append_that_fails(path: Path) -> None:
    one_place().write(path)
    before = path.read_bytes()
    code = f"""
import resource, signal, sys
from pymemtrace import _core
reader = _core.Reader({str(path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before)} + 20, {len(before)} + 20))
assert reader.append_symbols(sys.stdin.buffer.read()) is False
"""
    subprocess.run([sys.executable, "-c", code], input=ANSWER, check=True)
    assert path.read_bytes() == before
