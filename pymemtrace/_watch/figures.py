"""The figures of one process at one moment: what metrics export and rules judge."""

import fnmatch
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pymemtrace._core import Reader
from pymemtrace._types import SiteRow

MAX_LABEL = 80  # characters of a label's value
MAX_SITES = 10_000  # that a rule's pattern looks at

# What a rule may name as `metric`: the figure, and its unit.
METRICS = {
    "heap": ("heap_bytes", "bytes"),
    "blocks": ("heap_blocks", "count"),
    "allocated": ("allocated_bytes", "bytes"),
    "allocations": ("allocations", "count"),
    "rss": ("rss_bytes", "bytes"),
    "peak_rss": ("peak_rss_bytes", "bytes"),
    "swap": ("swap_bytes", "bytes"),
    "recorder": ("recorder_bytes", "bytes"),
    "age": ("age_s", "seconds"),
    "dropped": ("dropped", "count"),
    "cgroup": ("cgroup_bytes", "bytes"),
    "cgroup_working_set": ("cgroup_working_set_bytes", "bytes"),
    "cgroup_fraction": ("cgroup_fraction", "fraction"),
    "cgroup_oom_kills": ("cgroup_oom_kills", "count"),
    "cgroup_limit_hits": ("cgroup_limit_hits", "count"),
    "host_available": ("host_available_bytes", "bytes"),
    "host_available_fraction": ("host_available_fraction", "fraction"),
    "psi_some": ("psi_some_avg10", "percent"),
    "psi_full": ("psi_full_avg10", "percent"),
    "site": ("site", "bytes"),  # with the key `site`, a pattern
    "part": ("part", "bytes"),  # with the key `part`, of `pymemtrace where`
}

# of Reader.pressure() and host.py
SYSTEM = (
    "cgroup_bytes", "cgroup_working_set_bytes", "cgroup_limit_bytes", "cgroup_oom_kills",
    "cgroup_limit_hits", "psi_some_avg10", "psi_full_avg10", "psi_some_us", "host_available_bytes",
    "host_bytes", "swap_bytes", "peak_rss_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Value:
    """low, high: the 95 % interval of an estimate; else None."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def noise(self) -> float:
        """Half of the interval."""
        if self.low is None or self.high is None:
            return 0.0
        return max(0.0, (self.high - self.low) / 2)


@dataclass(frozen=True)
class SiteFigure:
    label: str
    bytes: Value
    blocks: Value


@dataclass
class Figures:
    path: str
    key: str  # names this process, not the next one of its id
    pid: int
    program: str
    ended: str  # "running", "normal", "killed"
    t_s: float  # CLOCK_MONOTONIC at the last flush, of the machine that recorded it
    info: dict[str, Any]
    values: dict[str, Value] = field(default_factory=dict)
    sites: list[SiteFigure] = field(default_factory=list)  # the top ones, then "other"
    by_pattern: dict[str, Value] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    gc: list[int] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    shared: str = ""  # the cgroup's folder, or nothing

    @property
    def name(self) -> str:
        return f"{self.program} ({self.pid})"

    @property
    def sampled(self) -> bool:
        return "sample_bytes" in self.info

    def get(self, figure: str) -> Value | None:
        """Also "site:<pattern>" and "part:<name>"."""
        if figure.startswith("site:"):
            return self.by_pattern.get(figure[5:])
        if figure.startswith("part:"):
            size = self.parts.get(figure[5:])
            return None if size is None else Value(size)
        return self.values.get(figure)

    def number(self, figure: str) -> float | None:
        value = self.get(figure)
        return None if value is None else value.value


def label(text: str) -> str:
    """A label's value: printable, and not longer than MAX_LABEL."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(
            "?" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn") else c
            for c in text
        )
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 3] + "..."


def program_of(command: Iterable[str] | None) -> str:
    """ "app.py" of `python app.py`, "package.module" of `python -m package.module`."""
    words = list(command or ())
    if not words:
        return "unknown"
    index = 1
    while index < len(words):
        word = words[index]
        if word in ("-c", "-"):
            return word
        if re.fullmatch(r"-[A-Za-z]*m", word) and index + 1 < len(words):
            return label(words[index + 1])
        if word in ("-X", "-W", "--check-hash-based-pycs"):
            index += 1
        elif not word.startswith("-"):
            return label(os.path.basename(word.rstrip("/")) or "unknown")
        index += 1
    return label(os.path.basename(words[0]) or "unknown")


def site_label(site: Mapping[str, Any]) -> str:
    """ "file.py:12 function"; of a long name the end of the file's and of the function's."""
    file = os.path.basename(site["file"])
    place = f"{_end(file, 30)}:{site['line']}" if file else _end(site["module"] or "?", 30)
    return label(f"{place} {_end(site['function'], MAX_LABEL - len(place) - 1)}")


def _end(text: str, length: int) -> str:
    return text if len(text) <= length else "..." + text[3 - length :]


def measure(reader: Reader, values: Mapping[str, Any], name: str) -> Value:
    return Value(values[name], values.get(f"{name}_low"), values.get(f"{name}_high"))


