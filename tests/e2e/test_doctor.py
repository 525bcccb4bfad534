"""`pymemtrace doctor`."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pymemtrace
from pymemtrace.cli import doctor

NAMES = {
    "interpreter", "frames", "recording", "membarrier", "address space", "allocator", "name",
    "disk", "speed", "PYMEMTRACE", "box", "memory limit",
}  # fmt: skip


def run(**kwargs: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-m", "pymemtrace", "doctor", "--json"],
        capture_output=True, text=True, timeout=120, check=False, **kwargs,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_all_is_well_here() -> None:
    status, checks = run()
    assert status == 0
    assert set(checks) == NAMES
    assert all(check["ok"] for check in checks.values() if check["needed"])
    assert "allocations" in checks["recording"]["detail"]


def test_as_text(command: Any) -> None:
    done = command("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Recording works here."
    assert all(f" {name} " in done.stdout for name in NAMES)


def test_pythonmalloc_debug_is_noted() -> None:
    status, checks = run(env=os.environ | {"PYTHONMALLOC": "debug"})
    assert status == 0
    assert not checks["allocator"]["ok"]
    assert "debug" in checks["allocator"]["detail"]


def test_too_little_address_space() -> None:
    limit = 300 << 20

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    status, checks = run(preexec_fn=set_limit)
    assert "300.0 MiB" in checks["address space"]["detail"]
    assert not checks["address space"]["ok"]
    # whether the recorder can live with it is seen by trying
    assert status == (0 if checks["recording"]["ok"] else 4)


def test_a_needed_check_decides_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = [{"name": "frames", "ok": False, "detail": "unknown layout", "remedy": "use another"}]
    monkeypatch.setattr(doctor._core, "self_test", lambda: failing)
    assert doctor.run(doctor.argparse.Namespace(json=False)) == 4
    output = capsys.readouterr().out
    assert "FAILS" in output
    assert "unknown layout" in output
    assert "do: use another" in output
    assert output.endswith("Recording does not work here.\n")


def test_the_namesake(tmp_path: Path) -> None:
    """Files of the other distribution in our package, in a copy of it."""
    source = Path(pymemtrace.__file__).parent
    copy = tmp_path / "pymemtrace"
    copy.mkdir()
    for entry in source.iterdir():
        (copy / entry.name).symlink_to(entry)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import pymemtrace; print('imported')"

    def imported(*options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *options, "-c", code, str(tmp_path)],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip

    done = imported()
    assert (done.stdout, done.stderr) == ("imported\n", "")
    (copy / "trace_malloc.py").touch()
    done = imported()
    assert done.stdout == "imported\n"
    assert "RuntimeWarning" in done.stderr
    assert "pymemtrace-profiler" in done.stderr
    done = imported("-W", "error")
    assert (done.stdout, done.stderr) == ("imported\n", "")

    information = tmp_path / "pymemtrace-0.6.3.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: pymemtrace\nVersion: 0.6.3\n")
    # -m looks into the current directory first
    status, checks = run(cwd=tmp_path, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    assert status == 0
    assert not checks["name"]["ok"]
    assert "pip uninstall" in checks["name"]["remedy"]


def test_the_variable_is_looked_at(tmp_path: Path) -> None:
    _, checks = run()
    assert checks["PYMEMTRACE"]["ok"]
    assert "it is not set" in checks["PYMEMTRACE"]["detail"]
    value = f"dir={tmp_path / 'boxes'}"
    status, checks = run(env=os.environ | {"PYMEMTRACE": value})
    assert status == 0  # the recording that it starts in the child does not disturb
    assert "is set and starts a recording" in checks["PYMEMTRACE"]["detail"]
    assert str(tmp_path / "boxes") in checks["box"]["detail"]
    assert not (tmp_path / "boxes").exists()
    _, checks = run(env=os.environ | {"PYMEMTRACE": "sample=nonsense"})
    assert not checks["PYMEMTRACE"]["ok"]
    assert "sample=nonsense is no size" in checks["PYMEMTRACE"]["detail"]


def test_a_bad_place_for_a_box(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    _, checks = run(env=os.environ | {"PYMEMTRACE": f"dir={tmp_path}"})
    assert not checks["box"]["ok"]
    assert "everybody may write to the folder" in checks["box"]["detail"]
    assert "dir=" in checks["box"]["remedy"]
    _, checks = run(env=os.environ | {"PYMEMTRACE": "dir=/dev/shm"})
    assert not checks["box"]["ok"]
    assert "counts against the memory limit" in checks["box"]["detail"]


def test_pythonmalloc_malloc_is_explained() -> None:
    _, checks = run(env=os.environ | {"PYTHONMALLOC": "malloc"})
    assert checks["allocator"]["ok"]
    assert "look into a filter at every free" in checks["allocator"]["detail"]
