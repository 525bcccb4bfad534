"""tools/check_layers.py against tiny trees, each wrong in one way."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_version

CHECKOUT = Path(__file__).resolve().parents[2]
TOOL = CHECKOUT / "tools" / "check_layers.py"
LAYERS = (CHECKOUT / "src" / "LAYERS").read_text(encoding="utf-8")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def check(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), str(tree)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree in which every kind of include that is allowed occurs."""
    write(tmp_path / "src/LAYERS", LAYERS)
    write(tmp_path / "include/pymemtrace/error.h", "#include <stdint.h>\n")
    write(tmp_path / "include/pymemtrace/reader.h", '#include "pymemtrace/error.h"\n')
    write(tmp_path / "src/platform/platform.h", '#include "pymemtrace/error.h"\n')
    write(
        tmp_path / "src/record/site.c",
        '#include "record/site.h"\n#include <sys/mman.h>\n#include "format/spec.h"\n'
        '#include "platform/platform.h"\n',
    )
    write(tmp_path / "src/cpython/hooks.c", '#include <Python.h>\n#include "record/site.h"\n')
    write(tmp_path / "pymemtrace/_ext/errors.h", "#include <Python.h>\n")
    write(
        tmp_path / "pymemtrace/_ext/module.c",
        '#include "errors.h"\n#include "cpython/hooks.h"\n#include "render/json.h"\n',
    )
    return tmp_path


def test_the_project_itself_is_clean() -> None:
    result = check(CHECKOUT)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_allowed_includes_pass(tree: Path) -> None:
    result = check(tree)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("src/base/a.c", '#include "model/ids.h"', "base may not include model"),
        ("src/record/a.c", '#include "store/reader.h"', "record may not include store"),
        ("src/store/a.c", '#include "record/site.h"', "store may not include record"),
        ("src/store/a.h", '#  include  "analyze/peak.h"', "store may not include analyze"),
        ("src/render/a.c", '#include "cpython/hooks.h"', "render may not include cpython"),
        ("src/record/a.c", "#include <Python.h>", "belongs to Python"),
        ("src/record/a.c", '#include "Python.h"', "belongs to Python"),
        ("src/analyze/a.c", "#include <frameobject.h>", "belongs to Python"),
        ("src/base/a.c", "#include <internal/pycore_frame.h>", "belongs to Python"),
        ("src/base/a.c", "#include <cpython/code.h>", "belongs to Python"),
        ("src/base/a.c", '#include "utils/a.h"', "in no room that src/LAYERS knows"),
        ("src/base/a.c", '#include "../model/ids.h"', "in no room that src/LAYERS knows"),
        ("src/base/a.c", '#include "vec.h"', "does not name its room"),
        ("src/base/a.c", "#include <base/vec.h>", "included with quotes"),
        ("src/cpython/a.c", '#include "ext/errors.h"', "cpython may not include ext"),
        ("include/pymemtrace/a.h", "#include <sys/mman.h>", "a public header includes"),
        ("include/pymemtrace/a.h", "#include <Python.h>", "a public header includes"),
        ("include/pymemtrace/a.h", '#include "base/vec.h"', "a public header includes"),
    ],
)
def test_forbidden_includes_are_refused(tree: Path, file: str, line: str, expected: str) -> None:
    write(tree / file, f"/* first line */\n{line}\n")
    result = check(tree)
    assert result.returncode == 1
    assert result.stdout.startswith(f"{file}:2: ")
    assert expected in result.stdout
    assert result.stdout.count("\n") == 1


def test_an_unknown_room_is_refused(tree: Path) -> None:
    write(tree / "src/misc/a.c", "")
    result = check(tree)
    assert result.returncode == 1
    assert result.stdout == "src/misc: a folder that src/LAYERS does not know\n"


def test_a_source_outside_the_rooms_is_refused(tree: Path) -> None:
    write(tree / "src/utils.c", "")
    result = check(tree)
    assert result.returncode == 1
    assert "src/utils.c: a source file stands in a room" in result.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base platform\n", "expected 'room: rooms it may include'"),
        ("base:\nbase:\n", "declared twice"),
        ("base: platform\n", "undeclared room 'platform'"),
        ("base: model\nmodel: base\n", "a cycle: base -> model -> base"),
        ("python.h: cpython\n", "undeclared room 'cpython'"),
    ],
)
def test_wrong_layers_are_refused(tree: Path, text: str, expected: str) -> None:
    write(tree / "src/LAYERS", text)
    result = check(tree)
    assert result.returncode == 2
    assert expected in result.stderr
