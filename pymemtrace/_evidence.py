"""What a capture and its host know of the end of its process: the Evidence of _death.py."""

import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from pymemtrace import _boxes, _cgroup
from pymemtrace._core import Reader
from pymemtrace._death import Evidence

MINUTE_S = 60.0
INTERVAL_MAX_S = 4.0  # between two states: what --max-overhead may make of it
TREND_S = 10.0  # of the growth that goes on until the death
KMSG = "/dev/kmsg"
KMSG_RECORDS = 20_000
KMSG_BEFORE_S, KMSG_AFTER_S = 5.0, 120.0  # around the last state

Points = Sequence[tuple[float, float]]


def gather(reader: Reader, *, known_status: int | None = None) -> Evidence:
    """known_status: how its parent saw it end (_death.Evidence)."""
    info, proc = reader.info(), reader.proc()
    timeline, rows = reader.timeline(), pressure_of(reader)
    last = rows[-1] if rows else {}
    same_host, rebooted = host_of(proc, info)
    limit = last.get("cgroup_limit_bytes") or proc.get("memory_limit_bytes") or None
    now = group_now(proc, limit) if same_host and not rebooted else {}
    kills_last = last.get("cgroup_oom_kills")
    kills_now = now.get("oom_kill")
    if kills_last is None or (kills_now is not None and kills_now < kills_last):
        kills_now = None  # another group, of the same name
    used = last.get("cgroup_working_set_bytes")
    charged = last.get("cgroup_bytes")
    died_s = last_state_s(info)
    log = kernel_log(int(info["pid"]), died_s) if same_host and not rebooted and died_s else None
    host_bytes = last.get("host_bytes") or proc.get("memory_bytes") or None
    return Evidence(
        ended=info["ended"],
        ended_by=info["ended_by"],
        exit_status=info["exit_status"],
        stopped=info["stopped"],
        states=info["cuts"],
        known_status=known_status,
        same_host=same_host,
        rebooted=rebooted,
        kernel=log,
        interval_s=interval_of(proc, timeline),
        rss_bytes=timeline[-1]["rss_bytes"] if timeline else None,
        limit_bytes=limit,
        used_bytes=used if used is not None else charged,
        charged_bytes=charged,
        host_bytes=host_bytes,
        available_bytes=last.get("host_available_bytes"),
        swap_free_bytes=last.get("host_swap_free_bytes"),
        psi_full=last.get("psi_full_avg10"),
        growth_bytes_s=growth(timeline),
        kills_first=rows[0].get("cgroup_oom_kills") if rows else None,
        kills_last=kills_last,
        kills_now=kills_now,
        hits_before=before(rows, "cgroup_limit_hits"),
        hits_last=last.get("cgroup_limit_hits"),
    )


def pressure_of(reader: Reader) -> list[dict[str, Any]]:
    """One row per cut; nothing in captures of older versions."""
    read = getattr(reader, "pressure", None)
    return list(read()) if read is not None else []


def interval_of(proc: dict[str, Any], timeline: Sequence[dict[str, Any]]) -> float:
    """Seconds between two states, at the end."""
    asked = float(proc.get("interval_ns", 10**9)) / 1e9
    last = float(timeline[-1].get("span_s", 0.0)) if timeline else 0.0
    return max(asked, min(last, INTERVAL_MAX_S))


def before(rows: Sequence[dict[str, Any]], key: str) -> Any:
    """What a counter was a minute before the last row."""
    if not rows:
        return None
    limit_ns = rows[-1]["t_ns"] - MINUTE_S * 1e9
    earlier = [row for row in rows if row["t_ns"] <= limit_ns]
    return (earlier[-1] if earlier else rows[0]).get(key)


def last_state_s(info: dict[str, Any]) -> float | None:
    """When the last state was written, in seconds since the epoch."""
    from datetime import datetime

    if not info["started"] or not info["cuts"]:
        return None
    if info.get("last_flush"):
        return datetime.fromisoformat(info["last_flush"]).timestamp()
    return datetime.fromisoformat(info["started"]).timestamp() + float(info["duration_s"])


def host_of(proc: dict[str, Any], info: dict[str, Any]) -> tuple[bool, bool | None]:
    """Whether this is the host of the recording, and whether it was started anew since."""
    if proc.get("boot_id") and proc.get("boot_id") == _boxes.boot_id():
        return True, False
    if proc.get("hostname") != socket.gethostname():
        return False, None
    state_s = last_state_s(info)
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    if state_s is not None and state_s >= booted_s:
        return False, None  # another one, of the same name
    return True, True


# --- growth ---------------------------------------------------------------------------------------


def slope(points: Points) -> float | None:
    """By least squares, per second; None of less than two moments."""
    if len(points) < 2:
        return None
    middle_t = sum(t for t, _ in points) / len(points)
    middle_v = sum(v for _, v in points) / len(points)
    spread = sum((t - middle_t) ** 2 for t, _ in points)
    if spread <= 0:
        return None
    return sum((t - middle_t) * (v - middle_v) for t, v in points) / spread


def window(points: Points, length_s: float) -> Points:
    """The last ones, of so many seconds."""
    return [point for point in points if point[0] >= points[-1][0] - length_s]


def growth(timeline: Sequence[dict[str, Any]]) -> float | None:
    """Of the resident memory, in bytes per second: what it could be in the next seconds, which is
    the steepest of what it was in the last ones."""
    points = [(row["t_s"], float(row["rss_bytes"])) for row in timeline if row["rss_bytes"]]
    slopes = [s for s in (slope(window(points, TREND_S)), slope(points[-2:])) if s is not None]
    return max(slopes) if slopes else None


# --- the host -------------------------------------------------------------------------------------


def group_now(proc: dict[str, Any], limit: int | None) -> dict[str, int]:
    """The counters of the cgroup, if it is still there and looks like the one of the recording."""
    path = proc.get("cgroup_path") or proc.get("cgroup")
    if not path:
        return {}
    group = _cgroup.find(str(path), proc.get("cgroup_version"))
    if group is None or (limit and group.limit_bytes != limit):
        return {}
    return group.counters()


def kernel_log(pid: int, died_s: float) -> str | None:
    """What the kernel says of the end of this process, where its log can be read: "cgroup" or
    "host"."""
    try:
        fd = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    records = []
    try:
        for _ in range(KMSG_RECORDS):
            try:
                records.append(os.read(fd, 8192))
            except BlockingIOError:
                break
            except BrokenPipeError:  # a record was overwritten meanwhile
                continue
    except OSError:
        return None
    finally:
        os.close(fd)
    offset_s = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    return find_kill(records, pid, died_s - offset_s)


def find_kill(records: Sequence[bytes], pid: int, died_s: float) -> str | None:
    """records: as /dev/kmsg has them, "priority,number,microseconds,…;text". died_s: on the
    kernel's clock."""
    for record in records:
        head, _, text = record.partition(b";")
        if b"Killed process " not in text:
            continue
        fields = head.split(b",")
        try:
            at_s = int(fields[2]) / 1e6
            killed = int(text.partition(b"Killed process ")[2].split()[0].rstrip(b","))
        except (IndexError, ValueError):
            continue
        if killed == pid and -KMSG_BEFORE_S <= at_s - died_s <= KMSG_AFTER_S:
            return "cgroup" if b"emory cgroup out of memory" in text else "host"
    return None
