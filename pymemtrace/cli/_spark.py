"""A line of bars, for a course of time."""

from collections.abc import Sequence

BARS = " ▁▂▃▄▅▆▇█"


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
