"""Rules and alerts: rule files, right, wrong and hostile; what fires, by a clock of our own."""

import math
import random
import string
from pathlib import Path

import pytest

from pymemtrace._watch import units
from pymemtrace._watch.alerts import Engine, Event, History, death_text
from pymemtrace._watch.figures import Figures, Value
from pymemtrace._watch.follow import Death
from pymemtrace._watch.lines import Lines
from pymemtrace._watch.loop import Rules
from pymemtrace._watch.rules import Problem, Ruleset, parse
from pymemtrace._watch.trend import trend

pytestmark = pytest.mark.any_version

MIB = 1 << 20

# --- quantities -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300), ("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), (7, 7),
        ("2d", 172800),
    ],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 512 * MIB), ("1.5G", 1.5 * 1024 * MIB), ("64 K", 65536), (100, 100), ("7B", 7)],
)
def test_sizes(text: object, size: float) -> None:
    assert units.parse_size(text) == size


def test_rates_fractions_percents() -> None:
    assert units.parse_rate("10MiB/min", True) == pytest.approx(10 * MIB / 60)
    assert units.parse_rate("3600/h", False) == 1
    assert units.parse_fraction("85%") == 0.85
    assert units.parse_fraction(0.85) == 0.85
    assert units.parse_percent("10%") == pytest.approx(10)
    assert units.parse_percent(10) == 10


@pytest.mark.parametrize(
    "value", ["", "5", "m", "-5m", "5x", "5m!", True, None, [], -1, math.inf, math.nan, "9" * 99]
)  # fmt: skip
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"no duration|between"):
        units.parse_duration(value)


