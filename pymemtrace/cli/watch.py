"""`pymemtrace watch`: metrics and alerts for processes that are recorded. _watch/ does it."""

import argparse
import importlib.util
import json
import os
import re
import signal
import sys
import threading
from types import FrameType

from pymemtrace._watch import rules as rule_files
from pymemtrace._watch.alerts import last_state
from pymemtrace._watch.follow import Targets
from pymemtrace._watch.loop import Rules, Watcher, json_of
from pymemtrace.cli import _format
from pymemtrace.cli._failure import (
    EXIT_CHECK_FAILED,
    EXIT_IMPOSSIBLE,
    EXIT_INPUT,
    EXIT_USAGE,
    Failure,
)
from pymemtrace.cli._process import is_pid

HELP = "export metrics of recorded processes and raise alerts"

INTERVAL_S = 5.0
MIN_INTERVAL_S, MAX_INTERVAL_S = 0.2, 3600.0
HOST = "127.0.0.1"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("watch", help=HELP, description=HELP)
    add = parser.add_argument
    add("targets", metavar="TARGET", nargs="*",
        help="id of a running process, capture, or directory: all captures in it, those that come"
             " as well")  # fmt: skip
    add_exports(parser)
    add("--interval", metavar="S", type=parse_interval, default=INTERVAL_S,
        help="seconds from look to look (5)")  # fmt: skip
    add("--sites", metavar="N", type=parse_sites, default=10,
        help="lines that have a metric each; the rest is one, `other` (10)")  # fmt: skip
    add("--once", action="store_true",
        help="look once, print what there is; exit status 1 if an alert fires")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object for each look, one a line")
    add("--check-rules", metavar="FILE", help="say what is wrong with a rule file, and do no more")


def add_exports(parser: argparse.ArgumentParser) -> None:
    """Options that `run` has, too."""
    add = parser.add_argument
    add("--rules", metavar="FILE", help="raise the alerts that this file describes")
    add("--metrics", metavar="[HOST:]PORT", type=parse_address,
        help="serve metrics for Prometheus here (HOST: 127.0.0.1)")  # fmt: skip
    add("--metrics-file", metavar="FILE",
        help="write metrics into FILE.prom, for node_exporter's textfile collector")  # fmt: skip


def parse_address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):)?(\d{1,5})", text, re.ASCII)
    if match is None or int(match[2]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: give a port, or HOST:PORT, as 127.0.0.1:9209")
    return (match[1] or HOST).strip("[]"), int(match[2])


def parse_interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give {MIN_INTERVAL_S} to {MAX_INTERVAL_S:.0f} seconds"
        )
    return seconds


