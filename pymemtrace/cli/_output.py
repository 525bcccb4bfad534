"""Writing files: whole or not at all, and nothing over what is there unless asked to."""

import os
import stat
import sys

from pymemtrace.cli._failure import EXIT_USAGE, Failure

REMEDY_EXISTS = "choose another file with -o, or overwrite it with -f"
REMEDY_WRITE = "choose a file in a directory that exists and that you may write to, with -o"


def default_path(capture: str, ending: str, merged: bool) -> str:
    """The capture's name with another ending, in the current directory."""
    name = os.path.basename(capture)
    return f"{name.removesuffix('.pmt') or name}{'.merged' if merged else ''}{ending}"


def check_target(path: str, force: bool) -> None:
    """Raises Failure before the work is done rather than after it."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        if os.path.islink(path) and not force:
            raise Failure(EXIT_USAGE, "the file exists already", path, REMEDY_EXISTS) from None
        return
    if stat.S_ISDIR(mode):
        raise Failure(EXIT_USAGE, "cannot write (it is a directory)", path, REMEDY_WRITE)
    if stat.S_ISREG(mode) and not force:
        raise Failure(EXIT_USAGE, "the file exists already", path, REMEDY_EXISTS)


def write_file(path: str, content: bytes, force: bool) -> None:
    """Writes a file of the usual mode through a temporary one beside it."""
    check_target(path, force)
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe, a device
            with open(path, "wb") as file:
                file.write(content)
            return
        _write_beside(path, content, force)
    except FileExistsError:
        raise Failure(EXIT_USAGE, "the file exists already", path, REMEDY_EXISTS) from None
    except OSError as error:
        raise Failure(
            EXIT_USAGE, f"cannot write ({error.strerror or error})", path, REMEDY_WRITE
        ) from None


def _write_beside(path: str, content: bytes, force: bool) -> None:
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name[:100]}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        if force:
            os.replace(temporary, path)
            return
        try:
            os.link(temporary, path)  # fails if somebody made the file meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.replace(temporary, path)
            return
        os.unlink(temporary)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise


def write_stdout(content: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
