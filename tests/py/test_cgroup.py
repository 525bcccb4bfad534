"""Cgroups, of both versions, as files in a folder."""

from pathlib import Path

import pytest

from pymemtrace import _cgroup

pytestmark = pytest.mark.any_version

MIB = 1 << 20

V1 = """\
9:name=systemd:/
8:pids:/docker/4f1c
4:memory:/docker/4f1c
1:cpu,cpuacct:/docker/4f1c
0::/
"""
V2 = "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-9a.scope\n"
HYBRID_WITHOUT_MEMORY = "1:name=systemd:/user.slice\n0::/user.slice/session-2.scope\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (V1, (1, "/docker/4f1c")),
        (V2, (2, "/kubepods.slice/kubepods-pod1.slice/cri-containerd-9a.scope")),
        (HYBRID_WITHOUT_MEMORY, (2, "/user.slice/session-2.scope")),
        ("7:memory:/a:b c\n", (1, "/a:b c")),
        ("", (0, "")),
        ("garbage", (0, "")),
    ],
)
def test_membership(text: str, found: tuple[int, str]) -> None:
    assert _cgroup.parse_membership(text) == found


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_version_2(tmp_path: Path) -> None:
    write(tmp_path / "a", memory__max=f"{300 * MIB}\n")
    write(tmp_path / "a/b", memory__max="max\n", memory__current="1234\n",
          memory__events="low 0\nhigh 3\nmax 31\noom 2\noom_kill 1\nnew thing\n")  # fmt: skip
    group = _cgroup.find("/a/b", root=str(tmp_path))
    assert group is not None
    assert (group.version, group.limit_bytes, group.used_bytes()) == (2, 300 * MIB, 1234)
    assert group.counters() == {"low": 0, "high": 3, "max": 31, "oom": 2, "oom_kill": 1}
    assert _cgroup.find("/a/b", 1, str(tmp_path)) is None


def test_version_1(tmp_path: Path) -> None:
    write(tmp_path / "memory", memory__limit_in_bytes="9223372036854771712\n")
    write(tmp_path / "memory/a", memory__limit_in_bytes=f"{100 * MIB}\n",
          memory__usage_in_bytes="77\n",
          memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")  # fmt: skip
    group = _cgroup.find("/a", root=str(tmp_path))
    assert group is not None
    assert (group.version, group.limit_bytes, group.used_bytes()) == (1, 100 * MIB, 77)
    assert group.counters()["oom_kill"] == 4
    root = _cgroup.find("/", 1, str(tmp_path))
    assert root is not None
    assert root.limit_bytes is None


def test_what_is_not_there(tmp_path: Path) -> None:
    assert _cgroup.find("/a", root=str(tmp_path)) is None
    write(tmp_path / "a", memory__max="max\n")
    assert _cgroup.find("/a/../../etc", root=str(tmp_path / "a")) is None
    gone = _cgroup.Group(2, str(tmp_path / "gone"), None)
    assert gone.counters() == {}
    assert gone.used_bytes() is None
