"""Metrics of recorded processes for Prometheus. It needs the package prometheus_client.

    from prometheus_client import REGISTRY
    from pymemtrace.metrics import Collector

    REGISTRY.register(Collector("app.pmt"))  # or the id of a process that is being recorded

docs/user/metrics.md names the metrics.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pymemtrace._watch.figures import Figures, Value, label

try:
    from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as _Base
except ImportError as error:
    raise ImportError(
        "pymemtrace.metrics needs prometheus_client: pip install 'pymemtrace-profiler[metrics]'"
    ) from error

__all__ = ["Collector"]

LABELS = ("pid", "program")

# name, help, figure; of estimates also ..._low and ..._high
GAUGES = (
    ("heap_bytes", "Bytes that are allocated now", "heap_bytes"),
    ("heap_blocks", "Blocks that are allocated now", "heap_blocks"),
    ("rss_bytes", "Resident memory at the last flush", "rss_bytes"),
    ("peak_rss_bytes", "Highest resident memory", "peak_rss_bytes"),
    ("swap_bytes", "Memory that is swapped out", "swap_bytes"),
    ("recorder_bytes", "Memory of the recorder itself", "recorder_bytes"),
    ("sampling_mean_bytes", "Mean distance of samples in allocated bytes", "sample_bytes"),
    ("state_age_seconds", "Time since the last flush", "age_s"),
    ("cgroup_bytes", "Memory of the cgroup", "cgroup_bytes"),
    (
        "cgroup_working_set_bytes",
        "Memory of the cgroup less its inactive files",
        "cgroup_working_set_bytes",
    ),
    ("cgroup_limit_bytes", "Limit of the cgroup", "cgroup_limit_bytes"),
    ("psi_some_avg10", "Per cent of time in which some tasks waited for memory", "psi_some_avg10"),
    ("psi_full_avg10", "Per cent of time in which all tasks waited for memory", "psi_full_avg10"),
    ("host_available_bytes", "Memory that the host has available", "host_available_bytes"),
    ("host_bytes", "Memory of the host", "host_bytes"),
)
COUNTERS = (
    ("allocated_bytes", "Bytes allocated, freed or not", "allocated_bytes", 1.0),
    ("allocations", "Allocations", "allocations", 1.0),
    ("frees", "Blocks freed", "frees", 1.0),
    ("cgroup_oom_kills", "Processes of the cgroup that were OOM killed", "cgroup_oom_kills", 1.0),
    ("cgroup_limit_hits", "Times that the cgroup met its limit", "cgroup_limit_hits", 1.0),
    ("psi_some_seconds", "Time in which some tasks waited for memory", "psi_some_us", 1e-6),
)  # fmt: skip
GENERATIONS = ("young", "middle", "old")


@dataclass(frozen=True)
class Snapshot:
    """All that is exported at one time."""

    processes: Sequence[Figures] = ()
    deaths: Mapping[str, int] = field(default_factory=dict)  # by program
    firing: Mapping[str, int] = field(default_factory=dict)  # by rule
    watch: bool = True  # False: of Collector, which counts neither


class _Families:
    """Gauges and counters by name, each once, in the order in which they came."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def gauge(self, name: str, text: str, labels: Mapping[str, str], value: float) -> None:
        family = self._families.get(name)
        if family is None:
            family = GaugeMetricFamily(f"pymemtrace_{name}", text, labels=list(labels))
            self._families[name] = family
        family.add_metric(list(labels.values()), value)  # type: ignore[attr-defined]

    def counter(self, name: str, text: str, labels: Mapping[str, str], value: float) -> None:
        family = self._families.get(name)
        if family is None:
            family = CounterMetricFamily(f"pymemtrace_{name}", text, labels=list(labels))
            self._families[name] = family
        family.add_metric(list(labels.values()), value)  # type: ignore[attr-defined]

    def limits(self, name: str, text: str, labels: Mapping[str, str], value: Value) -> None:
        if value.low is not None and value.high is not None:
            self.gauge(f"{name}_low", f"{text}: 95 % interval from", labels, value.low)
            self.gauge(f"{name}_high", f"{text}: 95 % interval to", labels, value.high)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


