"""CPU time per request that a sampled recording adds to a web server, and the latency beside it.

Django under gunicorn, FastAPI under uvicorn, one worker each, on the loopback interface; the
requests come from here, the other core. Two equal servers share a core and answer the same requests
in turn, some requests the one, then the other, so that the noise of the machine falls on both. One
of them is recorded; every few seconds it is the other one, in the same processes: the mean
(geometric) of the two ratios knows no difference of the two processes. That is a pair.

CPU time is that of all threads of a server's process, in ns, from the first request to the last:
with the recorder's writes, one a second, while the server works half of the time, so they count
double. What a server does once (start and stop of a recording, its first requests) is not in it.
Modules stay patched when a recording ends, and pass their calls on: what that takes is on both
sides, not in the ratio. It is less than what instructions.py prints as `passed on`.

The result is the median of the pairs; its 95 % interval is bootstrapped over them.
"""

import contextlib
import http.client
import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    PRODUCTION,
    PRODUCTION_REQUIREMENTS,
    Failed,
    Row,
    bench_venv,
    environment,
    fail,
    finish,
    last_cpu,
    parser,
    say,
    table,
    words,
    work_folder,
)

TARGET, EXCLUDED = 0.01, 0.02
SERVERS = {
    "django": "gunicorn --log-level warning --workers 1 --bind 127.0.0.1:{port} "
    "web_django:application",
    "fastapi": "uvicorn --log-level warning --port {port} web_fastapi:app",
}
PHASE_S = 10.0  # the recorder takes the resident memory apart as often, where little changes
TURN = 6  # requests of one server, then of the other
WARM_S = 1.4  # of requests after a switch, unmeasured: over the first write


def requests_of(count: int, framework: str) -> list[tuple[str, str, str, str]]:
    """Method, path, body, type of the body."""
    result = []
    for i in range(count):
        kind = i % 3
        if kind == 0:
            result.append(("GET", f"/books/{i % 30}", "", ""))
        elif kind == 1:
            result.append(("GET", f"/api/{i % 50 + 1}", "", ""))
        else:
            book = {"title": f"new {i}", "price": 12.5, "author": i % 50 + 1}
            if framework == "django":
                body = urllib.parse.urlencode(book)
                result.append(("POST", "/create", body, "application/x-www-form-urlencoded"))
            else:
                result.append(("POST", "/create", json.dumps(book), "application/json"))
    return [(method, f"{path}/" if framework == "django" or method == "POST" else path, *rest)
            for method, path, *rest in result]  # type: ignore[misc] # fmt: skip


class Server:
    """A server under load. `cpu_ns` is the CPU time of its one worker, all threads."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.pid = self.switch("0")

    def ask(self, method: str, path: str, body: str = "", kind: str = "") -> bytes:
        headers = {"Content-Type": kind} if kind else {}
        self.connection.request(method, path, body or None, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status not in (200, 201):
            raise Failed(f"{method} {path}: status {answer.status}: {data[:300]!r}")
        return data

    def switch(self, on: str) -> int:
        return int(json.loads(self.ask("GET", f"/bench/recording/{on}"))["pid"])

    def cpu_ns(self) -> int:
        # Linux: the clock of a process, by its number (clock_getcpuclockid(3))
        return time.clock_gettime_ns(~self.pid << 3 | 2)

    def writer_ns(self) -> int:
        """CPU time of the recorder's thread."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            if (task / "comm").read_text().strip() == "pymemtrace":
                total += int((task / "schedstat").read_text().split()[0])
        return total


@contextmanager
def serving(framework: str, venv: Path, cpu: int) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *arguments = SERVERS[framework].format(port=port).split()
    capture = work_folder("web") / f"{framework}-{port}.pmt"
    log = work_folder("web") / f"{framework}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(cpu), venv / "bin/python", "-m", program, *arguments],
            cwd=BENCH / "children", stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env=environment(BENCH_CAPTURE=str(capture), PYTHONDONTWRITEBYTECODE="1"),
        )  # fmt: skip
    try:
        yield connected(process, port, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        capture.unlink(missing_ok=True)


def connected(process: "subprocess.Popen[bytes]", port: int, log: Path) -> Server:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return Server(port)
        time.sleep(0.1)
    raise Failed(f"the server did not start:\n{log.read_text()[-2000:]}")


def interval(ratios: list[float], rounds: int = 4000) -> tuple[float, float]:
    """Bootstrap percentiles of the median, 95 %."""
    chance = random.Random(1)
    found = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(rounds))
    return found[int(rounds * 0.025)], found[int(rounds * 0.975)]


@dataclass
class Phase:
    """What two servers did at the same time, by whether they were recorded."""

    cpu_ns: dict[bool, int]
    times_ns: dict[bool, list[int]]
    writer_ns: int  # of the recorder's thread
    wall_s: float
    status: dict[str, Any]


