"""Names of boxes, who lives, what is kept. The files are made here; no process is started."""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import capture_builder as cb

from pymemtrace import _boxes
from pymemtrace._boxes import Folder, Limits, Refused

pytestmark = pytest.mark.any_version

NOW = 1_795_787_000.0
GONE = 4_194_304  # above every process id


def box_bytes(
    *,
    pid: int = GONE,
    ticks: int = 1,
    boot: str | None = None,
    host: str | None = None,
    started: float = NOW - 100,
    status: int = _boxes.RECORDING,
    cuts: int = 5,
    mode: str = "sampled",
    padding: int = 0,
) -> bytes:
    facts: dict[str, object] = {
        "pid": pid, "start_ticks": ticks, "mode": mode, "command": ["python", "app.py"],
        "boot_id": _boxes.boot_id() if boot is None else boot,
        "hostname": socket.gethostname() if host is None else host,
        "started_unix_ns": int(started * 1e9),
    }  # fmt: skip
    entries = [cb.fact(key, value) for key, value in facts.items()]
    page = bytearray(cb.HEADER_SIZE)
    page[:64] = cb.header()
    page[512:768] = cb.slot(1, cb.RECORDING, cb.HEADER_SIZE)
    cut_ns = int((started + 50) * 1e9)
    body = struct.pack("<QIIQQQQ", 2, status, 0, cb.HEADER_SIZE, 0, cut_ns, cuts).ljust(248, b"\0")
    page[1024:1280] = body + struct.pack("<Q", cb.xxh3_64(body))
    payload = cb.varint(len(entries)) + b"".join(entries)
    return bytes(page) + cb.chunk(b"PROC", 1, payload) + bytes(padding)


def put(folder: Path, name: str, changed: float = NOW - 50, **how: object) -> Path:
    path = folder / name
    path.write_bytes(box_bytes(**how))  # type: ignore[arg-type]
    os.utime(path, (changed, changed))
    return path


def tidy(
    folder: Path, program: str = "app", limits: Limits | None = None, now: float = NOW
) -> list[str]:
    opened = Folder(str(folder))
    try:
        assert opened.lock()
        return _boxes.tidy(opened, program, limits or Limits(), now)
    finally:
        opened.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.pmt")}


def stamp(unix_s: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix_s))


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["python", "app.py"], "app.py"),
        (["python", "-X", "dev", "-u", "/srv/my app.py", "-m", "x"], "my_app.py"),
        (["python", "-Xdev", "-W", "error", "-Im", "gunicorn.app", "a:b"], "gunicorn.app"),
        (["python", "-mhttp.server"], "http.server"),
        (["python", "-c", "import x"], "command"),
        (["python", "-"], "stdin"),
        (["python"], "python"),
        (["python", "-m"], "program"),
        (["python", "/opt/tool/__main__.py"], "tool"),
        (["python", "/opt/dir/"], "dir"),
        (["python", "--check-hash-based-pycs", "never", "app.py"], "app.py"),
        (["python", "../.hidden"], "hidden"),
        (["python", "ä/é\n.py"], "_.py"),
        ([], "python"),
    ],
)
def test_programs(words: list[str], program: str) -> None:
    got = _boxes.program_of(words)
    assert got == program or got.replace("_", "") == program.replace("_", "")
    assert "/" not in got
    assert got.isascii()
    assert len(got) <= _boxes.NAME_MAX


def test_a_long_program_name_is_cut() -> None:
    assert _boxes.clean("x" * 5000) == "x" * _boxes.NAME_MAX


@pytest.mark.parametrize(
    "file",
    ["app.1.pmt", "app.py.123-4.pmt", "app.1.20261127T135055Z.pmt",
     "app.1.20261127T135055Z-3.pmt", "a.b.c.77.20261127T135055Z.first.pmt"],
)  # fmt: skip
def test_names_there_and_back(file: str) -> None:
    name = _boxes.parse_name(file)
    assert name is not None
    assert str(name) == file


@pytest.mark.parametrize(
    "file",
    ["app.pmt", ".1.pmt", "app.1", "app.x.pmt", "app.1.pmt.compact", "1.pmt", "app.-1.pmt",
     "app.1-x.pmt", "app.1٣.pmt", "app.99999999999999999999.pmt", "app.20261127T135055Z.pmt"],
)  # fmt: skip
def test_other_names_are_left_alone(file: str) -> None:
    assert _boxes.parse_name(file) is None


# --- heads ----------------------------------------------------------------------------------------


def read(path: Path) -> _boxes.Head | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return _boxes.read_head(fd)
    finally:
        os.close(fd)


