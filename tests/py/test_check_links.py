"""tools/check_links.py against tiny documentation trees."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_version

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_links.py"


def check(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), str(tree)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("[format](docs/format.md#chunks), [web](https://a.b/c)\n")
    (tmp_path / "docs/format.md").write_text(
        "[back](../README.md), [above](#chunks), `[x](y.md)`\n"
    )
    return tmp_path


def test_links_that_lead_somewhere_pass(tree: Path) -> None:
    result = check(tree)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("link", ["[x](missing.md)", "![x](images/no.png)", "[x](no.md#part)"])
def test_links_that_lead_nowhere_are_named(tree: Path, link: str) -> None:
    (tree / "docs/user.md").write_text(f"first\n\n{link}\n")
    result = check(tree)
    assert result.returncode == 1
    assert result.stdout.startswith("docs/user.md: no such file: ")
