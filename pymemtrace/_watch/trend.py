"""The slope of a noisy series, and how sure it is.

Theil and Sen: the slope is the median of the slopes between all pairs of points, which a quarter of
wrong points do not move; its 95 % interval comes from the distribution of Kendall's S (Sen, 1968).
That is made for independent points, which the memory of a process is not: the variance of S is
multiplied by (1 + r) / (1 - r), r being the lag-1 correlation of what is left over beside the line
(Yue and Wang, 2004), ninefold at most, so that stairs that only go up still count as growth.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BINS = 40  # points that are compared pair by pair, at most
MIN_POINTS = 6
Z = 1.959964  # 95 %
MAX_INFLATION = 9.0
LASTING = 0.25  # of the slope: less than that in the last half, and the growth has stopped


@dataclass(frozen=True)
class Trend:
    """Per second."""

    slope: float
    low: float
    high: float
    points: int
    span_s: float
    steady: bool  # the last half of the points goes the same way

    @property
    def significant(self) -> bool:
        return self.low > 0 or self.high < 0


def trend(points: Sequence[tuple[float, float]], noise: float = 0.0) -> Trend | None:
    """points: (seconds, value), by time. noise: half of the 95 % interval of the difference between
    the last value and the first, where values are estimates. None: too few points."""
    binned = bins(points)
    count = len(binned)
    if count < MIN_POINTS:
        return None
    span = binned[-1][0] - binned[0][0]
    slopes = sorted(pair_slopes(binned))
    if span <= 0 or not slopes:
        return None
    slope = statistics.median(slopes)
    middle = statistics.median(value - slope * at for at, value in binned)
    left = [value - middle - slope * at for at, value in binned]
    spread = Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18 * inflation(left))
    reach = min(spread, len(slopes))
    low = slopes[max(0, math.floor((len(slopes) - reach) / 2))]
    high = slopes[min(len(slopes) - 1, math.ceil((len(slopes) + reach) / 2))]
    low, high = min(low, slope), max(high, slope)
    if noise > 0:
        wide = noise / span
        low, high = min(low, slope - wide), max(high, slope + wide)
    last = statistics.median(pair_slopes(binned[count // 2 :]))
    steady = last * slope > 0 and abs(last) >= LASTING * abs(slope)
    return Trend(slope, low, high, count, span, steady)


def bins(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most BINS points: the medians of stretches of equal length in time."""
    if len(points) <= BINS:
        return list(points)
    first, last = points[0][0], points[-1][0]
    width = (last - first) / BINS
    if width <= 0:
        return [points[-1]]
    held: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for point in points:
        held[min(BINS - 1, max(0, int((point[0] - first) / width)))].append(point)
    return [
        (statistics.fmean(at for at, _ in group), statistics.median(value for _, value in group))
        for group in held
        if group
    ]


def pair_slopes(points: Sequence[tuple[float, float]]) -> list[float]:
    return [
        (later[1] - point[1]) / (later[0] - point[0])
        for index, point in enumerate(points)
        for later in points[index + 1 :]
        if later[0] > point[0]
    ]


def inflation(left: Sequence[float]) -> float:
    mean = statistics.fmean(left)
    square = sum((value - mean) ** 2 for value in left)
    if square <= 0:
        return 1.0
    products = pairwise(left)
    r = sum((a - mean) * (b - mean) for a, b in products) / square
    if r <= 0:
        return 1.0
    return min(MAX_INFLATION, (1 + r) / (1 - r)) if r < 1 else MAX_INFLATION
