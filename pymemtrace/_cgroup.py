"""Which cgroup limits the memory of a process, and what it counts."""

import os
from dataclasses import dataclass

ROOT = "/sys/fs/cgroup"
NO_LIMIT = 1 << 60  # version 1 says "no limit" by a number of about 2**63


def parse_membership(text: str) -> tuple[int, str]:
    """/proc/<pid>/cgroup: the version of the hierarchy that has the memory controller, and the path
    of the group in it; (0, "") where there is none."""
    unified = ""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            return 1, path
        if number == "0" and not controllers:
            unified = path
    return (2, unified) if unified else (0, "")


@dataclass(frozen=True)
class Group:
    version: int
    folder: str
    limit_bytes: int | None

    def counters(self) -> dict[str, int]:
        """oom_kill, and of version 2 oom, max, high: counted since the group was made."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        counts = {}
        for line in read(os.path.join(self.folder, name)).splitlines():
            key, _, value = line.partition(" ")
            if value.isdigit():
                counts[key] = int(value)
        return counts

    def used_bytes(self) -> int | None:
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        return _number(read(os.path.join(self.folder, name)))


def find(path: str, version: object = None, root: str = ROOT) -> Group | None:
    """The group of this path, as /proc/<pid>/cgroup has it. version: 1, 2; else it is found out."""
    if ".." in path.split("/"):
        return None
    for number, folder, limit in (
        (2, root + path, "memory.max"),
        (1, f"{root}/memory{path}", "memory.limit_in_bytes"),
    ):
        if version in (1, 2) and number != version:
            continue
        folder = folder.rstrip("/")
        if os.path.exists(os.path.join(folder, limit)):
            return Group(number, folder, _lowest(folder, limit, root))
    return None


def group_here(root: str = ROOT) -> Group | None:
    version, path = parse_membership(read("/proc/self/cgroup"))
    group = find(path, version, root) if version else None
    # a container without a namespace of cgroups sees its own as the root
    return group or find("/", version, root)


def _lowest(folder: str, name: str, root: str) -> int | None:
    """The smallest limit from this group up to the root."""
    limits = []
    while folder.startswith(root):
        limit = _number(read(os.path.join(folder, name)))
        if limit is not None and limit < NO_LIMIT:
            limits.append(limit)
        folder = os.path.dirname(folder)
    return min(limits) if limits else None


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None  # "max" is none


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
