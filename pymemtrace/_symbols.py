"""Native frames get names: places in executables and libraries become functions and lines.

A capture holds addresses only. On the machine of the recording, where the libraries are, the
program pymemtrace-symbolize (src/symbolize) looks them up, one process for each object, and what it
finds is appended to the capture: from then on it is read anywhere.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pymemtrace import _core

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pymemtrace-symbolize")

# Where there are debug files by build id or path, separated by colons.
FOLDERS_VARIABLE = "PYMEMTRACE_DEBUG_FOLDERS"
DEFAULT_FOLDERS = "/usr/lib/debug"

TIME_LIMIT_S = 60.0  # for one object
DOWNLOAD_LIMIT_S = 20.0  # for its debug file
DOWNLOADS_LIMIT_S = 60.0  # for all of them
WORKERS = 4
FRAMES_MAX = 1024  # of one place, as the format has it

Progress = Callable[[int, int], None]
Frame = tuple[bytes, bytes, int]  # function, file, line
Job = tuple[bytes, bytes, list[int]]  # object, build id, offsets
Place = tuple[bytes, int, list[Frame]]  # object, offset, the innermost frame first


@dataclass
class Resolved:
    """A capture, and what became of its native frames."""

    reader: _core.Reader
    places: int = 0  # that had no symbols
    named: int = 0  # of these
    stored: bool = False  # is what was found in the capture now
    remarks: list[str] = field(default_factory=list)  # what could not be looked up, and why


def resolve(
    path: str,
    *,
    reader: _core.Reader | None = None,
    progress: Progress | None = None,
    looking: Progress | None = None,
    again: bool = False,
    hide_interpreter: bool = False,
) -> Resolved:
    """Opens a capture and looks up what native places it has without symbols.

    What is found is appended to the capture, if it can be written and its process has ended; it is
    used in any case. reader: the capture, if it is open already. progress, hide_interpreter: as of
    Reader. looking: called with the number of places that were looked up and that of all. again:
    look up also what is known.

    Raises what Reader raises. Nothing that goes wrong with a look-up is an error.
    """
    if reader is None:
        reader = _core.Reader(
            path, progress=progress, ignore_symbols=again, hide_interpreter=hide_interpreter
        )
    unresolved = reader.unresolved()
    if not unresolved:
        return Resolved(reader)
    search = _Search(looking, sum(len(offsets) for _, _, offsets in unresolved))
    found = search.run(unresolved)
    result = Resolved(reader, search.total, remarks=search.remarks)
    result.named = sum(bool(frames) for _, _, frames in found)
    if not found:
        return result
    symbols = _core.encode_symbols(found)
    result.stored = reader.append_symbols(symbols)
    result.reader = _core.Reader(
        path,
        progress=progress,
        symbols=symbols,
        ignore_symbols=again,
        hide_interpreter=hide_interpreter,
    )
    return result


def look_up(unresolved: Iterable[Job]) -> list[Place]:
    """What Reader.unresolved() gives, for encode_symbols()."""
    return _Search(None, 0).run(unresolved)


class _Search:
    """The look-ups of one capture."""

    def __init__(self, looking: Progress | None, total: int) -> None:
        self.total = total
        self.remarks: list[str] = []
        self._looking = looking
        self._downloads_end = time.monotonic() + DOWNLOADS_LIMIT_S
        self._environment = {
            name: value for name, value in os.environ.items() if name != "LD_PRELOAD"
        }

    def run(self, unresolved: Iterable[Job]) -> list[Place]:
        """The places of all objects that are there; without frames, where nothing is known."""
        found: list[Place] = []
        remarks: dict[bytes, str] = {}
        done = 0
        for (path, _, offsets), (places, remark) in self._answers(list(unresolved)):
            found += places
            if remark is not None:
                remarks[path] = remark
            done += len(offsets)
            if self._looking is not None:
                self._looking(done, self.total)
        self.remarks += [
            f"Functions of {os.fsdecode(path)} are not known: {remark}."
            for path, remark in sorted(remarks.items())
        ]
        return sorted(found, key=lambda place: place[:2])

    def _answers(self, jobs: list[Job]) -> Iterator[tuple[Job, tuple[list[Place], str | None]]]:
        """What _object says of each, several at a time, in the order in which they are done."""
        from concurrent.futures import ThreadPoolExecutor, as_completed

        # The largest first: it may take as long as all others together.
        jobs.sort(key=lambda job: -len(job[2]))
        with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
            try:
                futures = {pool.submit(self._object, *job): job for job in jobs}
            except RuntimeError:  # at the end of the interpreter there are no more threads
                futures = {}
            for future in as_completed(futures):
                yield futures[future], future.result()
        if not futures:
            for job in jobs:
                yield job, self._object(*job)

    def _object(
        self, recorded: bytes, build_id: bytes, offsets: list[int]
    ) -> tuple[list[Place], str | None]:
        """The places of one object, and why none of them, or not all that is possible, is known."""
        path = _path_of(recorded)
        if not path.startswith(b"/"):
            return [], None  # [vdso] and other things that are no files
        answer = self._ask(path, build_id, offsets)
        if answer.error is not None:
            return [], answer.error
        if not answer.head.get("has_dwarf") and answer.remark is None:
            debug_file = self._download(answer.head.get("build_id", ""))
            if debug_file is not None:
                better = self._ask(path, build_id, offsets, "--debug-file", debug_file)
                answer = answer if better.error is not None else better
        return [(recorded, *place) for place in answer.places], answer.remark

    def _ask(self, path: bytes, build_id: bytes, offsets: list[int], *options: str) -> "_Answer":
        words = ["--debug-folders", os.environ.get(FOLDERS_VARIABLE, DEFAULT_FOLDERS), *options]
        if build_id:
            words += ["--build-id", build_id.hex()]
        lines = "".join(f"{offset:x}\n" for offset in offsets).encode()
        answer = self._run(words, path, lines)
        if answer.error is None or not answer.failed:
            return answer
        # The debug information is bad. The symbol tables are read by another reader.
        why = answer.error
        answer = self._run([*words, "--dwarf", "no"], path, lines)
        if answer.error is None:
            answer.remark = f"{why}; the symbol table was used"
        return answer

    def _run(self, words: list[str], path: bytes, lines: bytes) -> "_Answer":
        try:
            done = subprocess.run(
                [PROGRAM, *words, path],
                input=lines,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                timeout=TIME_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _Answer(
                error=f"looking them up took longer than {TIME_LIMIT_S:g} s", failed=True
            )
        except OSError as error:
            return _Answer(error=f"cannot start {PROGRAM} ({error.strerror})")
        if done.returncode not in (0, 1):
            text = "its debug information is damaged, or more than there is memory for"
            return _Answer(error=text, failed=True)
        try:
            return _Answer.of(done.stdout)
        except (ValueError, TypeError, KeyError, IndexError):
            return _Answer(error=f"{PROGRAM} is of another version")

    def _download(self, build_id: str) -> str | None:
        """The debug file from a server, where debuginfod is set up."""
        finder = shutil.which("debuginfod-find")
        left = min(self._downloads_end - time.monotonic(), DOWNLOAD_LIMIT_S)
        if not build_id or finder is None or not os.environ.get("DEBUGINFOD_URLS") or left <= 0:
            return None
        try:
            done = subprocess.run(
                [finder, "debuginfo", build_id],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._downloads_end = 0.0  # the others would take as long
            return None
        except OSError:
            return None
        path = os.fsdecode(done.stdout.strip())
        return path if done.returncode == 0 and path.startswith("/") else None


@dataclass
class _Answer:
    """What pymemtrace-symbolize said of an object."""

    head: Mapping[str, Any] = field(default_factory=dict)
    places: list[tuple[int, list[Frame]]] = field(default_factory=list)
    error: str | None = None
    failed: bool = False  # it crashed or took too long
    remark: str | None = None

    @classmethod
    def of(cls, output: bytes) -> "_Answer":
        head, *lines = output.splitlines()
        answer = cls(json.loads(head))
        if "error" in answer.head:
            answer.error = str(answer.head["error"])
        for offset, frames in json.loads(b"[%b]" % b",".join(lines)):
            answer.places.append(
                (
                    int(offset),
                    [
                        (_bytes_of(function), _bytes_of(file), int(line))
                        for function, file, line in frames[:FRAMES_MAX]
                    ],
                )
            )
        return answer


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _path_of(recorded: bytes) -> bytes:
    """The path of a file, as the system has it: a capture may have its odd bytes as surrogates."""
    try:
        return recorded.decode("utf-8", "surrogatepass").encode("utf-8", "surrogateescape")
    except UnicodeError:
        return recorded
