"""Two web services in production mode under load, whose workers are killed at random.

Django under gunicorn and FastAPI under uvicorn, two workers each, on the loopback interface, with
PYMEMTRACE in the environment and nothing else changed. Requests come at a bounded rate; one in
ten leaks 200 KB. Every so often a worker gets SIGKILL; the master starts another one. Then the dead
worker's box is read: is it there and whole, how old is its state, is the leaking line the one
that grew, and what does `pymemtrace report` say? At the end: requests that failed otherwise than by
a kill, how many boxes there are, what the recorder's memory did, and whether the deaths were
counted.
"""

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    PRODUCTION,
    PRODUCTION_REQUIREMENTS,
    Row,
    bench_venv,
    environment,
    finish,
    parser,
    say,
    table,
    work_folder,
)

import pymemtrace

MAX_AGE_S = 5.0
KEEP = 8
SERVERS = {
    "gunicorn": "gunicorn --log-level warning --workers 2 --bind 127.0.0.1:{port} "
    "service_wsgi:application",
    "uvicorn": "uvicorn --log-level warning --workers 2 --port {port} service_asgi:app",
}
PATHS = {"gunicorn": ["/books/3/", "/api/7/"], "uvicorn": ["/books/3", "/api/7"]}


@dataclass
class Service:
    name: str
    port: int
    folder: Path
    process: "subprocess.Popen[bytes]"
    answers: int = 0
    broken: int = 0  # connections, some of them by our kills
    wrong: list[str] = field(default_factory=list)
    deaths: list[dict[str, Any]] = field(default_factory=list)
    own_bytes: list[int] = field(default_factory=list)


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in
                Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]  # fmt: skip
    return []


def workers_of(service: Service) -> list[int]:
    """Its children that have a box: not uvicorn's resource tracker."""
    return [pid for pid in children_of(service.process.pid) if box_of(service, pid) is not None]


def box_of(service: Service, pid: int) -> Path | None:
    """By the pid, in whichever of its names."""
    found = [*service.folder.glob(f"*.{pid}.pmt"), *service.folder.glob(f"*.{pid}.*.pmt")]
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def load(service: Service, rate: float, end: float) -> None:
    connection, number = None, 0
    while time.monotonic() < end:
        started = time.monotonic()
        number += 1
        path = "/leak/" if number % 10 == 0 else PATHS[service.name][number % 2]
        try:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            service.answers += 1
            if response.status != 200 or not body:
                service.wrong.append(f"{path}: status {response.status}")
            if number % 50 == 0:
                connection.close()
                connection = None
        except (OSError, http.client.HTTPException):
            service.broken += 1
            connection = None
            time.sleep(0.05)
        time.sleep(max(0.0, started + 1 / rate - time.monotonic()))


def examine(service: Service, pid: int, killed: float, lived_s: float) -> dict[str, Any]:
    """The report of a worker's box. Without a `why` all is well."""
    death: dict[str, Any] = {"service": service.name, "pid": pid, "lived_s": lived_s}
    for _ in range(3):
        box = box_of(service, pid)
        if box is None:
            return death | {"why": "no box"}
        command = [Path(sys.executable).with_name("pymemtrace"), "report", "--json", box]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode == 0 or box.exists():  # else it got its last name meanwhile
            break
    if done.returncode != 0:
        return death | {"why": f"report: {done.stderr.strip()}"}
    death["cause"] = json.loads(done.stdout)["end"]["likely_cause"]
    capture = pymemtrace.open(box_of(service, pid))
    info = capture.info()
    death["age_s"] = killed - datetime.fromisoformat(info["last_flush"]).timestamp()
    if info["damaged"] is not None or info["ended"] != "killed":
        death["why"] = f"{info['ended']}, {info['damaged']}"
    rows = capture.sites("leaks")
    leaked = sum(row["bytes"] for row in rows if row["site"]["function"] == "leak_view")
    death |= {
        "leaked": leaked,
        "top": rows[0]["site"]["function"] if rows else None,
        "second": max((row["bytes"] for row in rows if row["site"]["function"] != "leak_view"),
                      default=0),
        "own_bytes": capture.totals()["recorder_bytes"],
    }  # fmt: skip
    return death


def kill_sometimes(service: Service, every_s: float, end: float, seed: int) -> None:
    choose = random.Random(seed)
    while True:
        time.sleep(choose.uniform(0.5, 1.5) * every_s)
        if time.monotonic() > end - 5:
            return
        workers = workers_of(service)
        if not workers:
            continue
        pid = choose.choice(workers)
        started = Path(f"/proc/{pid}").stat().st_ctime
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed = time.time()
            time.sleep(0.3)
            death = examine(service, pid, killed, killed - started)
            service.deaths.append(death)
            if "why" in death:
                say(f"{service.name}, worker {pid}: {death['why']}")


