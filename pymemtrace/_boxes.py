"""The files of recordings that start by themselves: their names, and how many are kept.

In a folder, a box is <program>.<pid>.pmt while its process lives; children by fork have names of
that form, too. Whoever starts next in the folder finds those whose process is gone and gives them
their last name, <program>.<pid>.<start>.pmt: so a process id that is used again (in a container it
is always 1) overwrites nothing, and a death is found, and reported, by one process only. Of these
the newest are kept, within a bound in bytes. `.first.pmt` is the oldest of a loop of crashes, which
often says more than the newest: it stays besides.

This runs in the program at its start: it imports next to nothing, reads the first pages of files
only, and no more than a bounded number of them. The folder may be one that others write to, such as
/tmp: files of other users are not looked at, links are not followed, and all that a file says is
doubted. A process is told from a later one with its id by its start time and the boot id.
"""

import os
import sys

from pymemtrace import _core

TYPE_CHECKING = False  # as in typing, which is not to be imported here
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENDING = ".pmt"
FIRST = ".first"
LEFT = (".compact", ".control")  # what a killed recorder may leave beside its capture
OF_RUN = "pymemtrace-"  # captures of `pymemtrace run`, which stay until their user removes them
LOCK = ".pymemtrace.{uid}.lock"

KEEP = 8  # boxes of dead processes, per program
KEEP_NORMAL = 1  # boxes of processes that ended by themselves, per program
MAX_BYTES = 256 << 20  # all boxes of processes that are gone, in the folder
FILES_MAX = 4096  # that are looked at
NAME_MAX = 64  # of a program, in characters

LOCK_TRIES, LOCK_WAIT_S = 25, 0.01
# Of another host or container it cannot be seen whether a process lives, but it would write.
FOREIGN_QUIET_S = 120.0
UNREADABLE_QUIET_S = 60.0  # a file that is just being made
LOOP_GAP_S = 600.0  # the next crash of a loop follows in less

RECORDING, ENDED, STOPPED = 1, 2, 3

LIVING, GONE_NORMAL, GONE_DEAD, UNREADABLE = "living", "normal", "dead", "unreadable"


class Refused(Exception):
    """The folder cannot be used. The text says what, where, and what to do."""


class Head:
    """What the first pages of a capture say."""

    def __init__(self) -> None:
        self.facts: dict[str, int | str] = {}
        self.status = 0
        self.cut_unix_ns = 0
        self.cuts = 0
        self.live_bytes = 0
        self.fixed = False  # in size

    def number(self, key: str) -> int:
        value = self.facts.get(key)
        return value if isinstance(value, int) else 0

    def text(self, key: str) -> str:
        value = self.facts.get(key)
        return value if isinstance(value, str) else ""

    @property
    def is_box(self) -> bool:
        return self.fixed or self.text("mode") == "sampled"


class Name:
    """Of a box, in its parts."""

    def __init__(self, program: str, pid: int, number: int, stamp: str, first: bool) -> None:
        self.program = program
        self.pid = pid
        self.number = number  # another one of this pid
        self.stamp = stamp  # when its process started; empty: nobody has seen it gone
        self.first = first

    def __str__(self) -> str:
        more = f"-{self.number}" if self.number and not self.stamp else ""
        stamp = f".{self.stamp}" if self.stamp else ""
        if self.number and self.stamp:
            stamp += f"-{self.number}"
        return f"{self.program}.{self.pid}{more}{stamp}{FIRST if self.first else ''}{ENDING}"


class Box:
    """A file of the folder."""

    def __init__(self, file: str, name: Name, status: os.stat_result, head: Head | None) -> None:
        self.file = file
        self.name = name
        self.head = head
        self.bytes = status.st_blocks * 512
        self.changed_s = status.st_mtime
        self.state = UNREADABLE

    @property
    def started_s(self) -> float:
        started = self.head.number("started_unix_ns") / 1e9 if self.head is not None else 0.0
        return started if 0 < started <= self.changed_s else self.changed_s

    @property
    def cuts(self) -> int:
        return self.head.cuts if self.head is not None else 0