@pytest.mark.parametrize("value", ["1MiX", "MiB", "-1", "1e9", True, "\u0661MiB", "1_000"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match=r"no size|between"):
        units.parse_size(value)


@pytest.mark.parametrize("value", ["10MiB", "10/fortnight", "/min", 5, "MiB/min", "1/2/s", "nan/s"])
def test_what_is_no_rate(value: object) -> None:
    for of_bytes in (True, False):
        with pytest.raises(ValueError, match="no rate"):
            units.parse_rate(value, of_bytes)


def test_a_fraction_is_not_more_than_the_whole() -> None:
    for value in ("101%", 1.01, 85):
        with pytest.raises(ValueError, match="more than the whole"):
            units.parse_fraction(value)


def test_a_number_too_long_to_print() -> None:
    with pytest.raises(ValueError, match="so large is no duration"):
        units.parse_duration(16**5000)
    (problem,) = problems(f'[[rules]]\nname = 0x{"f" * 5000}\nkind = "death"\n')
    assert problem.line == 2
    (problem,) = problems(f"[[rules]]\nname = 'a'\nkind = [0x{'f' * 5000}]\n")
    assert problem.line == 3


# --- files ----------------------------------------------------------------------------------------

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/alerts.toml"


def problems(text: str) -> list[Problem]:
    return parse(text.encode()).problems


def test_the_example_is_right() -> None:
    ruleset = parse(EXAMPLE.read_bytes())
    assert ruleset.problems == []
    assert {rule.kind for rule in ruleset.rules} == {
        "threshold", "growth", "exhaustion", "pressure", "drops", "death",
    }  # fmt: skip
    assert {action.kind for action in ruleset.actions.values()} == {"log", "webhook", "command"}


def test_what_a_rule_says() -> None:
    ruleset = parse(b"""
[defaults]
for = "1m"
severity = "critical"
[[rules]]
name = "rss"
kind = "threshold"
metric = "rss"
above = "1GiB"
labels = {team = "core"}
[[rules]]
name = "memory"
kind = "threshold"
metric = "host_available_fraction"
below = "5%"
for = 10
cooldown = "1h"
""")
    assert ruleset.problems == []
    first, second = ruleset.rules
    assert (first.figure, first.above, first.clear) == ("rss_bytes", 1 << 30, 0.9 * (1 << 30))
    assert (first.for_s, first.cooldown_s, first.severity) == (60, 600, "critical")
    assert first.labels == (("team", "core"),)
    assert (second.below, second.clear) == (0.05, 0.05 / 0.9)
    assert (second.for_s, second.cooldown_s, second.line) == (10, 3600, 11)


GOOD = '[[rules]]\nname = "good"\nkind = "death"\n'


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('[[rules]]\nname = "x"\nkind = "leak"\n', 3, "not available yet"),
        ('[actions.s]\nkind = "snapshot"\n', 2, "not available yet"),
        ('[[rules]]\nname = "x"\nkind = "thresh"\n', 3, "none of threshold"),
        ('[[rules]]\nkind = "death"\n', 1, "name is missing"),
        ('[[rules]]\nname = "x"\n', 1, "kind is missing"),
        ('[[rules]]\nname = "x"\nkind = "threshold"\nmetric = "rss"\n', 1, "give above or below"),
        (
            '[[rules]]\nname = "x"\nkind = "threshold"\nmetric = "rss"\nabove = 1\nbelow = 1\n',
            1, "not both",
        ),
        (
            '[[rules]]\nname = "x"\nkind = "threshold"\nmetric = "rss"\nabove = "1MiB"\n'
            'clear = "2MiB"\n',
            6, "not be more than above",
        ),
        (
            '[[rules]]\nname = "x"\nkind = "growth"\nmetric = "psi_some"\nabove = "1/s"\n',
            4, "growth is",
        ),
        (
            '[[rules]]\nname = "x"\nkind = "threshold"\nmetric = "site"\nabove = 1\n',
            1, "site is missing",
        ),
        (
            '[[rules]]\nname = "x"\nkind = "threshold"\nmetric = "rss"\nsite = "a"\nabove = 1\n',
            5, 'only with metric = "site"',
        ),
        ('[[rules]]\nname = "x"\nkind = "death"\nfor = "1m"\n', 4, "has no key 'for'"),
        ('[[rules]]\nname = "x"\nkind = "death"\nactions = ["none"]\n', 4, "no action 'none'"),
        ('[[rules]]\nname = "x"\nkind = "death"\nlabels = {a = 1}\n', 4, "labels"),
        ('[[rules]]\nname = "x"\nkind = "exhaustion"\n', 1, "within is missing"),
        ('[[rules]]\nname = "x"\nkind = "death"\ncooldown = "0s"\n', 4, "cooldown: give"),
        ('[actions.w]\nkind = "webhook"\nurl = "file:///etc/passwd"\n', 3, "no URL of http"),
        ('[actions.w]\nkind = "webhook"\nurl = "http://[::1"\n', 3, "no URL"),
        ('[actions.w]\nkind = "command"\nargv = "rm -rf"\n', 3, "list of texts"),
        ('[actions.w]\nkind = "command"\nargv = [""]\n', 3, "names the program"),
        (
            '[actions.w]\nkind = "webhook"\nurl = "http://a/"\nheaders = {A = "b\\nc"}\n',
            4, "printable",
        ),
        ('rule = 1\n', 1, "no such key: 'rule'"),
        ('\nmax_per_hour = 0\n', 2, "max_per_hour"),
        ('[defaults]\nsince = 1\n', 2, "[defaults] has no key"),
        ('rules = 3\n', 1, "write tables"),
        ('rules = [\n  {name = "x", kind = "leak"},\n]\n', 1, "not available yet"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_left_out_and_named_by_its_line(text: str, line: int, what: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].line == line
    assert what in found[0].text
    if "rules =" in text:
        return
    before = parse((GOOD + text if text.startswith("[") else text + GOOD).encode())
    assert [rule.name for rule in before.rules] == ["good"]
    assert len(before.problems) == 1


def test_rules_that_use_a_wrong_action_are_left_out() -> None:
    found = parse(
        b'[actions.w]\nkind = "webhook"\n[[rules]]\nname = "x"\nkind = "death"\nactions = ["w"]\n'
    )
    assert [(p.line, p.text) for p in found.problems] == [
        (1, "action 'w': url is missing: write url = \"https://...\""),
        (6, "rule 'x': actions: the action 'w' is wrong itself"),
    ]


def test_the_same_name_twice() -> None:
    found = parse((GOOD * 2).encode())
    assert len(found.rules) == 1
    assert [p.line for p in found.problems] == [5]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a = 1\nb = = 2\n", 2),
        (b"a = 1\n\xff\n", 2),
        (b'a = 1\nb = """\nnever closed\n', 3),
        (b"[a\n", 1),
        (b"a=" + b"[" * 5000, 1),
        (b"a = " + b"9" * 5000, 1),
        (b"x" * (2 << 20), 1),
    ],
)
def test_no_toml(content: bytes, line: int) -> None:
    ruleset = parse(content)
    assert ruleset.rules == []
    assert len(ruleset.problems) == 1
    assert ruleset.problems[0].line == line


