"""A table that is drawn anew every second: only the lines that can be seen cost anything.

Columns that have no room are left out, by their rank; the flexible one gets what is left. The
cursor stays on what it is about when lines come, go and change places, and at the top or, of an
output, at the bottom, as long as nobody has moved it from there.
"""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from pymemtrace.cli._live.watch import Column, Line

FLEXIBLE = 16  # the least width of a flexible column
LEAST = 8  # of a function's name

CURSOR = Style(reverse=True)
TITLE = Style(underline=True)


def crop(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - 1)) + "…" if width > 0 else ""


def crop_both(text: str, width: int) -> str:
    """Of 'function  place', the function goes first: a place without its end is none."""
    function, between, place = text.rpartition("  ")
    room = width - cell_len(place) - 2
    if not between or cell_len(text) <= width or room < min(LEAST, cell_len(function)):
        return crop(text, width)
    return f"{crop(function, room)}  {place}"


class Listing(ScrollView, can_focus=True):
    BINDINGS = [  # noqa: RUF012 (as textual has it)
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "edge(0)", show=False),
        Binding("end,G", "edge(1)", show=False),
        Binding("enter", "choose", show=False),
    ]

    class Chosen(Message):
        """Enter, or a click, on a line."""

        def __init__(self, line: Line) -> None:
            super().__init__()
            self.line = line

    def __init__(self) -> None:
        super().__init__()
        self.columns: Sequence[Column] = ()
        self.lines: Sequence[Line] = ()
        self.cursor = 0
        self.at_end = False  # where the cursor stays if nobody moves it
        self._moved = False
        self._widths: list[int] = []
        self.show_horizontal_scrollbar = False

    def present(
        self, columns: Sequence[Column], lines: Sequence[Line], *, at_end: bool = False,
        anew: bool = False,
    ) -> None:  # fmt: skip
        """anew: it is about something else, the cursor begins where it belongs."""
        if anew:
            self._moved = False
        key = self.lines[self.cursor].key if self._moved and self.cursor < len(self.lines) else None
        self.columns, self.lines, self.at_end = columns, lines, at_end
        resting = max(0, len(lines) - 1) if at_end else 0
        if not self._moved:
            self.cursor = resting
        else:
            found = next((i for i, line in enumerate(lines) if line.key == key), self.cursor)
            self.cursor = min(found, max(0, len(lines) - 1))
        self._widths = []
        self.virtual_size = Size(0, len(lines) + 1)
        self._follow()
        self.refresh()

    # --- keys ---

    @property
    def current(self) -> Line | None:
        return self.lines[self.cursor] if self.cursor < len(self.lines) else None

    def _put(self, cursor: int) -> None:
        self.cursor = min(max(0, cursor), max(0, len(self.lines) - 1))
        resting = max(0, len(self.lines) - 1) if self.at_end else 0
        self._moved = self.cursor != resting
        self._follow()
        self.refresh()

    def _follow(self) -> None:
        """Scrolls to where the cursor is; the titles take the first line of the widget."""
        room = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + room:
            self.scroll_to(y=self.cursor - room + 1, animate=False, force=True)

    def action_move(self, step: int) -> None:
        self._put(self.cursor + step)

    def action_page(self, step: int) -> None:
        self._put(self.cursor + step * max(1, self.size.height - 2))

    def action_edge(self, end: int) -> None:
        self._put(len(self.lines) - 1 if end else 0)

    def action_choose(self) -> None:
        if self.current is not None:
            self.post_message(self.Chosen(self.current))

    def on_click(self, event: Click) -> None:
        at = event.y - 1 + self.scroll_offset.y
        if event.y > 0 and at < len(self.lines):
            again = at == self.cursor
            self._put(at)
            if again:
                self.action_choose()

    # --- drawing ---

    def on_resize(self) -> None:
        self._widths = []
        self._follow()

    def _fit(self, width: int) -> list[int]:
        """By column; 0: it is left out."""
        cells = [[cell_len(column.title)] for column in self.columns]
        for line in self.lines:
            for widths, cell in zip(cells, line.cells, strict=True):
                widths.append(cell_len(cell))
        natural = [max(widths) for widths in cells]
        least = [
            min(size, FLEXIBLE) if column.flexible else size
            for size, column in zip(natural, self.columns, strict=True)
        ]
        kept = set(range(len(self.columns)))
        for index in sorted(kept, key=lambda index: -self.columns[index].rank):
            if self.columns[index].rank and sum(least[i] + 1 for i in kept) > width:
                kept.remove(index)
        left = width - sum(least[i] + 1 for i in kept if not self.columns[i].flexible)
        return [
            0 if i not in kept else max(1, left - 1) if column.flexible else least[i]
            for i, column in enumerate(self.columns)
        ]

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if not self._widths:
            self._widths = self._fit(width)
        base = self.rich_style
        if y == 0:
            titles = Line(None, tuple(column.title for column in self.columns))
            return self._strip(titles, base + TITLE, width, plain=True)
        at = y - 1 + self.scroll_offset.y
        if at >= len(self.lines):
            return Strip.blank(width, base)
        line = self.lines[at]
        style = base + Style.parse(line.style)
        if at == self.cursor and self.has_focus:
            return self._strip(line, style + CURSOR, width, plain=True)
        return self._strip(line, style, width, plain=False)

    def _strip(self, line: Line, style: Style, width: int, *, plain: bool) -> Strip:
        segments: list[Segment] = []
        for column, cell, room in zip(self.columns, line.cells, self._widths, strict=True):
            if room == 0:
                continue
            size = cell_len(cell)
            if column.right and size < room:
                text = " " * (room - size) + cell
            else:
                text = crop_both(cell, room)
            own = style if plain or not column.style else style + Style.parse(column.style)
            segments += [Segment(text, own), Segment(" ", style)]
        return Strip(segments).adjust_cell_length(width, style)
