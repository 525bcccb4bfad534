"""`pymemtrace report`: how a recorded process ended, and what its memory was like then."""

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pymemtrace import _death, _evidence
from pymemtrace._core import Aggregate
from pymemtrace._types import SiteRow
from pymemtrace.cli import _captures, _format, _options, _rows
from pymemtrace.cli._page import Column, Page, Segment
from pymemtrace.cli._spark import sparkline

HELP = "say how a process ended, why probably, and what its memory was like then"

WINDOW_S = 300.0  # "the final minutes"
SPARK_WIDTH = 60
LITTLE_PSI = 0.05  # per cent
GROWING = 5  # lines
PARTS = 4  # of the resident memory
STEADY_BYTES_S = 1024  # less than that is no trend worth a line

CONFIDENCE = {
    _death.CERTAIN: ("certain", "bold red"),
    _death.VERY_PROBABLE: ("very probable", "bold red"),
    _death.PROBABLE: ("probable", "bold yellow"),
    _death.POSSIBLE: ("possible, no more", "yellow"),
    _death.UNKNOWN: ("not known", "yellow"),
}


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("report", help=HELP, description=HELP)
    _options.add_captures(parser)
    parser.add_argument(
        "--exit-status", metavar="N", type=parse_status, default=None,
        help="the status that its parent, shell or container saw: 137 (128 + a signal), -9, 1",
    )  # fmt: skip
    parser.add_argument(
        "--window", metavar="TIME", type=parse_window, default=WINDOW_S,
        help="how much of the end is looked at for growth: 90s, 10m, 2h (default: 5m)",
    )  # fmt: skip
    _options.add_limit(parser, 10, "lines")
    _options.add_json(parser)


def parse_status(text: str) -> int:
    try:
        status = int(text)
    except ValueError:
        status = 1000
    if not -64 <= status <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} is no exit status from -64 to 255")
    return status


def parse_window(text: str) -> float:
    moment = _options.parse_moment(text)
    if not isinstance(moment, float) or moment <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: write 90s, 10m, 2h")
    return moment


@dataclass(frozen=True)
class Findings:
    """What is shown, in figures."""

    verdict: _death.Verdict
    evidence: _death.Evidence
    timeline: Sequence[dict[str, Any]]
    pressure: Sequence[dict[str, Any]]
    live: Aggregate
    grown: Aggregate | None  # what came in the window and was still there
    start_s: float  # of the window
    end_s: float


