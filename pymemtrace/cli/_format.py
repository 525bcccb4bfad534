"""Numbers, paths and foreign texts as people read them."""

import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

SURE = "sure"  # an interval of one number

UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def _unit(size_bytes: int) -> tuple[float, str]:
    """What a size is shown in: bytes of the unit, and its name."""
    unit_bytes = 1024.0
    for unit in UNITS[:-1]:
        if size_bytes / unit_bytes < 1023.95:
            return unit_bytes, unit
        unit_bytes *= 1024
    return unit_bytes, UNITS[-1]


def size(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} B"
    unit_bytes, unit = _unit(size_bytes)
    return f"{size_bytes / unit_bytes:,.1f} {unit}"


def count(number: int) -> str:
    return f"{number:,}"


def setting(size_bytes: int) -> str:
    """A size that somebody has chosen: 512 KiB."""
    return re.sub(r"\.0 ", " ", size(size_bytes))


def size_limits(values: Mapping[str, Any], key: str) -> str:
    """The 95 % interval of a size that is an estimate, in the unit of the size: "38.9-43.6"; else
    nothing."""
    low, high = values.get(key + "_low"), values.get(key + "_high")
    if low is None or high is None:
        return ""
    if low == high:
        return SURE
    if values[key] < 1024:
        return f"{low}-{high}"
    unit_bytes, _ = _unit(values[key])
    return f"{low / unit_bytes:,.1f}-{high / unit_bytes:,.1f}"


def count_limits(values: Mapping[str, Any], key: str) -> str:
    low, high = values.get(key + "_low"), values.get(key + "_high")
    if low is None or high is None:
        return ""
    return SURE if low == high else f"{low:,}-{high:,}"


def size_between(values: Mapping[str, Any], key: str) -> str:
    """The size, and of an estimate its limits: "41.2 MiB (38.9-43.6)"."""
    limits = size_limits(values, key)
    text = size(values[key])
    return f"{text} ({limits})" if limits and limits != SURE else text


def share(value: float) -> str:
    """0 to 1, in per cent."""
    if 0 < value < 0.0005:
        return "<0.1 %"
    if 0.9995 <= value < 1:
        return ">99.9 %"
    return f"{value * 100:.1f} %"


def part(value: int, whole: int) -> str:
    return share(value / whole) if whole else share(0.0)


def duration(seconds: float) -> str:
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02} h"


def clean(text: str) -> str:
    """A text from a capture, without what would control a terminal or reorder a line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else _escape(c)
        for c in text
    )


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def command(words: Iterable[str] | None, limit: int = 200) -> str:
    """A command line, its interpreter by its name only."""
    parts = list(words or ())
    if not parts:
        return "an unknown program"
    text = clean(shlex.join([os.path.basename(parts[0]), *parts[1:]]))
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Paths:
    """Short names for the files of one report, no two of them the same.

    A file in an installed package is named from the package on, one of the standard library from
    its folder's name on, one below the current directory relatively. Two files that would get the
    same name both keep their whole path.
    """

    def __init__(self, stdlib: str | None = None, cwd: str | None = None) -> None:
        self._stdlib = stdlib.rstrip("/") if stdlib else None
        try:
            self._cwd = os.getcwd() if cwd is None else cwd
        except OSError:
            self._cwd = "/"
        self._short: dict[str, str] = {}

    def learn(self, files: Iterable[str]) -> None:
        known = {*self._short, *files}
        short = {file: self._shorten(file) for file in known}
        uses = Counter(short.values())
        self._short = {file: name if uses[name] == 1 else file for file, name in short.items()}

    def learn_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The sites and stacks of an aggregate's rows."""
        files = set()
        for row in rows:
            files.add(row["site"]["file"])
            files.update(site["file"] for site in row["stack"])
        self.learn(files)

    def file(self, file: str) -> str:
        return clean(self._short.get(file, file))

    def place(self, site: Mapping[str, Any]) -> str:
        """file:line, or nothing for a frame that has none; of a native frame whose source is not
        known, the name of its library."""
        if not site["file"]:
            return ""
        if site["file"] == site.get("object"):
            return clean(site["module"])  # empty where the function is named by its place in it
        file = self.file(site["file"])
        return f"{file}:{site['line']}" if site["line"] else file

    def frame(self, site: Mapping[str, Any]) -> str:
        place = self.place(site)
        function = clean(site["function"])
        return f"{function} ({place})" if place else function

    def _shorten(self, file: str) -> str:
        if not file.startswith("/"):
            return file
        installed = re.match(r".*/(?:site|dist)-packages/(.+)", file, re.DOTALL)
        short = None
        if installed is not None:
            short = installed[1]
        elif self._stdlib and file.startswith(self._stdlib + "/"):
            short = os.path.basename(self._stdlib) + file[len(self._stdlib) :]
        if short is not None:
            # not if it reads as a file of the current directory
            return file if os.path.lexists(os.path.join(self._cwd, short)) else short
        below = self._cwd.rstrip("/") + "/"
        if file.startswith(below):
            return file[len(below) :]
        return file
