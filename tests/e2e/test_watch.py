"""`pymemtrace watch` and `run --rules` with programs that run, leak and are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pymemtrace._watch import host

pytestmark = pytest.mark.any_version

prometheus = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

COMMAND = [sys.executable, "-m", "pymemtrace"]
WAIT_S = 90.0

LEAK = """\
import sys, time
from pathlib import Path

kept = []


def leak():
    kept.append([bytes(1000) for _ in range(200)])


while not Path("stop").exists():
    leak()
    time.sleep(0.02)
raise SystemExit(int(sys.argv[1]) if sys.argv[1:] else 0)
"""

CALM = LEAK.replace("    leak()\n    time", "    time").replace("\n\nwhile", "\nleak()\n\nwhile")

RULES = """\
[[rules]]
name = "leak"
kind = "growth"
metric = "heap"
above = "10MiB/min"
window = "10s"

[[rules]]
name = "large"
kind = "threshold"
metric = "site"
site = "*leak.py:* leak*"
above = "1MiB"

[[rules]]
name = "died"
kind = "death"
severity = "critical"
"""


class Lines:
    """A process and what it has written, line by line."""

    def __init__(self, *words: object, **options: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
        )  # fmt: skip
        self.out: list[str] = []
        self.err: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=pair)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: "object", lines: list[str]) -> None:
        for line in stream:  # type: ignore[attr-defined]
            lines.append(line.rstrip("\n"))

    def until(self, pattern: str) -> re.Match[str]:
        """A line of standard error that matches."""
        end = time.monotonic() + WAIT_S
        while True:
            for line in list(self.err):
                found = re.search(pattern, line)
                if found:
                    return found
            assert time.monotonic() < end, (pattern, self.err, self.out)
            assert self.process.poll() is None or any(t.is_alive() for t in self._threads), (
                pattern, self.err,
            )  # fmt: skip
            time.sleep(0.02)

    def end(self, number: int = 0) -> int:
        if number:
            self.process.send_signal(number)
        status = self.process.wait(WAIT_S)
        for thread in self._threads:
            thread.join(WAIT_S)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Lines]]:
    """Starts `pymemtrace` with these words in a folder with the programs and the rules."""
    (tmp_path / "leak.py").write_text(LEAK)
    (tmp_path / "calm.py").write_text(CALM)
    (tmp_path / "rules.toml").write_text(RULES)
    started: list[Lines] = []

    def start_one(*words: object, **options: object) -> Lines:
        started.append(Lines(*words, cwd=tmp_path, **options))
        return started[-1]

    yield start_one
    (tmp_path / "stop").touch()
    for one in started:
        one.close()


def wait_for(path: Path) -> None:
    end = time.monotonic() + WAIT_S
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.02)


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return str(answer.read().decode())


def threads_of(lines: Lines) -> list[str]:
    return sorted(path.name for path in Path(f"/proc/{lines.process.pid}/task").iterdir())


@pytest.mark.parametrize("sample", [(), ("--sample", "8K")])
def test_a_leaking_and_a_calm_program(
    start: Callable[..., Lines], tmp_path: Path, sample: tuple[str, ...]
) -> None:
    leaking = start("run", "-q", *sample, "-o", "leak.pmt", "leak.py")
    calm = start("run", "-q", *sample, "-o", "calm.pmt", "calm.py")
    watch = start("watch", ".", "--rules", "rules.toml", "--metrics", "0", "--interval", "0.5")
    address = watch.until(r"metrics: (http://127\.0\.0\.1:\d+/metrics)")[1]
    watch.until(r"ALERT warning: large: leak\.py \(\d+\): site:.* the limit is 1\.0 MiB")
    found = watch.until(r"ALERT warning: leak: leak\.py \((\d+)\): heap grows by ([\d.]+) MiB/min")
    assert int(found[1]) == leaking.process.pid
    text = get(address)
    assert f'pymemtrace_heap_bytes{{pid="{calm.process.pid}",program="calm.py"}}' in text
    assert re.search(r'pymemtrace_site_bytes\{.*site="leak\.py:8 leak', text)
    assert ("pymemtrace_heap_bytes_low{" in text) == bool(sample)
    assert 'pymemtrace_alerts_firing{rule="leak"} 1.0' in text
    os.kill(leaking.process.pid, signal.SIGKILL)
    leaking.end()
    found = watch.until(
        r"ALERT critical: died: leak\.py \((\d+)\): .*last state: heap ([\d.]+) MiB"
    )
    assert int(found[1]) == leaking.process.pid
    assert float(found[2]) > 1
    (tmp_path / "stop").touch()
    assert calm.end() == 0
    assert watch.end(signal.SIGTERM) == 0
    alerts = [line for line in watch.err if "ALERT" in line]
    assert len(alerts) == 3, alerts
    assert not any("calm" in line for line in alerts)
    assert not any("Traceback" in line or "failed" in line for line in watch.err), watch.err


def test_what_the_target_does_is_as_without_a_watcher(
    start: Callable[..., Lines], tmp_path: Path
) -> None:
    """Nobody opens anything of it but its capture, and no thread and no socket is in it."""
    leaking = start("run", "-q", "-o", "leak.pmt", "leak.py")
    wait_for(tmp_path / "leak.pmt")
    before = threads_of(leaking)
    watch = start("watch", str(leaking.process.pid), "--metrics", "0", "--interval", "0.2")
    watch.until("watching 1 process")
    assert threads_of(leaking) == before
    (tmp_path / "stop").touch()
    assert leaking.end() == 0
    watch.until("all processes have ended")
    assert watch.end() == 0


def test_once(start: Callable[..., Lines], tmp_path: Path) -> None:
    leaking = start("run", "-q", "-o", "leak.pmt", "leak.py")
    wait_for(tmp_path / "leak.pmt")
    time.sleep(0.1)
    (tmp_path / "large.toml").write_text(
        '[[rules]]\nname = "any"\nkind = "threshold"\nmetric = "rss"\nabove = 1\n'
    )
    done = start("watch", "leak.pmt", "--once")
    assert done.end() == 0
    assert re.search(r"leak\.py \(\d+\): running: heap .* RSS ", done.out[0])
    done = start("watch", "leak.pmt", "--once", "--json", "--rules", "large.toml")
    assert done.end() == 1
    told = json.loads("\n".join(done.out))
    assert told["processes"][0]["pid"] == leaking.process.pid
    assert [alert["rule"] for alert in told["alerts"]] == ["any"]
    assert [rule["state"] for rule in told["rules"]] == ["firing"]
    assert told["captures"][0]["ended"] == "running"
    (tmp_path / "stop").touch()
    leaking.end()
    done = start("watch", "leak.pmt", "--once")
    assert done.end() == 0
    assert re.search(r"leak\.py \(\d+\): ended: heap ", done.out[0])


def test_files_of_metrics_and_json_lines(start: Callable[..., Lines], tmp_path: Path) -> None:
    start("run", "-q", "-o", "leak.pmt", "leak.py")
    wait_for(tmp_path / "leak.pmt")
    watch = start(
        "watch", "leak.pmt", "--metrics-file", "m", "--json", "--interval", "0.3", "--sites", "2"
    )
    wait_for(tmp_path / "m.prom")
    end = time.monotonic() + WAIT_S
    while len(watch.out) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert watch.end(signal.SIGINT) == 130
    for line in watch.out:
        told = json.loads(line)
        assert len(told["processes"][0]["sites"]) <= 3
    assert 'pid="' not in (tmp_path / "m.prom").read_text()


def test_children_are_watched_too(start: Callable[..., Lines], tmp_path: Path) -> None:
    """A forked child is killed; its parent goes on."""
    (tmp_path / "forks.py").write_text(
        LEAK.replace("kept = []", "import os\n\nkept = []\nchild = os.fork()").replace(
            "raise SystemExit", "child and os.waitpid(child, 0)\nraise SystemExit"
        )
    )
    parent = start("run", "-q", "-o", "a.pmt", "forks.py")
    wait_for(tmp_path / "a.pmt")
    watch = start("watch", "a.pmt", "--json", "--rules", "rules.toml", "--interval", "0.3")
    end = time.monotonic() + WAIT_S
    pids: set[int] = set()
    while len(pids) < 2:
        assert time.monotonic() < end, watch.err
        time.sleep(0.05)
        if watch.out:
            pids = {process["pid"] for process in json.loads(watch.out[-1])["processes"]}
    (child,) = pids - {parent.process.pid}
    os.kill(child, signal.SIGKILL)
    assert int(watch.until(r"died: forks\.py \((\d+)\)")[1]) == child
    assert parent.process.poll() is None


def test_rules_are_read_again(start: Callable[..., Lines], tmp_path: Path) -> None:
    start("run", "-q", "-o", "leak.pmt", "leak.py")
    wait_for(tmp_path / "leak.pmt")
    rules = tmp_path / "now.toml"
    rules.write_text('[[rules]]\nname = "none"\nkind = "leak"\n')
    watch = start("watch", ".", "--rules", "now.toml", "--interval", "0.2")
    watch.until(r"now\.toml:3: rule 'none': kind 'leak': not available yet")
    watch.until("watching 1 process")
    rules.write_text("[[rules]\n")
    watch.until(r"now\.toml:1: .*the old rules hold")
    rules.write_text('[[rules]]\nname = "any"\nkind = "threshold"\nmetric = "heap"\nabove = 1\n')
    watch.until("ALERT warning: any")


def test_captures_that_break_while_they_are_watched(
    start: Callable[..., Lines], tmp_path: Path
) -> None:
    first = start("run", "-q", "-o", "leak.pmt", "leak.py")
    wait_for(tmp_path / "leak.pmt")
    watch = start("watch", ".", "--metrics", "0", "--interval", "0.2")
    watch.until("watching 1 process")
    (tmp_path / "rubbish.pmt").write_bytes(os.urandom(100_000))
    watch.until(r"rubbish\.pmt: ")
    size = (tmp_path / "leak.pmt").stat().st_size
    with (tmp_path / "leak.pmt").open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 300)
        file.truncate(size // 2 + 300)
    (tmp_path / "calm.pmt").write_bytes((tmp_path / "leak.pmt").read_bytes())
    time.sleep(1.5)
    (tmp_path / "leak.pmt").unlink()
    second = start("run", "-q", "-o", "new.pmt", "calm.py")
    address = watch.until(r"metrics: (\S+)")[1]
    end = time.monotonic() + WAIT_S
    while f'pid="{second.process.pid}"' not in get(address):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert watch.process.poll() is None
    assert first.process.poll() is None
    assert watch.end(signal.SIGTERM) == 0
    assert not any("Traceback" in line or "look failed" in line for line in watch.err), watch.err
    assert len(watch.err) < 12, watch.err


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory cgroup of 100 MiB."""
    own = host.cgroup_of(os.getpid())
    folder = Path(own) / f"pymemtrace-test-{os.getpid()}"
    try:
        if not own:
            raise OSError("there is none")
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a memory cgroup here: {error}")
    try:
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (folder / name).exists():
                (folder / name).write_text(str(100 << 20))
                break
        else:
            pytest.skip("cgroups made here have no memory controller")
        for name, limit in (("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", 100 << 20)):
            if (folder / name).exists():
                (folder / name).write_text(str(limit))
        yield folder
    finally:
        end = time.monotonic() + WAIT_S
        while (folder / "cgroup.procs").read_text() and time.monotonic() < end:
            time.sleep(0.05)
        folder.rmdir()