def test_the_head_of_a_capture(tmp_path: Path) -> None:
    head = read(put(tmp_path, "a.1.pmt"))
    assert head is not None
    assert (head.status, head.cuts, head.number("pid")) == (_boxes.RECORDING, 5, GONE)
    assert head.text("hostname") == socket.gethostname()
    assert head.cut_unix_ns == int((NOW - 50) * 1e9)
    assert head.is_box
    assert not head.fixed


def test_the_head_that_the_core_writes(tmp_path: Path) -> None:
    code = (
        "import sys; from pymemtrace import _core\n"
        "_core.start(sys.argv[1], argv=['x', 'y'], sample_bytes=1 << 19); _core.flush()\n"
        "import os; os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.pmt")], check=False)
    head = read(tmp_path / "x.pmt")
    assert head is not None
    assert head.text("boot_id") == _boxes.boot_id()
    assert head.number("pid") > 0
    assert head.cuts >= 1
    assert head.is_box


def test_hostile_heads(tmp_path: Path) -> None:
    good = box_bytes()
    path = tmp_path / "x.1.pmt"
    for size in (0, 7, 511, 4095, 4096, 4100, 4140, len(good) - 9):
        path.write_bytes(good[:size])
        assert read(path) is None
    for at in (0, 9, 12, 16, 40, 520, 1030, 4096, 4101, 4108, 4112, 4140, len(good) - 9):
        path.write_bytes(good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :])
        read(path)  # nothing is raised
    facts = good[4096 + 40 :].rstrip(b"\0")
    for size in range(len(facts)):
        path.write_bytes(good[:4096] + cb.chunk(b"PROC", 1, facts[:size]))
        assert read(path) is None
    big = cb.chunk(b"PROC", 1, bytes(2 << 20))
    path.write_bytes(good[:4096] + big)
    assert read(path) is None


# --- who lives ------------------------------------------------------------------------------------


def state(tmp_path: Path, changed: float = NOW - 50, mine: bool = False, **how: object) -> str:
    head = read(put(tmp_path, "s.1.pmt", **how))
    return _boxes.state_of(head, changed, NOW, mine)


def test_states(tmp_path: Path) -> None:
    me, ticks = os.getpid(), _boxes.start_ticks("self")
    assert state(tmp_path) == _boxes.GONE_DEAD
    assert state(tmp_path, status=_boxes.ENDED) == _boxes.GONE_NORMAL
    assert state(tmp_path, status=_boxes.STOPPED) == _boxes.GONE_DEAD
    assert state(tmp_path, pid=me, ticks=ticks) == _boxes.LIVING
    assert state(tmp_path, pid=me, ticks=ticks, status=_boxes.STOPPED) == _boxes.LIVING
    # another process had our id; or it was we, before we executed ourselves
    assert state(tmp_path, pid=me, ticks=ticks + 1) == _boxes.GONE_DEAD
    assert state(tmp_path, mine=True, pid=me, ticks=ticks) == _boxes.GONE_NORMAL
    assert state(tmp_path, pid=1, ticks=_boxes.start_ticks(1)) == _boxes.LIVING


def test_states_of_other_hosts_and_boots(tmp_path: Path) -> None:
    assert state(tmp_path, host="other") == _boxes.LIVING
    assert state(tmp_path, host="other", changed=NOW - 121) == _boxes.GONE_DEAD
    long_ago = 1_000_000_000.0
    assert state(tmp_path, boot="another", started=long_ago) == _boxes.GONE_DEAD
    # the same name, another boot id, and yet it wrote after this host had started
    assert state(tmp_path, boot="another", started=time.time()) == _boxes.LIVING


def test_a_box_that_is_open_lives_whatever_its_process_is_called(tmp_path: Path) -> None:
    """Two containers with one folder: both processes have the pid 1."""
    path = put(tmp_path, "app.1.pmt")
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert tidy(tmp_path, limits=Limits(keep=0, keep_normal=0, max_bytes=0)) == []
    assert names(tmp_path) == {"app.1.pmt"}
    os.close(fd)
    assert len(tidy(tmp_path)) == 1


