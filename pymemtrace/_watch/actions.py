"""Telling people: log, webhook, command. Nothing here ever makes the watching wait.

A webhook has a thread and a queue of its own, commands share some threads: what is slow or broken
is late, and at last left out, which is said in one line.
"""

import json
import os
import queue
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pymemtrace
from pymemtrace._watch.alerts import Event
from pymemtrace._watch.rules import Action

QUEUED = 100  # alerts that wait, for each webhook and for all commands
PARALLEL = 4  # commands at a time
REDIRECTS = 3
MAX_ANSWER = 1 << 16
BACKOFF_S, MAX_BACKOFF_S = 1.0, 30.0
KILL_S = 2.0  # from the request to end to SIGKILL
MAX_TEXT = 2000

# of the payload, in a command's environment
VARIABLES = (
    "state", "rule", "kind", "severity", "pid", "program", "capture", "text", "unit", "value",
    "low", "high", "at",
)  # fmt: skip

Say = Callable[[str], None]


def payload(event: Event) -> dict[str, Any]:
    """The JSON of an alert."""
    rule, figures = event.rule, event.figures
    command = figures.info.get("command")

    def finite(value: float | None) -> float | None:
        return value if value is not None and abs(value) < 1e300 else None

    return {
        "pymemtrace": pymemtrace.__version__,
        "format": 1,
        "state": event.state,
        "rule": rule.name,
        "kind": rule.kind,
        "severity": rule.severity,
        "labels": dict(rule.labels),
        "pid": figures.pid,
        "program": figures.program,
        "capture": figures.path,
        "command": command[:50] if isinstance(command, list) else None,
        "text": event.text[:MAX_TEXT],
        "unit": rule.unit,
        "value": finite(event.value),
        "low": finite(event.low),
        "high": finite(event.high),
        "held_s": round(event.held_s, 3),
        "suppressed": event.suppressed,
        "at": datetime.now(UTC).isoformat(),
    }


