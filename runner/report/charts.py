"""Numbers as charts: where each line, bar, tick and label stands.

Rule: a chart knows places and words, the template how they are drawn. Along the page places are shares (percent), so
that a chart fits any width while its text keeps its size; up and down they are pixels. Shapes are drawn 1000 units wide
and stretched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from runner.report.spread import Spread
from runner.report.text import length, tick_day, tick_length, tick_moment, tick_numbers
from runner.report.timeline import Course
from runner.scales import (
    Axis,
    Piece,
    axis_to,
    laid_out,
    lengths_between,
    log_share,
    multiples,
    spaced,
    time_step,
)

WIDE = 1000
HEIGHT = 112
_LABEL = 0.13  #: of an axis 300 pixels wide: `12:30` and a little room
_LETTER = 0.022  #: of such an axis, in the words beside a line
_OVER = 1.04  #: words may end a little beyond the axis
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Tick:
    """`at`: percent from the left, or pixels from the top. minor: its label is left out where there is little room.
    below: a second line."""

    at: float
    text: str
    minor: bool = False
    below: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """A path in a box `WIDE` units wide; `look`: area or line, perhaps bad."""

    look: str
    path: str


@dataclass(frozen=True, slots=True)
class Rule:
    """An upright line with a label in one of the lines above the chart. end: the label stands left of it."""

    at: float
    text: str
    line: int
    end: bool


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    unit: str  #: what the numbers are, in words
    told: str  #: what is to be seen, for those who do not see it
    y: Sequence[Tick]
    x: Sequence[Tick]
    shapes: Sequence[Shape]
    height: int = HEIGHT
    gaps: Sequence[Tick] = ()  #: where time is cut out, and how much
    rules: Sequence[Rule] = ()

    @property
    def dated(self) -> bool:
        return any(tick.below for tick in self.x)


@dataclass(frozen=True, slots=True)
class Clock:
    """Time along the page: the stretches in which something happened, side by side."""

    course: Course
    spans: Sequence[tuple[int, int]]
    pieces: Sequence[Piece]

    def bins(self) -> list[tuple[Piece, range]]:
        return [(piece, range(*span)) for piece, span in zip(self.pieces, self.spans, strict=True)]

    def ticks(self) -> list[Tick]:
        shown = sum(piece.last_us - piece.first_us for piece in self.pieces)
        step = time_step(shown, 6)
        marks = self._marks(step)
        least = _LABEL * (1.5 if step < 60_000_000 or step >= 86_400_000_000 else 1)
        shares = [share for share, _, _ in marks]
        chosen = [marks[n] for n in spaced(shares, least, [n for n, (_, _, opens) in enumerate(marks) if opens])]
        days = self._days([at for _, at, _ in chosen]) if step < _DAY_US else [""] * len(chosen)
        return [
            Tick(_percent(share), tick_moment(at, step), not day and number % 2 == 1 and len(chosen) > 4, day)
            for number, ((share, at, _), day) in enumerate(zip(chosen, days, strict=True))
        ]

    def _days(self, instants_us: Sequence[int]) -> list[str]:
        """For each the day, where another one than before it begins, of a course of several days."""
        if self.course.first_us // _DAY_US == self.course.last_us // _DAY_US:
            return [""] * len(instants_us)
        numbers = [None, *(at // _DAY_US for at in instants_us)]
        return [
            tick_day(at) if number != before and at % _DAY_US else ""
            for at, (before, number) in zip(instants_us, pairwise(numbers), strict=True)
        ]

    def _marks(self, step: int) -> list[tuple[float, int, bool]]:
        """Shares, round instants (in a stretch without one its start), and whether it is the first one of a stretch."""
        found = []
        for piece in self.pieces:
            inside = multiples(step, piece.first_us, piece.last_us) or [piece.first_us]
            found += [(piece.share(at), at, at == inside[0]) for at in inside]
        return found

    def gaps(self) -> list[Tick]:
        pairs = list(pairwise(self.pieces))
        shares = [(before.end + after.start) / 2 for before, after in pairs]
        told = spaced(shares, 1.5 * _LABEL)
        return [
            Tick(_percent(share), length((after.first_us - before.last_us) / 1e6) if number in told else "")
            for number, (share, (before, after)) in enumerate(zip(shares, pairs, strict=True))
        ]


def clock_of(course: Course) -> Clock:
    spans = course.stretches()
    return Clock(course, spans, laid_out([course.clipped(*span) for span in spans]))


def rates(clock: Clock, names: Sequence[str], scale: float = 1.0) -> list[float]:
    """The sum of these series, times `scale`, by second of each bin."""
    course = clock.course
    totals = sum(course.series[name] for name in names)
    return [float(total) * scale / course.seconds(number) for number, total in enumerate(totals.tolist())]


def steps(clock: Clock, values: Sequence[float], axis: Axis, look: str = "") -> list[Shape]:
    """An area that is level over every bin, and its edge."""
    areas, edges = [], []
    for piece, bins in clock.bins():
        edge = f"M{_wide(piece.start)} {HEIGHT}"
        for number in bins:
            end = piece.share(clock.course.start_us(number + 1))
            edge += f"V{_up(values[number], axis)}H{_wide(end)}"
        edges.append(edge + f"V{HEIGHT}")
        areas.append(edge + f"V{HEIGHT}Z")
    return [Shape(f"area {look}".strip(), "".join(areas)), Shape(f"line {look}".strip(), "".join(edges))]


def rising(clock: Clock, values: Sequence[float], axis: Axis) -> list[Shape]:
    """A line through running totals, and the area below it."""
    areas, lines, total = [], [], 0.0
    for piece, bins in clock.bins():
        points = [f"{_wide(piece.start)} {_up(total, axis)}"]
        for number in bins:
            total += values[number]
            points.append(f"{_wide(piece.share(clock.course.start_us(number + 1)))} {_up(total, axis)}")
        lines.append("M" + "L".join(points))
        areas.append(f"M{_wide(piece.start)} {HEIGHT}L{'L'.join(points)}V{HEIGHT}Z")
    return [Shape("area", "".join(areas)), Shape("line", "".join(lines))]


def y_ticks(axis: Axis, sign: str = "") -> list[Tick]:
    texts = tick_numbers(axis, sign)
    return [Tick(round(HEIGHT * (1 - axis.share(t)), 1), text) for t, text in zip(axis.ticks, texts, strict=True)]


QUANTILES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))


def histogram(title: str, unit: str, spread: Spread) -> Chart:
    """How many rows took how long, on a logarithmic scale, with the quantiles. Not for an empty spread."""
    ticks = lengths_between(spread.low_s, spread.high_s)
    low, high = ticks[0], ticks[-1]
    bars = max(10, min(60, round(4 * spread.count ** (1 / 3))))
    edges = [low * (high / low) ** (n / bars) for n in range(bars + 1)]
    counts = spread.between(edges)
    axis = axis_to(max(counts), least_step=1)
    path = "".join(f"V{_up(count, axis)}H{_wide((n + 1) / bars)}" for n, count in enumerate(counts))
    path = f"M0 {HEIGHT}{path}V{HEIGHT}"
    found = [(name, spread.quantile(share)) for share, name in QUANTILES]
    told = ", ".join(f"{name} {length(seconds)}" for name, seconds in found)
    return Chart(
        title,
        unit,
        f"{spread.count:,} rows between {length(spread.low_s)} and {length(spread.high_s)}: {told}.",
        y_ticks(axis),
        [
            Tick(_percent(log_share(tick, low, high)), tick_length(tick), n % 2 == 1 and len(ticks) > 5)
            for n, tick in enumerate(ticks)
        ],
        [Shape("area", path + "Z"), Shape("line", path)],
        rules=_rules([(f"{name} {length(seconds)}", log_share(seconds, low, high)) for name, seconds in found]),
    )


def _rules(named: Sequence[tuple[str, float]]) -> list[Rule]:
    """Labels right of their lines, near the end of the axis left of them; in such an order that no line runs through
    the label of another, as far as there is one."""
    placed = [(text, share, share + _LETTER * len(text) > _OVER) for text, share in named]
    ordered = [each for each in placed if not each[2]] + [each for each in reversed(placed) if each[2]]
    return [Rule(_percent(share), text, line, end) for line, (text, share, end) in enumerate(ordered)]


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _wide(share: float) -> str:
    return f"{share * WIDE:.1f}".removesuffix(".0")


def _up(value: float, axis: Axis) -> str:
    return f"{HEIGHT * (1 - axis.share(value)):.1f}".removesuffix(".0")
