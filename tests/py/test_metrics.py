"""Metrics: what is exported of a capture, and what of a machine that is made up."""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import pymemtrace
from pymemtrace._watch import figures as module_of_figures
from pymemtrace._watch import host
from pymemtrace._watch.figures import (
    MAX_LABEL,
    Figures,
    SiteFigure,
    Value,
    label,
    match_sites,
    program_of,
    site_figures,
    site_label,
)
from pymemtrace._watch.follow import MAX_PROCESSES, Followed, Targets
from pymemtrace._watch.loop import Rules, Watcher, json_of, past_points

sys.path.insert(0, str(Path(__file__).parent))
from capture_builder import CaptureBuilder, Row

prometheus_client = pytest.importorskip(
    "prometheus_client", reason="prometheus_client is not installed"
)

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from pymemtrace.metrics import Collector, Snapshot, families, registry_of  # noqa: E402

pytestmark = pytest.mark.any_version

MIB = 1 << 20


def hoard(size: int) -> bytearray:
    return bytearray(size)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """By name and labels but pid and program."""
    return {
        (
            sample.name,
            frozenset((k, v) for k, v in sample.labels.items() if k not in ("pid", "program")),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def get(found: Found, name: str, **labels: str) -> float:
    return found["pymemtrace_" + name, frozenset(labels.items())]


def exported(collector: Collector) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector)
    return samples(prometheus_client.generate_latest(registry).decode())


# --- a collector ----------------------------------------------------------------------------------


def test_a_collector_reads_on_each_scrape() -> None:
    collector = Collector("a.pmt", sites=3)
    assert get(exported(collector), "capture_readable") == 0
    with pymemtrace.record("a.pmt") as recording:
        kept = [hoard(5_000_000)]
        recording.flush()
        found = exported(collector)
        assert get(found, "capture_readable") == 1
        line = hoard.__code__.co_firstlineno + 1
        assert get(found, "site_bytes", site=f"test_metrics.py:{line} hoard") >= 5_000_000
        assert get(found, "heap_bytes") >= 5_000_000
        assert get(found, "rss_bytes") > 5_000_000
        assert get(found, "recorder_bytes") > 0
        assert get(found, "state_age_seconds") >= 0
        assert get(found, "allocated_bytes_total") >= 5_000_000
        assert get(found, "gc_collections_total", generation="young") >= 0
        assert get(found, "host_bytes") > 0
        sites = [key for key in found if key[0] == "pymemtrace_site_bytes"]
        assert len(sites) <= 4
        total = sum(found[key] for key in sites)
        assert total == get(found, "heap_bytes")
        kept.append(hoard(7_000_000))
        recording.flush()
        assert get(exported(collector), "heap_bytes") >= 12_000_000
        del kept
    assert get(exported(collector), "capture_readable") == 1
    Path("a.pmt").unlink()
    assert get(exported(collector), "heap_bytes") >= 0


def test_a_collector_of_a_process() -> None:
    collector = Collector(os.getpid())
    assert get(exported(collector), "capture_readable") == 0
    with pymemtrace.record("b.pmt") as recording:
        recording.flush()
        assert get(exported(collector), "capture_readable") == 1


def test_estimates_have_limits() -> None:
    with pymemtrace.record("a.pmt", sample_bytes=4096) as recording:
        kept = [bytes(100) for _ in range(10_000)]
        recording.flush()
        found = exported(Collector("a.pmt"))
        del kept
    assert get(found, "sampling_mean_bytes") == 4096
    low, value, high = (get(found, f"heap_bytes{end}") for end in ("_low", "", "_high"))
    assert low < value < high
    assert get(found, "allocated_bytes_low") <= get(found, "allocated_bytes_total")
    assert any(name == "pymemtrace_site_bytes_high" for name, _ in found)


def test_captures_without_a_metric_for_estimates() -> None:
    with pymemtrace.record("a.pmt"):
        pass
    found = exported(Collector("a.pmt"))
    assert not any(name.endswith(("_low", "_high")) for name, _ in found)


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"PMT" * 10_000])
def test_a_file_that_is_no_capture(content: bytes) -> None:
    Path("a.pmt").write_bytes(content)
    assert exported(Collector("a.pmt")) == {("pymemtrace_capture_readable", frozenset()): 0.0}