def test_lines_are_not_confused_by_texts_and_arrays() -> None:
    lines = Lines(
        'a = """\n[[rules]]\nname = 1\n"""\n'
        "b = [\n  'x = 1',\n  # y = 2 ]\n]\n"
        '[[ rules ]] # the first\n"name" = "x"\n[[rules]]\nname = "#"\nkind = 1\n'
    )
    assert lines.of("", "b") == 5
    assert lines.of("rules.0") == 9
    assert lines.of("rules.0", "name") == 10
    assert lines.of("rules.1", "kind") == 13
    assert lines.of("rules.7", "kind") == 1


KEYS = (
    "name", "kind", "metric", "above", "below", "clear", "for", "cooldown", "window", "within",
    "of", "psi", "severity", "labels", "actions", "program", "site", "part", "url", "argv",
    "timeout",
)  # fmt: skip
WORDS = (
    '"threshold"', '"growth"', '"death"', '"leak"', '"rss"', '"site"', '"5m"', '"512MiB"', '"85%"',
    '"10MiB/min"', "-1", "1e400", "nan", "true", "[]", "[1, [2]]", "{}", '{a = "b"}', '""', "'\\'",
    '"\\u0000"', '"\\U0010FFFF"', "1979-05-27", '["log"]', "0x7fffffffffffffffffff", '"\\u202e"',
)  # fmt: skip


def test_hostile_files_never_raise() -> None:
    """Made up of the pieces of real ones, then bytes changed in them."""
    dice = random.Random(5)
    example = EXAMPLE.read_bytes()
    headers = (
        "[[rules]]",
        "[defaults]",
        "[actions.a]",
        "[actions]",
        "[rules]",
        "",
        "[[actions.b]]",
    )
    for round_ in range(1500):
        if round_ % 2:
            text = "".join(
                dice.choice(headers)
                + "\n"
                + "".join(
                    f"{dice.choice(KEYS)} = {dice.choice(WORDS)}\n"
                    for _ in range(dice.randrange(6))
                )
                for _ in range(dice.randrange(5))
            )  # fmt: skip
            content = text.encode()
        else:
            changed = bytearray(example)
            for _ in range(dice.randrange(1, 6)):
                at = dice.randrange(len(changed))
                if dice.random() < 0.5:
                    changed[at] = dice.choice(string.printable.encode() + b"\0\xff\x80")
                else:
                    del changed[at : at + dice.randrange(40)]
            content = bytes(changed)
        ruleset = parse(content)
        total = content.count(b"\n") + 1
        for problem in ruleset.problems:
            assert 1 <= problem.line <= total
            assert problem.text.isprintable()
            assert len(problem.text) <= 200
        for rule in ruleset.rules:
            assert all(name in ruleset.actions for name in rule.actions)


