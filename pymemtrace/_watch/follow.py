"""The captures that are watched: they grow, come, end, are replaced or damaged.

A capture's text is hostile, and so is its file: whatever it does is one line in the log, and the
next look tries again. A process is named by its boot, id and start, which no other process ever
has; the time is that of the monotonic clock, in captures as here, so a clock that is set changes
nothing.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pymemtrace
from pymemtrace._core import Reader
from pymemtrace._watch import figures as figures_of
from pymemtrace._watch import host
from pymemtrace._watch.figures import Figures
from pymemtrace.cli import _format

MAX_PROCESSES = 64
MAX_ENTRIES = 10_000  # of a directory
RECENT_S = 900.0  # a file that has not changed for so long is not opened before it does
QUIET_S = 600.0  # between two lines about one file
# so long after its last growth, a capture whose process is not here counts as ended
SILENT_S = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Death:
    """A recorded process has ended without closing its capture."""

    figures: Figures
    status: str  # "killed by SIGKILL", or nothing if nobody was told
    oom_kills: int  # that its cgroup counted while it was watched


def identity(info: dict[str, Any], facts: dict[str, Any]) -> str:
    names = ("boot_id", "pid", "start_ticks", "exec_generation")
    return ":".join(str(facts.get(name, "")) for name in names) + f":{info['started']}"


class Followed:
    """One capture. `refresh` never raises; `problem` says what is wrong with it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reader: Reader | None = None
        self.info: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self.key = ""  # of the process; none has been seen yet
        self.problem = ""
        self.looks = 0  # that found nothing to read
        self.was_running = False
        self.last: Figures | None = None
        self.lost: tuple[Figures, str | None] | None = None  # the process before, and its end
        self._opened_at = 0.0
        self._grew_at: float | None = None  # while it was watched
        self._read_last: Figures | None = None
        self._asked: tuple[int, tuple[str, ...]] | None = None
        self._oom_kills: float | None = None  # of the cgroup when first looked at
        self._fd = -1

    def refresh(self) -> None:
        self.lost = None
        if self.reader is not None:
            try:
                grown = self.reader.refresh()
                self.info = self.reader.info()
                self._note(grown)
                return
            except (OSError, pymemtrace.PymemtraceError):
                self.reader = None  # a shorter file in its place, or another one: anew
        self._open()

    def _open(self) -> None:
        try:
            reader = Reader(self.path, follow=True)
            info, facts = reader.info(), reader.proc()
        except (OSError, pymemtrace.PymemtraceError) as error:
            self.problem = problem_of(self.path, error)
            self.looks += 1
            return
        key = identity(info, facts)
        before = self.key
        grown = before == key and info["duration_s"] > self.info["duration_s"]
        if before and before != key:
            if self.was_running and self.last is not None:
                self.lost = (self.last, self.end_of_kept())
            self.was_running, self.last, self._oom_kills = False, None, None
        self.reader, self.info, self.facts, self.key = reader, info, facts, key
        self.looks = 0
        self._keep_file()
        self._read_last = None
        if before != key:
            self._opened_at, self._grew_at = time.monotonic(), None
        self._note(grown)

    def _note(self, grown: bool) -> None:
        if grown:
            self._grew_at = time.monotonic()
            self._read_last = None
        self.was_running = self.was_running or self.info["ended"] == "running"
        damaged = self.info["damaged"]
        self.problem = f"damaged: {_format.clean(damaged)[:300]}" if damaged else ""

    def _keep_file(self) -> None:
        """Open, so that its end can be read after another one has taken its name."""
        self.close()
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self._fd = -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def end_of_kept(self) -> str | None:
        """How the process ended whose file is no longer in its place; None: nobody can tell."""
        if self._fd < 0:
            return None
        try:
            reader = Reader(f"/proc/self/fd/{self._fd}")
            info, facts = reader.info(), reader.proc()
        except (OSError, pymemtrace.PymemtraceError):
            return None
        return str(info["ended"]) if identity(info, facts) == self.key else None

    @property
    def is_alive(self) -> bool:
        """Also where nothing can be read at the moment."""
        if self.reader is not None:
            return bool(self.info["ended"] == "running")
        return self.was_running and (
            host.start_ticks(self.info["pid"]) == self.facts.get("start_ticks")
        )

    @property
    def is_elsewhere(self) -> bool:
        """It grows, but its process cannot be seen from here, as from another container."""
        return (
            self.reader is not None
            and not self.was_running
            and self.info["ended"] == "killed"
            and self._grew_at is not None
            and time.monotonic() - self._grew_at < SILENT_S
        )

    @property
    def may_be_elsewhere(self) -> bool:
        """It has no end, and was opened so lately that it may still grow."""
        return (
            self.reader is not None
            and not self.was_running
            and self.info["ended"] == "killed"
            and time.monotonic() - self._opened_at < SILENT_S
            and is_recent(self.path, SILENT_S)
        )

    def figures(self, top: int = 10, patterns: Sequence[str] = ()) -> Figures | None:
        """What it says now, or said last; None: nothing yet."""
        if self.reader is None:
            return self._stale()
        try:
            new = self._read(self.reader, top, tuple(patterns))
        except (OSError, pymemtrace.PymemtraceError, ValueError, MemoryError) as error:
            self.problem = problem_of(self.path, error)
            return self.last
        if self.is_alive:
            figures_of.add_system(new, host.of_process(new.pid))
            new.shared = host.cgroup_of(new.pid)
            # the wall clock, which age_s goes by, may have been set
            new.values["age_s"] = figures_of.Value(max(0.0, time.monotonic() - new.t_s))
        elif self.is_elsewhere and self._grew_at is not None:
            new.values["age_s"] = figures_of.Value(time.monotonic() - self._grew_at)
        elif self.last is not None:  # what the system said of it when it was alive
            new.shared = self.last.shared
            new.values = {**self.last.values, **new.values}
        figures_of.derive(new)
        if self._oom_kills is None:
            self._oom_kills = new.number("cgroup_oom_kills")
        self.last = new
        return new

    def _read(self, reader: Reader, top: int, patterns: tuple[str, ...]) -> Figures:
        """What the capture says; while it stays as it is, what it said."""
        asked = (top, patterns)
        if self._read_last is None or self._asked != asked:
            self._asked = asked
            self._read_last = figures_of.of_reader(
                reader, self.info, self.facts, self.key, top=top, patterns=patterns
            )
        known = self._read_last
        return replace(known, ended=self.info["ended"], info=self.info, values=dict(known.values))

    def _stale(self) -> Figures | None:
        """The last ones, with the age that they have now."""
        if self.last is None:
            return None
        age = figures_of.Value(max(0.0, time.monotonic() - self.last.t_s))
        return replace(self.last, values={**self.last.values, "age_s": age})

    def oom_kills(self) -> int:
        """That its cgroup has counted since it is watched."""
        if self.last is None or not self.last.shared or self._oom_kills is None:
            return 0
        kills = host.of_cgroup(self.last.shared).get("cgroup_oom_kills", 0)
        return max(0, int(kills - self._oom_kills))


