"""Checks that every relative link in the project's Markdown files leads to a file.

usage: check_links.py [CHECKOUT]
"""

import re
import sys
from pathlib import Path

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def markdown_files(checkout: Path) -> list[Path]:
    folders = ("docs", "src", "pymemtrace", "tests", "bench", "web/src", "changelog.d")
    found = [*checkout.glob("*.md"), *(p for f in folders for p in (checkout / f).rglob("*.md"))]
    return sorted(found)


def broken_links(file: Path) -> list[str]:
    text = CODE.sub("", file.read_text(encoding="utf-8"))
    broken = []
    for match in LINK.finditer(text):
        target = match["target"].partition("#")[0]
        if not target or "://" in target or target.startswith("mailto:"):
            continue
        if not (file.parent / target).exists():
            broken.append(target)
    return broken


def main(argv: list[str]) -> int:
    checkout = Path(argv[1]) if len(argv) > 1 else Path(__file__).resolve().parent.parent
    status = 0
    for file in markdown_files(checkout):
        for target in broken_links(file):
            print(f"{file.relative_to(checkout)}: no such file: {target}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv))