def phase(
    recorded: Server, plain: Server, requests: list[tuple[str, str, str, str]], on: str
) -> Phase:
    plain.switch("0")
    recorded.switch(on)
    servers = {True: recorded, False: plain}
    times: dict[bool, list[int]] = {True: [], False: []}
    warm = time.monotonic() + WARM_S
    while time.monotonic() < warm:
        for server in servers.values():
            for each in requests[:TURN]:
                server.ask(*each)
    before = {key: server.cpu_ns() for key, server in servers.items()}
    writer, start = recorded.writer_ns(), time.perf_counter()
    order = (True, False)
    for at in range(0, len(requests), TURN):
        for key in order:
            for each in requests[at : at + TURN]:
                began = time.perf_counter_ns()
                servers[key].ask(*each)
                times[key].append(time.perf_counter_ns() - began)
        order = order[::-1]
    cpu = {key: server.cpu_ns() - before[key] for key, server in servers.items()}
    wall, writer = time.perf_counter() - start, recorded.writer_ns() - writer
    status = json.loads(recorded.ask("GET", "/bench/status"))
    recorded.switch("0")
    return Phase(cpu, times, writer, wall, status)


def compare(one: Server, two: Server, framework: str, seconds: float, on: str) -> dict[str, Any]:
    probe = requests_of(300, framework)
    phase(one, two, probe, on)
    first = phase(two, one, probe, on)
    count = max(300, round(PHASE_S / first.wall_s * len(probe)))
    requests = requests_of(count, framework)
    ratios: list[float] = []
    phases: list[Phase] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(ratios) < 4:
        both = [phase(one, two, requests, on), phase(two, one, requests, on)]
        ratios.append(math.prod(each.cpu_ns[True] / each.cpu_ns[False] for each in both) ** 0.5)
        phases += both
        if len(ratios) % 5 == 0:
            low, high = interval(ratios, 500)
            say(f"{framework}: {len(ratios)} pairs, {statistics.median(ratios) - 1:+.2%} "
                f"({low - 1:+.2%} to {high - 1:+.2%})")  # fmt: skip
    low, high = interval(ratios)
    cpu = {key: [each.cpu_ns[key] / count / 1e6 for each in phases] for key in (True, False)}
    times = {key: [t for each in phases for t in each.times_ns[key]] for key in (True, False)}
    return {
        "framework": framework, "pairs": len(ratios), "requests": count,
        "cpu_ms": statistics.median(cpu[False]), "recorded_cpu_ms": statistics.median(cpu[True]),
        "added": statistics.median(ratios) - 1, "low": low - 1, "high": high - 1,
        "mean_added": statistics.fmean(ratios) - 1, "ratios": ratios,
        "latency_ms": percentiles(times[False]), "recorded_latency_ms": percentiles(times[True]),
        "writer_ms_per_s": statistics.median(e.writer_ns / 1e6 / e.wall_s for e in phases),
        "writer_share": sum(e.writer_ns for e in phases) / sum(e.cpu_ns[True] for e in phases),
        "status": phases[-1].status,
    }  # fmt: skip


def percentiles(times: list[int]) -> list[float]:
    times = sorted(times)
    return [times[int(len(times) * share)] / 1e6 for share in (0.5, 0.99)]


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--frameworks", type=words, default=list(SERVERS), help=" ".join(SERVERS))
    p.add_argument("--seconds", type=float, default=300, help="of each framework")
    p.add_argument("--sample", type=int, default=524288, help="bytes between samples")
    p.add_argument("--python-only", action="store_true", help="without the native layer")
    p.add_argument("--cpu", type=int, help="the server's core (default: the last)")
    p.add_argument("--venv", default=PRODUCTION, help="made by bench/setup.sh")
    args = p.parse_args()
    venv = bench_venv(args.venv, requirements=PRODUCTION_REQUIREMENTS)
    cpu = last_cpu() if args.cpu is None else args.cpu
    others = os.sched_getaffinity(0) - {cpu}
    if others:
        os.sched_setaffinity(0, others)
    on = f"{args.sample}{'n' if args.python_only else ''}"
    results = []
    try:
        for framework in args.frameworks:
            with serving(framework, venv, cpu) as one, serving(framework, venv, cpu) as two:
                results.append(compare(one, two, framework, args.seconds, on))
    except (Failed, OSError, http.client.HTTPException) as error:
        fail(str(error))
    finally:
        os.sched_setaffinity(0, others | {cpu})
    lines, rows = [], []
    for r in results:
        (p50, p99), (q50, q99) = r["latency_ms"], r["recorded_latency_ms"]
        lines.append((r["framework"], r["pairs"], f"{r['cpu_ms']:.3f}",
                      f"{r['recorded_cpu_ms']:.3f}", f"{r['added']:+.2%}",
                      f"{r['low']:+.2%} to {r['high']:+.2%}", f"{r['writer_share']:.2%}",
                      f"{p50:.2f} / {q50:.2f}", f"{p99:.2f} / {q99:.2f}"))  # fmt: skip
        rows.append(Row(f"CPU per request, {r['framework']}",
                        f"<= +{TARGET:.0%}, surely < +{EXCLUDED:.0%}",
                        f"{r['added']:+.2%} ({r['low']:+.2%} to {r['high']:+.2%})",
                        r["added"] <= TARGET and r["high"] < EXCLUDED))  # fmt: skip
    heads = (
        "server",
        "pairs",
        "CPU ms",
        "recorded",
        "added",
        "95 %",
        "of it writes",
        "p50 ms",
        "p99 ms",
    )
    data = {"sample_bytes": args.sample, "native": not args.python_only, "web": results}
    return finish(args, table(heads, lines), data, rows)


if __name__ == "__main__":
    sys.exit(main())
