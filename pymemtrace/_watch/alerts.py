"""Rules against figures: what fires, and what is cleared again.

One state per rule and process; of what processes share (the limit and the pressure of a cgroup, the
host's memory) one per rule and group. All times are of a monotonic clock that is handed in.
"""

import fnmatch
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pymemtrace._watch.figures import Figures, Value
from pymemtrace._watch.follow import Death
from pymemtrace._watch.rules import Rule, Ruleset, show
from pymemtrace._watch.trend import Trend, trend
from pymemtrace.cli import _format

MAX_POINTS = 360  # of a history
MIN_COVERED = 0.5  # of a window, before anything is said about it
SURE = 3.0  # a time to exhaustion is told if its upper limit is at most so many times it
HOUR_S = 3600.0
DEFAULT_SPAN_S = 600.0

Point = tuple[float, dict[str, Value]]


@dataclass(frozen=True)
class Verdict:
    """breach, clear: neither of them between the two thresholds. value None: not known now."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    breach: bool = False
    clear: bool = False
    note: str = ""  # why nothing is known, or how sure it is
    text: str = ""


@dataclass(frozen=True)
class Event:
    """What people are told."""

    rule: Rule
    state: str  # "firing", "cleared"
    figures: Figures
    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    held_s: float = 0.0
    suppressed: int = 0  # of the same rule and process since the last one

    @property
    def line(self) -> str:
        what = "ALERT" if self.state == "firing" else "cleared"
        more = f" ({self.suppressed} more were held back)" if self.suppressed else ""
        name = _format.clean(self.figures.name)
        held = ""
        if self.state == "firing" and self.rule.for_s > 0:
            held = f"; for {_format.duration(self.held_s)}"
        return f"{what} {self.rule.severity}: {self.rule.name}: {name}: {self.text}{held}{more}"


@dataclass
class State:
    """Of a rule for a process."""

    pending_s: float | None = None  # since when it holds
    active: bool = False
    notified: bool = False
    since_s: float = 0.0
    fired_s: float = -math.inf
    suppressed: int = 0
    counted: bool = False  # this breach is in `suppressed`
    verdict: Verdict = field(default_factory=Verdict)
    figures: Figures | None = None

    @property
    def name(self) -> str:
        if self.active:
            return "firing"
        if self.pending_s is not None:
            return "pending"
        return "ok" if self.verdict.value is not None else "unknown"


class History:
    """Points of a process, at equal distances, and the newest."""

    def __init__(self, span_s: float = DEFAULT_SPAN_S) -> None:
        self.points: deque[Point] = deque()
        self.set_span(span_s)

    def set_span(self, span_s: float) -> None:
        self._span_s = max(span_s, 10.0)
        self._step_s = self._span_s / MAX_POINTS

    def add(self, at: float, values: dict[str, Value]) -> None:
        points = self.points
        if points and at < points[-1][0]:
            return
        if len(points) >= 2 and points[-1][0] - points[-2][0] < self._step_s:
            points.pop()
        points.append((at, values))
        while points[0][0] < at - self._span_s - 2 * self._step_s:
            points.popleft()

    def series(self, figure: str, since: float) -> list[tuple[float, Value]]:
        return [
            (at, values[figure])
            for at, values in self.points
            if at >= since - self._step_s and figure in values
        ]


class Budget:
    """At most so many in any hour."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held_back = 0
        self._times: deque[float] = deque()

    def take(self, now: float) -> bool:
        while self._times and self._times[0] <= now - HOUR_S:
            self._times.popleft()
        if len(self._times) >= self.limit:
            return False
        self._times.append(now)
        return True