def parse_sites(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0 to 100")
    return int(text)


def say(text: str) -> None:
    """One line, whatever is in it; a closed standard error is no reason to stop."""
    try:
        sys.stderr.write(f"pymemtrace: {_format.clean(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass


def run(args: argparse.Namespace) -> int:
    if args.check_rules is not None:
        return check_rules(args.check_rules)
    if not args.targets:
        raise Failure(
            EXIT_USAGE, "nothing to watch", "no TARGET",
            "give the id of a process, a capture, or a directory of captures",
        )  # fmt: skip
    if not (args.rules or args.metrics or args.metrics_file or args.once or args.json):
        raise Failure(
            EXIT_USAGE, "watching for nothing", "no --rules, no --metrics",
            "give --rules FILE, --metrics PORT, --metrics-file FILE, --json, or --once",
        )  # fmt: skip
    check_exports(args)
    paths, folders, only_pids = find(args.targets)
    watcher = make(Targets(paths, folders, say, keep_ended=args.once), args)
    try:
        if args.once:
            return once(watcher, args.json)
        return go_on(watcher, args, only_pids)
    finally:
        if not args.once:
            watcher.close()
        else:
            watcher.finish()


def check_rules(path: str) -> int:
    ruleset = load_rules(path)
    for line in rule_files.problem_lines(path, ruleset.problems):
        print(line)
    rules = f"{len(ruleset.rules)} rule{'' if len(ruleset.rules) == 1 else 's'}"
    wrong = len(ruleset.problems)
    print(f"{_format.clean(path)}: {rules} good" + (f", {wrong} problems" if wrong else ""))
    return EXIT_CHECK_FAILED if wrong else 0


def load_rules(path: str) -> rule_files.Ruleset:
    try:
        return rule_files.load(path)
    except OSError as error:
        raise rules_failure(path, error) from None


def rules_failure(path: str, error: OSError) -> Failure:
    return Failure(
        EXIT_INPUT, f"cannot read the rules ({error.strerror or error})", path,
        "give a TOML file; `docs/user/alerts.md` has an example",
    )  # fmt: skip


def check_exports(args: argparse.Namespace) -> None:
    """What would fail at once, before anything is started."""
    if (args.metrics or args.metrics_file) and importlib.util.find_spec(
        "prometheus_client"
    ) is None:
        raise Failure(
            EXIT_IMPOSSIBLE, "metrics need prometheus_client", sys.executable,
            "pip install 'pymemtrace-profiler[metrics]'",
        )  # fmt: skip


def make(targets: Targets, args: argparse.Namespace, *, lenient: bool = False) -> Watcher:
    """A watcher that exports and judges as the options say. lenient: a port that cannot be had is
    said, and all else is done."""
    rules = None
    if args.rules:
        try:
            rules = Rules(args.rules, say)
        except OSError as error:
            raise rules_failure(args.rules, error) from None
    watcher = Watcher(targets, say, rules=rules, sites=getattr(args, "sites", 10))
    if args.metrics_file:
        watcher.write_to(metrics_path(args.metrics_file))
    if args.metrics:
        try:
            serve(watcher, *args.metrics)
        except Failure as failure:
            if not lenient:
                raise
            say(str(failure))
    return watcher


def serve(watcher: Watcher, host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    try:
        port = watcher.serve(host, port)
    except (OSError, UnicodeError) as error:
        what = getattr(error, "strerror", None) or error
        raise Failure(
            EXIT_USAGE, f"cannot serve metrics ({what})", f"{shown}:{port}",
            "choose another port, or an address of this machine",
        ) from None  # fmt: skip
    say(f"metrics: http://{shown}:{port}/metrics")


def metrics_path(path: str) -> str:
    """node_exporter reads no other ending."""
    return path if path.endswith(".prom") else f"{path}.prom"


def find(words: list[str]) -> tuple[list[str], list[str], bool]:
    """Captures, directories, and whether there are processes only."""
    from pymemtrace.cli.live import path_of

    paths, folders = [], []
    for word in words:
        if is_pid(word):
            paths.append(path_of(int(word)))
        elif os.path.isdir(word):
            folders.append(word)
        elif os.path.lexists(word):
            paths.append(word)
        else:
            raise Failure(
                EXIT_INPUT, "no such capture", _format.clean(word),
                "give a file that `pymemtrace run` writes, or the directory where it will be",
            )  # fmt: skip
    return paths, folders, all(map(is_pid, words))


def once(watcher: Watcher, as_json: bool) -> int:
    watcher.tick()
    if as_json:
        print(json.dumps(json_of(watcher, watcher.events)))
    else:
        for figures in watcher.processes:
            state = {"normal": "ended", "killed": "killed"}.get(figures.ended, "running")
            print(f"{_format.clean(figures.name)}: {state}: {last_state(figures)}")
        for rule, judged in watcher.engine.states():
            name = judged.figures.name if judged.figures else ""
            verdict = judged.verdict
            text = verdict.text or verdict.note
            note = f" ({verdict.note})" if verdict.text and verdict.note else ""
            print(_format.clean(f"{rule.name}: {name}: {judged.name}: {text}{note}"))
    firing = any(event.state == "firing" for event in watcher.events)
    return EXIT_CHECK_FAILED if firing else 0


def go_on(watcher: Watcher, args: argparse.Namespace, only_pids: bool) -> int:
    stop = threading.Event()
    ended_by = 0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended_by
        ended_by = number
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    first = True

    def after() -> None:
        nonlocal first
        if args.json:
            print(json.dumps(json_of(watcher, watcher.events)), flush=True)
        if first:
            count = len(watcher.processes)
            say(f"watching {count} process{'' if count == 1 else 'es'}")
            first = False
        if only_pids and not watcher.targets.running:
            say("all processes have ended")
            stop.set()

    watcher.run(args.interval, stop, after=after)
    return 130 if ended_by == signal.SIGINT else 0