def start(name: str, port: int, folder: Path, venv: Path) -> Service:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = SERVERS[name].format(port=port).split()
    variables = {
        "PYTHONPATH": str(BENCH / "children"),
        "PYMEMTRACE": f"dir={folder},keep={KEEP}",
        "BENCH_CAPTURE": str(folder / "unused.pmt"),
    }
    log = (folder.parent / f"{name}.log").open("wb")
    process = subprocess.Popen(
        [str(venv / "bin" / words[0]), *words[1:]],
        env=environment(**variables), cwd=folder, stdout=log, stderr=log,
    )  # fmt: skip
    service = Service(name, port, folder, process)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", PATHS[name][0])
            if connection.getresponse().status == 200:
                return service
        time.sleep(0.2)
    process.kill()
    raise SystemExit(f"error: {name} does not answer: see {folder.parent / f'{name}.log'}")


def stop(service: Service) -> None:
    service.process.send_signal(signal.SIGTERM)
    try:
        service.process.wait(30)
    except subprocess.TimeoutExpired:
        for pid in children_of(service.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        service.process.kill()
        service.process.wait()


def rows_of(service: Service) -> list[Row]:
    deaths = service.deaths
    good = [death for death in deaths if "why" not in death]
    oldest = max((death["age_s"] for death in deaths if "age_s" in death), default=0.0)
    # what leaked must lead where it is more than all that a worker's start leaves, twice over
    clear = [death for death in good if death["leaked"] > 2 * death["second"] + (4 << 20)]
    right = [death for death in clear if death["top"] == "leak_view"]
    counted = 0
    for path in service.folder.glob("*.deaths.json"):
        counted += json.loads(path.read_text())["deaths"]
    boxes = len(list(service.folder.glob("*.pmt")))
    alive = 3  # master and workers
    own = [death["own_bytes"] for death in good if death.get("own_bytes")]
    name = service.name
    return [
        Row(f"{name}: boxes of killed workers whole", f"{len(deaths)} of {len(deaths)}",
            f"{len(good)} of {len(deaths)}", len(good) == len(deaths)),
        Row(f"{name}: age of their state", f"<= {MAX_AGE_S:.0f} s", f"{oldest:.2f} s",
            oldest <= MAX_AGE_S),
        Row(f"{name}: the leak is the top site, where it is clear", "all",
            f"{len(right)} of {len(clear)}", len(right) == len(clear)),
        Row(f"{name}: wrong answers", "0", str(len(service.wrong)), not service.wrong),
        Row(f"{name}: boxes at the end", f"<= {alive} + {KEEP} + 3", str(boxes),
            boxes <= alive + KEEP + 3),
        Row(f"{name}: deaths counted", f"{len(deaths)}, or all but the last",
            str(counted), len(deaths) - 2 <= counted <= len(deaths)),
        Row(f"{name}: recorder's memory", "<= 8 MiB",
            f"{max(own, default=0) / 2**20:.1f} MiB", max(own, default=0) <= 8 << 20),
    ]  # fmt: skip


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--rate", type=float, default=60, help="requests per second, of each service")
    p.add_argument("--kill-every", type=float, default=30, help="seconds, of each service")
    args = p.parse_args()
    venv = bench_venv(PRODUCTION, requirements=PRODUCTION_REQUIREMENTS)
    base = work_folder("service")
    services, threads = [], []
    try:
        for number, name in enumerate(SERVERS):
            port = 18700 + os.getpid() % 500 + number * 500
            services.append(start(name, port, base / name, venv))
        end = time.monotonic() + args.minutes * 60
        for number, service in enumerate(services):
            for _ in range(2):
                threads.append(threading.Thread(target=load, args=(service, args.rate / 2, end)))
            threads.append(
                threading.Thread(
                    target=kill_sometimes, args=(service, args.kill_every, end, number)
                )
            )
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for service in services:
            stop(service)
    lines = [
        (s.name, s.answers, s.broken, len(s.deaths), f"{sum(d['lived_s'] for d in s.deaths):.0f}")
        for s in services
    ]
    for service in services:
        for text in service.wrong[:5]:
            say(f"{service.name}: {text}")
    rows = [row for service in services for row in rows_of(service)]
    data = {s.name: {"answers": s.answers, "broken": s.broken, "deaths": s.deaths}
            for s in services}  # fmt: skip
    heads = ("service", "answers", "connections broken", "workers killed", "they lived, s")
    return finish(args, table(heads, lines), data, rows)


if __name__ == "__main__":
    sys.exit(main())
