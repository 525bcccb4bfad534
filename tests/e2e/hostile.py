"""Running hostile programs plainly and under recording, and looking at what was recorded."""

import os
import pty
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymemtrace import _core

TARGETS = Path(__file__).resolve().parents[1] / "targets" / "hostile"
MB = 1 << 20
TIMEOUT = 120 + 2 * float(os.environ.get("PYMEMTRACE_STORM_SECONDS", "0"))


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str
    capture: Path

    @property
    def reader(self) -> _core.Reader:
        return _core.Reader(str(self.capture))


def environment(changes: Mapping[str, str] | None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return own | dict(changes or {})


def execute(
    command: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    cwd: Path | None = None,
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(word) for word in command], env=environment(env), preexec_fn=before, cwd=cwd,
        capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip


def plain(target: str, *args: object, options: Sequence[str] = (), **how: Any) -> Done:
    done = execute([sys.executable, *options, TARGETS / target, *args], **how)
    return Done(done.returncode, done.stdout, done.stderr, Path())


def record(
    target: str,
    *args: object,
    options: Sequence[str] = (),
    run: Sequence[object] = (),
    output: Path | str = "x.pmt",
    **how: Any,
) -> Done:
    """Runs a target under `pymemtrace run`, in the current folder."""
    done = execute(
        [sys.executable, *options, "-m", "pymemtrace", "run", "-q", "-o", output, *run,
         TARGETS / target, *args], **how,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr, Path(output).absolute())


def on_terminal(command: Sequence[object], **how: Any) -> str:
    """What a command that does well says when standard error is a terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen([str(word) for word in command], stderr=slave, **how) as process:
        os.close(slave)
        seen = b""
        try:
            while piece := os.read(master, 4096):
                seen += piece
        except OSError:  # how a terminal says that its other side is closed
            pass
    os.close(master)
    assert process.returncode == 0
    return seen.decode().replace("\r\n", "\n")


def into_closed_pipe(command: Sequence[object]) -> tuple[int, str]:
    """Status and standard error of a command whose output nobody reads."""
    with subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        return process.wait(60), err


def without_numbers(message: str) -> str:
    """Process ids and addresses differ between any two runs."""
    return re.sub(r"pid=\d+|0x[0-9a-f]+", "N", message)


def assert_same(target: str, *args: object, **how: Any) -> Done:
    """The program does the same as without us. Returns what the recorded one did."""
    run = how.pop("run", ())
    expected = plain(target, *args, **how)
    got = record(target, *args, run=run, **how)
    assert (got.status, got.out) == (expected.status, expected.out)
    assert without_numbers(got.err) == without_numbers(expected.err)
    return got


def line_of(target: str, mark: str) -> int:
    """The number of the only line that ends in `# mark`."""
    lines = (TARGETS / target).read_text().splitlines()
    found = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    assert len(found) == 1, f"{target}: {mark}"
    return found[0]


def row_at(reader: _core.Reader, view: str, target: str, mark: str) -> dict[str, Any]:
    """What a view has at the marked line: zeros if there is nothing."""
    line = line_of(target, mark)
    for row in reader.aggregate(view).sites():  # type: ignore[arg-type]
        if row["site"]["line"] == line and row["site"]["file"] == str(TARGETS / target):
            return dict(row)
    return {"bytes": 0, "blocks": 0, "allocations": 0, "allocated_bytes": 0}


def assert_whole(reader: _core.Reader, ended: str = "normal") -> None:
    """Nothing is lost, and the totals are the sums of the rows."""
    info = reader.info()
    assert info["dropped"] == {}, info["dropped"]
    assert info["ended"] == ended
    assert_sums(reader)


def assert_sums(reader: _core.Reader) -> None:
    totals = reader.totals()
    for view, key in (("peak", "heap_bytes_peak"), ("leaks", "heap_bytes_end"),
                      ("total", "allocated_bytes")):  # fmt: skip
        rows = reader.aggregate(view).sites()  # type: ignore[arg-type]
        assert sum(row["bytes"] for row in rows) == totals[key], view
        assert all(row["bytes"] >= 0 and row["blocks"] >= 0 for row in rows), view


def compile_c(*words: object) -> None:
    """Runs the C compiler with this interpreter's headers."""
    include = Path(sysconfig.get_path("include"))
    # Debian's pyconfig.h includes another one by its path below /usr/include.
    command = ["cc", "-fPIC", "-O1", f"-I{include}", f"-I{include.parent}"]
    subprocess.run([*command, *map(str, words)], check=True, timeout=120)


def extension(name: str) -> str:
    return f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
