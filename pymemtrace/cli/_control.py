"""How a command and a process talk to each other: a folder that nobody else can enter.

No socket, no port, nothing that listens. The folder belongs to the user of the process and has the
mode 0700; its name cannot be guessed. It holds the request (words, no code), a script for
sys.remote_exec (_attached.py of this installation, and two names), and in the end the answer.

The command holds a lock on the request for as long as it waits, and deletes it when it gives up;
the process takes it by renaming it. Whoever is first has it: a script that runs too late finds
nothing to do, even if the command was killed.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pymemtrace.cli._target import Target, impossible

REQUEST, CLAIMED, ANSWER, SCRIPT = "request", "claimed", "answer", "start"
ATTACHED = Path(__file__).parent.parent / "_attached.py"
NAMES = 'folder = path = ""'
PLACES = ("/tmp", "/var/tmp", "/dev/shm")
ANSWER_MAX = 1 << 16


class Control:
    """Made and removed by `with`. Raises Failure where there is no place for it."""

    def __init__(self, target: Target, core: str, words: Mapping[str, object]) -> None:
        self._target = target
        self._core = core
        self._words = words
        self._keep = False
        self.path = ""

    def __enter__(self) -> Self:
        for place in PLACES:
            if self._target.sees(place):
                self.path = f"{place}/pymemtrace-{self._target.pid}-{secrets.token_hex(8)}"
                try:
                    os.mkdir(self.path, 0o700)
                    break
                except OSError:
                    continue
        else:
            raise impossible(
                f"no folder is writable here and visible there: {', '.join(PLACES)}",
                self._target.name, "make room in one of them; attach from within its container",
            )  # fmt: skip
        self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._fill()
        except OSError as error:
            self._remove()
            raise impossible(
                f"cannot write ({error.strerror})", self.path, "make room there"
            ) from None
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.withdraw()
        self._remove()

    def _fill(self) -> None:
        text = "".join(f"{name}={value}\x1f" for name, value in self._words.items())
        names = f"folder, path = {self.path!r}, {self._core!r}"
        script = ATTACHED.read_text("utf-8").replace(NAMES, names)
        files = {REQUEST: text, SCRIPT: script}
        for name, content in files.items():
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._folder)
            os.write(fd, os.fsencode(content))
            if self._target.status.uid != os.geteuid():
                os.fchown(fd, self._target.status.uid, -1)
            if name == REQUEST:
                os.lockf(fd, os.F_TLOCK, 0)  # goes with this process; closing it would end it
            else:
                os.close(fd)
        if self._target.status.uid != os.geteuid():
            os.fchown(self._folder, self._target.status.uid, -1)

    @property
    def script(self) -> str:
        return f"{self.path}/{SCRIPT}"

    def withdraw(self) -> bool:
        """False: too late, it was taken."""
        try:
            os.unlink(REQUEST, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        return True

    def keep(self) -> None:
        """The script may still be asked for: it must be there, and do nothing but remove itself."""
        self._keep = True

    def answer(self) -> dict[str, str] | None:
        """None: there is none yet."""
        try:
            fd = os.open(
                ANSWER,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                dir_fd=self._folder,
            )
        except OSError:
            return None
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_uid != self._target.status.uid:
                return None
            text = os.read(fd, ANSWER_MAX).decode("utf-8", "surrogateescape")
        finally:
            os.close(fd)
        return dict(word.split("=", 1) for word in text.split("\x1f") if "=" in word)

    def _remove(self) -> None:
        names = [REQUEST, CLAIMED, ANSWER]
        if not self._keep:
            names.append(SCRIPT)
        for name in names:
            try:
                os.unlink(name, dir_fd=self._folder)
            except OSError:
                pass
        try:
            os.rmdir(self.path)
        except OSError:
            pass
        os.close(self._folder)
