"""Verdicts: one row per rule."""

from dataclasses import replace

import pytest

from pymemtrace import _death
from pymemtrace._death import CERTAIN, POSSIBLE, PROBABLE, UNKNOWN, VERY_PROBABLE, Evidence, judge

pytestmark = pytest.mark.any_version

MIB = 1 << 20
GIB = 1 << 30

# A process without an end, in a group of 512 MiB on a host with room.
KILLED = Evidence(
    ended="killed", states=100, same_host=True, rebooted=False, rss_bytes=100 * MIB,
    limit_bytes=512 * MIB, used_bytes=120 * MIB, host_bytes=16 * GIB, available_bytes=8 * GIB,
    psi_full=0.0, growth_bytes_s=0.0, kills_first=0, kills_last=0, kills_now=0, hits_before=0,
    hits_last=0,
)  # fmt: skip
NOTHING = Evidence(ended="killed", states=3)
NO_LIMIT = replace(KILLED, limit_bytes=None, used_bytes=None)

ROWS = [
    ("it runs", Evidence(ended="running"), "running", CERTAIN, "is still running"),
    ("normal end", Evidence(ended="normal", ended_by="return", exit_status=0), "normal", CERTAIN,
     "ended normally"),
    ("end without a status", Evidence(ended="normal"), "normal", CERTAIN, "ended normally"),
    ("sys.exit(3)", Evidence(ended="normal", ended_by="exit", exit_status=3), "exit", CERTAIN,
     "exit status 3"),
    ("exception", Evidence(ended="normal", ended_by="exception", exit_status=1), "exception",
     CERTAIN, "unhandled exception (exit status 1)"),
    ("exec", Evidence(ended="normal", ended_by="exec"), "executed", CERTAIN, "another program"),
    ("stop()", Evidence(ended="normal", ended_by="stop"), "unrecorded", CERTAIN,
     "ended its recording itself"),

    ("the kernel says cgroup", replace(KILLED, kernel="cgroup"), "oom-cgroup", CERTAIN,
     "was killed by the OOM killer of its cgroup"),
    ("the kernel says host", replace(KILLED, kernel="host"), "oom-host", CERTAIN,
     "was killed by the host's OOM killer"),

    ("near the limit", replace(KILLED, used_bytes=498 * MIB), "oom-cgroup", PROBABLE,
     "probably was killed by the OOM killer of its cgroup"),
    ("near, and the count rose", replace(KILLED, used_bytes=498 * MIB, kills_now=1), "oom-cgroup",
     VERY_PROBABLE, "probably was"),
    ("near, SIGKILL is known", replace(KILLED, used_bytes=498 * MIB, known_status=137),
     "oom-cgroup", VERY_PROBABLE, "probably was"),
    ("near, pressed, limit hit", replace(KILLED, used_bytes=470 * MIB, psi_full=40.0, hits_last=9),
     "oom-cgroup", VERY_PROBABLE, "probably was"),
    ("far, but the count rose", replace(KILLED, kills_now=1), "oom-cgroup", PROBABLE, "probably"),
    ("fast growth reaches it", replace(KILLED, used_bytes=300 * MIB, growth_bytes_s=150.0 * MIB),
     "oom-cgroup", POSSIBLE, "may have been killed"),
    ("fast growth, count rose",
     replace(KILLED, used_bytes=300 * MIB, growth_bytes_s=150.0 * MIB, kills_now=1),
     "oom-cgroup", VERY_PROBABLE, "probably was"),
    ("growth reaches it only where states are rare",
     replace(KILLED, used_bytes=447 * MIB, growth_bytes_s=16.0 * MIB), "oom-cgroup", POSSIBLE,
     "may have been"),
    ("states are rare",
     replace(KILLED, used_bytes=447 * MIB, growth_bytes_s=16.0 * MIB, interval_s=2.0),
     "oom-cgroup", PROBABLE, "probably was"),
    ("three quarters", replace(KILLED, used_bytes=400 * MIB), "oom-cgroup", POSSIBLE, "may have"),
    ("RSS where the group's use is not known",
     replace(KILLED, used_bytes=None, rss_bytes=500 * MIB), "oom-cgroup", PROBABLE, "probably"),
    ("a count that fell is a new group", replace(KILLED, kills_last=3, kills_now=0), "killed",
     PROBABLE, "not for lack of memory"),
    ("near, host rebooted", replace(KILLED, used_bytes=500 * MIB, rebooted=True), "oom-cgroup",
     PROBABLE, "probably was"),

    ("host low", replace(NO_LIMIT, available_bytes=60 * MIB), "oom-host", PROBABLE,
     "probably was killed by the host's OOM killer"),
    ("host low, count rose", replace(NO_LIMIT, available_bytes=60 * MIB, kills_now=1), "oom-host",
     VERY_PROBABLE, "probably was"),
    ("host low and pressed", replace(NO_LIMIT, available_bytes=60 * MIB, psi_full=33.0), "oom-host",
     VERY_PROBABLE, "probably was"),
    ("what is left of the host goes within a second",
     replace(NO_LIMIT, available_bytes=1 * GIB, growth_bytes_s=900.0 * MIB), "oom-host", POSSIBLE,
     "may have been"),
    ("a small host", replace(NO_LIMIT, host_bytes=1 * GIB, available_bytes=40 * MIB), "oom-host",
     PROBABLE, "probably was"),
    ("5 % of a large host are plenty",
     replace(NO_LIMIT, host_bytes=256 * GIB, available_bytes=10 * GIB), "killed", PROBABLE,
     "not for lack of memory"),

    ("well below every limit", KILLED, "killed", PROBABLE,
     "was killed or crashed, not for lack of memory"),
    ("well below, SIGKILL", replace(KILLED, known_status=-9), "killed", PROBABLE,
     "was ended by SIGKILL, not for lack of memory"),
    ("SIGTERM", replace(KILLED, known_status=143), "signal", CERTAIN, "was ended by SIGTERM"),
    ("SIGSEGV", replace(KILLED, known_status=-11), "crash", CERTAIN, "crashed: SIGSEGV"),
    ("a signal without a name", replace(KILLED, known_status=-40), "signal", CERTAIN, "signal 40"),
    ("os._exit(7)", replace(KILLED, known_status=7), "exit", CERTAIN, "exit status 7"),
    ("os._exit(0)", replace(KILLED, known_status=0), "exit", CERTAIN, "exit status 0"),
    ("reboot", replace(KILLED, rebooted=True), "reboot", PROBABLE, "with its host"),
    ("nothing is known", NOTHING, "killed", UNKNOWN, "whether for lack of memory is not known"),
    ("no state", Evidence(ended="killed", states=0), "killed", UNKNOWN, "before the first state"),
    ("stopped early", replace(KILLED, stopped="no space left"), "unrecorded", UNKNOWN,
     "its recording had stopped before: no space left"),
    ("stopped early, but the kernel knows",
     replace(KILLED, stopped="no space left", kernel="cgroup"), "oom-cgroup", CERTAIN, "was"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "cause", "confidence", "text"),
    [row[1:] for row in ROWS],
    ids=[str(row[0]) for row in ROWS],
)
def test_verdict(evidence: Evidence, cause: str, confidence: str, text: str) -> None:
    verdict = judge(evidence)
    assert (verdict.cause, verdict.confidence) == (cause, confidence)
    assert text in verdict.sentence


