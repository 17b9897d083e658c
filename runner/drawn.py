"""A sample of a run: some of its rows, drawn at random, and what is said of them.

Rule: a sample is drawn from the rows that are not final, by the run's own luck, and written down before its first row
is sent; so the same command goes on with the same rows, and a larger one draws more of them. It is forgotten when
anything else has been sent since.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from runner import notes
from runner.forecast import Rest
from runner.notes import NOTES, Sampled
from runner.records import Status
from runner.sampling import Interval, Stretch, draw
from runner.store import RunDirectory


@dataclass(frozen=True, slots=True)
class Drawn:
    """The rows of a sample by the number of their range, and of how many they were drawn."""

    by_range: Mapping[int, frozenset[int]]
    population: int
    note: Sampled | None  #: that is to be written before the first of them is sent

    @property
    def rows(self) -> int:
        return sum(map(len, self.by_range.values()))

    def left(self, rest: Rest) -> list[frozenset[int]]:
        """What of it is still to be sent, of each range."""
        return [frozenset(row for row in self.by_range.get(n, ()) if row in part) for n, part in enumerate(rest)]

    def left_by_range(self, rest: Rest) -> dict[int, frozenset[int]]:
        """The same, of the ranges that have such rows."""
        return {number: rows for number, rows in enumerate(self.left(rest)) if rows}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of answers: of the middle one, what nine of ten do not exceed, of the longest, and the job's cap."""

    median: int
    p90: int
    longest: int
    cap: int | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a sample says. Intervals are of 95 %; None: nothing can be said."""

    rows: int  #: drawn and final
    population: int  #: rows that they were drawn from
    statuses: Mapping[str, int]
    not_ok: Interval  #: share of rows
    truncated: Interval
    usd: Interval | None  #: of the whole job, what is spent already too
    max_usd: Decimal | None  #: the budget
    unknown: int  #: rows whose cost is not known, and is not in `usd`
    seconds: Interval | None  #: to send what is left
    left: int  #: rows that are not final
    in_flight: int  #: at which `seconds` is reckoned
    guessed: bool  #: that number: it is left to be found
    tokens: Lengths | None

    @property
    def rows_not_ok(self) -> int:
        return self.rows - self.statuses.get(Status.OK, 0)

    def to_json(self) -> dict[str, Any]:
        intervals = {name: getattr(self, name) for name in ("usd", "seconds", "not_ok", "truncated")}
        return {
            "rows": self.rows,
            "population": self.population,
            "statuses": dict(self.statuses),
            **{name: found and found.to_json() for name, found in intervals.items()},
            "unknown_cost_rows": self.unknown,
            "left": self.left,
            "in_flight": self.in_flight,
            "completion_tokens": self.tokens and asdict(self.tokens),
        }


def draw_sample(before: Sampled | None, run: str, rest: Sequence[Stretch], size: int) -> Drawn:
    """A sample of the rows that are not final; with the rows of the one before, as long as nothing else was sent."""
    total = sum(part.rows for part in rest)
    again = _final(before.rows, rest) if before and before.total == total else []
    others = total - len(again) - sum(map(len, rest))
    if before and again and others != before.others:
        again, others = [], others + len(again)
    frame = _joined(rest, again)
    rows = draw(frame, size, run)
    known = before is not None and before.others == others and set(rows) <= set(before.rows)
    drawn = {number: frozenset(found) for number, found in _by_range(rest, rows).items()}
    return Drawn(drawn, sum(map(len, frame)), None if known else Sampled(tuple(rows), others, total))


def sample_in(directory: RunDirectory, run: str, rest: Sequence[Stretch], size: int) -> Drawn:
    """The same, of a run that has begun. Writes nothing."""
    return draw_sample(notes.sampled(directory.root / NOTES, run), run, rest, size)


def _by_range(rest: Sequence[Stretch], rows: Iterable[int]) -> dict[int, list[int]]:
    firsts, found = [part.first for part in rest], dict[int, list[int]]()
    for row in rows:
        found.setdefault(bisect_right(firsts, row) - 1, []).append(row)
    return found


def _final(rows: Iterable[int], rest: Sequence[Stretch]) -> list[int]:
    return [row for number, found in _by_range(rest, rows).items() for row in found if row not in rest[number]]


def _joined(rest: Sequence[Stretch], rows: Iterable[int]) -> list[Stretch]:
    again = _by_range(rest, rows)
    return [part.joined(again[number]) if number in again else part for number, part in enumerate(rest)]
