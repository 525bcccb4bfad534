"""Says how processes died whose boxes the next process of their program has found, and counts it.

A program of its own, started by _environment.py: usage: _deaths.py FOLDER PROGRAM FILE...
It reads whole captures, which a program should not wait for at its start. It runs in its own
session, with the lowest priority, is the first to go where memory is short, and ends by itself.
"""

import os
import sys
from typing import Any

TIME_S = 20
LINES = 3
RECENT = 16
STATE_MAX = 1 << 20
LOCK_TRIES = 20


def detach() -> None:
    if os.fork() != 0:
        os._exit(0)
    os.setsid()


def be_modest() -> None:
    import signal

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.alarm(TIME_S)
    try:
        os.nice(19)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def describe(folder: str, program: str, file: str) -> "tuple[dict[str, Any], str] | None":
    """What the state file says of a death, and the line of it; None: it was none."""
    from datetime import datetime

    from pymemtrace import _death, _evidence
    from pymemtrace._core import PymemtraceError, Reader

    path = os.path.join(folder, file)
    try:
        reader = Reader(path)
        info = reader.info()
    except (PymemtraceError, OSError):  # in a fast loop it may be gone already
        return unread(program, file)
    evidence = _evidence.gather(reader)
    verdict = _death.judge(evidence)
    if not verdict.is_death:
        return None
    died_s = _evidence.last_state_s(info)
    when = datetime.fromtimestamp(died_s).astimezone() if died_s else None
    usage = _death.usage_text(evidence)
    entry: dict[str, Any] = {
        "file": file,
        "pid": info["pid"],
        "when": when.isoformat(timespec="seconds") if when else None,
        "cause": verdict.cause,
        "confidence": verdict.confidence,
        "text": verdict.sentence,
        "used_bytes": evidence.used_bytes or evidence.rss_bytes,
        "limit_bytes": evidence.limit_bytes,
    }
    line = f"the last process {program} (pid {info['pid']}) {verdict.text}"
    if when is not None:
        line += f", at {when:%H:%M:%S}"
    if usage and verdict.cause == "oom-cgroup":
        line += f", {usage}"
    return entry, f"{line}: pymemtrace report {path}"


def unread(program: str, file: str) -> "tuple[dict[str, Any], str]":
    """Of a death whose box tells nothing."""
    from pymemtrace import _boxes

    name = _boxes.parse_name(file)
    pid = name.pid if name is not None else 0
    entry = {
        "file": file, "pid": pid, "when": None, "cause": "unread", "confidence": "unknown",
        "text": "The process died; its box cannot be read.", "used_bytes": None,
        "limit_bytes": None,
    }  # fmt: skip
    return entry, f"a process {program} (pid {pid}) died; its box cannot be read: {file}"


def count(folder: str, program: str, entries: "list[dict[str, Any]]") -> None:
    """Adds to <program>.deaths.json, as a whole or not at all."""
    import json

    from pymemtrace import _boxes

    opened = _boxes.Folder(folder, create=False)
    try:
        if not any(opened.lock() for _ in range(LOCK_TRIES)):
            return
        name = f"{program}.deaths.json"
        state = read_state(opened.fd, name)
        causes, recent = state["causes"], state["recent"]
        for entry in entries:
            cause = str(entry["cause"])
            causes[cause] = causes.get(cause, 0) + 1
        state["program"] = program
        state["deaths"] += len(entries)
        state["recent"] = [*entries, *recent][:RECENT]
        state["last"] = state["recent"][0]
        temporary = f".{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o644, dir_fd=opened.fd)
        with os.fdopen(fd, "w") as out:
            json.dump(state, out, indent=1)
        os.rename(temporary, name, src_dir_fd=opened.fd, dst_dir_fd=opened.fd)
    except (_boxes.Refused, OSError):
        pass
    finally:
        opened.close()


def read_state(folder_fd: int, name: str) -> "dict[str, Any]":
    """What was counted so far; from nothing, if that cannot be read."""
    import json

    state: dict[str, Any] = {}
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=folder_fd)) as file:
            found = json.loads(file.read(STATE_MAX))
        if isinstance(found, dict):
            state = found
    except (OSError, ValueError, RecursionError):
        pass
    empty: dict[str, Any] = {"deaths": 0, "causes": {}, "recent": []}
    for key, value in empty.items():
        if type(state.get(key)) is not type(value):
            state[key] = value
    state["causes"] = {
        str(key): value for key, value in state["causes"].items() if type(value) is int
    }
    return state


def main(folder: str, program: str, files: "list[str]") -> None:
    from pymemtrace import _boxes

    found = [described for file in files if (described := describe(folder, program, file))]
    for _, line in found[:LINES]:
        _boxes.stderr(line)
    if len(found) > LINES:
        _boxes.stderr(f"and {len(found) - LINES} more that died before: {folder}")
    if found:
        count(folder, program, [entry for entry, _ in found])


if __name__ == "__main__":
    detach()
    be_modest()
    if sys.flags.no_site:
        # behind the standard library, of which it may hold old copies
        sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3:])
    except Exception:  # nobody waits for it
        os._exit(1)