# --- names ----------------------------------------------------------------------------------------


def clean(program: str) -> str:
    """A file name's part of letters, digits, `.`, `_` and `-`."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in program)
    return kept.lstrip(".-")[:NAME_MAX] or "program"


def program_of(words: "Sequence[str]") -> str:
    """What is run by an interpreter's command line (sys.orig_argv), in one word."""
    index = 1
    while index < len(words):
        word = words[index]
        if word == "-":
            return "stdin"
        if not word.startswith("-"):
            path = word.rstrip("/")
            name = path.rpartition("/")[2]
            if name == "__main__.py":
                name = path.rpartition("/")[0].rpartition("/")[2]
            return clean(name)
        index += 1
        if word.startswith("--"):
            index += word == "--check-hash-based-pycs"
            continue
        for position, letter in enumerate(word[1:], 1):
            rest = word[position + 1 :]
            if letter == "c":
                return "command"
            if letter == "m":
                return clean(rest or (words[index] if index < len(words) else ""))
            if letter in "XW":
                index += not rest
                break
    return "python"


def parse_name(file: str) -> Name | None:
    if not file.endswith(ENDING):
        return None
    rest = file[: -len(ENDING)]
    first = rest.endswith(FIRST)
    if first:
        rest = rest[: -len(FIRST)]
    before, _, last = rest.rpartition(".")
    stamp, number = "", 0
    if _is_stamp(last):
        stamp, _, digits = last.partition("-")
        number = int(digits or 0)
        before, _, last = before.rpartition(".")
    pid, _, more = last.partition("-")
    if not before or not _is_number(pid) or (more and not _is_number(more)):
        return None
    return Name(before, int(pid), number if stamp else int(more or 0), stamp, first)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 12


def _is_stamp(text: str) -> bool:
    stamp, _, number = text.partition("-")
    return (
        len(stamp) == 16 and stamp[8] == "T" and stamp[15] == "Z"
        and _is_number(stamp[:8]) and _is_number(stamp[9:15])
        and (not number or _is_number(number))
    )  # fmt: skip


def stamp_of(unix_s: float) -> str:
    import time

    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(0.0, min(unix_s, 4e9))))


# --- the first pages of a capture -----------------------------------------------------------------


def read_head(fd: int) -> Head | None:
    """None: it is no capture, or one that cannot be read (yet)."""
    found = _core.read_head(fd)
    if found is None:
        return None
    head = Head()
    head.status, _, head.cut_unix_ns, head.cuts, head.live_bytes, head.fixed, facts = found
    try:
        _parse_facts(facts, head.facts)
    except (IndexError, ValueError):
        return None
    return head


def _parse_facts(data: bytes, out: "dict[str, int | str]") -> None:
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while shift < 70:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError

    def text() -> str:
        nonlocal at
        size = varint()
        if size > len(data) - at:
            raise ValueError
        at += size
        return data[at - size : at].decode("utf-8", "replace")

    for _ in range(min(varint(), 1000)):
        key, kind = text(), varint()
        if kind == 2:
            out[key] = text()
        elif kind == 3:
            for _ in range(min(varint(), len(data))):
                text()
        elif kind in (1, 4):
            out[key] = varint()
        else:
            raise ValueError


# --- who lives ------------------------------------------------------------------------------------


def read_small(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)


def boot_id() -> str:
    return read_small("/proc/sys/kernel/random/boot_id")