def add(a: Value, b: Value) -> Value:
    """Their interval is too wide rather than too narrow."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Value(a.value + b.value, a.low, a.high) if b.low is None else b
    return Value(a.value + b.value, a.low + b.low, a.high + b.high)


def site_figures(rows: Iterable[SiteRow], totals: Mapping[str, Any], top: int) -> list[SiteFigure]:
    """The top ones, and the rest as "other". rows: more than `top` need not be looked at."""
    found: dict[str, SiteFigure] = {}
    for row in rows:
        if not row["bytes"] or len(found) >= top:
            break
        name = site_label(row["site"])
        figure = SiteFigure(name, _value(row, "bytes"), _value(row, "blocks"))
        known = found.get(name)
        if known is not None:  # files of one name
            figure = SiteFigure(
                name, add(known.bytes, figure.bytes), add(known.blocks, figure.blocks)
            )
        found[name] = figure
    sites = sorted(found.values(), key=lambda site: -site.bytes.value)
    rest = {
        name: totals[name] - sum(getattr(site, name).value for site in sites)
        for name in ("bytes", "blocks")
    }
    sites.append(SiteFigure("other", *(_rest(rest[n], totals, n) for n in ("bytes", "blocks"))))
    return sites


def _value(row: Mapping[str, Any], name: str) -> Value:
    return Value(row[name], row.get(f"{name}_low"), row.get(f"{name}_high"))


def _rest(value: float, totals: Mapping[str, Any], name: str) -> Value:
    """No interval: that of a sum less a part is not known."""
    return Value(max(0, value))


def match_sites(rows: Iterable[SiteRow], pattern: str) -> Value:
    """The sum over the sites whose file, label or function matches."""
    total, low, high, sampled = 0.0, 0.0, 0.0, False
    for row in rows:
        site = row["site"]
        function = site["function"]
        place = f"{site['file']}:{site['line']}"
        names = (f"{place} {function}", place, site["file"], function, site_label(site))
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            value = _value(row, "bytes")
            total += value.value
            sampled = sampled or value.low is not None
            low += value.value if value.low is None else value.low
            high += value.value if value.high is None else value.high
    return Value(total, low, high) if sampled else Value(total)


def of_reader(
    reader: Reader,
    info: dict[str, Any],
    facts: Mapping[str, Any],
    key: str,
    *,
    top: int = 10,
    patterns: Iterable[str] = (),
) -> Figures:
    """What the capture says; `system_figures` adds what the system says."""
    totals = reader.totals()
    t_s = fact(facts, "started_mono_ns") / 1e9 + totals["end_t_s"]
    command = info["command"] if isinstance(info["command"], list) else None
    figures = Figures(
        path=reader.path, key=key, pid=info["pid"], program=program_of(command),
        ended=info["ended"], t_s=t_s, info=info,
    )  # fmt: skip
    put = figures.values
    for name in ("heap_bytes", "heap_blocks"):
        end = f"{name}_end"
        put[name] = Value(totals[end], totals.get(f"{end}_low"), totals.get(f"{end}_high"))
    for name in ("allocated_bytes", "allocations"):
        put[name] = _value(totals, name)
    put["frees"] = Value(totals["frees"])
    put["recorder_bytes"] = Value(totals["recorder_bytes"])
    if totals["rss_bytes_end"]:
        put["rss_bytes"] = Value(totals["rss_bytes_end"])
    put["peak_rss_bytes"] = Value(totals["rss_bytes_peak"])
    figures.gc = list(totals["gc_collections"])
    figures.dropped = dict(info["dropped"])
    if info["folded"]:
        figures.dropped["stacks folded"] = info["folded"]
    put["dropped"] = Value(sum(figures.dropped.values()))
    figures.counters = dict(info["counters"])
    if figures.sampled:
        put["sample_bytes"] = Value(info["sample_bytes_now"])
    aggregate = reader.aggregate("leaks")
    patterns = list(patterns)
    rows = aggregate.sites(MAX_SITES if patterns else max(top + 1, 2 * top))
    figures.sites = site_figures(rows, aggregate.totals, top)
    figures.by_pattern = {pattern: match_sites(rows, pattern) for pattern in patterns}
    where = reader.where()
    if where is not None:
        figures.parts = {part["name"]: part["bytes"] for part in where["parts"]}
        figures.parts["unattributed"] = where["unattributed_bytes"]
    pressure = last_pressure(reader)
    put.update({name: Value(pressure[name]) for name in SYSTEM if name in pressure})
    return figures


def last_pressure(reader: Reader) -> dict[str, float]:
    rows = pressure_rows(reader, 1)
    return rows[-1] if rows else {}


def pressure_rows(reader: Reader, last: int | None = None) -> list[dict[str, float]]:
    """The names of SYSTEM as far as they are known, and t_ns. Captures of before have none."""
    method = getattr(reader, "pressure", None)
    rows = method(last=last) if method is not None else ()
    return [
        {name: row[name] for name in ("t_ns", *SYSTEM) if row.get(name) is not None} for row in rows
    ]


def fact(facts: Mapping[str, Any], name: str) -> int:
    """A number; 0 where a capture has none, or something else."""
    value = facts.get(name)
    return value if isinstance(value, int) else 0


def add_system(figures: Figures, system: Mapping[str, float]) -> None:
    """system: what host.py says now; the capture's own figures come first, but for those that
    are only as new as the last flush."""
    put = figures.values
    for name, value in system.items():
        if name == "peak_rss_bytes" or name not in put:
            put[name] = Value(value)


def derive(figures: Figures) -> None:
    """Fractions."""
    put, number = figures.values, figures.number
    limit, used = number("cgroup_limit_bytes"), number("cgroup_working_set_bytes")
    used = number("cgroup_bytes") if used is None else used
    if limit and used is not None:
        put["cgroup_fraction"] = Value(used / limit)
    host, available = number("host_bytes"), number("host_available_bytes")
    if host and available is not None:
        put["host_available_fraction"] = Value(available / host)
