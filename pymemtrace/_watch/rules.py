"""A rule file, checked: docs/user/alerts.md says what may stand in it.

A wrong rule is left out, and a Problem with its line says why; all others hold.
"""

import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pymemtrace._watch import units
from pymemtrace._watch.figures import METRICS
from pymemtrace._watch.lines import Lines
from pymemtrace._watch.units import shown
from pymemtrace.cli import _format

MAX_FILE_BYTES = 1 << 20
MAX_RULES, MAX_ACTIONS = 100, 16
MAX_TEXT = 200
DAY_S = 86400.0

KINDS = ("threshold", "growth", "exhaustion", "pressure", "drops", "death")
LATER = {"leak": "leak verdicts"}
ACTION_KINDS = ("log", "webhook", "command")
LATER_ACTIONS = {"snapshot": "heap graphs"}
SEVERITIES = ("info", "warning", "critical")
HYSTERESIS = 0.9


@dataclass(frozen=True)
class Problem:
    line: int
    text: str


@dataclass(frozen=True)
class Rule:
    """Sizes in bytes, times in seconds, rates per second, fractions 0 to 1, PSI in per cent."""

    name: str
    kind: str
    line: int
    figure: str = ""  # of Figures.get(); of growth and threshold
    unit: str = ""
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    window_s: float = 600.0
    within_s: float = 0.0
    resource: str = "auto"
    program: str = "*"
    for_s: float = 0.0
    cooldown_s: float = 600.0
    severity: str = "warning"
    labels: tuple[tuple[str, str], ...] = ()
    actions: tuple[str, ...] = ("log",)
    send_cleared: bool = False

    @property
    def pattern(self) -> str | None:
        """Of sites."""
        return self.figure[5:] if self.figure.startswith("site:") else None


@dataclass(frozen=True)
class Action:
    name: str
    kind: str
    line: int = 0
    file: str = ""  # of log; nothing: standard error
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    argv: tuple[str, ...] = ()
    timeout_s: float = 10.0
    retries: int = 3


@dataclass
class Ruleset:
    rules: list[Rule] = field(default_factory=list)
    actions: dict[str, Action] = field(default_factory=dict)
    max_per_hour: int = 30
    problems: list[Problem] = field(default_factory=list)

    @property
    def patterns(self) -> list[str]:
        return sorted({rule.pattern for rule in self.rules if rule.pattern is not None})

    @property
    def longest_s(self) -> float:
        """That a rule looks back."""
        return max((max(rule.window_s, rule.for_s) for rule in self.rules), default=0.0)


