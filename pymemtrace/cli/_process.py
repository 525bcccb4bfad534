"""Processes that run: what a word of the command line may name instead of a capture."""

import os

import pymemtrace
from pymemtrace import _core


def is_pid(word: str) -> bool:
    return word.isascii() and word.isdigit() and not os.path.lexists(word)


def capture_of(pid: int) -> str | None:
    """The capture that this process is writing: one of its open files. A path below /proc if the
    file has no name any more."""
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return None  # what is wrong is said by who reads its areas
    for descriptor in sorted(descriptors, key=int, reverse=True):  # the recorder's are high
        link = f"{folder}/{descriptor}"
        try:
            if not os.path.isfile(link):
                continue
            info = _core.Reader(link).info()
            if info["pid"] != pid or info["ended"] != "running":  # one that it reads
                continue
            path = os.readlink(link)
            return path if os.path.exists(path) and os.path.samefile(path, link) else link
        except (OSError, pymemtrace.PymemtraceError):
            continue
    return None


def command_of(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(65536).split(b"\0")
    except OSError:
        return []
    return [word.decode(errors="surrogateescape") for word in words if word]
