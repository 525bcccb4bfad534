"""What is read from a capture and from the host, for a verdict."""

import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from pymemtrace import _boxes, _cgroup, _death, _evidence
from pymemtrace._core import Reader

pytestmark = pytest.mark.any_version

MIB = 1 << 20
STARTED = 1_795_787_000.0

# /dev/kmsg of Linux 6.18, a cgroup of version 1; the first is of an earlier process of this id
MEMCG = (
    b"6,4711,29769746208,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,"
    b"mems_allowed=0,oom_memcg=/box,task_memcg=/box,task=python,pid=15801,uid=0\n"
)
KILL = (
    b"3,4712,29769746250,-;Memory cgroup out of memory: Killed process 15801 (python) "
    b"total-vm:156212kB, anon-rss:101888kB, file-rss:7008kB, shmem-rss:0kB, UID:0 "
    b"pgtables:280kB oom_score_adj:0\n"
)
HOST_KILL = (
    b"3,812,29769746250,-;Out of memory: Killed process 77 (python3) total-vm:8125648kB, "
    b"anon-rss:7519572kB, file-rss:1108kB, shmem-rss:0kB, UID:1000 pgtables:14960kB "
    b"oom_score_adj:0\n"
)


@pytest.mark.parametrize(
    ("pid", "died", "found"),
    [(15801, 29769.0, "cgroup"), (15801, 29772.0, "cgroup"), (77, 29768.5, "host"),
     (15801, 29000.0, None), (15801, 31000.0, None), (1580, 29769.0, None), (801, 29769.0, None)],
)  # fmt: skip
def test_the_kernels_log(pid: int, died: float, found: str | None) -> None:
    records = [b"6,1,2,-;other\n", MEMCG, KILL, HOST_KILL, b"garbage", b"3,1,x,-;Killed process y",
               b"3,1;Killed process 15801", b"3,1,2,-;Killed process "]  # fmt: skip
    assert _evidence.find_kill(records, pid, died) == found


def test_slopes() -> None:
    assert _evidence.slope([]) is None
    assert _evidence.slope([(1.0, 5.0)]) is None
    assert _evidence.slope([(1.0, 5.0), (1.0, 7.0)]) is None
    assert _evidence.slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == pytest.approx(2.0)
    points = [(float(t), 10.0 * t) for t in range(100)]
    assert len(_evidence.window(points, 10.0)) == 11


def test_growth_is_the_steepest_of_the_last_seconds() -> None:
    steady = [{"t_s": float(t), "rss_bytes": 100 * MIB} for t in range(50)]
    assert _evidence.growth(steady) == pytest.approx(0.0)
    jump = [*steady, {"t_s": 50.0, "rss_bytes": 300 * MIB}]
    assert _evidence.growth(jump) == pytest.approx(200 * MIB)
    assert _evidence.growth([]) is None


class Fake:
    """A capture of a process in a cgroup of 512 MiB, up to a moment before its end."""

    def __init__(self, used: list[int], **facts: object) -> None:
        self.used = used
        self.facts = {
            "hostname": socket.gethostname(), "boot_id": _boxes.boot_id(), "pid": 4_194_304,
            "memory_bytes": 16 << 30, "memory_limit_bytes": 512 * MIB, "interval_ns": 10**9,
            "cgroup_path": "/no/such/group", "cgroup_version": 2,
        } | facts  # fmt: skip

    def info(self) -> dict[str, Any]:
        started = datetime.fromtimestamp(STARTED, UTC).isoformat()
        return {"ended": "killed", "ended_by": None, "exit_status": None, "stopped": None,
                "cuts": len(self.used), "pid": self.facts["pid"], "started": started,
                "duration_s": float(len(self.used))}  # fmt: skip

    def proc(self) -> dict[str, Any]:
        return self.facts

    def timeline(self) -> list[dict[str, Any]]:
        return [{"t_s": float(t), "rss_bytes": used} for t, used in enumerate(self.used)]

    def pressure(self) -> list[dict[str, Any]]:
        return [
            {"t_ns": t * 10**9, "cgroup_bytes": used + 50 * MIB, "cgroup_working_set_bytes": used,
             "cgroup_limit_bytes": 512 * MIB, "cgroup_oom_kills": 0, "cgroup_limit_hits": t // 10,
             "psi_some_avg10": 5.0, "psi_full_avg10": None, "host_available_bytes": 8 << 30,
             "host_bytes": 16 << 30, "host_swap_free_bytes": 0}
            for t, used in enumerate(self.used)
        ]  # fmt: skip


def gather(fake: object, **how: Any) -> _death.Evidence:
    return _evidence.gather(cast(Reader, fake), **how)


def test_the_last_state_of_a_group_near_its_limit() -> None:
    evidence = gather(Fake([t * 4 * MIB for t in range(125)]))
    assert (evidence.used_bytes, evidence.limit_bytes) == (496 * MIB, 512 * MIB)
    assert evidence.charged_bytes == 546 * MIB
    assert evidence.growth_bytes_s == pytest.approx(4 * MIB)
    assert (evidence.hits_before, evidence.hits_last) == (6, 12)
    assert evidence.psi_full is None
    assert (evidence.same_host, evidence.rebooted) == (True, False)
    verdict = _death.judge(evidence)
    assert (verdict.cause, verdict.confidence) == ("oom-cgroup", _death.VERY_PROBABLE)
    assert _death.usage_text(evidence) == "496 of 512 MiB"


def test_a_capture_without_pressure() -> None:
    class Old(Fake):
        pressure = None  # type: ignore[assignment]

    fake = Old([500 * MIB] * 5)
    evidence = gather(fake)
    assert (evidence.used_bytes, evidence.rss_bytes) == (None, 500 * MIB)
    assert _death.judge(evidence).cause == "oom-cgroup"


def test_a_capture_without_states() -> None:
    evidence = gather(Fake([]))
    assert evidence.states == 0
    assert _death.judge(evidence).confidence == _death.UNKNOWN


def test_hosts() -> None:
    info = Fake([1] * 3).info()
    here = {"hostname": socket.gethostname(), "boot_id": _boxes.boot_id()}
    assert _evidence.host_of(here, info) == (True, False)
    assert _evidence.host_of(here | {"boot_id": "x", "hostname": "other"}, info) == (False, None)
    old = info | {"started": "2001-01-01T00:00:00+00:00"}
    assert _evidence.host_of(here | {"boot_id": "x"}, old) == (True, True)
    # it has written since this host was started: so it is another host of this name
    new = info | {"started": datetime.fromtimestamp(time.time(), UTC).isoformat()}
    assert _evidence.host_of(here | {"boot_id": "x"}, new) == (False, None)


def test_the_counters_of_the_group_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "memory.max").write_text(f"{512 * MIB}\n")
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 31\noom 2\noom_kill 1\n")
    find = _cgroup.find
    monkeypatch.setattr(_cgroup, "find", lambda path, version: find(path, version, str(tmp_path)))
    evidence = gather(Fake([100 * MIB] * 9, cgroup_path="/app"))
    assert (evidence.kills_last, evidence.kills_now) == (0, 1)
    assert _death.judge(evidence).cause == "oom-cgroup"
    # another limit: another group, of the same name
    (folder / "memory.max").write_text(f"{256 * MIB}\n")
    evidence = gather(Fake([100 * MIB] * 9, cgroup_path="/app"))
    assert evidence.kills_now is None
    assert _death.judge(evidence).cause == "killed"