def find_out(opened: _captures.Opened, args: argparse.Namespace) -> Findings:
    reader = opened.reader
    evidence = _evidence.gather(reader, known_status=args.exit_status)
    timeline = reader.timeline()
    end_s = timeline[-1]["t_s"] if timeline else 0.0
    start_s = max(0.0, end_s - min(args.window, max(end_s / 2, 0.001)))
    grown = None
    if len(timeline) > 1:
        try:
            grown = reader.aggregate("leaks", start_s=start_s, end_s=end_s)
            start_s, end_s = grown.window["start_s"], grown.window["end_s"]
        except ValueError:  # a single flush
            grown = None
    return Findings(
        _death.judge(evidence), evidence, timeline, _evidence.pressure_of(reader),
        reader.aggregate("leaks"), grown, start_s, end_s,
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    def collect(opened: _captures.Opened) -> dict[str, Any]:
        return as_json(opened, find_out(opened, args), args.limit)

    def show(page: Page, opened: _captures.Opened) -> None:
        found = find_out(opened, args)
        sites = found.live.sites(args.limit)
        grown = found.grown.sites(GROWING) if found.grown is not None else []
        opened.paths.learn_rows([*sites, *grown])
        page.title(opened.heading)
        page.facts(answer(opened, found, sites, grown))
        page.notes(notes(opened, found))
        if sites:
            query = _options.Query("leaks", None, None, None, (), ())
            _rows.show(page, opened, query, sites)
        show_grown(page, opened, found, grown)
        page.heading("Next")
        for command in next_commands(opened, found):
            page.line([("  " + command, "")])

    return _captures.report_each(args, collect, show)


def notes(opened: _captures.Opened, found: Findings) -> Iterator[str]:
    """Without what the first line says better: that it was killed, or runs."""
    yield from _captures.notes({**opened.info, "ended": "as said"})
    yield from _captures.native_notes(opened.resolved)
    yield from _rows.sample_notes(found.live)


# --- the page -------------------------------------------------------------------------------------


def answer(
    opened: _captures.Opened,
    found: Findings,
    sites: Sequence[SiteRow],
    grown: Sequence[SiteRow],
) -> Iterator[tuple[str, list[Segment]]]:
    info, totals = opened.info, opened.totals
    verdict, size = found.verdict, _format.size
    word, style = CONFIDENCE[verdict.confidence]
    if not verdict.is_death:
        style = "bold"
    yield "end", [(verdict.sentence, style), (f" ({word})", "")]
    for index, reason in enumerate(verdict.reasons):
        yield "because" if index == 0 else "", [(_format.clean(reason), "")]
    for reason in verdict.against:
        yield "but", [(_format.clean(reason), "yellow")]
    yield "last state", [(state_text(opened, found), "")]
    yield (
        "ran",
        [
            (_format.duration(info["duration_s"]), "bold"),
            (
                f" from {local(info['started'])}; CPython {info['python']}, process {info['pid']}",
                "",
            ),
        ],
    )
    if not found.timeline:
        return
    rss = found.timeline[-1]["rss_bytes"]
    limit = found.evidence.limit_bytes
    of = f", {_format.part(rss, limit)} of its cgroup's {size(limit)}" if limit else ""
    yield (
        "resident (RSS)",
        [
            (size(rss), "bold"),
            (f" at the last state{of}; {size(totals['rss_bytes_peak'])} at most", ""),
        ],
    )
    where = opened.reader.where()
    if where is not None:
        parts = [f"{part['name']} {size(part['bytes'])}" for part in where["parts"][:PARTS]]
        yield "its parts", [(", ".join(parts), ""), (f"; at {where['at_s']:.1f} s", "dim")]
    yield (
        "live heap",
        [
            (_format.size_between(totals, "heap_bytes_end"), "bold"),
            (f" in {_format.count(totals['heap_blocks_end'])} blocks;", ""),
            (f" {_format.size_between(totals, 'heap_bytes_peak')} at most", ""),
        ],
    )
    if sites:
        yield (
            "leading line",
            [
                (_format.share(sites[0]["share"]), "bold"),
                (f" of it: {opened.paths.frame(sites[0]['site'])}", ""),
            ],
        )
        stack = found.live.stacks(1)[0]
        yield (
            "leading stack",
            [(_format.share(stack["share"]), "bold"), (f": {_rows.chain(stack)}", "")],
        )
    yield "growth", growth_text(found)
    if grown and found.grown is not None and found.grown.bytes:
        yield (
            "growing most",
            [
                (_format.size_between(grown[0], "bytes"), "bold"),
                (f" in that time: {opened.paths.frame(grown[0]['site'])}", ""),
            ],
        )
    bars = sparkline(
        [(row["t_s"], row["rss_bytes"]) for row in found.timeline], 0.0,
        found.timeline[-1]["t_s"], SPARK_WIDTH,
    )  # fmt: skip
    yield "RSS over time", [(bars, "green"), ("|", "dim")]
    yield "gc", [(gc_text(found), "")]
    if found.pressure:
        yield "pressure", [(pressure_text(found), "")]
    lost = _captures.losses(info)
    what = "sample" if _captures.is_sampled(info) else "event"
    cost = f"; the recorder itself had {size(totals['recorder_bytes'])}"
    yield (
        "not recorded",
        [(", ".join(lost), "yellow") if lost else (f"no {what} dropped", ""), (cost, "")],
    )


def local(instant: str | None) -> str:
    if instant is None:
        return "an unknown time"
    return datetime.fromisoformat(instant).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def state_text(opened: _captures.Opened, found: Findings) -> str:
    info = opened.info
    written_s = _evidence.last_state_s(info)
    if written_s is None:
        return "none was written"
    when = datetime.fromtimestamp(written_s).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    if info["ended"] == "running":
        return f"{when}, {_format.duration(info['age_s'])} ago"
    if info["ended"] == "normal":
        return f"{when}, at its end"
    last_s = found.evidence.interval_s
    return (
        f"{when}; one is written every {_format.duration(last_s)}, so it most likely ended within"
        f" {_format.duration(2 * last_s)} of it"
    )


def growth_text(found: Findings) -> list[Segment]:
    rows = [row for row in found.timeline if row["t_s"] >= found.start_s]
    if len(rows) < 2:
        return [("too short a time to tell", "")]
    segments: list[Segment] = []
    for key, name in (("rss_bytes", "RSS"), ("heap_bytes", "live heap")):
        rate = _evidence.slope([(row["t_s"], float(row[key])) for row in rows]) or 0.0
        change = rows[-1][key] - rows[0][key]
        if segments:
            segments.append(("; ", ""))
        segments.append((f"{name} {rate_text(rate)}", "bold"))
        segments.append((f" ({'+' if change >= 0 else '-'}{_format.size(abs(change))})", ""))
    length = _format.duration(rows[-1]["t_s"] - rows[0]["t_s"])
    segments.append((f", in the last {length}", ""))
    return segments


def rate_text(bytes_s: float) -> str:
    if abs(bytes_s) < STEADY_BYTES_S:
        return "steady"
    sign = "+" if bytes_s > 0 else "-"
    if abs(bytes_s) * 60 < 10 << 20:  # readable
        return f"{sign}{_format.size(round(abs(bytes_s) * 60))}/min"
    return f"{sign}{_format.size(round(abs(bytes_s)))}/s"


def gc_text(found: Findings) -> str:
    last = found.timeline[-1]["gc_collections"]
    first = next(row for row in found.timeline if row["t_s"] >= found.start_s)["gc_collections"]
    all_of = ", ".join(_format.count(n) for n in last)
    recent = ", ".join(_format.count(b - a) for a, b in zip(first, last, strict=True))
    return f"{all_of} collections of generations 0, 1, 2; {recent} in that time"


def pressure_text(found: Findings) -> str:
    """The window's events, and the last state."""
    rows = [row for row in found.pressure if row["t_ns"] >= found.start_s * 1e9]
    rows = rows or [found.pressure[-1]]
    first, last = rows[0], rows[-1]
    texts = []
    usage = _death.usage_text(found.evidence)
    if usage:
        texts.append(f"its cgroup used {usage}")
    for key, what in (("cgroup_limit_hits", "the limit was hit {} times"),
                      ("cgroup_oom_kills", "{} OOM kills in its cgroup")):  # fmt: skip
        if last.get(key) is not None and first.get(key) is not None:
            texts.append(what.format(_format.count(last[key] - first[key])))
    for keys, what in (
        (("max_psi_some_avg10", "psi_some_avg10"), "some"),
        (("psi_full_avg10",), "all"),
    ):
        values = [row[key] for row in rows for key in keys if row.get(key) is not None]
        if values and max(values) >= LITTLE_PSI:
            texts.append(f"{what} waited for memory {max(values):.1f} % of 10 s at most (PSI)")
        elif values and what == "some":
            texts.append("no time was lost waiting for memory (PSI)")
    if last.get("host_available_bytes") is not None and last.get("host_bytes"):
        texts.append(
            f"the host had {_format.size(last['host_available_bytes'])} of"
            f" {_format.size(last['host_bytes'])} left"
        )
    if last.get("swap_bytes"):
        texts.append(f"{_format.size(last['swap_bytes'])} of it swapped out")
    return "; ".join(texts) or "nothing is known of it"


GROWN = (
    Column("bytes", right=True, style="bold"),
    Column("95 %", right=True, optional=True),
    Column("blocks", right=True),
    Column("per minute", right=True),
    Column("line", bends=True, style="cyan"),
    Column("function", bends=True),
)


def show_grown(
    page: Page, opened: _captures.Opened, found: Findings, rows: Sequence[SiteRow]
) -> None:
    length_s = found.end_s - found.start_s
    if not rows or length_s <= 0:
        return
    page.heading(
        f"Lines by bytes that were allocated from {found.start_s:.1f} s to {found.end_s:.1f} s and"
        " lived at the end"
    )
    page.table(
        GROWN,
        (
            (
                _format.size(row["bytes"]),
                _format.size_limits(row, "bytes"),
                _format.count(row["blocks"]),
                _format.size(round(row["bytes"] * 60 / length_s)),
                opened.paths.place(row["site"]),
                _format.clean(row["site"]["function"]),
            )
            for row in rows
        ),
    )


def next_commands(opened: _captures.Opened, found: Findings) -> list[str]:
    file = shlex.quote(opened.name)
    if found.verdict.cause == "running":
        return [f"pymemtrace live {file}", f"pymemtrace summary {file}"]
    commands = [f"pymemtrace tree --leaks {file}", f"pymemtrace flamegraph --leaks {file}"]
    if found.grown is not None:
        times = f"--from {found.start_s:.0f}s --to {found.end_s:.0f}s"
        if round(found.start_s) < round(found.end_s):
            commands.append(f"pymemtrace tree --leaks {times} {file}")
    if opened.reader.where() is not None:
        commands.append(f"pymemtrace where --timeline {file}")
    return commands


# --- JSON -----------------------------------------------------------------------------------------


def as_json(opened: _captures.Opened, found: Findings, limit: int) -> dict[str, Any]:
    info, verdict = opened.info, found.verdict
    written_s = _evidence.last_state_s(info)
    when = datetime.fromtimestamp(written_s).astimezone().isoformat() if written_s else None
    end = {
        "when": when, "likely_cause": verdict.cause, "confidence": verdict.confidence,
        "text": verdict.sentence, "reasons": verdict.reasons, "against": verdict.against,
        "evidence": asdict(found.evidence),
    }  # fmt: skip
    rows = [row for row in found.timeline if row["t_s"] >= found.start_s]

    def rate(key: str) -> float | None:
        return _evidence.slope([(row["t_s"], float(row[key])) for row in rows])

    return {
        "end": end,
        "death": end if verdict.is_death else None,
        **opened.totals,
        "sites": found.live.sites(limit),
        "growth": {
            "start_s": found.start_s,
            "end_s": found.end_s,
            "rss_bytes_per_s": rate("rss_bytes"),
            "heap_bytes_per_s": rate("heap_bytes"),
            "sites": found.grown.sites(limit) if found.grown is not None else [],
        },
        "timeline": found.timeline,
        "pressure": found.pressure,
        "where": opened.reader.where(),
        "leaks": None,
        "forecast": None,
        "next": next_commands(opened, found),
    }
