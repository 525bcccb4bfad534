"""Where a box lies: mountinfo as it was found on hosts and in containers."""

import pytest

from pymemtrace import _volume

pytestmark = pytest.mark.any_version

DOCKER = """\
712 639 0:53 / / rw,relatime master:301 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:/var/lib/docker/overlay2/l/B,upperdir=/var/lib/docker/overlay2/c/diff,workdir=/var/lib/docker/overlay2/c/work
713 712 0:56 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
714 712 0:57 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
720 714 0:54 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k,inode64
721 712 8:1 /var/lib/docker/volumes/boxes/_data /var/lib/app rw,relatime master:1 - ext4 /dev/sda1 rw,errors=remount-ro
722 712 8:1 /etc/app /etc/my\\040app ro,relatime - ext4 /dev/sda1 rw,errors=remount-ro
723 712 8:1 /var/lib/docker/containers/4f/hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
"""  # noqa: E501
KUBERNETES = """\
1402 1275 0:314 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/50/fs,upperdir=/x/fs,workdir=/x/work
1403 1402 0:316 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1410 1402 259:1 /var/lib/kubelet/pods/8c/volumes/kubernetes.io~empty-dir/boxes /boxes rw,relatime - xfs /dev/nvme0n1p1 rw,attr2
1411 1402 0:299 / /cache rw,relatime - tmpfs tmpfs rw,size=1048576k
1412 1402 0:298 / /run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw,size=1048576k
"""  # noqa: E501
HOST = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
24 23 0:22 / /proc rw,relatime - proc proc rw
25 23 0:23 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=8G
26 23 254:16 / /srv rw - xfs /dev/vdb rw
27 26 0:44 / /srv/app rw - nfs4 server:/app rw,vers=4.2
28 26 0:45 / /srv/app rw - tmpfs over rw
"""


def mounts(text: str) -> list[_volume.Mount]:
    return _volume.parse_mounts(text)


@pytest.mark.parametrize(
    ("text", "path", "kind", "point", "problem"),
    [
        (DOCKER, "/app", "overlay", "/", "container's own layer"),
        (DOCKER, "/var/lib/app/boxes", "ext4", "/var/lib/app", ""),
        (DOCKER, "/var/lib/application", "overlay", "/", "container's own layer"),
        (DOCKER, "/dev/shm", "tmpfs", "/dev/shm", "counts against the memory limit"),
        (DOCKER, "/etc/my app/x", "ext4", "/etc/my app", "read-only"),
        (KUBERNETES, "/boxes/app", "xfs", "/boxes", ""),
        (KUBERNETES, "/cache", "tmpfs", "/cache", "gone with the container"),
        (KUBERNETES, "/run/secrets/kubernetes.io/serviceaccount", "tmpfs",
         "/run/secrets/kubernetes.io/serviceaccount", "read-only"),
    ],
)  # fmt: skip
def test_in_containers(text: str, path: str, kind: str, point: str, problem: str) -> None:
    volume = _volume.judge_volume(path, mounts(text), True)
    assert (volume.kind, volume.point) == (kind, point)
    assert problem in volume.problem
    assert bool(volume.problem) == bool(problem)
    assert bool(volume.remedy) == bool(problem)


@pytest.mark.parametrize(
    ("path", "kind", "problem"),
    [("/home/me", "ext4", ""), ("/tmp/x", "tmpfs", "when the host restarts"), ("/srv", "xfs", ""),
     ("/srv/app/x", "tmpfs", "in memory"), ("/tmpx", "ext4", "")],
)  # fmt: skip
def test_on_a_host(path: str, kind: str, problem: str) -> None:
    volume = _volume.judge_volume(path, mounts(HOST), False)
    assert volume.kind == kind
    assert problem in volume.problem
    assert bool(volume.problem) == bool(problem)


def test_mountinfo_that_cannot_be_read() -> None:
    assert mounts("") == []
    assert mounts("a b c\n1 2 3 4 5 6 7\n1 2 3 4 /x rw - ext4\n - \n") == []
    assert _volume.judge_volume("/x", [], True) == _volume.Volume("unknown", "")
    (mount,) = mounts(r"1 2 0:1 / /a\134b\011c rw - ext4 /dev/x rw")
    assert mount.point == "/a\\b\tc"


@pytest.mark.parametrize(
    ("text", "membership", "marks", "found"),
    [
        (DOCKER, "0::/", {"/.dockerenv"}, "/.dockerenv"),
        (HOST, "0::/", {"/run/.containerenv"}, "/run/.containerenv"),
        (KUBERNETES, "0::/", set(), "the root file system is overlay"),
        (HOST, "4:memory:/docker/4f1c\n0::/\n", set(), "the cgroup's name has docker"),
        (HOST, "0::/kubepods.slice/kubepods-pod1.slice\n", set(), "the cgroup's name has kubepods"),
        (HOST, "0::/user.slice/user-0.slice/session-1.scope", set(), ""),
        (HOST, "0::/system.slice/docker-9f.scope", set(), "the cgroup's name has docker"),
        (HOST, "0::/system.slice/docker.service", set(), ""),
        (HOST, "0::/system.slice/my-docker-like.service", set(), ""),
        ("", "", set(), ""),
    ],
)  # fmt: skip
def test_containers(text: str, membership: str, marks: set[str], found: str) -> None:
    assert _volume.detect_container(mounts(text), membership, frozenset(marks)) == found
