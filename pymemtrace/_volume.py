"""What kind of file system a folder is on, and whether that outlives the container.

The parsers are pure functions of what /proc/self/mountinfo and /proc/self/cgroup say.
"""

import os
import re
from dataclasses import dataclass

from pymemtrace._cgroup import read


@dataclass(frozen=True)
class Mount:
    point: str
    root: str  # of what is mounted there
    kind: str
    options: frozenset[str]  # of the mount and of the file system
    device: str
    source: str


def parse_mounts(text: str) -> list[Mount]:
    """/proc/self/mountinfo (proc(5)); lines that are not of its form are left out."""
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, more = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(more) < 3:
            continue
        options = frozenset(fields[5].split(",")) | frozenset(more[2].split(","))
        mounts.append(
            Mount(_plain(fields[4]), _plain(fields[3]), more[0], options, fields[2], more[1])
        )
    return mounts


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that an absolute path without links lies on: of those that contain it, the longest;
    of several at one place, the last, which hides the others."""
    best: Mount | None = None
    for mount in mounts:
        point = mount.point.rstrip("/")
        inside = path == (point or "/") or path.startswith(point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


@dataclass(frozen=True)
class Volume:
    """Where a box lies. problem: what is wrong with the place, or nothing."""

    kind: str
    point: str
    problem: str = ""
    remedy: str = ""


def judge_volume(path: str, mounts: list[Mount], in_container: bool) -> Volume:
    mount = mount_of(path, mounts)
    if mount is None:
        return Volume("unknown", "")
    if "ro" in mount.options:
        return Volume(mount.kind, mount.point, "it is mounted read-only",
                      "mount it so that it can be written, or name another folder")  # fmt: skip
    if mount.kind in ("tmpfs", "ramfs"):
        return Volume(
            mount.kind, mount.point,
            f"it is in memory ({mount.kind}): the box counts against the memory limit and is gone"
            + (" with the container" if in_container else " when the host restarts"),
            "name a folder on a disk or a volume",
        )  # fmt: skip
    if mount.kind in ("overlay", "aufs") and (in_container or mount.point == "/"):
        return Volume(
            mount.kind, mount.point,
            "it is in the container's own layer: the box is gone when the container is made anew",
            "mount a volume and name a folder in it",
        )  # fmt: skip
    return Volume(mount.kind, mount.point)


def detect_container(mounts: list[Mount], membership: str, marks: frozenset[str]) -> str:
    """Why this looks like a container, or nothing. marks: files of the root that runtimes leave.
    membership: /proc/self/cgroup."""
    if "/.dockerenv" in marks:
        return "/.dockerenv"
    if "/run/.containerenv" in marks:
        return "/run/.containerenv"
    found = re.search(r"/(kubepods|docker|cri-containerd|libpod|lxc)[./-](?!service)", membership)
    if found is not None:
        return f"the cgroup's name has {found[1]}"
    root = mount_of("/", mounts)
    if root is not None and root.kind in ("overlay", "aufs"):
        return f"the root file system is {root.kind}"
    return ""


MARKS = ("/.dockerenv", "/run/.containerenv")


def container_here() -> str:
    marks = frozenset(mark for mark in MARKS if os.path.exists(mark))
    return detect_container(mounts_here(), read("/proc/self/cgroup"), marks)


def mounts_here() -> list[Mount]:
    return parse_mounts(read("/proc/self/mountinfo"))


def volume_of(folder: str) -> Volume:
    return judge_volume(os.path.realpath(folder), mounts_here(), bool(container_here()))