def test_a_process_that_runs_out_of_its_cgroup(
    start: Callable[..., Lines], tmp_path: Path, group: Path
) -> None:
    (tmp_path / "grows.py").write_text(
        f"import os, time\nopen({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        "kept = []\ndef grow():\n    kept.append(bytearray(1 << 20))\n"
        "for _ in range(1000):\n    grow()\n    time.sleep(0.15)\n"
    )
    (tmp_path / "oom.toml").write_text(
        '[[rules]]\nname = "runs out"\nkind = "exhaustion"\nof = "cgroup"\nwithin = "1m"\n'
        'window = "10s"\n[[rules]]\nname = "died"\nkind = "death"\n'
    )
    grows = start("run", "-q", "--sample", "64K", "-o", "a.pmt", "grows.py")
    wait_for(tmp_path / "a.pmt")
    watch = start("watch", "a.pmt", "--rules", "oom.toml", "--interval", "0.5")
    watch.until(
        r"ALERT warning: runs out: grows\.py .*its cgroup's limit \(100\.0 MiB\) is reached"
    )
    assert grows.end() == -signal.SIGKILL
    watch.until(r"ALERT warning: died: grows\.py .*counted 1 OOM kill.*most in grows\.py:5 grow")


# --- run --rules ----------------------------------------------------------------------------------


