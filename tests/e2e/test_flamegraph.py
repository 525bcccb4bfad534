"""`pymemtrace flamegraph`: the file that it writes."""

import base64
import gzip
import html
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def header_of(page: Path) -> dict[str, Any]:
    """The data's header, read as docs/flame-data.md says."""
    [encoded] = re.findall(
        r'<script type="application/octet-stream;base64" id="pymemtrace-data">([^<]*)</script>',
        page.read_text(encoding="utf-8"),
    )
    container = gzip.decompress(base64.b64decode(encoded, validate=True))
    magic, version, length = struct.unpack_from("<4sII", container)
    assert (magic, version) == (b"PMTF", 1)
    return json.loads(container[12 : 12 + length])


def test_default_name_mode_and_content(command: Any, recorded: Any, tmp_path: Path) -> None:
    os.umask(0o022)
    done = command("flamegraph", recorded.capture, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote known.html (")
    page = tmp_path / "known.html"
    assert page.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [page]
    header = header_of(page)
    assert header["view"] == "peak"
    assert header["inverted"] is False
    assert header["totals"]["peak_bytes"] > recorded.peak_bytes
    assert header["title"] == "known.pmt"
    [title] = re.findall("<title>(.*)</title>", page.read_text())
    assert html.unescape(title).startswith("known.pmt: ")
    assert title.endswith(" known.py")
    assert "PYMEMTRACE-" not in page.read_text().split("<script", 1)[0]


def test_views_and_inverted(command: Any, recorded: Any, tmp_path: Path) -> None:
    done = command(
        "flamegraph", "--leaks", "--inverted", "--include", "known", "-o", "x.html",
        recorded.capture, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == "pymemtrace: note: Only stacks with a frame that matches known.\n"
    header = header_of(tmp_path / "x.html")
    assert header["view"] == "leaks"
    assert header["inverted"] is True
    assert header["notes"] == ["Only stacks with a frame that matches known."]


def test_an_existing_page_is_kept_without_force(
    command: Any, recorded: Any, tmp_path: Path
) -> None:
    page = tmp_path / "known.html"
    page.write_text("precious")
    done = command("flamegraph", recorded.capture, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "exists" in done.stderr
    assert "-f" in done.stderr
    assert page.read_text() == "precious"
    assert command("flamegraph", "-f", recorded.capture, cwd=tmp_path).returncode == 0
    assert header_of(page)["view"] == "peak"


@pytest.mark.parametrize("target", ["no/x.html", "."])
def test_where_it_cannot_be_written(
    command: Any, recorded: Any, tmp_path: Path, target: str
) -> None:
    done = command("flamegraph", "-f", "-o", target, recorded.capture, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pymemtrace: cannot write (")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_several_captures(command: Any, recorded: Any, tmp_path: Path) -> None:
    for name in ("a.pmt", "b.pmt"):
        (tmp_path / name).write_bytes(recorded.capture.read_bytes())
    done = command("flamegraph", "-o", "x.html", "*.pmt", cwd=tmp_path)
    assert done.returncode == 2
    assert "several captures" in done.stderr
    assert command("flamegraph", "*.pmt", cwd=tmp_path).returncode == 0
    names = {path.name for path in tmp_path.glob("*.html")}
    assert names == {"a.html", "b.html"}


def test_a_hostile_command_line_stays_text(command: Any, tmp_path: Path) -> None:
    code = "pass  # </title><script>alert(1)</script> <!--PYMEMTRACE-DATA-->"
    assert command("run", "-o", "x.pmt", "-c", code, cwd=tmp_path).returncode == 0
    assert command("flamegraph", "x.pmt", cwd=tmp_path).returncode == 0
    text = (tmp_path / "x.html").read_text()
    assert "<script>alert(1)" not in text
    assert header_of(tmp_path / "x.html")["captures"][0]["command"][-1] == code


def test_open_starts_a_browser(command: Any, recorded: Any, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\nprintf "%s" "$1" > "$(dirname "$0")/opened"\n')
    browser.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "pymemtrace", "flamegraph", "--open", str(recorded.capture)],
        cwd=tmp_path, env=os.environ | {"BROWSER": str(browser)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "opened").read_text() == (tmp_path / "known.html").as_uri()


def test_chromium_shows_it(command: Any, recorded: Any, tmp_path: Path) -> None:
    chromium = os.environ.get("PYMEMTRACE_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH: the page is not opened")
    assert command("flamegraph", recorded.capture, cwd=tmp_path).returncode == 0
    shown = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "known.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    body = shown.split("<body", 1)[1]
    assert "<canvas" in body
    assert "known.pmt" in re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
