"""The lines above the listing: what is watched, how it is, what of it is shown."""

import time
from collections.abc import Sequence

from rich.text import Text
from textual.widget import Widget

from pymemtrace.cli import _captures, _format, _options
from pymemtrace.cli._live.watch import Picture, Wish, filter_text

BARS = " ▁▂▃▄▅▆▇█"
RECENT_S = 60.0  # the time line's, unless it shows the whole run

ORDER_TITLES = {
    "bytes": "bytes",
    "blocks": "blocks",
    "allocated_bytes": "allocated",
    "temporary_bytes": "temporary",
}


def sparkline(points: Sequence[tuple[float, int]], start_s: float, end_s: float, width: int) -> str:
    """A bar for each stretch of time, as high as the highest point in it; without one, as the last
    before it. The highest bar is full."""
    if not points or width <= 0:
        return ""
    step = max(end_s - start_s, 0.001) / width
    columns: list[int | None] = [None] * width
    before = 0
    for t_s, size in points:
        at = int((t_s - start_s) / step)
        if t_s < start_s:
            before = size
        else:
            at = min(at, width - 1)
            columns[at] = max(columns[at] or 0, size)
    values: list[int] = []
    for value in columns:
        before = before if value is None else value
        values.append(before)
    most = max(values) or 1
    return "".join(BARS[-(-value * (len(BARS) - 1) // most)] for value in values)


def state_of(picture: Picture) -> tuple[str, str]:
    """A text and its style."""
    shown = picture.shown
    running = sum(process.info["ended"] == "running" for process in shown)
    duration = _format.duration(picture.duration_s)
    if len(shown) > 1:
        return f"{running} of {len(shown)} running, {duration}", "green" if running else "yellow"
    if running:
        return f"running {duration}", "green"
    return f"{_captures.state_text(shown[0].info)}, {duration}", "yellow"


class Head(Widget):
    def __init__(self) -> None:
        super().__init__()
        self.picture: Picture | None = None
        self.wish = Wish()
        self.whole = False
        self._looked = time.monotonic()

    def present(self, picture: Picture) -> None:
        self.picture = picture
        self._looked = time.monotonic()
        self.refresh()

    def render(self) -> Text:
        width, height = self.size
        picture = self.picture
        lines: list[Text] = []
        if picture is None or not picture.shown:
            waits = "reading …" if picture is None else "waiting for a capture"
            lines.append(Text(waits, "bold"))
        else:
            lines += [self._title(picture, width), self._figures(picture)]
            if height >= 5:
                lines += self._timeline(picture, width)
        if height >= 3:
            lines[height - 1 :] = []
            lines += [Text()] * (height - 1 - len(lines))
            lines.append(self._shown(picture))
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Text("\n").join(lines[:height])

    def _title(self, picture: Picture, width: int) -> Text:
        state, style = state_of(picture)
        first = picture.shown[0]
        command = _format.command(first.info["command"])
        name = f"{len(picture.shown)} processes of " if len(picture.shown) > 1 else ""
        left = Text.assemble((f"{name}{first.pid} ", "bold"), command)
        room = width - len(state) - 2
        if room < 12:
            return Text.assemble((f"{first.pid} ", "bold"), (state, style))
        left.truncate(room, overflow="ellipsis", pad=True)
        return left + Text.assemble("  ", (state, style))

    def _figures(self, picture: Picture) -> Text:
        size = _format.size
        several = len(picture.shown) > 1
        text = Text.assemble(
            ("now " if picture.running else "end ", "dim"), (size(picture.live_bytes), "bold"),
            ("  peak ", "dim"), (size(picture.peak_bytes), "bold"),
            ("  RSS ", "dim"), (size(picture.rss_bytes), "bold"),
        )  # fmt: skip
        if picture.running:
            age = picture.age_s + (time.monotonic() - self._looked)
            text += Text.assemble("  ", (f"{age:.0f} s old", "yellow" if age > 5 else "dim"))
        lost = [f"{n:,} {what}" for what, n in self._losses(picture).items()]
        if lost:
            text += Text.assemble("  ", (f"not recorded: {', '.join(lost)}", "yellow"))
        elif not several:
            text += Text.assemble("  ", (f"{flushes(picture):,} flushes", "dim"))
        return text

    @staticmethod
    def _losses(picture: Picture) -> dict[str, int]:
        return picture.shown[0].info["dropped"] if len(picture.shown) == 1 else {}

    def _timeline(self, picture: Picture, width: int) -> list[Text]:
        end_s = picture.heap[-1][0] if picture.heap else 0.0
        start_s = 0.0 if self.whole else max(0.0, end_s - RECENT_S)
        span = _format.duration(end_s - start_s)
        room = width - 5 - len(span) - 1
        lines = []
        for name, points, style in (("heap", picture.heap, "green"), ("RSS", picture.rss, "blue")):
            if points:
                bars = sparkline(points, start_s, end_s, room)
                lines.append(
                    Text.assemble((f"{name:<5}", "dim"), (bars, style), (f" {span}", "dim"))
                )
        return lines

    def _shown(self, picture: Picture | None) -> Text:
        wish = self.wish
        view = {"leaks": "alive now", "peak": "at the peak"}.get(
            wish.view, _options.VIEW_TITLES[wish.view]
        )
        if wish.view == "leaks" and picture is not None and not picture.running:
            view = "alive at the end"
        text = Text(view, "bold")
        if wish.paused:
            text = Text("PAUSED", "bold yellow") + Text(" ") + text
        if wish.tab == "sites":
            whose = "with callees" if wish.total else "own"
            text += Text(f", by {ORDER_TITLES[wish.order]}, {whose}", "dim")
        if wish.tab == "tree" and wish.inverted:
            text += Text(", callers below callees", "dim")
        if wish.include or wish.exclude:
            text += Text.assemble("  filter ", (_format.clean(filter_text(wish)), "yellow"))
        if wish.process is not None and picture is not None and len(picture.processes) > 1:
            text += Text.assemble("  process ", (str(picture.shown[0].pid), "yellow"))
        if wish.thread is not None:
            names = dict(picture.threads) if picture is not None else {}
            text += Text.assemble("  thread ", (names.get(wish.thread, wish.thread), "yellow"))
        for note in picture.notes if picture is not None else ():
            text += Text(f"  {_format.clean(note)}", "red")
        return text


def flushes(picture: Picture) -> int:
    return int(picture.shown[0].info["cuts"])
