"""Bins, ticks and scales of charts: arithmetic that any chart can use.

Rule: ticks stand at round numbers and there are never more of them than asked for; every function is total over the
numbers that a run can give, empty and enormous ones too. Instants are whole microseconds since 1970 in UTC.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

SECOND = 1_000_000
_DAY_US = 86_400 * SECOND

#: Widths of bins of time. Each divides the next, so that finer bins can be added up into coarser ones.
WIDTHS_US: tuple[int, ...] = (
    *(SECOND // 10, SECOND // 5),
    *(SECOND * seconds for seconds in (1, 2, 10, 30, 60, 120, 600, 1800, 3600, 7200, 21_600, 43_200)),
    *(_DAY_US * days for days in (1, 2, 10, 100, 1000, 10_000)),
)
#: Distances of ticks of time.
TIME_STEPS_US: tuple[int, ...] = (
    *(SECOND // 10, SECOND // 5, SECOND // 2),
    *(SECOND * seconds for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)),
    *(SECOND * 3600 * hours for hours in (1, 2, 3, 6, 12)),
    *(_DAY_US * days for days in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 10**5, 10**6)),
)
#: Lengths of time that people read at a glance, in seconds.
LENGTHS_S: tuple[float, ...] = (
    *(float(f"{digit}e{power}") for power in range(-6, 0) for digit in (1, 2, 5)),
    *(1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18_000, 36_000),
    *(86_400.0 * days for days in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
)


@dataclass(frozen=True, slots=True)
class Axis:
    """From 0 to `top`, with ticks at every multiple of `step`, both ends among them."""

    top: float
    step: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where a value stands, 0 to 1."""
        return min(1.0, max(0.0, value / self.top))


def round_step(span: float, most: int) -> float:
    """The smallest of 1, 2 or 5 times a power of ten of which no more than `most` fill the span."""
    least = span / most
    power = math.floor(math.log10(least)) - 1  # one below: log10 rounds
    steps = (float(f"{digit}e{exponent}") for exponent in range(power, power + 4) for digit in (1, 2, 5))
    return next(step for step in steps if step >= least * (1 - 1e-9))


def axis_to(peak: float, most: int = 4, least_step: float = 0.0) -> Axis:
    """The axis of amounts from 0 to at least `peak`. least_step: 1 for things that are counted."""
    if not (math.isfinite(peak) and 1e-300 < peak < 1e300):
        peak = 1.0
    step = max(round_step(peak, most), least_step)
    count = max(1, math.ceil(peak / step * (1 - 1e-9)))
    return Axis(count * step, step, tuple(number * step for number in range(count + 1)))


def lengths_between(low_s: float, high_s: float, most: int = 7) -> tuple[float, ...]:
    """Round lengths of time around [low, high], the outermost at or beyond its ends. most: at least 2."""
    first = max((n for n, length in enumerate(LENGTHS_S) if length <= low_s), default=0)
    last = min((n for n, length in enumerate(LENGTHS_S) if length >= high_s), default=len(LENGTHS_S) - 1)
    if first == last:  # one tick is no scale
        first, last = max(0, first - 1), min(len(LENGTHS_S) - 1, last + 1)
    every = math.ceil((last - first) / (most - 1))
    reach = every * math.ceil((last - first) / every)
    first = max(0, min(first, len(LENGTHS_S) - 1 - reach))
    return LENGTHS_S[first : first + reach + 1 : every]


def log_share(value: float, low: float, high: float) -> float:
    """Where a value stands between two others on a logarithmic scale, 0 to 1."""
    if value <= low:
        return 0.0
    return min(1.0, math.log(value / low) / math.log(high / low))


def width_for(first_us: int, last_us: int, most: int, at_least: int = 0) -> int:
    """The narrowest of `WIDTHS_US` in which so many bins reach from one instant to the other."""
    fitting = (width for width in WIDTHS_US if width >= at_least and last_us // width - first_us // width < most)
    return next(fitting, WIDTHS_US[-1])


def bins_for(events: int) -> int:
    """How many bins of time so many events are worth: with more, a chart shows nothing but their noise."""
    return max(1, min(180, round(2 * math.sqrt(events)) - 1))


def time_step(span_us: int, most: int) -> int:
    """The smallest round distance of which no more than `most` fill the span."""
    return next((step for step in TIME_STEPS_US if step * most >= span_us), TIME_STEPS_US[-1])


def multiples(step: int, first: int, last: int) -> range:
    """The multiples of `step` from `first` to `last`, both included."""
    return range(-(-first // step) * step, last + 1, step)


def stretches(busy: Sequence[bool], least: int = 0) -> list[tuple[int, int]]:
    """The bins between the first busy one and the last as (from, up to), without pauses so long that they would leave
    no room for the rest: those longer than half of all the work. least: no shorter pause is one, in bins."""
    found = list(_runs(busy))
    work = sum(end - start for start, end in found)
    joined: list[tuple[int, int]] = []
    for start, end in found:
        if joined and start - joined[-1][1] <= max(work / 2, least):
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _runs(busy: Sequence[bool]) -> Iterator[tuple[int, int]]:
    edges = [0, *(n for n in range(1, len(busy)) if busy[n] != busy[n - 1]), len(busy)]
    return ((start, end) for start, end in pairwise(edges) if start < end and busy[start])


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time on an axis: instants, and the shares of the axis that they stand at."""

    first_us: int
    last_us: int
    start: float
    end: float

    def share(self, at_us: int) -> float:
        inside = (at_us - self.first_us) / (self.last_us - self.first_us)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, inside))


def laid_out(spans: Sequence[tuple[int, int]]) -> list[Piece]:
    """Stretches of time, none of them empty, side by side on one axis, with a little room where time is cut out."""
    room = min(0.04, 0.2 / len(spans)) if len(spans) > 1 else 0.0
    shares = 1 - room * (len(spans) - 1)
    total = sum(last - first for first, last in spans)
    pieces: list[Piece] = []
    for first, last in spans:
        start = pieces[-1].end + room if pieces else 0.0
        pieces.append(Piece(first, last, start, start + shares * (last - first) / total))
    return pieces


def spaced(shares: Sequence[float], least: float, first: Collection[int] = ()) -> list[int]:
    """Which of these places, in order, can be labelled when labels need `least` of the axis each. first: those that
    are chosen before the others."""
    chosen: list[int] = []
    for number in (*sorted(first), *range(len(shares))):
        if all(abs(shares[number] - shares[other]) >= least - 1e-9 for other in chosen):
            chosen.append(number)
    return sorted(chosen)
