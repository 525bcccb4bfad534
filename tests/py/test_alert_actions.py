"""Telling people of alerts: a log, webhooks on loopback, commands."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pymemtrace._watch import actions
from pymemtrace._watch.actions import Dispatcher, environment_of, payload
from pymemtrace._watch.alerts import Event
from pymemtrace._watch.figures import Figures
from pymemtrace._watch.rules import Action, Rule

pytestmark = pytest.mark.any_version

WAIT_S = 60.0


def event(*names: str, state: str = "firing", send_cleared: bool = False, **of: object) -> Event:
    rule = Rule(
        "the rule", "threshold", 1, unit="bytes", actions=names, labels=(("team", "core"),),
        send_cleared=send_cleared,
    )  # fmt: skip
    figures = Figures(
        path="a.pmt", key="k", pid=7, program="app.py", ended="running", t_s=0.0,
        info={"command": ["python", "app.py"]},
    )  # fmt: skip
    return Event(rule, state, figures, "rss is high", 5.0, 4.0, float("inf"), **of)  # type: ignore[arg-type]


class Server:
    """Answers what `answers` says, one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = [(200, {})]
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.got.append((self.command, self.path, dict(self.headers), body))
                status, headers = (
                    outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                )
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST = answer

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


class Told:
    """A dispatcher, what it says, and how long it would have slept."""

    def __init__(self, *of: Action) -> None:
        self.said: list[str] = []
        self.slept: list[float] = []
        self.dispatcher = Dispatcher(self.said.append, sleep=self.slept.append)
        self.dispatcher.set_actions({action.name: action for action in of})

    def tell(self, *events: Event) -> list[str]:
        for one in events:
            self.dispatcher.send(one)
        self.dispatcher.close(WAIT_S)
        return self.said


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- log ------------------------------------------------------------------------------------------


def test_log() -> None:
    line = "ALERT warning: the rule: app.py (7): rss is high"
    assert Told(Action("log", "log")).tell(event("log")) == [line]
    assert (
        Told(Action("f", "log", file="a.log")).tell(event("f"), event("f", state="cleared")) == []
    )
    lines = Path("a.log").read_text().splitlines()
    assert lines[0].endswith(line)
    assert "cleared warning" in lines[1]


def test_a_log_that_cannot_be_written_is_said() -> None:
    os.mkfifo("pipe")
    for path in ("none/a.log", "pipe"):
        (line,) = Told(Action("f", "log", file=path)).tell(event("f"))
        assert line.startswith("cannot write the log (")
        assert "rss is high" in line


# --- webhook --------------------------------------------------------------------------------------


def hook(url: str, **of: object) -> Action:
    return Action("w", "webhook", url=url, **of)  # type: ignore[arg-type]


def test_webhook(server: Server) -> None:
    action = hook(server.url + "/x", headers=(("Authorization", "secret"),))
    assert Told(action).tell(event("w")) == []
    ((method, path, headers, body),) = server.got
    assert (method, path) == ("POST", "/x")
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "secret"
    told = json.loads(body)
    assert told["rule"] == "the rule"
    assert (told["value"], told["low"], told["high"]) == (5.0, 4.0, None)
    assert told["labels"] == {"team": "core"}
    assert (told["pid"], told["program"], told["state"]) == (7, "app.py", "firing")


def test_what_is_cleared_is_sent_if_wanted(server: Server) -> None:
    told = Told(hook(server.url))
    told.tell(event("w", state="cleared"), event("w", state="cleared", send_cleared=True))
    assert [json.loads(got[3])["state"] for got in server.got] == ["cleared"]


def test_a_webhook_is_tried_again(server: Server) -> None:
    server.answers = [(503, {}), (429, {}), (200, {})]
    told = Told(hook(server.url))
    assert told.tell(event("w")) == []
    assert len(server.got) == 3
    assert told.slept == [1.0, 2.0]


def test_and_given_up(server: Server) -> None:
    server.answers = [(500, {})]
    told = Told(hook(server.url, retries=7))
    assert told.tell(event("w")) == ["webhook w: HTTP 500 Internal Server Error: not delivered"]
    assert told.slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_what_it_refuses_is_not_tried_again(server: Server) -> None:
    server.answers = [(404, {})]
    assert Told(hook(server.url)).tell(event("w")) == [
        "webhook w: HTTP 404 Not Found: not delivered"
    ]
    assert len(server.got) == 1


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (line,) = Told(hook(f"http://127.0.0.1:{port}/", retries=1)).tell(event("w"))
    assert "Connection refused" in line


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_stays_a_post(server: Server, status: int) -> None:
    server.answers = [(status, {"Location": "/there"}), (200, {})]
    told = Told(hook(server.url, headers=(("Authorization", "secret"),)))
    assert told.tell(event("w")) == []
    assert [(got[0], got[1]) for got in server.got] == [("POST", ""), ("POST", "/there")] or [
        (got[0], got[1]) for got in server.got
    ] == [("POST", "/"), ("POST", "/there")]
    assert server.got[1][3] == server.got[0][3]
    assert server.got[1][2]["Authorization"] == "secret"


