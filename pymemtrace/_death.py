"""Why a recorded process probably ended: a verdict from what its capture and its host know.

judge() is a pure function of Evidence, so that every rule is a row of a table in its test. Nobody
tells a process that is killed by SIGKILL why; so the verdict says how sure it is and what it rests
on, and what speaks against it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

# How sure a verdict is, from the surest on.
CERTAIN = "certain"
VERY_PROBABLE = "very probable"
PROBABLE = "probable"
POSSIBLE = "possible"
UNKNOWN = "unknown"

NEAR = 0.90  # of the limit, at the last state: the next second may reach it
CLOSE = 0.75  # with other signs
LOW_HOST = 0.05  # of the host's memory available
LOW_HOST_BYTES = 200 << 20  # and never more than that: what large hosts keep is theirs
PRESSED = 10.0  # per cent of the last ten seconds that some waited for memory (PSI "full")
REACH_S = 3.0  # growth goes on behind the last state; so long at least,
REACH_STATES = 2.5  # and so many times the time between two states

SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
    9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU",
    25: "SIGXFSZ", 31: "SIGSYS",
}  # fmt: skip
CRASHES = frozenset((4, 6, 7, 8, 11, 31))


@dataclass(frozen=True)
class Evidence:
    """What is known. None: not known, which is not the same as 0."""

    ended: str  # "normal", "killed" (without an END chunk) or "running", as Reader.info() says
    ended_by: str | None = None  # "return", "exit", "exception", "exec", "stop"
    exit_status: int | None = None  # of an end that the capture has recorded
    stopped: str | None = None  # why the recording ended early
    states: int = 1  # that were written
    interval_s: float = 1.0  # between two of them
    known_status: int | None = None  # from a parent: as a shell has it, 128 + a signal, or -signal
    same_host: bool | None = None
    rebooted: bool | None = None  # the host was started anew since
    kernel: str | None = None  # what the kernel's log says of it: "cgroup" or "host"

    # at the last state
    rss_bytes: int | None = None
    limit_bytes: int | None = None  # of the cgroup
    used_bytes: int | None = None  # of it: what cannot be given back
    charged_bytes: int | None = None  # with the cache of files
    host_bytes: int | None = None
    available_bytes: int | None = None  # of the host
    swap_free_bytes: int | None = None
    psi_full: float | None = None  # per cent of the last ten seconds
    growth_bytes_s: float | None = None  # of the resident memory

    # counters of the cgroup: at the first state, at the last one, and now
    kills_first: int | None = None
    kills_last: int | None = None
    kills_now: int | None = None
    hits_before: int | None = None  # the limit was reached so often: a minute before the last state
    hits_last: int | None = None


@dataclass(frozen=True)
class Verdict:
    """cause: running, normal, exit, exception, executed, oom-cgroup, oom-host, signal, crash,
    reboot, killed, unrecorded. text completes "The process …"."""

    cause: str
    confidence: str
    text: str
    reasons: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        return f"The process {self.text}."

    @property
    def is_death(self) -> bool:
        """It did not end by itself."""
        return self.cause not in ("running", "normal", "exit", "executed", "unrecorded")


def judge(e: Evidence) -> Verdict:
    if e.ended == "running":
        return Verdict("running", CERTAIN, "is still running", ["its process is there"])
    if e.ended == "normal":
        return _of_end(e)
    signal = signal_of(e.known_status)
    if e.known_status is not None and signal is None:
        text = f"ended by itself with exit status {e.known_status}"
        reasons = ["its parent knows", "it ended past the recorder, as by os._exit() in a thread"]
        return Verdict("exit", CERTAIN, text, reasons)
    if signal is not None and signal != 9:
        name = SIGNALS.get(signal, f"signal {signal}")
        if signal in CRASHES:
            return Verdict("crash", CERTAIN, f"crashed: {name}", ["its parent knows the signal"],
                           list(_memory_signs(e)))  # fmt: skip
        return Verdict("signal", CERTAIN, f"was ended by {name}", ["its parent knows the signal"])
    if e.kernel == "cgroup":
        return Verdict("oom-cgroup", CERTAIN, "was killed by the OOM killer of its cgroup",
                       ["the kernel's log says so", *_memory_signs(e)])  # fmt: skip
    if e.kernel == "host":
        return Verdict("oom-host", CERTAIN, "was killed by the host's OOM killer",
                       ["the kernel's log says so", *_memory_signs(e)])  # fmt: skip
    if e.stopped is not None:
        text = f"is gone; how is not known, because its recording had stopped before: {e.stopped}"
        return Verdict("unrecorded", UNKNOWN, text)
    return _of_kill(e, sigkill=signal == 9)


def signal_of(status: int | None) -> int | None:
    """The signal in an exit status of a shell, a container or subprocess."""
    if status is None:
        return None
    if -64 <= status < 0:
        return -status
    return status - 128 if 128 < status <= 192 else None


def _of_end(e: Evidence) -> Verdict:
    reasons = ["the capture has its end"]
    if e.ended_by == "stop":
        text = "ended its recording itself; what came behind that is not known"
        return Verdict("unrecorded", CERTAIN, text, reasons)
    if e.ended_by == "exec":
        text = "executed another program in its own place, which is not recorded here"
        return Verdict("executed", CERTAIN, text, reasons)
    if e.ended_by == "exception":
        text = f"ended by an unhandled exception (exit status {e.exit_status})"
        return Verdict("exception", CERTAIN, text, reasons, list(_memory_signs(e)))
    if e.exit_status:
        text = f"ended by itself with exit status {e.exit_status}"
        return Verdict("exit", CERTAIN, text, reasons)
    return Verdict("normal", CERTAIN, "ended normally", reasons)


def _of_kill(e: Evidence, sigkill: bool) -> Verdict:
    """Without an end in the capture: SIGKILL, a signal that nobody handled, a crash, _exit."""
    if e.states == 0:
        text = "ended before the first state was written, within about a second of its start"
        return Verdict("killed", UNKNOWN, text)
    cgroup, cgroup_reasons = _cgroup_score(e)
    host, host_reasons = _host_score(e)
    # 137 of a container is SIGKILL: the OOM killer's, or somebody's
    if sigkill and max(cgroup, host) > 0:
        cgroup, host = (score + (score > 0) for score in (cgroup, host))
        cgroup_reasons.append("its parent knows that it was SIGKILL")
        host_reasons.append("its parent knows that it was SIGKILL")
    best = max(cgroup, host)
    if best >= 1 and cgroup >= host:
        text = "was killed by the OOM killer of its cgroup"
        return _probably("oom-cgroup", best, text, cgroup_reasons, e)
    if best >= 1:
        return _probably("oom-host", best, "was killed by the host's OOM killer", host_reasons, e)
    if e.rebooted:
        text = "was probably ended with its host, which was started anew since"
        return Verdict("reboot", PROBABLE, text, list(_no_lack(e)) or ["the boot id is another"])
    what = "was ended by SIGKILL" if sigkill else "was killed or crashed"
    no_lack = list(_no_lack(e))
    if no_lack:
        text = f"{what}, not for lack of memory as far as the recording knows"
        return Verdict("killed", PROBABLE, text, no_lack)
    text = f"{what}; whether for lack of memory is not known"
    return Verdict("killed", UNKNOWN, text, ["the recording has no limit and no pressure figures"])


def _probably(cause: str, score: int, text: str, reasons: list[str], e: Evidence) -> Verdict:
    confidence = VERY_PROBABLE if score >= 3 else PROBABLE if score == 2 else POSSIBLE
    against = []
    if e.rebooted:
        against.append("the host was started anew since, which may have ended it instead")
    word = "may have been" if confidence == POSSIBLE else "probably was"
    return Verdict(cause, confidence, text.replace("was", word, 1), reasons, against)


def _cgroup_score(e: Evidence) -> tuple[int, list[str]]:
    """0: no sign; 1: possible; 2: probable; 3: very probable."""
    limit = e.limit_bytes
    reasons: list[str] = []
    if not limit:
        return 0, reasons
    used = e.used_bytes if e.used_bytes is not None else e.rss_bytes
    part = used / limit if used is not None else 0.0
    score = 0
    if used is not None:
        what = "its cgroup used" if e.used_bytes is not None else "it held (RSS)"
        reasons.append(f"{what} {_of(used, limit)} at its last state")
    if part >= NEAR:
        score += 2
    elif used is not None and _reaches(e, used, limit):
        score += 1 + (part >= CLOSE)
        reasons.append(f"it grew by {_rate(e.growth_bytes_s)}, up to the limit within seconds")
    elif part >= CLOSE:
        score += 1
    if _rose(e.kills_last, e.kills_now):
        score += 2
        reasons.append("the cgroup's count of OOM kills has risen since its last state")
    if _rose(e.hits_before, e.hits_last):
        score += part >= CLOSE / 2
        reasons.append("the limit was hit in its last minute")
    if e.psi_full is not None and e.psi_full >= PRESSED:
        score += part >= CLOSE / 2
        reasons.append(f"all waited for memory for {e.psi_full:.0f} % of the last 10 s (PSI)")
    if _rose(e.kills_first, e.kills_last):
        reasons.append("the OOM killer had killed others of its cgroup meanwhile")
    return score, reasons


def _host_score(e: Evidence) -> tuple[int, list[str]]:
    reasons: list[str] = []
    if not e.host_bytes or e.available_bytes is None:
        return 0, reasons
    low = min(e.host_bytes * LOW_HOST, max(LOW_HOST_BYTES, e.host_bytes * LOW_HOST / 4))
    reasons.append(f"the host had {_of(e.available_bytes, e.host_bytes)} left at its last state")
    score = 0
    if e.available_bytes <= low:
        score += 2
    elif _grows(e) >= e.available_bytes:
        score += 1
        reasons.append(f"it grew by {_rate(e.growth_bytes_s)}, what was left within seconds")
    if score and e.swap_free_bytes == 0:
        reasons.append("no swap was free")
    if score and _rose(e.kills_last, e.kills_now):
        score += 1
        reasons.append("the cgroup's count of OOM kills has risen since its last state")
    if score and e.psi_full is not None and e.psi_full >= PRESSED:
        score += 1
        reasons.append(f"all waited for memory for {e.psi_full:.0f} % of the last 10 s (PSI)")
    return score, reasons


def _reaches(e: Evidence, used: int, limit: int) -> bool:
    return _grows(e) >= limit - used


def _grows(e: Evidence) -> float:
    """By how much it may have grown behind its last state."""
    return (e.growth_bytes_s or 0) * max(REACH_S, REACH_STATES * e.interval_s)


def _no_lack(e: Evidence) -> Iterator[str]:
    """Why it was not lack of memory; nothing, if that is not known."""
    used = e.used_bytes if e.used_bytes is not None else e.rss_bytes
    if e.limit_bytes and used is not None:
        yield f"it used {_of(used, e.limit_bytes)} of its cgroup's limit at its last state"
    if e.host_bytes and e.available_bytes is not None:
        yield f"the host had {_of(e.available_bytes, e.host_bytes)} left"
    if e.kills_last is not None and e.kills_now == e.kills_last:
        yield "its cgroup counts no OOM kill since"


def _memory_signs(e: Evidence) -> Iterator[str]:
    used = e.used_bytes if e.used_bytes is not None else e.rss_bytes
    if e.limit_bytes and used is not None:
        yield f"its cgroup used {_of(used, e.limit_bytes)} at its last state"


def _rose(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after > before


def _of(part: int, whole: int) -> str:
    """498 of 512 MiB."""
    unit, name = _unit(whole)
    return f"{_number(part / unit)} of {_number(whole / unit)} {name}"


def _rate(bytes_s: float | None) -> str:
    unit, name = _unit(int(bytes_s or 0))
    return f"{_number((bytes_s or 0) / unit)} {name} per second"


def _unit(size_bytes: int) -> tuple[int, str]:
    for shift, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size_bytes >= 10 << shift or (shift < 30 and size_bytes >= 1 << shift):
            return 1 << shift, name
    return 1, "B"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def usage_text(e: Evidence) -> str:
    """For one line: "498 of 512 MiB"; nothing where no limit is known."""
    used = e.used_bytes if e.used_bytes is not None else e.rss_bytes
    return _of(used, e.limit_bytes) if e.limit_bytes and used is not None else ""
