"""How short memory was around a process, in a line or two."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from pymemtrace.cli import _format
from pymemtrace.cli._page import Segment

STALLED = 1.0  # per cent of 10 s: from here on it is worth saying


def short(now: dict[str, Any]) -> str:
    """`498.0 MiB of 512 MiB`, where there is a limit."""
    usage, limit = now["cgroup_bytes"], now["cgroup_limit_bytes"]
    if usage is None or limit is None:
        return ""
    return f"{_format.size(usage)} of {_format.setting(limit)}"


def _times(number: int, one: str, many: str) -> str:
    return f"{_format.count(number)} {one if number == 1 else many}"


def _since(rows: Sequence[dict[str, Any]], key: str) -> int:
    """How much a counter has grown while it was looked at. It can start anew, in another cgroup."""
    known = [row[key] for row in rows if row[key] is not None]
    return sum(max(0, b - a) for a, b in itertools.pairwise(known))


def _stalls(rows: Sequence[dict[str, Any]]) -> str:
    now = rows[-1]["psi_some_avg10"] or 0.0
    highest = max(row["max_psi_some_avg10"] or 0.0 for row in rows)
    where = " on the host" if rows[-1]["psi_of"] == "host" else ""
    if now >= STALLED:
        return f"memory stalls {now:.1f} % of the last 10 s{where}"
    if highest >= STALLED:
        return f"memory stalls up to {highest:.1f} % of 10 s{where}"
    return ""


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Segment]]]:
    """What is worth saying of Reader.pressure(): nothing, where memory has no limit and nobody
    waited for it."""
    if not rows:
        return
    last = rows[-1]
    what = short(last)
    text = []
    if hits := _since(rows, "cgroup_limit_hits"):
        text.append(_times(hits, "limit hit", "limit hits"))
    if kills := _since(rows, "cgroup_oom_kills"):
        text.append(_times(kills, "process killed for it", "processes killed for it"))
    if stalls := _stalls(rows):
        text.append(stalls)
    if what:
        peak = max(row["max_cgroup_bytes"] or 0 for row in rows)
        if peak > last["cgroup_bytes"] * 1.05:
            text.insert(0, f"{_format.size(peak)} at most")
        more = "".join(f", {part}" for part in text)
        yield "cgroup", [(what, "bold"), (f" at the end{more}", "")]
    elif text:
        yield "memory pressure", [(", ".join(text), "yellow")]