def test_a_redirect_elsewhere_takes_no_secret_along(server: Server) -> None:
    other = Server()
    try:
        server.answers = [(307, {"Location": other.url + "/x"})]
        told = Told(hook(server.url, headers=(("Authorization", "secret"),)))
        assert told.tell(event("w")) == []
        assert "Authorization" not in other.got[0][2]
        assert other.got[0][2]["Content-Type"] == "application/json"
    finally:
        other.close()


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1/", "/again", "http://[::"]
)
def test_redirects_end(server: Server, place: str) -> None:
    server.answers = [(302, {"Location": place})]
    (line,) = Told(hook(server.url, retries=0)).tell(event("w"))
    assert line.startswith("webhook w: ")
    assert len(server.got) <= 1 + actions.REDIRECTS


def test_a_server_that_says_nothing_does_not_hold_up_anything() -> None:
    """It takes connections and never answers: the other alerts wait, and at last are left out."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        action = hook(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.3, retries=0)
        told = Told(action, Action("log", "log"))
        for _ in range(actions.QUEUED + 20):
            told.dispatcher.send(event("w", "log"))
        assert sum("rss is high" in line for line in told.said) == actions.QUEUED + 20
        assert sum("left out" in line for line in told.said) == 1
        until(lambda: any("timed out" in line for line in told.said))
        told.dispatcher.close(0.0)


def test_a_server_of_rubbish() -> None:
    with socket.socket() as rude:
        rude.bind(("127.0.0.1", 0))
        rude.listen(10)
        rude.settimeout(WAIT_S)

        def answer() -> None:
            for text in (b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000, b""):
                connection, _ = rude.accept()
                connection.recv(65536)
                connection.sendall(text)
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        told = Told(hook(f"http://127.0.0.1:{rude.getsockname()[1]}/", retries=2, timeout_s=30.0))
        (line,) = told.tell(event("w"))
        thread.join()
    assert line.endswith("not delivered")
    assert len(told.slept) == 2


# --- command --------------------------------------------------------------------------------------


def command(code: str, **of: object) -> Action:
    return Action("c", "command", argv=(sys.executable, "-c", code), **of)  # type: ignore[arg-type]


def test_command() -> None:
    code = (
        "import os, pathlib; pathlib.Path('out').write_text('|'.join(os.environ['PYMEMTRACE_ALERT_'"
        " + n] for n in ('RULE', 'PID', 'STATE', 'VALUE', 'HIGH', 'LABEL_TEAM')))"
    )
    assert Told(command(code)).tell(event("c")) == []
    assert Path("out").read_text() == "the rule|7|firing|5.0||core"


def test_a_command_has_no_shell_and_no_input() -> None:
    action = Action("c", "command", argv=(sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())", "$HOME;x"))  # fmt: skip # noqa: E501
    assert Told(action).tell(event("c")) == []
    assert Path("$HOME;x").read_text() == ""


def test_a_command_that_fails() -> None:
    (line,) = Told(command("raise SystemExit(3)")).tell(event("c"))
    assert line.startswith("command c: it failed (status 3)")
    (line,) = Told(Action("c", "command", argv=("/no/such",))).tell(event("c"))
    assert line == "command c: cannot start (No such file or directory): /no/such"


def test_a_command_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "KILL_S", 0.2)
    code = (
        "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(1000)"
    )
    told = Told(command(code, timeout_s=2.0))
    (line,) = told.tell(event("c"))
    assert line.startswith("command c: ended (it took too long)")
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text()), 0)


def test_not_too_many_commands_at_a_time() -> None:
    code = (
        "import os, pathlib, time; p = pathlib.Path(f'run.{os.getpid()}'); p.touch();"
        "n = len(list(pathlib.Path('.').glob('run.*'))); open('seen', 'a').write(f'{n}\\n');"
        "time.sleep(0.1); p.unlink()"
    )
    assert Told(command(code)).tell(*[event("c")] * 12) == []
    seen = list(map(int, Path("seen").read_text().split()))
    assert len(seen) == 12
    assert max(seen) <= actions.PARALLEL


def test_hostile_text_in_the_environment() -> None:
    made = event("c")
    made.figures.program = "a\0b\ud800\n"
    made.figures.info["command"] = ["\ud800\0"] * 1000
    values = environment_of(made)
    assert values["PYMEMTRACE_ALERT_PROGRAM"] == "a?b?\n"
    assert all("\0" not in value for value in values.values())
    json.loads(values["PYMEMTRACE_ALERT_JSON"])
    assert len(payload(made)["command"]) == 50
    assert Told(Action("c", "command", argv=("true",))).tell(made) == []