class Engine:
    """observe() and died() return what is to be told."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset
        self._budget = Budget(ruleset.max_per_hour)
        self._states: dict[tuple[str, str], State] = {}
        self._histories: dict[str, History] = {}
        self._death_states: dict[tuple[str, str], State] = {}

    def set_rules(self, ruleset: Ruleset) -> None:
        """States of rules that are as before stay."""
        same = {replace(r, line=0) for r in self.ruleset.rules} & {
            replace(r, line=0) for r in ruleset.rules
        }
        names = {rule.name for rule in same}
        self._states = {key: s for key, s in self._states.items() if key[0] in names}
        self._death_states = {key: s for key, s in self._death_states.items() if key[0] in names}
        self.ruleset = ruleset
        self._budget.limit = ruleset.max_per_hour
        for history in self._histories.values():
            history.set_span(self._span_s)

    @property
    def _span_s(self) -> float:
        return max(self.ruleset.longest_s, 60.0)

    @property
    def held_back(self) -> int:
        """By the limit of an hour, so far."""
        return self._budget.held_back

    def states(self) -> Iterator[tuple[Rule, State]]:
        rules = {rule.name: rule for rule in self.ruleset.rules}
        for (name, _), state in self._states.items():
            if state.figures is not None and name in rules:
                yield rules[name], state

    def firing(self) -> dict[str, int]:
        counts = {rule.name: 0 for rule in self.ruleset.rules if rule.kind != "death"}
        for rule, state in self.states():
            counts[rule.name] += state.active
        return counts

    # --- what comes ---

    def knows(self, figures: Figures) -> bool:
        return figures.key in self._histories

    def remember(self, figures: Figures, points: Sequence[Point], looks: int = 60) -> None:
        """What a process did before it was watched, so that what has held for long fires at once.
        Nobody is told of what was cleared meanwhile."""
        step = max(1, len(points) // looks)
        for number, (at, values) in enumerate(points):
            self._history(figures).add(at, values)
            if number % step == 0 or number == len(points) - 1:
                past = replace(figures, values=values, by_pattern={}, parts={})
                for rule in self._rules_for(figures):
                    self._step(rule, past, at, muted=True)

    def observe(self, figures: Figures, now: float) -> list[Event]:
        self._history(figures).add(now, self._tracked(figures))
        events = []
        for rule in self._rules_for(figures):
            event = self._step(rule, figures, now)
            if event is not None:
                events.append(event)
        return events

    def died(self, death: Death, now: float) -> list[Event]:
        events = []
        for rule in self.ruleset.rules:
            if rule.kind != "death" or not matches(rule, death.figures):
                continue
            # a program that dies again and again is one storm, though each process is another
            state = self._death_states.setdefault((rule.name, death.figures.program), State())
            if self._may_fire(rule, state, now):
                text = death_text(death)
                events.append(
                    Event(rule, "firing", death.figures, text, suppressed=state.suppressed)
                )
                state.suppressed = 0
            else:
                state.suppressed += 1
        while len(self._death_states) > 1000:
            del self._death_states[next(iter(self._death_states))]
        return events

    def keep(self, alive: Iterable[Figures], now: float) -> list[Event]:
        """Forgets all other processes. What they had fired is cleared with them."""
        alive = list(alive)
        scopes = {scope_of(rule, one) for rule in self.ruleset.rules for one in alive}
        keys = {one.key for one in alive}
        self._histories = {k: h for k, h in self._histories.items() if k in keys}
        events = []
        for key, state in list(self._states.items()):
            if key[1] in scopes:
                continue
            del self._states[key]
            rule = next((r for r in self.ruleset.rules if r.name == key[0]), None)
            if rule and state.active and state.notified and state.figures is not None:
                held = now - state.since_s
                events.append(Event(rule, "cleared", state.figures, "it has ended", held_s=held))
        return events

    # --- one rule ---

    def _history(self, figures: Figures) -> History:
        return self._histories.setdefault(figures.key, History(self._span_s))

    def _rules_for(self, figures: Figures) -> list[Rule]:
        return [
            rule for rule in self.ruleset.rules if rule.kind != "death" and matches(rule, figures)
        ]

    def _tracked(self, figures: Figures) -> dict[str, Value]:
        names = {"dropped", "heap_bytes", "rss_bytes", "host_bytes", "host_available_bytes",
                 "cgroup_bytes", "cgroup_working_set_bytes", "cgroup_limit_bytes"}  # fmt: skip
        names |= {rule.figure for rule in self.ruleset.rules if rule.kind == "growth"}
        values = {name: figures.get(name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _step(self, rule: Rule, figures: Figures, now: float, muted: bool = False) -> Event | None:
        state = self._states.setdefault((rule.name, scope_of(rule, figures)), State())
        verdict = judge(rule, figures, self._history(figures), now)
        state.verdict, state.figures = verdict, figures
        if verdict.value is None:  # neither broken nor kept
            if not state.active:
                state.pending_s = None
            return None
        if state.active:
            if verdict.clear:
                return self._clear(rule, state, figures, now)
            return None if muted or state.notified else self._fire(rule, state, figures, now)
        if not verdict.breach:
            state.pending_s = None
            return None
        if state.pending_s is None:
            state.pending_s, state.counted = now, False
        if now - state.pending_s < rule.for_s:
            return None
        state.active, state.since_s = True, state.pending_s
        return None if muted else self._fire(rule, state, figures, now)

    def _fire(self, rule: Rule, state: State, figures: Figures, now: float) -> Event | None:
        if not self._may_fire(rule, state, now):
            if not state.counted:
                state.counted = True
                state.suppressed += 1
            return None
        state.notified = True
        suppressed, state.suppressed = state.suppressed - state.counted, 0
        verdict = state.verdict
        return Event(
            rule, "firing", figures, verdict.text, verdict.value, verdict.low, verdict.high,
            now - state.since_s, max(0, suppressed),
        )  # fmt: skip

    def _may_fire(self, rule: Rule, state: State, now: float) -> bool:
        if now - state.fired_s < rule.cooldown_s:
            return False
        if not self._budget.take(now):
            self._budget.held_back += not state.counted
            return False
        state.fired_s = now
        return True

    def _clear(self, rule: Rule, state: State, figures: Figures, now: float) -> Event | None:
        was_told, held = state.notified, now - state.since_s
        state.active = state.notified = state.counted = False
        state.pending_s = None
        if not was_told:
            return None
        verdict = state.verdict
        text = f"{verdict.text}; it had held for {_format.duration(held)}"
        return Event(rule, "cleared", figures, text, verdict.value, verdict.low, verdict.high, held)


def matches(rule: Rule, figures: Figures) -> bool:
    return rule.program == "*" or fnmatch.fnmatchcase(figures.program, rule.program)


def scope_of(rule: Rule, figures: Figures) -> str:
    is_shared = rule.kind in ("exhaustion", "pressure") or rule.figure.startswith(
        ("cgroup_", "host_", "psi_")
    )
    if is_shared:
        on_host = rule.resource == "host" or rule.figure.startswith("host_")
        return "the host" if on_host or not figures.shared else f"cgroup {figures.shared}"
    return figures.key


# --- verdicts -------------------------------------------------------------------------------------


def judge(rule: Rule, figures: Figures, history: History, now: float) -> Verdict:
    if rule.kind in ("threshold", "pressure"):
        return judge_threshold(rule, figures)
    if rule.kind == "growth":
        return judge_growth(rule, history, now)
    if rule.kind == "exhaustion":
        return judge_exhaustion(rule, figures, history, now)
    return judge_drops(rule, figures, history, now)


def title(rule: Rule) -> str:
    return rule.figure.removesuffix("_bytes").removesuffix("_s").replace("_", " ")


def judge_threshold(rule: Rule, figures: Figures) -> Verdict:
    value = figures.get(rule.figure)
    if value is None:
        return Verdict(note="not known")
    number, clear = value.value, rule.clear
    text = f"{title(rule)} is {show(rule.unit, number)}"
    if value.low is not None and value.low != value.high:
        text += f" ({show(rule.unit, value.low)} to {show(rule.unit, value.high)})"
    if rule.above is not None:
        breach, is_clear = number > rule.above, clear is None or number <= clear
        text += f"; the limit is {show(rule.unit, rule.above)}"
    else:
        below = rule.below or 0.0
        breach, is_clear = number < below, clear is None or number >= clear
        text += f"; the limit is at least {show(rule.unit, below)}"
    return Verdict(number, value.low, value.high, breach, is_clear and not breach, text=text)


def window_trend(
    history: History, figures: Sequence[str], rule: Rule, now: float
) -> tuple[Trend | None, str, str]:
    """Of the first of the figures that is known; the figure; why there is none."""
    for figure in figures:
        series = history.series(figure, now - rule.window_s)
        if not series:
            continue
        first, last = series[0], series[-1]
        if last[0] - first[0] < MIN_COVERED * rule.window_s:
            return None, figure, "too short a time"
        # The errors of two estimates of one process agree in part; here they are taken for
        # independent, so that the noise is rather over- than underestimated.
        noise = math.hypot(first[1].noise, last[1].noise)
        found = trend([(at, value.value) for at, value in series], noise)
        return found, figure, "" if found else "too few points"
    return None, "", "not known"


def judge_growth(rule: Rule, history: History, now: float) -> Verdict:
    found, _, why = window_trend(history, [rule.figure], rule, now)
    if found is None:
        return Verdict(note=why)
    above = rule.above or 0.0
    sure = found.low > 0 and found.steady
    rate = show(rule.unit, found.slope)
    text = (
        f"{title(rule)} grows by {rate} ({show(rule.unit, found.low)} to"
        f" {show(rule.unit, found.high)}) over {_format.duration(found.span_s)};"
        f" the limit is {show(rule.unit, above)}"
    )
    breach = found.slope > above
    return Verdict(
        found.slope, found.low, found.high,
        breach and sure,
        not breach and found.slope <= (rule.clear or 0.0),
        "" if sure or not breach else "low confidence: the growth is within the noise",
        text,
    )  # fmt: skip


def judge_exhaustion(rule: Rule, figures: Figures, history: History, now: float) -> Verdict:
    cgroup, host = figures.number("cgroup_limit_bytes"), figures.number("host_bytes")
    on_host = rule.resource == "host" or (
        rule.resource == "auto" and (cgroup is None or (host is not None and cgroup > host))
    )
    available = figures.number("host_available_bytes")
    if on_host:
        if host is None or available is None:
            return Verdict(note="the host's memory is not known")
        what, limit, left = "the host's memory", host, available
        names: Sequence[str] = ("host_available_bytes",)
    else:
        names = ("cgroup_working_set_bytes", "cgroup_bytes")
        used = next((v for v in map(figures.number, names) if v is not None), None)
        if cgroup is None or used is None:
            return Verdict(note="the cgroup has no limit")
        what, limit, left = "its cgroup's limit", cgroup, max(0.0, cgroup - used)
    found, _, why = window_trend(history, names, rule, now)
    if found is None:
        return Verdict(note=why)
    slope, low, high = found.slope, found.low, found.high
    if on_host:  # what is left becomes less
        slope, low, high = -slope, -high, -low
    if slope <= 0:
        return Verdict(math.inf, clear=True, text=f"{what} is not being used up")
    seconds, soonest = left / slope, left / high
    latest = left / low if low > 0 else math.inf
    sure = low > 0 and found.steady and latest <= SURE * max(seconds, 1.0)
    until = "unknown" if math.isinf(latest) else _format.duration(latest)
    text = (
        f"{what} ({show('bytes', limit)}) is reached in {_format.duration(seconds)}"
        f" ({_format.duration(soonest)} to {until}) at {show('bytes/s', slope)};"
        f" {show('bytes', left)} are left"
    )
    return Verdict(
        seconds, soonest, latest,
        seconds < rule.within_s and sure,
        seconds > (rule.clear or 0.0) or low <= 0,
        "" if sure else "low confidence: the trend is within the noise",
        text,
    )  # fmt: skip


def judge_drops(rule: Rule, figures: Figures, history: History, now: float) -> Verdict:
    series = history.series("dropped", now - rule.window_s)
    if not series:
        return Verdict(note="not known")
    new = max(0.0, series[-1][1].value - series[0][1].value)
    what = ", ".join(f"{count:,} {reason}" for reason, count in figures.dropped.items())
    text = (
        f"{new:,.0f} events were dropped in {_format.duration(rule.window_s)};"
        f" since the start: {what or 'none'}"
    )
    breach = new > (rule.above or 0.0)
    return Verdict(new, breach=breach, clear=not breach, text=text)


def death_text(death: Death) -> str:
    figures = death.figures
    words = [f"it ended without closing its capture{': ' * bool(death.status)}{death.status}"]
    if death.oom_kills:
        words.append(f"its cgroup counted {death.oom_kills} OOM kill(s)")
    words.append(f"last state: {last_state(figures)}")
    return "; ".join(words)


def last_state(figures: Figures) -> str:
    parts = []
    for name, what in (("heap_bytes", "heap"), ("rss_bytes", "RSS")):
        number = figures.number(name)
        if number is not None:
            parts.append(f"{what} {show('bytes', number)}")
    fraction, limit = figures.number("cgroup_fraction"), figures.number("cgroup_limit_bytes")
    if fraction is not None:
        parts.append(f"cgroup at {show('fraction', fraction)} of {show('bytes', limit)}")
    if figures.sites and figures.sites[0].label != "other":
        top = figures.sites[0]
        parts.append(f"most in {top.label} ({show('bytes', top.bytes.value)})")
    return ", ".join(parts) or "nothing was recorded"