def test_a_changed_file_is_read_again_and_a_wrong_one_is_not_taken(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "rules.toml"
    path.write_text(GOOD + '[[rules]]\nname = "bad"\nkind = "nothing"\n')
    rules = Rules(str(path), said.append)
    assert [rule.name for rule in rules.ruleset.rules] == ["good"]
    assert len(said) == 1
    assert ":6: " in said[0]
    assert not rules.refresh()
    path.write_text(GOOD.replace("good", "other") + "[[[\n")
    assert not rules.refresh()
    assert said[-1].endswith("the old rules hold")
    path.write_text(GOOD.replace("good", "better"))
    assert rules.refresh()
    assert [rule.name for rule in rules.ruleset.rules] == ["better"]
    path.unlink()
    assert not rules.refresh()
    assert "cannot read the rules" in said[-1]
    assert not rules.refresh()
    assert len(said) == 4


# --- trends ---------------------------------------------------------------------------------------


def test_a_line_is_found_beside_wrong_points() -> None:
    dice = random.Random(1)
    points = [(float(t), 3.0 * t + dice.gauss(0, 5)) for t in range(120)]
    for at in range(0, 120, 6):
        points[at] = (points[at][0], 100_000.0)
    found = trend(points)
    assert found is not None
    assert found.low < 3.0 < found.high
    assert 2.5 < found.slope < 3.5
    assert found.significant
    assert found.steady


def test_noise_is_no_trend() -> None:
    """95 % intervals: of 200 series without a trend, 10 are expected outside; 25 and more happen by
    chance once in 100,000 times."""
    dice = random.Random(2)
    wrong = 0
    for _ in range(200):
        found = trend([(float(t), dice.gauss(1e6, 1e4)) for t in range(60)])
        assert found is not None
        wrong += found.significant
    assert wrong < 25


def test_stairs_that_go_up_are_growth() -> None:
    found = trend([(float(t), float(t // 60 * 10)) for t in range(600)])
    assert found is not None
    assert found.low > 0
    assert found.steady


def test_growth_that_has_stopped_is_not_steady() -> None:
    found = trend([(float(t), float(min(t, 280) * 10)) for t in range(600)])
    assert found is not None
    assert not found.steady


def test_too_few_points_say_nothing() -> None:
    assert trend([]) is None
    assert trend([(0.0, 1.0)] * 50) is None
    assert trend([(float(t), 1.0) for t in range(5)]) is None


def test_sampling_noise_widens() -> None:
    points = [(float(t), 10.0 * t) for t in range(100)]
    sure, unsure = trend(points), trend(points, noise=2000.0)
    assert sure is not None
    assert unsure is not None
    assert sure.significant
    assert not unsure.significant


# --- the engine -----------------------------------------------------------------------------------


class Bench:
    """An engine, one process or more, and a clock."""

    def __init__(self, text: str) -> None:
        ruleset = parse(text.encode())
        assert ruleset.problems == []
        self.engine = Engine(ruleset)
        self.now = 1000.0

    def see(self, seconds: float = 1.0, pid: int = 7, **values: float | Value) -> list[Event]:
        self.now += seconds
        return self.engine.observe(figures(pid, **values), self.now)

    def states(self) -> list[str]:
        return [state.name for _, state in self.engine.states()]


def figures(pid: int = 7, shared: str = "", **values: float | Value) -> Figures:
    made = {
        name: value if isinstance(value, Value) else Value(value) for name, value in values.items()
    }
    return Figures(
        path=f"{pid}.pmt", key=f"process {pid}", pid=pid, program="app.py", ended="running",
        t_s=0.0, info={}, values=made, shared=shared,
    )  # fmt: skip


def rule(kind: str, **keys: object) -> str:
    lines = "".join(
        f"{name.rstrip('_')} = {value if isinstance(value, int) else repr(value)}\n"
        for name, value in keys.items()
    )
    return f'[[rules]]\nname = "the rule"\nkind = "{kind}"\n{lines}'


THRESHOLD = rule("threshold", metric="rss", above=1000, for_="10s", cooldown="60s")


def test_a_threshold_must_hold() -> None:
    bench = Bench(THRESHOLD)
    assert not bench.see(rss_bytes=1001)
    assert bench.states() == ["pending"]
    assert not bench.see(5, rss_bytes=999)
    assert not bench.see(6, rss_bytes=1001)
    assert not bench.see(9, rss_bytes=1001)
    events = bench.see(1, rss_bytes=1001)
    assert [(event.state, event.value) for event in events] == [("firing", 1001)]
    assert "rss is 1001 B; the limit is 1000 B; for 10.0 s" in events[0].line
    assert not bench.see(1, rss_bytes=2000)
    assert bench.engine.firing() == {"the rule": 1}


def test_hysteresis() -> None:
    bench = Bench(THRESHOLD)
    bench.see(rss_bytes=1001)
    assert bench.see(10, rss_bytes=1001)
    assert not bench.see(1, rss_bytes=950)  # above 90 % of it
    assert bench.states() == ["firing"]
    events = bench.see(1, rss_bytes=900)
    assert [event.state for event in events] == ["cleared"]
    assert events[0].held_s == 12
    assert bench.states() == ["ok"]


def test_cooldown() -> None:
    bench = Bench(THRESHOLD)
    bench.see(rss_bytes=1001)
    assert bench.see(10, rss_bytes=1001)
    for _ in range(2):  # it comes and goes
        bench.see(1, rss_bytes=0)
        assert not bench.see(1, rss_bytes=1001)
        assert not bench.see(10, rss_bytes=1001)
        assert bench.states() == ["firing"]
    told = []
    while not told:  # it is told when the time is over, if it still holds
        told = bench.see(5, rss_bytes=1001)
    assert told[0].suppressed == 1
    assert bench.now == 1000 + 1 + 10 + 24 + 40  # 60 s and the next look behind the first


def test_no_figure_is_neither_good_nor_bad() -> None:
    bench = Bench(THRESHOLD)
    bench.see(rss_bytes=1001)
    assert bench.see(10, rss_bytes=1001)
    assert not bench.see(5)
    assert bench.states() == ["firing"]
    assert [event.state for event in bench.see(5, rss_bytes=1)] == ["cleared"]


def test_below() -> None:
    bench = Bench(rule("threshold", metric="host_available_fraction", below="10%"))
    assert not bench.see(host_available_fraction=0.11)
    assert bench.see(host_available_fraction=0.09)
    assert not bench.see(host_available_fraction=0.105)
    assert [e.state for e in bench.see(host_available_fraction=0.12)] == ["cleared"]


def test_processes_are_judged_each() -> None:
    bench = Bench(rule("threshold", metric="rss", above=1000))
    assert len(bench.see(pid=1, rss_bytes=2000)) == 1
    assert len(bench.see(pid=2, rss_bytes=2000)) == 1
    events = bench.engine.keep([figures(2)], bench.now)
    assert [(e.state, e.figures.pid) for e in events] == [("cleared", 1)]
    assert bench.engine.firing() == {"the rule": 1}


def test_a_limit_for_all_rules_together() -> None:
    bench = Bench("max_per_hour = 3\n" + rule("threshold", metric="rss", above=1000))
    told = [pid for pid in range(10) if bench.see(pid=pid, rss_bytes=2000)]
    assert told == [0, 1, 2]
    assert bench.engine.held_back == 7
    for _ in range(5):
        assert not bench.see(pid=5, rss_bytes=2000)
    assert bench.engine.held_back == 7
    assert bench.see(3600, pid=5, rss_bytes=2000)


def test_what_is_shared_is_told_once() -> None:
    bench = Bench(rule("pressure", above="10%"))
    told = []
    for pid in range(4):
        figure = figures(pid, shared="/sys/fs/cgroup/a", psi_some_avg10=50.0)
        told += bench.engine.observe(figure, bench.now)
    assert len(told) == 1


def test_a_program_is_chosen() -> None:
    bench = Bench(rule("threshold", metric="rss", above=1, program="other*"))
    assert not bench.see(rss_bytes=100)


def test_rules_that_stay_keep_their_state() -> None:
    bench = Bench(THRESHOLD)
    bench.see(rss_bytes=1001)
    bench.engine.set_rules(parse(("# more\n" + THRESHOLD).encode()))
    assert bench.see(10, rss_bytes=1001)
    bench.engine.set_rules(parse(THRESHOLD.replace("1000", "1001").encode()))
    assert bench.states() == []


GROWTH = rule("growth", metric="heap", above="60MiB/min", window="60s")


def test_growth() -> None:
    bench = Bench(GROWTH)
    told = []
    for second in range(60):
        told += bench.see(heap_bytes=100 * MIB + 2 * second * MIB)
        if second < 29:
            assert not told, "half of the window must be seen"
    assert [event.state for event in told] == ["firing"]
    assert told[0].value == pytest.approx(2 * MIB)
    assert "120.0 MiB/min" in told[0].text
    cleared = []
    for _ in range(60):
        cleared += bench.see(heap_bytes=220 * MIB)
    assert [event.state for event in cleared] == ["cleared"]


def test_slow_growth_does_not_fire() -> None:
    bench = Bench(GROWTH)
    for second in range(120):
        assert not bench.see(heap_bytes=100 * MIB + 0.9 * second * MIB)


def test_growth_within_the_sampling_noise_does_not_fire() -> None:
    """A sampled heap of 100 MiB ± 80 MiB that seems to grow by 70 MiB within the window."""
    bench = Bench(GROWTH)
    for second in range(60):
        size = (100 + 1.2 * second) * MIB
        assert not bench.see(heap_bytes=Value(size, size - 80 * MIB, size + 80 * MIB))
    (_, state), *_ = bench.engine.states()
    assert "low confidence" in state.verdict.note
    for second in range(60, 300):  # the noise becomes small, the growth goes on
        size = (100 + 1.2 * second) * MIB
        if bench.see(heap_bytes=Value(size, size - 8 * MIB, size + 8 * MIB)):
            return
    pytest.fail("growth beyond the noise was not seen")


def test_what_came_before_the_watching_counts() -> None:
    text = rule("growth", metric="heap", above="60MiB/min", window="60s", for_="20s")
    bench = Bench(text)
    points = [(bench.now - 90 + t, {"heap_bytes": Value(2.0 * t * MIB)}) for t in range(90)]
    bench.engine.remember(figures(), points)
    assert bench.states() == ["firing"]  # and nobody was told yet
    assert bench.see(1, heap_bytes=182 * MIB)


EXHAUSTION = rule("exhaustion", of="cgroup", within="5m", window="60s")


def test_exhaustion_of_a_cgroup() -> None:
    bench = Bench(EXHAUSTION)
    limit, told = 1024 * MIB, []
    for second in range(200):
        used = (100 + 3 * second) * MIB
        told += bench.see(cgroup_working_set_bytes=used, cgroup_limit_bytes=limit)
        left_s = (limit - used) / (3 * MIB)
        if told:
            break
        assert left_s > 290 or second < 30
    assert len(told) == 1
    assert told[0].value == pytest.approx(left_s, rel=0.01)
    assert told[0].low is not None
    assert told[0].high is not None
    assert told[0].low <= told[0].value <= told[0].high
    assert "its cgroup's limit (1.0 GiB) is reached in 4 min" in told[0].text


def test_exhaustion_of_the_host() -> None:
    bench = Bench(rule("exhaustion", of="auto", within="5m", window="60s"))
    told = []
    for second in range(100):
        left = (1000 - 5 * second) * MIB
        told += bench.see(host_available_bytes=left, host_bytes=4000 * MIB)
    assert len(told) == 1
    assert "the host's memory" in told[0].text


def test_noise_does_not_exhaust() -> None:
    """Up and down by half of what is left: each stretch of it would reach the limit soon."""
    bench = Bench(EXHAUSTION)
    dice = random.Random(3)
    for second in range(300):
        used = (800 + 100 * math.sin(second / 9) + dice.gauss(0, 20)) * MIB
        assert not bench.see(cgroup_working_set_bytes=used, cgroup_limit_bytes=1024 * MIB)


def test_a_load_that_stays_does_not_exhaust() -> None:
    bench = Bench(EXHAUSTION)
    for second in range(200):
        used = (100 + (600 if second > 100 else 0)) * MIB
        assert not bench.see(cgroup_working_set_bytes=used, cgroup_limit_bytes=1024 * MIB)


def test_no_limit_no_exhaustion() -> None:
    bench = Bench(EXHAUSTION)
    assert not bench.see(cgroup_bytes=5, host_bytes=10, host_available_bytes=0)
    assert bench.states() == ["unknown"]


def test_drops() -> None:
    bench = Bench(rule("drops", window="60s"))
    assert not bench.see(dropped=5)
    told = bench.see(dropped=8)
    assert [(event.state, event.value) for event in told] == [("firing", 3)]
    cleared = []
    for _ in range(70):
        cleared += bench.see(dropped=8)
    assert [event.state for event in cleared] == ["cleared"]


def test_deaths() -> None:
    bench = Bench(rule("death", cooldown="60s", severity="critical"))
    last = figures(heap_bytes=5 * MIB, rss_bytes=9 * MIB, cgroup_fraction=0.99)
    last.values["cgroup_limit_bytes"] = Value(100 * MIB)
    death = Death(last, "killed by SIGKILL", 1)
    assert death_text(death) == (
        "it ended without closing its capture: killed by SIGKILL; its cgroup counted 1 OOM kill(s);"
        " last state: heap 5.0 MiB, RSS 9.0 MiB, cgroup at 99.0 % of 100.0 MiB"
    )
    assert [event.state for event in bench.engine.died(death, 0.0)] == ["firing"]
    for second in range(59):  # it is started again and again
        assert not bench.engine.died(death, float(second))
    (event,) = bench.engine.died(death, 60.0)
    assert event.suppressed == 59
    assert "59 more were held back" in event.line


def test_a_history_is_bounded() -> None:
    history = History(100.0)
    for step in range(10_000):
        history.add(step / 10, {"x": Value(step)})
    assert len(history.points) < 500
    series = history.series("x", 950.0)
    assert series[-1][1].value == 9999
    assert 899 < history.points[0][0] < 902
    assert history.series("y", 0.0) == []


def test_an_engine_without_rules() -> None:
    engine = Engine(Ruleset())
    assert engine.observe(figures(rss_bytes=5), 1.0) == []
    assert engine.firing() == {}