def problem_of(path: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot read it ({error.strerror or error})"
    return _format.clean(str(error).removeprefix(f"{path}: "))[:300]


class Targets:
    """What is watched. paths: captures, whose children's captures are watched as well; folders: all
    captures in them. keep_ended: also captures that have ended, if their paths were given. own_pid:
    a process that counts as seen alive, even if it has ended before the first look; status_of: how
    a process ended, if somebody was told."""

    def __init__(
        self,
        paths: Sequence[str],
        folders: Sequence[str],
        say: Say,
        *,
        keep_ended: bool = False,
        own_pid: int = 0,
        status_of: Callable[[int], str] = lambda pid: "",
        limit: int = MAX_PROCESSES,
    ) -> None:
        self._paths = list(paths)
        self._folders = list(folders)
        self._say = say
        self._keep_ended = keep_ended
        self._own_pid = own_pid
        self._status_of = status_of
        self._limit = limit
        self._followed: dict[str, Followed] = {}
        self._done: dict[str, tuple[int, ...]] = {}  # files that have ended, as they were then
        self._problems: dict[str, tuple[bool, float]] = {}  # whether it is wrong, when it was said
        self._full = False
        self._first = True
        self.deaths: list[Death] = []
        self.ended: list[Figures] = []

    def refresh(self) -> list[Followed]:
        """Those that run. Before a process goes, `ended` has its last figures."""
        self.deaths, self.ended = [], []
        for path in self._candidates():
            self._add(path)
        for path, followed in list(self._followed.items()):
            self._look(path, followed)
        self._first = False
        return [
            one
            for one in self._followed.values()
            if one.is_alive or one.is_elsewhere or (one.key and self._keeps(one.path))
        ]

    def _keeps(self, path: str) -> bool:
        return self._keep_ended and path in self._paths

    @property
    def running(self) -> int:
        return sum(one.is_alive or one.is_elsewhere for one in self._followed.values())

    def close(self) -> None:
        for followed in self._followed.values():
            followed.close()

    # --- what comes ---

    def _candidates(self) -> Iterator[str]:
        from pymemtrace.cli._live.watch import base_of, children_of

        for path in self._paths:
            yield path
            if path.startswith("/proc/"):
                continue
            yield from children_of(base_of(path))
        for folder in self._folders:
            try:
                with os.scandir(folder) as entries:
                    for number, entry in enumerate(entries):
                        if number >= MAX_ENTRIES:
                            break
                        if entry.name.endswith(".pmt"):
                            yield entry.path
                self._problem(folder, "")
            except OSError as error:
                self._problem(folder, f"cannot read the directory ({error.strerror})")

    def _add(self, path: str) -> None:
        if path in self._followed:
            return
        state = state_of(path)
        if state is None or self._done.get(path) == state:
            if state is None and path in self._paths:
                self._problem(path, "there is no such file now")
            return
        if self._first and path not in self._paths and not is_recent(path):
            self._finish(path, state)
            return
        if len(self._followed) >= self._limit:
            if not self._full:
                self._say(f"more than {self._limit} captures: the others are not watched")
            self._full = True
            return
        self._followed[path] = Followed(path)

    # --- what changes, and goes ---

    def _look(self, path: str, followed: Followed) -> None:
        state = state_of(path)
        followed.refresh()
        # A file that has not been read yet may just be being made.
        if followed.key or followed.looks != 1:
            self._problem(path, followed.problem)
        if followed.lost is not None:
            self._say(f"{_format.clean(path)}: another recording has taken its place")
            self._end(*followed.lost, 0)
        if not followed.key:
            if followed.looks > 1 and path not in self._paths:
                self._drop(path, state)
            return
        if followed.is_alive or followed.is_elsewhere or followed.may_be_elsewhere:
            return
        if self._keeps(path):
            return
        if followed.reader is None:
            end = followed.end_of_kept()
        else:
            end = followed.info["ended"]
            followed.figures()
        seen = followed.was_running or followed.info["pid"] == self._own_pid
        if seen and followed.last is not None:
            self._end(followed.last, end, followed.oom_kills())
        self._drop(path, state)

    def _end(self, last: Figures, end: str | None, oom_kills: int) -> None:
        self.ended.append(last)
        if end == "killed":
            self.deaths.append(Death(last, self._status_of(last.pid), oom_kills))
        elif end is None:
            self._say(f"{last.name} has ended; how is not known: its capture is gone")

    def _drop(self, path: str, state: tuple[int, ...] | None) -> None:
        self._followed.pop(path).close()
        self._full = False
        if state is not None:
            self._finish(path, state)

    def _finish(self, path: str, state: tuple[int, ...]) -> None:
        """Not to be looked at before it changes."""
        self._done[path] = state
        if len(self._done) > 4 * MAX_ENTRIES:
            del self._done[next(iter(self._done))]

    def _problem(self, path: str, text: str) -> None:
        """A line when something goes wrong with it; if it comes and goes, or is another one at each
        look, not all the time."""
        was_wrong, said_at = self._problems.get(path, (False, -QUIET_S))
        now = time.monotonic()
        if text and not was_wrong and now - said_at >= QUIET_S:
            self._say(f"{_format.clean(path)}: {text}")
            said_at = now
        if text or was_wrong:
            self._problems[path] = (bool(text), said_at)
        while len(self._problems) > MAX_ENTRIES:
            del self._problems[next(iter(self._problems))]


def state_of(path: str) -> tuple[int, ...] | None:
    """Changes whenever the file does. None: no regular file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def is_recent(path: str, within_s: float = RECENT_S) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime < within_s
    except OSError:
        return False