class Dispatcher:
    def __init__(self, say: Say, *, sleep: Callable[[float], object] | None = None) -> None:
        self._say = say
        self._stopping = threading.Event()
        self._sleep = sleep or self._stopping.wait
        self._actions: dict[str, Action] = {}
        self._webhooks: dict[str, Queue] = {}
        self._commands: Queue | None = None

    def set_actions(self, actions: Mapping[str, Action]) -> None:
        self._actions = dict(actions)

    def send(self, event: Event) -> None:
        for name in event.rule.actions:
            action = self._actions.get(name)
            if action is None:
                continue
            if event.state == "cleared" and action.kind != "log" and not event.rule.send_cleared:
                continue
            if action.kind == "log":
                self._log(action, event)
            elif action.kind == "webhook":
                waiting = self._webhooks.get(action.url)
                if waiting is None:
                    waiting = self._webhooks[action.url] = Queue(f"webhook {name}", 1, self._say)
                body = json.dumps(payload(event)).encode()
                waiting.put(lambda a=action, b=body: self._post(a, b))  # type: ignore[misc]
            else:
                if self._commands is None:
                    self._commands = Queue("commands", PARALLEL, self._say)
                environment = environment_of(event)
                self._commands.put(lambda a=action, e=environment: self._run(a, e))  # type: ignore[misc]

    def close(self, wait_s: float = 5.0) -> None:
        """What waits is still told, for so long."""
        end = time.monotonic() + wait_s
        waiting = [*self._webhooks.values(), *([self._commands] if self._commands else [])]
        for one in waiting:
            one.finish(max(0.0, end - time.monotonic()))
        self._stopping.set()
        for one in waiting:
            one.finish(KILL_S + 1.0 if one is self._commands else 0.0)

    # --- log ---

    def _log(self, action: Action, event: Event) -> None:
        if not action.file:
            self._say(event.line)
            return
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = f"{at} {event.line}\n".encode(errors="backslashreplace")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(action.file, flags, 0o644)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)
        except OSError as error:
            self._say(f"cannot write the log ({error.strerror}): {action.file}: {event.line}")

    # --- webhook ---

    def _post(self, action: Action, body: bytes) -> None:
        wait, problem = BACKOFF_S, ""
        for attempt in range(action.retries + 1):
            if attempt:
                self._sleep(wait)
                wait = min(wait * 2, MAX_BACKOFF_S)
            if self._stopping.is_set():
                break
            problem, again = post(action, body)
            if not problem:
                return
            if not again:
                break
        self._say(f"webhook {action.name}: {problem or 'the watching ended'}: not delivered")

    # --- command ---

    def _run(self, action: Action, environment: dict[str, str]) -> None:
        try:
            process = subprocess.Popen(
                action.argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, close_fds=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            self._say(f"command {action.name}: cannot start ({what}): {action.argv[0]}")
            return
        end = time.monotonic() + action.timeout_s
        while True:
            try:
                status = process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() < end and not self._stopping.is_set():
                    continue
            process.terminate()
            try:
                process.wait(KILL_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            late = "the watching ended" if self._stopping.is_set() else "it took too long"
            self._say(f"command {action.name}: ended ({late}): {action.argv[0]}")
            return
        if status:
            self._say(f"command {action.name}: it failed (status {status}): {action.argv[0]}")


class Queue:
    """Work for some threads; what does not fit in is left out."""

    def __init__(self, name: str, threads: int, say: Say) -> None:
        self._name = name
        self._say = say
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(QUEUED)
        self._left_out = 0
        for _ in range(threads):
            threading.Thread(target=self._work, name=f"pymemtrace {name}", daemon=True).start()

    def put(self, work: Callable[[], None]) -> None:
        try:
            self._waiting.put_nowait(work)
            self._left_out = 0
        except queue.Full:
            self._left_out += 1
            if self._left_out == 1:
                self._say(f"{self._name}: {QUEUED} alerts wait already: others are left out")

    def finish(self, wait_s: float) -> bool:
        """Waits until nothing is left to do."""
        end = time.monotonic() + wait_s
        while self._waiting.unfinished_tasks:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return True

    def _work(self) -> None:
        while True:
            work = self._waiting.get()
            try:
                work()
            except Exception as error:
                self._say(f"{self._name}: {type(error).__name__}: {error}")
            finally:
                self._waiting.task_done()


class Redirects(urllib.request.HTTPRedirectHandler):
    """An alert stays an alert: it is posted to the new place, as it was. Elsewhere without headers
    that may hold a secret."""

    max_redirections = REDIRECTS
    max_repeats = 2

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = urlsplit(newurl)
        if code == 303 or new.scheme not in ("http", "https"):
            raise urllib.error.HTTPError(req.full_url, code, f"a redirect ({code})", headers, fp)
        kept = dict(req.header_items()) if origin(newurl) == origin(req.full_url) else {}
        again = urllib.request.Request(newurl, data=req.data, headers=kept, method="POST")
        again.add_header("Content-Type", "application/json")
        return again

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port


def opener() -> urllib.request.OpenerDirector:
    """http and https, and nothing else."""
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, Redirects,
    ):  # fmt: skip
        made.add_handler(handler())
    return made


def post(action: Action, body: bytes) -> tuple[str, bool]:
    """What went wrong, nothing if it was taken; whether to try again."""
    request = urllib.request.Request(action.url, data=body, method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", f"pymemtrace/{pymemtrace.__version__}")
    for name, value in action.headers:
        request.add_header(name, value)
    try:
        with opener().open(request, timeout=action.timeout_s) as answer:
            answer.read(MAX_ANSWER)
            return "", False
    except urllib.error.HTTPError as error:
        error.close()
        reason = str(error.reason)[:100]
        return f"HTTP {error.code} {reason}", error.code >= 500 or error.code == 429
    except OSError as error:
        return str(getattr(error, "reason", error) or type(error).__name__)[:200], True
    except Exception as error:  # what a hostile server makes of http.client
        return f"{type(error).__name__}: {error}"[:200], True


def environment_of(event: Event) -> dict[str, str]:
    """Ours, and PYMEMTRACE_ALERT_RULE and so on."""
    facts = payload(event)
    values = {
        "JSON": json.dumps(facts),
        **{name.upper(): "" if facts[name] is None else str(facts[name]) for name in VARIABLES},
        **{f"LABEL_{name.upper()}": value for name, value in event.rule.labels},
    }
    ours = {
        f"PYMEMTRACE_ALERT_{name}": text.replace("\0", "?").encode(errors="replace").decode()
        for name, text in values.items()
    }
    return {**os.environ, **ours}
