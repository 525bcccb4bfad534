"""`pymemtrace export`, read by the programs that the formats are for."""

import base64
import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def export(recorded: Any, *words: str) -> bytes:
    """What goes to a standard output that is a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "pymemtrace", "export", *words, str(recorded.capture)],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def test_csv(recorded: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(export(recorded, "--to", "csv").decode())))
    assert rows[0]["file"] == str(recorded.script)
    assert int(rows[0]["line"]) == recorded.peak_line
    assert int(rows[0]["bytes"]) - recorded.peak_bytes in range(200)


def test_collapsed(recorded: Any) -> None:
    lines = export(recorded, "--to", "collapsed", "--leaks").decode().splitlines()
    stack, _, value = lines[0].rpartition(" ")
    assert stack.endswith(f";worker (known:{recorded.worker_line})")
    assert "/" not in stack
    assert int(value) - recorded.worker_bytes in range(200)
    long = export(recorded, "--to", "collapsed", "--leaks", "--full-paths").decode().splitlines()
    assert long[0].endswith(f";worker ({recorded.script}:{recorded.worker_line}) {value}")
    assert len(long) == len(lines)


def test_a_file_instead_of_standard_output(command: Any, recorded: Any, tmp_path: Path) -> None:
    words = ("export", "--to", "pprof", "-o", "x.pb.gz", recorded.capture)
    done = command(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote x.pb.gz (")
    assert gzip.decompress((tmp_path / "x.pb.gz").read_bytes())
    assert (tmp_path / "x.pb.gz").read_bytes() == export(recorded, "--to", "pprof")
    again = command(*words, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "exists" in again.stderr


def test_several_captures_get_a_file_each(command: Any, recorded: Any, tmp_path: Path) -> None:
    for name in ("a.pmt", "b.pmt"):
        (tmp_path / name).write_bytes(recorded.capture.read_bytes())
    assert command("export", "--to", "csv", "*.pmt", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.csv").read_bytes() == export(recorded, "--to", "csv")
    assert (tmp_path / "b.csv").exists()


def test_no_format(command: Any, recorded: Any) -> None:
    done = command("export", recorded.capture)
    assert (done.returncode, done.stdout) == (2, "")
    done = command("export", "--to", "xml", recorded.capture)
    assert (done.returncode, done.stdout) == (2, "")


def test_go_tool_pprof_reads_it(command: Any, recorded: Any, tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go on PATH: `go tool pprof` does not read the file")
    assert command(
        "export", "--to", "pprof", "-o", tmp_path / "x.pb.gz", recorded.capture
    ).returncode == 0  # fmt: skip
    shown = subprocess.run(
        [go, "tool", "pprof", "-top", "-unit=B", "-lines", "x.pb.gz"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
        env=os.environ | {"PPROF_TMPDIR": str(tmp_path)},
    ).stdout  # fmt: skip
    assert "Type: inuse_space" in shown
    top = shown.partition(" cum%\n")[2].splitlines()[0]
    flat, *_, name = top.split(maxsplit=5)
    assert int(flat.removesuffix("B")) - recorded.peak_bytes in range(200)
    assert name.startswith("peak ")
    assert name.endswith(f"known.py:{recorded.peak_line}")
    shown = subprocess.run(
        [go, "tool", "pprof", "-top", "-nodefraction=0", "x.pb.gz"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
        env=os.environ | {"PPROF_TMPDIR": str(tmp_path)},
    ).stdout  # fmt: skip
    assert " known.<module>\n" in shown
    assert "<unknown>" not in shown


def find_speedscope() -> Path | None:
    """The page of the npm package, from PYMEMTRACE_SPEEDSCOPE or a global installation."""
    folders = [os.environ.get("PYMEMTRACE_SPEEDSCOPE")]
    if npm := shutil.which("npm"):
        root = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False)
        folders.append(f"{root.stdout.strip()}/speedscope")
    pages = [Path(folder) / "dist/release/index.html" for folder in folders if folder]
    return next((page for page in pages if page.exists()), None)


def test_speedscope_reads_it(recorded: Any, tmp_path: Path) -> None:
    """The package's own page, loading a file as its command line program makes it do."""
    page = find_speedscope()
    if page is None:
        pytest.skip("no npm package speedscope (npm install -g, or PYMEMTRACE_SPEEDSCOPE=folder)")
    chromium = os.environ.get("PYMEMTRACE_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH: speedscope does not read the file")
    content = export(recorded, "--to", "speedscope")
    assert json.loads(content)["$schema"].startswith("https://www.speedscope.app/")
    script = tmp_path / "profile.js"
    encoded = base64.b64encode(content).decode()
    script.write_text(f"speedscope.loadFileFromBase64('known.json', '{encoded}')")
    shown = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=10000", "--dump-dom",
            f"{page.as_uri()}#localProfilePath={script}",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    # An unreadable file leaves the title as it is.
    assert "<title>peak - speedscope</title>" in shown