def test_what_the_reader_knows_of_pressure_comes_first() -> None:
    """Reader.pressure() may be there or not; None is not known."""
    module = module_of_figures

    class Reader:
        def pressure(self, *, last: int | None = None) -> list[dict[str, object]]:
            rows: list[dict[str, object]] = [
                {"t_ns": 1, "cgroup_bytes": 1, "psi_some_avg10": None, "more": "text"},
                {"t_ns": 2, "cgroup_bytes": 5},
            ]
            return rows[-last:] if last else rows

    assert module.last_pressure(Reader()) == {"t_ns": 2, "cgroup_bytes": 5}  # type: ignore[arg-type]
    assert module.pressure_rows(Reader())[0] == {"t_ns": 1, "cgroup_bytes": 1}  # type: ignore[arg-type]
    assert module.last_pressure(object()) == {}  # type: ignore[arg-type]
    figures = process(1, cgroup_bytes=5, peak_rss_bytes=1)
    module.add_system(figures, {"cgroup_bytes": 9, "cgroup_limit_bytes": 10, "peak_rss_bytes": 3})
    module.derive(figures)
    assert figures.number("cgroup_bytes") == 5
    assert figures.number("cgroup_fraction") == 0.5
    assert figures.number("peak_rss_bytes") == 3


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/usr/bin/python", "/srv/app.py", "x"], "app.py"),
        (["python", "-m", "package.module", "-c"], "package.module"),
        (["python", "-X", "dev", "-bIm", "module"], "module"),
        (["python", "-W", "error", "-c", "pass"], "-c"),
        (["python", "-"], "-"),
        (["gunicorn"], "gunicorn"),
        (["python", "folder/"], "folder"),
        ([], "unknown"),
        (None, "unknown"),
    ],
)
def test_programs(command: list[str] | None, name: str) -> None:
    assert program_of(command) == name


def site(file: str = "/a/b.py", line: int = 3, function: str = "f") -> dict[str, object]:
    return {"file": file, "line": line, "function": function, "module": "b"}


def test_labels_are_bounded_and_printable() -> None:
    assert site_label(site()) == "b.py:3 f"
    long = site_label(site("/" + "x" * 500 + ".py", 7, "y" * 500))
    assert len(long) == MAX_LABEL
    assert ".py:7 ...yyy" in long
    assert label("a\nb\u202ec\ud800d") == "a?b?c?d"
    assert label("grün") == "grün"


def row(size: int, **where: object) -> dict[str, object]:
    return {"site": site(**where), "bytes": size, "blocks": 1}  # type: ignore[arg-type]


def test_top_sites_and_others() -> None:
    rows = [row(100 - n, line=n) for n in range(30)]
    totals = {"bytes": sum(range(71, 101)), "blocks": 30}
    found = site_figures(rows, totals, 4)  # type: ignore[arg-type]
    assert [one.label for one in found] == ["b.py:0 f", "b.py:1 f", "b.py:2 f", "b.py:3 f", "other"]
    assert sum(one.bytes.value for one in found) == totals["bytes"]
    assert sum(one.blocks.value for one in found) == 30


def test_files_of_one_name_are_one_label() -> None:
    rows = [row(10, file="/a/b.py"), row(7, file="/c/b.py")]
    found = site_figures(rows, {"bytes": 17, "blocks": 2}, 10)  # type: ignore[arg-type]
    assert [(one.label, one.bytes.value) for one in found] == [("b.py:3 f", 17), ("other", 0)]


def test_patterns_of_sites() -> None:
    rows = [row(10), row(7, line=4, function="g"), row(5, file="/a/c.py")]
    for pattern, size in (("*/b.py:*", 17), ("f", 15), ("b.py:4 g", 7), ("/a/c.py", 5), ("x", 0)):
        assert match_sites(rows, pattern) == Value(size)  # type: ignore[arg-type]


def process(pid: int, **values: float) -> Figures:
    return Figures(
        path=f"{pid}.pmt", key=str(pid), pid=pid, program="app.py", ended="running", t_s=0.0,
        info={}, values={name: Value(value) for name, value in values.items()},
    )  # fmt: skip


def test_text_of_hostile_names() -> None:
    figures = process(1, heap_bytes=5)
    figures.program = 'a"b\\c\nd'
    figures.sites = [SiteFigure('"}\n{ x', Value(1), Value(1))]
    snapshot = Snapshot([figures], {'p"\n': 2}, {"r\\": 1})
    text = prometheus_client.generate_latest(registry_of(lambda: snapshot)).decode()
    found = samples(text)
    assert get(found, "site_bytes", site='"}\n{ x') == 1
    assert get(found, "alerts_firing", rule="r\\") == 1
    assert found["pymemtrace_deaths_total", frozenset()] == 2


