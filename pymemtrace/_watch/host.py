"""What /proc and /sys say of a process, its cgroup and the host, in the names of Reader.pressure().

A name is missing where the system does not tell. `root` is for tests.
"""

import os

UNLIMITED = 1 << 62  # cgroup v1's way to say so
MAX_BYTES = 1 << 16


def read(path: str) -> str:
    """Nothing where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def table(text: str) -> dict[str, int]:
    """Lines of a name and a number; "kB" behind it counts."""
    numbers = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and (value := number(words[1])) is not None:
            factor = 1024 if words[2:3] == ["kB"] else 1
            numbers[words[0].rstrip(":")] = value * factor
    return numbers


def start_ticks(pid: int, root: str = "/") -> int | None:
    """Field 22 of /proc/<pid>/stat; None if there is no such process, or only its remains."""
    _, _, rest = read(os.path.join(root, f"proc/{pid}/stat")).rpartition(")")
    fields = rest.split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return number(fields[19])


def boot_id(root: str = "/") -> str:
    return read(os.path.join(root, "proc/sys/kernel/random/boot_id")).strip()


def of_process(pid: int, root: str = "/") -> dict[str, float]:
    """All that is known of a process that runs."""
    status = table(read(os.path.join(root, f"proc/{pid}/status")))
    names = {"VmRSS": "rss_bytes", "VmHWM": "peak_rss_bytes", "VmSwap": "swap_bytes"}
    figures: dict[str, float] = {to: status[name] for name, to in names.items() if name in status}
    figures |= of_host(root)
    figures |= of_cgroup(cgroup_of(pid, root))
    return figures


def of_host(root: str = "/") -> dict[str, float]:
    memory = table(read(os.path.join(root, "proc/meminfo")))
    names = {"MemTotal": "host_bytes", "MemAvailable": "host_available_bytes"}
    figures: dict[str, float] = {to: memory[name] for name, to in names.items() if name in memory}
    return figures | stalls(read(os.path.join(root, "proc/pressure/memory")))


def stalls(text: str) -> dict[str, float]:
    """PSI: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", and the same of "full"."""
    figures: dict[str, float] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        pairs = dict(word.partition("=")[::2] for word in rest.split())
        if kind not in ("some", "full"):
            continue
        try:
            figures[f"psi_{kind}_avg10"] = float(pairs["avg10"])
            figures[f"psi_{kind}_us"] = float(pairs["total"])
        except (KeyError, ValueError):
            continue
    figures.pop("psi_full_us", None)
    return figures


def cgroup_of(pid: int, root: str = "/") -> str:
    """The folder of its memory cgroup; nothing if there is none."""
    for line in read(os.path.join(root, f"proc/{pid}/cgroup")).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if "memory" in controllers.split(","):
            top, wanted = os.path.join(root, "sys/fs/cgroup/memory"), "memory.usage_in_bytes"
        elif controllers == "":
            top, wanted = os.path.join(root, "sys/fs/cgroup"), "memory.current"
        else:
            continue
        # Inside a container, the path may be that of the host, and its own group the top.
        for folder in (os.path.normpath(f"{top}/{path}"), top):
            if folder.startswith(top) and os.path.exists(os.path.join(folder, wanted)):
                return folder
    return ""


def of_cgroup(folder: str) -> dict[str, float]:
    if not folder:
        return {}
    is_v2 = os.path.exists(os.path.join(folder, "memory.current"))
    usage, inactive = (
        ("memory.current", "inactive_file")
        if is_v2
        else ("memory.usage_in_bytes", "total_inactive_file")
    )
    figures: dict[str, float] = {}
    used = number(read(os.path.join(folder, usage)))
    if used is not None:
        figures["cgroup_bytes"] = used
        files = table(read(os.path.join(folder, "memory.stat"))).get(inactive)
        if files is not None:
            figures["cgroup_working_set_bytes"] = max(0, used - files)
    limit = limit_of(folder, "memory.max" if is_v2 else "memory.limit_in_bytes")
    if limit is not None:
        figures["cgroup_limit_bytes"] = limit
    if is_v2:
        events = table(read(os.path.join(folder, "memory.events")))
        hits = events.get("max")
        figures |= stalls(read(os.path.join(folder, "memory.pressure")))
    else:
        events = table(read(os.path.join(folder, "memory.oom_control")))
        hits = number(read(os.path.join(folder, "memory.failcnt")))
    if "oom_kill" in events:
        figures["cgroup_oom_kills"] = events["oom_kill"]
    if hits is not None:
        figures["cgroup_limit_hits"] = hits
    return figures


def limit_of(folder: str, name: str) -> int | None:
    """The lowest of its own and of those of the groups above it."""
    limits: list[int] = []
    while os.path.exists(os.path.join(folder, name)) or not limits:
        value = number(read(os.path.join(folder, name)))
        limits.append(UNLIMITED if value is None else value)
        folder = os.path.dirname(folder)
        if len(limits) > 32:
            break
    lowest = min(limits)
    return lowest if lowest < UNLIMITED else None
