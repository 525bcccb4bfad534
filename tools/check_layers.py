"""Checks every #include of the C sources against the edges that src/LAYERS allows.

usage: check_layers.py [CHECKOUT]

Exit status: 0 when every include is allowed, 1 when one is not, 2 when src/LAYERS is unusable.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*(?P<mark>[<\"])(?P<path>[^>\"\n]+)[>\"]")
EXTENSION_ROOM = "ext"
EXTENSION_FOLDER = "pymemtrace/_ext"
PUBLIC_FOLDER = "include/pymemtrace"
PYTHON_RULE = "python.h"

# Python.h is the door, the others are rooms behind it that can be entered by themselves.
PYTHON_HEADERS = {"Python.h", "frameobject.h", "structmember.h", "pyconfig.h", "patchlevel.h"}
PYTHON_FOLDERS = ("cpython/", "internal/")

STANDARD_HEADERS = {
    "assert.h", "complex.h", "ctype.h", "errno.h", "fenv.h", "float.h", "inttypes.h", "iso646.h",
    "limits.h", "locale.h", "math.h", "setjmp.h", "signal.h", "stdalign.h", "stdarg.h",
    "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "stdnoreturn.h",
    "string.h", "tgmath.h", "threads.h", "time.h", "uchar.h", "wchar.h", "wctype.h",
}  # fmt: skip


class LayersError(Exception):
    """src/LAYERS itself is wrong: the checker cannot judge anything."""


@dataclass(frozen=True)
class Layers:
    """For each room the rooms that it may include, itself among them; and who may see Python.h."""

    allowed: dict[str, frozenset[str]]
    python_rooms: frozenset[str]


def parse_layers(text: str) -> Layers:
    direct: dict[str, list[str]] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        room, colon, names = line.partition(":")
        if not colon:
            raise LayersError(f"src/LAYERS:{number}: expected 'room: rooms it may include'")
        if room.strip() in direct:
            raise LayersError(f"src/LAYERS:{number}: '{room.strip()}' is declared twice")
        direct[room.strip()] = names.split()

    python_rooms = direct.pop(PYTHON_RULE, [])
    for rule, rooms in [*direct.items(), (PYTHON_RULE, python_rooms)]:
        for name in rooms:
            if name not in direct:
                raise LayersError(f"src/LAYERS: '{rule}' names the undeclared room '{name}'")

    def reach(room: str, way: tuple[str, ...]) -> frozenset[str]:
        if room in way:
            raise LayersError(f"src/LAYERS: a cycle: {' -> '.join([*way, room])}")
        found = {room}
        for name in direct[room]:
            found |= reach(name, (*way, room))
        return frozenset(found)

    return Layers({room: reach(room, ()) for room in direct}, frozenset(python_rooms))


def includes(source: Path) -> Iterator[tuple[int, str, str]]:
    """Yields (line number, '<' or '"', path) for each #include."""
    text = source.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if match := INCLUDE.match(line):
            yield number, match["mark"], match["path"]


def c_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".c", ".h") and p.is_file())


def is_python_header(path: str, mark: str) -> bool:
    # "cpython/x.h" in quotes is our own room of that name; <cpython/x.h> is the interpreter's.
    if path in PYTHON_HEADERS or path.startswith(("internal/", "pycore_")):
        return True
    return mark == "<" and path.startswith(PYTHON_FOLDERS)


def complaint(layers: Layers, room: str, source: Path, mark: str, path: str) -> str | None:
    """Says why this room may not include this path, or None when it may."""
    if is_python_header(path, mark):
        if room in layers.python_rooms:
            return None
        places = ", ".join(sorted(layers.python_rooms))
        return f"<{path}> belongs to Python, whose headers are for: {places}"
    head, slash, _ = path.partition("/")
    ours = head in layers.allowed or head == "pymemtrace"
    if mark == "<":
        return f'our own headers are included with quotes: "{path}"' if slash and ours else None
    if head == "pymemtrace" and slash:
        return None
    if not slash:
        if room == EXTENSION_ROOM and (source.parent / path).is_file():
            return None
        return f'"{path}" does not name its room: write "{room}/{path}"'
    if head not in layers.allowed:
        return f'"{path}" is in no room that src/LAYERS knows'
    if head not in layers.allowed[room]:
        may = ", ".join(sorted(layers.allowed[room] - {room})) or "no other room"
        return f"{room} may not include {head} (it may include {may})"
    return None


def public_complaint(mark: str, path: str) -> str | None:
    if mark == "<" and path in STANDARD_HEADERS:
        return None
    if mark == '"' and path.startswith("pymemtrace/"):
        return None
    return f'a public header includes the C standard library and "pymemtrace/..." only, not {path}'


def check(checkout: Path) -> list[str]:
    """Returns one line per include that is not allowed, and per folder that is no room."""
    layers = parse_layers((checkout / "src" / "LAYERS").read_text(encoding="utf-8"))
    problems: list[str] = []
    folders: list[tuple[str, Path]] = []
    for entry in sorted((checkout / "src").iterdir()):
        if entry.is_dir():
            if entry.name in layers.allowed and entry.name != EXTENSION_ROOM:
                folders.append((entry.name, entry))
            else:
                problems.append(f"src/{entry.name}: a folder that src/LAYERS does not know")
        elif entry.suffix in (".c", ".h"):
            problems.append(f"src/{entry.name}: a source file stands in a room, not in src itself")
    folders.append((EXTENSION_ROOM, checkout / EXTENSION_FOLDER))

    for room, folder in folders:
        for source in c_files(folder):
            where = source.relative_to(checkout)
            for number, mark, path in includes(source):
                if text := complaint(layers, room, source, mark, path):
                    problems.append(f"{where}:{number}: {text}")
    for source in c_files(checkout / PUBLIC_FOLDER):
        where = source.relative_to(checkout)
        for number, mark, path in includes(source):
            if text := public_complaint(mark, path):
                problems.append(f"{where}:{number}: {text}")
    return problems


def main(argv: list[str]) -> int:
    checkout = Path(argv[1]) if len(argv) > 1 else Path(__file__).resolve().parent.parent
    try:
        problems = check(checkout)
    except (LayersError, OSError) as error:
        print(f"check_layers: {error}", file=sys.stderr)
        return 2
    for line in problems:
        print(line)
    if problems:
        print(f"check_layers: {len(problems)} not allowed by src/LAYERS", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
