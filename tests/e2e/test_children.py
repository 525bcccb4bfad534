"""Children are recorded, each into a capture of its own, and notice nothing of it."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import (
    MB,
    Done,
    assert_sums,
    assert_whole,
    environment,
    execute,
    line_of,
    on_terminal,
    plain,
    record,
    without_numbers,
)

from pymemtrace import _core

TARGET = str(Path(__file__).resolve().parents[1] / "targets" / "children" / "children.py")
BLOCK = 110  # bytes that a bytearray has besides its content, at most
INHERITED, KEPT = 100 * 10_000, 100 * 20_000


def skip_unnamed(by_posix_spawn: bool) -> pytest.MarkDecorator:
    """posix_spawn can hand over no descriptor."""
    return pytest.mark.skipif(
        by_posix_spawn and " " in _core.__file__,
        reason="not followed: LD_PRELOAD cannot name a library whose path has a space",
    )


posix_spawned = skip_unnamed(True)
spawned = skip_unnamed(sys.version_info >= (3, 13))  # by subprocess, with posix_spawn from then on
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may")


class Recorded:
    """A parent's and its children's captures, children by age."""

    def __init__(self, folder: Path) -> None:
        self.parent = _core.Reader(str(folder / "x.pmt"))
        readers = [_core.Reader(str(path)) for path in folder.glob("x.*.pmt")]
        self.children = sorted(readers, key=lambda reader: reader.proc()["started_mono_ns"])


def both(
    folder: Path, *args: str, options: tuple[str, ...] = (), run: tuple[str, ...] = (),
    prepare: Callable[[], None] = lambda: None,
) -> Recorded:  # fmt: skip
    """The target does the same with and without us. Returns what was recorded."""

    def once(start: Callable[..., Done], where: Path, **how: object) -> tuple[int, str, str]:
        where.mkdir()
        os.chdir(where)
        prepare()
        done = start(TARGET, *args, options=options, **how)
        out = without_numbers(done.out.replace(str(where), ""))
        return done.status, out, without_numbers(done.err)

    expected = once(plain, folder / "plain")
    assert once(record, folder / "recorded", run=run, output=folder / "x.pmt") == expected
    return Recorded(folder)


def at(reader: _core.Reader, view: str, mark: str) -> int:
    """Bytes that a view has at the line with this mark, in any copy of the target."""
    line = line_of(TARGET, mark)
    size = 0
    for row in reader.aggregate(view).sites():  # type: ignore[arg-type]
        if row["site"]["line"] == line and row["site"]["file"].endswith("children.py"):
            size += row["bytes"]
    return size


def about(found: int, content: int) -> bool:
    return content <= found <= content + content // 10_000 * BLOCK + 2000


def assert_forked(child: _core.Reader, parent: _core.Reader) -> None:
    """The facts of a fork."""
    proc, origin = child.proc(), parent.proc()
    assert proc["parent_pid"] == origin["pid"] == proc["ppid"]
    assert proc["pid"] != origin["pid"]
    assert proc["command"] == origin["command"]
    assert proc["fork_epoch"] >= 1
    assert 0 < proc["fork_t_ns"] < 60e9
    assert re.fullmatch("[0-9a-f]{32}", proc["parent_capture"])
    (mark,) = child.marks()
    assert mark["label"] == "fork"


# --- fork ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit", "_exit", "c_exit", "returns", "killed"])
def test_fork(end: str, tmp_path: Path) -> None:
    options = ("-Werror",) if end != "killed" else ()
    found = both(tmp_path, "forks", end, options=options)
    (child,) = found.children
    assert_forked(child, found.parent)
    assert_whole(child, "killed" if end == "killed" else "normal")
    # what the parent had, without the half that the child has freed, and the child's own
    assert about(at(child, "peak", "INHERITED"), INHERITED)
    assert about(at(child, "peak", "KEPT"), KEPT)
    if end != "returns":
        assert about(at(child, "leaks", "INHERITED"), INHERITED // 2)
    assert at(child, "total", "INHERITED") == 0
    assert about(at(child, "total", "KEPT"), KEPT)
    assert_whole(found.parent)
    assert at(found.parent, "total", "KEPT") == 0
    # its totals begin with the fork
    totals = child.totals()
    assert KEPT <= totals["allocated_bytes"] <= KEPT + MB
    inherited = child.epochs()[0]
    assert inherited["label"] == "fork"
    assert inherited["allocated_bytes"] > INHERITED
    assert inherited["allocated_bytes"] - inherited["live_bytes"] >= INHERITED // 2


def test_child_has_what_its_parent_had_byte_by_byte(tmp_path: Path) -> None:
    found = both(tmp_path, "still")
    (child,) = found.children

    def stacks(aggregate: _core.Aggregate) -> dict[str, tuple[int, int]]:
        named = {}
        for row in aggregate.stacks():
            frames = [(f["file"], f["line"], f["function"]) for f in row["stack"]]
            if any(frame[2] == "inherit" for frame in frames):
                named[str(frames)] = row["bytes"], row["blocks"]
        return named

    fork_s = child.proc()["fork_t_ns"] / 1e9
    cut_s = max(cut["t_s"] for cut in found.parent.timeline() if cut["t_s"] <= fork_s)
    at_the_fork = found.parent.aggregate("leaks", end_s=cut_s)
    child_s, parent_s = stacks(child.aggregate("leaks")), stacks(at_the_fork)
    assert child_s.keys() == parent_s.keys() != set()
    for name, (size, blocks) in child_s.items():
        # from 3.13 on, an object that the child takes from a free list is a new one
        reused = (parent_s[name][0] - size, parent_s[name][1] - blocks)
        assert reused == (0, 0) or (sys.version_info >= (3, 13) and (0, 0) <= reused <= (100, 2))


def test_nested_forks(tmp_path: Path) -> None:
    found = both(tmp_path, "nested")
    assert len(found.children) == 4
    by_pid = {child.proc()["pid"]: child for child in found.children}
    root = found.parent.proc()["pid"]
    for child in found.children:
        assert_whole(child)
        assert about(at(child, "leaks", "INHERITED"), INHERITED)
        if child.proc()["parent_pid"] == root:
            assert about(at(child, "total", "KEPT"), KEPT)
    grandchildren = [c for c in found.children if c.proc()["parent_pid"] in by_pid]
    assert len(grandchildren) == 2
    first, second = grandchildren
    # one was forked before its parent had allocated anything, the other after
    assert about(at(first, "peak", "KEPT"), KEPT)
    assert about(at(second, "peak", "KEPT"), 2 * KEPT)
    assert about(at(second, "leaks", "KEPT"), KEPT)
    assert about(at(second, "total", "KEPT"), KEPT)


def test_fork_while_threads_allocate(tmp_path: Path) -> None:
    found = both(tmp_path, "thread")
    assert_whole(found.parent)
    assert len(found.children) >= 10
    for child in found.children:
        assert child.info()["dropped"] == {}
        assert_sums(child)


def test_quick_forks_leave_no_captures(tmp_path: Path) -> None:
    found = both(tmp_path, "quick", options=("-Werror",))
    assert_whole(found.parent)
    assert len(found.children) <= 20  # on a machine that stumbles


def test_daemon_that_closes_all_descriptors(tmp_path: Path) -> None:
    done = record(TARGET, "daemon")
    assert (done.status, done.out, done.err) == (0, "0\n", "")
    until = time.monotonic() + 30
    while not Path("daemon.done").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)
    found = Recorded(tmp_path)
    (child,) = found.children
    assert_whole(child)
    assert about(at(child, "leaks", "KEPT"), 2 * KEPT)
    for number in range(100):
        assert Path(f"daemon.{number}").read_bytes() == b"daemon"


def test_child_has_no_thread_when_it_forks(tmp_path: Path) -> None:
    found = both(tmp_path, "threads_of_child", options=("-Werror",))
    assert [child.info()["ended"] for child in found.children] == ["normal"]


@as_root
def test_child_that_may_not_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    found = both(tmp_path, "read_only")
    assert found.children == []
    assert_whole(found.parent)


@as_root
def test_chroot(tmp_path: Path) -> None:
    found = both(tmp_path, "chroot")
    assert found.children == []
    assert_whole(found.parent)


def test_descriptors(tmp_path: Path) -> None:
    both(tmp_path, "descriptors")


# --- multiprocessing ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("what", ["pool", "executor", "process"])
def test_multiprocessing(what: str, method: str, tmp_path: Path) -> None:
    found = both(tmp_path, what, method)
    assert_whole(found.parent)
    workers = [child for child in found.children if at(child, "total", "KEPT")]
    assert 1 <= len(workers) <= 2
    assert sum(at(child, "total", "KEPT") for child in workers) >= KEPT
    for child in found.children:
        assert child.info()["dropped"] == {}
        assert_sums(child)
        if what != "pool":  # which ends its workers by SIGTERM
            assert child.info()["ended"] == "normal"
        assert not any("resource_tracker" in word for word in child.proc()["command"])


# --- exec ---------------------------------------------------------------------------------------


def fill() -> None:
    code = "import sys\nsys.path.insert(0, '.')\nfrom children import CODE\nexec(CODE)\n"
    for name, first in (("script.py", sys.executable), ("by_env.py", "/usr/bin/env python")):
        Path(name).write_text(f"#!{first}\n{code}")
        Path(name).chmod(0o755)
    Path("child_module.py").write_text(code)
    shutil.copy(TARGET, "children.py")


@pytest.mark.parametrize(
    "how",
    [
        *(pytest.param(how, marks=spawned) for how in (
            "plain", "empty", "isolated", "ignoring", "bare", "stdin", "module", "by_env",
            "preloaded")),
        *(pytest.param(how, marks=posix_spawned) for how in ("spawn", "spawnp")),
        "script", "shell", "preexec", "fork_exec", "late_exec",
    ],
)  # fmt: skip
def test_python_is_executed(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if " " in sys.executable and how in ("script", "shell"):
        pytest.skip("a #! line cannot name an interpreter whose path has a space")
    folder = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", folder + ":" + os.environ["PATH"])
    found = both(tmp_path, "executes", how, prepare=fill)
    assert_whole(found.parent)
    child = found.children[-1]
    # a child that takes its time between fork and exec leaves a capture of that
    forked_first = how in ("late_exec", "fork_exec", "preexec") and len(found.children) == 2
    assert len(found.children) == 1 + forked_first
    assert forked_first or how != "late_exec"
    assert_whole(child)
    proc = child.proc()
    parent = proc["pid"] if forked_first else found.parent.proc()["pid"]
    assert proc["parent_pid"] == parent
    assert proc["command"][0].endswith("python")
    assert "fork_epoch" not in proc
    assert proc["exec_generation"] == forked_first
    rows = [row for row in child.aggregate("leaks").sites() if row["bytes"] >= KEPT]
    assert [about(row["bytes"], KEPT) for row in rows] == [True]


def test_process_that_executes_itself(tmp_path: Path) -> None:
    found = both(tmp_path, "executes", "itself")
    assert_whole(found.parent)
    (second,) = found.children
    assert_whole(second)
    proc = second.proc()
    assert proc["pid"] == found.parent.proc()["pid"]
    assert proc["exec_generation"] == 1
    assert found.parent.proc()["exec_generation"] == 0


@spawned
def test_what_a_child_finds_loaded(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "show = 'import sys; print(sorted(sys.modules)); print(sys.flags, sys.path)'\n"
        "for options in ([], ['-I'], ['-S'], ['-X', 'dev'], ['-O']):\n"
        "    subprocess.run([sys.executable, *options, '-c', show])\n"
    )
    alone = execute([sys.executable, "-c", code])
    run = [sys.executable, "-m", "pymemtrace", "run", "-q", "-o", "x.pmt", "-c", code]
    recorded = execute(run)
    assert (recorded.returncode, recorded.stderr) == (0, "")
    assert recorded.stdout == alone.stdout
    assert len(Recorded(tmp_path).children) == 5


def test_other_programs_see_nothing(tmp_path: Path) -> None:
    found = both(tmp_path, "others")
    assert found.children == []


def test_exec_that_fails(tmp_path: Path) -> None:
    found = both(tmp_path, "failing")
    assert_whole(found.parent)
    assert about(at(found.parent, "peak", "KEPT"), KEPT)
    assert about(at(found.parent, "peak", "INHERITED"), INHERITED)
    assert found.children == []


@spawned
def test_package_in_a_folder_with_a_space(tmp_path: Path) -> None:
    """LD_PRELOAD cannot say such a path."""
    package = Path(_core.__file__).parent
    copy = tmp_path / "with a space:and more"
    shutil.copytree(package, copy / "pymemtrace")
    env = {"PYTHONPATH": str(copy)}
    done = record(TARGET, "executes", "plain", env=env)
    expected = plain(TARGET, "executes", "plain", env=env)
    assert (done.status, done.out, done.err) == (0, expected.out, "")
    (child,) = Recorded(tmp_path).children
    assert child.proc()["native_layer"] == "preload"
    assert_whole(child)


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("forks", "_exit"), ("executes", "plain"), ("pool", "spawn")])
def test_no_follow(args: tuple[str, ...], tmp_path: Path) -> None:
    found = both(tmp_path, *args, run=("--no-follow",))
    assert found.children == []
    assert_whole(found.parent)


@spawned
def test_python_only_follows_too(tmp_path: Path) -> None:
    found = both(tmp_path, "executes", "plain", run=("--python-only",))
    (child,) = found.children
    assert child.proc()["native_layer"] == found.parent.proc()["native_layer"] == "none"


@spawned
def test_options_of_the_parent_hold_for_children(tmp_path: Path) -> None:
    found = both(tmp_path, "executes", "plain", run=("--events", "--temporaries", "3"))
    (child,) = found.children
    assert child.proc()["temporaries_n"] == 3
    log: Any = child.event_log()
    assert log["events"] > 100
    assert log["logged"] == log["events"]


def test_forked_child_of_a_process_with_an_event_log(tmp_path: Path) -> None:
    found = both(tmp_path, "forks", "_exit", run=("--events",))
    (child,) = found.children
    assert_whole(child)
    assert child.event_log() is None
    assert about(at(child, "leaks", "KEPT"), KEPT)


def test_existing_files_are_kept(tmp_path: Path) -> None:
    """Another process had the number before."""
    code = (
        "import os, subprocess, sys\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    open(f'x.{os.getpid()}.pmt', 'w').write('precious')\n"
        "    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(0.1)'])\n"
        "os.wait()\n"
    )
    run = [sys.executable, "-m", "pymemtrace", "run", "-q", "-o", "x.pmt", "-c", code]
    assert execute(run).returncode == 0
    texts = {path.name: path.read_bytes()[:8] for path in Path().glob("x.*.pmt")}
    assert sorted(texts.values()) == [b"precious", b"\x89PMT\r\n\x1a\n"]
    assert [re.sub(r"\d+", "N", name, count=1) for name in sorted(texts)] == [
        "x.N-1.pmt",
        "x.N.pmt",
    ]


def test_note_counts_the_captures(tmp_path: Path) -> None:
    (tmp_path / "x.1.pmt").touch()
    os.utime(tmp_path / "x.1.pmt", (0, 0))  # of an earlier run
    command = [sys.executable, "-m", "pymemtrace", "run", "-o", "x.pmt", TARGET, "pool", "fork"]
    seen = on_terminal(command, stdout=subprocess.DEVNULL, env=environment(None))
    assert seen == (
        f"pymemtrace: wrote {tmp_path}/x.pmt\n"
        f"pymemtrace: and 2 captures of children: {tmp_path}/x.<pid>.pmt\n"
    )


def test_summary_says_what_was_inherited(
    command: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    both(tmp_path, "forks", "_exit")
    (path,) = tmp_path.glob("x.*.pmt")
    done = command("summary", path)
    parent = _core.Reader(str(path)).proc()["parent_pid"]
    assert re.search(
        rf"inherited +\d\S+ [KM]iB in [\d,]+ blocks from process {parent};", done.stdout
    )
