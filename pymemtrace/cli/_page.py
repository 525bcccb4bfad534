"""Where a report is printed: a terminal, by rich, or anything else, as plain text.

Plain text has no escapes and no width: lines are as long as what they say.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console

Segment = tuple[str, str]  # text, style in rich's words


@dataclass(frozen=True)
class Column:
    title: str
    right: bool = False  # numbers
    style: str = ""
    bends: bool = False  # becomes narrower, by folding, when a terminal has no room
    optional: bool = False  # is left out when a terminal has no room, before any column bends


class Page(Protocol):
    bar: str  # what bars are drawn with

    def title(self, text: str) -> None: ...
    def heading(self, text: str) -> None: ...
    def facts(self, facts: Iterable[tuple[str, Sequence[Segment]]]) -> None: ...
    def notes(self, notes: Iterable[str]) -> None: ...
    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None: ...
    def line(self, segments: Sequence[Segment]) -> None: ...


class PlainPage:
    bar = "#"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _print(self, text: str) -> None:
        self._stream.write(text.rstrip() + "\n")

    def title(self, text: str) -> None:
        self._print(text)

    def heading(self, text: str) -> None:
        self._print("")
        self._print(text)

    def facts(self, facts: Iterable[tuple[str, Sequence[Segment]]]) -> None:
        pairs = [(name, "".join(text for text, _ in segments)) for name, segments in facts]
        width = max((len(name) for name, _ in pairs), default=0)
        for name, text in pairs:
            self._print(f"  {name:<{width}}  {text}")

    def notes(self, notes: Iterable[str]) -> None:
        for note in notes:
            self._print(f"note: {note}")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        lines = [[column.title for column in columns], *map(list, rows)]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        for line in lines:
            cells = [
                cell.rjust(width) if column.right else cell.ljust(width)
                for cell, width, column in zip(line, widths, columns, strict=True)
            ]
            self._print("  " + "  ".join(cells))

    def line(self, segments: Sequence[Segment]) -> None:
        self._print("".join(text for text, _ in segments))


class RichPage:
    bar = "━"

    def __init__(self, console: "Console") -> None:
        self._console = console

    def _print(self, segments: Sequence[Segment], overflow: str = "fold") -> None:
        from rich.text import Text

        text = Text.assemble(*segments, overflow=overflow, no_wrap=overflow == "ellipsis")  # type: ignore[arg-type]
        self._console.print(text, soft_wrap=False)

    def title(self, text: str) -> None:
        self._print([(text, "bold")])

    def heading(self, text: str) -> None:
        self._print([("", "")])
        self._print([(text, "bold cyan")])

    def facts(self, facts: Iterable[tuple[str, Sequence[Segment]]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, segments in facts:
            table.add_row("  " + name, Text.assemble(*segments))
        self._console.print(table)

    def notes(self, notes: Iterable[str]) -> None:
        for note in notes:
            self._print([("note: ", "bold yellow"), (note, "yellow")])

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=True)
        kept, lines = self._fit(columns, list(rows))
        for column in kept:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                style=column.style,
                no_wrap=not column.bends,
                overflow="fold" if column.bends else "ellipsis",
            )
        for line in lines:
            table.add_row(*map(Text, line))
        self._console.print(table)

    def _fit(
        self, columns: Sequence[Column], rows: Sequence[Sequence[str]]
    ) -> tuple[list[Column], list[list[str]]]:
        """The columns that have room, and their cells."""
        cells = [[column.title for column in columns], *map(list, rows)]
        widths = [max(map(len, column)) + 2 for column in zip(*cells, strict=True)]
        kept = list(range(len(columns)))
        for index in reversed(range(len(columns))):
            if columns[index].optional and sum(widths[i] for i in kept) > self._console.width:
                kept.remove(index)
        return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]

    def line(self, segments: Sequence[Segment]) -> None:
        self._print(segments, "ellipsis")


def bar(page: Page, value: int, most: int, width: int) -> str:
    """As long as its part of the largest value; what is not nothing can be seen."""
    return page.bar * (-(-value * width // most) if most else 0)


def make_page(stream: TextIO | None = None) -> Page:
    """The page for standard output."""
    stream = sys.stdout if stream is None else stream
    if not is_terminal(stream):
        return PlainPage(stream)
    from rich.console import Console

    return RichPage(Console(file=stream, highlight=False, markup=False, emoji=False))


def is_terminal(stream: TextIO) -> bool:
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError):
        return False