def start_ticks(pid: int | str) -> int:
    """Field 22 of /proc/<pid>/stat; 0: there is no such process, or it is a zombie."""
    words = read_small(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(words[19]) if len(words) > 19 and words[0] not in "ZX" else 0


def process_lives(pid: int, ticks: int) -> bool:
    """Of this boot of this host."""
    now = start_ticks(pid)
    if now:
        return now == ticks
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not read_small(f"/proc/{pid}/stat")  # hidden, not a zombie
    except (OSError, OverflowError):
        pass
    return False


def is_held(fd: int) -> bool | None:
    """Whether a recorder has the file open, in whatever container. None: this file system has no
    locks."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def state_of(
    head: Head | None, changed_s: float, now_s: float, name_is_mine: bool, held: bool | None = None
) -> str:
    """name_is_mine: the calling process may have written it, before it executed itself. held: see
    is_held(); a program that closes all its files can lose it for a moment."""
    if head is None:
        return UNREADABLE
    if held:
        return LIVING
    if head.status == ENDED:
        return GONE_NORMAL
    pid, ticks = head.number("pid"), head.number("start_ticks")
    same_boot = head.text("boot_id") == boot_id() != ""
    same_name = head.text("hostname") == os.uname().nodename
    if same_boot and not same_name and held is False and head.fixed:
        return GONE_DEAD  # of another container
    if not same_name or not (same_boot or _boot_is_older(head.cut_unix_ns / 1e9)):
        return LIVING if abs(now_s - changed_s) < FOREIGN_QUIET_S else GONE_DEAD
    if not same_boot:
        return GONE_DEAD
    if pid == os.getpid() and name_is_mine:
        # we are going to be recorded, so what has our id is from before, or from before an exec
        return GONE_NORMAL if start_ticks("self") == ticks else GONE_DEAD
    return LIVING if process_lives(pid, ticks) else GONE_DEAD


def _boot_is_older(unix_s: float) -> bool:
    """Whether this host has been started since then."""
    import time

    return unix_s < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


# --- the folder -----------------------------------------------------------------------------------


class Folder:
    """An open folder for boxes. Raises Refused if it is none that can be trusted or written."""

    def __init__(self, path: str, create: bool = True) -> None:
        self.path = path
        self._locked = -1
        if create and not os.path.lexists(path):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass
            except OSError as error:
                raise Refused(f"cannot make the folder ({error.strerror}): {path}: make it, or"
                              " name another with dir=") from None  # fmt: skip
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(f"cannot open the folder ({error.strerror}): {path}: name another with"
                          " dir=") from None  # fmt: skip
        wrong = _distrust(os.fstat(self.fd)) or _distrust_link(path)
        if wrong:
            os.close(self.fd)
            raise Refused(f"{wrong}: {path}: name a folder of your own with dir=")

    def close(self) -> None:
        self.unlock()
        os.close(self.fd)

    def lock(self) -> bool:
        """Among processes, not among threads. A lock of fcntl's kind, which forked children do not
        hold. False: somebody else has it, for a suspiciously long time."""
        import fcntl
        import time

        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        name = LOCK.format(uid=os.geteuid())
        try:
            self._locked = os.open(name, flags, 0o600, dir_fd=self.fd)
        except OSError as error:
            raise Refused(f"cannot write here ({error.strerror}): {self.path}/{name}: name another"
                          " folder with dir=") from None  # fmt: skip
        for _ in range(LOCK_TRIES):
            try:
                fcntl.lockf(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                time.sleep(LOCK_WAIT_S)
        self.unlock()
        return False

    def unlock(self) -> None:
        if self._locked >= 0:
            os.close(self._locked)
            self._locked = -1

    def boxes(self, now_s: float) -> "Iterator[Box]":
        """Of this user, with their states; a bounded number of them."""
        count = 0
        for file in os.listdir(self.fd):
            name = parse_name(file)
            if name is None or file.startswith(OF_RUN):
                continue
            count += 1
            if count > FILES_MAX:
                return
            box = self.box(file, name, now_s)
            if box is not None:
                yield box

    def box(self, file: str, name: Name, now_s: float) -> Box | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(file, flags, dir_fd=self.fd)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            if status.st_mode & 0o170000 != 0o100000 or status.st_uid != os.geteuid():
                return None
            box = Box(file, name, status, read_head(fd))
            if not (box.head.is_box if box.head is not None else _is_blank(fd)):
                return None  # somebody's file, which happens to be called like that
            held = is_held(fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        box.state = state_of(box.head, box.changed_s, now_s, not name.stamp, held)
        if name.stamp and box.state == LIVING:
            box.state = GONE_DEAD  # the one who gave it its last name has seen it gone
        return box

    def path_of(self, file: str) -> str:
        return os.path.join(self.path, file)

    def has(self, file: str) -> bool:
        try:
            os.lstat(file, dir_fd=self.fd)
        except OSError:
            return False
        return True

    def rename(self, box: Box, name: Name) -> bool:
        """Under a name that is free; the caller holds the lock."""
        while self.has(str(name)):
            name.number += 1
        return self._rename(box, name)

    def _rename(self, box: Box, name: Name) -> bool:
        try:
            os.rename(box.file, str(name), src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError:
            return False
        for ending in LEFT:
            self._remove(box.file + ending)
        box.file, box.name = str(name), name
        return True

    def remove(self, box: Box) -> None:
        self._remove(box.file)

    def _remove(self, file: str) -> None:
        try:
            os.unlink(file, dir_fd=self.fd)
        except OSError:
            pass


def _distrust_link(path: str) -> str:
    """In /tmp, a link could have been put where the folder was to be."""
    status = os.lstat(path.rstrip("/") or "/")
    if status.st_mode & 0o170000 == 0o120000 and status.st_uid not in (0, os.geteuid()):
        return "the folder is another user's link"
    return ""


def _is_blank(fd: int) -> bool:
    """A box whose process was killed before it could write the header."""
    return not os.pread(fd, 4096, 0).strip(b"\0")


def _distrust(status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return "the folder belongs to another user"
    if status.st_mode & 0o002 and not status.st_mode & 0o1000:
        return "everybody may write to the folder"
    return ""


# --- what is kept ---------------------------------------------------------------------------------


class Limits:
    def __init__(
        self, keep: int = KEEP, keep_normal: int = KEEP_NORMAL, max_bytes: int = MAX_BYTES
    ) -> None:
        self.keep = keep
        self.keep_normal = keep_normal
        self.max_bytes = max_bytes


def tidy(folder: Folder, program: str, limits: Limits, now_s: float) -> "list[str]":
    """Gives this program's boxes of processes that are gone their last names, removes the oldest,
    and those of other programs where there are too many bytes; the caller holds the lock. Returns
    the files of deaths that nobody had seen before, the newest first."""
    gone: list[Box] = []
    found: list[Box] = []
    for box in folder.boxes(now_s):
        if box.state == LIVING:
            continue
        if box.state == UNREADABLE and now_s - box.changed_s < UNREADABLE_QUIET_S:
            continue
        if not box.name.stamp and box.name.program == program:
            name = Name(program, box.name.pid, 0, stamp_of(box.started_s), False)
            if not folder.rename(box, name):
                continue
            if box.state == GONE_DEAD:
                found.append(box)
        gone.append(box)
    kept: list[Box] = []
    for name_of in {box.name.program for box in gone}:
        boxes = [box for box in gone if box.name.program == name_of]
        kept += _thin(folder, boxes, limits) if name_of == program else boxes
    _bound(folder, kept, limits)
    found.sort(key=lambda box: -box.changed_s)
    return [box.file for box in found]


def _thin(folder: Folder, boxes: "list[Box]", limits: Limits) -> "list[Box]":
    """Of one program. Normal ends, and deaths before the first state, say least and go first."""
    boxes.sort(key=lambda box: -box.changed_s)
    deaths = [box for box in boxes if box.state == GONE_DEAD]
    others = [box for box in boxes if box.state != GONE_DEAD]
    for box in others[limits.keep_normal :]:
        folder.remove(box)
    # one that died before its first state is worth keeping only where there is room
    empty = [box for box in deaths if not box.cuts]
    surplus = max(0, len(deaths) - limits.keep)
    for box in empty[::-1][: min(surplus, len(empty) - 1) if surplus else 0]:
        folder.remove(box)
        deaths.remove(box)
    loop = _loop(deaths)
    older = deaths[limits.keep :]
    kept = deaths[: limits.keep]
    if older and limits.keep:
        first = next((box for box in loop if box.name.first), None)
        if first is None and loop and loop[-1] not in kept:
            first = loop[-1]
            name = first.name
            folder.rename(first, Name(name.program, name.pid, name.number, name.stamp, True))
        if first is not None and first not in kept:
            kept.append(first)
    for box in older:
        if box not in kept:
            folder.remove(box)
    return kept + others[: limits.keep_normal]


def _loop(deaths: "list[Box]") -> "list[Box]":
    """The deaths that followed one another closely, up to the newest; newest first. What lay
    between the first one and the others may have been removed."""
    loop: list[Box] = []
    for box in deaths:
        if loop and not box.name.first and loop[-1].started_s - box.changed_s > LOOP_GAP_S:
            break
        loop.append(box)
        if box.name.first:
            break
    return loop


def _bound(folder: Folder, kept: "list[Box]", limits: Limits) -> None:
    """Within the bytes for all; the newest death stays in any case."""
    kept.sort(key=lambda box: (box.state != GONE_DEAD, not box.cuts, -box.changed_s))
    total = 0
    for index, box in enumerate(kept):
        total += box.bytes
        if total > limits.max_bytes and index > 0:
            folder.remove(box)
            total -= box.bytes


def choose(folder: Folder, program: str, pid: int) -> str:
    """The file for a process that starts: its usual name, unless that is taken after all."""
    name = Name(program, pid, 0, "", False)
    while folder.has(str(name)) and name.number < 1000:
        name.number += 1
    return str(name)


def make_way(path: str, limits: Limits) -> tuple[str, str] | None:
    """For a file that a user has named: if a box of a process that is gone is there, it becomes
    <name>.<start>.pmt, and of these the newest are kept. Returns its new path and GONE_DEAD or
    GONE_NORMAL, or None: the file is as it was. Raises OSError, Refused."""
    import time

    now_s = time.time()
    directory, file = os.path.split(os.path.abspath(path))
    if not os.path.lexists(path):
        return None
    folder = Folder(directory, create=False)
    try:
        if not folder.lock():
            return None
        base = file.removesuffix(ENDING)
        # not a name that parse_name() knows, so it is made here
        box = folder.box(file, Name(base, 0, 0, "", False), now_s)
        if box is None or box.head is None or not box.head.is_box or box.state == LIVING:
            return None
        stamp = stamp_of(box.started_s)
        target, number = f"{base}.{stamp}{ENDING}", 0
        while folder.has(target):
            number += 1
            target = f"{base}.{stamp}-{number}{ENDING}"
        os.rename(file, target, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        for _, name in sorted(_stamped(folder, base), reverse=True)[limits.keep :]:
            os.unlink(name, dir_fd=folder.fd)
        return folder.path_of(target), box.state
    finally:
        folder.close()


def _stamped(folder: Folder, base: str) -> "Iterator[tuple[int, str]]":
    """When it was last written, and its name."""
    for file in os.listdir(folder.fd):
        rest = file.removeprefix(f"{base}.")
        if rest != file and rest.endswith(ENDING) and _is_stamp(rest.removesuffix(ENDING)):
            yield os.lstat(file, dir_fd=folder.fd).st_mtime_ns, file


def stderr(text: str) -> None:
    """One line, past sys.stderr, which is the program's own; nothing, where there is none."""
    if sys.__stderr__ is None:
        return
    line = "".join(c if c.isprintable() else "?" for c in text)[:1000]
    try:
        os.write(2, f"pymemtrace: {line}\n".encode(sys.getfilesystemencoding(), "replace"))
    except OSError:
        pass