def test_a_recorder_holds_its_box_and_its_children_do_not(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pymemtrace import _boxes, _core\n"
        "_core.start(sys.argv[1], argv=['x'], sample_bytes=1 << 19, box_bytes=1 << 20)\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "print(_boxes.is_held(fd), flush=True)\n"
        "if os.fork(): os.kill(os.getpid(), 9)\n"
        "print('child', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x.1.pmt")],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"True\n"
    assert child.stdout.readline() == b"child\n"
    assert child.wait() == -9  # its own child waits for us
    fd = os.open(tmp_path / "x.1.pmt", os.O_RDONLY)
    assert _boxes.is_held(fd) is False
    os.close(fd)
    child.stdin.close()
    child.stdout.close()


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_is_made_for_its_user_only(tmp_path: Path) -> None:
    Folder(str(tmp_path / "new")).close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_folders_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot open the folder"):
        Folder(str(tmp_path / "file"))
    with pytest.raises(Refused, match="cannot make the folder"):
        Folder(str(tmp_path / "no" / "such"))
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(Refused, match="everybody may write"):
        Folder(str(open_to_all))
    open_to_all.chmod(0o1777)
    Folder(str(open_to_all)).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(Refused, match="another user"):
        Folder(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    Folder(str(tmp_path / "link")).close()
    os.lchown(tmp_path / "link", 12345, -1)
    with pytest.raises(Refused, match="another user's link"):
        Folder(str(tmp_path / "link"))


def test_files_that_are_no_boxes_are_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "boxes"
    folder.mkdir(mode=0o700)
    target = put(outside, "app.5.pmt")
    (folder / "app.6.pmt").symlink_to(target)
    (folder / "app.7.pmt").mkdir()
    os.mkfifo(folder / "app.8.pmt")
    (folder / "app.9.pmt").write_text("my notes, not a capture")
    put(folder, "app.10.pmt", mode="full")
    put(folder, "pymemtrace-app.11.pmt")
    before = names(folder)
    assert tidy(folder, limits=Limits(keep=0, keep_normal=0, max_bytes=0)) == []
    assert names(folder) == before
    assert target.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_files_of_other_users_are_left_alone(tmp_path: Path) -> None:
    os.chown(put(tmp_path, "app.5.pmt"), 12345, -1)
    assert tidy(tmp_path, limits=Limits(keep=0)) == []
    assert names(tmp_path) == {"app.5.pmt"}


# --- what is kept ---------------------------------------------------------------------------------


def test_a_death_is_found_once_and_keeps_its_start_in_its_name(tmp_path: Path) -> None:
    put(tmp_path, "app.1.pmt", started=NOW - 100)
    put(tmp_path, "other.1.pmt")
    found = tidy(tmp_path)
    assert found == [f"app.1.{stamp(NOW - 100)}.pmt"]
    assert tidy(tmp_path) == []
    # that of another program is for that program's next process
    assert names(tmp_path) == {*found, "other.1.pmt"}
    assert tidy(tmp_path, "other") == [f"other.1.{stamp(NOW - 100)}.pmt"]


def test_what_a_recorder_leaves_beside_its_box_goes(tmp_path: Path) -> None:
    put(tmp_path, "app.1.pmt")
    put(tmp_path, "app.2.pmt", pid=1, ticks=_boxes.start_ticks(1))
    for name in ("app.1.pmt.compact", "app.1.pmt.control", "app.2.pmt.compact"):
        (tmp_path / name).write_text("")
    tidy(tmp_path)
    assert [path.name for path in tmp_path.glob("*.c*")] == ["app.2.pmt.compact"]


def test_living_ones_stay(tmp_path: Path) -> None:
    put(tmp_path, "app.1.pmt", pid=1, ticks=_boxes.start_ticks(1))
    put(tmp_path, "app.2.pmt", host="other", changed=NOW - 1)
    (tmp_path / "app.3.pmt").write_bytes(bytes(8192))  # is just being made
    os.utime(tmp_path / "app.3.pmt", (NOW, NOW))
    before = names(tmp_path)
    assert tidy(tmp_path, limits=Limits(keep=0, keep_normal=0, max_bytes=0)) == []
    assert names(tmp_path) == before


def test_two_of_the_same_second(tmp_path: Path) -> None:
    put(tmp_path, "app.1.pmt")
    tidy(tmp_path)
    put(tmp_path, "app.1.pmt")
    tidy(tmp_path)
    usual = f"app.1.{stamp(NOW - 100)}"
    assert names(tmp_path) == {f"{usual}.pmt", f"{usual}-1.pmt"}


def test_normal_ends_are_no_deaths_and_go_first(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path, f"app.{number}.pmt", changed=NOW - 50 + number, status=_boxes.ENDED)
        put(tmp_path, f"app.{number + 10}.pmt", changed=NOW - 90 - number)
    found = tidy(tmp_path, limits=Limits(keep=8, keep_normal=1))
    assert len(found) == 4
    assert {name.split(".")[1] for name in names(tmp_path)} == {"3", "10", "11", "12", "13"}
    tidy(tmp_path, limits=Limits(keep=8, keep_normal=0))
    assert len(names(tmp_path)) == 4


def crash(folder: Path, number: int, at: float, **how: object) -> None:
    put(folder, f"app.{number}.pmt", changed=at, started=at - 5, **how)


def test_of_a_loop_the_newest_and_the_first_stay(tmp_path: Path) -> None:
    for number in range(40):
        crash(tmp_path, number, NOW - 1000 + 20 * number)
        tidy(tmp_path, limits=Limits(keep=4), now=NOW - 999 + 20 * number)
    pids = {name.split(".")[1] for name in names(tmp_path)}
    assert pids == {"0", "36", "37", "38", "39"}
    assert sum(".first." in name for name in names(tmp_path)) == 1


def test_the_first_of_an_older_loop_goes(tmp_path: Path) -> None:
    for number in range(10):
        crash(tmp_path, number, NOW - 90_000 + 20 * number)
        tidy(tmp_path, limits=Limits(keep=3))
    assert "0" in {name.split(".")[1] for name in names(tmp_path)}
    for number in range(10, 20):
        crash(tmp_path, number, NOW - 1000 + 20 * number)
        tidy(tmp_path, limits=Limits(keep=3))
    pids = {name.split(".")[1] for name in names(tmp_path)}
    assert pids == {"10", "17", "18", "19"}


def test_deaths_before_the_first_state_go_first(tmp_path: Path) -> None:
    crash(tmp_path, 1, NOW - 1000)
    for number in range(2, 12):
        crash(tmp_path, number, NOW - 1000 + 20 * number, cuts=0)
        tidy(tmp_path, limits=Limits(keep=3))
    pids = {name.split(".")[1] for name in names(tmp_path)}
    assert "1" in pids
    assert "11" in pids
    assert len(pids) <= 4


def test_bytes_of_the_folder_are_bounded_and_the_newest_death_stays(tmp_path: Path) -> None:
    for number in range(6):
        crash(tmp_path, number, NOW - 1000 + number, padding=1 << 20)
    put(tmp_path, "other.77.pmt", changed=NOW - 900, padding=1 << 20)
    tidy(tmp_path, limits=Limits(keep=8, max_bytes=(2 << 20) + (1 << 19)))
    pids = {name.split(".")[1] for name in names(tmp_path)}
    assert pids == {"5", "77"}
    tidy(tmp_path, limits=Limits(keep=8, max_bytes=1))
    assert len(names(tmp_path)) == 1


def test_the_name_for_a_new_process(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert _boxes.choose(folder, "app", 7) == "app.7.pmt"
    (tmp_path / "app.7.pmt").symlink_to("/nowhere")
    assert _boxes.choose(folder, "app", 7) == "app.7-1.pmt"
    folder.close()


def test_the_lock_is_one_for_all_processes(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert folder.lock()
    code = (
        "import sys; from pymemtrace._boxes import Folder\nsys.exit(Folder(sys.argv[1]).lock())\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
    folder.unlock()
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 1
    folder.close()


# --- run -o FILE ----------------------------------------------------------------------------------


def test_way_is_made_for_a_named_file(tmp_path: Path) -> None:
    for number in range(5):
        path = put(tmp_path, "job.pmt", started=NOW - 1000 + number, changed=NOW - 900 + number)
        moved = _boxes.make_way(str(path), Limits(keep=3))
        new = str(tmp_path / f"job.{stamp(NOW - 1000 + number)}.pmt")
        assert moved == (new, _boxes.GONE_DEAD)
        assert not path.exists()
    assert names(tmp_path) == {f"job.{stamp(NOW - 1000 + n)}.pmt" for n in (2, 3, 4)}


def test_of_boxes_of_one_second_the_newest_stay(tmp_path: Path) -> None:
    for number in range(12):
        path = put(tmp_path, "job.pmt", changed=NOW - 40 + number)
        moved = _boxes.make_way(str(path), Limits(keep=2))
        assert moved is not None
        assert Path(moved[0]).exists()
    assert len(names(tmp_path)) == 2


def test_no_way_is_made(tmp_path: Path) -> None:
    assert _boxes.make_way(str(tmp_path / "none.pmt"), Limits()) is None
    full = put(tmp_path, "full.pmt", mode="full")
    assert _boxes.make_way(str(full), Limits()) is None
    alive = put(tmp_path, "alive.pmt", pid=1, ticks=_boxes.start_ticks(1))
    assert _boxes.make_way(str(alive), Limits()) is None
    (tmp_path / "notes.pmt").write_text("mine")
    assert _boxes.make_way(str(tmp_path / "notes.pmt"), Limits()) is None
    assert names(tmp_path) == {"full.pmt", "alive.pmt", "notes.pmt"}


def test_it_imports_next_to_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import pymemtrace._boxes\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout.split() == ["pymemtrace", "pymemtrace._boxes", "pymemtrace._core"]
