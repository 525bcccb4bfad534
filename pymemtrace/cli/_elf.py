"""The memory of another process, and the objects that are loaded there: their symbols, and room.

Everything is read from the memory itself, not from files: it is right also for a file that was
replaced since, or that has another name where the process lives. What is read is not trusted: it
may be anything, and leads to a ValueError at worst.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

PAGE = 4096
ET_EXEC = 2
PT_LOAD, PT_DYNAMIC = 1, 2
PF_X = 1
DT_STRTAB, DT_SYMTAB, DT_GNU_HASH = 5, 6, 0x6FFFFEF5
NAME_MAX = 256
CHAIN_MAX = 1 << 16


class Memory:
    """/proc/PID/mem. The caller needs the right to trace the process."""

    def __init__(self, pid: int) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._fd)

    def read(self, address: int, size: int) -> bytes:
        try:
            found = os.pread(self._fd, size, address)
        except (OSError, OverflowError):
            found = b""
        if len(found) != size:
            raise ValueError(f"no memory at {address:#x}")
        return found

    def number(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self.read(address, size), "little")


@dataclass(frozen=True)
class Mapping:
    start: int
    end: int
    rights: str
    offset: int
    file: tuple[str, int]  # device, inode
    path: str

    @property
    def runs(self) -> bool:
        return "x" in self.rights


def mappings(pid: int) -> list[Mapping]:
    found = []
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            area, rights, offset, device, inode, *path = line.rstrip("\n").split(maxsplit=5)
            start, end = (int(number, 16) for number in area.split("-"))
            name = path[0] if path else ""
            found.append(Mapping(start, end, rights, int(offset, 16), (device, int(inode)), name))
    return found


@dataclass
class Object:
    """A loaded file."""

    memory: Memory
    path: str
    areas: list[Mapping] = field(default_factory=list)
    bias: int = 0  # of its addresses; known when the headers have been read

    @cached_property
    def headers(self) -> list[tuple[int, int, int, int]]:
        """Type, flags, address and size in memory of each segment."""
        head = self.memory.read(self.base, 64)
        if head[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit ELF object")
        (start,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        self.bias = 0 if head[16] == ET_EXEC else self.base
        result = []
        for number in range(min(count, 64)):
            raw = self.memory.read(self.base + start + number * size, 56)
            kind, flags, _, address, _, _, memory_size, _ = struct.unpack("<IIQQQQQQ", raw)
            result.append((kind, flags, self.bias + address, memory_size))
        return result

    @property
    def base(self) -> int:
        return self.areas[0].start

    @cached_property
    def dynamic(self) -> dict[int, int]:
        tags: dict[int, int] = {}
        for kind, _, address, size in self.headers:
            if kind == PT_DYNAMIC:
                raw = self.memory.read(address, min(size, 1 << 14) & ~15)
                for tag, value in struct.iter_unpack("<QQ", raw):
                    if tag == 0:
                        break
                    tags.setdefault(tag, value if value >= self.bias else value + self.bias)
        return tags

    def symbol(self, name: str) -> int | None:
        """The address of what the object defines under this name."""
        try:
            return self._symbol(name.encode())
        except (ValueError, KeyError, ZeroDivisionError):
            return None

    def _symbol(self, name: bytes) -> int | None:
        value = 5381
        for byte in name:
            value = (value * 33 + byte) & 0xFFFFFFFF
        table = self.dynamic[DT_GNU_HASH]
        buckets, first, bloom, _ = struct.unpack("<IIII", self.memory.read(table, 16))
        places = table + 16 + bloom * 8
        at = self.memory.number(places + value % buckets * 4, 4)
        chain = places + buckets * 4
        for number in range(at, at + CHAIN_MAX):
            if number < first:
                return None
            theirs = self.memory.number(chain + (number - first) * 4, 4)
            if theirs | 1 == value | 1:
                entry = self.memory.read(self.dynamic[DT_SYMTAB] + number * 24, 24)
                text, _, _, section, address, _ = struct.unpack("<IBBHQQ", entry)
                place = self.dynamic[DT_STRTAB] + text
                if section and self.memory.read(place, len(name) + 1) == name + b"\0":
                    return self.bias + int(address)
            if theirs & 1:
                return None
        return None

    def tails(self) -> Iterator[tuple[int, bytes]]:
        """Address and content of what is behind code up to the end of its page, which belongs to
        nothing."""
        try:
            headers = self.headers
        except ValueError:
            return
        for kind, flags, address, size in headers:
            end = address + size
            area = next((a for a in self.areas if a.start <= end < a.end), None)
            if kind == PT_LOAD and flags & PF_X and area is not None and area.runs:
                yield end, self.memory.read(end, -end % PAGE)


def objects(memory: Memory, areas: list[Mapping]) -> list[Object]:
    """The loaded files with code, in the order of their addresses."""
    found: dict[tuple[tuple[str, int], int], Object] = {}
    current: dict[tuple[str, int], Object] = {}
    for area in areas:
        if not area.file[1]:
            continue
        if area.offset == 0 and area.file not in current:
            current[area.file] = found[area.file, area.start] = Object(memory, area.path)
        if area.file in current:
            current[area.file].areas.append(area)
    return [it for it in found.values() if any(area.runs for area in it.areas)]