def test_a_probable_verdict_has_its_reasons() -> None:
    verdict = judge(replace(KILLED, used_bytes=498 * MIB, kills_now=1, rebooted=True))
    assert verdict.reasons[0] == "its cgroup used 498 of 512 MiB at its last state"
    assert "has risen since its last state" in verdict.reasons[1]
    assert verdict.against == ["the host was started anew since, which may have ended it instead"]


def test_every_verdict_that_is_not_certain_says_probably_or_not_known() -> None:
    for row in ROWS:
        verdict = judge(row[1])  # type: ignore[arg-type]
        if verdict.confidence in (VERY_PROBABLE, PROBABLE, POSSIBLE):
            words = ("probably", "may have", "as far as")
        elif verdict.confidence == UNKNOWN:
            words = ("not known", "before the first state")
        else:
            continue
        assert any(word in verdict.sentence for word in words), row[0]


def test_deaths_are_told_from_ends() -> None:
    assert judge(KILLED).is_death
    assert judge(Evidence(ended="normal", ended_by="exception", exit_status=1)).is_death
    assert not judge(Evidence(ended="normal", exit_status=2)).is_death
    assert not judge(Evidence(ended="running")).is_death
    assert not judge(Evidence(ended="normal", ended_by="exec")).is_death


@pytest.mark.parametrize(
    ("status", "signal"), [(None, None), (0, None), (1, None), (127, None), (128, None), (137, 9),
                           (-9, 9), (255, None), (-100, None)],
)  # fmt: skip
def test_signals_in_exit_statuses(status: int | None, signal: int | None) -> None:
    assert _death.signal_of(status) == signal


@pytest.mark.parametrize(
    ("used", "limit", "text"),
    [(498 * MIB, 512 * MIB, "498 of 512 MiB"), (3 * GIB // 2, 2 * GIB, "1536 of 2048 MiB"),
     (11 * GIB, 16 * GIB, "11 of 16 GiB"), (40 * MIB + MIB // 4, 64 * MIB, "40.2 of 64 MiB")],
)  # fmt: skip
def test_usage(used: int, limit: int, text: str) -> None:
    assert _death.usage_text(replace(KILLED, used_bytes=used, limit_bytes=limit)) == text
