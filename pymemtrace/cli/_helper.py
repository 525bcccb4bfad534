"""The interpreter that attaches: one of the version of the process, with this package.

What is loaded there is the extension of this installation, which fits one minor version. For a
process of another version, the command goes on in an interpreter of that one, if it finds one that
has the package.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pymemtrace
from pymemtrace.cli import _format
from pymemtrace.cli._target import Target, impossible

MARK = "PYMEMTRACE_ATTACH_HELPER"  # in the environment: we are one already
PROBE = """\
import sys, pymemtrace
print(*sys.version_info[:2], pymemtrace.__version__)
"""


def is_trusted(path: str) -> bool:
    """May we execute it? A program of another user runs with our rights then."""
    try:
        about = os.stat(path)
    except OSError:
        return False
    return about.st_uid in (0, os.geteuid()) and not about.st_mode & 0o022


def candidates(target: Target) -> Iterator[str]:
    """Beside this interpreter, on PATH, and the process' own."""
    name = f"python{target.version[0]}.{target.version[1]}"
    yield os.path.join(os.path.dirname(sys.executable), name)
    for folder in os.get_exec_path():
        yield os.path.join(folder, name)
    if target.words and os.path.isabs(target.words[0]):
        yield target.words[0]
    try:
        yield os.readlink(f"/proc/{target.pid}/exe")
    except OSError:
        pass


def fits(path: str, target: Target) -> bool:
    try:
        done = subprocess.run(
            [path, "-P", "-c", PROBE], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.split() == [*map(str, target.version), pymemtrace.__version__]


def go_on(target: Target, python: str | None, words: list[str]) -> None:
    """Returns if this interpreter is the right one. words: the command line."""
    if python is None and sys.version_info[:2] == target.version:
        return
    wanted = f"CPython {target.version[0]}.{target.version[1]}"
    if os.environ.get(MARK) == str(os.getpid()):
        if sys.version_info[:2] == target.version:
            return
        raise impossible(f"it runs {wanted}, another version", target.name, "leave --python out")
    if python is not None:
        path = shutil.which(python)
        if path is None or not fits(path, target):
            raise impossible(
                f"that is no {wanted} with pymemtrace-profiler {pymemtrace.__version__}",
                _format.clean(python), "give the interpreter of an environment that has it",
            )  # fmt: skip
    else:
        path = next((it for it in candidates(target) if is_trusted(it) and fits(it, target)), None)
        if path is None:
            raise impossible(
                f"it runs {wanted}, this command {sys.version_info[0]}.{sys.version_info[1]}",
                target.name,
                f"install pymemtrace-profiler for {wanted}, anywhere, and give that interpreter"
                " with --python",
            )
    sys.stdout.flush()
    os.execve(path, [path, "-P", "-m", "pymemtrace", *words], os.environ | {MARK: str(os.getpid())})
