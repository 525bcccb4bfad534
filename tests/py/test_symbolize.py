"""The program pymemtrace-symbolize: an object and addresses in, functions and lines out."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import native_objects as no

import pymemtrace

PROGRAM = Path(pymemtrace.__file__).parent / "pymemtrace-symbolize"

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("objcopy") is None,
    reason="there are no gcc and binutils to build libraries with",
)


def ask(path: Path, *addresses: int, **options: object) -> tuple[dict[str, Any], list[Any]]:
    """What it says of the object, and the frames of each address."""
    words = [str(PROGRAM)]
    options.setdefault("debug_folders", "")
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    lines = "".join(f"{address:x}\n" for address in addresses)
    done = subprocess.run(
        [*words, str(path)], input=lines.encode(), capture_output=True, timeout=60, check=False
    )
    assert done.stderr == b""
    head, *rest = map(json.loads, done.stdout.decode().splitlines())
    assert done.returncode == (1 if "error" in head else 0)
    assert [address for address, _ in rest] == ([] if "error" in head else list(addresses))
    return head, [[tuple(frame) for frame in frames] for _, frames in rest]


def names(path: Path, *functions: str, of: Path | None = None, **options: object) -> list[str]:
    """The outermost functions that it finds for these."""
    addresses = [no.return_address(of or path, function) for function in functions]
    _, found = ask(path, *addresses, **options)
    return [frames[-1][0] if frames else "" for frames in found]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return no.build(tmp_path)


def inlined(source: Path) -> list[tuple[str, str, int]]:
    return [
        ("innermost", str(source), no.INNERMOST_LINE),
        ("middle", str(source), no.MIDDLE_LINE),
        ("outermost", str(source), no.OUTERMOST_LINE),
    ]


@pytest.mark.parametrize("kind", ["library", "pie", "fixed"])
def test_inlined_functions_of_every_type_of_file(kind: str, tmp_path: Path) -> None:
    if kind == "library":
        path = no.build(tmp_path)
    else:
        path = no.build_program(tmp_path, "-pie" if kind == "pie" else "-no-pie")
    head, [frames] = ask(path, no.return_address(path, "outermost"))
    assert frames == inlined(tmp_path / "thing.c")
    assert head == {"build_id": no.build_id(path), "has_dwarf": True, "debug_file": None}


def test_names_are_demangled(library: Path) -> None:
    functions = no.functions(library)
    mangled = [name for name in functions if name.startswith(("_ZN", "_RN"))]
    assert sorted(names(library, *mangled)) == [
        "core::fmt::Write::write_fmt",
        "mycrate::foo::bar",
        "shop::Cache<int>::load(unsigned int, shop::Key const&)",
    ]


def test_public_names_are_preferred(library: Path) -> None:
    assert names(library, "__GI___libc_thing") == ["thing"]


def test_a_stripped_library_has_its_dynamic_symbols(library: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped.so"
    no.run("strip", "-o", stripped, library)
    address = no.return_address(library, "outermost")
    head, [frames] = ask(stripped, address)
    assert head["has_dwarf"] is False
    assert frames == [("outermost", "", 0)]
    assert names(stripped, "hidden", "plain", of=library) == ["", "plain"]
    mangled = "_RNvNtCs1234_7mycrate3foo3bar"
    assert names(stripped, mangled, of=library) == ["mycrate::foo::bar"]


def test_without_debug_information_there_are_static_functions(tmp_path: Path) -> None:
    library = no.build(tmp_path, "-g0")
    assert names(library, "hidden", "plain") == ["hidden", "plain"]


@pytest.mark.parametrize("place", ["beside", ".debug", "folder", "build-id"])
@pytest.mark.parametrize("with_id", [True, False])
def test_separate_debug_files(place: str, with_id: bool, tmp_path: Path) -> None:
    library = no.build(tmp_path, "-Wl,--build-id" if with_id else "-Wl,--build-id=none")
    address = no.return_address(library, "outermost")
    folder = tmp_path / "all debug files"
    if place == "build-id":
        if not with_id:
            return
        found = no.build_id(library)
        debug = folder / ".build-id" / found[:2] / f"{found[2:]}.debug"
    else:
        where = {"beside": tmp_path, ".debug": tmp_path / ".debug"}
        debug = where.get(place, Path(f"{folder}{tmp_path}")) / "libthing.debug"
    debug.parent.mkdir(parents=True, exist_ok=True)
    no.split(library, debug)
    if place != "build-id":
        no.add_link(library, debug)
    head, [frames] = ask(library, address, debug_folders=f"/nowhere:{folder}")
    assert frames == inlined(tmp_path / "thing.c")
    assert head["debug_file"] == str(debug)


def test_a_debug_file_of_another_build_is_not_used(tmp_path: Path) -> None:
    library = no.build(tmp_path)
    other = no.build(tmp_path, "-DOTHER", "-O1", name="other.so")
    address = no.return_address(library, "outermost")
    no.split(library, tmp_path / "right.debug")
    no.split(other, tmp_path / "wrong.debug")
    no.add_link(library, tmp_path / "wrong.debug")
    head, [frames] = ask(library, address)
    assert (head["debug_file"], frames) == (None, [("outermost", "", 0)])
    head, [frames] = ask(library, address, debug_file=tmp_path / "wrong.debug")
    assert (head["debug_file"], frames) == (None, [("outermost", "", 0)])
    head, [frames] = ask(library, address, debug_file=tmp_path / "right.debug")
    assert frames == inlined(tmp_path / "thing.c")


def test_the_build_id_must_be_the_recorded_one(library: Path) -> None:
    address = no.return_address(library, "outermost")
    _, [frames] = ask(library, address, build_id=no.build_id(library))
    assert len(frames) == 3
    head, frames = ask(library, address, build_id="00" * 20)
    assert "another build" in head["error"]
    assert frames == []


def test_what_is_no_object_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no ELF at all " * 99)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "missing": "no such file",
        "text": "no ELF file",
        "empty": "no ELF file",
        "pipe": "no regular file",
    }.items():
        assert words in ask(tmp_path / name, 0x1000)[0]["error"]
    assert "no regular file" in ask(tmp_path, 0x1000)[0]["error"]


def test_dwarf_can_be_left_out(library: Path) -> None:
    head, [frames] = ask(library, no.return_address(library, "outermost"), dwarf="no")
    assert head["has_dwarf"] is False
    assert frames == [("outermost", "", 0)]


def test_addresses_outside_of_the_object_are_nothing(library: Path) -> None:
    _, found = ask(library, 0, 1, 1 << 40, (1 << 64) - 1)
    assert found == [[], [], [], []]


def test_paths_may_hold_any_byte(tmp_path: Path) -> None:
    folder = tmp_path / "a\nb \"\udcff' c"
    folder.mkdir()
    library = no.build(folder)
    stripped = folder / "x y.so"
    no.run("objcopy", "--only-keep-debug", library, folder / "d\t.debug")
    no.run("strip", "-o", stripped, library)
    head, [frames] = ask(
        stripped, no.return_address(library, "outermost"), debug_file=folder / "d\t.debug"
    )
    assert head["debug_file"] == str(folder / "d\t.debug")
    assert frames == inlined(folder / "thing.c")


def test_files_that_are_cut_short(library: Path, tmp_path: Path) -> None:
    data = library.read_bytes()
    cut = tmp_path / "cut.so"
    address = no.return_address(library, "outermost")
    for size in range(0, len(data), len(data) // 23):
        cut.write_bytes(data[:size])
        _, frames = ask(cut, address)
        assert frames in ([], [[]], [[("outermost", "", 0)]], [inlined(tmp_path / "thing.c")])


def section(path: Path, name: str) -> tuple[int, int]:
    for line in no.run("readelf", "-SW", path).splitlines():
        words = line.partition("]")[2].split()
        if words[:1] == [name]:
            return int(words[3], 16), int(words[4], 16)
    raise AssertionError(name)


def test_garbage_in_place_of_debug_information(library: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    data = library.read_bytes()
    address = no.return_address(library, "outermost")
    bad = tmp_path / "bad.so"
    for name in (".debug_info", ".debug_abbrev", ".debug_line", ".debug_str"):
        offset, size = section(library, name)
        for everything in (True, False):
            content = bytearray(data)
            for at in range(offset, offset + size):
                if everything or rng.random() < 0.02:
                    content[at] = rng.randrange(256)
            bad.write_bytes(content)
            _, [frames] = ask(bad, address)
            # libbacktrace gives up or knows less; the symbol table is as it was
            assert frames[-1][0] != ""
            if everything and name == ".debug_info":
                assert frames == [("outermost", "", 0)]


def test_damaged_headers_and_tables(library: Path, tmp_path: Path) -> None:
    """libbacktrace crashes on some; then there is our own reader."""
    rng = random.Random(8)
    data = library.read_bytes()
    addresses = [no.return_address(library, name) for name in ("outermost", "plain")]
    bad = tmp_path / "bad.so"
    for round in range(60):
        content = bytearray(data)
        end = 4096 if round % 2 else len(data)
        for _ in range(rng.randrange(1, 30)):
            content[rng.randrange(16, end)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        bad.write_bytes(content)
        ask(bad, *addresses, dwarf="no")


def test_usage() -> None:
    for words in ([], ["relative.so"], ["--what", "x", "/lib.so"], ["/a", "/b"]):
        done = subprocess.run([PROGRAM, *words], input=b"", capture_output=True, check=False)
        assert done.returncode == 2
        assert b"usage" in done.stderr