class Hook(HTTPServer):
    got: list[dict[str, object]]


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Keeps what is posted to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = Hook(("127.0.0.1", 0), Handler)
    server.got = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def program_of(lines: Lines) -> int:
    """The child of `pymemtrace run --rules`."""
    pid = lines.process.pid
    end = time.monotonic() + WAIT_S
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        assert time.monotonic() < end
        time.sleep(0.02)


def test_run_says_how_a_killed_program_ended(
    start: Callable[..., Lines], tmp_path: Path, hook: Hook
) -> None:
    (tmp_path / "hook.toml").write_text(
        f'[actions.w]\nkind = "webhook"\nurl = "http://127.0.0.1:{hook.server_port}/"\n{RULES}'
        'actions = ["w", "log"]\n'
    )
    run = start("run", "-q", "-o", "a.pmt", "--rules", "hook.toml", "--metrics", "0", "leak.py")
    address = run.until(r"metrics: (\S+)")[1]
    end = time.monotonic() + WAIT_S
    while "pymemtrace_heap_bytes" not in get(address):
        assert time.monotonic() < end
        time.sleep(0.05)
    pid = program_of(run)
    os.kill(pid, signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    line = next(line for line in run.err if "ALERT critical: died" in line)
    assert f"leak.py ({pid}): it ended without closing its capture: killed by SIGKILL" in line
    (died,) = [got for got in hook.got if got["rule"] == "died"]
    assert died["pid"] == pid
    assert "killed by SIGKILL" in str(died["text"])


def test_run_without_a_death_rule_says_it_too(start: Callable[..., Lines], tmp_path: Path) -> None:
    run = start("run", "-q", "-o", "a.pmt", "--metrics-file", "m", "leak.py")
    wait_for(tmp_path / "m.prom")
    os.kill(program_of(run), signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert any("killed by SIGKILL; last state: heap" in line for line in run.err)


@pytest.mark.parametrize("status", [0, 3])
def test_run_passes_the_status_on(start: Callable[..., Lines], tmp_path: Path, status: int) -> None:
    run = start("run", "-q", "-o", "a.pmt", "--rules", "rules.toml", "leak.py", status)
    wait_for(tmp_path / "a.pmt")
    (tmp_path / "stop").touch()
    assert run.end() == status
    assert not any("died" in line for line in run.err)
    assert run.out == []


def test_run_passes_signals_on(start: Callable[..., Lines], tmp_path: Path) -> None:
    (tmp_path / "handles.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\ntime.sleep(1000)\n"
    )
    run = start("run", "-q", "-o", "a.pmt", "--rules", "rules.toml", "handles.py")
    end = time.monotonic() + WAIT_S
    while "ready" not in run.out:
        assert time.monotonic() < end
        time.sleep(0.02)
    wait_for(tmp_path / "a.pmt")
    assert run.end(signal.SIGTERM) == 5


def test_the_program_outlives_a_watcher_that_is_killed(
    start: Callable[..., Lines], tmp_path: Path
) -> None:
    run = start("run", "-q", "-o", "a.pmt", "--rules", "rules.toml", "leak.py")
    wait_for(tmp_path / "a.pmt")
    pid = program_of(run)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(WAIT_S)
    size = (tmp_path / "a.pmt").stat().st_size
    end = time.monotonic() + WAIT_S
    while (tmp_path / "a.pmt").stat().st_size <= size:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert Path(f"/proc/{pid}").exists()
    (tmp_path / "stop").touch()


# --- what cannot be done --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        (("watch",), 2, "nothing to watch"),
        (("watch", "."), 2, "watching for nothing"),
        (("watch", "none.pmt", "--once"), 3, "no such capture: none.pmt"),
        (("watch", "99999999", "--once"), 3, "no such process: 99999999"),
        (("watch", ".", "--rules", "none.toml"), 3, "cannot read the rules"),
        (("watch", ".", "--metrics", "x"), 2, "give a port"),
        (("watch", ".", "--metrics", "70000"), 2, "give a port"),
        (("watch", ".", "--metrics", "192.0.2.1:1"), 2, "cannot serve metrics"),
        (("watch", ".", "--interval", "0"), 2, "seconds"),
        (("watch", "--check-rules", "none.toml"), 3, "cannot read the rules"),
        (("run", "--rules", "none.toml", "leak.py"), 3, "cannot read the rules"),
        (("run", "--metrics", "x", "leak.py"), 2, "no such address"),
        (("run", "--live", "--rules", "rules.toml", "leak.py"), 2, "--live does not go with"),
    ],
)
def test_one_line_says_what_is_wrong(
    start: Callable[..., Lines], words: tuple[str, ...], status: int, what: str
) -> None:
    done = start(*words)
    assert done.end() == status
    assert what in done.err[-1]
    assert not any("Traceback" in line for line in done.err)


def test_check_rules(start: Callable[..., Lines], tmp_path: Path) -> None:
    done = start("watch", "--check-rules", "rules.toml")
    assert done.end() == 0
    assert done.out == ["rules.toml: 3 rules good"]
    (tmp_path / "bad.toml").write_text(RULES + '[[rules]]\nname = "x"\nkind = "leak"\n')
    done = start("watch", "--check-rules", "bad.toml")
    assert done.end() == 1
    assert done.out[0].startswith("bad.toml:21: rule 'x': kind 'leak': not available yet")
    assert done.out[1] == "bad.toml: 3 rules good, 1 problems"


def test_without_prometheus_client(start: Callable[..., Lines], tmp_path: Path) -> None:
    """Metrics need it, alerts do not."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'prometheus_client' else"
        " find(name, *a)\n"
        "sys.modules['prometheus_client'] = None\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for words in (("watch", ".", "--metrics", "0"), ("run", "--metrics-file", "m", "leak.py")):
        done = start(*words, env=environment)
        assert done.end() == 4
        assert "metrics need prometheus_client" in done.err[0]
        assert "pymemtrace-profiler[metrics]" in done.err[0]
    done = start("watch", ".", "--once", "--rules", "rules.toml", env=environment)
    assert done.end() == 0