def load(path: str) -> Ruleset:
    """Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    return parse(content)


def parse(content: bytes) -> Ruleset:
    """Never raises, whatever it is given."""
    result = Ruleset(actions={"log": Action("log", "log")})
    if len(content) > MAX_FILE_BYTES:
        result.problems.append(Problem(1, "the file is larger than 1 MiB"))
        return result
    try:
        text = content.decode().replace("\r\n", "\n")
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        result.problems.append(Problem(line, "this is no UTF-8"))
    except tomllib.TOMLDecodeError as error:
        result.problems.append(syntax_problem(error, text))
    except (RecursionError, ValueError) as error:  # nested too deep; a number too long
        what = "nested too deep" if isinstance(error, RecursionError) else str(error)
        result.problems.append(Problem(1, _clean(what)))
    else:
        _Checker(table, Lines(text), result).check()
    result.problems.sort(key=lambda problem: problem.line)
    return result


def syntax_problem(error: tomllib.TOMLDecodeError, text: str) -> Problem:
    match = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
    if match is None:
        return Problem(1, _clean(str(error)))
    what = str(error)[: match.start()]
    if match[1] is None:
        return Problem(text.rstrip().count("\n") + 1, f"{_clean(what)} at the end of the file")
    return Problem(int(match[1]), f"{_clean(what)} at column {match[2]}")


def _clean(text: str) -> str:
    text = _format.clean(text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


class _Wrong(Exception):
    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class _Table:
    """A table of the file; keys are taken one by one, and none may be left."""

    def __init__(
        self, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> None:
        self._values = values
        self._defaults = defaults or {}
        self._known: set[str] = set()

    def has(self, key: str) -> bool:
        self._known.add(key)
        return key in self._values

    def take(self, key: str, parse: Callable[[Any], Any], default: Any = None) -> Any:
        self._known.add(key)
        value = self._values.get(key, self._defaults.get(key))
        if value is None:
            return default
        try:
            return parse(value)
        except ValueError as error:
            raise _Wrong(key, f"{key}: {error}") from None

    def must(self, key: str, parse: Callable[[Any], Any], example: str) -> Any:
        value = self.take(key, parse)
        if value is None:
            raise _Wrong("", f"{key} is missing: write {example}")
        return value

    def end(self, what: str) -> None:
        for key in self._values:
            if key not in self._known:
                known = ", ".join(sorted(self._known))
                raise _Wrong(key, f"{what} has no key {shown(key)}; it may have: {known}")


def text(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise ValueError(f"give a text of 1 to {MAX_TEXT} characters")
    if not value.isprintable():
        raise ValueError("only printable characters are allowed")
    return value


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("write true or false")
    return value


def whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"give a whole number from {low} to {high}")
        return value

    return parse


def one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{shown(value)} is none of {', '.join(choices)}")
        return str(value)

    return parse


def duration(low: float, high: float) -> Callable[[Any], float]:
    def parse(value: object) -> float:
        seconds = units.parse_duration(value)
        if not low <= seconds <= high:
            raise ValueError(
                f"give {_format.duration(low)} to {_format.duration(high)}, not {shown(value)}"
            )
        return seconds

    return parse


def texts(limit: int) -> Callable[[Any], tuple[str, ...]]:
    def parse(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= limit:
            raise ValueError(f"give a list of 1 to {limit} texts")
        return tuple(text(item) for item in value)

    return parse


def words(value: object) -> tuple[str, ...]:
    """A command line: anything but NUL may stand in it."""
    if not isinstance(value, list) or not 1 <= len(value) <= 100:
        raise ValueError('give a list of texts: ["/usr/bin/logger", "-t", "pymemtrace"]')
    for item in value:
        if not isinstance(item, str) or "\0" in item or len(item) > 4096:
            raise ValueError("every word is a text without NUL of at most 4,096 characters")
    if not value[0]:
        raise ValueError("the first word names the program")
    return tuple(value)


def pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or len(value) > 20:
        raise ValueError('give a table of at most 20 texts: {team = "core"}')
    for key, item in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", key, re.ASCII):
            raise ValueError(f"{shown(key)} is no name of letters, digits, _ and -")
        text(item)
    return tuple(value.items())


def web_address(value: object) -> str:
    address = text(value)
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - it may be none
    except ValueError as error:
        raise ValueError(f"{shown(value)} is no URL ({error})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not address.isascii():
        raise ValueError(f"{shown(value)} is no URL of http or https")
    if " " in address:
        raise ValueError(f"{shown(value)}: a URL has no blanks")
    return address


class _Checker:
    def __init__(self, table: Mapping[str, Any], lines: Lines, result: Ruleset) -> None:
        self._table = table
        self._lines = lines
        self._result = result
        self._defaults: dict[str, Any] = {}
        self._wrong_actions: set[str] = set()

    def check(self) -> None:
        for key in self._table:
            if key not in ("defaults", "actions", "rules", "max_per_hour"):
                self._problem(
                    "", key,
                    f"no such key: {shown(key)}; the file has rules, actions, defaults and"
                    " max_per_hour",
                )  # fmt: skip
        if "max_per_hour" in self._table:
            try:
                self._result.max_per_hour = whole(1, 10_000)(self._table["max_per_hour"])
            except ValueError as error:
                self._problem("", "max_per_hour", f"max_per_hour: {error}")
        self._check_actions(self._table.get("actions", {}))
        self._check_defaults(self._table.get("defaults", {}))
        self._check_rules(self._table.get("rules", []))

    def _problem(self, table: str, key: str, text: str) -> None:
        self._result.problems.append(Problem(self._lines.of(table, key), _clean(text)))

    # --- actions ---

    def _check_actions(self, actions: Any) -> None:
        if not isinstance(actions, dict):
            self._problem("", "actions", "actions: write tables, [actions.NAME]")
            return
        for number, (name, values) in enumerate(actions.items()):
            table = f"actions.{name}"
            if number >= MAX_ACTIONS:
                self._problem(table, "", f"more than {MAX_ACTIONS} actions; the rest is left out")
                self._wrong_actions |= set(list(actions)[number:])
                return
            try:
                if not isinstance(values, dict):
                    raise _Wrong("", f"action {shown(name)}: write a table, [actions.NAME]")
                self._result.actions[name] = self._action(name, values, self._lines.of(table))
            except _Wrong as wrong:
                self._wrong_actions.add(name)
                self._problem(table, wrong.key, f"action {shown(name)}: {wrong}")

    def _action(self, name: str, values: Mapping[str, Any], line: int) -> Action:
        table = _Table(values)
        try:
            text(name)
        except ValueError as error:
            raise _Wrong("", f"its name: {error}") from None
        kind = values.get("kind")
        if isinstance(kind, str) and kind in LATER_ACTIONS:
            raise _Wrong("kind", f"{kind}: not available yet ({LATER_ACTIONS[kind]})")
        kind = table.must("kind", one_of(*ACTION_KINDS), 'kind = "webhook"')
        timeout = duration(0.1, 300.0)
        if kind == "log":
            action = Action(name, kind, line, file=table.take("file", text, ""))
        elif kind == "webhook":
            action = Action(
                name, kind, line,
                url=table.must("url", web_address, 'url = "https://..."'),
                headers=table.take("headers", pairs, ()),
                timeout_s=table.take("timeout", timeout, 10.0),
                retries=table.take("retries", whole(0, 10), 3),
            )  # fmt: skip
        else:
            action = Action(
                name, kind, line,
                argv=table.must("argv", words, 'argv = ["/path/to/program"]'),
                timeout_s=table.take("timeout", timeout, 30.0),
            )  # fmt: skip
        table.end(f"an action of kind {kind}")
        return action

    # --- rules ---

    def _check_defaults(self, defaults: Any) -> None:
        """What rules need not say each; a wrong one is left out."""
        if not isinstance(defaults, dict):
            self._problem("", "defaults", "defaults: write a table, [defaults]")
            return
        parsers = self._common()
        for key, value in defaults.items():
            try:
                if key not in parsers:
                    may = ", ".join(sorted(parsers))
                    raise _Wrong(key, f"[defaults] has no key {shown(key)}; it may have: {may}")
                _Table(defaults).take(key, parsers[key])
                self._defaults[key] = value
            except _Wrong as wrong:
                self._problem("defaults", key, str(wrong))

    def _common(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "for": duration(0.0, DAY_S),
            "cooldown": duration(1.0, 30 * DAY_S),
            "severity": one_of(*SEVERITIES),
            "labels": pairs,
            "actions": self._action_names,
            "send_cleared": flag,
            "program": text,
        }

    def _action_names(self, value: object) -> tuple[str, ...]:
        names = texts(MAX_ACTIONS)(value)
        for name in names:
            if name in self._wrong_actions:
                raise ValueError(f"the action {shown(name)} is wrong itself")
            if name not in self._result.actions:
                known = ", ".join(self._result.actions)
                raise ValueError(f"there is no action {shown(name)}; there are: {known}")
        return tuple(dict.fromkeys(names))

    def _check_rules(self, rules: Any) -> None:
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            self._problem("", "rules", "rules: write tables, [[rules]]")
            return
        names: set[str] = set()
        for number, values in enumerate(rules):
            table = f"rules.{number}"
            if number >= MAX_RULES:
                self._problem(table, "", f"more than {MAX_RULES} rules; the rest is left out")
                return
            what = f"rule {shown(values['name'])}" if "name" in values else f"rule {number + 1}"
            try:
                rule = self._rule(values, self._lines.of(table))
                if rule.name in names:
                    raise _Wrong("name", "another rule has this name")
                names.add(rule.name)
                self._result.rules.append(rule)
            except _Wrong as wrong:
                self._problem(table, wrong.key, f"{what}: {wrong}")

    def _rule(self, values: Mapping[str, Any], line: int) -> Rule:
        table = _Table(values, self._defaults)
        name = table.must("name", text, 'name = "memory is short"')
        kind = values.get("kind")
        if isinstance(kind, str) and kind in LATER:
            raise _Wrong("kind", f"kind {kind!r}: not available yet ({LATER[kind]})")
        kind = table.must("kind", one_of(*KINDS), 'kind = "threshold"')
        common = self._common()
        fields: dict[str, Any] = {
            "cooldown_s": table.take("cooldown", common["cooldown"], 600.0),
            "severity": table.take("severity", common["severity"], "warning"),
            "labels": table.take("labels", pairs, ()),
            "actions": table.take("actions", common["actions"], ("log",)),
            "send_cleared": table.take("send_cleared", flag, False),
            "program": table.take("program", text, "*"),
        }
        if kind != "death":
            fields["for_s"] = table.take("for", common["for"], 0.0)
        fields |= getattr(self, f"_{kind}")(table)
        table.end(f"a rule of kind {kind}")
        return Rule(name, kind, line, **fields)

    def _threshold(self, table: _Table) -> dict[str, Any]:
        figure, unit = self._figure(table)
        return {"figure": figure, "unit": unit, **self._limits(table, quantity(unit), unit, True)}

    def _growth(self, table: _Table) -> dict[str, Any]:
        figure, unit = self._figure(table)
        if unit not in ("bytes", "count"):
            raise _Wrong("metric", "growth is of bytes or numbers; use kind threshold for this one")
        limits = self._limits(
            table, lambda value: units.parse_rate(value, unit == "bytes"), unit, False
        )
        window = table.take("window", duration(10.0, DAY_S), 600.0)
        return {"figure": figure, "unit": f"{unit}/s", "window_s": window, **limits}

    def _exhaustion(self, table: _Table) -> dict[str, Any]:
        within = table.must("within", duration(1.0, 30 * DAY_S), 'within = "30m"')
        clear = table.take("clear", duration(1.0, 60 * DAY_S), within / HYSTERESIS)
        if clear < within:
            raise _Wrong("clear", "clear: it must not be shorter than within")
        return {
            "within_s": within,
            "clear": clear,
            "unit": "seconds",
            "resource": table.take("of", one_of("auto", "cgroup", "host"), "auto"),
            "window_s": table.take("window", duration(10.0, DAY_S), 600.0),
        }

    def _pressure(self, table: _Table) -> dict[str, Any]:
        stall = table.take("psi", one_of("some", "full"), "some")
        limits = self._limits(table, units.parse_percent, "percent", False)
        return {"figure": f"psi_{stall}_avg10", "unit": "percent", **limits}

    def _drops(self, table: _Table) -> dict[str, Any]:
        above = table.take("above", units.parse_count, 0.0)
        window = table.take("window", duration(10.0, DAY_S), 300.0)
        return {
            "figure": "dropped", "unit": "count", "above": above, "clear": above,
            "window_s": window,
        }  # fmt: skip

    def _death(self, table: _Table) -> dict[str, Any]:
        return {}

    def _figure(self, table: _Table) -> tuple[str, str]:
        metric = table.must("metric", one_of(*METRICS), 'metric = "rss"')
        figure, unit = METRICS[metric]
        for key in ("site", "part"):
            if metric == key:
                examples = {"site": "*/cache.py:*", "part": "native heap free"}
                value = table.must(key, text, f'{key} = "{examples[key]}"')
                figure = f"{key}:{value}"
            elif table.has(key):
                raise _Wrong(key, f'{key}: only with metric = "{key}"')
        return figure, unit

    def _limits(
        self, table: _Table, parse: Callable[[Any], float], unit: str, may_be_below: bool
    ) -> dict[str, Any]:
        above = table.take("above", parse)
        below = table.take("below", parse) if may_be_below else None
        if (above is None) == (below is None):
            what = "above or below" if may_be_below else "above"
            raise _Wrong("", f"give {what}{', not both' if above is not None else ''}")
        clear = None
        if above is not None:
            clear = table.take("clear", parse, above * HYSTERESIS)
            if clear > above:
                raise _Wrong("clear", "clear: it must not be more than above")
        elif below is not None:
            most = {"fraction": 1.0, "percent": 100.0}.get(unit, math.inf)
            clear = table.take("clear", parse, min(below / HYSTERESIS, most))
            if clear < below:
                raise _Wrong("clear", "clear: it must not be less than below")
        return {"above": above, "below": below, "clear": clear}


def quantity(unit: str) -> Callable[[Any], float]:
    return {
        "bytes": units.parse_size,
        "count": units.parse_count,
        "seconds": units.parse_duration,
        "fraction": units.parse_fraction,
        "percent": units.parse_percent,
    }[unit]


def show(unit: str, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "unknown"
    if unit.endswith("/s"):
        return f"{show(unit[:-2], value * 60)}/min"
    if unit == "bytes":
        return f"-{_format.size(round(-value))}" if value < 0 else _format.size(round(value))
    if unit == "seconds":
        return _format.duration(value)
    if unit == "fraction":
        return f"{value * 100:.1f} %"
    if unit == "percent":
        return f"{value:.1f} %"
    return f"{value:,.0f}"


def problem_lines(path: str, problems: Iterable[Problem]) -> list[str]:
    return [f"{_format.clean(path)}:{problem.line}: {problem.text}" for problem in problems]