def families(snapshot: Snapshot) -> Iterator[Metric]:
    made = _Families()
    seen: set[tuple[str, str]] = set()
    for figures in snapshot.processes:
        labels = {"pid": str(figures.pid), "program": label(figures.program)}
        # Two captures of one process (it executed itself) would give each sample twice.
        if tuple(labels.values()) in seen:
            continue
        seen.add((labels["pid"], labels["program"]))
        _of_process(made, figures, labels)
    if snapshot.watch:
        running = sum(figures.ended == "running" for figures in snapshot.processes)
        made.gauge("processes", "Recorded processes that are watched", {}, running)
        for program, count in sorted(snapshot.deaths.items()):
            made.counter(
                "deaths", "Processes that ended without closing their capture",
                {"program": label(program)}, count,
            )  # fmt: skip
        for rule, count in snapshot.firing.items():
            made.gauge(
                "alerts_firing", "Processes for which a rule fires", {"rule": label(rule)}, count
            )
    return iter(made)


def _of_process(made: _Families, figures: Figures, labels: dict[str, str]) -> None:
    for name, text, figure in GAUGES:
        value = figures.get(figure)
        if value is not None:
            made.gauge(name, text, labels, value.value)
            made.limits(name, text, labels, value)
    for name, text, figure, factor in COUNTERS:
        value = figures.get(figure)
        if value is not None:
            made.counter(name, text, labels, value.value * factor)
            made.limits(name, text, labels, value)
    for site in figures.sites:
        there = {**labels, "site": site.label}
        for name, what, value in (
            ("site_bytes", "Bytes", site.bytes), ("site_blocks", "Blocks", site.blocks),
        ):  # fmt: skip
            text = f"{what} that are allocated now by the lines that hold most, and by all others"
            made.gauge(name, text, there, value.value)
            made.limits(name, text, there, value)
    for part, size in figures.parts.items():
        there = {**labels, "part": label(part)}
        made.gauge("resident_bytes", "What the resident memory is made up of", there, size)
    for generation, count in zip(GENERATIONS, figures.gc, strict=False):
        there = {**labels, "generation": generation}
        made.counter("gc_collections", "Garbage collections", there, count)
    for name, text, reasons in (
        ("dropped", "What the recorder could not keep", figures.dropped),
        ("recorder_events", "Counters of the recorder", figures.counters),
    ):
        for reason, count in reasons.items():
            made.counter(name, text, {**labels, "reason": label(reason)}, count)


class Collector(_Base):
    """Metrics of a capture, which is read when they are asked for, for a registry of your own.

    capture: its path, or the id of a process that is being recorded. It may be the process itself:
        then the reading, and its memory, are in that process. sites: how many lines that hold
        most are exported one by one.

    A capture that cannot be read, and a process that is not recorded, export
    pymemtrace_capture_readable 0 and nothing else.
    """

    def __init__(self, capture: str | os.PathLike[str] | int, *, sites: int = 10) -> None:
        if not 0 <= sites <= 100:
            raise ValueError("sites must be from 0 to 100")
        self._capture = capture
        self._sites = sites
        self._lock = threading.Lock()  # protects all below
        self._followed: object = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read."""
        return ()

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            figures = self._look()
        readable = GaugeMetricFamily(
            "pymemtrace_capture_readable", "Whether the capture could be read", labels=[]
        )
        readable.add_metric([], figures is not None)
        yield readable
        if figures is not None:
            yield from families(Snapshot([figures], watch=False))

    def _look(self) -> Figures | None:
        from pymemtrace._watch.follow import Followed

        followed = self._followed
        if not isinstance(followed, Followed):
            path: str | None
            if isinstance(self._capture, int):
                from pymemtrace.cli._process import capture_of

                path = capture_of(self._capture)
            else:
                path = os.fspath(self._capture)
            if path is None:
                return None
            self._followed = followed = Followed(path)
        followed.refresh()
        if followed.reader is None:
            if isinstance(self._capture, int):
                self._followed = None
            return None
        return followed.figures(self._sites)


class _Latest(_Base):
    """The snapshot that there is when somebody asks."""

    def __init__(self, latest: Callable[[], Snapshot]) -> None:
        self._latest = latest

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return families(self._latest())


def registry_of(latest: Callable[[], Snapshot]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Latest(latest))
    return registry


def serve(registry: CollectorRegistry, host: str, port: int) -> int:
    """In threads of its own. Returns the port. Raises OSError."""
    server, _ = start_http_server(port, host, registry)
    return int(server.server_port)


def write(registry: CollectorRegistry, path: str) -> None:
    """Another file in its place, at once. Raises OSError."""
    write_to_textfile(path, registry)
