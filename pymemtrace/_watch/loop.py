"""Watching: look, export, judge, tell, and again."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pymemtrace
from pymemtrace._watch import rules as rule_files
from pymemtrace._watch.actions import Dispatcher
from pymemtrace._watch.alerts import Engine, Event, Point, death_text
from pymemtrace._watch.figures import Figures, Value, fact, pressure_rows
from pymemtrace._watch.follow import Followed, Targets
from pymemtrace._watch.rules import Ruleset

if TYPE_CHECKING:
    from pymemtrace.metrics import Snapshot

SHARE = 0.1  # of one CPU: with very large captures it looks less often
MAX_PROGRAMS = 64
SAME_S = 2e-6  # two rows of one flush

Say = Callable[[str], None]


class Rules:
    """A rule file, read again when it changes. A wrong one changes nothing."""

    def __init__(self, path: str, say: Say) -> None:
        self.path = path
        self._say = say
        self._state = self._look()
        self.ruleset = rule_files.load(path)  # raises OSError
        for line in rule_files.problem_lines(path, self.ruleset.problems):
            say(f"{line} (left out)")

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self.path)
        except OSError:
            return ()
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def refresh(self) -> bool:
        """Whether there are others now."""
        state = self._look()
        if state == self._state:
            return False
        self._state = state
        try:
            new = rule_files.load(self.path)
        except OSError as error:
            self._say(f"{self.path}: cannot read the rules ({error.strerror}): the old ones hold")
            return False
        if new.problems:
            first, *more = rule_files.problem_lines(self.path, new.problems)
            others = f" (and {len(more)} more)" if more else ""
            self._say(f"{first}{others}: the old rules hold")
            return False
        self.ruleset = new
        self._say(f"{self.path}: {len(new.rules)} rules, read again")
        return True


class Watcher:
    """tick() is one look. Nothing but `say` tells of what goes wrong."""

    def __init__(
        self,
        targets: Targets,
        say: Say,
        *,
        rules: Rules | None = None,
        sites: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.targets = targets
        self.processes: list[Figures] = []
        self.deaths: dict[str, int] = {}
        self.events: list[Event] = []  # of the last look
        self._say = say
        self._rules = rules
        self._sites = sites
        self._clock = clock
        self.engine = Engine(rules.ruleset if rules else Ruleset())
        self._dispatcher = Dispatcher(say)
        self._dispatcher.set_actions(self.engine.ruleset.actions)
        self._writers: list[Callable[[], None]] = []
        self._published: Snapshot | None = None
        self._failed: set[str] = set()
        self._held_back = 0

    # --- exporting ---

    def snapshot(self) -> "Snapshot":
        from pymemtrace.metrics import Snapshot

        return Snapshot(list(self.processes), dict(self.deaths), self.engine.firing())

    def serve(self, host: str, port: int) -> int:
        """Returns the port. Raises ImportError, OSError."""
        from pymemtrace import metrics

        self._publish()
        registry = metrics.registry_of(lambda: self._published or metrics.Snapshot())
        return metrics.serve(registry, host, port)

    def write_to(self, path: str) -> None:
        """After every look. Raises ImportError."""
        from pymemtrace import metrics

        registry = metrics.registry_of(self.snapshot)

        def write() -> None:
            try:
                metrics.write(registry, path)
                self._failed.discard(path)
            except OSError as error:
                if path not in self._failed:
                    self._say(f"cannot write the metrics ({error.strerror or error}): {path}")
                self._failed.add(path)

        self._writers.append(write)

    def _publish(self) -> None:
        self._published = self.snapshot()

    # --- looking ---

    def tick(self) -> None:
        if self._rules is not None and self._rules.refresh():
            self.engine.set_rules(self._rules.ruleset)
            self._dispatcher.set_actions(self._rules.ruleset.actions)
        patterns = self.engine.ruleset.patterns
        self.events = []
        processes = []
        for followed in self.targets.refresh():
            figures = followed.figures(self._sites, patterns)
            if figures is not None:
                processes.append(figures)
                self._judge(followed, figures)
        self.processes = processes
        now = self._clock()
        for death in self.targets.deaths:
            self._count_death(death.figures.program)
            events = self.engine.died(death, now)
            self.events += events
            if not any("log" in event.rule.actions for event in events):
                self._say(f"{death.figures.name}: {death_text(death)}")
        self.events += self.engine.keep(processes, now)
        for event in self.events:
            self._dispatcher.send(event)
        if self.engine.held_back > self._held_back:
            if self._held_back == 0:
                limit = self.engine.ruleset.max_per_hour
                self._say(f"{limit} alerts in an hour (max_per_hour): others are held back")
            self._held_back = self.engine.held_back
        if self._published is not None:
            self._publish()
        for write in self._writers:
            write()

    def _judge(self, followed: Followed, figures: Figures) -> None:
        now = self._clock()
        if not self.engine.knows(figures) and self.engine.ruleset.rules and followed.reader:
            points = past_points(followed, figures, now, self.engine.ruleset.longest_s)
            self.engine.remember(figures, points)
        self.events += self.engine.observe(figures, now)

    def _count_death(self, program: str) -> None:
        if program not in self.deaths and len(self.deaths) >= MAX_PROGRAMS:
            program = "other"
        self.deaths[program] = self.deaths.get(program, 0) + 1

    def run(
        self,
        interval_s: float,
        stop: threading.Event,
        until: Callable[[], bool] | None = None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """until: asked often; there is one more look after it has said yes."""
        while not stop.is_set():
            began, cost = time.monotonic(), time.process_time()
            last = until is not None and until()
            try:
                self.tick()
            except Exception as error:  # a mistake of ours is no reason to watch no more
                text = f"{type(error).__name__}: {error}"
                if text not in self._failed and len(self._failed) < 100:
                    self._say(f"a look failed: {text}")
                    self._failed.add(text)
            after()
            if last:
                return
            cost = time.process_time() - cost
            wait_until = began + max(interval_s, cost / SHARE)
            while not stop.is_set() and (left := wait_until - time.monotonic()) > 0:
                if until is not None and until():
                    break
                stop.wait(left if until is None else min(left, 0.1))

    def close(self) -> None:
        """Without processes in the last file of metrics: they are not watched any more."""
        self.processes = []
        for write in self._writers:
            write()
        self.finish()

    def finish(self) -> None:
        self._dispatcher.close()
        self.targets.close()


def past_points(followed: Followed, figures: Figures, now: float, span_s: float) -> list[Point]:
    """What the capture says of the time before now, on our clock."""
    reader = followed.reader
    if reader is None:
        return []
    start = fact(followed.facts, "started_mono_ns") / 1e9
    # Of a process that is not on this machine, or has ended, the last flush counts as now.
    if not followed.is_alive or figures.t_s > now:
        start += now - figures.t_s
    rows: list[tuple[float, dict[str, float]]] = [
        (start + row["t_s"], {n: row[n] for n in ("heap_bytes", "rss_bytes", "heap_blocks")})
        for row in reader.timeline()
        if start + row["t_s"] > now - span_s - 60.0 and not row["main_returned"]
    ]
    rows += [(start + row["t_ns"] / 1e9, row) for row in pressure_rows(reader) if "t_ns" in row]
    rows = [(at, row) for at, row in rows if now - span_s - 60.0 < at < now]
    rows.sort(key=lambda pair: pair[0])
    points: list[Point] = []
    known: dict[str, Value] = {}
    for at, row in rows:  # a figure is what it was until it is told anew
        known = known | {
            name: past_value(figures, name, value) for name, value in row.items() if name != "t_ns"
        }
        if points and at - points[-1][0] < SAME_S:
            points.pop()
        points.append((at, known))
    return points


def past_value(figures: Figures, name: str, number: float) -> Value:
    """With an interval as that of now, which becomes wider with the root of what it is of."""
    now = figures.get(name)
    if now is None or now.low is None or now.value <= 0:
        return Value(number)
    half = now.noise * (max(number, 0.0) / now.value) ** 0.5
    return Value(number, number - half, number + half)


# --- JSON -----------------------------------------------------------------------------------------


def json_of(watcher: Watcher, events: Sequence[Event]) -> dict[str, Any]:
    """What --json prints."""
    from pymemtrace._watch.actions import payload

    return {
        "pymemtrace": pymemtrace.__version__,
        "format": 1,
        "captures": [figures.info for figures in watcher.processes],
        "processes": [process_json(figures) for figures in watcher.processes],
        "alerts": [payload(event) for event in events],
        "rules": [
            {
                "rule": rule.name, "pid": state.figures.pid if state.figures else None,
                "state": state.name, "value": finite(state.verdict.value),
                "low": finite(state.verdict.low), "high": finite(state.verdict.high),
                "unit": rule.unit, "note": state.verdict.note, "text": state.verdict.text,
            }
            for rule, state in watcher.engine.states()
        ],
        "deaths": dict(watcher.deaths),
    }  # fmt: skip


def finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < 1e300 else None


def value_json(value: Value) -> Any:
    if value.low is None:
        return value.value
    return {"estimate": value.value, "low": value.low, "high": value.high}


def process_json(figures: Figures) -> dict[str, Any]:
    return {
        "pid": figures.pid,
        "program": figures.program,
        "path": figures.path,
        "ended": figures.ended,
        **{name: value_json(value) for name, value in sorted(figures.values.items())},
        "sites": [
            {"site": s.label, "bytes": value_json(s.bytes), "blocks": value_json(s.blocks)}
            for s in figures.sites
        ],
        "parts": figures.parts,
        "gc_collections": figures.gc,
        "dropped": figures.dropped,
    }