def test_no_series_twice() -> None:
    """As when a process has executed itself and both captures are watched."""
    snapshot = Snapshot([process(1, heap_bytes=5), process(1, heap_bytes=6)])
    names = [
        (s.name, tuple(s.labels.items())) for family in families(snapshot) for s in family.samples
    ]
    assert len(names) == len(set(names))


# --- the machine ----------------------------------------------------------------------------------


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


PROC = {
    "proc/7/status": "Name:\tx\nVmHWM:\t 300 kB\nVmRSS:\t 200 kB\nVmSwap:\t 0 kB\n",
    "proc/meminfo": "MemTotal:  1000 kB\nMemAvailable:  400 kB\n",
    "proc/pressure/memory": "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n"
    "full avg10=0.50 avg60=0.00 avg300=0.00 total=3\n",
    "proc/7/stat": "7 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n",
}


def test_cgroup_2(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/a/b"
    root = write(
        tmp_path,
        PROC
        | {
            "proc/7/cgroup": "0::/a/b\n",
            f"{group}/memory.current": "1000\n",
            f"{group}/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.max": "4000\n",
            f"{group}/memory.stat": "anon 5\ninactive_file 300\n",
            f"{group}/memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\n",
            f"{group}/memory.pressure": "some avg10=9.00 avg60=0 avg300=0 total=1000000\n",
        },
    )
    found = host.of_process(7, root)
    assert found == {
        "rss_bytes": 200 << 10, "peak_rss_bytes": 300 << 10, "swap_bytes": 0,
        "host_bytes": 1000 << 10, "host_available_bytes": 400 << 10,
        "cgroup_bytes": 1000, "cgroup_working_set_bytes": 700, "cgroup_limit_bytes": 4000,
        "cgroup_oom_kills": 2, "cgroup_limit_hits": 12,
        "psi_some_avg10": 9.0, "psi_some_us": 1000000.0, "psi_full_avg10": 0.5,
    }  # fmt: skip
    assert host.start_ticks(7, root) == 4711


def test_cgroup_1(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/a"
    root = write(
        tmp_path,
        {
            "proc/7/cgroup": "9:memory:/a\n0::/x\n",
            f"{group}/memory.usage_in_bytes": "1000\n",
            f"{group}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{group}/memory.stat": "inactive_file 1\ntotal_inactive_file 400\n",
            f"{group}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            f"{group}/memory.failcnt": "5\n",
        },
    )
    assert host.of_process(7, root) == {
        "cgroup_bytes": 1000, "cgroup_working_set_bytes": 600, "cgroup_oom_kills": 3,
        "cgroup_limit_hits": 5,
    }  # fmt: skip


def test_a_cgroup_path_of_the_host_in_a_container(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/7/cgroup": "0::/../../etc\n",
            "sys/fs/cgroup/memory.current": "5",
            "etc/memory.current": "6",
        },
    )
    assert host.of_cgroup(host.cgroup_of(7, root))["cgroup_bytes"] == 5


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert host.of_process(7, str(tmp_path)) == {}
    assert host.start_ticks(7, str(tmp_path)) is None
    root = write(
        tmp_path,
        {
            "proc/7/stat": "\0\xff",
            "proc/pressure/memory": "some\nfull x\n\n",
            "proc/meminfo": "MemTotal: x kB\n",
        },
    )
    assert host.of_host(root) == {}
    assert host.start_ticks(7, root) is None


# --- captures that come, go, break ----------------------------------------------------------------


class Watched:
    """Targets and what they have said."""

    def __init__(self, *folders: str, paths: tuple[str, ...] = (), limit: int = MAX_PROCESSES):
        self.said: list[str] = []
        self.targets = Targets(paths, folders, self.said.append, limit=limit)

    def look(self) -> list[str]:
        return sorted(Path(followed.path).name for followed in self.targets.refresh())


def test_captures_come_and_end() -> None:
    watched = Watched(".")
    assert watched.look() == []
    with pymemtrace.record("a.pmt") as recording:
        recording.flush()
        assert watched.look() == ["a.pmt"]
        assert watched.targets.running == 1
    assert watched.look() == []
    assert watched.targets.deaths == []
    assert watched.look() == []
    with pymemtrace.record("a.pmt", force=True) as recording:
        recording.flush()
        assert watched.look() == ["a.pmt"]
    assert watched.look() == []
    assert watched.said == []


def test_their_number_is_bounded() -> None:
    watched = Watched(".", limit=0)
    with pymemtrace.record("a.pmt") as recording:
        recording.flush()
        for _ in range(3):
            assert watched.look() == []
    assert watched.said == ["more than 0 captures: the others are not watched"]


def test_rubbish_is_said_once_and_left_alone() -> None:
    Path("a.pmt").write_bytes(b"rubbish" * 1000)
    Path("b.pmt").mkdir()
    os.mkfifo("c.pmt")
    Path("d.pmt").symlink_to("/nowhere")
    watched = Watched(".")
    for _ in range(5):
        assert watched.look() == []
    assert len(watched.said) == 1
    assert watched.said[0].startswith("./a.pmt: ")


def test_a_directory_that_goes() -> None:
    Path("folder").mkdir()
    watched = Watched("folder")
    watched.look()
    Path("folder").rmdir()
    watched.look()
    watched.look()
    assert watched.said == ["folder: cannot read the directory (No such file or directory)"]


def test_an_old_capture_is_not_opened_before_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pymemtrace.record("a.pmt"):
        pass
    os.utime("a.pmt", (1, 1))
    opened: list[str] = []
    monkeypatch.setattr(Followed, "refresh", lambda self: opened.append(self.path))
    watched = Watched(".")
    watched.look()
    assert opened == []
    os.utime("a.pmt", (2, 2))
    watched.look()
    assert opened == ["./a.pmt"]


HOARD = """\
import sys, time
kept = [bytearray(3 << 20)]
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path: Path) -> "Callable[..., subprocess.Popen[str]]":
    """Starts HOARD, recorded; it ends when its standard input does. Killed at the end."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "hoard.py").write_text(HOARD)

    def start(*options: str) -> "subprocess.Popen[str]":
        words = [sys.executable, "-m", "pymemtrace", "run", "-q", *options, "hoard.py"]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start  # type: ignore[misc]
    for process in started:
        process.kill()
        process.communicate()


def until(condition: "Callable[[], object]", seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_death_and_a_restart_between_two_looks(
    start: "Callable[..., subprocess.Popen[str]]",
) -> None:
    """The new capture has the name of the old one, whose end its open file alone still tells."""
    watched = Watched(paths=("a.pmt",))
    first = start("-o", "a.pmt")
    until(watched.look)
    followed = watched.targets.refresh()
    assert followed[0].figures() is not None
    first.send_signal(signal.SIGKILL)
    first.wait()
    start("-f", "-o", "a.pmt")
    until(lambda: watched.look() and watched.targets.deaths)
    (death,) = watched.targets.deaths
    assert death.figures.pid == first.pid
    assert watched.said == ["a.pmt: another recording has taken its place"]


def test_a_truncated_capture_of_a_process_that_runs(
    start: "Callable[..., subprocess.Popen[str]]",
) -> None:
    watched = Watched(".")
    process_ = start("-o", "a.pmt")
    until(watched.look)
    assert watched.targets.refresh()[0].figures() is not None
    os.truncate("a.pmt", 100)
    for _ in range(3):
        assert watched.look() == ["a.pmt"]  # its last figures stay
    assert watched.targets.running == 1
    assert len(watched.said) == 1
    process_.send_signal(signal.SIGKILL)
    process_.wait()
    until(lambda: not watched.look())


def test_no_death_of_a_process_that_closes_its_capture(
    start: "Callable[..., subprocess.Popen[str]]",
) -> None:
    watched = Watched(".")
    running = start("-o", "a.pmt")
    until(watched.look)
    watched.targets.refresh()[0].figures()
    running.communicate("")
    until(lambda: not watched.look())
    assert watched.targets.deaths == []


def test_the_same_id_of_another_process_is_not_it(
    start: "Callable[..., subprocess.Popen[str]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start("-o", "a.pmt")
    followed = Followed("a.pmt")
    until(lambda: followed.refresh() or followed.was_running)
    followed.reader = None  # as if its file could not be read at the moment
    assert followed.is_alive
    monkeypatch.setattr(host, "start_ticks", lambda pid: 1)
    assert not followed.is_alive
    assert running.poll() is None


def test_the_past_of_a_capture() -> None:
    with pymemtrace.record("a.pmt", interval_s=0.01) as recording:
        kept = [hoard(MIB)]
        for _ in range(5):
            recording.flush()
        followed = Followed("a.pmt")
        followed.refresh()
        figures = followed.figures()
        assert figures is not None
        now = time.monotonic()
        points = past_points(followed, figures, now, 600.0)
        del kept
    assert len(points) >= 5
    assert all(now - 600 < at <= now for at, _ in points)
    assert points[-1][1]["heap_bytes"].value >= MIB


def test_the_past_of_two_time_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressure has rows of its own; between them it is what it was."""
    with pymemtrace.record("a.pmt", interval_s=0.01) as recording:
        for _ in range(5):
            recording.flush()
        followed = Followed("a.pmt")
        followed.refresh()
        figures = followed.figures()
        assert followed.reader is not None
        times = [row["t_s"] for row in followed.reader.timeline()]
    assert figures is not None
    rows = [{"t_ns": int(times[0] * 1e9), "cgroup_bytes": 7.0}, {"t_ns": 1, "swap_bytes": 3.0}]
    monkeypatch.setattr("pymemtrace._watch.loop.pressure_rows", lambda reader: rows)
    points = past_points(followed, figures, time.monotonic(), 600.0)
    assert len(points) == 1 + len(set(times))
    for _, values in points[1:]:
        assert {"heap_bytes", "cgroup_bytes", "swap_bytes"} <= set(values)


# --- captures that are made up --------------------------------------------------------------------

S = 10**9


def made_up(cuts: int = 5, **facts: object) -> CaptureBuilder:
    """A heap that grows by 1 MiB a second."""
    builder = CaptureBuilder(**facts)
    builder.thread(1, 1001, "MainThread")
    site = builder.site(builder.stack(("leak.py", "leak", 4)), MIB)
    for number in range(1, cuts + 1):
        builder.cut(
            number * S, [Row(site, 0, 1, 0, 0, (MIB, 0, 0))], epoch=number, allocations=number,
            live=(number * MIB, number), allocated_bytes=number * MIB, rss_bytes=number * 2 * MIB,
        )  # fmt: skip
    return builder


def test_what_a_capture_says_of_the_time_before_fires_at_once() -> None:
    made_up(cuts=120).write(Path("a.pmt"))
    Path("rules.toml").write_text(
        '[[rules]]\nname = "g"\nkind = "growth"\nmetric = "heap"\nabove = "50MiB/min"\n'
        'window = "60s"\nfor = "30s"\n'
        '[[rules]]\nname = "slow"\nkind = "growth"\nmetric = "heap"\nabove = "70MiB/min"\n'
    )
    said: list[str] = []
    targets = Targets(["a.pmt"], [], said.append, keep_ended=True)
    watcher = Watcher(targets, said.append, rules=Rules("rules.toml", said.append))
    watcher.tick()
    (event,) = watcher.events
    assert event.rule.name == "g"
    assert event.value == pytest.approx(MIB, rel=0.05)
    watcher.close()


@pytest.mark.parametrize(
    "facts",
    [
        {"started_mono_ns": "text", "start_ticks": ["a"], "boot_id": 5, "exec_generation": "x"},
        {"command": 5, "pid": 2**63, "hostname": 1},
        {"command": "python", "mode": 7},
        {"command": [], "started_mono_ns": 2**64 - 1},
        {"pid": "4711", "cgroup": "/../.."},
    ],
)
def test_facts_that_are_not_what_they_should_be(facts: dict[str, object]) -> None:
    made_up(**facts).write(Path("a.pmt"))
    assert get(exported(Collector("a.pmt")), "heap_bytes") == 5 * MIB
    said: list[str] = []
    watcher = Watcher(Targets(["a.pmt"], [], said.append, keep_ended=True), said.append)
    watcher.tick()
    assert watcher.processes
    json.dumps(json_of(watcher, []))
    watcher.close()


def test_bytes_that_are_changed_never_raise() -> None:
    dice = random.Random(11)
    good = made_up().bytes()
    Path("rules.toml").write_text(
        '[[rules]]\nname = "g"\nkind = "growth"\nmetric = "heap"\nabove = "1MiB/min"\n'
        '[[rules]]\nname = "s"\nkind = "threshold"\nmetric = "site"\nsite = "*"\nabove = 1\n'
    )
    for _ in range(300):
        content = bytearray(good)
        for _ in range(dice.randrange(1, 8)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        if dice.random() < 0.3:
            del content[dice.randrange(len(content)) :]
        Path("a.pmt").write_bytes(content)
        said: list[str] = []
        targets = Targets(["a.pmt"], [], said.append, keep_ended=True)
        watcher = Watcher(targets, said.append, rules=Rules("rules.toml", said.append))
        for _ in range(2):
            watcher.tick()
        prometheus_client.generate_latest(registry_of(watcher.snapshot))
        assert all(line.isprintable() for line in said)
        watcher.close()


def test_what_has_not_changed_is_not_summed_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = module_of_figures.of_reader
    monkeypatch.setattr(
        module_of_figures, "of_reader", lambda *a, **k: asked.append("") or real(*a, **k)
    )
    with pymemtrace.record("a.pmt") as recording:
        kept = hoard(MIB)
        recording.flush()
        followed = Followed("a.pmt")
        for looks in (1, 1, 2):
            followed.refresh()
            figures = followed.figures(10, ["*"] * (looks - 1))
            assert figures is not None
            assert len(asked) == looks
            assert "host_bytes" in figures.values
        kept = hoard(2 * MIB)
        recording.flush()
        followed.refresh()
        figures = followed.figures(10, ["*"])
        assert figures is not None
        assert figures.by_pattern["*"].value >= 2 * MIB
        del kept
    followed.refresh()
    figures = followed.figures(10, ["*"])
    assert figures is not None
    assert figures.ended == "normal"
    assert len(asked) == 4


def test_a_process_in_another_container() -> None:
    """Its process is not here: what counts is whether its capture grows."""
    path = Path("a.pmt")
    made_up(cuts=2, boot_id="0000").write(path)
    watched = Watched(".")
    assert watched.look() == []  # it may as well have been killed before
    path.write_bytes(made_up(cuts=3, boot_id="0000").bytes())
    assert watched.look() == ["a.pmt"]
    assert watched.targets.running == 1
    assert watched.targets.deaths == []
    assert watched.said == []


def test_a_clock_that_is_set_changes_no_age(monkeypatch: pytest.MonkeyPatch) -> None:
    with pymemtrace.record("a.pmt") as recording:
        recording.flush()
        followed = Followed("a.pmt")
        followed.refresh()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 1e6)
        figures = followed.figures()
        assert figures is not None
        age = figures.number("age_s")
        assert age is not None
        assert 0 <= age < 1e5
        assert figures.t_s <= time.monotonic()


def test_a_problem_that_changes_all_the_time_is_said_once() -> None:
    watched = Watched(paths=("a.pmt",))
    for number in range(20):
        Path("a.pmt").write_bytes(b"x" * number)
        watched.look()
    assert len(watched.said) == 1


# --- the endpoint ---------------------------------------------------------------------------------


def test_the_endpoint_is_on_loopback_and_knows_the_last_look() -> None:
    said: list[str] = []
    watcher = Watcher(Targets([], ["."], said.append), said.append)
    port = watcher.serve("127.0.0.1", 0)
    with pymemtrace.record("a.pmt") as recording:
        kept = hoard(2 * MIB)
        recording.flush()
        watcher.tick()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            found = samples(answer.read().decode())
        del kept
    assert get(found, "heap_bytes") >= 2 * MIB
    assert get(found, "processes") == 1
    for words in ("GET /" + "x" * 5000, "POST /metrics", "GET /metrics?name[]=%ff&name[]="):
        method, _, path = words.partition(" ")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path)
        connection.getresponse().read()
        connection.close()
    watcher.close()
    assert said == []


def test_the_file_is_whole_or_as_before() -> None:
    said: list[str] = []
    watcher = Watcher(Targets([], ["."], said.append), said.append)
    Path("out").mkdir()
    watcher.write_to("out/m.prom")
    with pymemtrace.record("a.pmt") as recording:
        recording.flush()
        watcher.tick()
    assert get(samples(Path("out/m.prom").read_text()), "processes") == 1
    assert [path.name for path in Path("out").iterdir()] == ["m.prom"]
    watcher.close()
    text = Path("out/m.prom").read_text()
    assert get(samples(text), "processes") == 0
    assert "pid=" not in text
    Path("out/m.prom").unlink()
    Path("out").rmdir()
    for _ in range(3):
        watcher.tick()
    assert said == ["cannot write the metrics (No such file or directory): out/m.prom"]


def test_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "pymemtrace.metrics")
    with pytest.raises(ImportError, match=r"pip install 'pymemtrace-profiler\[metrics\]'"):
        import pymemtrace.metrics  # noqa: F401
